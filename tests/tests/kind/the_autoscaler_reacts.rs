//! Where the cluster measures pods (metrics-server), the autoscaler adds replicas of auth while passwords keep it busy. A cluster
//! without metrics cannot show that, and the run says so.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use tests::{
    cluster::{
        Cluster, REPLICAS, SERVICES, eventually, kubectl::AUTOSCALERS, load::sign_ins_during, tell, variable,
    },
    promise_within,
};

#[test]
fn to_work() -> Result<()> {
    promise_within(Duration::from_mins(8), async {
        let _alone = REPLICAS.lock().await;
        let cluster = Cluster::connect()?;
        // until now nobody could ask the metrics-server: the other tests scale themselves
        if let Ok(api) = variable("KONTOR_KIND_METRICS") {
            cluster.kubectl().run(&["apply", "-f", &api]).await?;
        }
        let ask = ["get", "--raw", "/apis/metrics.k8s.io/v1beta1/nodes"];
        let mut metrics = cluster.kubectl().say(&ask, "").await?;
        // a metrics-server that is known to the API answers after a moment
        let known = ["get", "apiservice", "v1beta1.metrics.k8s.io"];
        if metrics.code != 0 && cluster.kubectl().say(&known, "").await?.code == 0 {
            metrics = eventually("there are metrics", Duration::from_mins(2), async || {
                let said = cluster.kubectl().say(&ask, "").await?;
                ensure!(said.code == 0, "{}", said.err);
                Ok(said)
            })
            .await?;
        }
        if metrics.code != 0 {
            tell(format_args!(
                "autoscaler: NOT TESTED, this cluster has no metrics: {}",
                metrics.err.trim()
            ));
            return Ok(());
        }
        cluster.whole().await?;
        let operator = cluster.operator().await?;
        let user = cluster.user(&operator, "Busy", 0).await?;
        let begin = Instant::now();
        let replicas = sign_ins_during(&[user], 8, Duration::from_millis(100), async {
            eventually(
                "the autoscaler adds a replica",
                Duration::from_mins(5),
                async || {
                    let scaler = cluster.kubectl().look(AUTOSCALERS, "auth", "").await?;
                    let wanted = scaler["status"]["desiredReplicas"].as_i64().unwrap_or_default();
                    ensure!(wanted > 1, "{}", scaler["status"]);
                    Ok(wanted)
                },
            )
            .await
        })
        .await;
        // the others' autoscalers measure now, too
        try_join_all(SERVICES.map(|service| cluster.scale(service, 1))).await?;
        let replicas = replicas?;
        tell(format_args!(
            "autoscaler: {replicas} replicas of auth wanted after {:.1?}",
            begin.elapsed()
        ));
        Ok(())
    })
}
