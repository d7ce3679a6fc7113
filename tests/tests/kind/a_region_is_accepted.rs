//! What the cluster of a region is given is accepted by a real API server that knows the kinds of the Gateway API, cert-manager, the
//! Prometheus operator and External Secrets: every field, every rule, Pod Security, and not one warning. A dry run, in a namespace
//! of its own: nothing is made.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use serde_json::json;
use tests::{
    cluster::{Cluster, kubectl::BY_ITSELF},
    promise,
};

const NAMESPACE: &str = "kontor-regions";
const REGIONS: [&str; 3] = ["us", "eu", "asia"];
/// Of each of the others' interfaces a kind that every region must have.
const FOREIGN: [&str; 5] = [
    "Gateway",
    "GRPCRoute",
    "Certificate",
    "ServiceMonitor",
    "ExternalSecret",
];

#[test]
fn by_a_real_api_server() -> Result<()> {
    promise(async {
        let cluster = Cluster::connect()?;
        // what the regions have in common is looked at once
        let mut manifests = BTreeSet::new();
        for region in try_join_all(REGIONS.map(|region| rendered(&cluster, region))).await? {
            manifests.extend(region.split("\n---\n").map(|one| one.trim_end().to_owned()));
        }
        let manifests = manifests.into_iter().collect::<Vec<_>>();
        let kubectl = cluster.kubectl().within(NAMESPACE);
        kubectl
            .apply(&json!({
                "apiVersion": "v1", "kind": "Namespace", "metadata": {
                    "name": NAMESPACE,
                    "labels": {
                        "pod-security.kubernetes.io/enforce": "restricted",
                        "pod-security.kubernetes.io/warn": "restricted",
                    },
                },
            }))
            .await?;
        let apply = ["apply", BY_ITSELF, "--dry-run=server", "-f", "-"];
        let said = kubectl.say(&apply, &manifests.join("\n---\n")).await;
        kubectl
            .run(&["delete", "namespace", NAMESPACE, "--wait=false"])
            .await?;
        let said = said?;
        ensure!(said.code == 0 && said.err.is_empty(), "{}", said.err);
        ensure!(
            said.out.lines().count() == manifests.len(),
            "{} manifests: {}",
            manifests.len(),
            said.out
        );
        Ok(())
    })
}

async fn rendered(cluster: &Cluster, region: &str) -> Result<String> {
    let overlay = cluster.part(&format!("overlays/{region}"));
    let manifests = cluster.kubectl().run(&["kustomize", &overlay]).await?;
    for kind in FOREIGN {
        ensure!(
            manifests.contains(&format!("\nkind: {kind}\n")),
            "{region} has no {kind}"
        );
    }
    // in kontor's own namespace is the overlay of kind, and not all of that may change
    Ok(manifests.replace("namespace: kontor\n", &format!("namespace: {NAMESPACE}\n")))
}
