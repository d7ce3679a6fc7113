use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::task::JoinSet;
use transfer::{
    app::{
        error::Error,
        order::{Action, Item},
    },
    domain::command::Refusal,
};

use super::world::{World, order, soon};

const USERS: i64 = 12;
const EACH: i64 = 1_000;

#[expect(clippy::print_stderr, reason = "who repeats a failed test needs it")]
fn print_seed(seed: u64) {
    eprintln!("KONTOR_TEST_SEED={seed}");
}

/// Prints the seed of a random test, and takes it back from `KONTOR_TEST_SEED`.
pub fn seed() -> u64 {
    let given = settings::Reader::from_env().optional::<u64>("KONTOR_TEST_SEED", "seed of random tests");
    let seed = given.ok().flatten().unwrap_or_else(rand::random);
    print_seed(seed);
    seed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_any_interleaving() {
    let world = World::new().await;
    let replicas = [world.replica(), world.replica(), world.replica()];
    replicas[0].users(USERS, EACH).await;
    let seed = seed();
    let mut clients = JoinSet::new();
    for client in 0..24 {
        let replica = replicas[usize::try_from(client % 3).unwrap()].clone();
        clients.spawn(async move {
            let mut random = StdRng::seed_from_u64(seed.wrapping_add(client));
            for _ in 0..40 {
                let from = random.random_range(1..=USERS);
                let to = (from + random.random_range(0..USERS - 1)) % USERS + 1;
                match replica.pay(order(from, to, random.random_range(1..=400))).await {
                    Ok(_) | Err(Error::Refused(Refusal::InsufficientBalance | Refusal::Malformed("to"))) => {}
                    other => panic!("{other:?}"),
                }
            }
        });
    }
    while let Some(result) = clients.join_next().await {
        result.unwrap();
    }
    assert_eq!(
        world
            .sql("SELECT sum(posted)::bigint FROM accounts WHERE user_id > 0")
            .await,
        USERS * EACH
    );
    assert_eq!(
        world
            .sql("SELECT count(*) FROM accounts WHERE user_id > 0 AND posted < 0")
            .await,
        0
    );
    world.assert_sound().await;
}

#[tokio::test]
async fn a_chain_happens_as_a_whole_or_not_at_all() {
    let world = World::new().await;
    let replica = world.replica();
    replica.users(3, 100).await;
    let item = |order, linked| Item {
        action: Action::Transfer(order),
        linked,
    };
    let chain = vec![
        item(order(1, 2, 100), true),
        item(order(2, 3, 201), false),
        item(order(1, 3, 40), false),
        item(order(3, 2, 140), true),
        item(order(2, 1, 240), false),
    ];
    let results = replica.ledger.run_all(chain, false, soon()).await.unwrap();
    let refusals: Vec<_> = results
        .iter()
        .map(|result| match result {
            Ok(_) => None,
            Err(transfer::app::ledger::ItemError::Refused(refusal)) => Some(*refusal),
            Err(other) => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        refusals,
        [
            Some(Refusal::LinkedFailed),
            Some(Refusal::InsufficientBalance),
            None,
            None,
            None
        ]
    );
    assert_eq!(
        world.sql("SELECT posted FROM accounts WHERE user_id = 1").await,
        300
    );
    world.assert_sound().await;
}
