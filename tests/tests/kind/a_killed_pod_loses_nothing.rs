//! `kill -9` of each part in turn, under load: every service, the PostgreSQL that leads, Redis, the Kafka broker, and all that
//! is beside them. No acknowledged transfer and no acknowledged message is lost or counted twice, and everything comes back by
//! itself. Prints how long that took.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use tests::{
    cluster::{Cluster, Load, PATIENCE, Pod, SERVICES, eventually, node, tell},
    promise_within,
};

const USERS: usize = 5;
const PACE: Duration = Duration::from_millis(200);

#[test]
fn whichever_it_is() -> Result<()> {
    promise_within(Duration::from_mins(15), async {
        let cluster = Cluster::connect()?;
        cluster.whole().await?;
        let load = Load::prepare(&cluster, USERS, PACE).await?;
        load.during(async {
            load.goes_on(2).await?;
            let pods = cluster.all_pods().await?;
            let parts: BTreeSet<_> = pods.iter().map(|pod| pod.part.as_str()).collect();
            let servers = parts.iter().filter(|part| !SERVICES.contains(part));
            for part in SERVICES.iter().chain(servers) {
                killed(&cluster, &load, part)
                    .await
                    .with_context(|| format!("{part} is killed"))?;
            }
            Ok(())
        })
        .await?;
        tell(format_args!(
            "killed: {} requests were answered, and nothing is lost",
            load.answered()
        ));
        the_ledger_is_sound(&cluster).await
    })
}

async fn killed(cluster: &Cluster, load: &Load, part: &str) -> Result<()> {
    let pods = cluster.pods_of(part).await?;
    let victim = victim(cluster, &pods, part).await?;
    let begin = Instant::now();
    node::kill(victim).await?;
    eventually("it was started again", PATIENCE, async || {
        let pods = cluster.pods_of(part).await?;
        let pod = pods
            .iter()
            .find(|pod| pod.name == victim.name)
            .context("it is gone")?;
        cluster.nudge(pod).await?;
        ensure!(
            pod.container != victim.container && pod.is_ready,
            "{}",
            pod.said()
        );
        Ok(())
    })
    .await?;
    let ready = begin.elapsed();
    load.goes_on(3).await?;
    cluster.whole().await?;
    let attempts = load.since(begin);
    let failed: Vec<_> = attempts
        .iter()
        .filter(|attempt| attempt.failure.is_some())
        .collect();
    let last = failed.iter().map(|attempt| attempt.end).max();
    tell(format_args!(
        "killed: {:28} ready again after {:5.1} s; {:3} of {:3} requests failed, the last after {:4.1} s; \
         no message for at most {:4.1} s",
        victim.name,
        ready.as_secs_f32(),
        failed.len(),
        attempts.len(),
        last.map_or(Duration::ZERO, |last| last - begin).as_secs_f32(),
        load.longest_silence(begin).as_secs_f32(),
    ));
    Ok(())
}

/// Of several PostgreSQL that which leads, else the first.
async fn victim<'a>(cluster: &Cluster, pods: &'a [Pod], part: &str) -> Result<&'a Pod> {
    let mut leader = None;
    if part == "postgres" {
        leader = cluster.leader(pods).await?;
    }
    leader
        .or(pods.first())
        .with_context(|| format!("there is no {part}"))
}

/// The ledger verifies itself: every row, every signature, every balance.
async fn the_ledger_is_sound(cluster: &Cluster) -> Result<()> {
    let operator = cluster.operator().await?;
    let verified = cluster.verify_ledger(&operator).await?;
    tell(format_args!(
        "killed: {} rows of the ledger verified",
        verified.verified_rows
    ));
    Ok(())
}
