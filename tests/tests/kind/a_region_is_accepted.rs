//! What the cluster of a region is given is accepted by a real API server that knows the kinds of the Gateway API, cert-manager, the
//! Prometheus operator and External Secrets: every field, every rule, Pod Security, and not one warning. A dry run, in namespaces
//! of its own: nothing is made.

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use serde_json::json;
use tests::{
    cluster::{Cluster, kubectl::BY_ITSELF},
    promise,
};

const REGIONS: [&str; 3] = ["us", "eu", "asia"];
/// Of each of the others' interfaces a kind that must be among what is accepted.
const FOREIGN: [&str; 5] = [
    "gateway.gateway.networking.k8s.io/",
    "grpcroute.gateway.networking.k8s.io/",
    "certificate.cert-manager.io/",
    "servicemonitor.monitoring.coreos.com/",
    "externalsecret.external-secrets.io/",
];

#[test]
fn by_a_real_api_server() -> Result<()> {
    promise(async {
        let cluster = Cluster::connect()?;
        try_join_all(REGIONS.map(async |region| {
            let namespace = format!("kontor-{region}");
            let kubectl = cluster.kubectl().within(&namespace);
            kubectl
                .apply(&json!({
                    "apiVersion": "v1", "kind": "Namespace", "metadata": {
                        "name": namespace,
                        "labels": {
                            "pod-security.kubernetes.io/enforce": "restricted",
                            "pod-security.kubernetes.io/warn": "restricted",
                        },
                    },
                }))
                .await?;
            let outcome = accepted(&cluster, region, &namespace).await;
            kubectl
                .run(&["delete", "namespace", &namespace, "--wait=false"])
                .await?;
            outcome
        }))
        .await
        .map(drop)
    })
}

async fn accepted(cluster: &Cluster, region: &str, namespace: &str) -> Result<()> {
    let overlay = cluster.part(&format!("overlays/{region}"));
    let manifests = cluster.kubectl().run(&["kustomize", &overlay]).await?;
    // in kontor's own namespace is the overlay of kind, and not all of that may change
    let manifests = manifests.replace("namespace: kontor\n", &format!("namespace: {namespace}\n"));
    let apply = ["apply", BY_ITSELF, "--dry-run=server", "-f", "-"];
    let said = cluster
        .kubectl()
        .within(namespace)
        .say(&apply, &manifests)
        .await?;
    ensure!(said.code == 0 && said.err.is_empty(), "{region}: {}", said.err);
    for kind in FOREIGN {
        ensure!(said.out.contains(kind), "{region} has no {kind}: {}", said.out);
    }
    Ok(())
}
