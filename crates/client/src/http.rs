use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;

mod conversations;
mod events;
mod messages;
mod participants;
mod sessions;
#[cfg(test)]
mod tests;

use crate::{ClientError, Problem};
pub use conversations::{ConversationFilter, ConversationPage, ConversationView, NewConversation};
pub use events::EventPage;
pub use messages::{MessageFilter, MessagePage, NewMessage};
pub use participants::{NewMembers, ParticipantFilter, ParticipantPage, Removal};
pub use sessions::{NewRevocation, Presences};

/// Time that a connection may take to stand.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for which a connection that asks for nothing is kept: for less than a gateway keeps it (10 s unless set otherwise), or a call that may
/// not be repeated goes out on one that is being closed.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(5);
/// Time that a call may take in all.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// The HTTP calls of one user to one gateway. Clones share their connections.
#[derive(Clone)]
pub struct Http {
    client: reqwest::Client,
    base: Url,
    token: Option<String>,
}

impl std::fmt::Debug for Http {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Http")
            .field("base", &self.base.as_str())
            .finish_non_exhaustive()
    }
}

/// An answer that a repeat is given again.
#[derive(Debug, Clone)]
pub struct Replayable<T> {
    /// The answer.
    pub answer: T,
    /// True if it was given before (`Idempotent-Replayed`).
    pub replayed: bool,
}

/// An answer as it came.
#[derive(Debug, Clone)]
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Vec<u8>,
}

impl Response {
    /// A header's value, the first where there are several, as far as it is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body read as JSON.
    ///
    /// # Errors
    /// When it is not what `T` wants.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, ClientError> {
        Ok(serde_json::from_slice(&self.body)?)
    }

    fn success(self) -> Result<Self, ClientError> {
        if (200..300).contains(&self.status) {
            return Ok(self);
        }
        Err(match Problem::of(&self) {
            Some(problem) => Box::new(problem).into(),
            None => ClientError::Foreign {
                status: self.status,
                body: String::from_utf8_lossy(&self.body).into_owned(),
            },
        })
    }

    fn replayable<T: DeserializeOwned>(self) -> Result<Replayable<T>, ClientError> {
        Ok(Replayable {
            answer: self.json()?,
            replayed: self.header("idempotent-replayed") == Some("true"),
        })
    }
}

impl Http {
    /// Calls to the gateway at `url`, such as `http://127.0.0.1:8080`, as the user that `token` names.
    ///
    /// # Errors
    /// When the URL is none, or the machine's TLS roots cannot be read.
    pub fn new(url: &str, token: &str) -> Result<Self, ClientError> {
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(CALL_TIMEOUT)
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self {
            client,
            base: parse(url)?,
            token: Some(token.to_owned()),
        })
    }

    /// The same to another gateway or as another user; the connections are shared.
    ///
    /// # Errors
    /// When the URL is none.
    pub fn with(&self, url: &str, token: &str) -> Result<Self, ClientError> {
        Ok(Self {
            client: self.client.clone(),
            base: parse(url)?,
            token: Some(token.to_owned()),
        })
    }

    /// Makes a request with exactly these headers and this body, no token among them, and gives the answer as it came.
    ///
    /// # Errors
    /// When no answer came, or a part has no form in HTTP; a refusal is an answer.
    pub async fn raw(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Vec<u8>>,
    ) -> Result<Response, ClientError> {
        let method = method.parse().map_err(ClientError::invalid("method"))?;
        let url = self.url(path.trim_start_matches('/'))?;
        let request = self.client.request(method, url).body(body.into());
        Self::exchange(request.headers(header_map(headers)?)).await
    }

    async fn get<T: DeserializeOwned>(&self, url: Url) -> Result<T, ClientError> {
        self.send(Method::GET, url, &[], None::<&()>).await?.json()
    }

    async fn delete<T: DeserializeOwned>(&self, url: Url) -> Result<T, ClientError> {
        let answer = self.send(Method::DELETE, url, &[], None::<&()>);
        answer.await?.json()
    }

    async fn post<T: DeserializeOwned>(
        &self,
        url: Url,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.send(Method::POST, url, &[], Some(body)).await?.json()
    }

    async fn patch<T: DeserializeOwned>(
        &self,
        url: Url,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.send(Method::PATCH, url, &[], Some(body)).await?.json()
    }

    async fn send<T: Serialize>(
        &self,
        method: Method,
        url: Url,
        headers: &[(&str, &str)],
        body: Option<&T>,
    ) -> Result<Response, ClientError> {
        let mut request = self.client.request(method, url);
        request = request.headers(header_map(headers)?);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        Self::exchange(request).await?.success()
    }

    async fn exchange(request: reqwest::RequestBuilder) -> Result<Response, ClientError> {
        let response = request.send().await?;
        Ok(Response {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body: response.bytes().await?.into(),
        })
    }

    fn url(&self, path: &str) -> Result<Url, ClientError> {
        self.base.join(path).map_err(ClientError::invalid("path"))
    }
}

/// A base ends with a slash, so that a path below a proxy's prefix keeps the prefix.
fn parse(url: &str) -> Result<Url, ClientError> {
    let url = format!("{}/", url.trim_end_matches('/'));
    let url = Url::parse(&url).map_err(ClientError::invalid("URL"))?;
    if url.cannot_be_a_base() {
        return Err(ClientError::Invalid("URL", "it has no path".into()));
    }
    Ok(url)
}

fn query(url: &mut Url, name: &str, value: Option<impl ToString>) {
    if let Some(value) = value {
        url.query_pairs_mut().append_pair(name, &value.to_string());
    }
}

fn header_map(headers: &[(&str, &str)]) -> Result<HeaderMap, ClientError> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name: HeaderName = name.parse().map_err(ClientError::invalid("header"))?;
        let value = HeaderValue::from_bytes(value.as_bytes());
        map.append(name, value.map_err(ClientError::invalid("header"))?);
    }
    Ok(map)
}
