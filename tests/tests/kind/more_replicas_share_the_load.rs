//! From one replica to three, under load: each new pod gets its part of the requests, as callers resolve the headless Service again
//! and balance over all addresses. And back to one without a failed request. What a pod got is what its network has received.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use futures_util::future::{try_join, try_join_all};
use tests::{
    cluster::{Cluster, Load, Pod, REPLICAS, eventually, node, tell},
    promise_within,
};

const USERS: usize = 6;
const PACE: Duration = Duration::from_millis(100);
const SCALED: [&str; 2] = ["account", "transfer"];
/// Of what three pods get, each must get at least so many parts in a hundred; a third would be 33.
const FAIR: u64 = 15;

#[test]
fn from_one_to_three() -> Result<()> {
    promise_within(Duration::from_mins(8), async {
        let _alone = REPLICAS.lock().await;
        let cluster = Cluster::connect()?;
        let (load, ()) = try_join(Load::prepare(&cluster, USERS, PACE), cluster.whole()).await?;
        let outcome = load
            .during(async {
                load.goes_on(2).await?;
                let begin = Instant::now();
                let scaled = try_join_all(SCALED.map(|part| cluster.scale(part, 3))).await?;
                try_join_all(SCALED.iter().zip(&scaled).map(async |(part, pods)| {
                    let shares = eventually(
                        &format!("the pods of {part} share"),
                        Duration::from_mins(1),
                        async || {
                            let shares = shares(&load, pods).await?;
                            ensure!(shares.values().all(|share| *share >= FAIR), "{shares:?} %");
                            Ok(shares)
                        },
                    )
                    .await?;
                    tell(format_args!(
                        "scaled: {part} shares {shares:?} % after {:.1?}",
                        begin.elapsed()
                    ));
                    anyhow::Ok(())
                }))
                .await?;
                // the same way back, while requests go on
                try_join_all(SCALED.map(|part| cluster.scale(part, 1))).await?;
                load.goes_on(3).await
            })
            .await;
        try_join_all(SCALED.map(|part| cluster.scale(part, 1))).await?;
        outcome?;
        load.no_request_failed()
    })
}

/// Of the bytes that pods receive during some more requests, the parts in a hundred of each.
async fn shares(load: &Load, pods: &[Pod]) -> Result<BTreeMap<String, u64>> {
    let before = node::received(pods).await?;
    load.goes_on(30).await?;
    let after = node::received(pods).await?;
    let got = before
        .iter()
        .map(|(pod, before)| Ok((pod, after.get(pod).context("a pod is gone")? - before)))
        .collect::<Result<Vec<_>>>()?;
    let sum: u64 = got.iter().map(|(_, got)| got).sum();
    ensure!(sum > 0, "nothing was received");
    got.into_iter()
        .map(|(pod, got)| {
            let short = pod.rsplit('-').next().context("a pod without a name")?;
            Ok((short.to_owned(), got * 100 / sum))
        })
        .collect()
}
