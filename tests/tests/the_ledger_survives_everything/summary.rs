//! What happened, counted.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tests::chaos::Fault;
use tonic::Status;

use super::client::Answer;

/// Counts as it goes.
#[derive(Default)]
pub struct Tally(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    attempts: BTreeMap<String, u64>,
    outcomes: BTreeMap<&'static str, BTreeMap<String, u64>>,
    done: u64,
    refused: u64,
    /// When something was done, in order.
    successes: Vec<Instant>,
}

/// What the end of the report tells.
pub struct Totals {
    /// Orders of whose first attempt no end was heard.
    pub unknown: usize,
    pub rows: usize,
    pub events: usize,
    pub repeated_events: usize,
    pub accounts: usize,
    /// When every replica did its work again, and when nothing was on its way any more: from the end of the chaos on.
    pub serving_in: Duration,
    pub settled_in: Duration,
}

impl Tally {
    /// An attempt has ended.
    pub fn attempted(&self, what: &str, answer: &Result<Answer, Status>) {
        let mut counts = self.lock();
        let code = match answer {
            Ok(_) => {
                if what != "read" {
                    counts.successes.push(Instant::now());
                }
                "an answer".to_owned()
            }
            Err(status) => {
                let reason = rpc::error::reason(status).unwrap_or_else(|| "the connection".to_owned());
                format!("{:?} ({reason})", status.code())
            }
        };
        *counts.attempts.entry(code).or_default() += 1;
    }

    /// The end of an order is known.
    pub fn known(&self, kind: &'static str, answer: &Answer) {
        let mut counts = self.lock();
        if answer.is_done() {
            counts.done += 1;
        } else {
            counts.refused += 1;
        }
        let outcome = answer.reason().to_owned();
        *counts
            .outcomes
            .entry(kind)
            .or_default()
            .entry(outcome)
            .or_default() += 1;
    }

    /// How many orders were done, and how many refused.
    pub fn totals(&self) -> (u64, u64) {
        let counts = self.lock();
        (counts.done, counts.refused)
    }

    /// How often something was done.
    pub fn done(&self, kind: &str) -> u64 {
        let counts = self.lock();
        let outcomes = counts.outcomes.get(kind);
        outcomes
            .and_then(|outcomes| outcomes.get("done"))
            .copied()
            .unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything, for people.
    pub fn report(&self, faults: &[Fault], totals: &Totals) -> String {
        let counts = self.lock();
        let mut text = String::from("\norders\n");
        for (kind, outcomes) in &counts.outcomes {
            let outcomes: Vec<_> = outcomes
                .iter()
                .map(|(outcome, count)| format!("{count} {outcome}"))
                .collect();
            put(&mut text, format_args!("  {kind:<20} {}", outcomes.join(", ")));
        }
        put(&mut text, format_args!("attempts"));
        for (code, count) in &counts.attempts {
            put(&mut text, format_args!("  {count:>8} {code}"));
        }
        put(
            &mut text,
            format_args!("faults, and the longest time without an answer from one until it was mended"),
        );
        let mut kinds: BTreeMap<&str, Vec<f32>> = BTreeMap::new();
        for fault in faults {
            let silence = longest_silence(&counts.successes, fault);
            kinds.entry(fault.kind).or_default().push(silence.as_secs_f32());
        }
        for (kind, mut silences) in kinds {
            silences.sort_by(f32::total_cmp);
            let (median, most) = (
                silences[silences.len() / 2],
                silences.last().copied().unwrap_or_default(),
            );
            put(
                &mut text,
                format_args!(
                    "  {:>4} {kind:<42} median {median:.2} s, longest {most:.2} s",
                    silences.len()
                ),
            );
        }
        put(
            &mut text,
            format_args!(
                "journal: {} rows of {} accounts; Kafka: {} events, {} of them repeated",
                totals.rows, totals.accounts, totals.events, totals.repeated_events,
            ),
        );
        put(
            &mut text,
            format_args!("of {} orders the end was not known at first", totals.unknown),
        );
        put(
            &mut text,
            format_args!(
                "behind the chaos every replica served after {:.1} s, and everything had ended after {:.1} s",
                totals.serving_in.as_secs_f32(),
                totals.settled_in.as_secs_f32(),
            ),
        );
        text
    }
}

fn put(text: &mut String, line: std::fmt::Arguments<'_>) {
    // writing to a String cannot fail
    let _ = writeln!(text, "{line}");
}

/// The longest pause between two successes that has begun before a fault was mended and ended behind its begin.
fn longest_silence(successes: &[Instant], fault: &Fault) -> Duration {
    let pauses = successes.windows(2).filter_map(|pair| match pair {
        [before, after] if *before <= fault.end && *after >= fault.begin => Some(*after - *before),
        _ => None,
    });
    pauses.max().unwrap_or_default()
}
