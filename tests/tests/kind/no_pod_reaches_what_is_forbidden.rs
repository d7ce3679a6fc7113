//! From inside the network of each pod, connections to every port of every pod and into another namespace: only those that design.md
//! names are possible. Before that, a canary shows that this cluster enforces policies at all.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tests::{
    cluster::{Cluster, Pod, eventually, kubectl::PODS, node, tell},
    promise_within,
};

/// A canary's namespace, which knows no policy at first.
const AVIARY: &str = "kontor-canary";

/// Who may open a connection to whom: the part, its port, and the parts that call it.
const ALLOWED: [(&str, u16, &[&str]); 13] = [
    // the public door is open to the world, and no part of kontor goes back out to it
    ("gateway", 8080, &[]),
    ("auth", 7000, &["gateway", "account"]),
    ("account", 7000, &["gateway", "chat"]),
    ("transfer", 7000, &["gateway", "account"]),
    ("chat", 7000, &["gateway"]),
    ("redis", 6379, &["gateway", "auth"]),
    ("kafka", 9092, &["account", "transfer", "chat", "kafka"]),
    ("kafka", 9093, &["kafka"]),
    (
        "postgres-router",
        5432,
        &["auth", "account", "transfer", "chat", "postgres-archive"],
    ),
    ("postgres", 5432, &["postgres-router", "postgres"]),
    ("postgres", 8008, &["postgres-router", "postgres"]),
    ("etcd", 2379, &["postgres", "etcd"]),
    ("etcd", 2380, &["etcd"]),
];

#[test]
fn a_canary_shows_that_policies_bite() -> Result<()> {
    promise_within(Duration::from_mins(3), async {
        let cluster = Cluster::connect()?;
        let kubectl = cluster.kubectl().within(AVIARY);
        kubectl
            .apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": AVIARY}}))
            .await?;
        let outcome = policies_bite(&cluster).await;
        kubectl
            .run(&["delete", "namespace", AVIARY, "--wait=false"])
            .await?;
        outcome
    })
}

async fn policies_bite(cluster: &Cluster) -> Result<()> {
    let kubectl = cluster.kubectl().within(AVIARY);
    // any image that listens will do, and Redis is in the cluster
    let redis = cluster.pods_of("redis").await?;
    let image = redis.first().context("no redis")?.json["spec"]["containers"][0]["image"].clone();
    for name in ["canary", "cat"] {
        kubectl.apply(&bird(name, &image)).await?;
    }
    let pod = async |name: &'static str| {
        eventually(&format!("{name} runs"), Duration::from_mins(1), async || {
            let pod = Pod::read(&kubectl.look(PODS, name, "").await?).context("no pod")?;
            ensure!(pod.is_ready && !pod.ip.is_empty(), "{}", pod.said());
            Ok(pod)
        })
        .await
    };
    let (canary, cat) = (pod("canary").await?, pod("cat").await?);
    let target = (canary.ip.clone(), 6379);
    let reaches = async |wanted: bool| {
        eventually(
            "the canary is reached, or not",
            Duration::from_secs(40),
            async || {
                let (cats, targets) = (std::slice::from_ref(&cat), std::slice::from_ref(&target));
                let reached = node::reaches(cats, targets).await?;
                ensure!(reached[&cat.name].contains(&target) == wanted, "{reached:?}");
                Ok(())
            },
        )
        .await
    };
    reaches(true).await.context("without a policy")?;
    kubectl
        .apply(&json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "cage"},
            "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
        }))
        .await?;
    reaches(false).await.context(
        "this cluster accepts NetworkPolicies and does not enforce them: what follows would prove nothing",
    )
}

fn bird(name: &str, image: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": false,
            "securityContext": {"runAsNonRoot": true, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": name, "image": image, "imagePullPolicy": "IfNotPresent",
                "command": ["redis-server", "--port", "6379", "--save", "", "--protected-mode", "no", "--dir", "/tmp"],
                "readinessProbe": {"tcpSocket": {"port": 6379}, "periodSeconds": 1},
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
            }],
        },
    })
}

#[test]
fn only_the_callers_of_the_design_get_through() -> Result<()> {
    promise_within(Duration::from_mins(3), async {
        let cluster = Cluster::connect()?;
        cluster.whole().await?;
        let pods = cluster.all_pods().await?;
        let mut targets: BTreeMap<node::Target, String> = BTreeMap::new();
        for pod in &pods {
            for port in ports(pod) {
                targets.insert((pod.ip.clone(), port), pod.part.clone());
            }
        }
        // of another namespace: the pods of DNS, which may be asked, but not about their metrics. (Not the API server: what a
        // pod says to the node that it runs on is not for policies to decide.)
        let names = cluster.kubectl().within("kube-system");
        let names = names.get(&["pods", "--selector", "k8s-app=kube-dns"]).await?;
        for pod in names["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Pod::read)
        {
            targets.insert((pod.ip, 9153), "DNS".to_owned());
        }
        let list: Vec<_> = targets.keys().cloned().collect();
        let mut wrong = BTreeSet::new();
        let mut seen = 0;
        let mut reached = node::reaches(&pods, &list).await?;
        for from in &pods {
            let open = reached.entry(from.name.clone()).or_default();
            again(from, &targets, open).await?;
            for (target, to) in &targets {
                // its own ports are its own affair
                if target.0 == from.ip {
                    continue;
                }
                let is_open = open.contains(target);
                seen += usize::from(is_open);
                if is_open != is_allowed(&from.part, to, target.1) {
                    let verb = if is_open { "reaches" } else { "does not reach" };
                    wrong.insert(format!("{} {verb} {to}:{}", from.part, target.1));
                }
            }
        }
        tell(format_args!(
            "policies: {} pods × {} ports, {seen} ways are open",
            pods.len(),
            list.len()
        ));
        ensure!(
            wrong.is_empty(),
            "{}",
            wrong.into_iter().collect::<Vec<_>>().join("\n")
        );
        Ok(())
    })
}

/// Tries once more what may be reached and was not: on a busy machine many tries at once take longer to start than they may wait.
async fn again(
    from: &Pod,
    targets: &BTreeMap<node::Target, String>,
    open: &mut BTreeSet<node::Target>,
) -> Result<()> {
    let missing: Vec<_> = targets
        .iter()
        .filter(|(target, to)| {
            target.0 != from.ip && !open.contains(target) && is_allowed(&from.part, to, target.1)
        })
        .map(|(target, _)| target.clone())
        .collect();
    if !missing.is_empty() {
        let mut found = node::reaches(std::slice::from_ref(from), &missing).await?;
        open.append(found.entry(from.name.clone()).or_default());
    }
    Ok(())
}

fn ports(pod: &Pod) -> Vec<u16> {
    pod.containers()
        .filter_map(|container| container["ports"].as_array())
        .flatten()
        .filter_map(|port| u16::try_from(port["containerPort"].as_u64()?).ok())
        .collect()
}

fn is_allowed(from: &str, to: &str, port: u16) -> bool {
    ALLOWED
        .iter()
        .any(|(part, open, callers)| *part == to && *open == port && callers.contains(&from))
}
