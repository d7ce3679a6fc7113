//! The drill: a base backup is made while people work, more is written behind it, and a PostgreSQL is restored onto a new volume from
//! the backup and the log that was received since. A ledger on it must be the one that runs, at a moment of the drill: it has the
//! ends that all lanes had before, the one that runs has the ends that it has, and in both every signature and every balance is right.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures_util::future::{join, try_join};
use proto::transfer::v1::VerifyLedgerResponse;
use rpc::{Caller, caller::Key};
use tests::{
    User,
    cluster::{
        Cluster, PATIENCE, Pod, eventually,
        kubectl::{JOBS, PODS},
        tell, verify,
    },
    grpc::{door, signed},
    promise_within,
};
use uuid::Uuid;

/// What the drill's folder makes.
const RESTORED: &str = "postgres-restored-0";
const DRILL: &str = "components/data/drill";

#[test]
fn it_is_the_same_ledger() -> Result<()> {
    promise_within(Duration::from_mins(8), async {
        let cluster = Cluster::connect()?;
        cluster.whole().await?;
        let operator = cluster.operator().await?;
        let alice = cluster.user(&operator, "Alice", 1000).await?;
        let bob = cluster.user(&operator, "Bob", 0).await?;
        pay(&alice, &bob, 10).await?;
        let begin = Instant::now();
        // what an earlier drill left would be found as it was
        try_join(back_up(&cluster), forget(&cluster)).await?;
        let backed_up = begin.elapsed();
        // what the log holds and the backup does not
        pay(&alice, &bob, 10).await?;
        let live = cluster.verify_ledger(&operator).await?;

        let begin = Instant::now();
        let kubectl = cluster.kubectl();
        kubectl.run(&["apply", "-k", &cluster.part(DRILL)]).await?;
        let outcome = restored(&cluster, operator.id, &live).await;
        let log = kubectl.run(&["logs", RESTORED, "--container", "restore"]).await;
        let in_all = begin.elapsed();
        let later = async {
            let found = outcome.with_context(|| format!("the drill's log: {log:?}"))?;
            let later = verify(cluster.door(&operator)?, found.heads.clone()).await;
            anyhow::Ok((
                found,
                later.context("the ledger that runs, against the restored one")?,
            ))
        };
        let (later, forgotten) = join(later, forget(&cluster)).await;
        let (found, later) = later?;
        forgotten?;
        ensure!(
            (live.verified_rows..=later.verified_rows).contains(&found.verified_rows),
            "{found:?} is not between {live:?} and {later:?}"
        );
        tell(format_args!(
            "restored: backup in {:.1} s, restored and verified in {:.1} s: {} rows, {} accounts, {} lanes",
            backed_up.as_secs_f32(),
            in_all.as_secs_f32(),
            found.verified_rows,
            found.verified_accounts,
            found.heads.len()
        ));
        Ok(())
    })
}

async fn pay(from: &User, to: &User, times: usize) -> Result<()> {
    for _ in 0..times {
        from.transfer(to.id, 1, Uuid::new_v4()).await?.expect(200)?;
    }
    Ok(())
}

/// A backup at once, as the page of the data says it.
async fn back_up(cluster: &Cluster) -> Result<()> {
    let job = format!("backup-{}", Uuid::new_v4().simple());
    let kubectl = cluster.kubectl();
    kubectl
        .run(&["create", "job", "--from=cronjob/postgres-backup", &job])
        .await?;
    let done = eventually("the backup is made", PATIENCE, async || {
        let job = kubectl.look(JOBS, &job, "").await?;
        ensure!(job["status"]["succeeded"] == 1, "{}", job["status"]);
        Ok(())
    })
    .await;
    let log = kubectl.run(&["logs", &format!("job/{job}")]).await;
    kubectl.run(&["delete", "job", &job]).await?;
    done.with_context(|| format!("its log: {log:?}"))
}

/// Waits for the restored PostgreSQL, and has the ledger on it verify itself.
async fn restored(
    cluster: &Cluster,
    operator: i64,
    live: &VerifyLedgerResponse,
) -> Result<VerifyLedgerResponse> {
    eventually("it is restored", PATIENCE, async || {
        let json = cluster.kubectl().look(PODS, RESTORED, "").await?;
        let pod = Pod::read(&json).context("no pod")?;
        cluster.nudge(&pod).await?;
        ensure!(pod.is_ready, "{}", pod.said());
        Ok(())
    })
    .await?;
    let forward = cluster.kubectl().forward(RESTORED, 7000).await?;
    let key = Key::new(&cluster.secret("caller", "secret").await?.into())?;
    let caller = Caller::User {
        user_id: operator,
        operator: true,
        session: None,
    };
    verify(
        door(&forward.address, signed(&key, &caller)?)?,
        live.heads.clone(),
    )
    .await
}

/// Removes the drill and its volume.
async fn forget(cluster: &Cluster) -> Result<()> {
    let kubectl = cluster.kubectl();
    let drill = cluster.part(DRILL);
    kubectl
        .run(&["delete", "-k", &drill, "--ignore-not-found"])
        .await?;
    let claim = format!("data-{RESTORED}");
    kubectl
        .run(&["delete", "pvc", &claim, "--ignore-not-found"])
        .await?;
    Ok(())
}
