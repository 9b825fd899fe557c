//! HTTP: where clients connect, which pages may call, proxies in front, and the times of a request.

use std::time::Duration;

use super::listen::ListenAddress;
use super::manners;
use super::server::ServerLimits;
use crate::headings;
use crate::origins::Origins;
use crate::public_url::PublicUrl;

/// HTTP: where clients connect, which pages may call, proxies in front, and the times of a request.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub struct HttpSettings {
    /// Where clients connect: HTTP, WebSocket, /health, /ready, /metrics.
    ///
    /// A port alone, as in `:8080`, is listened on at every address of the host, IPv6 and IPv4; `127.0.0.1:8080` and `[::1]:8080` are one
    /// address.
    #[arg(
        long,
        env = "CONFAB_LISTEN",
        value_name = "ADDRESS",
        default_value = ":8080",
        help_heading = headings::CLIENTS_HEADING
    )]
    pub listen: ListenAddress,
    /// URL by which clients reach the gateways, where a proxy has another host or takes a path away.
    ///
    /// Such as `https://chat.example/confab`: what `Location`, the links of `/` and the descriptions of the API say begins with it, and a
    /// page of its origin may open a WebSocket.
    #[arg(
        long,
        env = "CONFAB_PUBLIC_URL",
        value_name = "URL",
        help_heading = headings::CLIENTS_HEADING
    )]
    pub public_url: Option<PublicUrl>,
    /// Origins of pages that may call (CORS) and open a WebSocket, separated by commas.
    ///
    /// Such as `https://app.example`; `localhost` for pages of this machine on any port, `null` and `file://` for pages from files, `*` for
    /// all. Without any: none may call, and a WebSocket is taken from the gateway's own.
    #[arg(
        long,
        env = "CONFAB_CORS_ORIGINS",
        value_name = "ORIGIN",
        value_delimiter = ',',
        help_heading = headings::CLIENTS_HEADING
    )]
    pub cors_origins: Vec<String>,
    /// Proxies in front that each write the address they were asked from into X-Forwarded-For.
    ///
    /// Each at its right end.
    #[arg(
        long,
        env = "CONFAB_TRUSTED_PROXIES",
        value_name = "NUMBER",
        default_value_t = 0,
        help_heading = headings::CLIENTS_HEADING
    )]
    pub trusted_proxies: usize,
    /// Time that a request's headers may take.
    #[arg(
        long,
        env = "CONFAB_HEADER_TIMEOUT",
        value_name = "SECONDS",
        default_value_t = 10,
        help_heading = headings::TIMES_HEADING
    )]
    pub header_timeout: u64,
    /// Time that a request's body may take.
    #[arg(
        long,
        env = "CONFAB_BODY_TIMEOUT",
        value_name = "SECONDS",
        default_value_t = 30,
        help_heading = headings::TIMES_HEADING
    )]
    pub body_timeout: u64,
}

impl HttpSettings {
    /// The allowlist; a variable that is set to nothing lists nothing.
    ///
    /// # Errors
    /// The entry that is no origin.
    pub(crate) fn origins(&self) -> Result<Origins, String> {
        let public = self.public_url.as_ref().map(PublicUrl::origin);
        Origins::new(&self.cors_origins, public)
    }

    /// How long a request may take in all, of which `budget` is for workers.
    pub(crate) fn longest(&self, budget: Duration) -> Duration {
        manners::longest(Duration::from_secs(self.body_timeout), budget)
    }

    pub(crate) const fn server_limits(&self, connections: usize, drain: Duration) -> ServerLimits {
        ServerLimits {
            connections,
            header_timeout: Duration::from_secs(self.header_timeout),
            drain,
        }
    }
}
