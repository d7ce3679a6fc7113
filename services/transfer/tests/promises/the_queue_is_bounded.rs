use std::time::{Duration, Instant};

use futures_util::future::join_all;
use transfer::app::{
    engine::MAX_BATCH,
    error::Error,
    order::{Action, Item, Order},
};

use super::world::{World, order, soon};

#[tokio::test]
async fn what_does_not_fit_is_refused_at_once_and_what_fits_is_not_lost() {
    let world = World::new().await;
    let replica = world.replica_with(MAX_BATCH);
    replica.users(2, 1_000_000).await;
    let batch = |size: usize| {
        (0..size)
            .map(|_| Item {
                action: Action::Transfer(order(1, 2, 1)),
                linked: false,
            })
            .collect::<Vec<_>>()
    };
    let attempts = (0..16).map(|_| replica.ledger.run_all(batch(MAX_BATCH / 4), false, soon()));
    let results = join_all(attempts).await;
    let accepted = results.iter().filter(|result| result.is_ok()).count();
    let refused = results
        .iter()
        .filter(|result| matches!(result, Err(Error::Overloaded)))
        .count();
    assert_eq!(accepted + refused, 16);
    assert!(
        accepted >= 4 && refused > 0,
        "{accepted} accepted, {refused} refused"
    );
    let posted = world.sql("SELECT posted FROM accounts WHERE user_id = 2").await - 1_000_000;
    assert_eq!(posted, i64::try_from(accepted * MAX_BATCH / 4).unwrap());
    // the room is free again
    replica.pay(order(1, 2, 1)).await.unwrap();
    world.assert_sound().await;
}

#[tokio::test]
async fn what_is_late_behind_the_locks_is_not_begun() {
    let world = World::new().await;
    let (first, second) = (world.replica(), world.replica());
    first.users(2, 100).await;
    let mut in_the_way = postgres::begin(world.pool()).await.unwrap();
    sqlx::query("SELECT FROM accounts FOR UPDATE")
        .fetch_all(&mut *in_the_way)
        .await
        .unwrap();
    // one caller's time is over while the locks are waited for, another one goes
    let (late, left) = (order(1, 2, 1), order(1, 2, 2));
    let in_time = Instant::now() + Duration::from_millis(200);
    let attempt =
        async |order: Order, deadline| first.ledger.run(Action::Transfer(order), false, deadline).await;
    let (outcome, gone, ()) = tokio::join!(
        attempt(late.clone(), in_time),
        tokio::time::timeout(Duration::from_millis(100), attempt(left.clone(), soon())),
        async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            in_the_way.rollback().await.unwrap();
        },
    );
    assert!(matches!(outcome, Err(Error::Late)), "{outcome:?}");
    assert!(gone.is_err(), "{gone:?}");
    for order in [late, left] {
        assert!(!second.pay(order).await.unwrap().replayed);
    }
    world.assert_sound().await;
}

#[tokio::test]
async fn what_is_late_is_not_begun() {
    let world = World::new().await;
    let replica = world.replica();
    replica.users(2, 100).await;
    let late = order(1, 2, 1);
    let past = Instant::now().checked_sub(Duration::from_millis(1)).unwrap();
    let result = replica
        .ledger
        .run(Action::Transfer(late.clone()), false, past)
        .await;
    assert!(matches!(result, Err(Error::Late)), "{result:?}");
    assert!(!replica.pay(late).await.unwrap().replayed);
    world.assert_sound().await;
}
