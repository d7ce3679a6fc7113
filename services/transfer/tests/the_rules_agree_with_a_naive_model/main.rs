//! Random histories through the rules and through a model of them that was written independently: the same outcomes, the
//! same journal, the same balances, and all promises kept after each batch.
//!
//! `PROPTEST_CASES` says how many; `KONTOR_TEST_SEED` takes the printed seed of a failure back.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]
#![expect(clippy::disallowed_methods, reason = "a test has no settings::Reader")]
#![expect(
    clippy::print_stderr,
    reason = "the seed and the outcomes belong to the test's output"
)]

mod check;
mod decisions;
mod history;
mod model;

use std::{cell::RefCell, str::FromStr};

use proptest::{
    collection::vec,
    prelude::any,
    test_runner::{Config, RngSeed, TestRunner},
};

use self::check::Outcomes;

/// What random histories must meet, so that they prove something.
const MUST_OCCUR: [&str; 57] = [
    "transfer Done",
    "transfer Replayed",
    "transfer AccountNotFound",
    "transfer NotYourAccount",
    "transfer InsufficientBalance",
    "transfer CurrencyMismatch",
    "transfer BalanceOverflow",
    "transfer MaximumExceeded",
    "transfer AccountFrozen",
    "transfer AccountClosed",
    "transfer LinkedFailed",
    "transfer Malformed(\"to\")",
    "transfer Malformed(\"amount\")",
    "transfer Malformed(\"splits\")",
    "transfer IdReused(\"transfer_id\")",
    "transfer IdReused(\"from\")",
    "transfer IdReused(\"to\")",
    "transfer IdReused(\"amount\")",
    "transfer IdReused(\"pending\")",
    "transfer IdReused(\"splits\")",
    "transfer IdReused(\"currency\")",
    "transfer IdReused(\"reference\")",
    "transfer IdReused(\"description\")",
    "transfer IdReused(\"metadata\")",
    "pending Done",
    "pending Replayed",
    "pending IdReused(\"expires_at\")",
    "pending Malformed(\"expires_at\")",
    "post Done",
    "post Replayed",
    "post TransferNotFound",
    "post NotPending",
    "post AccountFrozen",
    "post AlreadyPosted",
    "post AlreadyVoided",
    "post PendingExpired",
    "post ExceedsPending",
    "post PartOfSplit",
    "post IdReused(\"transfer_id\")",
    "post IdReused(\"amount\")",
    "void Done",
    "void Replayed",
    "void NotYourAccount",
    "void AlreadyPosted",
    "void AlreadyVoided",
    "void PendingExpired",
    "expire Done",
    "expire Replayed",
    "expire NotExpired",
    "reverse Done",
    "reverse Replayed",
    "reverse NotPosted",
    "reverse NotReversible",
    "reverse AlreadyReversed",
    "reverse InsufficientBalance",
    "reverse IdReused(\"description\")",
    "reverse LinkedFailed",
];

fn given<T: FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn random_histories_go_as_in_the_model() {
    let seed = given("KONTOR_TEST_SEED").unwrap_or_else(rand::random);
    let cases = given("PROPTEST_CASES").unwrap_or(4_000);
    eprintln!("KONTOR_TEST_SEED={seed}");
    let mut runner = TestRunner::new(Config {
        cases,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        ..Config::default()
    });
    let outcomes = RefCell::new(Outcomes::new());
    let result = runner.run(&vec(any::<u8>(), 0..1_500), |bytes| {
        check::run(&bytes, &mut outcomes.borrow_mut());
        Ok(())
    });
    let outcomes = outcomes.into_inner();
    eprintln!("{} commands: {outcomes:#?}", outcomes.values().sum::<u64>());
    if let Err(failure) = result {
        panic!("KONTOR_TEST_SEED={seed}: {failure}");
    }
    if cases >= 4_000 {
        for outcome in MUST_OCCUR {
            assert!(outcomes.contains_key(outcome), "never met: {outcome}");
        }
    }
}
