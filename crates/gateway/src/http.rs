//! The HTTP side of the gateway: one file a noun; every answer carries its request's id, every refusal is a problem.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Bytes, HttpBody as _};
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{ACCEPT, LOCATION, ORIGIN};
use axum::http::{HeaderName, HeaderValue, Method};
use axum::middleware::{self, Next};
use axum::response::Response;
use confab_protocol::error::{Code, Failure};
use confab_protocol::query::{Answer, Query};
use confab_protocol::trace::TraceParent;
use tokio::sync::SetOnce;
use tracing::{Instrument as _, debug, error_span, warn};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::api_docs;
use crate::auth::Authenticator;
use crate::cluster::presence::PresenceDirectory;
use crate::limits::parsing::Parsing;
use crate::limits::{Limits, UserRequests};
use crate::metrics::{Answered, HttpMetrics, UNMATCHED_ROUTE};
use crate::public_url::PublicUrl;
use crate::sessions::Directory;
use crate::sessions::records::Records;
use crate::trace::traceparent;
use crate::workers::WorkerClient;
use crate::workers::read_marks::ReadMarks;
use crate::ws::Sockets;

mod answer;
mod asking;
mod body;
mod compression;
mod conversations;
pub(crate) mod cors;
mod docs;
mod events;
pub(crate) mod home;
mod idempotency;
mod if_match;
pub(crate) mod listen;
pub(crate) mod manners;
mod messages;
mod metadata;
pub(crate) mod origin_log;
mod pages;
pub(crate) mod params;
mod participants;
mod path;
mod presence;
pub(crate) mod problem;
mod reads;
mod revocations;
pub(crate) mod server;
mod sessions;
mod settings;
mod websocket;
mod who;

pub(crate) use settings::HttpSettings;

pub(crate) use asking::AskingAll;
use body::JsonBody;
use home::Pages;
use origin_log::OriginLog;
use problem::{Accepts, Problem};
use who::Who;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What the routes need.
#[derive(Debug)]
pub(crate) struct App {
    /// Who is calling.
    pub(crate) authenticator: Authenticator,
    /// The handle to the workers.
    pub(crate) commands: WorkerClient,
    /// How long a body may take.
    pub(crate) body_timeout: Duration,
    /// How long a request may take in all.
    pub(crate) longest: Duration,
    /// Turns for parsing what is large.
    pub(crate) parsing: Parsing,
    /// Rate limits.
    pub(crate) limits: Limits,
    /// What the requests of one user may take at once.
    pub(crate) requests: UserRequests,
    /// The handle for read marks.
    pub(crate) reads: ReadMarks,
    /// The way to the sessions of all gateways.
    pub(crate) directory: Directory,
    /// Turns for what every gateway is asked.
    pub(crate) asking: AskingAll,
    /// The way to what all gateways know of presence.
    pub(crate) presence: PresenceDirectory,
    /// What is kept of sessions.
    pub(crate) records: Records,
    /// How long a session's revocation is kept, in seconds.
    pub(crate) session_seconds: u64,
    /// Metrics of requests.
    pub(crate) metrics: HttpMetrics,
    /// The log of pages that may not call.
    pub(crate) origin_log: OriginLog,
    /// Set when the gateway is ready for the first time.
    pub(crate) was_ready: Arc<SetOnce<()>>,
}

impl App {
    /// Asks a worker on behalf of a request.
    async fn ask(&self, who: &Who, query: Query) -> Result<Answer, Failure> {
        self.commands
            .query(who.request_id.clone(), who.traceparent.clone(), query)
            .await
    }

    /// Reads a body, in its caller's turn where it is large.
    async fn parse<T: Send + 'static>(
        &self,
        who: &Who,
        JsonBody(body): JsonBody,
        read: impl FnOnce(&[u8]) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let (owner, bytes) = (who.owner(), body.len());
        let read = move |body: &Bytes| read(body);
        self.parsing.parse(&owner, (body, bytes), read).await?
    }
}

/// The id of a request: the caller's, or made.
#[derive(Debug, Clone)]
pub(crate) struct RequestId(pub(crate) String);

/// How the service looks from outside.
#[derive(Debug)]
pub(crate) struct Front {
    /// The pages for people.
    pub(crate) pages: Pages,
    /// The rules for pages of other origins.
    pub(crate) cors: cors::Rules,
    /// Where clients reach the gateways, if not by the address that they ask for.
    pub(crate) public_url: Option<PublicUrl>,
}

/// All routes; `admin` are those of the process itself.
pub(crate) fn router(app: Arc<App>, sockets: Arc<Sockets>, admin: Router, front: Front) -> Router {
    let public_url = front.public_url.as_ref();
    let prefix: Arc<str> = public_url.map_or("", PublicUrl::prefix).into();
    let (described, _) = routes().with_state(Arc::clone(&app)).split_for_parts();
    let (socket, _) = socket_route().with_state(sockets).split_for_parts();
    let routes = described
        .merge(socket)
        .merge(docs::router(public_url))
        .merge(home::router(front.pages, &prefix))
        .merge(admin)
        .fallback(async || Problem::from(Failure::of(Code::NotFound)))
        .method_not_allowed_fallback(async || Problem::from(Failure::of(Code::MethodNotAllowed)));
    around(routes, app, front.cors, prefix)
}

/// What goes around all routes, from the inside: what holds requests to their bounds, the rules for pages of other origins,
/// the path that a proxy takes away, what is told of every request, and compression, which the metrics are to know nothing of.
fn around(routes: Router, app: Arc<App>, cors: cors::Rules, prefix: Arc<str>) -> Router {
    let held = routes.layer(middleware::from_fn_with_state(
        Arc::clone(&app),
        manners::hold,
    ));
    let ruled = held.layer(middleware::from_fn_with_state(cors, cors::apply));
    let placed = if prefix.is_empty() {
        ruled
    } else {
        ruled.layer(middleware::from_fn_with_state(prefix, place))
    };
    placed
        .layer(middleware::from_fn_with_state(app, observe))
        .layer(middleware::from_fn(compression::apply))
}

/// The routes with their descriptions: one without the other does not compile.
fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::default()
        .routes(routes!(conversations::create, conversations::list))
        .routes(routes!(
            conversations::show,
            conversations::update,
            conversations::delete
        ))
        .routes(routes!(participants::list, participants::add))
        .routes(routes!(participants::update, participants::remove))
        .routes(routes!(presence::get))
        .routes(routes!(messages::history))
        .routes(routes!(events::list))
        .routes(routes!(messages::send))
        .routes(routes!(reads::mark))
        .routes(routes!(messages::show, messages::edit, messages::delete))
        .routes(routes!(messages::history_of))
        .routes(routes!(sessions::list))
        .routes(routes!(sessions::revoke))
        .routes(routes!(revocations::create))
}

fn socket_route() -> OpenApiRouter<Arc<Sockets>> {
    OpenApiRouter::default().routes(routes!(websocket::connect))
}

/// The OpenAPI description of all routes.
pub(crate) fn openapi(public_url: Option<&PublicUrl>) -> serde_json::Value {
    let mut api = routes().into_openapi();
    api.merge(socket_route().into_openapi());
    api_docs::openapi::document(api, public_url)
}

/// Gives the request its id and span, and its answer the id, the problem's body, what secures it, and a metric.
async fn observe(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let began = Instant::now();
    let id = request_id(&request);
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or(UNMATCHED_ROUTE, MatchedPath::as_str)
        .to_owned();
    let method = method_label(request.method());
    let accepts = Accepts::read(request.headers().get_all(ACCEPT));
    request.extensions_mut().insert(RequestId(id.clone()));
    let origin = request.headers().get(ORIGIN).cloned();
    let parent = traceparent(request.headers()).and_then(TraceParent::parse);
    // Of errors, so that no level of the log is without it.
    let span = error_span!(
        "request",
        request.id = %id,
        http.route = %route,
        http.method = %method,
        trace_id = parent.map(|parent| display(parent.trace_id)),
        span_id = parent.map(|parent| display(parent.span_id)),
    );
    let answer = next.run(request).instrument(span.clone()).await;
    if let Some(Problem(failure)) = answer.extensions().get::<Problem>() {
        span.in_scope(|| log_refusal(failure));
        if failure.code == Code::OriginForbidden {
            span.in_scope(|| app.origin_log.refused(origin.as_ref()));
        }
    }
    let mut response = problem::render(answer, &id, accepts);
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(X_REQUEST_ID, value);
    }
    manners::secure(&mut response);
    app.metrics.answered(&Answered {
        route: &route,
        method,
        status: response.status().as_u16(),
        bytes: response.body().size_hint().exact(),
        took: began.elapsed(),
    });
    response
}

/// Puts the path that a proxy takes away before the one that an answer names (RFC 9110, section 10.2.2).
async fn place(State(prefix): State<Arc<str>>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if let Some(location) = response.headers_mut().get_mut(LOCATION)
        && location.as_bytes().starts_with(b"/")
        && let Ok(placed) =
            HeaderValue::from_bytes(&[prefix.as_bytes(), location.as_bytes()].concat())
    {
        *location = placed;
    }
    response
}

/// A fault inside is for whoever runs this; what clients or an outage bring about is in the metrics, and too much to log.
fn log_refusal(failure: &Failure) {
    if failure.code == Code::Internal {
        warn!(%failure, "a request failed");
    } else {
        debug!(%failure, "a request was refused");
    }
}

/// Methods are the clients' words: those without a meaning here share a label, so that metrics stay bounded.
fn method_label(method: &Method) -> &'static str {
    const METHOD_LABELS: [(&Method, &str); 7] = [
        (&Method::GET, "GET"),
        (&Method::HEAD, "HEAD"),
        (&Method::POST, "POST"),
        (&Method::PUT, "PUT"),
        (&Method::PATCH, "PATCH"),
        (&Method::DELETE, "DELETE"),
        (&Method::OPTIONS, "OPTIONS"),
    ];
    METHOD_LABELS
        .iter()
        .find(|(known, _)| *known == method)
        .map_or("other", |(_, label)| label)
}

fn request_id(request: &Request) -> String {
    let given = request
        .headers()
        .get(X_REQUEST_ID)
        .and_then(|value| value.to_str().ok());
    let acceptable = |id: &&str| {
        (1..=128).contains(&id.len())
            && id
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    };
    given
        .filter(acceptable)
        .map_or_else(|| Uuid::now_v7().to_string(), str::to_owned)
}

#[cfg(test)]
mod tests;
