//! Log lines: what is written at most, and that an event is one line.

use std::fmt::{self, Write as _};

use anyhow::Context as _;
use tracing::level_filters::LevelFilter;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{self, FormatFields, JsonFields};
use tracing_subscriber::prelude::*;

mod json;

use json::Json;

/// How targets of confab's own crates begin.
const OWN_TARGETS: &str = "confab";
/// What libraries may log at most: below that async-nats writes the messages that it sends and receives, hyper writes headers.
const MAX_LIBRARY_LEVEL: LevelFilter = LevelFilter::INFO;

/// How lines look.
#[derive(Debug, Clone, Copy)]
pub(super) enum LineFormat {
    Text { colours: bool },
    Json,
}

/// What writes log lines by a filter.
///
/// # Errors
/// When the filter cannot be read.
pub(super) fn subscriber<W>(
    filter: &str,
    shape: LineFormat,
    writer: W,
) -> anyhow::Result<Box<dyn Subscriber + Send + Sync>>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter =
        EnvFilter::try_new(filter).with_context(|| format!("--log {filter:?} is no filter"))?;
    let base = tracing_subscriber::registry()
        .with(filter)
        .with(filter_fn(may_be_logged));
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    Ok(match shape {
        LineFormat::Text { colours } => {
            Box::new(base.with(lines.with_ansi(colours).fmt_fields(one_line())))
        }
        LineFormat::Json => {
            Box::new(base.with(lines.fmt_fields(JsonFields::new()).event_format(Json)))
        }
    })
}

fn may_be_logged(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with(OWN_TARGETS) || *metadata.level() <= MAX_LIBRARY_LEVEL
}

/// Fields as text, in which nothing begins a line: what a caller chose may stand in them.
fn one_line() -> impl for<'a> FormatFields<'a> + 'static {
    let field =
        |writer: &mut format::Writer<'_>, field: &tracing::field::Field, value: &dyn fmt::Debug| {
            match field.name() {
                "message" => {}
                name => write!(writer, "{}=", name.trim_start_matches("r#"))?,
            }
            write!(Escaping(writer), "{value:?}")
        };
    format::debug_fn(field).delimited(" ")
}

/// Writes control characters as their escapes.
struct Escaping<'a, 'b>(&'a mut format::Writer<'b>);

impl fmt::Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.split_inclusive(char::is_control) {
            let mut plain = part.chars();
            match plain.next_back().filter(|last| last.is_control()) {
                Some(control) => write!(self.0, "{}{}", plain.as_str(), control.escape_default())?,
                None => self.0.write_str(part)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
