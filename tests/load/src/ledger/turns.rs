//! Measures kontor and pgbench in turn: a machine that shares its host is faster in one second than in the next, and neither
//! of them shall have the better ones.

use anyhow::Result;

use super::{Bench, generator::Measured, peer::Way};

/// How often each of them has its turn.
const TURNS: usize = 3;

/// One turn of kontor.
pub(super) struct Rate {
    pub per_second: u64,
    pub refused: u64,
    pub others_percent: u64,
}

impl Rate {
    /// Of what was accepted.
    pub fn of(measured: &Measured) -> Self {
        Self {
            per_second: measured.per_second(),
            refused: measured.refused(),
            others_percent: measured.usage.others_percent(),
        }
    }
}

/// All turns.
#[derive(Default)]
pub(super) struct Turns {
    kontor: Vec<Rate>,
    pgbench: Vec<u64>,
}

/// Measures in turn; kontor alone where the peer is not wanted.
pub(super) async fn in_turn(
    bench: &mut Bench,
    way: Way,
    measure: impl AsyncFn(&mut Bench) -> Result<Rate>,
) -> Result<Turns> {
    let mut turns = Turns::default();
    for _ in 0..TURNS {
        if let Some(peer) = bench.peer {
            bench.settle().await?;
            let rate = peer.run(way, &bench.infra, &bench.meter, bench.seconds).await?;
            turns.pgbench.push(rate);
        }
        turns.kontor.push(measure(bench).await?);
    }
    Ok(turns)
}

impl Turns {
    /// The mean of kontor's rates.
    pub fn per_second(&self) -> u64 {
        mean(self.kontor.iter().map(|turn| turn.per_second)).unwrap_or(0)
    }

    /// The mean of the peer's rates.
    pub fn peer_per_second(&self) -> Option<u64> {
        mean(self.pgbench.iter().copied())
    }

    /// The ratio of each turn, in hundredths.
    pub fn ratios(&self) -> impl Iterator<Item = u64> {
        let turns = self.kontor.iter().zip(&self.pgbench);
        turns.map(|(kontor, pgbench)| kontor.per_second * 100 / (*pgbench).max(1))
    }

    /// What was not accepted in any turn.
    pub fn refused(&self) -> u64 {
        self.kontor.iter().map(|turn| turn.refused).sum()
    }

    /// The mean of what other work took.
    pub fn others_percent(&self) -> u64 {
        mean(self.kontor.iter().map(|turn| turn.others_percent)).unwrap_or(0)
    }
}

fn mean(numbers: impl ExactSizeIterator<Item = u64>) -> Option<u64> {
    let count = numbers.len() as u64;
    numbers.sum::<u64>().checked_div(count)
}

#[cfg(test)]
impl Turns {
    /// Of kontor's rates and refusals, and the peer's rates.
    pub fn of(turns: &[(u64, u64, u64)]) -> Self {
        let kontor = turns.iter().map(|(per_second, refused, _)| Rate {
            per_second: *per_second,
            refused: *refused,
            others_percent: 0,
        });
        Self {
            kontor: kontor.collect(),
            pgbench: turns.iter().map(|(_, _, peer)| *peer).collect(),
        }
    }
}
