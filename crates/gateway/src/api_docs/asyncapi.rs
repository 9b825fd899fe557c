//! The AsyncAPI description of the WebSocket: every frame and event with the schema of its type.

#![expect(
    clippy::indexing_slicing,
    reason = "a JSON value read by a name that is not there is null, and those written to are objects made here"
)]

use serde_json::{Map, Value, json};

use crate::public_url::PublicUrl;

mod client;
mod close;
mod event;
mod schemas;
mod server;

/// What the description says before its messages.
const ABOUT_TEXT: &str = include_str!("asyncapi/about.md");

/// A frame or an event: what it is called, what it says, and what it looks like.
pub(super) struct Described {
    /// Its `type`.
    name: String,
    /// One line.
    summary: &'static str,
    /// What one line does not say.
    description: &'static str,
    /// Its schema.
    payload: Value,
    /// How it might look.
    example: Value,
    /// The frames that may answer it.
    answers: &'static [&'static str],
}

/// The description of the WebSocket.
pub(crate) fn document(public_url: Option<&PublicUrl>) -> Value {
    let (heard, said) = (client::frames(), server_messages());
    let mut messages = Map::new();
    let mut operations = Map::new();
    for described in &heard {
        let name = format!("client.{}", described.name);
        operations.insert(
            format!("receive.{}", described.name),
            receiving(&name, described.answers),
        );
        messages.insert(name, message(described));
    }
    for described in &said {
        let name = server_name(&described.name);
        operations.insert(format!("send.{}", described.name), sending(&name));
        messages.insert(name, message(described));
    }
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "confab",
            "version": env!("CARGO_PKG_VERSION"),
            "description": format!("{ABOUT_TEXT}\n{}", close::table()),
            "license": { "name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0" },
        },
        "defaultContentType": "application/json",
        "servers": { "gateway": server(public_url) },
        "channels": { "socket": channel(&messages) },
        "operations": operations,
        "components": {
            "messages": messages,
            "schemas": schemas::all(),
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "In the upgrade's Authorization header; for browsers, in `hello`.",
                },
            },
        },
        "x-close-codes": close::codes(),
    })
}

fn server_messages() -> Vec<Described> {
    let mut all = server::frames();
    all.extend(event::events());
    all
}

fn server_name(name: &str) -> String {
    format!("server.{name}")
}

fn message(described: &Described) -> Value {
    json!({
        "name": described.name,
        "title": described.name,
        "summary": described.summary,
        "description": described.description,
        "payload": described.payload,
        "examples": [{ "name": "example", "payload": described.example }],
    })
}

/// What the gateway takes, and what it answers with.
fn receiving(name: &str, answers: &[&str]) -> Value {
    let mut operation = operation("receive", name);
    if !answers.is_empty() {
        let answers: Vec<_> = answers
            .iter()
            .map(|answer| in_channel(&server_name(answer)))
            .collect();
        operation["reply"] =
            json!({ "channel": { "$ref": "#/channels/socket" }, "messages": answers });
    }
    operation
}

fn sending(name: &str) -> Value {
    operation("send", name)
}

fn operation(action: &str, name: &str) -> Value {
    json!({
        "action": action,
        "channel": { "$ref": "#/channels/socket" },
        "messages": [in_channel(name)],
    })
}

fn in_channel(name: &str) -> Value {
    json!({ "$ref": format!("#/channels/socket/messages/{name}") })
}

fn server(public_url: Option<&PublicUrl>) -> Value {
    let security = json!([{ "$ref": "#/components/securitySchemes/bearer" }]);
    if let Some(url) = public_url {
        return json!({
            "host": url.authority(),
            "pathname": url.prefix(),
            "protocol": url.websocket_scheme(),
            "description": "Any gateway.",
            "security": security,
        });
    }
    json!({
        "host": "{host}",
        "protocol": "wss",
        "description": "Any gateway: where this description came from.",
        "variables": { "host": { "default": "localhost", "description": "The gateway's host and port." } },
        "security": security,
    })
}

fn channel(messages: &Map<String, Value>) -> Value {
    let references: Map<_, _> = messages
        .keys()
        .map(|name| {
            (
                name.clone(),
                json!({ "$ref": format!("#/components/messages/{name}") }),
            )
        })
        .collect();
    json!({
        "address": "/v1/ws",
        "title": "The socket",
        "description": "One connection: everything that its user is owed, of all of its conversations.",
        "messages": references,
        "bindings": {
            "ws": {
                "method": "GET",
                "headers": {
                    "type": "object",
                    "properties": {
                        "Authorization": { "type": "string", "description": "`Bearer` and the JWT; without it, `hello` has it." },
                        "Sec-WebSocket-Protocol": {
                            "type": "string",
                            "enum": ["confab.v1.json", "confab.v1.msgpack"],
                            "description": "Text frames of JSON, or binary frames of MessagePack: the same messages.",
                        },
                    },
                },
                "bindingVersion": "0.1.0",
            },
        },
    })
}

#[cfg(test)]
mod tests;
