//! How long transfers take at half of the highest rate: open loops.

use anyhow::{Context, Result};
use local::Service;

use super::{
    Bench,
    generator::{Http1, Http2, Measured, Plan, ms},
    people,
    requests::{JsonTransfers, Shape, Transfers},
    table::Line,
};

/// Straight, and through the gateway where its highest rate is known.
pub(super) async fn measure(bench: &mut Bench) -> Result<()> {
    let most = bench.most().await?;
    let address = bench.world.address(Service::Transfer, 0)?;
    let plan = Plan::open(address, most / 2, bench.seed(), bench.during() * 2);
    let source = Transfers::new(Shape::Uniform, bench.key.clone(), bench.seed())?;
    let measured = bench.measure::<Http2>("latency, gRPC", plan, source).await?;
    bench
        .lines
        .push(judge("latency at half the maximum, gRPC", &measured)?);
    let Some(most) = bench.most_by_gateway else {
        return Ok(());
    };
    // copies of sessions live for a minute, and it was longer ago that all of them were used
    let seed = bench.seed();
    people::present_sessions(&bench.world, seed, &bench.meter).await?;
    let address = bench.world.address(Service::Gateway, 0)?;
    let plan = Plan::open(address, most / 2, bench.seed(), bench.during() * 2).one_on_each();
    let source = JsonTransfers::new(bench.seed());
    let measured = bench.measure::<Http1>("latency, gateway", plan, source).await?;
    bench
        .lines
        .push(judge("latency at half the maximum, gateway", &measured)?);
    Ok(())
}

fn judge(work: &'static str, measured: &Measured) -> Result<Line> {
    let latencies = measured.latencies().context("nothing was accepted")?;
    let (p50, p99) = (latencies.at(0.5), latencies.at(0.99));
    let times = p99 * 100 / p50.max(1);
    let is_whole = measured.refused() == 0;
    Ok(Line {
        work,
        measured: format!(
            "p50 {}, p99 {} ms at {}/s{}",
            ms(p50),
            ms(p99),
            measured.per_second(),
            measured.refused_note()
        ),
        peer: "–".to_owned(),
        ratio: format!("p99 = {}.{:02} × p50", times / 100, times % 100),
        must: "p99 ≤ 10 × p50",
        aim: "p99 ≤ 15 ms",
        met: Some((is_whole && times <= 1_000, p99 <= 15_000)),
        others: measured.usage.others_percent(),
    })
}
