//! `/v1/ws`: the request that a WebSocket begins with.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};

use super::params::Params;
use super::problem::Problem;
use crate::ws::upgrade::Handshake;
use crate::ws::{Sockets, accept};

/// The WebSocket.
///
/// Checks origin, token and handshake, then switches protocols: what is said then is in the AsyncAPI description,
/// `/asyncapi.json`. The token comes in the `Authorization` header, or, for browsers, in the `hello` frame; never in the URL.
#[utoipa::path(
    get,
    path = "/v1/ws",
    operation_id = "connect",
    tag = "websocket",
    params(
        ("Upgrade" = String, Header, description = "`websocket`."),
        ("Connection" = String, Header, description = "`Upgrade`."),
        ("Sec-WebSocket-Version" = String, Header, description = "`13`."),
        ("Sec-WebSocket-Key" = String, Header, description = "16 random bytes in base64."),
        ("Sec-WebSocket-Protocol" = Option<String>, Header, description = "`confab.v1.json` (also when none is offered) or `confab.v1.msgpack`: of several the first that is known."),
        ("Origin" = Option<String>, Header, description = "What a browser says of its page: on the allowlist, or, where there is none, the gateway's own. Not looked at beside a bearer token in the header, which no page can send.")
    ),
    responses((
        status = 101,
        description = "The connection is a WebSocket from here on.",
        headers(("Sec-WebSocket-Protocol" = String, description = "The subprotocol that was chosen, where one was offered."))
    ))
)]
pub(super) async fn connect(State(sockets): State<Arc<Sockets>>, mut request: Request) -> Response {
    let upgrade = hyper::upgrade::on(&mut request);
    let (parts, _body) = request.into_parts();
    let handshake = match Handshake::from_parts(&parts) {
        Ok(handshake) => handshake,
        Err(rejection) => {
            return (rejection.headers(), Problem::from(rejection.failure())).into_response();
        }
    };
    // It takes no parameters: a token in a URL, say, would end up in logs.
    if let Err(failure) = Params::parse(parts.uri.query()).finish() {
        return Problem::from(failure).into_response();
    }
    match accept(&sockets, &parts, handshake, upgrade).await {
        Ok(switching) => switching,
        Err(failure) => Problem::from(failure).into_response(),
    }
}
