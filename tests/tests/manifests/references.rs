//! What a pod names is there: ConfigMaps, secrets, volumes, accounts.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{
    pods::{Pod, each_pod},
    rendered::{Rendered, at, everywhere, list, text},
};

/// Made by the cluster's own overlay, where a provider's Kafka asks for a password.
const PROVIDERS: &str = "kafka";

/// Names of the secrets that exist once everything is applied.
fn secrets(rendered: &Rendered) -> BTreeSet<&str> {
    let of = |kind: &'static str, pointer: &'static str| {
        rendered.of_kind(kind).map(move |object| object.text(pointer))
    };
    of("Secret", "/metadata/name")
        .chain(of("ExternalSecret", "/spec/target/name"))
        .chain(of("Certificate", "/spec/secretName"))
        .collect()
}

/// Whether the secrets come with the manifests: else people make them by hand.
fn brings_secrets(rendered: &Rendered) -> bool {
    rendered.of_kind("Secret").next().is_some() || rendered.of_kind("ExternalSecret").next().is_some()
}

/// A source of files: the kind and name of an object.
fn sources(volume: &Value) -> Vec<(&'static str, &str)> {
    let mut all = Vec::new();
    for source in [volume].into_iter().chain(list(volume, "/projected/sources")) {
        // a volume says `secretName`, a source of a projected one says `name`
        let secret = at(source, "/secret");
        for name in [text(secret, "/secretName"), text(secret, "/name")] {
            if !name.is_empty() {
                all.push(("Secret", name));
            }
        }
        let map = text(source, "/configMap/name");
        if !map.is_empty() {
            all.push(("ConfigMap", map));
        }
    }
    all
}

/// ConfigMaps, secrets and accounts that pods name exist, and mounts have their volumes.
pub fn references(rendered: &Rendered) -> Vec<String> {
    let secrets = secrets(rendered);
    each_pod(rendered, |pod| {
        let mut wanted: Vec<(&str, &str)> = list(pod.spec, "/volumes").iter().flat_map(sources).collect();
        for source in pod.containers().flat_map(|container| list(container, "/envFrom")) {
            wanted.push(("ConfigMap", text(source, "/configMapRef/name")));
        }
        wanted.push(("ServiceAccount", text(pod.spec, "/serviceAccountName")));
        let missing = wanted.iter().filter(|(kind, name)| match *kind {
            "Secret" => brings_secrets(rendered) && !secrets.contains(name) && *name != PROVIDERS,
            kind => rendered.find(kind, name).is_none(),
        });
        let mut problems: Vec<_> = missing
            .map(|(kind, name)| format!("there is no {kind} `{name}`"))
            .collect();
        problems.extend(mounts(pod));
        problems
    })
}

fn mounts(pod: &Pod<'_>) -> Vec<String> {
    let claims = list(&pod.owner.0, "/spec/volumeClaimTemplates");
    let known: BTreeSet<_> = list(pod.spec, "/volumes")
        .iter()
        .map(|volume| text(volume, "/name"))
        .chain(claims.iter().map(|claim| text(claim, "/metadata/name")))
        .collect();
    let used: BTreeSet<_> = pod
        .containers()
        .flat_map(|container| list(container, "/volumeMounts"))
        .map(|mount| text(mount, "/name"))
        .collect();
    let missing = used.difference(&known).map(|name| format!("no volume `{name}`"));
    let idle = known
        .difference(&used)
        .map(|name| format!("nobody mounts the volume `{name}`"));
    missing.chain(idle).collect()
}

/// Secrets are mounted so that only the pod's user reads them.
pub fn closed_secrets(rendered: &Rendered) -> Vec<String> {
    each_pod(rendered, |pod| {
        list(pod.spec, "/volumes")
            .iter()
            .filter(|volume| sources(volume).iter().any(|(kind, _)| *kind == "Secret"))
            .filter(|volume| {
                let mode = [
                    at(volume, "/secret/defaultMode"),
                    at(volume, "/projected/defaultMode"),
                ];
                !mode
                    .iter()
                    .any(|mode| matches!(mode.as_i64(), Some(0o440 | 0o400)))
            })
            .map(|volume| format!("the secrets of volume `{}` are not 0440", text(volume, "/name")))
            .collect()
    })
}

#[test]
fn everything_that_a_pod_names_is_there() {
    everywhere(references);
}

#[test]
fn secrets_are_for_the_pods_user_only() {
    everywhere(closed_secrets);
}
