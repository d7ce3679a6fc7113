//! The five services: their settings are those that the programs declare, and their versions are one.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
    sync::LazyLock,
};

use anyhow::{Result, ensure};
use serde_json::Value;
use tests::world::program;

use crate::{
    pods::{Pod, each_container, each_pod},
    rendered::{Rendered, everywhere, list, overlays, text},
};

/// The services, by their programs.
const SERVICES: [&str; 5] = ["auth", "account", "transfer", "chat", "gateway"];

/// Values for the secrets, to have the rest of a configuration read.
const SECRETS: [(&str, &str); 4] = [
    ("KONTOR_CALLER_SECRET", "0123456789abcdef0123456789abcdef"),
    ("KONTOR_LEDGER_KEY", "0123456789abcdef0123456789abcdef"),
    ("KONTOR_DATABASE_URL", "postgres://service@postgres:5432/service"),
    ("KONTOR_REDIS_URL", "redis://redis:6379"),
];

/// What a program says about its settings.
#[derive(Default)]
struct Declared {
    settings: BTreeSet<String>,
    secrets: BTreeSet<String>,
}

/// The settings that each program declares.
static DECLARED: LazyLock<BTreeMap<&str, Result<Declared>>> = LazyLock::new(|| {
    SERVICES
        .into_iter()
        .map(|service| (service, declared(service)))
        .collect()
});

fn declared(service: &str) -> Result<Declared> {
    let output = Command::new(program(service)?)
        .arg("--help")
        .env_clear()
        .output()?;
    let help = String::from_utf8(output.stdout)?;
    let mut declared = Declared::default();
    for line in help.lines().filter(|line| line.starts_with("  KONTOR_")) {
        let name = line.split_whitespace().next().unwrap_or_default().to_owned();
        if line.contains("(required secret;") {
            declared.secrets.insert(name);
        // one that may be absent is for the clusters whose servers ask for it
        } else if !line.contains("(secret;") {
            declared.settings.insert(name);
        }
    }
    ensure!(!declared.settings.is_empty(), "{service} --help lists no setting");
    Ok(declared)
}

/// The pod's service, if it is one.
fn service(pod: &Pod<'_>) -> Option<&'static str> {
    SERVICES
        .into_iter()
        .find(|service| pod.owner.kind() == "Deployment" && pod.name() == *service)
}

/// The settings from ConfigMaps, and the variables beside them.
fn given<'a>(
    rendered: &'a Rendered,
    pod: &Pod<'a>,
) -> (BTreeMap<&'a str, &'a str>, BTreeMap<&'a str, &'a Value>) {
    let containers = list(pod.spec, "/containers");
    let settings = containers
        .iter()
        .flat_map(|container| list(container, "/envFrom"))
        .filter_map(|source| rendered.find("ConfigMap", text(source, "/configMapRef/name")))
        .filter_map(|map| map.at("/data").as_object())
        .flatten()
        .map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default()))
        .collect();
    let variables = containers
        .iter()
        .flat_map(|container| list(container, "/env"))
        .map(|variable| (text(variable, "/name"), variable))
        .collect();
    (settings, variables)
}

/// The keys of a service's ConfigMap are the settings that it declares, and its secrets are files that are mounted.
pub fn settings(rendered: &Rendered) -> Vec<String> {
    each_pod(rendered, |pod| {
        let Some(declared) = service(pod).and_then(|service| DECLARED.get(service)) else {
            return Vec::new();
        };
        let declared = match declared {
            Ok(declared) => declared,
            Err(error) => return vec![format!("{error:#}")],
        };
        let (settings, variables) = given(rendered, pod);
        let mut problems = Vec::new();
        for name in &declared.settings {
            if !settings.contains_key(name.as_str()) {
                problems.push(format!("its ConfigMap lacks the setting {name}"));
            }
        }
        for name in settings.keys() {
            if !declared.settings.contains(*name) {
                problems.push(format!(
                    "its ConfigMap has {name}, which the program does not know"
                ));
            }
        }
        for secret in &declared.secrets {
            if !variables.contains_key(format!("{secret}_FILE").as_str()) {
                problems.push(format!("no {secret}_FILE"));
            }
        }
        let files = settings.into_iter().chain(
            variables
                .iter()
                .map(|(name, variable)| (*name, text(variable, "/value"))),
        );
        for (name, path) in files.filter(|(name, path)| name.ends_with("_FILE") && !path.is_empty()) {
            if !mounted(pod, path) {
                problems.push(format!("{name} names {path}, which no volume has"));
            }
        }
        problems
    })
}

/// Whether a volume of the pod has a file at the path.
fn mounted(pod: &Pod<'_>, path: &str) -> bool {
    pod.containers()
        .flat_map(|container| list(container, "/volumeMounts"))
        .any(|mount| {
            let below = path
                .strip_prefix(text(mount, "/mountPath"))
                .and_then(|rest| rest.strip_prefix('/'));
            let volume = list(pod.spec, "/volumes")
                .iter()
                .find(|volume| volume["name"] == mount["name"]);
            let (Some(below), Some(volume)) = (below, volume) else {
                return false;
            };
            // the keys that cert-manager writes
            let of_certificate = !text(volume, "/secret/secretName").is_empty()
                && ["tls.crt", "tls.key", "ca.crt"].contains(&below);
            let projected = list(volume, "/projected/sources")
                .iter()
                .flat_map(|source| list(source, "/secret/items"))
                .any(|item| text(item, "/path") == below);
            of_certificate || projected
        })
}

/// Threads follow the limit of the CPU, not the size of the node.
pub fn threads(rendered: &Rendered) -> Vec<String> {
    each_pod(rendered, |pod| {
        if service(pod).is_none() {
            return Vec::new();
        }
        let (_, variables) = given(rendered, pod);
        let follows = variables
            .get("TOKIO_WORKER_THREADS")
            .is_some_and(|variable| text(variable, "/valueFrom/resourceFieldRef/resource") == "limits.cpu");
        if follows {
            Vec::new()
        } else {
            vec!["TOKIO_WORKER_THREADS is not limits.cpu".to_owned()]
        }
    })
}

/// The version of the workspace, without which Cargo.toml would not be one.
fn workspace_version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

/// Images of the services, wherever they run, and their labels have the version of the workspace.
pub fn versions(rendered: &Rendered) -> Vec<String> {
    let version = workspace_version();
    let images = each_container(rendered, |_, container| {
        let image = text(container, "/image");
        let service = image.rsplit('/').next().and_then(|last| last.split_once(':'));
        match service {
            Some((service, tag)) if SERVICES.contains(&service) && tag != version => {
                vec![format!("image {image} is not of version {version}")]
            }
            _ => Vec::new(),
        }
    });
    let labels = each_pod(rendered, |pod| {
        let label = text(pod.labels, "/app.kubernetes.io~1version");
        if service(pod).is_some() && label != version {
            return vec![format!("the label of its version says {label}")];
        }
        Vec::new()
    });
    [images, labels].concat()
}

/// A ConfigMap of a service is named by its content, so that a change rolls the pods.
pub fn hashed(rendered: &Rendered) -> Vec<String> {
    each_pod(rendered, |pod| {
        let Some(service) = service(pod) else {
            return Vec::new();
        };
        let sources = list(pod.spec, "/containers/0/envFrom");
        let hashed = sources.iter().all(|source| {
            text(source, "/configMapRef/name")
                .strip_prefix(service)
                .and_then(|rest| rest.strip_prefix('-'))
                .is_some_and(|hash| hash.len() == 10 && hash.bytes().all(|byte| byte.is_ascii_alphanumeric()))
        });
        if sources.len() == 1 && hashed {
            Vec::new()
        } else {
            vec!["its ConfigMap has no hash of its content in the name".to_owned()]
        }
    })
}

/// The programs take the values of each overlay.
pub fn accepted(rendered: &Rendered) -> Vec<String> {
    each_pod(rendered, |pod| {
        let Some(service) = service(pod) else {
            return Vec::new();
        };
        let (settings, _) = given(rendered, pod);
        let values = settings
            .into_iter()
            // the files are the cluster's
            .filter(|(name, _)| !name.ends_with("_FILE"))
            .chain(SECRETS);
        let output = program(service).map(|program| {
            Command::new(program)
                .arg("--print-config")
                .env_clear()
                .envs(values)
                .output()
        });
        match output {
            Ok(Ok(output)) if output.status.success() => Vec::new(),
            Ok(Ok(output)) => vec![String::from_utf8_lossy(&output.stderr).trim().to_owned()],
            Ok(Err(error)) => vec![error.to_string()],
            Err(error) => vec![error.to_string()],
        }
    })
}

#[test]
fn config_maps_have_the_settings_that_services_declare() {
    everywhere(settings);
}

#[test]
fn threads_follow_the_limit_of_the_cpu() {
    everywhere(threads);
}

#[test]
fn a_release_has_one_version() {
    everywhere(versions);
}

#[test]
fn a_changed_setting_rolls_the_pods() {
    everywhere(hashed);
}

#[test]
fn services_accept_the_values_of_every_overlay() {
    let problems: Vec<_> = overlays().iter().flat_map(accepted).collect();
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

#[test]
fn regions_differ_by_their_names_only() {
    let neutral = |name: &str| -> Vec<String> {
        let found = overlays().iter().find(|rendered| rendered.name == name);
        let objects = found
            .map(|rendered| rendered.objects.as_slice())
            .unwrap_or_default();
        let mut lines: Vec<_> = objects
            .iter()
            .map(|object| {
                let mut value = object.0.clone();
                if object.kind() == "ConfigMap" {
                    // a hash is in the name
                    value["metadata"]["name"] = Value::Null;
                }
                value.to_string().replace(&format!("\"{name}\""), "\"REGION\"")
            })
            .map(|text| text.replace(&format!("{name}.kontor.example"), "REGION.kontor.example"))
            .map(|text| without_hashes(&text))
            .collect();
        lines.sort();
        lines
    };
    let us = neutral("us");
    assert!(us.len() > 50, "{} objects", us.len());
    for other in ["eu", "asia"] {
        let other_lines = neutral(other);
        let differing: Vec<_> = us
            .iter()
            .zip(&other_lines)
            .filter(|(a, b)| a != b)
            .take(1)
            .collect();
        assert!(
            us.len() == other_lines.len() && differing.is_empty(),
            "{other}: {differing:#?}"
        );
    }
}

/// The names of ConfigMaps without the hash at their end.
fn without_hashes(text: &str) -> String {
    const KEY: &str = "\"configMapRef\":{\"name\":\"";
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(KEY) {
        out.push_str(before);
        rest = after.split_once('"').map_or("", |(_, rest)| rest);
    }
    out.push_str(rest);
    out
}
