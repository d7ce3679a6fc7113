//! One trace covers a request: from the gateway to the ledger, and from the gateway through chat and Kafka to the delivery.
//! Checked link by link on an OTLP receiver, which gets every service's metrics as well.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::{Collector, TestWorld, User, collector::Span, eventually, promise, world::Options};
use uuid::Uuid;

/// Spans and metrics travel in batches.
const SOON: Duration = Duration::from_mins(1);

// SpanKind of the protocol
const INTERNAL: i32 = 1;
const SERVER: i32 = 2;
const CLIENT: i32 = 3;
const PRODUCER: i32 = 4;
const CONSUMER: i32 = 5;

/// A user whose requests belong to a trace of our own.
struct Traced {
    user: User,
    trace_id: String,
    span_id: String,
}

fn traced(user: &User) -> Result<Traced> {
    let trace_id = Uuid::new_v4().simple().to_string();
    let span_id = trace_id[..16].to_owned();
    let mut user = user.clone();
    user.rest = user
        .rest
        .with("traceparent", &format!("00-{trace_id}-{span_id}-01"))?;
    Ok(Traced {
        user,
        trace_id,
        span_id,
    })
}

/// The spans from one up to the first, each the parent of the one before. The first one's parent must be the client's.
fn chain<'a>(spans: &'a [Span], from: &'a Span, client: &str) -> Result<Vec<&'a Span>> {
    let mut chain = vec![from];
    while let Some(last) = chain.last().copied() {
        if last.parent_id == client {
            return Ok(chain);
        }
        let parent = spans.iter().find(|span| span.span_id == last.parent_id);
        chain.push(parent.with_context(|| format!("{} of {} has no parent yet", last.name, last.service))?);
        ensure!(chain.len() < 50, "the parents run in a circle");
    }
    Ok(chain)
}

/// Waits until a span like `is_last` has arrived with all above it, and checks that `wanted` (service, kind) occur on the way
/// up, in that order.
async fn leads_back(
    collector: &Collector,
    traced: &Traced,
    is_last: impl Fn(&Span) -> bool,
    wanted: &[(&str, i32)],
) -> Result<()> {
    eventually("the trace is whole", SOON, async || {
        let spans = collector.trace(&traced.trace_id);
        let last = spans
            .iter()
            .find(|span| is_last(span))
            .with_context(|| names(&spans))?;
        let chain = chain(&spans, last, &traced.span_id).with_context(|| names(&spans))?;
        let mut way = chain.iter();
        for (service, kind) in wanted {
            let found = way.any(|span| span.service == *service && span.kind == *kind);
            ensure!(
                found,
                "no span of kind {kind} in {service}, in order, on the way {}",
                names_of(&chain)
            );
        }
        Ok(())
    })
    .await
}

fn names(spans: &[Span]) -> String {
    names_of(&spans.iter().collect::<Vec<_>>())
}

fn names_of(spans: &[&Span]) -> String {
    spans
        .iter()
        .map(|span| format!("{}/{}({})", span.service, span.name, span.kind))
        .collect::<Vec<_>>()
        .join(" < ")
}

#[test]
fn a_transfer_is_one_trace() -> Result<()> {
    promise(async {
        let collector = Collector::start().await?;
        let otlp_endpoint = Some(collector.endpoint());
        let world = TestWorld::start(Options {
            otlp_endpoint,
            ..Options::default()
        })
        .await?;
        let (alice, bob) = (world.user("Alice", 100).await?, world.user("Bob", 0).await?);
        let alice = traced(&alice)?;
        alice
            .user
            .transfer(bob.id, 1, Uuid::new_v4())
            .await?
            .expect(200)?;
        let in_ledger = |span: &Span| span.service == "transfer" && span.kind == SERVER;
        leads_back(
            &collector,
            &alice,
            in_ledger,
            &[("transfer", SERVER), ("gateway", CLIENT), ("gateway", SERVER)],
        )
        .await?;

        // a read that joins two services
        let alice = traced(&alice.user)?;
        alice.user.balance().await?;
        let wanted = [
            ("transfer", SERVER),
            ("account", CLIENT),
            ("account", SERVER),
            ("gateway", CLIENT),
            ("gateway", SERVER),
        ];
        leads_back(&collector, &alice, in_ledger, &wanted).await
    })
}

#[test]
fn a_message_is_one_trace_until_its_delivery() -> Result<()> {
    promise(async {
        let collector = Collector::start().await?;
        let otlp_endpoint = Some(collector.endpoint());
        let world = TestWorld::start(Options {
            otlp_endpoint,
            ..Options::default()
        })
        .await?;
        let (alice, bob) = (world.user("Alice", 0).await?, world.user("Bob", 0).await?);
        let mut subscription = world.subscribe(&bob, Vec::new()).await?;
        let alice = traced(&alice)?;
        alice
            .user
            .write(bob.id, "hello", Uuid::new_v4())
            .await?
            .expect(201)?;
        subscription.next(SOON).await?;
        let wanted = [
            ("chat", INTERNAL),
            ("chat", CONSUMER),
            ("chat", PRODUCER),
            ("chat", SERVER),
            ("gateway", CLIENT),
            ("gateway", SERVER),
        ];
        // the delivery to Bob's stream itself, and not only the receipt from Kafka
        let delivery = |span: &Span| span.service == "chat" && span.name == "deliver";
        leads_back(&collector, &alice, delivery, &wanted).await
    })
}

#[test]
fn a_failure_is_marked_and_nothing_private_is_told() -> Result<()> {
    promise(async {
        let collector = Collector::start().await?;
        let otlp_endpoint = Some(collector.endpoint());
        let world = TestWorld::start(Options {
            otlp_endpoint,
            ..Options::default()
        })
        .await?;
        let (alice, bob) = (world.user("Alice", 0).await?, world.user("Bob", 0).await?);
        alice
            .write(bob.id, "a-very-private-text", Uuid::new_v4())
            .await?
            .expect(201)?;
        world.instance(tests::Service::Transfer, 0)?.kill().await?;
        let broken = traced(&alice)?;
        ensure!(broken.user.transfer(bob.id, 1, Uuid::new_v4()).await?.status >= 500);
        eventually("the failure arrives", SOON, async || {
            let spans = collector.trace(&broken.trace_id);
            let marked = spans
                .iter()
                .any(|span| span.service == "gateway" && span.status == 2);
            ensure!(marked, "{}", names(&spans));
            Ok(())
        })
        .await?;
        for span in collector.spans() {
            let told = format!("{} {:?}", span.name, span.attributes);
            for private in [
                "a-very-private-text",
                alice.email.as_str(),
                alice.token.as_str(),
                tests::user::PASSWORD,
            ] {
                ensure!(!told.contains(private), "{private} in {told}");
            }
        }
        Ok(())
    })
}

#[test]
fn every_service_reports_metrics() -> Result<()> {
    promise(async {
        let collector = Collector::start().await?;
        let otlp_endpoint = Some(collector.endpoint());
        let world = TestWorld::start(Options {
            otlp_endpoint,
            ..Options::default()
        })
        .await?;
        let (alice, bob) = (world.user("Alice", 100).await?, world.user("Bob", 0).await?);
        alice.transfer(bob.id, 1, Uuid::new_v4()).await?.expect(200)?;
        alice.write(bob.id, "hello", Uuid::new_v4()).await?.expect(201)?;
        for service in tests::Service::ALL {
            eventually("metrics arrive", SOON, async || {
                let metrics = collector.metrics(service.name());
                ensure!(!metrics.is_empty(), "none of {}", service.name());
                Ok(())
            })
            .await?;
        }
        Ok(())
    })
}
