//! Every pod in the namespace runs as Pod Security `restricted` wants it, and stricter: not root, nothing writable but what it was
//! given, no token, no capability. What the specification says is compared with what the kernel says of the processes.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tests::{
    cluster::{
        Cluster, Pod,
        node::{self, Facts},
    },
    promise,
};

#[test]
fn as_it_is_specified_and_as_it_runs() -> Result<()> {
    promise(async {
        let cluster = Cluster::connect()?;
        cluster.whole().await?;
        let namespace = cluster.kubectl().get(&["namespace", "kontor"]).await?;
        let labels = &namespace["metadata"]["labels"];
        ensure!(
            labels["pod-security.kubernetes.io/enforce"] == "restricted",
            "{labels}"
        );
        // of everything in the namespace, jobs that have ended included
        let list = cluster.kubectl().get(&["pods"]).await?;
        let pods: Vec<_> = list["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Pod::read)
            .collect();
        ensure!(pods.len() >= 9, "only {} pods", pods.len());
        // other tests' pods come and go meanwhile: how these run is not looked at
        let stays: BTreeSet<_> = cluster.all_pods().await?.into_iter().map(|pod| pod.uid).collect();
        let mut problems = Vec::new();
        for pod in &pods {
            problems.extend(
                specified(pod)
                    .into_iter()
                    .map(|problem| format!("{}: {problem}", pod.name)),
            );
        }
        let runs: Vec<_> = pods
            .into_iter()
            .filter(|pod| pod.is_ready && stays.contains(&pod.uid))
            .collect();
        for (pod, facts) in node::facts(&runs).await? {
            problems.extend(
                running(&facts)?
                    .into_iter()
                    .map(|problem| format!("{pod} {problem}")),
            );
        }
        ensure!(problems.is_empty(), "{}", problems.join("\n"));
        Ok(())
    })
}

/// What the processes of a pod may do, and should not.
fn running(facts: &Facts) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    let found = |name: &str| facts.status.get(name).map_or("", String::as_str);
    for (name, wanted) in [
        ("CapEff", "0000000000000000"),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
    ] {
        if found(name) != wanted {
            problems.push(format!("runs with {name} {}", found(name)));
        }
    }
    let user: u32 = found("Uid").parse()?;
    if user < 10_000 {
        problems.push(format!("runs as user {user}"));
    }
    if !facts.root_is_read_only {
        problems.push("can write to its root".to_owned());
    }
    Ok(problems)
}

/// What the specification of a pod lacks.
fn specified(pod: &Pod) -> Vec<String> {
    let spec = &pod.json["spec"];
    let of_pod = &spec["securityContext"];
    let mut problems = Vec::new();
    if spec["automountServiceAccountToken"] != json!(false) {
        problems.push("has a token".to_owned());
    }
    for host in ["hostNetwork", "hostPID", "hostIPC"] {
        if spec[host] == json!(true) {
            problems.push(format!("has {host}"));
        }
    }
    for container in pod.containers() {
        let name = &container["name"];
        let own = &container["securityContext"];
        let either = |key: &str| {
            if own[key].is_null() {
                &of_pod[key]
            } else {
                &own[key]
            }
        };
        let wanted: [(&str, &Value, Value); 6] = [
            ("runAsNonRoot", either("runAsNonRoot"), json!(true)),
            (
                "seccompProfile",
                &either("seccompProfile")["type"],
                json!("RuntimeDefault"),
            ),
            (
                "allowPrivilegeEscalation",
                &own["allowPrivilegeEscalation"],
                json!(false),
            ),
            (
                "readOnlyRootFilesystem",
                &own["readOnlyRootFilesystem"],
                json!(true),
            ),
            ("capabilities", &own["capabilities"]["drop"], json!(["ALL"])),
            ("added capabilities", &own["capabilities"]["add"], Value::Null),
        ];
        problems.extend(
            wanted
                .iter()
                .filter(|(_, found, wanted)| *found != wanted)
                .map(|(key, found, _)| format!("{name} has {key} {found}")),
        );
        for kind in ["requests", "limits"] {
            if container["resources"][kind]["memory"].is_null() {
                problems.push(format!("{name} has no {kind} of memory"));
            }
        }
        if container["env"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|variable| !variable["valueFrom"]["secretKeyRef"].is_null())
        {
            problems.push(format!("{name} has a secret in its environment"));
        }
    }
    problems
}

#[test]
fn the_namespace_refuses_what_is_not() -> Result<()> {
    promise(async {
        let cluster = Cluster::connect()?;
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "as-root"},
            "spec": {"containers": [{"name": "as-root", "image": "localhost/kontor/none:1"}]},
        });
        let said = cluster
            .kubectl()
            .say(&["apply", "--dry-run=server", "-f", "-"], &pod.to_string())
            .await?;
        ensure!(
            said.code != 0 && said.err.contains("violates PodSecurity \"restricted"),
            "{}{}",
            said.out,
            said.err
        );
        Ok(())
    })
}
