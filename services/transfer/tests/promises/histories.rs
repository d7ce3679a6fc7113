//! Random histories of a ledger with everything that it can do.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use chrono::{DateTime, TimeDelta, Utc};
use rand::{Rng, RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::task::JoinSet;
use transfer::{
    app::{
        error::Error,
        expiry::Expiry,
        order::{Order, Party},
    },
    domain::command::{Authority, Command, Hold, Note},
};
use uuid::Uuid;

use super::world::{Replica, World, amount, order, signer};

pub const USERS: i64 = 8;

/// Prints the seed of a random test, and takes it back from `KONTOR_TEST_SEED`.
#[expect(clippy::print_stderr, reason = "a failed test is repeated by it")]
pub fn seed() -> u64 {
    let given = settings::Reader::from_env().optional::<u64>("KONTOR_TEST_SEED", "seed of random tests");
    let seed = given.ok().flatten().unwrap_or_else(rand::random);
    eprintln!("KONTOR_TEST_SEED={seed}");
    seed
}

pub fn now() -> DateTime<Utc> {
    SystemTime::now().into()
}

/// What was made so far, by all clients.
type Made = Arc<Mutex<Vec<Uuid>>>;

/// A ledger that some replicas have written to, with rows of every kind, and some pending transfers left.
pub async fn written(replicas: usize, seed: u64, steps: usize) -> (World, Vec<Replica>) {
    let world = World::new().await;
    let replicas: Vec<Replica> = (0..replicas).map(|_| world.replica()).collect();
    replicas[0].users(USERS, 100_000).await;
    each_kind(&replicas[0]).await;
    write(&replicas, seed, steps).await;
    let expiry = Expiry::new(
        replicas[0].store.clone(),
        replicas[0].engine.clone(),
        signer(),
        Arc::new(now),
    );
    // the short holds are over in a moment; some end while the others are written
    let short = "SELECT count(*) FROM holds WHERE expires_at < now() + interval '1 hour'";
    while world.sql(short).await > 0 {
        expiry.pass().await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let kinds = world.sql("SELECT count(DISTINCT kind) FROM journal").await;
    assert_eq!(kinds, 6, "the history has rows of every kind");
    let splits = world.sql("SELECT count(*) FROM journal WHERE leg > 0 AND kind IN ('post', 'reversal')");
    assert!(splits.await > 0, "splits were posted and taken back");
    assert!(world.sql("SELECT count(*) FROM holds").await > 0);
    (world, replicas)
}

/// What a random history may lack: every kind, and splits that are posted, ended and taken back.
async fn each_kind(replica: &Replica) {
    let by = Authority::Bank;
    let hold = |milliseconds: i64| {
        Some(Hold {
            until: now() + TimeDelta::milliseconds(milliseconds),
            named: false,
        })
    };
    let split = |hold| {
        let mut order = order(1, 2, 30);
        order.to.push((Party::User(3), amount(20)));
        order.hold = hold;
        order
    };
    let [plain, posted, voided, expired] = [None, hold(600_000), hold(600_000), hold(1)].map(split);
    for order in [&plain, &posted, &voided, &expired] {
        replica.pay(order.clone()).await.unwrap();
    }
    let id = Uuid::now_v7;
    let (pending, amount) = (posted.id, None);
    let post = Command::Post {
        id: id(),
        by,
        pending,
        amount,
    };
    let void = Command::Void {
        id: id(),
        by,
        pending: voided.id,
    };
    let reverse = |original| Command::Reverse {
        id: id(),
        by,
        original,
        note: None,
    };
    for command in [post, void, reverse(plain.id), reverse(posted.id)] {
        replica.direct(command).await.unwrap();
    }
}

/// So many steps on each replica, at the same time.
pub async fn write(replicas: &[Replica], seed: u64, steps: usize) {
    let made = Made::default();
    let mut clients = JoinSet::new();
    for (number, replica) in (0_u64..).zip(replicas) {
        for client in 0..4 {
            let (replica, made) = (replica.clone(), Arc::clone(&made));
            let mut random = StdRng::seed_from_u64(seed.wrapping_add(number * 100 + client));
            clients.spawn(async move {
                for _ in 0..steps / 4 {
                    step(&replica, &made, &mut random).await;
                }
            });
        }
    }
    while let Some(result) = clients.join_next().await {
        result.unwrap();
    }
}

async fn step(replica: &Replica, made: &Made, random: &mut StdRng) {
    let earlier = {
        let made = made.lock().unwrap();
        match made.len() {
            0 => Uuid::now_v7(),
            // mostly something recent
            length => made[length - 1 - random.random_range(0..length.min(12))],
        }
    };
    let (id, by) = (Uuid::now_v7(), Authority::Bank);
    let result = match random.random_range(0..10) {
        0..=5 => {
            let order = any_order(random);
            made.lock().unwrap().push(order.id);
            replica.pay(order).await
        }
        6 | 7 => {
            let amount = (random.random_range(0..3) == 0).then(|| amount(random.random_range(1..20)));
            let pending = earlier;
            replica
                .direct(Command::Post {
                    id,
                    by,
                    pending,
                    amount,
                })
                .await
        }
        8 => {
            replica
                .direct(Command::Void {
                    id,
                    by,
                    pending: earlier,
                })
                .await
        }
        _ => {
            let note = some_note(random);
            replica
                .direct(Command::Reverse {
                    id,
                    by,
                    original: earlier,
                    note,
                })
                .await
        }
    };
    match result {
        Ok(_) | Err(Error::Refused(_)) => {}
        other => panic!("{other:?}"),
    }
}

fn any_order(random: &mut StdRng) -> Order {
    let from = random.random_range(1..=USERS);
    let other = |offset: i64| (from + offset - 1) % USERS + 1;
    let first = random.random_range(1..USERS - 3);
    let mut order = order(from, other(first), random.random_range(1..50));
    if random.random_range(0..4) == 0 {
        for offset in 1..=random.random_range(1..3) {
            order.to.push((
                Party::User(other(first + offset)),
                amount(random.random_range(1..50)),
            ));
        }
    }
    if random.random_range(0..2) == 0 {
        let milliseconds = if random.random_range(0..4) == 0 {
            random.random_range(1..100)
        } else {
            7 * 86_400_000
        };
        order.hold = Some(Hold {
            until: now() + TimeDelta::milliseconds(milliseconds),
            named: false,
        });
    }
    order.note = some_note(random);
    order
}

fn some_note(random: &mut impl Rng) -> Option<Arc<Note>> {
    (random.random_range(0..3) == 0).then(|| {
        let pairs = random.random_range(0..3);
        Arc::new(Note {
            reference: (random.random_range(0..2) == 0)
                .then(|| format!("invoice {}", random.random_range(0..9))),
            description: Some("ein Schöner".to_owned()),
            metadata: (0..pairs)
                .map(|pair| (format!("key {pair}"), "wert".to_owned()))
                .collect(),
        })
    })
}
