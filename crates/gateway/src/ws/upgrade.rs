//! The opening handshake (RFC 6455 section 4.2), from a request's head to the bare connection.

use aws_lc_rs::digest;
use axum::body::Body;
use axum::http::header::{
    ALLOW, CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use axum::response::Response;
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use confab_protocol::error::{Code, Failure};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::delivery::encoding::Encoding;

/// What the accept header is hashed with (RFC 6455 section 1.3).
const ACCEPT_GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Standard base64, also with stray bits at its end: the very example of RFC 6455 section 4.1 has some.
const KEY_ENGINE: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);
const WEBSOCKET_TOKEN: HeaderValue = HeaderValue::from_static("websocket");
const UPGRADE_TOKEN: HeaderValue = HeaderValue::from_static("upgrade");
const WEBSOCKET_VERSION: HeaderValue = HeaderValue::from_static("13");

/// A valid request to speak WebSocket.
#[derive(Debug)]
pub(crate) struct Handshake {
    /// How this client's messages are encoded.
    pub(crate) encoding: Encoding,
    accept: HeaderValue,
    /// The subprotocol to confirm; none where the client offered none.
    subprotocol: Option<HeaderValue>,
}

impl Handshake {
    /// Checks the head of a request and chooses the subprotocol: of those we know, the one the client names first.
    ///
    /// # Errors
    /// When it is not a handshake that this gateway can complete.
    pub(crate) fn from_parts(parts: &Parts) -> Result<Self, Rejection> {
        if parts.method != Method::GET {
            return Err(Rejection::Method);
        }
        let headers = &parts.headers;
        if parts.version != Version::HTTP_11 || !has_token(headers, &CONNECTION, "upgrade") {
            return Err(Rejection::Header {
                name: "Connection",
                must: "must name upgrade, on HTTP/1.1",
            });
        }
        if !has_token(headers, &UPGRADE, "websocket") {
            return Err(Rejection::Header {
                name: "Upgrade",
                must: "must be websocket",
            });
        }
        if only(headers, &SEC_WEBSOCKET_VERSION) != Some(&WEBSOCKET_VERSION) {
            return Err(Rejection::Version);
        }
        let accept = accept(headers)?;
        let chosen = negotiate(headers)?;
        Ok(Self {
            encoding: chosen.unwrap_or(Encoding::Json),
            accept,
            subprotocol: chosen.map(|encoding| HeaderValue::from_static(encoding.subprotocol())),
        })
    }

    /// The answer that completes the handshake.
    pub(crate) fn response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, UPGRADE_TOKEN);
        headers.insert(UPGRADE, WEBSOCKET_TOKEN);
        headers.insert(SEC_WEBSOCKET_ACCEPT, self.accept);
        headers.extend(self.subprotocol.map(|name| (SEC_WEBSOCKET_PROTOCOL, name)));
        response
    }
}

/// Why a request is no handshake that this gateway can complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rejection {
    /// A method other than GET.
    Method,
    /// A WebSocket version other than 13, or none.
    Version,
    /// A header that is missing or wrong.
    Header {
        /// Its name.
        name: &'static str,
        /// What it must be.
        must: &'static str,
    },
}

impl Rejection {
    /// What the request is answered with.
    pub(crate) fn failure(self) -> Failure {
        match self {
            Self::Method => Failure::of(Code::MethodNotAllowed),
            Self::Version => Failure::of(Code::UpgradeRequired),
            Self::Header { name, must } => Failure::field(name, must),
        }
    }

    /// The headers that belong to that answer: for another version, the one spoken here (RFC 6455 section 4.2.2), with
    /// the upgrade that status 426 must name (RFC 9110 section 15.5.22).
    pub(crate) fn headers(self) -> HeaderMap {
        let headers: &[_] = match self {
            Self::Method => &[(ALLOW, HeaderValue::from_static("GET"))],
            Self::Version => &[
                (SEC_WEBSOCKET_VERSION, WEBSOCKET_VERSION),
                (UPGRADE, WEBSOCKET_TOKEN),
                (CONNECTION, UPGRADE_TOKEN),
            ],
            Self::Header { .. } => &[],
        };
        headers.iter().cloned().collect()
    }
}

/// A connection that did not become a WebSocket after its answer was sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpgradeError {
    /// It was lost before.
    #[error("the connection was lost during its upgrade")]
    Lost(#[from] hyper::Error),
    /// It is not what the gateway's accept loop serves.
    #[error("the connection is not a TCP stream")]
    Foreign,
}

/// The bare connection, once [`Handshake::response`] has been sent, and the bytes already read behind the request.
///
/// # Errors
/// When the connection was lost, or is not served as a `TokioIo<TcpStream>`.
pub(crate) async fn upgraded(upgrade: OnUpgrade) -> Result<(TcpStream, Bytes), UpgradeError> {
    let upgraded: Upgraded = upgrade.await?;
    let Ok(parts) = upgraded.downcast::<TokioIo<TcpStream>>() else {
        return Err(UpgradeError::Foreign);
    };
    Ok((parts.io.into_inner(), parts.read_buf))
}

fn accept(headers: &HeaderMap) -> Result<HeaderValue, Rejection> {
    const INVALID_REQUEST: Rejection = Rejection::Header {
        name: "Sec-WebSocket-Key",
        must: "must be 16 bytes in base64, once",
    };
    let key = only(headers, &SEC_WEBSOCKET_KEY)
        .ok_or(INVALID_REQUEST)?
        .as_bytes()
        .trim_ascii();
    if !KEY_ENGINE.decode(key).is_ok_and(|bytes| bytes.len() == 16) {
        return Err(INVALID_REQUEST);
    }
    let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key);
    hash.update(ACCEPT_GUID.as_bytes());
    let Ok(accept) = HeaderValue::try_from(KEY_ENGINE.encode(hash.finish())) else {
        return Err(INVALID_REQUEST);
    };
    Ok(accept)
}

/// The client's favourite among the subprotocols we know, or none where it offered none.
fn negotiate(headers: &HeaderMap) -> Result<Option<Encoding>, Rejection> {
    let mut offered = list(headers, &SEC_WEBSOCKET_PROTOCOL).peekable();
    if offered.peek().is_none() {
        return Ok(None);
    }
    match offered.find_map(Encoding::of_subprotocol) {
        Some(encoding) => Ok(Some(encoding)),
        None => Err(Rejection::Header {
            name: "Sec-WebSocket-Protocol",
            must: "must offer confab.v1.json or confab.v1.msgpack",
        }),
    }
}

/// The value of a header that may come once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    list(headers, name).any(|element| element.eq_ignore_ascii_case(token))
}

/// The elements of a list header (RFC 9110 section 5.6.1), of all its lines; one that is not ASCII is an unknown name.
fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lines = headers
        .get_all(name)
        .iter()
        .map(|line| line.to_str().unwrap_or("?"));
    lines
        .flat_map(|line| line.split(','))
        .map(str::trim)
        .filter(|element| !element.is_empty())
}

#[cfg(test)]
mod tests;
