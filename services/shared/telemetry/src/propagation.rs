//! Carries the trace from one process to the next: W3C `traceparent` and `tracestate`.

use std::sync::LazyLock;

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::{
    Context,
    propagation::{Extractor, Injector, TextMapPropagator},
    trace::TraceContextExt as _,
};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::request;

static PROPAGATOR: LazyLock<TraceContextPropagator> = LazyLock::new(TraceContextPropagator::new);

/// The trace context of the current tracing span, or else of the request in hand, or else of OpenTelemetry's own context.
pub fn current() -> Context {
    let context = Span::current().context();
    if context.span().span_context().is_valid() {
        return context;
    }
    request::with_current(request::Request::context).unwrap_or_else(Context::current)
}

/// Makes `span` a child of the remote span in `parent`, if there is one. Only before the span is entered.
pub fn set_parent(span: &Span, parent: Context) {
    if parent.span().span_context().is_valid() {
        // fails only without telemetry, or for a span that has been entered: then the trace begins here
        let _ = span.set_parent(parent);
    }
}

/// Writes the current trace context into headers or gRPC metadata.
pub fn inject_metadata(headers: &mut HeaderMap) {
    // most requests have no span: then the header goes on as it came
    if !crate::spans() && request::with_current(|request| request.inject(headers)).is_some() {
        return;
    }
    inject_context(&current(), headers);
}

/// Writes a trace context into headers.
pub(crate) fn inject_context(context: &Context, headers: &mut HeaderMap) {
    PROPAGATOR.inject_context(context, &mut Headers(headers));
}

/// Reads the caller's trace context from headers or gRPC metadata. Without a valid one, the context is empty.
pub fn extract_metadata(headers: &HeaderMap) -> Context {
    PROPAGATOR.extract_with_context(&Context::new(), &ReadHeaders(headers))
}

/// The current trace context as names and values, for the headers of Kafka records and for the outbox.
pub fn inject_pairs() -> Vec<(String, String)> {
    let mut pairs = Pairs(Vec::new());
    PROPAGATOR.inject_context(&current(), &mut pairs);
    pairs.0
}

/// Reads a trace context from names and values. Without a valid one, the context is empty.
pub fn extract_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Context {
    let pairs = ReadPairs(pairs.into_iter().collect());
    PROPAGATOR.extract_with_context(&Context::new(), &pairs)
}

struct Headers<'a>(&'a mut HeaderMap);

impl Injector for Headers<'_> {
    fn set(&mut self, key: &str, value: String) {
        if value.is_empty() {
            return; // the propagator writes an empty tracestate
        }
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(key), HeaderValue::try_from(value)) {
            self.0.insert(name, value);
        }
    }
}

struct ReadHeaders<'a>(&'a HeaderMap);

impl Extractor for ReadHeaders<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

struct Pairs(Vec<(String, String)>);

impl Injector for Pairs {
    fn set(&mut self, key: &str, value: String) {
        if !value.is_empty() {
            self.0.push((key.to_owned(), value));
        }
    }
}

struct ReadPairs<'a>(Vec<(&'a str, &'a str)>);

impl Extractor for ReadPairs<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(name, _)| *name == key)
            .map(|(_, value)| *value)
    }

    fn keys(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| *name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn the_context_goes_through_metadata_and_pairs_unchanged() {
        let received = extract_pairs([("traceparent", PARENT), ("tracestate", "a=1")]);
        let _guard = received.attach();
        let mut headers = HeaderMap::new();
        inject_metadata(&mut headers);
        assert_eq!(headers["traceparent"], PARENT);
        let again = extract_metadata(&headers);
        assert_eq!(again.span().span_context().trace_state().header(), "a=1");
        assert_eq!(
            inject_pairs()
                .into_iter()
                .collect::<std::collections::BTreeMap<_, _>>(),
            [
                ("traceparent".to_owned(), PARENT.to_owned()),
                ("tracestate".to_owned(), "a=1".to_owned())
            ]
            .into()
        );
    }

    #[test]
    fn nonsense_gives_an_empty_context_even_inside_a_span() {
        let _guard = extract_pairs([("traceparent", PARENT)]).attach();
        for nonsense in [
            "",
            "00-0-0-01",
            "00-00000000000000000000000000000000-0000000000000000-01",
        ] {
            assert!(
                !extract_pairs([("traceparent", nonsense)])
                    .span()
                    .span_context()
                    .is_valid()
            );
        }
        assert!(
            !extract_metadata(&HeaderMap::new())
                .span()
                .span_context()
                .is_valid()
        );
    }

    #[test]
    fn without_a_trace_nothing_is_sent() {
        let mut headers = HeaderMap::new();
        inject_metadata(&mut headers);
        assert!(headers.is_empty() && inject_pairs().is_empty());
    }
}
