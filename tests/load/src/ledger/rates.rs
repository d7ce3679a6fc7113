//! The highest rates of single transfers: closed loops.

use std::time::Duration;

use anyhow::Result;
use local::Service;

use super::{
    Bench,
    generator::{Http1, Http2, Measured, Plan},
    requests::{JsonTransfers, Shape, Transfers},
    table::{Target, against},
};

/// Requests out at once.
const IN_FLIGHT: usize = 512;

/// By gRPC, straight to the service.
pub(super) async fn uniform(bench: &mut Bench) -> Result<u64> {
    let measured = straight(bench, "uniform", Shape::Uniform, IN_FLIGHT).await?;
    let target = Target {
        must: (400, "≥ 4 ×"),
        aim: (600, "6 ×"),
    };
    let peer = bench.peer.map(|peer| peer.uniform);
    bench.lines.push(against(
        "single transfers, gRPC, 512 in flight",
        &measured,
        peer,
        &target,
    ));
    bench.most = Some(measured.per_second());
    Ok(measured.per_second())
}

/// The same with one account on one side of all of them.
pub(super) async fn hot(bench: &mut Bench) -> Result<()> {
    let measured = straight(bench, "hot", Shape::Hot, IN_FLIGHT).await?;
    let target = Target {
        must: (1_500, "≥ 15 ×"),
        aim: (1_500, "= uniform"),
    };
    let peer = bench.peer.map(|peer| peer.hot);
    let mut line = against("all on one hot account", &measured, peer, &target);
    // within the noise of two measurements
    let is_as_uniform = bench
        .most
        .is_some_and(|most| measured.per_second() * 10 >= most * 9);
    line.met = line.met.map(|(must, _)| (must, must && is_as_uniform));
    bench.lines.push(line);
    Ok(())
}

/// One transfer at a time.
pub(super) async fn single(bench: &mut Bench) -> Result<()> {
    let measured = straight(bench, "single", Shape::Uniform, 1).await?;
    let target = Target {
        must: (85, "≥ 0.85 ×"),
        aim: (100, "1 ×"),
    };
    let peer = bench.peer.map(|peer| peer.single);
    bench
        .lines
        .push(against("1 client, no concurrency", &measured, peer, &target));
    Ok(())
}

async fn straight(bench: &mut Bench, name: &str, shape: Shape, in_flight: usize) -> Result<Measured> {
    let address = bench.world.address(Service::Transfer, 0)?;
    let plan = Plan::closed(address, in_flight, bench.during());
    let source = Transfers::new(shape, bench.key.clone(), bench.seed())?;
    bench.measure::<Http2>(name, plan, source).await
}

/// By REST through the gateway, with sessions.
pub(super) async fn gateway(bench: &mut Bench) -> Result<()> {
    let address = bench.world.address(Service::Gateway, 0)?;
    let plan = Plan {
        // every session must have come from auth once
        warm_up: Duration::from_secs(3),
        ..Plan::closed(address, IN_FLIGHT, bench.during()).one_on_each()
    };
    let source = JsonTransfers::new(bench.seed());
    let measured = bench.measure::<Http1>("gateway", plan, source).await?;
    let target = Target {
        must: (250, "≥ 2.5 ×"),
        aim: (400, "4 ×"),
    };
    let peer = bench.peer.map(|peer| peer.uniform);
    bench.lines.push(against(
        "the same through the gateway, REST",
        &measured,
        peer,
        &target,
    ));
    bench.most_by_gateway = Some(measured.per_second());
    Ok(())
}
