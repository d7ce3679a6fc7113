//! A service at rest needs at most 64 MiB. Prints what everything takes.

use anyhow::{Result, ensure};
use tests::{
    cluster::{
        Cluster, SERVICES,
        node::{self, Facts},
        tell,
    },
    promise,
};

/// In KiB.
const LIMIT: u64 = 64 * 1024;

#[test]
fn a_service_takes_at_most_64_mib() -> Result<()> {
    promise(async {
        let cluster = Cluster::connect()?;
        cluster.whole().await?;
        let mut sum = 0;
        let mut large = Vec::new();
        let mut pods = cluster.all_pods().await?;
        // the autoscaler may just have asked for another one
        pods.retain(|pod| pod.is_ready);
        let facts = node::facts(&pods).await?;
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
            if SERVICES.contains(&pod.part.as_str()) && set > LIMIT {
                large.push(pod.name);
            }
        }
        tell(format_args!(
            "memory: {:40} {:4} MiB",
            "the whole namespace",
            sum / 1024
        ));
        ensure!(large.is_empty(), "more than 64 MiB: {large:?}");
        Ok(())
    })
}
