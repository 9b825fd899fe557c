//! Origins of pages (RFC 6454): which of them may call and open a WebSocket.

use std::sync::Arc;

use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use confab_protocol::error::{Code, Failure};

mod local_pages;

use local_pages::LOCALHOST_NAME;

/// The most of an origin that a refusal repeats, in characters.
const MAX_SHOWN_CHARS: usize = 200;
/// The origin of what has none of its own, such as a sandboxed frame or a page from a file (RFC 6454, section 6.1).
const OPAQUE_ORIGIN: &str = "null";
/// The entry for every origin.
const ANY_ORIGIN: &str = "*";
/// What Electron's pages from files say.
const FILE_ORIGIN: &str = "file://";

/// Which origins are allowed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Origins {
    /// As browsers write them, or `*`, or `localhost`; with none, the gateway's own.
    listed: Arc<[String]>,
    /// That of the public URL.
    public: Option<Arc<str>>,
}

impl Origins {
    /// The entries of the allowlist, those that say nothing left out, and the origin of the public URL.
    ///
    /// # Errors
    /// The entry that is no origin.
    pub(crate) fn new(entries: &[String], public: Option<String>) -> Result<Self, String> {
        let given = entries.iter().filter(|entry| !entry.trim().is_empty());
        let listed = given
            .map(|entry| normalized(entry).ok_or_else(|| entry.clone()))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            listed,
            public: public.map(Arc::from),
        })
    }

    /// Whether there is none on the list.
    pub(crate) fn is_empty(&self) -> bool {
        self.listed.is_empty()
    }

    /// Whether all are allowed.
    pub(crate) fn has_all(&self) -> bool {
        self.listed.iter().any(|entry| entry == ANY_ORIGIN)
    }

    /// Whether pages of `origin` may call: whether it is on the list.
    pub(crate) fn admits(&self, origin: &str) -> bool {
        self.listed
            .iter()
            .any(|entry| local_pages::admits(entry, origin))
    }

    /// Checks who opens a WebSocket, which browsers let any page do.
    ///
    /// A browser names its page's origin: it must be on the list, or, where there is none, the gateway's own. Who sends a bearer token in the
    /// header is no browser: pages cannot set it.
    ///
    /// # Errors
    /// `ORIGIN_FORBIDDEN`, with the setting that would allow it.
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<(), Failure> {
        let Some(origin) = headers.get(ORIGIN) else {
            return Ok(());
        };
        if has_bearer(headers) {
            return Ok(());
        }
        let Ok(origin) = origin.to_str() else {
            return Err(Failure::new(
                Code::OriginForbidden,
                "the Origin header is not text",
            ));
        };
        let host = headers.get(HOST).and_then(|host| host.to_str().ok());
        let is_public = self
            .public
            .as_deref()
            .is_some_and(|public| public.eq_ignore_ascii_case(origin));
        let is_own = is_public || host.is_some_and(|host| is_same(origin, host));
        if self.admits(origin) || (self.is_empty() && is_own) {
            Ok(())
        } else {
            Err(refused(origin))
        }
    }
}

/// The refusal of a page's origin.
pub(crate) fn refused(origin: &str) -> Failure {
    let origin: String = origin.chars().take(MAX_SHOWN_CHARS).collect();
    Failure::new(
        Code::OriginForbidden,
        format!(
            "the origin {origin} is not allowed: CONFAB_CORS_ORIGINS (--cors-origins) of the gateway lists those that are"
        ),
    )
}

/// Other schemes than this are the browser's own to send, such as Basic for a proxy.
fn has_bearer(headers: &HeaderMap) -> bool {
    let value = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let scheme = value.and_then(|value| value.split_once(' '));
    scheme.is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case("Bearer"))
}

/// Whether `origin` is that of the host asked for: equal without the scheme's default port (RFC 6454, sections 4 and 5). The gateway does not
/// know whether a proxy in front of it speaks TLS: either scheme may be its own.
fn is_same(origin: &str, host: &str) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else {
        return false;
    };
    let Some(port) = default_port(scheme) else {
        return false;
    };
    let plain = |authority: &str| {
        let authority = authority.to_ascii_lowercase();
        authority
            .strip_suffix(port)
            .map_or(authority.clone(), str::to_owned)
    };
    plain(authority) == plain(host)
}

/// The port that a URL of the scheme need not say, as it would say it.
fn default_port(scheme: &str) -> Option<&'static str> {
    match scheme.to_ascii_lowercase().as_str() {
        "https" => Some(":443"),
        "http" => Some(":80"),
        _ => None,
    }
}

/// Reads an entry of the allowlist, `*`, `localhost`, `null`, `file://` or an origin (RFC 6454, section 6.2), and gives it as browsers write it: without
/// the scheme's default port.
fn normalized(text: &str) -> Option<String> {
    let mut text = text.trim().to_ascii_lowercase();
    if [ANY_ORIGIN, LOCALHOST_NAME, OPAQUE_ORIGIN, FILE_ORIGIN].contains(&text.as_str()) {
        return Some(text);
    }
    let (scheme, authority) = text.split_once("://")?;
    let begins = scheme.starts_with(|c: char| c.is_ascii_lowercase());
    let is_scheme = |b: u8| b.is_ascii_alphanumeric() || b"+-.".contains(&b);
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let is_port = |port: &str| !port.starts_with('0') && port.parse::<u16>().is_ok();
    let is_valid =
        begins && scheme.bytes().all(is_scheme) && is_host(host) && port.is_none_or(is_port);
    if let Some(port) = default_port(scheme)
        && text.ends_with(port)
        && is_valid
    {
        text.truncate(text.len() - port.len());
    }
    is_valid.then_some(text)
}

fn is_host(host: &str) -> bool {
    let v6 = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    v6.map_or_else(
        || {
            let is_name = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
            !host.is_empty() && host.bytes().all(is_name)
        },
        |v6| v6.parse::<std::net::Ipv6Addr>().is_ok(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origin_is_scheme_host_and_port() {
        for good in [
            "*",
            "localhost",
            "null",
            "file://",
            "https://app.example",
            "http://localhost:3000",
            "http://127.0.0.1:8080",
            "https://[2001:db8::1]:8443",
            "https://[2001:db8::443]",
            "capacitor://localhost",
            "chrome-extension://abcdefghijklmnop",
        ] {
            assert_eq!(normalized(good).as_deref(), Some(good));
        }
        for (given, written) in [
            (" HTTPS://App.Example ", "https://app.example"),
            ("https://app.example:443", "https://app.example"),
            ("http://app.example:80", "http://app.example"),
            ("http://app.example:443", "http://app.example:443"),
            ("https://[::1]:443", "https://[::1]"),
        ] {
            assert_eq!(normalized(given).as_deref(), Some(written));
        }
        for bad in [
            "app.example",
            "https://",
            "file:///index.html",
            "https://app.example/",
            "https://app.example:0",
            "https://app.example:65536",
            "https://app.example:",
            "https://ann@app.example",
            "https://*.example",
            "https://[::g]",
            "1http://app.example",
            "https://äpp.example",
            "https://a b",
        ] {
            assert_eq!(normalized(bad), None, "{bad}");
        }
    }

    fn origins(listed: &[&str]) -> Origins {
        let listed: Vec<_> = listed.iter().map(|&one| one.to_owned()).collect();
        Origins::new(&listed, None).unwrap()
    }

    fn allows(origins: &Origins, headers: &[(&'static str, &'static str)]) -> bool {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        origins.check(&headers.collect()).is_ok()
    }

    #[test]
    fn listed_origins_open_sockets() {
        let list = origins(&["https://app.example:443", "null", "file://"]);
        for origin in [
            "https://app.example",
            "HTTPS://APP.EXAMPLE",
            "null",
            "file://",
        ] {
            assert!(allows(&list, &[("origin", origin)]), "{origin}");
        }
        let own = [("host", "chat.example"), ("origin", "https://chat.example")];
        assert!(!allows(&list, &own));
        assert!(allows(&list, &[]));
        assert!(allows(&origins(&["*"]), &[("origin", "null")]));
        let local = origins(&["localhost"]);
        assert!(allows(&local, &[("origin", "http://localhost:5173")]));
        assert!(!allows(&local, &[("origin", "https://app.example")]));
    }

    #[test]
    fn without_list_own_origin_opens_sockets() {
        let none = origins(&["", " "]);
        for (host, origin, is_own) in [
            ("chat.example", "https://chat.example", true),
            ("chat.example:443", "https://chat.example", true),
            ("Chat.Example", "https://chat.example:443", true),
            ("chat.example:80", "http://chat.example", true),
            ("[::1]:443", "https://[::1]", true),
            ("localhost:8080", "http://localhost:8080", true),
            ("chat.example:443", "http://chat.example", false),
            ("chat.example:80", "https://chat.example", false),
            ("chat.example", "https://evil.example", false),
            ("chat.example:8443", "https://chat.example", false),
            ("chat.example", "null", false),
            ("", "file://", false),
        ] {
            let headers = [("host", host), ("origin", origin)];
            assert_eq!(allows(&none, &headers), is_own, "{origin} at {host}");
        }
    }

    #[test]
    fn origin_of_public_url_is_own() {
        let public = Origins::new(&[], Some("https://chat.example".to_owned())).unwrap();
        let behind_proxy = |origin| [("host", "10.0.0.1:8080"), ("origin", origin)];
        assert!(allows(&public, &behind_proxy("https://chat.example")));
        assert!(!allows(&public, &behind_proxy("http://chat.example")));
    }

    #[test]
    fn bearer_token_in_header_is_no_page() {
        let evil = ("origin", "https://evil.example");
        let none = origins(&[]);
        assert!(allows(&none, &[evil, ("authorization", "Bearer abc")]));
        assert!(!allows(&none, &[evil, ("authorization", "Basic abc")]));
        assert!(!allows(&none, &[evil]));
    }

    #[test]
    fn refusal_names_origin_and_setting() {
        let failure = refused("https://evil.example");
        assert!(failure.detail.contains("https://evil.example"));
        assert!(failure.detail.contains("CONFAB_CORS_ORIGINS"));
        assert!(refused(&"x".repeat(10_000)).detail.len() < 500);
    }
}
