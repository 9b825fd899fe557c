//! Fetching a key set: bounded in time and size, redirects not followed.

use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Client, StatusCode};
use url::Url;

use super::set::{KeySet, SetRefused};
use crate::settings::{IssuerError, is_loopback};

/// The largest key set that is read, in bytes.
const MAX_BYTES: usize = 1024 * 1024;

/// Why a fetch gave no key set.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    /// It could not be reached, or broke off.
    #[error("the request failed")]
    Http(#[source] reqwest::Error),
    /// Another answer than 200, a redirect among them.
    #[error("answered {0}")]
    Status(StatusCode),
    /// More than we read.
    #[error("larger than {MAX_BYTES} bytes")]
    TooLarge,
    /// Not done in time.
    #[error("took longer than {0:?}")]
    Slow(Duration),
    /// What came is not used.
    #[error("the answer is not used")]
    Set(#[from] SetRefused),
}

/// Where a key set is fetched from.
#[derive(Debug)]
pub(crate) struct Remote {
    client: Client,
    url: Url,
    timeout: Duration,
}

impl Remote {
    /// A client for `url`. Connections are not kept: the next fetch is minutes away.
    pub(crate) fn new(url: &Url, timeout: Duration) -> Result<Self, IssuerError> {
        let builder = Client::builder()
            .redirect(Policy::none())
            .pool_max_idle_per_host(0)
            .user_agent(concat!("confab/", env!("CARGO_PKG_VERSION")));
        // without TLS no certificates are needed, which a bare machine may not have
        let builder = match url.scheme() {
            "https" => builder,
            _ => builder.tls_certs_only([]),
        };
        let builder = if is_loopback(url) {
            builder.no_proxy()
        } else {
            builder
        };
        let client = builder.build().map_err(IssuerError::Client)?;
        Ok(Self {
            client,
            url: url.clone(),
            timeout,
        })
    }

    /// Fetches the set.
    pub(crate) async fn fetch(&self) -> Result<KeySet, FetchError> {
        let body = tokio::time::timeout(self.timeout, self.read()).await;
        let body = body.map_err(|_elapsed| FetchError::Slow(self.timeout))??;
        Ok(KeySet::parse(&body)?)
    }

    async fn read(&self) -> Result<Vec<u8>, FetchError> {
        let http = |error: reqwest::Error| FetchError::Http(error.without_url());
        let mut response = self
            .client
            .get(self.url.clone())
            .send()
            .await
            .map_err(http)?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(http)? {
            if body.len() + chunk.len() > MAX_BYTES {
                return Err(FetchError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}
