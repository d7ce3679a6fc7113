//! A node is drained under load while every service runs twice, as PostgreSQL and its router do anyway: the eviction API takes what the
//! budgets allow and refuses the rest, so that of each one pod stays, and no request fails. With one node the evicted pods have nowhere
//! to go, which is the worst case.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures_util::future::{try_join, try_join_all};
use tests::{
    cluster::{Cluster, Load, Pod, REPLICAS, SERVICES, tell},
    promise_within,
};

const USERS: usize = 4;
const PACE: Duration = Duration::from_millis(250);
/// What runs twice.
const PARTS: [&str; 7] = [
    "gateway",
    "auth",
    "account",
    "transfer",
    "chat",
    "postgres",
    "postgres-router",
];
/// How the eviction API answers.
const EVICTED: u16 = 201;
const REFUSED: u16 = 429;

#[test]
fn and_no_request_fails() -> Result<()> {
    promise_within(Duration::from_mins(8), async {
        let _alone = REPLICAS.lock().await;
        let cluster = Cluster::connect()?;
        cluster.whole().await?;
        let (_, load) = try_join(
            try_join_all(SERVICES.map(|service| cluster.scale(service, 2))),
            Load::prepare(&cluster, USERS, PACE),
        )
        .await?;
        let outcome = load
            .during(async {
                load.goes_on(2).await?;
                let nodes = cluster.nodes().await?;
                let evicted = async {
                    let mut answers = Vec::new();
                    for part in PARTS {
                        for pod in leader_last(&cluster, part).await? {
                            answers.push((part, cluster.kubectl().evict(&pod.name).await?));
                        }
                    }
                    // what is left of each service must serve alone for a while
                    load.goes_on(10).await?;
                    anyhow::Ok(answers)
                };
                for node in &nodes {
                    cluster.kubectl().run(&["cordon", node]).await?;
                }
                let evicted = evicted.await;
                for node in &nodes {
                    cluster.kubectl().run(&["uncordon", node]).await?;
                }
                evicted
            })
            .await;
        try_join_all(SERVICES.map(|service| cluster.scale(service, 1))).await?;
        let answers = outcome?;
        for part in PARTS {
            let said = |status: u16| {
                answers
                    .iter()
                    .filter(|(of, said)| *of == part && said.0 == status)
                    .count()
            };
            ensure!(
                said(EVICTED) == 1 && said(REFUSED) == 1,
                "{part}: {} evicted, {} refused: {answers:?}",
                said(EVICTED),
                said(REFUSED)
            );
        }
        let refusal = answers
            .iter()
            .find(|(_, said)| said.0 == REFUSED)
            .context("nothing was refused")?;
        ensure!(refusal.1.1.contains("disruption budget"), "{}", refusal.1.1);
        tell(format_args!(
            "drain: {} requests answered, one pod of each of {} was evicted",
            load.answered(),
            PARTS.join(", ")
        ));
        load.no_request_failed()
    })
}

/// The pods of a part. Of PostgreSQL the leader comes last: then it stays, and no request has to wait for another one.
async fn leader_last(cluster: &Cluster, part: &str) -> Result<Vec<Pod>> {
    let mut pods = cluster.pods_of(part).await?;
    if part == "postgres" {
        let leader = cluster.leader(&pods).await?.context("nobody leads")?.name.clone();
        pods.sort_by_key(|pod| pod.name == leader);
    }
    Ok(pods)
}
