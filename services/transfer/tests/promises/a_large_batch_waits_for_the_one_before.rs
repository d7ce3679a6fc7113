//! Large batches are drafted while the one before is written. Whatever becomes of that one, none is lost, none is written twice,
//! and none is written when it must not be any more.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use transfer::{
    app::{
        error::Error,
        order::{Action, Item, Order},
    },
    domain::command::Refusal,
};

use super::{
    a_changed_row_is_named::verify,
    world::{Replica, World, order, soon},
};

/// As many as make a batch large.
const MANY: usize = 1_100;
/// What users have, in the tests in which nobody runs out.
const PLENTY: i64 = 10_000_000;

/// A replica that remembers the accounts of three users and has stopped looking for repeated ids.
async fn warmed_up(world: &World, each: i64) -> Replica {
    let replica = world.replica();
    replica.users(3, each).await;
    for _ in 0..300 {
        replica.pay(order(1, 2, 1)).await.unwrap();
        replica.pay(order(2, 1, 1)).await.unwrap();
    }
    // the third, too
    replica.pay(order(3, 1, 1)).await.unwrap();
    replica.pay(order(1, 3, 1)).await.unwrap();
    replica
}

fn alone(order: &Order) -> Item {
    Item {
        action: Action::Transfer(order.clone()),
        linked: false,
    }
}

/// Sends a large batch, and returns how many of it were done.
async fn send(replica: &Replica, mut items: Vec<Item>, from: i64, deadline: Instant) -> Result<usize, Error> {
    let to = from % 3 + 1;
    items.extend((items.len()..MANY).map(|_| alone(&order(from, to, 1))));
    let results = replica.ledger.run_all(items, false, deadline).await?;
    Ok(results.iter().filter(|result| result.is_ok()).count())
}

/// Begins to send a large batch.
fn sent(replica: &Replica, items: Vec<Item>, from: i64) -> JoinSet<Result<usize, Error>> {
    let replica = replica.clone();
    let mut sending = JoinSet::new();
    sending.spawn(async move { send(&replica, items, from, soon()).await });
    sending
}

async fn result(mut sent: JoinSet<Result<usize, Error>>) -> Result<usize, Error> {
    sent.join_next().await.unwrap().unwrap()
}

/// What a caller hears that asks another replica: that nothing was written.
async fn hears_that_it_is_refused(replica: &Replica, order: Order) {
    let refused = replica.pay(order).await;
    assert!(
        matches!(refused, Err(Error::Refused(Refusal::InsufficientBalance))),
        "{refused:?}"
    );
}

/// Nor was it later. The refused ones are of 500.
async fn refused_is_not_written(world: &World) {
    assert_eq!(
        world.sql("SELECT count(*) FROM journal WHERE moved = 500").await,
        0
    );
    world.assert_sound().await;
}

/// Holds the account of a user until it is dropped or rolled back.
async fn block(world: &World, user: i64) -> sqlx::Transaction<'static, sqlx::Postgres> {
    let mut blocking = postgres::begin(world.pool()).await.unwrap();
    sqlx::query("SELECT FROM accounts WHERE user_id = $1 FOR UPDATE")
        .bind(user)
        .fetch_all(&mut *blocking)
        .await
        .unwrap();
    blocking
}

/// Waits until a batch waits for an account that is held.
async fn blocked(world: &World) {
    let waiting = "SELECT count(*) FROM pg_stat_activity
                    WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while world.sql(waiting).await == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_many_come_at_once_and_another_replica_writes_too() {
    let world = World::new().await;
    let one = warmed_up(&world, PLENTY).await;
    let other = world.replica();
    let mut sending = JoinSet::new();
    for caller in 0..6 {
        let one = one.clone();
        sending.spawn(async move {
            let mut done = 0;
            for _ in 0..6 {
                done += send(&one, Vec::new(), caller % 3 + 1, soon()).await.unwrap();
            }
            done
        });
    }
    let mut small = 0;
    while !sending.is_empty() {
        tokio::select! {
            Some(done) = sending.join_next() => assert_eq!(done.unwrap(), 6 * MANY),
            () = tokio::time::sleep(Duration::from_millis(20)) => {
                other.pay(order(1, 2, 7)).await.unwrap();
                small += 1;
            }
        }
    }
    let rows =
        |minor: i64| format!("SELECT count(*) FROM journal WHERE kind = 'transfer' AND moved = {minor}");
    let count = async |minor: i64| -> i64 {
        sqlx::query_scalar(sqlx::AssertSqlSafe(rows(minor)))
            .fetch_one(world.pool())
            .await
            .unwrap()
    };
    assert_eq!(count(7).await, small);
    assert_eq!(usize::try_from(count(1).await).unwrap(), 36 * MANY + 602);
    world.assert_sound().await;
    let (_, bad, _) = verify(&one, Vec::new()).await;
    assert!(bad.is_none(), "{bad:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_its_callers_gave_up_meanwhile() {
    let world = World::new().await;
    let one = warmed_up(&world, 10_000).await;
    let other = world.replica();
    one.pay(order(2, 3, 10_000)).await.unwrap();
    let in_the_way = block(&world, 1).await;
    let brings = sent(&one, Vec::new(), 1);
    blocked(&world).await;
    // user 2 has nothing but what that will bring
    let needs = order(2, 3, 500);
    let patience = Duration::from_millis(200);
    let late = send(&one, vec![alone(&needs)], 3, Instant::now() + patience);
    // the caller gives up, and hears from another replica that nothing was written
    assert!(tokio::time::timeout(patience, late).await.is_err());
    hears_that_it_is_refused(&other, needs).await;
    in_the_way.rollback().await.unwrap();
    assert_eq!(result(brings).await.unwrap(), MANY);
    // so that all that waited before has had its turn
    one.pay(order(1, 2, 1)).await.unwrap();
    refused_is_not_written(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_session_of_that_one_was_lost() {
    let world = World::new().await;
    let one = warmed_up(&world, PLENTY).await;
    let in_the_way = block(&world, 1).await;
    let lost = sent(&one, Vec::new(), 1);
    blocked(&world).await;
    let next = sent(&one, Vec::new(), 2);
    // it is drafted, or waits: both must do
    tokio::time::sleep(Duration::from_millis(50)).await;
    let ended = "SELECT count(pg_terminate_backend(pid))
                   FROM pg_stat_activity
                  WHERE datname = current_database() AND wait_event_type = 'Lock'";
    // a writer soon gives up waiting, and the lane's own session waits then: in between is a moment when nobody does
    while world.sql(ended).await == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    in_the_way.rollback().await.unwrap();
    // another session finds out that nothing was written, and writes it
    for sent in [lost, next] {
        assert_eq!(result(sent).await.unwrap(), MANY);
    }
    let rows = world
        .sql("SELECT count(*) FROM journal WHERE kind = 'transfer' AND moved = 1")
        .await;
    assert_eq!(usize::try_from(rows).unwrap(), 2 * MANY + 602);
    world.assert_sound().await;
    let (_, bad, _) = verify(&one, Vec::new()).await;
    assert!(bad.is_none(), "{bad:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_an_id_comes_again_in_the_next_one() {
    let world = World::new().await;
    let one = warmed_up(&world, PLENTY).await;
    let in_the_way = block(&world, 1).await;
    let twice = order(1, 2, 9);
    let items = || vec![alone(&twice)];
    let first = sent(&one, items(), 1);
    blocked(&world).await;
    let again = sent(&one, items(), 1);
    tokio::time::sleep(Duration::from_millis(50)).await;
    in_the_way.rollback().await.unwrap();
    for sent in [first, again] {
        assert_eq!(result(sent).await.unwrap(), MANY);
    }
    assert_eq!(world.sql("SELECT count(*) FROM journal WHERE moved = 9").await, 1);
    world.assert_sound().await;
}

/// Makes every statement that writes rows take long enough for something to happen meanwhile.
async fn slow_down(world: &World) {
    sqlx::raw_sql(
        "CREATE FUNCTION take_long() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             PERFORM pg_sleep(0.4);
             RETURN NULL;
         END
         $$;
         CREATE TRIGGER take_long BEFORE INSERT ON journal FOR EACH STATEMENT EXECUTE FUNCTION take_long()",
    )
    .execute(world.pool())
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_a_caller_of_the_second_gave_up() {
    let world = World::new().await;
    let one = warmed_up(&world, 10_000).await;
    let other = world.replica();
    other.pay(order(1, 3, 1)).await.unwrap();
    one.pay(order(2, 3, 10_000)).await.unwrap();
    one.pay(order(3, 1, 1)).await.unwrap();
    slow_down(&world).await;
    let brings = sent(&one, Vec::new(), 1);
    let writing =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
    while world.sql(writing).await == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let needs = order(2, 3, 500);
    let patience = Duration::from_millis(150);
    let late = send(&one, vec![alone(&needs)], 3, Instant::now() + patience);
    assert!(tokio::time::timeout(patience, late).await.is_err());
    hears_that_it_is_refused(&other, needs).await;
    assert_eq!(result(brings).await.unwrap(), MANY);
    one.pay(order(1, 3, 1)).await.unwrap();
    refused_is_not_written(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn and_a_dry_run_waits_for_none() {
    let world = World::new().await;
    let one = warmed_up(&world, PLENTY).await;
    let mut sending = JoinSet::new();
    for caller in 0..4 {
        let one = one.clone();
        sending.spawn(async move {
            loop {
                send(&one, Vec::new(), caller % 3 + 1, soon()).await.unwrap();
            }
        });
    }
    for _ in 0..3 {
        // the load does not end before
        let dry = one.ledger.run(Action::Transfer(order(1, 2, 1)), true, soon());
        tokio::select! {
            done = dry => assert!(done.is_ok(), "{done:?}"),
            _ = sending.join_next() => panic!("a caller ended"),
        }
    }
    sending.shutdown().await;
}

/// What a failover does that loses commits: the lane's session is gone, and the last batch with it.
async fn lose_the_last(world: &World) {
    sqlx::raw_sql(
        "BEGIN;
         SELECT count(pg_terminate_backend(pid))
           FROM pg_locks
          WHERE locktype = 'advisory' AND classid = x'4c414e45'::integer
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database());
         SET LOCAL session_replication_role = replica;
         UPDATE accounts SET posted = posted + 5, position = position - 1 WHERE user_id = 1 AND role = 'main';
         UPDATE accounts SET posted = posted - 5, position = position - 1 WHERE user_id = 2 AND role = 'main';
         DELETE FROM journal WHERE moved = 5;
         DELETE FROM batches WHERE number = (SELECT max(number) FROM batches);
         COMMIT",
    )
    .execute(world.pool())
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_that_one_was_lost_with_its_database() {
    let world = World::new().await;
    let one = warmed_up(&world, PLENTY).await;
    one.pay(order(1, 2, 5)).await.unwrap();
    lose_the_last(&world).await;
    // it may fail, as its lane is gone; what is written must fit what is there
    let _ = send(&one, Vec::new(), 3, soon()).await;
    world.assert_sound().await;
    assert_eq!(send(&one, Vec::new(), 3, soon()).await.unwrap(), MANY);
    // gives the account whose last entry was lost a new one
    one.pay(order(1, 2, 1)).await.unwrap();
    world.assert_sound().await;
    let (_, bad, _) = verify(&one, Vec::new()).await;
    assert!(bad.is_none(), "{bad:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn and_nothing_is_remembered_of_what_was_lost() {
    let world = World::new().await;
    let one = warmed_up(&world, PLENTY).await;
    let other = world.replica();
    one.pay(order(1, 2, 5)).await.unwrap();
    lose_the_last(&world).await;
    // finds that its lane is gone
    let _ = one.pay(order(3, 3, 1)).await;
    let _ = one.pay(order(3, 1, 1)).await;
    // to the position at which `one` remembers another balance
    other.pay(order(1, 2, 9)).await.unwrap();
    for _ in 0..300 {
        one.pay(order(3, 1, 1)).await.unwrap();
    }
    one.pay(order(1, 2, 1)).await.unwrap();
    world.assert_sound().await;
}
