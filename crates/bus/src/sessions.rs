//! Which sessions a user has: one question to all gateways, each of which answers from its memory.

use std::time::Duration;

use async_nats::{Subject, Subscriber};
use confab_protocol::ids::{TenantId, UserId};
use confab_protocol::resource::Session;
use confab_protocol::wire;
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::connection::Bus;
use crate::error::BusError;
use crate::gateways::GatewayId;
use crate::subjects;

/// The version of this wire; a gateway does not answer another.
const WIRE_VERSION: u8 = 1;
/// Time for which gateways that live are waited for.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// Sessions in an answer at most, of one gateway and of all: the newest.
pub const MAX_LISTED_SESSIONS: usize = 200;

/// Whose sessions are asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionsOf {
    version: u8,
    /// The product.
    pub tenant: TenantId,
    /// The user.
    pub user: UserId,
}

impl SessionsOf {
    /// A question of this version.
    #[must_use]
    pub const fn new(tenant: TenantId, user: UserId) -> Self {
        Self {
            version: WIRE_VERSION,
            tenant,
            user,
        }
    }
}

/// A gateway's answer.
#[derive(Debug, Serialize, Deserialize)]
struct UserSessions {
    gateway: GatewayId,
    sessions: Vec<Session>,
}

impl Bus {
    /// The sessions that gateways have of a user, the newest first, at most [`MAX_LISTED_SESSIONS`]. The gateways in `alive` are waited
    /// for, a second at most, and the whole second where none is named: then it is not known whom to wait for.
    ///
    /// # Errors
    /// When NATS is away, takes nothing in time, or fails.
    pub async fn sessions_of(
        &self,
        of: &SessionsOf,
        alive: &[GatewayId],
    ) -> Result<Vec<Session>, BusError> {
        if !self.is_connected() {
            return Err(BusError::Disconnected);
        }
        let asked = tokio::time::timeout(ANSWER_TIMEOUT, self.ask_gateways(of));
        let mut answers = asked.await.map_err(|_late| BusError::Timeout)??;
        let mut gathered = GatheredSessions::of(alive);
        // Who has not answered when the time is over is left out.
        let _late = tokio::time::timeout(ANSWER_TIMEOUT, gathered.gather(&mut answers))
            .await
            .is_err();
        Ok(gathered.newest())
    }

    /// Puts the question; what comes back are the answers.
    async fn ask_gateways(&self, of: &SessionsOf) -> Result<Subscriber, BusError> {
        let query = wire::encode(of)?;
        let inbox = self.client.new_inbox();
        let answers = self
            .client
            .subscribe(inbox.clone())
            .await
            .map_err(BusError::nats("listen for sessions"))?;
        self.client
            .publish_with_reply(subjects::SESSIONS_QUERY_SUBJECT, inbox, query.into())
            .await
            .map_err(BusError::nats("ask for sessions"))?;
        Ok(answers)
    }

    /// A gateway's place among those that are asked.
    ///
    /// # Errors
    /// When NATS refuses the subscription.
    pub async fn session_queries(&self) -> Result<SessionQueries, BusError> {
        let messages = self
            .client
            .subscribe(subjects::SESSIONS_QUERY_SUBJECT)
            .await
            .map_err(BusError::nats("listen for questions about sessions"))?;
        Ok(SessionQueries {
            bus: self.clone(),
            messages,
        })
    }
}

/// A subscriber to the queries about sessions.
#[derive(Debug)]
pub struct SessionQueries {
    bus: Bus,
    messages: Subscriber,
}

/// A question with where its answer goes.
#[derive(Debug)]
pub struct SessionQuery {
    /// Whose sessions are asked for.
    pub of: SessionsOf,
    reply: Subject,
}

impl SessionQueries {
    /// The next one; none when the connection was closed. Cancel-safe.
    pub async fn next(&mut self) -> Option<SessionQuery> {
        loop {
            let message = self.messages.next().await?;
            let query = wire::decode::<SessionsOf>(&message.payload).ok();
            match (query, message.reply) {
                (Some(of), Some(reply)) if of.version == WIRE_VERSION => {
                    return Some(SessionQuery { of, reply });
                }
                _ => warn!(
                    bytes = message.payload.len(),
                    "a question about sessions is not of this version"
                ),
            }
        }
    }

    /// Answers as `gateway`.
    ///
    /// # Errors
    /// When NATS is away: who asked does without.
    pub async fn answer(
        &self,
        query: SessionQuery,
        gateway: GatewayId,
        sessions: Vec<Session>,
    ) -> Result<(), BusError> {
        let told = wire::encode(&UserSessions { gateway, sessions })?;
        self.bus
            .client
            .publish(query.reply, told.into())
            .await
            .map_err(BusError::nats("tell sessions"))
    }
}

/// What was answered so far.
#[derive(Debug)]
struct GatheredSessions {
    sessions: Vec<Session>,
    /// Who has not answered yet; none when that is not known.
    missing: Option<Vec<GatewayId>>,
}

impl GatheredSessions {
    fn of(alive: &[GatewayId]) -> Self {
        Self {
            sessions: Vec::new(),
            missing: (!alive.is_empty()).then(|| alive.to_vec()),
        }
    }

    async fn gather(&mut self, answers: &mut Subscriber) {
        while !self.is_complete() {
            let Some(message) = answers.next().await else {
                return;
            };
            if let Ok(told) = wire::decode(&message.payload) {
                self.take(told);
            }
        }
    }

    fn take(&mut self, told: UserSessions) {
        self.sessions.extend(told.sessions);
        if let Some(missing) = &mut self.missing {
            missing.retain(|gateway| *gateway != told.gateway);
        }
        // So many gateways may answer, each with so many: only the newest are kept on the way.
        if self.sessions.len() > 4 * MAX_LISTED_SESSIONS {
            self.cut();
        }
    }

    fn is_complete(&self) -> bool {
        self.missing.as_ref().is_some_and(Vec::is_empty)
    }

    fn cut(&mut self) {
        self.sessions
            .sort_unstable_by_key(|session| std::cmp::Reverse((session.since, session.id)));
        self.sessions.truncate(MAX_LISTED_SESSIONS);
    }

    fn newest(mut self) -> Vec<Session> {
        self.cut();
        self.sessions
    }
}

#[cfg(test)]
mod tests;
