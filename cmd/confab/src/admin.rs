//! What operators and orchestrators ask any process: /health, /ready, /metrics, /version.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use serde_json::json;

use crate::telemetry;

/// The media type of what Prometheus scrapes.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The routes. `missing` names what the process lacks to be ready, and takes a bounded time to say so.
pub(crate) fn router<Answer>(
    registry: Registry,
    missing: impl Fn() -> Answer + Clone + Send + Sync + 'static,
) -> Router
where
    Answer: Future<Output = Vec<&'static str>> + Send + 'static,
{
    let registry = Arc::new(registry);
    Router::new()
        .route("/health", get(async || Json(json!({ "status": "alive" }))))
        .route("/ready", get(async move || ready(&missing().await)))
        .route("/metrics", get(async move || metrics(&registry)))
        .route("/version", get(version))
}

fn ready(missing: &[&'static str]) -> Response {
    let status = match missing {
        [] => StatusCode::OK,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    let body = json!({ "ready": missing.is_empty(), "missing": missing });
    (status, Json(body)).into_response()
}

fn metrics(registry: &Registry) -> Response {
    let mut text = String::new();
    match encode(&mut text, registry) {
        Ok(()) => ([(CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn version() -> Response {
    Json(json!({ "version": telemetry::VERSION, "commit": telemetry::COMMIT })).into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;

    async fn body(response: Response) -> String {
        let bytes = to_bytes(response.into_body(), 1_000_000).await.unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn a_process_is_ready_when_nothing_is_missing() {
        let response = ready(&[]);
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(body(response).await, r#"{"missing":[],"ready":true}"#);
        let response = ready(&["nats"]);
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(
            body(response).await,
            r#"{"missing":["nats"],"ready":false}"#
        );
    }

    #[tokio::test]
    async fn metrics_tell_the_build_and_the_process() {
        let text = body(metrics(&telemetry::registry())).await;
        for name in [
            "confab_build_info{",
            "process_resident_memory_bytes ",
            "process_open_fds ",
            "process_cpu_seconds_total ",
        ] {
            assert!(text.contains(name), "{name} is not in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
