//! Log lines on stdout, written by a thread of their own: a slow reader of stdout costs lines, never requests.

mod json;
mod pretty;

use opentelemetry::{Context, trace::TraceContextExt as _};
use tracing::Subscriber;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    EnvFilter, Layer,
    fmt::{
        self,
        format::{DefaultFields, JsonFields},
    },
    registry::LookupSpan,
};

use crate::{Config, Error, LogFormat, request};

/// Lines that wait for the writer; more are dropped.
const LINES: usize = 16_384;

type Boxed<S> = Box<dyn Layer<S> + Send + Sync>;

pub(crate) fn layer<S>(config: &Config) -> Result<(Boxed<S>, WorkerGuard), Error>
where
    S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
{
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(LINES)
        .lossy(true)
        .finish(std::io::stdout());
    // the SDK writes a line for every failed batch; `export` says it once
    let filter = EnvFilter::try_new(format!("opentelemetry=off,{}", config.log))?;
    let lines = fmt::layer().with_writer(writer).with_ansi(false);
    let layer: Boxed<S> = match config.log_format {
        LogFormat::Json => lines
            .fmt_fields(JsonFields::new())
            .event_format(json::Json)
            .with_filter(filter)
            .boxed(),
        LogFormat::Pretty => lines
            .fmt_fields(DefaultFields::new())
            .event_format(pretty::Pretty::default())
            .with_filter(filter)
            .boxed(),
    };
    Ok((layer, guard))
}

/// The trace and span id of the span, or of the request without one, in which a line is written.
fn trace_ids() -> Option<(String, String)> {
    let of_span = Context::map_current(|context| {
        let span = context.span();
        let ids = span.span_context();
        ids.is_valid()
            .then(|| (ids.trace_id().to_string(), ids.span_id().to_string()))
    });
    of_span.or_else(|| {
        request::with_current(|request| {
            request
                .trace_ids()
                .map(|(trace, span)| (trace.to_owned(), span.to_owned()))
        })
        .flatten()
    })
}
