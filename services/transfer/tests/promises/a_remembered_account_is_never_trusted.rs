//! A replica prepares batches with accounts as it remembers them. Whatever was changed behind its back is found before
//! anything is written.

use std::time::{Duration, Instant};

use transfer::{
    app::{
        directory::Accounts as _,
        error::Error,
        order::{Action, Item},
    },
    domain::command::Refusal,
};

use super::world::{Replica, World, amount, order};

/// Makes the replica remember the accounts of users 1 and 2, and stop looking for repeated ids.
async fn warmed_up(world: &World) -> [Replica; 2] {
    let replicas = [world.replica(), world.replica()];
    replicas[0].users(3, 10_000).await;
    for replica in &replicas {
        for _ in 0..300 {
            replica.pay(order(1, 2, 1)).await.unwrap();
            replica.pay(order(2, 1, 1)).await.unwrap();
        }
    }
    replicas
}

#[tokio::test]
async fn with_a_balance() {
    let world = World::new().await;
    let [one, other] = warmed_up(&world).await;
    // `other` remembers 10,000
    one.pay(order(1, 3, 9_000)).await.unwrap();
    let refused = other.pay(order(1, 2, 1_001)).await;
    assert!(
        matches!(refused, Err(Error::Refused(Refusal::InsufficientBalance))),
        "{refused:?}"
    );
    other.pay(order(1, 2, 1_000)).await.unwrap();
    // `one` remembers 1,000
    let refused = one.pay(order(1, 2, 1)).await;
    assert!(
        matches!(refused, Err(Error::Refused(Refusal::InsufficientBalance))),
        "{refused:?}"
    );
    // what looks too little may have become enough
    other.pay(order(3, 1, 5_000)).await.unwrap();
    one.pay(order(1, 2, 5_000)).await.unwrap();
    world.assert_sound().await;
}

#[tokio::test]
async fn with_limits_and_state() {
    let world = World::new().await;
    let [one, _] = warmed_up(&world).await;
    let account = one.store.main_accounts(&[1]).await.unwrap()[0].1;
    // as a change of an account does it
    let change =
        |set: &str| format!("UPDATE accounts SET {set}, revision = revision + 1 WHERE id = {account}");
    for (set, refusal) in [
        ("status = 'frozen'", Refusal::AccountFrozen),
        ("status = 'open', floor = 9999", Refusal::InsufficientBalance),
    ] {
        sqlx::query(sqlx::AssertSqlSafe(change(set)))
            .execute(world.pool())
            .await
            .unwrap();
        let refused = one.pay(order(1, 2, 100)).await;
        assert!(
            matches!(&refused, Err(Error::Refused(found)) if *found == refusal),
            "{set}: {refused:?}"
        );
    }
    let set = change("floor = 0, ceiling = 10001");
    sqlx::query(sqlx::AssertSqlSafe(set))
        .execute(world.pool())
        .await
        .unwrap();
    one.pay(order(2, 1, 1)).await.unwrap();
    let refused = one.pay(order(2, 1, 1)).await;
    assert!(
        matches!(refused, Err(Error::Refused(Refusal::MaximumExceeded))),
        "{refused:?}"
    );
    world.assert_sound().await;
}

#[tokio::test]
async fn with_an_id_that_was_used() {
    let world = World::new().await;
    let [one, other] = warmed_up(&world).await;
    let first = order(1, 2, 7);
    let done = one.pay(first.clone()).await.unwrap();
    for replica in [&one, &other] {
        let again = replica.pay(first.clone()).await.unwrap();
        assert_eq!((again.at, again.replayed), (done.at, true));
        let mut changed = first.clone();
        changed.to[0].1 = amount(8);
        let refused = replica.pay(changed).await;
        assert!(
            matches!(refused, Err(Error::Refused(Refusal::IdReused("amount")))),
            "{refused:?}"
        );
    }
    world.assert_sound().await;
}

#[tokio::test]
async fn where_one_transfer_needs_what_another_brings() {
    let world = World::new().await;
    let [one, other] = warmed_up(&world).await;
    // user 2 has nothing, as `one` knows
    one.pay(order(2, 3, 10_000)).await.unwrap();
    let mut in_the_way = postgres::begin(world.pool()).await.unwrap();
    sqlx::query("SELECT FROM accounts WHERE user_id = 1 FOR UPDATE")
        .fetch_all(&mut *in_the_way)
        .await
        .unwrap();
    let (brings, needs) = (order(1, 2, 500), order(2, 3, 500));
    let items = [&brings, &needs].map(|order| Item {
        action: Action::Transfer(order.clone()),
        linked: false,
    });
    let soon_over = Instant::now() + Duration::from_millis(200);
    let ((), _) = tokio::join!(
        async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            // the caller has given up, and hears from another replica that nothing was written
            let refused = other.pay(needs.clone()).await;
            assert!(
                matches!(refused, Err(Error::Refused(Refusal::InsufficientBalance))),
                "{refused:?}"
            );
            in_the_way.rollback().await.unwrap();
        },
        one.ledger.run_all(items.into(), false, soon_over),
    );
    assert_eq!(
        world.sql("SELECT count(*) FROM journal WHERE moved = 500").await,
        0
    );
    world.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_replicas_that_share_accounts() {
    let world = World::new().await;
    let replicas = warmed_up(&world).await;
    let mut paying = tokio::task::JoinSet::new();
    for (n, replica) in replicas.iter().cycle().take(8).cloned().enumerate() {
        paying.spawn(async move {
            let mut paid = 0;
            for step in 0..200 {
                let (from, to) = if (n + step) % 3 == 0 { (1, 2) } else { (2, 1) };
                match replica.pay(order(from, to, 400)).await {
                    Ok(_) => paid += 1,
                    Err(Error::Refused(Refusal::InsufficientBalance)) => {}
                    Err(error) => panic!("{error}"),
                }
                if step % 50 == 0 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            paid
        });
    }
    let paid: i64 = paying.join_all().await.into_iter().sum();
    assert!(paid > 100, "{paid} paid");
    let rows = world.sql("SELECT count(*) FROM journal WHERE moved = 400").await;
    assert_eq!(rows, paid);
    assert_eq!(
        world
            .sql("SELECT count(*) FROM accounts WHERE posted - held < floor")
            .await,
        0
    );
    world.assert_sound().await;
}
