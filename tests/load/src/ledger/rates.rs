//! The highest rates of single transfers: closed loops.

use anyhow::Result;
use local::Service;

use super::{
    Bench,
    generator::{Http1, Http2, Plan},
    peer::Way,
    people,
    requests::{JsonTransfers, Shape, Transfers},
    table::{Target, against},
    turns::{Rate, in_turn},
};

/// Requests out at once.
const IN_FLIGHT: usize = 512;

/// By gRPC, straight to the service.
pub(super) async fn uniform(bench: &mut Bench) -> Result<u64> {
    let turns = in_turn(bench, Way::Uniform, async |bench| {
        straight(bench, "uniform", Shape::Uniform, IN_FLIGHT).await
    })
    .await?;
    let target = Target {
        must: (400, "≥ 4 ×"),
        aim: (600, "6 ×"),
    };
    bench
        .lines
        .push(against("single transfers, gRPC, 512 in flight", &turns, &target));
    bench.most = Some(turns.per_second());
    Ok(turns.per_second())
}

/// The same with one account on one side of all of them.
pub(super) async fn hot(bench: &mut Bench) -> Result<()> {
    let turns = in_turn(bench, Way::Hot, async |bench| {
        straight(bench, "hot", Shape::Hot, IN_FLIGHT).await
    })
    .await?;
    let target = Target {
        must: (1_500, "≥ 15 ×"),
        aim: (1_500, "= uniform"),
    };
    let mut line = against("all on one hot account", &turns, &target);
    // within the noise of two measurements
    let is_as_uniform = bench.most.is_some_and(|most| turns.per_second() * 10 >= most * 9);
    line.met = line.met.map(|(must, _)| (must, must && is_as_uniform));
    bench.lines.push(line);
    Ok(())
}

/// One transfer at a time.
pub(super) async fn single(bench: &mut Bench) -> Result<()> {
    let turns = in_turn(bench, Way::Single, async |bench| {
        straight(bench, "single", Shape::Uniform, 1).await
    })
    .await?;
    let target = Target {
        must: (85, "≥ 0.85 ×"),
        aim: (100, "1 ×"),
    };
    bench
        .lines
        .push(against("1 client, no concurrency", &turns, &target));
    Ok(())
}

async fn straight(bench: &mut Bench, name: &str, shape: Shape, in_flight: usize) -> Result<Rate> {
    let address = bench.world.address(Service::Transfer, 0)?;
    let plan = Plan::closed(address, in_flight, bench.during());
    let source = Transfers::new(shape, bench.key.clone(), bench.seed())?;
    let measured = bench.measure::<Http2>(name, plan, source).await?;
    Ok(Rate::of(&measured))
}

/// By REST through the gateway, with sessions.
pub(super) async fn gateway(bench: &mut Bench) -> Result<()> {
    let seed = bench.seed();
    people::present_sessions(&bench.world, seed, &bench.meter).await?;
    let turns = in_turn(bench, Way::Uniform, async |bench| {
        let address = bench.world.address(Service::Gateway, 0)?;
        let plan = Plan::closed(address, IN_FLIGHT, bench.during()).one_on_each();
        let source = JsonTransfers::new(bench.seed());
        let measured = bench.measure::<Http1>("gateway", plan, source).await?;
        Ok(Rate::of(&measured))
    })
    .await?;
    let target = Target {
        must: (250, "≥ 2.5 ×"),
        aim: (400, "4 ×"),
    };
    bench
        .lines
        .push(against("the same through the gateway, REST", &turns, &target));
    bench.most_by_gateway = Some(turns.per_second());
    Ok(())
}
