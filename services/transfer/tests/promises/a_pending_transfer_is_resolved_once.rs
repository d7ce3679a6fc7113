//! Whoever ends a pending transfer, and however many try: it ends once, and everybody hears how. A posted one is taken back
//! once.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use futures_util::future::join_all;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use transfer::{
    app::{error::Error, expiry::Expiry},
    domain::{
        books::Done,
        command::{Authority, Command, Hold, Refusal},
    },
};
use uuid::Uuid;

use super::{
    money_is_conserved_by_replicas::seed,
    world::{Replica, World, amount, order, signer},
};

const TRANSFERS: usize = 60;
const HELD: i64 = 10;
/// Until one of them ends by itself, in milliseconds.
const LAST: u64 = 1_500;
const FAR: Duration = Duration::from_hours(1);

/// Who ends a transfer. However slow the machine is, one is ended in each way; the others are raced for.
#[derive(Clone, Copy, PartialEq)]
enum By {
    Void,
    Post,
    Time,
    Any,
}

struct Attempt {
    pending: Uuid,
    command: Command,
    replica: Replica,
    at: Instant,
}

/// Posts of all and of a part, and voids; all from about the same moment, at which the transfer may end by itself.
fn attempts(rng: &mut StdRng, replicas: &[Replica], pending: Uuid, by: By, from: Instant) -> Vec<Attempt> {
    let tries = if by == By::Time { 0 } else { 6 };
    (0..tries)
        .map(|_| {
            let id = Uuid::now_v7();
            let kind = match by {
                By::Void => 0,
                By::Post => rng.random_range(1..3),
                By::Time | By::Any => rng.random_range(0..3),
            };
            let by = Authority::Bank;
            let command = match kind {
                0 => Command::Void { id, by, pending },
                part => Command::Post {
                    id,
                    by,
                    pending,
                    amount: (part == 2).then(|| amount(HELD / 2)),
                },
            };
            Attempt {
                pending,
                command,
                replica: replicas[rng.random_range(0..replicas.len())].clone(),
                at: from + Duration::from_millis(rng.random_range(0..120)),
            }
        })
        .collect()
}

async fn sweep(world: &World, replica: &Replica) {
    let clock = Arc::new(|| SystemTime::now().into());
    let expiry = Expiry::new(replica.store.clone(), replica.engine.clone(), signer(), clock);
    let deadline = tokio::time::Instant::now() + Duration::from_mins(1);
    while world.sql("SELECT count(*) FROM holds").await > 0 {
        assert!(tokio::time::Instant::now() < deadline, "some do not end");
        expiry.pass().await.unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn ends(world: &World) -> HashMap<Uuid, (Uuid, String)> {
    let rows: Vec<(Uuid, Uuid, String)> = sqlx::query_as(
        "SELECT original_id, id, kind
           FROM journal
          WHERE kind IN ('post', 'void', 'expire')",
    )
    .fetch_all(world.pool())
    .await
    .unwrap();
    let all = rows.len();
    let ends: HashMap<_, _> = rows
        .into_iter()
        .map(|(pending, id, kind)| (pending, (id, kind)))
        .collect();
    assert_eq!(ends.len(), all, "one has two ends");
    ends
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whether_posted_voided_or_expired() {
    let mut rng = StdRng::seed_from_u64(seed());
    let world = World::new().await;
    let replicas = [world.replica(), world.replica(), world.replica()];
    let total = HELD * i64::try_from(TRANSFERS).unwrap();
    replicas[0].users(2, total).await;
    let mut all = Vec::new();
    for number in 0..TRANSFERS {
        let by = [By::Void, By::Post, By::Time].get(number).copied();
        let by = by.unwrap_or(By::Any);
        let soon = Duration::from_millis(rng.random_range(0..LAST));
        let ends_in = if matches!(by, By::Void | By::Post) {
            FAR
        } else {
            soon
        };
        let until = (SystemTime::now() + ends_in).into();
        let mut pending = order(1, 2, HELD);
        pending.hold = Some(Hold { until, named: false });
        let from = Instant::now() + soon.saturating_sub(Duration::from_millis(60));
        all.extend(attempts(&mut rng, &replicas, pending.id, by, from));
        replicas[0].pay(pending).await.unwrap();
    }
    let tried = join_all(all.iter().map(|attempt| async move {
        tokio::time::sleep_until(attempt.at.into()).await;
        attempt.replica.direct(attempt.command.clone()).await
    }));
    let swept = join_all(replicas.iter().map(|replica| sweep(&world, replica)));
    let (answers, _) = tokio::join!(tried, swept);
    let ends = ends(&world).await;
    assert_eq!(ends.len(), TRANSFERS);
    for (attempt, answer) in all.iter().zip(answers) {
        let (id, kind) = &ends[&attempt.pending];
        let was_first = *id == attempt.command.id();
        match answer {
            Ok(Done { replayed, .. }) => assert!(was_first && !replayed, "done, but {kind} by {id}"),
            Err(Error::Refused(Refusal::AlreadyPosted)) => {
                assert_eq!((kind.as_str(), was_first), ("post", false));
            }
            Err(Error::Refused(Refusal::AlreadyVoided)) => {
                assert_eq!((kind.as_str(), was_first), ("void", false));
            }
            Err(Error::Refused(Refusal::PendingExpired)) => assert_eq!(kind, "expire"),
            other => panic!("{other:?}"),
        }
    }
    let kinds = |wanted| ends.values().filter(|(_, kind)| kind == wanted).count();
    assert!(
        kinds("post") > 0 && kinds("void") > 0 && kinds("expire") > 0,
        "{ends:?}"
    );
    assert_eq!(
        world
            .sql("SELECT sum(held + incoming)::bigint FROM accounts")
            .await,
        0
    );
    world.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn and_is_taken_back_once() {
    let world = World::new().await;
    let replicas = [world.replica(), world.replica(), world.replica()];
    replicas[0].users(2, 1_000).await;
    for _ in 0..TRANSFERS {
        let paid = order(1, 2, HELD);
        let original = paid.id;
        replicas[0].pay(paid).await.unwrap();
        let attempts = replicas.iter().cycle().take(6).map(|replica| {
            replica.direct(Command::Reverse {
                id: Uuid::now_v7(),
                by: Authority::User(2),
                original,
                note: None,
            })
        });
        let answers = join_all(attempts).await;
        assert_eq!(
            answers.iter().filter(|answer| answer.is_ok()).count(),
            1,
            "{answers:?}"
        );
        let refused = answers.iter().filter_map(|answer| answer.as_ref().err());
        for error in refused {
            assert!(
                matches!(error, Error::Refused(Refusal::AlreadyReversed)),
                "{error:?}"
            );
        }
    }
    assert_eq!(
        world.sql("SELECT posted FROM accounts WHERE user_id = 1").await,
        1_000
    );
    world.assert_sound().await;
}
