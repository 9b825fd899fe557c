//! An event as one JSON object: its own fields and those of the spans that it is in, all on one level, so that a request's id has one
//! place whoever logs it.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;

use confab_protocol::chain::chain;
use serde::Serialize;
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

/// Writes events so. The fields of spans must be written as JSON objects.
#[derive(Debug, Clone, Copy)]
pub(super) struct Json;

#[derive(Serialize)]
struct Line<'a> {
    timestamp: String,
    level: &'a str,
    /// With the message among them.
    #[serde(flatten)]
    fields: Fields,
    target: &'a str,
    /// The innermost span's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    span: Option<&'a str>,
}

/// What is nearer to the event takes the place of what is not.
#[derive(Default, Serialize)]
#[serde(transparent)]
struct Fields(BTreeMap<String, Value>);

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
        let mut innermost = None;
        for span in context
            .event_scope()
            .into_iter()
            .flat_map(|scope| scope.from_root())
        {
            innermost = Some(span.name());
            if let Some(of_span) = span.extensions().get::<FormattedFields<N>>()
                && let Ok(of_span) = serde_json::from_str::<BTreeMap<_, _>>(&of_span.fields)
            {
                fields.0.extend(of_span);
            }
        }
        event.record(&mut fields);
        let mut timestamp = String::new();
        SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
        let metadata = event.metadata();
        let line = Line {
            timestamp,
            level: metadata.level().as_str(),
            fields,
            target: metadata.target(),
            span: innermost,
        };
        let line = serde_json::to_string(&line).map_err(|_unwritable| fmt::Error)?;
        writeln!(writer, "{line}")
    }
}

impl Fields {
    fn set(&mut self, field: &Field, value: impl Into<Value>) {
        let name = field.name();
        let name = name.strip_prefix("r#").unwrap_or(name);
        self.0.insert(name.to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.set(field, chain(value).to_string());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field, format!("{value:?}"));
    }
}
