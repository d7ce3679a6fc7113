//! Thousands of transfers in each call.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use local::Service;
use proto::transfer::v1::{
    CreateTransferRequest, CreateTransfersRequest, TransferAction, transfer_action::Action,
    transfer_service_client::TransferServiceClient,
};
use rand::{SeedableRng, rngs::SmallRng};
use rpc::caller;
use tokio::task::JoinSet;
use tonic::{
    Request,
    transport::{Channel, Endpoint},
};

use super::{
    Bench,
    peer::Way,
    requests::{Shape, operator, random_id},
    table::{Target, against},
    turns::{Rate, in_turn},
};
use crate::cli::say;

/// Transfers in a call: the most that the contract allows.
const BATCH: u32 = 8_192;
/// Calls in flight: one is decoded and one is answered while another is committed.
const CALLS: u64 = 4;
const DEADLINE: Duration = Duration::from_secs(30);

/// A closed loop of a few calls.
pub(super) async fn measure(bench: &mut Bench) -> Result<()> {
    let turns = in_turn(bench, Way::Uniform, once).await?;
    let target = Target {
        must: (1_200, "≥ 12 ×"),
        aim: (0, "50,000/s"),
    };
    let mut line = against("bulk RPC, 8,192 per call", &turns, &target);
    line.met = line.met.map(|(must, _)| (must, turns.per_second() >= 50_000));
    bench.lines.push(line);
    Ok(())
}

async fn once(bench: &mut Bench) -> Result<Rate> {
    let address = bench.world.address(Service::Transfer, 0)?;
    let mut callers = Vec::new();
    for _ in 0..CALLS {
        // a connection each, so that one answer does not stand behind another
        let channel = Endpoint::from_shared(format!("http://{address}"))?
            .connect()
            .await?;
        callers.push(Loop {
            client: TransferServiceClient::new(channel),
            key: bench.key.clone(),
            random: SmallRng::seed_from_u64(bench.seed()),
        });
    }
    bench.settle().await?;
    let mut warm = JoinSet::new();
    for mut caller in callers {
        warm.spawn(async move {
            caller.call().await?;
            anyhow::Ok(caller)
        });
    }
    let callers = warm.join_all().await.into_iter().collect::<Result<Vec<_>>>()?;
    let before = bench.meter.read()?;
    let since = Instant::now();
    let end = since + bench.during();
    let mut running = JoinSet::new();
    for caller in callers {
        running.spawn(caller.until(end));
    }
    let mut latencies = Vec::new();
    while let Some(done) = running.join_next().await {
        latencies.extend(done??);
    }
    let elapsed = since.elapsed();
    let usage = bench.meter.read()?.since(&before);
    latencies.sort_unstable();
    let transfers = latencies.len() as u64 * u64::from(BATCH);
    let rate = transfers * 1_000 / u64::try_from(elapsed.as_millis())?.max(1);
    let (middle, last) = (latencies.get(latencies.len() / 2), latencies.last());
    say(&format!(
        "bulk: {rate}/s in {} calls of {BATCH}, a call p50 {} ms, max {} ms",
        latencies.len(),
        middle.context("no call was answered")?.as_millis(),
        last.context("no call was answered")?.as_millis()
    ))?;
    say(&format!("  CPU µs each: {}", usage.per_request(transfers)))?;
    Ok(Rate {
        per_second: rate,
        refused: 0,
        others_percent: usage.others_percent(),
    })
}

struct Loop {
    client: TransferServiceClient<Channel>,
    key: caller::Key,
    random: SmallRng,
}

impl Loop {
    /// Calls until a moment, and returns how long each call took.
    async fn until(mut self, end: Instant) -> Result<Vec<Duration>> {
        let mut latencies = Vec::new();
        while Instant::now() < end {
            latencies.push(self.call().await?);
        }
        Ok(latencies)
    }

    async fn call(&mut self) -> Result<Duration> {
        let mut request = Request::new(CreateTransfersRequest {
            actions: (0..BATCH).map(|_| action(&mut self.random)).collect(),
            ..CreateTransfersRequest::default()
        });
        request.set_timeout(DEADLINE);
        let signed = self.key.sign("gateway", &operator())?;
        request
            .metadata_mut()
            .insert(caller::HEADER, signed.to_str()?.parse()?);
        let since = Instant::now();
        let answer = self.client.create_transfers(request).await?;
        let latency = since.elapsed();
        let results = answer.into_inner().results;
        ensure!(
            results.len() == BATCH as usize,
            "{} results for {BATCH} transfers",
            results.len()
        );
        let error = results.into_iter().find_map(|result| result.error);
        ensure!(error.is_none(), "a transfer was refused: {error:?}");
        Ok(latency)
    }
}

fn action(random: &mut SmallRng) -> TransferAction {
    let (from_user_id, to_user_id) = Shape::Uniform.pair(random);
    TransferAction {
        action: Some(Action::Create(CreateTransferRequest {
            from_user_id,
            to_user_id,
            amount: 1,
            transfer_id: random_id(random).to_string(),
            ..CreateTransferRequest::default()
        })),
        ..TransferAction::default()
    }
}
