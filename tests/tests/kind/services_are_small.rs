//! A service at rest needs at most 64 MiB. Prints what everything takes.

use std::time::Duration;

use anyhow::{Result, ensure};
use tests::{
    cluster::{
        Cluster, SERVICES,
        node::{self, Facts},
        tell,
    },
    eventually::eventually_every,
    promise,
};

/// In KiB.
const LIMIT: u64 = 64 * 1024;
/// What passwords were worked on with, for one, goes back to the system a few seconds later.
const REST_WITHIN: Duration = Duration::from_secs(30);

#[test]
fn a_service_takes_at_most_64_mib() -> Result<()> {
    promise(async {
        let cluster = Cluster::connect()?;
        cluster.whole().await?;
        let mut pods = cluster.all_pods().await?;
        // the autoscaler may just have asked for another one
        pods.retain(|pod| pod.is_ready);
        let facts = eventually_every(
            Duration::from_secs(2),
            "services at rest",
            REST_WITHIN,
            async || {
                let facts = node::facts(&pods).await?;
                for pod in pods.iter().filter(|pod| SERVICES.contains(&pod.part.as_str())) {
                    let set = facts[&pod.name].working_set_kib;
                    ensure!(set <= LIMIT, "{} takes {} MiB", pod.name, set / 1024);
                }
                Ok(facts)
            },
        )
        .await?;
        let mut sum = 0;
        for pod in pods {
            let Facts {
                working_set_kib: set,
                resident_kib: resident,
                ..
            } = facts[&pod.name];
            sum += set;
            tell(format_args!(
                "memory: {:40} {:4} MiB, first process {:4} MiB",
                pod.name,
                set / 1024,
                resident / 1024
            ));
        }
        tell(format_args!(
            "memory: {:40} {:4} MiB",
            "the whole namespace",
            sum / 1024
        ));
        Ok(())
    })
}
