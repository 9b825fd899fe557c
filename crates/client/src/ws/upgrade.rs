//! The upgrade (RFC 6455 section 4.1), with our subprotocol and, where it goes there, the token.

use tokio_tungstenite::connect_async_with_config;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::client::{ClientRequestBuilder, IntoClientRequest as _};
use tokio_tungstenite::tungstenite::http::uri::InvalidUri;
use tokio_tungstenite::tungstenite::http::{HeaderValue, Uri, header};

use super::{Options, Stream, TokenIn, WsError};
use crate::{Problem, Response};

pub(super) async fn upgrade(url: &str, options: &Options) -> Result<Stream, WsError> {
    let mut request = ClientRequestBuilder::new(address(url)?)
        .with_sub_protocol(options.encoding.subprotocol())
        .into_client_request()?;
    let headers = request.headers_mut();
    if let TokenIn::Header(token) = &options.token {
        headers.insert(header::AUTHORIZATION, value(&format!("Bearer {token}"))?);
    }
    if let Some(origin) = &options.origin {
        headers.insert(header::ORIGIN, value(origin)?);
    }
    let connected = Box::pin(connect_async_with_config(request, None, true)).await;
    connected.map(|(stream, _)| stream).map_err(refusal)
}

fn value(text: &str) -> Result<HeaderValue, WsError> {
    HeaderValue::from_str(text).map_err(|source| WsError::Invalid("header", source.into()))
}

/// `http` becomes `ws` and `https` `wss`; both other forms stay.
fn address(url: &str) -> Result<Uri, WsError> {
    let url = url.trim_end_matches('/');
    let address = match url.strip_prefix("http") {
        Some(rest) => format!("ws{rest}/v1/ws"),
        None => format!("{url}/v1/ws"),
    };
    address
        .parse()
        .map_err(|source: InvalidUri| WsError::Invalid("URL", source.into()))
}

/// An answer other than 101 carries a problem.
fn refusal(error: tungstenite::Error) -> WsError {
    let tungstenite::Error::Http(response) = error else {
        return error.into();
    };
    let (parts, body) = response.into_parts();
    let response = Response {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body: body.unwrap_or_default(),
    };
    match Problem::of(&response) {
        Some(problem) => WsError::Refused(Box::new(problem)),
        None => tungstenite::Error::Http(Box::new(tungstenite::http::Response::new(Some(
            response.body,
        ))))
        .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_follows_the_scheme() {
        for (url, wanted) in [
            ("http://h:1", "ws://h:1/v1/ws"),
            ("https://h/", "wss://h/v1/ws"),
            ("ws://h:1", "ws://h:1/v1/ws"),
        ] {
            assert_eq!(address(url).unwrap().to_string(), wanted);
        }
        assert!(address("http://a b").is_err());
    }
}
