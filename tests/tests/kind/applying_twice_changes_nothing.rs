//! `kubectl apply -k` of what is applied already changes nothing: `kubectl diff` finds no difference, every object is as it was, and so
//! is every pod. (What `apply` prints is no measure: it says `configured` also for a patch without effect.)

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use serde_json::Value;
use tests::{
    cluster::{Cluster, release},
    promise,
};

/// The difference that the server would make of what `kubectl apply` owns: kubectl itself takes four times as long to find out.
const AS_THE_SERVER_SEES_IT: &[&str] = &[
    "--server-side",
    "--force-conflicts",
    "--field-manager=kubectl-client-side-apply",
];

#[test]
fn to_anything() -> Result<()> {
    promise(async {
        let cluster = Cluster::connect()?;
        cluster.whole().await?;
        let manifests = release::current(&cluster).await?;
        let difference = cluster
            .kubectl()
            .say(
                &[&["diff", "-f", "-"], AS_THE_SERVER_SEES_IT].concat(),
                &manifests,
            )
            .await?;
        ensure!(difference.code == 0, "{}{}", difference.out, difference.err);
        let before = everything(&cluster, &manifests).await?;
        ensure!(before.len() > 60, "only {} objects", before.len());
        cluster.kubectl().apply_all(&manifests).await?;
        let after = everything(&cluster, &manifests).await?;
        let changed: Vec<_> = before
            .iter()
            .filter(|(name, object)| after.get(*name) != Some(*object))
            .map(|(name, _)| name)
            .collect();
        ensure!(changed.is_empty() && before.len() == after.len(), "{changed:?}");
        Ok(())
    })
}

/// All that manifests make, and the pods, by kind and name: without what changes by itself.
async fn everything(cluster: &Cluster, manifests: &str) -> Result<BTreeMap<String, Value>> {
    let mut all = BTreeMap::new();
    let get = ["get", "-o", "json", "-f", "-"];
    let made: Value = serde_json::from_str(&cluster.kubectl().run_with(&get, manifests).await?)?;
    let made = made["items"].as_array().into_iter().flatten().cloned();
    let pods = cluster.all_pods().await?.into_iter().map(|pod| pod.json);
    for mut item in made.chain(pods) {
        item["status"] = Value::Null;
        for own in ["resourceVersion", "managedFields"] {
            item["metadata"][own] = Value::Null;
        }
        all.insert(format!("{} {}", item["kind"], item["metadata"]["name"]), item);
    }
    Ok(all)
}
