//! Every Deployment is replaced under load, all at once, and no client sees it: first by what an upgrade brings (images of another
//! version), then back again, as one does when the new version is bad. The routers in front of PostgreSQL are replaced too, and the
//! old ones end with whatever sessions they still have.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures_util::future::{try_join, try_join3};
use tests::{
    cluster::{Cluster, Load, PATIENCE, Pod, release, tell},
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
        let (before, load, first) = try_join3(
            release::previous(&cluster, &now),
            Load::prepare(&cluster, USERS, PACE),
            of_deployments(&cluster),
        )
        .await?;
        let begin = Instant::now();
        load.during(async {
            for (name, manifests) in [("to the other release", &before), ("to this release", &now)] {
                let begin = Instant::now();
                let pods = of_deployments(&cluster).await?;
                // a release of kontor brings no other router
                let router = ["rollout", "restart", "deployment/postgres-router"];
                try_join(
                    cluster.kubectl().apply_all(manifests),
                    cluster.kubectl().run(&router),
                )
                .await?;
                cluster.whole().await?;
                let new = of_deployments(&cluster).await?;
                let kept = pods.iter().filter(|old| new.iter().any(|pod| pod.uid == old.uid));
                ensure!(kept.count() == 0, "some pods were not replaced");
                tell(format_args!("rolling: {name} after {:.1?}", begin.elapsed()));
                load.goes_on(2).await?;
            }
            // a router stays for as long as sessions go through it, and cuts what is left
            are_gone(&cluster, &first).await
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

/// The pods of every Deployment.
async fn of_deployments(cluster: &Cluster) -> Result<Vec<Pod>> {
    let mut pods = cluster.pods("app.kubernetes.io/component=service").await?;
    pods.extend(cluster.pods_of("postgres-router").await?);
    Ok(pods)
}

/// Waits until pods have ended, and not only been told to.
async fn are_gone(cluster: &Cluster, pods: &[Pod]) -> Result<()> {
    let limit = format!("--timeout={}s", PATIENCE.as_secs());
    let names = pods.iter().map(|pod| format!("pod/{}", pod.name));
    let names: Vec<String> = names.collect();
    let mut wait = vec!["wait", "--for=delete", &limit];
    wait.extend(names.iter().map(String::as_str));
    cluster.kubectl().run(&wait).await.map(drop)
}
