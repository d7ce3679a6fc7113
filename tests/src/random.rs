//! Random choices that can be made again: `KONTOR_TEST_SEED` takes the printed seed back.

use std::sync::LazyLock;

use rand::{Rng as _, SeedableRng, rngs::StdRng};

static SEED: LazyLock<u64> = LazyLock::new(|| {
    // the one variable that steers a test by hand; a program's settings come from `settings`
    #[expect(clippy::disallowed_methods, reason = "a test has no settings::Reader")]
    let given = std::env::var("KONTOR_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    given.unwrap_or_else(|| rand::rng().next_u64())
});

/// Prints the seed, so that a failure can be repeated.
pub fn announce() {
    #[expect(clippy::print_stderr, reason = "the output of a failed test")]
    {
        eprintln!("KONTOR_TEST_SEED={}", *SEED);
    }
}

/// Random choices; the same for the same seed and `stream`.
pub fn choices(stream: u64) -> StdRng {
    StdRng::seed_from_u64(SEED.wrapping_add(stream.wrapping_mul(0x9E37_79B9_7F4A_7C15)))
}
