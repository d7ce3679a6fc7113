//! A wrong configuration is a pod that ends at once and says in one line what is wrong: a value that makes no sense, a secret that
//! is not there. Tried with a pod of its own for each service, beside the right ones.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use tests::{
    cluster::{Cluster, SERVICES, eventually, kubectl::PODS},
    promise,
};

#[test]
fn a_bad_value() -> Result<()> {
    promise(async {
        let cluster = Cluster::connect()?;
        try_join_all(SERVICES.map(async |service| {
            let mut pod = pod_of(&cluster, service, "bad-value").await?;
            let variables = pod["spec"]["containers"][0]["env"].as_array_mut();
            variables
                .context("no environment")?
                .push(json!({"name": "KONTOR_MAX_IN_FLIGHT", "value": "many"}));
            let lines = last_words(&cluster, &pod).await?;
            ensure!(
                lines.len() == 1 && lines[0].contains("KONTOR_MAX_IN_FLIGHT"),
                "{service} says {lines:?}"
            );
            Ok(())
        }))
        .await?;
        Ok(())
    })
}

#[test]
fn a_missing_secret() -> Result<()> {
    promise(async {
        let cluster = Cluster::connect()?;
        try_join_all(SERVICES.map(async |service| {
            let mut pod = pod_of(&cluster, service, "no-secret").await?;
            let text = pod.to_string();
            // the same pod in a namespace where somebody forgot this Secret
            ensure!(text.contains("\"caller\""), "{service} has no Secret `caller`");
            pod = serde_json::from_str(&text.replace("\"name\":\"caller\"", "\"name\":\"forgotten\""))?;
            let lines = last_words(&cluster, &pod).await?;
            ensure!(
                lines.len() == 1 && lines[0].contains("KONTOR_CALLER_SECRET"),
                "{service} says {lines:?}"
            );
            Ok(())
        }))
        .await?;
        Ok(())
    })
}

/// A pod as the Deployment of a service makes it, which no Service and no policy knows.
async fn pod_of(cluster: &Cluster, service: &str, name: &str) -> Result<Value> {
    let deployment = cluster.kubectl().get(&["deployment", service]).await?;
    let mut spec = deployment["spec"]["template"]["spec"].clone();
    spec["restartPolicy"] = json!("Never");
    Ok(json!({
        "apiVersion": "v1", "kind": "Pod", "spec": spec,
        "metadata": {"name": format!("{name}-{service}"), "labels": {"kontor/wrong": "configuration"}},
    }))
}

/// Runs a pod to its end, which must be a failure; the lines of its log.
async fn last_words(cluster: &Cluster, pod: &Value) -> Result<Vec<String>> {
    let name = pod["metadata"]["name"].as_str().context("no name")?;
    cluster
        .kubectl()
        .run(&["delete", "pod", name, "--ignore-not-found", "--now"])
        .await?;
    cluster.kubectl().apply(pod).await?;
    let ended = eventually(&format!("{name} ends"), Duration::from_mins(2), async || {
        let pod = cluster.kubectl().look(PODS, name, "").await?;
        let state = &pod["status"]["containerStatuses"][0]["state"];
        let code = state["terminated"]["exitCode"].as_i64();
        code.with_context(|| format!("it is {}", pod["status"]))
    })
    .await;
    let log = cluster.kubectl().run(&["logs", name]).await;
    cluster
        .kubectl()
        .run(&["delete", "pod", name, "--now", "--wait=false"])
        .await?;
    ensure!(ended? == 1, "{name} did not end with exit code 1");
    Ok(log?.lines().map(str::to_owned).collect())
}
