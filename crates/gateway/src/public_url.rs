//! The URL by which clients reach the gateways, where it is another than their own.

use std::str::FromStr;

use url::Url;

/// A URL that stands before all paths of the API, without a slash at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl(Url);

impl FromStr for PublicUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const MUST_BE: &str =
            "must be an http or https URL with a host, such as https://chat.example/confab";
        let url = Url::parse(text.trim()).map_err(|error| format!("{MUST_BE}: {error}"))?;
        let is_plain = url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none();
        match matches!(url.scheme(), "http" | "https") && url.has_host() && is_plain {
            true => Ok(Self(url)),
            false => Err(MUST_BE.to_owned()),
        }
    }
}

impl PublicUrl {
    /// What stands before the paths of the API: nothing, or a slash and what the proxy takes away.
    pub(crate) fn prefix(&self) -> &str {
        self.0.path().trim_end_matches('/')
    }

    /// The whole URL, without a slash at its end.
    pub(crate) fn text(&self) -> &str {
        self.0.as_str().trim_end_matches('/')
    }

    /// Its origin (RFC 6454, section 6.2), as browsers write it.
    pub(crate) fn origin(&self) -> String {
        self.0.origin().ascii_serialization()
    }

    /// Its host, with the port where that is not the scheme's own.
    pub(crate) fn authority(&self) -> String {
        let host = self.0.host_str().unwrap_or_default();
        match self.0.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        }
    }

    /// The scheme of a WebSocket there.
    pub(crate) fn websocket_scheme(&self) -> &'static str {
        match self.0.scheme() {
            "https" => "wss",
            _ => "ws",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_ends_without_a_slash() {
        let url: PublicUrl = "https://Chat.Example:443/confab/".parse().unwrap();
        assert_eq!(url.prefix(), "/confab");
        assert_eq!(url.text(), "https://chat.example/confab");
        assert_eq!(url.origin(), "https://chat.example");
        assert_eq!(url.authority(), "chat.example");
        let url: PublicUrl = "http://[::1]:8080".parse().unwrap();
        assert_eq!(url.prefix(), "");
        assert_eq!(url.text(), "http://[::1]:8080");
        assert_eq!(url.authority(), "[::1]:8080");
        assert_eq!(url.websocket_scheme(), "ws");
        for bad in [
            "chat.example",
            "/confab",
            "ftp://chat.example",
            "https://ann@chat.example",
            "https://chat.example/?a=1",
            "https://chat.example/#a",
        ] {
            bad.parse::<PublicUrl>().unwrap_err();
        }
    }
}
