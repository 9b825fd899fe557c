use std::time::Duration;

use confab_protocol::error::{Code, Extension};
use serde::Deserialize;

use crate::http::Response;

/// A refusal as HTTP carries it (RFC 9457, `application/problem+json`).
#[derive(Debug, Clone, Deserialize, thiserror::Error)]
#[serde(rename_all = "camelCase")]
#[error("{code}: {detail} (request {request_id})")]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// Which refusal.
    pub code: Code,
    /// What is wrong this time.
    pub detail: String,
    /// The id of the request in the service's logs.
    pub request_id: String,
    /// What the code says beyond itself: the bad fields, among others.
    #[serde(flatten)]
    pub extension: Extension,
    /// After how long trying again makes sense, as `Retry-After` says it.
    #[serde(skip)]
    pub retry_after: Option<Duration>,
}

impl Problem {
    /// The problem that an answer carries; none when it is another kind of answer.
    #[must_use]
    pub fn of(response: &Response) -> Option<Self> {
        let problem = serde_json::from_slice::<Self>(&response.body).ok()?;
        let seconds = response.header("retry-after").and_then(|v| v.parse().ok());
        let retry_after = seconds.map(Duration::from_secs);
        Some(Self {
            retry_after,
            ..problem
        })
    }
}

/// Why a call over HTTP has no good answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The service refused. The outcome is known, but for the code `TIMEOUT`.
    #[error("refused")]
    Problem(#[from] Box<Problem>),
    /// No answer came: not connected, cut off, or too late. The outcome is unknown.
    #[error("no answer")]
    Transport(#[from] reqwest::Error),
    /// An answer came that is none of confab's.
    #[error("status {status} is not an answer of confab: {body:.200}")]
    Foreign {
        /// The HTTP status.
        status: u16,
        /// The body as text.
        body: String,
    },
    /// A success came whose body is not what the contract says, or a body could not be written.
    #[error("not the body that the contract names")]
    Body(#[from] serde_json::Error),
    /// The URL, a path or a header has no form in HTTP.
    #[error("not a valid {0}")]
    Invalid(&'static str, #[source] Source),
}

/// What a part was found to be wrong with.
type Source = Box<dyn std::error::Error + Send + Sync>;

impl ClientError {
    /// For `map_err`: which part has no form in HTTP.
    pub(crate) fn invalid<E: Into<Source>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Invalid(what, source.into())
    }

    /// The code of a refusal; none where nobody refused.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Problem(problem) => Some(problem.code),
            Self::Transport(_) | Self::Foreign { .. } | Self::Body(_) | Self::Invalid(..) => None,
        }
    }
}
