use std::fmt;

use tracing::{Event, Subscriber};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{Format, Full, Writer},
    },
    registry::LookupSpan,
};

use crate::request;

/// The usual line of `tracing`, with the trace id in front.
#[derive(Default)]
pub(super) struct Pretty(Format<Full>);

impl<S, N> FormatEvent<S, N> for Pretty
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
        if let Some((trace_id, _)) = super::trace_ids() {
            write!(writer, "{trace_id} ")?;
        }
        if let Some(request) = request::current() {
            let id = request.id().unwrap_or_default();
            write!(writer, "{}{{request.id={id}}} ", request.name())?;
        }
        self.0.format_event(context, writer, event)
    }
}
