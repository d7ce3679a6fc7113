//! Every row of the journal comes to Kafka for both of its accounts: at least once, in order, none invented.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use events::Config;
use futures_util::future::join_all;
use lifecycle::Lifecycle;
use proto::transfer::v1::{EntryMade, transfer_event::Event};
use transfer::{
    app::order::{Action, Item},
    domain::command::{Authority, Command, Hold},
    events::Relay,
};
use uuid::Uuid;

use crate::{
    kafka,
    world::{Replica, World, amount, order, soon},
};

/// Where a row stands, and what it did to one account.
type Stored = (i32, i64, Uuid, i64, i64, i64, i64, i64, i64);

const UNPUBLISHED: &str = "SELECT count(*)
                             FROM journal j
                            WHERE j.sequence > coalesce((SELECT sequence FROM published p WHERE p.lane = j.lane), 0)";

async fn all_is_published(world: &World) {
    let deadline = tokio::time::Instant::now() + Duration::from_mins(1);
    while world.sql(UNPUBLISHED).await > 0 {
        assert!(tokio::time::Instant::now() < deadline, "the relay lags");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Transfers, pending ones, and what ends them.
async fn traffic(replica: &Replica, rounds: i64) {
    for round in 0..rounds {
        let work = (1..=8).map(|user| {
            let payee = (user + round % 7) % 8 + 1;
            let mut order = order(user, payee, 1 + round);
            order.hold = (user == 1).then(|| Hold {
                until: chrono::DateTime::from_timestamp(4_000_000_000, 0).unwrap(),
                named: true,
            });
            let id = order.id;
            async move {
                if user == payee || replica.pay(order).await.is_err() || user != 1 {
                    return; // refused, or cut off: the journal says which
                }
                let (pending, by) = (id, Authority::Bank);
                let id = Uuid::now_v7();
                let command = if round % 2 == 0 {
                    Command::Void { id, by, pending }
                } else {
                    let amount = Some(amount(1 + round / 2));
                    Command::Post {
                        id,
                        by,
                        pending,
                        amount,
                    }
                };
                let _ = replica.direct(command).await;
            }
        });
        join_all(work).await;
    }
}

/// Transfers in one call.
async fn bulk(replica: &Replica, rows: i64) {
    let items = (0..rows).map(|row| Item {
        action: Action::Transfer(order(row % 8 + 1, (row + 1) % 8 + 1, 1)),
        linked: false,
    });
    let results = replica.ledger.run_all(items.collect(), false, soon()).await;
    assert!(results.unwrap().iter().all(Result::is_ok));
}

/// The first occurrences must be the journal: for each account 1, 2, 3, …, with what each row says.
async fn assert_equals_the_journal(world: &World, config: &Config) -> usize {
    let seen = kafka::read_all(config).await;
    let records = seen.len();
    let mut first: BTreeMap<i64, Vec<EntryMade>> = BTreeMap::new();
    let mut ids = HashMap::new();
    for record in seen {
        let Event::EntryMade(entry) = record.event else {
            panic!("no entry")
        };
        assert_eq!(record.key, entry.account_id);
        let again = ids.insert(record.id, entry.clone());
        if let Some(again) = again {
            assert_eq!(again, entry, "an id stands for one event");
            continue;
        }
        let account = first.entry(record.key).or_default();
        account.push(entry);
        assert_eq!(
            usize::try_from(account.last().unwrap().position).unwrap(),
            account.len(),
            "a gap"
        );
    }
    let journal: Vec<Stored> = sqlx::query_as(
        "SELECT lane, sequence, id, debit_account, debit_position, -moved, held, debit_posted, debit_held FROM journal
          UNION ALL
         SELECT lane, sequence, id, credit_account, credit_position, moved, 0, credit_posted, credit_held FROM journal",
    )
    .fetch_all(world.pool())
    .await
    .unwrap();
    assert_eq!(ids.len(), journal.len(), "as many events as entries");
    for (lane, sequence, id, account, position, amount, held, posted_after, held_after) in journal {
        let entry = &first[&account][usize::try_from(position).unwrap() - 1];
        let told = (
            entry.lane,
            entry.sequence,
            entry.transfer_id.clone(),
            entry.account_id,
            entry.amount,
        );
        assert_eq!(told, (lane, sequence, id.to_string(), account, amount));
        let after = (entry.held, entry.posted_after, entry.held_after);
        assert_eq!(after, (held, posted_after, held_after));
        assert_ne!(entry.counterparty_account_id, account);
    }
    records
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_calm_ledger_is_published_once() {
    let (world, config) = (World::new().await, kafka::topic().await);
    let replica = world.replica();
    // what was there before the relay came is published too
    replica.users(8, 10_000).await;
    let relay = Relay::start(world.pool(), &config, world.lifecycle());
    traffic(&replica, 10).await;
    relay.wake();
    all_is_published(&world).await;
    // its own instance beside another one
    let own = world.replica_that_tells(32_768, move |batch| relay.committed(batch));
    tokio::join!(
        traffic(&own, 10),
        traffic(&replica, 10),
        bulk(&own, 1_500),
        bulk(&own, 1_500)
    );
    all_is_published(&world).await;
    let records = assert_equals_the_journal(&world, &config).await;
    assert_eq!(
        i64::try_from(records).unwrap(),
        2 * world.sql("SELECT count(*) FROM journal").await,
        "nothing twice when nothing fails"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_relays_lose_their_sessions() {
    let (world, config) = (World::new().await, kafka::topic().await);
    let relays = [(); 2].map(|()| Relay::start(world.pool(), &config, world.lifecycle()));
    let replicas = relays
        .clone()
        .map(|relay| world.replica_that_tells(32_768, move |batch| relay.committed(batch)));
    replicas[0].users(8, 1_000_000).await;
    let done = AtomicBool::new(false);
    let write = async {
        tokio::join!(traffic(&replicas[0], 500), traffic(&replicas[1], 500));
        done.store(true, Ordering::Relaxed);
    };
    let mut leaders = HashSet::new();
    let kill = async {
        while !done.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(60)).await;
            relays.iter().for_each(Relay::wake);
            let killed: Vec<i32> = sqlx::query_scalar(
                "WITH leader AS MATERIALIZED (
                     SELECT pid
                       FROM pg_stat_activity
                       JOIN pg_locks USING (pid)
                      WHERE datname = current_database() AND application_name = 'journal relay' AND locktype = 'advisory'
                 )
                 SELECT pid FROM leader WHERE pg_terminate_backend(pid)",
            )
            .fetch_all(world.pool())
            .await
            .unwrap();
            leaders.extend(killed);
        }
    };
    tokio::join!(write, kill);
    assert!(leaders.len() > 3, "the relays took turns: {leaders:?}");
    all_is_published(&world).await;
    assert_eq!(world.sql("SELECT count(DISTINCT lane) FROM journal").await, 2);
    assert_equals_the_journal(&world, &config).await;
}

/// More than a producer can hold, of lanes of which each has less than a page.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_many_replicas_leave_behind_is_published_in_parts() {
    let (world, config) = (World::new().await, kafka::topic().await);
    let replicas = [world.replica(), world.replica(), world.replica()];
    replicas[0].users(8, 10_000).await;
    for replica in &replicas {
        bulk(replica, 3_600).await;
    }
    assert_eq!(world.sql("SELECT count(DISTINCT lane) FROM journal").await, 3);
    Relay::start(world.pool(), &config, world.lifecycle());
    all_is_published(&world).await;
    assert_equals_the_journal(&world, &config).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transfers_go_on_while_kafka_is_away() {
    let (world, config) = (World::new().await, kafka::topic().await);
    let nowhere = Config {
        brokers: vec!["127.0.0.1:1".to_owned()],
        ..config.clone()
    };
    let away = Lifecycle::new(Duration::ZERO);
    let cut_off = Relay::start(world.pool(), &nowhere, &away);
    let replica = world.replica();
    replica.users(8, 10_000).await;
    traffic(&replica, 10).await;
    cut_off.wake();
    assert_eq!(
        world.sql(UNPUBLISHED).await,
        world.sql("SELECT count(*) FROM journal").await
    );
    away.drain();
    away.finish(std::future::ready(Ok::<(), std::io::Error>(())))
        .await
        .unwrap();
    Relay::start(world.pool(), &config, world.lifecycle());
    all_is_published(&world).await;
    assert_equals_the_journal(&world, &config).await;
}
