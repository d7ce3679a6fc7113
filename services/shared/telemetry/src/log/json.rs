use std::fmt;

use serde_json::{Map, Value};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields, FormattedFields,
        format::Writer,
        time::{FormatTime, SystemTime},
    },
    registry::LookupSpan,
};

use crate::request;

/// One flat JSON object a line: `timestamp level target message`, `trace_id span_id` inside a trace, the fields of the event,
/// and the innermost span with its fields as `span`.
pub(super) struct Json;

/// The keys that are ours; an event's field of the same name is left out.
const OWN: [&str; 7] = [
    "timestamp",
    "level",
    "target",
    "message",
    "trace_id",
    "span_id",
    "span",
];

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        writer.write_str("{\"timestamp\":\"")?;
        SystemTime.format_time(&mut writer)?;
        let metadata = event.metadata();
        // a line of the `log` crate brings its target as a field
        let target = fields.log_target.as_deref().unwrap_or(metadata.target());
        write!(
            writer,
            "\",\"level\":\"{}\",\"target\":{}",
            metadata.level(),
            Value::from(target)
        )?;
        write!(writer, ",\"message\":{}", Value::from(fields.message))?;
        if let Some((trace_id, span_id)) = super::trace_ids() {
            write!(writer, ",\"trace_id\":\"{trace_id}\",\"span_id\":\"{span_id}\"")?;
        }
        for (name, value) in fields
            .others
            .iter()
            .filter(|(name, _)| !OWN.contains(&name.as_str()))
        {
            write!(writer, ",{}:{value}", Value::from(name.as_str()))?;
        }
        if let Some(span) = context.lookup_current() {
            write!(writer, ",\"span\":{{\"name\":{}", Value::from(span.name()))?;
            let extensions = span.extensions();
            // JsonFields wrote a whole object: its members go into ours
            let object = extensions
                .get::<FormattedFields<N>>()
                .map(|fields| fields.fields.as_str());
            if let Some(members) = object
                .and_then(|text| text.strip_prefix('{'))
                .filter(|members| *members != "}")
            {
                write!(writer, ",{members}")?;
            } else {
                writer.write_char('}')?;
            }
        } else if let Some(request) = request::current() {
            write!(
                writer,
                ",\"span\":{{\"name\":\"{}\",\"rpc.method\":\"{}\"",
                request.name(),
                request.method()
            )?;
            if let Some(id) = request.id() {
                write!(writer, ",\"request.id\":{}", Value::from(id))?;
            }
            writer.write_char('}')?;
        }
        writer.write_str("}\n")
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    log_target: Option<String>,
    others: Map<String, Value>,
}

impl Fields {
    fn set(&mut self, field: &Field, value: impl Into<Value>) {
        if !field.name().starts_with("log.") {
            self.others.insert(field.name().to_owned(), value.into());
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        if field.name() == "message" {
            self.message = text;
        } else {
            self.set(field, text);
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.message),
            "log.target" => self.log_target = Some(value.to_owned()),
            _ => self.set(field, value),
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, value);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
    use tracing_subscriber::{
        fmt::{self, format::JsonFields},
        layer::SubscriberExt as _,
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Output(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Output {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(lines: impl FnOnce()) -> Vec<Value> {
        let output = Output::default();
        let writer = output.clone();
        let provider = SdkTracerProvider::builder()
            .with_sampler(Sampler::AlwaysOff)
            .build();
        let subscriber = tracing_subscriber::registry()
            .with(tracing_opentelemetry::layer().with_tracer(provider.tracer("test")))
            .with(
                fmt::layer()
                    .with_writer(move || writer.clone())
                    .with_ansi(false)
                    .fmt_fields(JsonFields::new())
                    .event_format(Json),
            );
        tracing::subscriber::with_default(subscriber, lines);
        let bytes = output.0.lock().unwrap().clone();
        String::from_utf8(bytes)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).expect(line))
            .collect()
    }

    #[test]
    fn a_line_is_flat_and_carries_the_trace_even_when_it_is_not_recorded() {
        let lines = logged(|| {
            let span = tracing::info_span!("request", request.id = "r\"1");
            let _entered = span.enter();
            tracing::info!(user.id = 7, good = true, level = "mine", "hello \"world\"\n");
        });
        let line = &lines[0];
        assert_eq!(line["message"], "hello \"world\"\n");
        assert_eq!(
            (&line["user.id"], &line["good"]),
            (&Value::from(7), &Value::from(true))
        );
        assert_eq!(line["level"], "INFO", "a field cannot replace the level");
        assert_eq!(
            line["span"],
            serde_json::json!({"name": "request", "request.id": "r\"1"})
        );
        assert_eq!(line["trace_id"].as_str().unwrap().len(), 32);
        assert_ne!(line["trace_id"], "0".repeat(32));
    }

    #[test]
    fn a_request_without_a_span_is_named_all_the_same() {
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let headers = http::HeaderMap::from_iter([(
            http::HeaderName::from_static("traceparent"),
            http::HeaderValue::from_static(parent),
        )]);
        let id = Some(http::HeaderValue::from_static("r-1"));
        let request = request::Request::new("rpc", "/a/B", id, &headers);
        let mut line = Box::pin(request::scope(Some(request), async { tracing::info!("hello") }));
        let lines = logged(|| {
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            assert!(line.as_mut().poll(&mut context).is_ready());
        });
        assert_eq!(
            lines[0]["span"],
            serde_json::json!({"name": "rpc", "rpc.method": "/a/B", "request.id": "r-1"})
        );
        assert_eq!(lines[0]["trace_id"], "0af7651916cd43dd8448eb211c80319c");
    }

    #[test]
    fn outside_of_spans_there_is_no_trace() {
        let lines = logged(|| {
            tracing::warn!("plain");
            let span = tracing::info_span!("bare");
            span.in_scope(|| tracing::error!(error = ?"x", "inside"));
        });
        assert_eq!(
            (&lines[0]["level"], lines[0].get("trace_id")),
            (&Value::from("WARN"), None)
        );
        assert_eq!(lines[1]["span"], serde_json::json!({"name": "bare"}));
    }
}
