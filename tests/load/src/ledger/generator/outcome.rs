//! What a measurement found.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt,
    time::{Duration, Instant},
};

use anyhow::Result;
use hdrhistogram::Histogram;

use super::{
    super::usage::{Meter, Reading, Usage},
    Sent,
};

/// How a request was answered: a gRPC status or an HTTP status.
pub(in super::super) type Code = u16;

/// How long requests took, in microseconds.
#[derive(Clone)]
pub(in super::super) struct Latencies(Histogram<u64>);

impl Latencies {
    fn new() -> Result<Self> {
        Ok(Self(Histogram::new_with_bounds(1, 120_000_000, 3)?))
    }

    fn record(&mut self, latency: Duration) {
        let microseconds = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.0.saturating_record(microseconds);
    }

    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The latency that this part of all does not exceed, in microseconds.
    pub fn at(&self, quantile: f64) -> u64 {
        self.0.value_at_quantile(quantile)
    }
}

impl fmt::Display for Latencies {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, quantile) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)] {
            write!(formatter, "{name} {}, ", ms(self.at(quantile)))?;
        }
        write!(formatter, "max {} ms", ms(self.0.max()))
    }
}

/// Microseconds as milliseconds with two decimals.
pub(in super::super) fn ms(microseconds: u64) -> String {
    format!("{}.{:02}", microseconds / 1_000, microseconds % 1_000 / 10)
}

/// The result of a measurement.
pub(in super::super) struct Measured {
    /// By how they were answered, those that were due in the counted time.
    pub answers: BTreeMap<Code, Latencies>,
    /// Answered in the counted time, and how many of these were accepted.
    pub finished: u64,
    pub accepted: u64,
    /// Never sent, as no connection had a place free.
    pub dropped: u64,
    pub elapsed: Duration,
    /// What each process used in the counted time.
    pub usage: Usage,
    /// The numbers of all accepted requests, from the first on.
    pub accepted_ids: Vec<u128>,
}

impl Measured {
    /// Adds the answers of another turn of the same.
    pub fn add(&mut self, other: &Self) -> Result<()> {
        for (code, latencies) in &other.answers {
            match self.answers.entry(*code) {
                Entry::Occupied(known) => known.into_mut().0.add(&latencies.0)?,
                Entry::Vacant(new) => {
                    new.insert(latencies.clone());
                }
            }
        }
        self.finished += other.finished;
        self.accepted += other.accepted;
        self.dropped += other.dropped;
        self.elapsed += other.elapsed;
        Ok(())
    }

    /// Accepted requests in a second.
    pub fn per_second(&self) -> u64 {
        self.accepted * 1_000 / u64::try_from(self.elapsed.as_millis()).unwrap_or(u64::MAX).max(1)
    }

    /// How long the accepted ones took.
    pub fn latencies(&self) -> Option<&Latencies> {
        self.answers
            .iter()
            .find(|(code, _)| is_accepted(**code))
            .map(|(_, latencies)| latencies)
    }

    /// How many were not accepted.
    pub fn refused(&self) -> u64 {
        let refusals = self.answers.iter().filter(|(code, _)| !is_accepted(**code));
        refusals.map(|(_, latencies)| latencies.count()).sum()
    }

    /// The same, to stand behind a figure.
    pub fn refused_note(&self) -> String {
        match self.refused() {
            0 => String::new(),
            refused => format!(", {refused} not accepted"),
        }
    }

    /// The answers that were no acceptance, `8: 120, 14: 3`.
    pub fn refusals(&self) -> String {
        let refusals = self.answers.iter().filter(|(code, _)| !is_accepted(**code));
        let shown = refusals.map(|(code, latencies)| format!("{code}: {}", latencies.count()));
        shown.collect::<Vec<_>>().join(", ")
    }
}

fn is_accepted(code: Code) -> bool {
    code == 0 || (200..300).contains(&code)
}

/// Gathers what a measurement finds.
pub(super) struct Recorder {
    answers: BTreeMap<Code, Latencies>,
    began: Option<(Instant, Reading)>,
    ended: Option<(Instant, Reading)>,
    finished: u64,
    accepted: u64,
    dropped: u64,
    keep: bool,
    accepted_ids: Vec<u128>,
}

impl Recorder {
    pub fn new(keep: bool) -> Result<Self> {
        // made before the first answer, as a histogram takes some time to allocate
        Ok(Self {
            answers: BTreeMap::from([(0, Latencies::new()?), (200, Latencies::new()?)]),
            began: None,
            ended: None,
            finished: 0,
            accepted: 0,
            dropped: 0,
            keep,
            accepted_ids: Vec::new(),
        })
    }

    /// The counted time begins.
    pub fn begin(&mut self, now: Instant, reading: Reading) {
        self.began = Some((now, reading));
    }

    /// The counted time ends.
    pub fn end(&mut self, now: Instant, reading: Reading) {
        self.ended = Some((now, reading));
    }

    pub fn has_begun(&self) -> bool {
        self.began.is_some()
    }

    pub fn has_ended(&self) -> bool {
        self.ended.is_some()
    }

    pub fn drop(&mut self, due: Instant) {
        if self.is_counted(due) {
            self.dropped += 1;
        }
    }

    fn is_counted(&self, moment: Instant) -> bool {
        self.began.as_ref().is_some_and(|(began, _)| moment >= *began)
    }

    pub fn record(&mut self, sent: Sent, code: Code, now: Instant) -> Result<()> {
        let is_accepted = is_accepted(code);
        if is_accepted && self.keep {
            self.accepted_ids.push(sent.id);
        }
        if self.has_begun() && !self.has_ended() {
            self.finished += 1;
            self.accepted += u64::from(is_accepted);
        }
        if self.is_counted(sent.due) {
            let latencies = match self.answers.entry(code) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => new.insert(Latencies::new()?),
            };
            latencies.record(now.saturating_duration_since(sent.due));
        }
        Ok(())
    }

    pub fn into_measured(mut self, meter: &mut Meter) -> Result<Measured> {
        let now = Instant::now();
        let (began, before) = match self.began {
            Some(began) => began,
            None => (now, meter.read()?),
        };
        let (ended, after) = match self.ended {
            Some(ended) => ended,
            None => (now, meter.read()?),
        };
        self.answers.retain(|_, latencies| latencies.count() > 0);
        Ok(Measured {
            answers: self.answers,
            finished: self.finished,
            accepted: self.accepted,
            dropped: self.dropped,
            elapsed: ended.saturating_duration_since(began),
            usage: after.since(&before),
            accepted_ids: self.accepted_ids,
        })
    }
}
