//! Every Deployment is replaced under load, all at once, and no client sees it: first by what an upgrade brings (images of another
//! version), then back again, as one does when the new version is bad.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tests::{
    cluster::{Cluster, Load, PATIENCE, release, tell},
    promise_within,
};

const USERS: usize = 6;
const PACE: Duration = Duration::from_millis(200);

#[test]
fn forward_and_back() -> Result<()> {
    promise_within(Duration::from_mins(10), async {
        let cluster = Cluster::connect()?;
        cluster.whole().await?;
        let now = release::current(&cluster).await?;
        let before = release::previous(&cluster, &now).await?;
        let load = Load::prepare(&cluster, USERS, PACE).await?;
        let begin = Instant::now();
        load.during(async {
            for (name, manifests) in [("to the other release", &before), ("to this release", &now)] {
                let begin = Instant::now();
                let pods = cluster.pods("app.kubernetes.io/component=service").await?;
                cluster
                    .kubectl()
                    .run_with(&["apply", "-f", "-"], manifests)
                    .await?;
                rolled_out(&cluster).await?;
                let old = cluster.pods("app.kubernetes.io/component=service").await?;
                let kept = old
                    .iter()
                    .filter(|pod| pods.iter().any(|other| other.uid == pod.uid))
                    .count();
                ensure!(kept == 0, "{kept} pods were not replaced");
                tell(format_args!("rolling: {name} after {:.1?}", begin.elapsed()));
                load.goes_on(2).await?;
            }
            Ok(())
        })
        .await?;
        tell(format_args!(
            "rolling: {} requests answered in {:.1?}",
            load.answered(),
            begin.elapsed()
        ));
        load.no_request_failed()
    })
}

/// Waits until every Deployment runs what was applied, and nothing else.
async fn rolled_out(cluster: &Cluster) -> Result<()> {
    let limit = format!("--timeout={}s", PATIENCE.as_secs());
    let list = cluster
        .kubectl()
        .run(&["get", "deployments", "-o", "name"])
        .await?;
    for name in list.lines() {
        cluster
            .kubectl()
            .run(&["rollout", "status", name, &limit])
            .await?;
    }
    cluster.whole().await
}
