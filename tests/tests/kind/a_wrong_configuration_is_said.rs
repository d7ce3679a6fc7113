//! A wrong configuration is a pod that ends at once and says in one line what is wrong: a value that makes no sense, a secret that
//! is not there. Tried with a pod of its own for each service, beside the right ones.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tests::{
    cluster::{
        Cluster, SERVICES, eventually,
        kubectl::{DEPLOYMENTS, PODS},
    },
    promise,
};

#[test]
fn a_bad_value() -> Result<()> {
    promise(async {
        each_says("bad-value", "KONTOR_MAX_IN_FLIGHT", |pod| {
            let variables = pod["spec"]["containers"][0]["env"].as_array_mut();
            variables
                .context("no environment")?
                .push(json!({"name": "KONTOR_MAX_IN_FLIGHT", "value": "many"}));
            Ok(())
        })
        .await
    })
}

#[test]
fn a_missing_secret() -> Result<()> {
    promise(async {
        each_says("no-secret", "KONTOR_CALLER_SECRET", |pod| {
            let text = pod.to_string();
            // the same pod in a namespace where somebody forgot this Secret
            ensure!(text.contains("\"caller\""), "it has no Secret `caller`");
            *pod = serde_json::from_str(&text.replace("\"name\":\"caller\"", "\"name\":\"forgotten\""))?;
            Ok(())
        })
        .await
    })
}

/// Runs a pod of each service with a fault: each ends with one line that names what is wrong.
async fn each_says(fault: &str, what: &str, spoil: impl Fn(&mut Value) -> Result<()>) -> Result<()> {
    let cluster = Cluster::connect()?;
    let deployments = cluster.kubectl().look(DEPLOYMENTS, "", "").await?;
    let deployments = deployments["items"].as_array().context("no Deployments")?;
    let mut pods = Vec::new();
    for service in SERVICES {
        let deployment = deployments
            .iter()
            .find(|deployment| deployment["metadata"]["name"] == service)
            .with_context(|| format!("there is no {service}"))?;
        let mut pod = pod_of(deployment, service, fault);
        spoil(&mut pod).with_context(|| service.to_owned())?;
        pods.push(pod);
    }
    let said = last_words(&cluster, fault, &pods).await?;
    for service in SERVICES {
        let lines = said.get(&name_of(service, fault)).map_or(&[][..], Vec::as_slice);
        ensure!(
            lines.len() == 1 && lines[0].contains(what),
            "{service} says {lines:?}"
        );
    }
    Ok(())
}

fn name_of(service: &str, fault: &str) -> String {
    format!("{fault}-{service}")
}

/// A pod as the Deployment of a service makes it, which no Service and no policy knows.
fn pod_of(deployment: &Value, service: &str, fault: &str) -> Value {
    let mut spec = deployment["spec"]["template"]["spec"].clone();
    spec["restartPolicy"] = json!("Never");
    json!({
        "apiVersion": "v1", "kind": "Pod", "spec": spec,
        "metadata": {"name": name_of(service, fault), "labels": {"kontor/fault": fault}},
    })
}

/// Runs pods to their end, which must be a failure; the lines of their logs, by the names of the pods.
async fn last_words(cluster: &Cluster, fault: &str, pods: &[Value]) -> Result<BTreeMap<String, Vec<String>>> {
    let kubectl = cluster.kubectl();
    let label = format!("kontor/fault={fault}");
    let delete = ["delete", "pods", "--selector", &label, "--now"];
    kubectl.run(&delete).await?;
    kubectl
        .apply(&json!({"apiVersion": "v1", "kind": "List", "items": pods}))
        .await?;
    let ended = eventually("the pods end", Duration::from_mins(2), async || {
        let list = kubectl.look(PODS, "", &label).await?;
        let items = list["items"].as_array().context("no pods")?;
        ensure!(items.len() == pods.len(), "{} pods", items.len());
        for pod in items {
            let state = &pod["status"]["containerStatuses"][0]["state"];
            ensure!(state["terminated"]["exitCode"] == 1, "{state}");
        }
        Ok(())
    })
    .await;
    let log = ["logs", "--selector", &label, "--prefix", "--tail=-1"];
    let log = kubectl.run(&log).await;
    kubectl.run(&[&delete[..], &["--wait=false"]].concat()).await?;
    ended?;
    let mut said: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in log?.lines() {
        // [pod/bad-value-auth/server] what it says
        let (source, line) = line.split_once(' ').context("a line of no pod")?;
        let pod = source.split('/').nth(1).context("a line of no pod")?;
        said.entry(pod.to_owned()).or_default().push(line.to_owned());
    }
    Ok(said)
}
