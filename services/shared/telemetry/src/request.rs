//! The request in hand where nothing records spans: what log lines and the next process need to know of it, without a span.
//!
//! A span costs allocations and two locks although nobody would ever see it. So where no collector is set, servers do not
//! make one ([`crate::spans`] says so), and put a [`Request`] around their handlers instead.

use http::{HeaderMap, HeaderValue};
use opentelemetry::{Context, trace::TraceContextExt as _};
use rand::RngExt as _;
use tokio::task::futures::TaskLocalFuture;

use crate::propagation;

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";
/// `00-` trace id `-` span id `-` flags.
const TRACEPARENT_BYTES: usize = 55;

/// A request that has no span: its names, its id, and the trace that it belongs to. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Request {
    name: &'static str,
    method: &'static str,
    id: Option<HeaderValue>,
    trace: Trace,
}

/// The trace as it came, or a new one that nobody records.
#[derive(Clone, Debug)]
struct Trace {
    parent: HeaderValue,
    state: Option<HeaderValue>,
}

tokio::task_local! {
    static CURRENT: Option<Request>;
}

impl Request {
    /// The request with these headers. `name` is what its span would be called, `method` comes from the contracts.
    pub fn new(
        name: &'static str,
        method: &'static str,
        id: Option<HeaderValue>,
        headers: &HeaderMap,
    ) -> Self {
        Self {
            name,
            method,
            id,
            trace: Trace::of(headers),
        }
    }

    /// Writes the trace into the headers of a request to the next process.
    pub fn inject(&self, headers: &mut HeaderMap) {
        headers.insert(TRACEPARENT, self.trace.parent.clone());
        if let Some(state) = &self.trace.state {
            headers.insert(TRACESTATE, state.clone());
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn method(&self) -> &'static str {
        self.method
    }

    pub(crate) fn id(&self) -> Option<&str> {
        self.id.as_ref()?.to_str().ok()
    }

    pub(crate) fn context(&self) -> Context {
        let mut headers = HeaderMap::new();
        self.inject(&mut headers);
        propagation::extract_metadata(&headers)
    }

    /// The trace and span id, as `traceparent` writes them.
    pub(crate) fn trace_ids(&self) -> Option<(&str, &str)> {
        let parent = self.trace.parent.to_str().ok()?;
        Some((parent.get(3..35)?, parent.get(36..52)?))
    }
}

impl Trace {
    fn of(headers: &HeaderMap) -> Self {
        match headers.get(TRACEPARENT) {
            None => Self::begin(),
            // nearly always: nothing to parse, nothing to copy
            Some(parent) if is_usual(parent.as_bytes()) && !headers.contains_key(TRACESTATE) => Self {
                parent: parent.clone(),
                state: None,
            },
            Some(_) => {
                let context = propagation::extract_metadata(headers);
                if !context.span().span_context().is_valid() {
                    return Self::begin();
                }
                let mut written = HeaderMap::new();
                propagation::inject_context(&context, &mut written);
                written
                    .remove(TRACEPARENT)
                    .map_or_else(Self::begin, |parent| Self {
                        parent,
                        state: written.remove(TRACESTATE),
                    })
            }
        }
    }

    /// A new trace, marked as not recorded.
    fn begin() -> Self {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        let ids: [u8; 24] = rand::rng().random();
        write_hex(&mut text[3..35], &ids[..16]);
        write_hex(&mut text[36..52], &ids[16..]);
        // an id of zeros would not be valid
        text[34] = b'1';
        text[51] = b'1';
        let parent = HeaderValue::from_bytes(&text);
        Self {
            parent: parent.unwrap_or_else(|_| {
                HeaderValue::from_static("00-00000000000000000000000000000001-0000000000000001-00")
            }),
            state: None,
        }
    }
}

fn write_hex(text: &mut [u8], bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}

/// Version 00, well formed, with ids that are not zero.
fn is_usual(parent: &[u8]) -> bool {
    let is_hex = |part: &[u8]| part.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let is_id = |part: &[u8]| is_hex(part) && part.iter().any(|byte| *byte != b'0');
    parent.len() == TRACEPARENT_BYTES
        && parent.starts_with(b"00-")
        && is_id(&parent[3..35])
        && parent[35] == b'-'
        && is_id(&parent[36..52])
        && parent[52] == b'-'
        && is_hex(&parent[53..])
}

/// Runs `future` inside a request; `None` where a span does its work.
pub fn scope<F: Future>(request: Option<Request>, future: F) -> TaskLocalFuture<Option<Request>, F> {
    CURRENT.scope(request, future)
}

/// The request of this task, to go on with it in another.
pub fn current() -> Option<Request> {
    with_current(Request::clone)
}

/// Asks something about the request of this task.
pub(crate) fn with_current<T>(ask: impl FnOnce(&Request) -> T) -> Option<T> {
    CURRENT
        .try_with(|current| current.as_ref().map(ask))
        .ok()
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn request(pairs: &[(&'static str, &'static str)]) -> Request {
        let headers = pairs
            .iter()
            .map(|(name, value)| {
                (
                    http::HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect();
        Request::new("request", "/a/B", Some(HeaderValue::from_static("r-1")), &headers)
    }

    #[tokio::test]
    async fn the_trace_of_the_caller_goes_on_unchanged() {
        let came = request(&[(TRACEPARENT, PARENT)]);
        assert_eq!(
            came.trace_ids(),
            Some(("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"))
        );
        let sent = scope(Some(came), async {
            let mut headers = HeaderMap::new();
            propagation::inject_metadata(&mut headers);
            (headers, propagation::inject_pairs(), propagation::current())
        });
        let (headers, pairs, context) = sent.await;
        assert_eq!(headers[TRACEPARENT], PARENT);
        assert_eq!(pairs, [(TRACEPARENT.to_owned(), PARENT.to_owned())]);
        assert_eq!(
            context.span().span_context().trace_id().to_string(),
            "0af7651916cd43dd8448eb211c80319c"
        );
        assert!(current().is_none());
    }

    #[test]
    fn a_trace_state_goes_along() {
        let mut headers = HeaderMap::new();
        request(&[(TRACEPARENT, PARENT), (TRACESTATE, "a=1")]).inject(&mut headers);
        assert_eq!(headers[TRACEPARENT], PARENT);
        assert_eq!(headers[TRACESTATE], "a=1");
    }

    #[test]
    fn without_a_valid_trace_a_new_one_begins_that_nobody_records() {
        for nonsense in [
            "",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-0x",
        ] {
            let (one, other) = (request(&[(TRACEPARENT, nonsense)]), request(&[]));
            for request in [&one, &other] {
                assert!(is_usual(request.trace.parent.as_bytes()), "{request:?}");
                assert!(request.trace.parent.as_bytes().ends_with(b"-00"));
            }
            assert_ne!(one.trace_ids(), other.trace_ids());
        }
    }
}
