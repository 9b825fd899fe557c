//! Routes of the process itself: no token, no problem bodies.

use confab_protocol::degraded::EVENTS_LINGER;
use serde_json::{Map, Value, json};

/// The paths.
pub(super) fn paths() -> Map<String, Value> {
    let mut paths = Map::new();
    let mut put = |path: &str, item: Value| {
        paths.insert(path.to_owned(), json!({ "get": item }));
    };
    put("/health", health());
    put("/ready", ready());
    put("/metrics", metrics());
    put("/version", version());
    put(
        "/openapi.json",
        description("getOpenApi", "This description.", "OpenAPI 3.1"),
    );
    put(
        "/asyncapi.json",
        description(
            "getAsyncApi",
            "The WebSocket's description.",
            "AsyncAPI 3.0",
        ),
    );
    paths
}

fn operation(id: &str, summary: &str, description: &str, responses: &Value) -> Value {
    json!({
        "operationId": id,
        "tags": ["service"],
        "summary": summary,
        "description": description,
        "security": [],
        "responses": responses,
    })
}

fn answer(description: &str, schema: &Value, example: &Value) -> Value {
    json!({
        "description": description,
        "headers": { "X-Request-Id": { "$ref": "#/components/headers/X-Request-Id" } },
        "content": { "application/json": { "schema": schema, "examples": { "example": { "value": example } } } },
    })
}

fn health() -> Value {
    let schema = json!({
        "type": "object",
        "required": ["status"],
        "properties": { "status": { "type": "string", "enum": ["alive"] } },
    });
    let alive = answer("It lives.", &schema, &json!({ "status": "alive" }));
    operation(
        "getHealth",
        "Whether the process lives.",
        "Restart it when this does not answer.",
        &json!({ "200": alive }),
    )
}

fn ready() -> Value {
    let schema = json!({
        "type": "object",
        "required": ["ready", "missing", "degraded"],
        "properties": {
            "ready": { "type": "boolean" },
            "missing": { "type": "array", "items": { "type": "string" }, "description": "What is missing." },
            "degraded": {
                "type": "array",
                "description": "What it does by another way than the usual one. It serves all the same.",
                "items": {
                    "type": "object",
                    "required": ["what", "since", "remedy"],
                    "properties": {
                        "what": { "type": "string", "description": "The condition, such as `events_linger`." },
                        "since": { "type": "string", "format": "date-time", "description": "When the process found it." },
                        "remedy": { "type": "string", "description": "What an operator is to do." },
                    },
                },
            },
        },
    });
    let degraded = json!([{
        "what": EVENTS_LINGER,
        "since": "2026-11-29T21:00:00.000Z",
        "remedy": "Find out why JetStream does not take events.",
    }]);
    let responses = json!({
        "200": answer("It may serve.", &schema, &json!({ "ready": true, "missing": [], "degraded": degraded })),
        "503": answer("It may not.", &schema, &json!({ "ready": false, "missing": ["nats"], "degraded": [] })),
    });
    operation(
        "getReady",
        "Whether the process may serve.",
        "A gateway: NATS connected, keys loaded, revocations read, feed caught up, replay window filled, not draining. Send it no clients while it says no.",
        &responses,
    )
}

fn metrics() -> Value {
    let text = json!({
        "description": "The metrics.",
        "headers": { "X-Request-Id": { "$ref": "#/components/headers/X-Request-Id" } },
        "content": {
            "application/openmetrics-text": {
                "schema": { "type": "string" },
                "examples": { "example": { "value": "confab_build_info{version=\"0.1.0\"} 1\n# EOF\n" } },
            },
        },
    });
    operation(
        "getMetrics",
        "Metrics for Prometheus.",
        "OpenMetrics text.",
        &json!({ "200": text }),
    )
}

fn version() -> Value {
    let schema = json!({
        "type": "object",
        "required": ["version", "commit"],
        "properties": { "version": { "type": "string" }, "commit": { "type": ["string", "null"], "description": "null where it is not known." } },
    });
    let example = json!({ "version": env!("CARGO_PKG_VERSION"), "commit": "0123abc" });
    let build = answer("The build.", &schema, &example);
    operation(
        "getVersion",
        "Which build runs.",
        "Its version, and the commit it was built from.",
        &json!({ "200": build }),
    )
}

fn description(id: &str, summary: &str, format: &str) -> Value {
    let document = answer(
        "The document.",
        &json!({ "type": "object" }),
        &json!({ "info": { "title": "confab" } }),
    );
    operation(
        id,
        summary,
        &format!("{format}, generated from the service's own types."),
        &json!({ "200": document }),
    )
}
