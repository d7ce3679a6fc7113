use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use chrono::{DateTime, TimeDelta, Utc};
use rand::RngExt as _;
use tokio::task::JoinSet;
use transfer::{
    app::{error::Error, expiry::Expiry, order::Order},
    domain::command::{Authority, Command, Hold, Refusal},
    store::Postgres,
};
use uuid::Uuid;

use super::world::{Replica, World, order, signer};

fn now() -> DateTime<Utc> {
    SystemTime::now().into()
}

fn expiry(replica: &Replica) -> Expiry<Postgres> {
    Expiry::new(
        replica.store.clone(),
        replica.engine.clone(),
        signer(),
        Arc::new(now),
    )
}

fn pending(from: i64, to: i64, minor: i64, milliseconds: i64) -> Order {
    let until = now() + TimeDelta::milliseconds(milliseconds);
    Order {
        hold: Some(Hold { until, named: false }),
        ..order(from, to, minor)
    }
}

fn post(pending: Uuid) -> Command {
    Command::Post {
        id: Uuid::now_v7(),
        by: Authority::Bank,
        pending,
        amount: None,
    }
}

async fn until_over() {
    tokio::time::sleep(Duration::from_millis(60)).await;
}

#[tokio::test]
async fn without_anybody_asking() {
    let world = World::new().await;
    let replica = world.replica();
    replica.users(2, 100).await;
    for milliseconds in [30, 300, 3_600_000] {
        replica.pay(pending(1, 2, 20, milliseconds)).await.unwrap();
    }
    let (sweeping, life) = (expiry(&replica), world.lifecycle().clone());
    world
        .lifecycle()
        .spawn("expiry", async move { sweeping.run(&life).await });
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while world.sql("SELECT held FROM accounts WHERE user_id = 1").await != 20 {
        assert!(tokio::time::Instant::now() < deadline, "the two do not end");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(world.sql("SELECT count(*) FROM holds").await, 1);
    assert_eq!(
        world.sql("SELECT incoming FROM accounts WHERE user_id = 2").await,
        20
    );
    world.assert_sound().await;
}

#[tokio::test]
async fn and_is_over_before_it_was_ended() {
    let world = World::new().await;
    let replica = world.replica();
    replica.users(2, 100).await;
    let order = pending(1, 2, 100, 50);
    replica.pay(order.clone()).await.unwrap();
    until_over().await;
    let refused = replica.direct(post(order.id)).await;
    assert!(
        matches!(refused, Err(Error::Refused(Refusal::PendingExpired))),
        "{refused:?}"
    );
    assert_eq!(
        world.sql("SELECT held FROM accounts WHERE user_id = 1").await,
        100
    );
    assert_eq!(expiry(&replica).pass().await.unwrap(), 1);
    assert_eq!(expiry(&replica).pass().await.unwrap(), 0);
    assert_eq!(world.sql("SELECT held FROM accounts WHERE user_id = 1").await, 0);
    let again = replica.direct(post(order.id)).await;
    assert!(
        matches!(again, Err(Error::Refused(Refusal::PendingExpired))),
        "{again:?}"
    );
    replica.pay(super::world::order(1, 2, 100)).await.unwrap();
    world.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn or_is_posted_but_never_both() {
    const HELD: i64 = 60;
    let world = World::new().await;
    let replicas = [world.replica(), world.replica(), world.replica()];
    replicas[0].users(2, HELD).await;
    let mut ids = Vec::new();
    for at in 0..HELD {
        let order = pending(1, 2, 1, 100 + at * 5);
        ids.push(order.id);
        replicas[0].pay(order).await.unwrap();
    }
    let mut racers: JoinSet<i64> = JoinSet::new();
    for replica in &replicas {
        let (replica, ids) = (replica.clone(), ids.clone());
        racers.spawn({
            let replica = replica.clone();
            async move {
                let sweeping = expiry(&replica);
                for _ in 0..200 {
                    sweeping.pass().await.unwrap();
                    tokio::time::sleep(Duration::from_millis(3)).await;
                }
                0
            }
        });
        racers.spawn(async move {
            let mut posted = 0;
            for (at, id) in (0..).zip(ids) {
                let when = now() + TimeDelta::milliseconds(rand::rng().random_range(0..3));
                tokio::time::sleep((when - now()).to_std().unwrap_or_default()).await;
                let pause = Duration::from_millis(if at % 8 == 0 { 30 } else { 2 });
                tokio::time::sleep(pause).await;
                match replica.direct(post(id)).await {
                    Ok(_) => posted += 1,
                    Err(Error::Refused(Refusal::PendingExpired | Refusal::AlreadyPosted)) => {}
                    other => panic!("{other:?}"),
                }
            }
            posted
        });
    }
    let mut posted = 0;
    while let Some(result) = racers.join_next().await {
        posted += result.unwrap();
    }
    assert_eq!(
        world
            .sql("SELECT count(*) FROM journal WHERE kind = 'post'")
            .await,
        posted
    );
    assert_eq!(
        world
            .sql("SELECT count(*) FROM journal WHERE kind = 'expire'")
            .await,
        HELD - posted
    );
    assert_eq!(
        world.sql("SELECT posted FROM accounts WHERE user_id = 2").await,
        HELD + posted
    );
    assert_eq!(world.sql("SELECT held FROM accounts WHERE user_id = 1").await, 0);
    assert_eq!(world.sql("SELECT count(*) FROM holds").await, 0);
    world.assert_sound().await;
}

#[tokio::test]
async fn beside_one_that_cannot_be_ended() {
    let world = World::new().await;
    let replica = world.replica();
    replica.users(2, 100).await;
    // more than fit into one look: what is behind them is still reached
    sqlx::query(
        "INSERT INTO holds SELECT gen_random_uuid(), now() - interval '1 day' FROM generate_series(1, 70)",
    )
    .execute(world.pool())
    .await
    .unwrap();
    replica.pay(pending(1, 2, 100, 50)).await.unwrap();
    until_over().await;
    let sweeping = expiry(&replica);
    let pass = tokio::time::timeout(Duration::from_secs(5), sweeping.pass());
    assert_eq!(pass.await.unwrap().unwrap(), 1);
    assert_eq!(world.sql("SELECT count(*) FROM holds").await, 70);
}
