//! `confab openapi` and `confab asyncapi`: the descriptions that gateways serve, without one.

use std::io::Write as _;

/// Print the OpenAPI description of HTTP, as gateways serve it at /openapi.json.
#[derive(Debug, clap::Args)]
pub(crate) struct OpenApi {}

/// Print the AsyncAPI description of the WebSocket, as gateways serve it at /asyncapi.json.
#[derive(Debug, clap::Args)]
pub(crate) struct AsyncApi {}

pub(crate) fn print(document: &serde_json::Value) -> anyhow::Result<()> {
    writeln!(std::io::stdout().lock(), "{document:#}")?;
    Ok(())
}
