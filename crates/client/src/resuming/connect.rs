//! The way to a gateway: which one, with which token, and when.

use std::sync::Arc;

use confab_protocol::frame::{Hello, Welcome};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::ResumeOptions;
use super::backoff::Backoff;
use super::handshake::HandshakeResult;
use super::options::Source;
use crate::ws::{Options, TokenIn, Ws, WsError};

/// How many fresh tokens in a row may be refused before that is the end.
const MAX_REFUSED_TOKENS: u32 = 3;

/// Why a try came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// The source has no token now.
    #[error("no token")]
    Token(#[source] Source),
    /// The source has no other token than the one that was refused.
    #[error("the token was refused, and there is no other")]
    NoOther,
    /// There is no welcome.
    #[error("no welcome")]
    Ws(#[source] WsError),
}

/// The result of an attempt to connect.
pub(super) struct ConnectAttempt {
    pub(super) url: String,
    /// The token that was used, where there was one.
    pub(super) token: Option<String>,
    pub(super) outcome: Result<Box<(Welcome, Ws)>, ConnectError>,
}

/// The connector, with its knowledge of earlier attempts.
pub(super) struct Connector {
    options: Arc<ResumeOptions>,
    backoff: Backoff,
    /// Which gateway is next.
    turn: usize,
    /// What the next hello shows; none where the source must be asked.
    token: Option<String>,
    /// The last one that was refused, and how many in a row.
    refused: Option<String>,
    refusals: u32,
    tasks: JoinSet<ConnectAttempt>,
    /// When the next try begins.
    pub(super) due: Option<Instant>,
}

impl Connector {
    pub(super) fn new(options: Arc<ResumeOptions>) -> Self {
        Self {
            backoff: Backoff::new(options.min_backoff, options.max_backoff),
            options,
            turn: 0,
            token: None,
            refused: None,
            refusals: 0,
            tasks: JoinSet::new(),
            due: None,
        }
    }

    /// Begins a try, in place of one that may be on its way.
    pub(super) fn start(&mut self, mut hello: Hello) {
        self.stop();
        let options = Arc::clone(&self.options);
        let urls = self.options.urls.iter().cycle();
        let turn = self.turn % self.options.urls.len().max(1);
        let url = urls.skip(turn).map(Clone::clone).next().unwrap_or_default();
        let (token, refused) = (self.token.clone(), self.refused.clone());
        hello.client = Some(confab_protocol::frame::ClientInfo {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        });
        self.tasks
            .spawn(Box::pin(connect(options, url, token, refused, hello)));
    }

    /// Gives up the try that is on its way or to come.
    pub(super) fn stop(&mut self) {
        self.due = None;
        self.tasks = JoinSet::new();
    }

    pub(super) fn is_running(&self) -> bool {
        !self.tasks.is_empty()
    }

    /// Returns how the try on its way went; forever waiting where there is none. Cancel-safe.
    pub(super) async fn next(&mut self) -> ConnectAttempt {
        loop {
            match self.tasks.join_next().await {
                Some(Ok(dialed)) => return dialed,
                // It is given up.
                Some(Err(_)) => {}
                None => std::future::pending().await,
            }
        }
    }

    /// Takes another gateway for the next try.
    pub(super) fn elsewhere(&mut self) {
        self.turn = self.turn.wrapping_add(1);
    }

    /// Uses `token` from the next try on.
    pub(super) fn use_token(&mut self, token: String) {
        self.token = Some(token);
        self.refusals = 0;
    }

    pub(super) fn has_token(&self, token: &str) -> bool {
        self.token.as_deref() == Some(token)
    }

    pub(super) fn welcomed(&mut self, token: Option<String>) {
        if self.token.is_none() {
            self.token = token;
        }
        self.refused = None;
        self.refusals = 0;
    }

    /// A connection ended after it had stood since `since`.
    pub(super) fn stood(&mut self, since: Instant, now: Instant) {
        self.backoff.stood(now.saturating_duration_since(since));
    }

    /// When the next try begins, elsewhere, after what came to nothing with `token`; none where that is the end.
    pub(super) fn again(
        &mut self,
        handshake: HandshakeResult,
        token: Option<String>,
        now: Instant,
    ) -> Option<Instant> {
        self.elsewhere();
        let named = match handshake {
            HandshakeResult::End => return None,
            HandshakeResult::Again(named) => named,
            HandshakeResult::Token => {
                self.refusals += 1;
                if self.refusals > MAX_REFUSED_TOKENS {
                    return None;
                }
                let used = token.or_else(|| self.token.clone());
                if self.token == used {
                    self.token = None;
                }
                self.refused = used;
                None
            }
        };
        self.due = Some(now + self.backoff.after(named, rand::random()));
        self.due
    }
}

async fn connect(
    options: Arc<ResumeOptions>,
    url: String,
    token: Option<String>,
    refused: Option<String>,
    hello: Hello,
) -> ConnectAttempt {
    let token = match token {
        Some(token) => Ok(token),
        None => ask(&options).await.map_err(ConnectError::Token),
    };
    let token = token.and_then(|token| match refused {
        Some(refused) if refused == token => Err(ConnectError::NoOther),
        Some(_) | None => Ok(token),
    });
    let (token, outcome) = match token {
        Err(error) => (None, Err(error)),
        Ok(token) => {
            let outcome = open_socket(&options, &url, token.clone(), hello).await;
            (Some(token), outcome)
        }
    };
    ConnectAttempt {
        url,
        token,
        outcome,
    }
}

/// Asks for a token, which has its deadline.
pub(super) async fn ask(options: &ResumeOptions) -> Result<String, Source> {
    let asked = tokio::time::timeout(options.timeout, options.token.ask());
    asked.await.map_err(Source::from)?
}

async fn open_socket(
    options: &ResumeOptions,
    url: &str,
    token: String,
    hello: Hello,
) -> Result<Box<(Welcome, Ws)>, ConnectError> {
    let options = Options {
        token: if options.token_in_hello {
            TokenIn::Hello(token)
        } else {
            TokenIn::Header(token)
        },
        encoding: options.encoding,
        hello,
        timeout: options.timeout,
        ..Options::default()
    };
    let connected = Box::pin(Ws::connect(url, options)).await;
    connected.map(Box::new).map_err(ConnectError::Ws)
}
