//! Money is conserved and never overspent: 64 clients make random transfers through 3 replicas of every service. What each
//! was told adds up to the balances in the ledger, to the unit.

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::future::try_join_all;
use rand::RngExt as _;
use tests::{Service, TestWorld, User, promise, random, world::Options};
use uuid::Uuid;

const USERS: usize = 12;
const CLIENTS: usize = 64;
const EACH: usize = 15;
const START: i64 = 100;

#[test]
fn random_transfers_add_up() -> Result<()> {
    promise(async {
        let world = TestWorld::start(Options {
            replicas: 3,
            ..Options::default()
        })
        .await?;
        let users =
            try_join_all((0..USERS).map(async |n| world.user(&format!("User{n}"), START).await)).await?;
        let expected: Vec<_> = users.iter().map(|_| AtomicI64::new(START)).collect();
        let (moved, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let gateways = world.gateways();
        try_join_all((0..CLIENTS).map(async |client| {
            let mut choices = random::choices(client as u64);
            for _ in 0..EACH {
                let from = choices.random_range(0..USERS);
                let to = (from + choices.random_range(1..USERS)) % USERS;
                let amount = choices.random_range(1..=START);
                // one in three is sent twice at once, through two gateways: it must count once
                let tries = if choices.random_range(0..3) == 0 { 2 } else { 1 };
                let first = choices.random_range(0..gateways.len());
                let payers: Vec<User> = (0..tries)
                    .map(|n| users[from].at(&gateways[(first + n) % gateways.len()]))
                    .collect();
                if pay(&payers, users[to].id, amount).await? {
                    expected[from].fetch_sub(amount, Ordering::Relaxed);
                    expected[to].fetch_add(amount, Ordering::Relaxed);
                    moved.fetch_add(1, Ordering::Relaxed);
                } else {
                    refused.fetch_add(1, Ordering::Relaxed);
                }
            }
            anyhow::Ok(())
        }))
        .await?;
        // with amounts up to a whole balance both must happen, else the test has shown nothing
        let (moved, refused) = (moved.into_inner(), refused.into_inner());
        ensure!(
            moved > 100 && refused > 20,
            "{moved} transfers, {refused} refusals"
        );
        for (user, expected) in users.iter().zip(&expected) {
            world
                .balances(&[(user, expected.load(Ordering::Relaxed))])
                .await?;
        }
        the_books_are_right(&world, moved + USERS).await
    })
}

/// Whether the money moved; anything but a yes or the seed's no is an error. All tries have one id.
async fn pay(payers: &[User], to: i64, amount: i64) -> Result<bool> {
    let id = Uuid::new_v4();
    let answers = try_join_all(payers.iter().map(|payer| payer.transfer(to, amount, id))).await?;
    let mut moved = false;
    for answer in answers {
        match answer.status {
            200 => moved = true,
            // a no to one try and a yes to the other is right: money may have come in between
            400 => answer.refused(400, "Insufficient balance")?,
            _ => bail!("{}: {}", answer.status, answer.text),
        }
    }
    Ok(moved)
}

/// What must hold in the ledger's own tables, whatever happened before.
async fn the_books_are_right(world: &TestWorld, transfers: usize) -> Result<()> {
    const NUMBERS: [(&str, &str); 5] = [
        (
            "sum of all balances",
            "SELECT coalesce(sum(posted), 0)::bigint FROM accounts",
        ),
        (
            "accounts below their floor",
            "SELECT count(*) FROM accounts WHERE posted - held < floor",
        ),
        (
            "users in debt",
            "SELECT count(*) FROM accounts WHERE role = 'main' AND posted < 0",
        ),
        (
            "rows of the journal that are not double entry",
            "SELECT count(*) FROM journal WHERE debit_account = credit_account OR moved <= 0",
        ),
        (
            "balances that are not the sum of their entries",
            "SELECT count(*) FROM accounts a
             WHERE posted <> (SELECT coalesce(sum(CASE WHEN debit_account = a.id THEN -moved ELSE moved END), 0)
                                FROM journal WHERE a.id IN (debit_account, credit_account))",
        ),
    ];
    let ledger = world.database(Service::Transfer).await?;
    for (what, query) in NUMBERS {
        let number: i64 = sqlx::query_scalar(query).fetch_one(&ledger).await.context(what)?;
        ensure!(number == 0, "{what}: {number}");
    }
    let posted: i64 = sqlx::query_scalar("SELECT count(*) FROM journal")
        .fetch_one(&ledger)
        .await?;
    ensure!(
        posted == i64::try_from(transfers)?,
        "{posted} transfers are posted, {transfers} were acknowledged"
    );
    Ok(())
}
