//! Fetching a key set: bounded in time and size, redirects not followed.

use std::time::Duration;

use reqwest::header::DATE;
use reqwest::redirect::Policy;
use reqwest::{Client, StatusCode};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
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

/// The place that a key set is fetched from.
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
        let (set, _date) = self.fetch_within(self.timeout).await?;
        Ok(set)
    }

    /// Fetches the set within `timeout`, with the server's time where it says one.
    pub(super) async fn fetch_within(
        &self,
        timeout: Duration,
    ) -> Result<(KeySet, Option<OffsetDateTime>), FetchError> {
        let read = tokio::time::timeout(timeout, self.read()).await;
        let (body, date) = read.map_err(|_elapsed| FetchError::Slow(timeout))??;
        Ok((KeySet::parse(&body)?, date))
    }

    /// The URL without its query, which may hold a secret.
    pub(super) fn address(&self) -> String {
        let mut url = self.url.clone();
        url.set_query(None);
        url.to_string()
    }

    async fn read(&self) -> Result<(Vec<u8>, Option<OffsetDateTime>), FetchError> {
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
        // RFC 9110, section 5.6.7: the form that senders use is that of RFC 5322 in GMT.
        let date = response.headers().get(DATE);
        let date = date.and_then(|date| OffsetDateTime::parse(date.to_str().ok()?, &Rfc2822).ok());
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(http)? {
            if body.len() + chunk.len() > MAX_BYTES {
                return Err(FetchError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        Ok((body, date))
    }
}
