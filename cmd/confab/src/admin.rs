//! What operators and orchestrators ask any process: /health, /ready, /metrics, /version.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use confab_protocol::degraded::Degraded;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use serde_json::json;

use crate::telemetry;

/// The media type of what Prometheus scrapes.
const OPENMETRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// How a process is.
#[derive(Debug, Default)]
pub(crate) struct Readiness {
    /// What it lacks to be ready: taking it out of rotation helps.
    pub(crate) missing: Vec<&'static str>,
    /// What it does by another way than the usual one: it serves all the same.
    pub(crate) degraded: Vec<Degraded>,
}

/// The routes. `readiness` says how the process is, and takes a bounded time for it.
pub(crate) fn router<Answer>(
    registry: Registry,
    readiness: impl Fn() -> Answer + Clone + Send + Sync + 'static,
) -> Router
where
    Answer: Future<Output = Readiness> + Send + 'static,
{
    let registry = Arc::new(registry);
    Router::new()
        .route("/health", get(async || Json(json!({ "status": "alive" }))))
        .route("/ready", get(async move || ready(&readiness().await)))
        .route("/metrics", get(async move || metrics(&registry)))
        .route("/version", get(version))
}

fn ready(Readiness { missing, degraded }: &Readiness) -> Response {
    let is_ready = missing.is_empty();
    let status = if is_ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = json!({ "ready": is_ready, "missing": missing, "degraded": degraded });
    (status, Json(body)).into_response()
}

fn metrics(registry: &Registry) -> Response {
    let mut text = String::new();
    match encode(&mut text, registry) {
        Ok(()) => ([(CONTENT_TYPE, OPENMETRICS_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn version() -> Response {
    Json(json!({ "version": telemetry::BUILD_VERSION, "commit": telemetry::BUILD_COMMIT }))
        .into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use confab_protocol::degraded::EVENTS_LINGER;

    use super::*;

    async fn body(response: Response) -> String {
        let bytes = to_bytes(response.into_body(), 1_000_000).await.unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn a_process_is_ready_when_nothing_is_missing() {
        let response = ready(&Readiness::default());
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(
            body(response).await,
            r#"{"degraded":[],"missing":[],"ready":true}"#
        );
        let response = ready(&Readiness {
            missing: vec!["nats"],
            degraded: Vec::new(),
        });
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(
            body(response).await,
            r#"{"degraded":[],"missing":["nats"],"ready":false}"#
        );
    }

    #[tokio::test]
    async fn degraded_process_is_ready_and_says_so() {
        let degraded = Degraded {
            what: EVENTS_LINGER.to_owned(),
            since: "2026-11-29T21:00:00Z".parse().unwrap(),
            remedy: "look".to_owned(),
        };
        let response = ready(&Readiness {
            missing: Vec::new(),
            degraded: vec![degraded],
        });
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(
            body(response).await,
            r#"{"degraded":[{"remedy":"look","since":"2026-11-29T21:00:00.000Z","what":"events_linger"}],"missing":[],"ready":true}"#
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
