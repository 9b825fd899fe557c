//! A user's sessions at all gateways: asked of each, itself included, and answered from memory.

use std::time::Duration;

use confab_bus::sessions::{SessionQueries, SessionsOf};
use confab_bus::{Bus, BusError, Gateways};
use confab_protocol::chain::chain;
use confab_protocol::command::Caller;
use confab_protocol::error::{Code, Failure};
use confab_protocol::resource::Session;
use confab_protocol::revocation::Revocation;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::Sessions;

/// How soon a subscription that was refused is tried again.
const RETRY_DELAY: Duration = Duration::from_millis(500);
/// How long NATS may take to be handed a word.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(1);

/// The way to the sessions of all gateways. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Directory {
    bus: Bus,
    gateways: Gateways,
}

impl Directory {
    pub(crate) const fn new(bus: Bus, gateways: Gateways) -> Self {
        Self { bus, gateways }
    }

    /// The caller's open sessions, the newest first.
    ///
    /// # Errors
    /// `UNAVAILABLE` when the other gateways cannot be asked.
    pub(crate) async fn sessions(&self, caller: Caller) -> Result<Vec<Session>, Failure> {
        let alive = self.gateways.all_alive().unwrap_or_default();
        let of = SessionsOf::new(caller.tenant, caller.user);
        self.bus.sessions_of(&of, &alive).await.map_err(|error| {
            debug!(error = %chain(&error), "the gateways cannot be asked for sessions");
            let away = "the other gateways cannot be reached";
            Failure::new(Code::Unavailable, away).retry_after(1000)
        })
    }

    /// Tells the other gateways what was revoked: the worker does so too, unless it dies between its commit and that.
    pub(crate) async fn tell(&self, revocation: &Revocation) {
        let telling = tokio::time::timeout(PUBLISH_TIMEOUT, self.bus.tell_revocation(revocation));
        match telling.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                debug!(error = %chain(&error), "a revocation is left to the worker to tell");
            }
            Err(_late) => debug!("a revocation could not be told in time"),
        }
    }

    async fn answer(&self, sessions: &Sessions) {
        loop {
            match self.bus.session_queries().await {
                Ok(questions) => self.answer_all(questions, sessions).await,
                Err(error) => {
                    debug!(error = %chain(&error), "questions about sessions cannot be heard yet");
                }
            }
            tokio::time::sleep(RETRY_DELAY).await;
        }
    }

    async fn answer_all(&self, mut questions: SessionQueries, sessions: &Sessions) {
        while let Some(question) = questions.next().await {
            let own = sessions.of(&question.of.tenant, &question.of.user);
            let answered: Result<(), BusError> =
                questions.answer(question, self.gateways.id(), own).await;
            if let Err(error) = answered {
                debug!(error = %chain(&error), "a question about sessions was not answered");
            }
        }
    }
}

/// Answers what gateways ask, until `stop`.
pub(crate) async fn run(directory: Directory, sessions: Sessions, stop: CancellationToken) {
    let answering = Box::pin(directory.answer(&sessions));
    stop.run_until_cancelled(answering).await;
}
