//! Ten times as many requests as the service can do.

use std::{fs, time::Duration};

use anyhow::{Context, Result};
use local::Service;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::{
    Bench,
    generator::{Http2, Measured, Plan, ms, run},
    requests::{Shape, Transfers},
    table::Line,
    usage::resident,
};
use crate::cli::say;

/// gRPC's RESOURCE_EXHAUSTED.
const EXHAUSTED: u16 = 8;
/// How much more memory than before counts as bounded, in KiB.
const BOUND: u64 = 256 * 1024;

/// Sends for some seconds, and then looks for every accepted transfer in the journal.
pub(super) async fn measure(bench: &mut Bench) -> Result<()> {
    let most = bench.most().await?;
    let process = bench.world.instance_process(Service::Transfer, 0)?.clone();
    let pid = process.pid().context("transfer does not run")?;
    let (before, _) = resident(&process)?;
    // begins the highest mark anew
    fs::write(format!("/proc/{pid}/clear_refs"), "5")?;
    let plan = Plan {
        connections: 16,
        warm_up: Duration::ZERO,
        drop_late: true,
        keep_accepted: true,
        ..Plan::open(
            bench.world.address(Service::Transfer, 0)?,
            most * 10,
            bench.seed(),
            bench.during(),
        )
    };
    let source = Transfers::new(Shape::Uniform, bench.key.clone(), bench.seed())?;
    let measured = run::<Http2, _>(plan, source, bench.meter.clone()).await?;
    let (_, peak) = resident(&process)?;
    let missing = missing(bench, &measured).await?;
    report(bench, most, &measured, (before, peak), missing)
}

fn report(
    bench: &mut Bench,
    most: u64,
    measured: &Measured,
    (before, peak): (u64, u64),
    missing: u64,
) -> Result<()> {
    let refused = measured.answers.get(&EXHAUSTED);
    let refusals = refused.map_or(0, super::generator::Latencies::count);
    let others = measured
        .answers
        .iter()
        .filter(|(code, _)| ![0, EXHAUSTED].contains(code))
        .map(|(_, latencies)| latencies.count())
        .sum::<u64>();
    say(&format!(
        "overload: {}/s offered, {} accepted, {refusals} refused with RESOURCE_EXHAUSTED, {others} answered otherwise ({}), \
         {} not sent as all connections were full",
        most * 10,
        measured.accepted_ids.len(),
        measured.refusals(),
        measured.dropped,
    ))?;
    if let Some(accepted) = measured.latencies() {
        say(&format!("  accepted after {accepted}"))?;
    }
    if let Some(refused) = refused {
        say(&format!("  refused after {refused}"))?;
    }
    super::say_usage(measured)?;
    let (p50, p99) = refused.map_or((0, 0), |refused| (refused.at(0.5), refused.at(0.99)));
    let is_bounded = peak.saturating_sub(before) < BOUND;
    // both wait for the same CPU, but a refusal does not wait in the queue
    let is_quick = measured
        .latencies()
        .is_some_and(|accepted| p50 < accepted.at(0.5));
    let is_good = is_bounded && is_quick && refusals > 0 && others == 0 && missing == 0;
    bench.lines.push(Line {
        work: "10 × overload",
        measured: format!(
            "{} accepted/s, {missing} lost; {refusals} refused after p50 {}, p99 {} ms; {} MB before, at most {} MB",
            measured.per_second(),
            ms(p50),
            ms(p99),
            before / 1024,
            peak / 1024
        ),
        peer: "–".to_owned(),
        ratio: "–".to_owned(),
        must: "bounded, refused at once, none lost",
        aim: "",
        met: Some((is_good, is_good)),
        others: measured.usage.others_percent(),
    });
    Ok(())
}

/// How many of the accepted transfers are not in the journal.
async fn missing(bench: &Bench, measured: &Measured) -> Result<u64> {
    let mut ledger = PgConnection::connect(&bench.world.database_url(Service::Transfer)).await?;
    let mut found = 0;
    for ids in measured.accepted_ids.chunks(10_000) {
        let ids: Vec<Uuid> = ids.iter().copied().map(Uuid::from_u128).collect();
        found += sqlx::query_scalar::<_, i64>("SELECT count(*) FROM journal WHERE id = ANY($1) AND leg = 0")
            .bind(ids)
            .fetch_one(&mut ledger)
            .await?;
    }
    ledger.close().await?;
    Ok((measured.accepted_ids.len() as u64).saturating_sub(found.cast_unsigned()))
}
