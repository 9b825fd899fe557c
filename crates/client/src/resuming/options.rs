use std::collections::BTreeMap;
use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use confab_protocol::ids::{ConversationId, Seq};

use crate::ws::Encoding;

/// The error of a token source.
pub(super) type Source = Box<dyn Error + Send + Sync>;
type Asked = Pin<Box<dyn Future<Output = Result<String, Source>> + Send>>;

/// The source of tokens, asked at the start and whenever the last one ends soon or is refused.
#[derive(Clone)]
pub struct TokenSource(Arc<dyn Fn() -> Asked + Send + Sync>);

impl TokenSource {
    /// One token, and no other once that is refused.
    #[must_use]
    pub fn fixed(token: impl Into<String>) -> Self {
        let token = token.into();
        Self::asked(move || std::future::ready(Ok::<_, std::convert::Infallible>(token.clone())))
    }

    /// Returns what `ask` gives, for the same user and device each time. It shall give a fresh one each time: a token that was
    /// refused and is given again ends the session.
    #[must_use]
    pub fn asked<F, A, E>(ask: F) -> Self
    where
        F: Fn() -> A + Send + Sync + 'static,
        A: Future<Output = Result<String, E>> + Send + 'static,
        E: Into<Source>,
    {
        Self(Arc::new(move || {
            let asked = ask();
            Box::pin(async move { asked.await.map_err(Into::into) })
        }))
    }

    pub(super) async fn ask(&self) -> Result<String, Source> {
        (self.0)().await
    }
}

impl From<&str> for TokenSource {
    fn from(token: &str) -> Self {
        Self::fixed(token)
    }
}

impl std::fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenSource")
    }
}

/// The options that a session is opened and kept with.
#[derive(Debug, Clone)]
pub struct ResumeOptions {
    /// Gateways (`http://…`, `https://…`), tried in turn.
    pub urls: Vec<String>,
    /// Who is calling.
    pub token: TokenSource,
    /// True if the token goes into hello, as browsers must, instead of the upgrade's header.
    pub token_in_hello: bool,
    /// The subprotocol.
    pub encoding: Encoding,
    /// What the program holds from before: the last seq, by conversation, up to which it holds all.
    pub seen: BTreeMap<ConversationId, Seq>,
    /// True if the gateway is told what was heard, in every hello and every few seconds. Without it the session's record
    /// alone counts, so that events may come again, which are ignored, and a session that starts afresh misses some.
    pub says_seen: bool,
    /// True if every hello asks who is there, which comes as [`crate::Change::PresenceSnapshot`].
    pub asks_presence: bool,
    /// The longest first wait before a further try; it doubles with each.
    pub min_backoff: Duration,
    /// The longest wait of all.
    pub max_backoff: Duration,
    /// How long a connection may take until its welcome, and a token until it is there.
    pub timeout: Duration,
    /// How long the first welcome may take, over as many tries as fit.
    pub opening: Duration,
    /// How long a send is kept and tried until it is acknowledged.
    pub patience: Duration,
}

impl ResumeOptions {
    /// The usual ones.
    #[must_use]
    pub fn new(urls: Vec<String>, token: impl Into<TokenSource>) -> Self {
        Self {
            urls,
            token: token.into(),
            token_in_hello: false,
            encoding: Encoding::default(),
            seen: BTreeMap::new(),
            says_seen: true,
            asks_presence: false,
            min_backoff: Duration::from_millis(200),
            max_backoff: Duration::from_secs(5),
            timeout: Duration::from_secs(5),
            opening: Duration::from_secs(30),
            patience: Duration::from_secs(120),
        }
    }
}
