//! What every pod is: `restricted`, as the namespace enforces it, and some things more.

use std::fmt::{self, Display};

use serde_json::Value;

use crate::rendered::{Object, Rendered, at, everywhere, list, text};

/// The smallest user number that is nobody's on a node.
const FIRST_USER: i64 = 10_000;

/// A pod, as its owner would make it.
pub struct Pod<'a> {
    /// The Deployment, StatefulSet, Job or CronJob.
    pub owner: &'a Object,
    /// The labels of the pod.
    pub labels: &'a Value,
    /// The specification of the pod.
    pub spec: &'a Value,
}

impl Display for Pod<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.owner.fmt(f)
    }
}

impl<'a> Pod<'a> {
    /// The label that names it.
    pub fn name(&self) -> &'a str {
        text(self.labels, "/app.kubernetes.io~1name")
    }

    /// The label that says which part of kontor it belongs to.
    pub fn component(&self) -> &'a str {
        text(self.labels, "/app.kubernetes.io~1component")
    }

    /// All containers, those that come first too.
    pub fn containers(&self) -> impl Iterator<Item = &'a Value> {
        let spec = self.spec;
        ["/initContainers", "/containers", "/ephemeralContainers"]
            .into_iter()
            .flat_map(move |which| list(spec, which))
    }

    /// Whether a container listens on the port, by its name or number.
    pub fn listens_on(&self, port: &Value) -> bool {
        self.containers()
            .flat_map(|container| list(container, "/ports"))
            .any(|known| at(known, "/name") == port || at(known, "/containerPort") == port)
    }
}

/// The pods of a rendering.
pub fn pods(rendered: &Rendered) -> Vec<Pod<'_>> {
    let template = |object: &Object| match object.kind() {
        "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "Job" => Some("/spec/template"),
        "CronJob" => Some("/spec/jobTemplate/spec/template"),
        "Pod" => Some(""),
        _ => None,
    };
    rendered
        .objects
        .iter()
        .filter_map(|owner| {
            let template = owner.at(template(owner)?);
            Some(Pod {
                owner,
                labels: at(template, "/metadata/labels"),
                spec: at(template, "/spec"),
            })
        })
        .collect()
}

/// Says what is wrong with each pod.
pub fn each_pod(rendered: &Rendered, check: impl Fn(&Pod<'_>) -> Vec<String>) -> Vec<String> {
    pods(rendered)
        .iter()
        .flat_map(|pod| {
            check(pod)
                .into_iter()
                .map(|what| rendered.problem(pod, what))
                .collect::<Vec<_>>()
        })
        .collect()
}

/// Says what is wrong with each container of each pod.
pub fn each_container(rendered: &Rendered, check: impl Fn(&Pod<'_>, &Value) -> Vec<String>) -> Vec<String> {
    each_pod(rendered, |pod| {
        pod.containers()
            .flat_map(|container| {
                let name = text(container, "/name");
                check(pod, container)
                    .into_iter()
                    .map(move |what| format!("container {name}: {what}"))
            })
            .collect()
    })
}

/// The level `restricted` of the Pod Security Standards, and a read-only root.
pub fn restricted(rendered: &Rendered) -> Vec<String> {
    let mut problems = each_pod(rendered, |pod| pod_level(pod.spec));
    problems.extend(each_container(rendered, |pod, container| {
        container_level(at(pod.spec, "/securityContext"), container)
    }));
    problems
}

fn pod_level(spec: &Value) -> Vec<String> {
    const VOLUMES: [&str; 8] = [
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ];
    let mut problems = Vec::new();
    for shared in ["hostNetwork", "hostPID", "hostIPC"] {
        if spec[shared] == true {
            problems.push(format!("{shared} is on"));
        }
    }
    if !list(spec, "/securityContext/sysctls").is_empty() {
        problems.push("sets sysctls".to_owned());
    }
    if spec["automountServiceAccountToken"] != false {
        problems.push("automountServiceAccountToken is not false: no pod needs the API".to_owned());
    }
    for volume in list(spec, "/volumes") {
        let name = text(volume, "/name");
        let kind = volume
            .as_object()
            .and_then(|fields| fields.keys().find(|field| *field != "name"));
        if !kind.is_some_and(|kind| VOLUMES.contains(&kind.as_str())) {
            problems.push(format!("volume {name}: {kind:?} is not allowed"));
        }
        if kind.is_some_and(|kind| kind == "emptyDir") && text(volume, "/emptyDir/sizeLimit").is_empty() {
            problems.push(format!(
                "volume {name}: an emptyDir without sizeLimit can fill the node"
            ));
        }
    }
    problems
}

fn container_level(pod: &Value, container: &Value) -> Vec<String> {
    let own = at(container, "/securityContext");
    let effective = |field: &str| {
        if own[field].is_null() {
            &pod[field]
        } else {
            &own[field]
        }
    };
    let drops_all = list(own, "/capabilities/drop").iter().any(|name| name == "ALL");
    let seccomp = text(effective("seccompProfile"), "/type");
    let high = effective("runAsUser")
        .as_i64()
        .is_some_and(|user| user >= FIRST_USER);
    let on_host = list(container, "/ports")
        .iter()
        .any(|port| !port["hostPort"].is_null());
    [
        (effective("runAsNonRoot") == true, "runAsNonRoot is not true"),
        (high, "runAsUser is not a number from 10000 on"),
        (
            ["RuntimeDefault", "Localhost"].contains(&seccomp),
            "seccompProfile is not RuntimeDefault",
        ),
        (own["privileged"] != true, "is privileged"),
        (
            own["allowPrivilegeEscalation"] == false,
            "allowPrivilegeEscalation is not false",
        ),
        (
            own["readOnlyRootFilesystem"] == true,
            "readOnlyRootFilesystem is not true",
        ),
        (drops_all, "does not drop ALL capabilities"),
        (
            list(own, "/capabilities/add").is_empty(),
            "adds capabilities, and none is needed",
        ),
        (
            matches!(text(own, "/procMount"), "" | "Default"),
            "procMount is not the default",
        ),
        (!on_host, "takes a port of the node"),
    ]
    .into_iter()
    .filter(|(good, _)| !good)
    .map(|(_, what)| what.to_owned())
    .collect()
}

/// The namespace enforces `restricted`, and everything is in it.
pub fn one_strict_namespace(rendered: &Rendered) -> Vec<String> {
    const OF_THE_CLUSTER: [&str; 2] = ["Namespace", "PriorityClass"];
    let level = rendered.find("Namespace", "kontor").map_or("", |it| {
        it.text("/metadata/labels/pod-security.kubernetes.io~1enforce")
    });
    let lax = (level != "restricted")
        .then(|| rendered.problem("Namespace/kontor", "does not enforce `restricted`"));
    let elsewhere = rendered
        .objects
        .iter()
        .filter(|object| !OF_THE_CLUSTER.contains(&object.kind()))
        .filter(|object| object.text("/metadata/namespace") != "kontor")
        .map(|object| rendered.problem(object, "is not in the namespace kontor"));
    lax.into_iter().chain(elsewhere).collect()
}

/// A container says what it needs, and what it may take at most, of all that a node has.
pub fn resources(rendered: &Rendered) -> Vec<String> {
    each_container(rendered, |_, container| {
        let mut missing = Vec::new();
        for side in ["requests", "limits"] {
            for resource in ["cpu", "memory", "ephemeral-storage"] {
                if at(container, &format!("/resources/{side}/{resource}")).is_null() {
                    missing.push(format!("no resources.{side}.{resource}"));
                }
            }
        }
        missing
    })
}

/// Images have a fixed version, and say which registry they are from: else Docker Hub is asked, where the name may be anybody's.
pub fn pinned_images(rendered: &Rendered) -> Vec<String> {
    each_container(rendered, |_, container| {
        let image = text(container, "/image");
        let tag = image
            .rsplit('/')
            .next()
            .and_then(|last| last.split_once(':'))
            .map_or("", |(_, tag)| tag);
        let mut problems = Vec::new();
        if tag.is_empty() || tag == "latest" {
            problems.push(format!("image {image} has no fixed version"));
        }
        let registry = image.split_once('/').map_or("", |(first, _)| first);
        if registry != "localhost" && !registry.contains(['.', ':']) {
            problems.push(format!("image {image} names no registry"));
        }
        if text(container, "/imagePullPolicy") != "IfNotPresent" {
            problems.push("imagePullPolicy is not IfNotPresent".to_owned());
        }
        problems
    })
}

/// Secrets are files: the environment shows up in dumps, in child processes and in `kubectl describe`.
pub fn no_secret_in_the_environment(rendered: &Rendered) -> Vec<String> {
    each_container(rendered, |_, container| {
        let by_name = list(container, "/env")
            .iter()
            .filter(|variable| {
                !at(variable, "/valueFrom/secretKeyRef").is_null() || shows_a_password(&variable["value"])
            })
            .map(|variable| format!("the variable {} is a secret", text(variable, "/name")));
        let whole = list(container, "/envFrom")
            .iter()
            .filter(|source| !source["secretRef"].is_null())
            .map(|_| "envFrom takes a whole secret".to_owned());
        by_name.chain(whole).collect()
    })
    .into_iter()
    .chain(rendered.of_kind("ConfigMap").flat_map(|map| {
        let data = map.at("/data").as_object().into_iter().flatten();
        data.filter(|(_, value)| shows_a_password(value))
            .map(|(key, _)| rendered.problem(map, format!("{key} has a password in it")))
            .collect::<Vec<_>>()
    }))
    .collect()
}

/// Whether a value is an address with a password: `scheme://user:password@host`.
fn shows_a_password(value: &Value) -> bool {
    value.as_str().is_some_and(|value| {
        value.split_once("://").is_some_and(|(_, rest)| {
            let authority = rest.split('/').next().unwrap_or_default();
            authority
                .rsplit_once('@')
                .is_some_and(|(user, _)| user.contains(':'))
        })
    })
}

#[test]
fn every_pod_is_restricted() {
    everywhere(restricted);
}

#[test]
fn the_namespace_enforces_it_and_nothing_is_outside() {
    everywhere(one_strict_namespace);
}

#[test]
fn every_container_says_what_it_needs() {
    everywhere(resources);
}

#[test]
fn every_image_has_a_version() {
    everywhere(pinned_images);
}

#[test]
fn secrets_are_files() {
    everywhere(no_secret_in_the_environment);
}
