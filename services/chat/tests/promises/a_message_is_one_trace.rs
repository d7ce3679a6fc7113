use opentelemetry::trace::{SpanKind, TraceContextExt as _, TracerProvider as _};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use tracing::Instrument as _;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::{filter::LevelFilter, layer::SubscriberExt as _};

use crate::world::{Subscription, World, eventually, write};

#[tokio::test]
async fn from_the_request_through_outbox_and_kafka_to_the_subscriber() {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(exporter.clone())
        .build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    // for the whole process, as the instances have threads of their own; other tests' spans are told apart by their trace
    let subscriber = tracing_subscriber::registry().with(layer).with(LevelFilter::INFO);
    tracing::subscriber::set_global_default(subscriber).unwrap();

    let mut world = World::start().await;
    let instance = world.instance(&[]).await;
    let (mut alice, mut bob) = (world.client(&instance, 1), world.client(&instance, 2));
    let mut subscription = Subscription::begin(&mut bob, &[]).await.unwrap();
    let root = tracing::info_span!("root");
    let trace = root.context().span().span_context().trace_id();
    write(&mut alice, 1, 2, "a very private text")
        .instrument(root)
        .await;
    subscription.next().await.unwrap();

    let spans = || -> Vec<SpanData> {
        let all = exporter.get_finished_spans().unwrap();
        all.into_iter()
            .filter(|span| span.span_context.trace_id() == trace)
            .collect()
    };
    // the last to end: the delivery may come before the producer has heard of its success
    eventually("all parts of the way have ended", async || {
        let spans = spans();
        ["deliver", "publish chat.messages", "root"]
            .iter()
            .all(|name| spans.iter().any(|span| span.name == *name))
    })
    .await;
    let spans = spans();
    let parent = |child: &SpanData| {
        spans
            .iter()
            .find(|span| span.span_context.span_id() == child.parent_span_id)
            .cloned()
    };
    let mut way = vec![spans.iter().find(|span| span.name == "deliver").unwrap().clone()];
    while let Some(above) = parent(way.last().unwrap()) {
        way.push(above);
    }
    let way: Vec<(&str, SpanKind)> = way
        .iter()
        .map(|span| (span.name.as_ref(), span.span_kind.clone()))
        .collect();
    let method = "kontor.chat.v1.ChatService/SendDirectMessage";
    assert_eq!(
        way,
        [
            ("deliver", SpanKind::Internal),
            ("receive chat.messages", SpanKind::Consumer),
            ("publish chat.messages", SpanKind::Producer),
            (method, SpanKind::Server),
            (method, SpanKind::Client),
            ("root", SpanKind::Internal),
        ]
    );
    assert!(
        !format!("{spans:?}").contains("private"),
        "the text of a message is in no span"
    );
    world.stop(&[instance]).await;
}
