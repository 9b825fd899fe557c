//! Who is there: one question to all gateways, each of which answers from its memory. It goes where signals go, so that each gateway hears it
//! in one order with what others say of presence.

use std::time::Duration;

use async_nats::{Subject, Subscriber};
use confab_protocol::ids::TenantId;
use confab_protocol::signal::{PresenceAnswer, PresenceQuestion};
use confab_protocol::wire;
use futures_util::StreamExt as _;

use crate::connection::Bus;
use crate::error::BusError;
use crate::gateways::GatewayId;
use crate::subjects;

/// Time for which gateways that live are waited for.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// Gateways that are heard at most.
const MAX_ANSWERS: usize = 1024;

/// The subject that an answer goes to.
#[derive(Debug, Clone)]
pub struct Reply(pub(crate) Subject);

/// The gateways' answers about presence.
#[derive(Debug)]
pub struct PresenceAnswers {
    /// One of each gateway that answered in time.
    pub answers: Vec<PresenceAnswer>,
    /// True if all that live did.
    pub is_whole: bool,
}

impl Bus {
    /// Returns what gateways know of the presence of a tenant's users, this one among them. Those in `alive` are waited for, a second at most, and the whole
    /// second where none is named: then it is not known whom to wait for.
    ///
    /// # Errors
    /// When NATS is away, takes nothing in time, or fails.
    pub async fn presence_of(
        &self,
        tenant: &TenantId,
        question: &PresenceQuestion,
        alive: &[GatewayId],
    ) -> Result<PresenceAnswers, BusError> {
        if !self.is_connected() {
            return Err(BusError::Disconnected);
        }
        let asked = tokio::time::timeout(ANSWER_TIMEOUT, self.ask_presence(tenant, question));
        let mut inbox = asked.await.map_err(|_late| BusError::Timeout)??;
        let mut missing = alive.to_vec();
        let mut answers = Vec::new();
        let gathering = async {
            while alive.is_empty() || !missing.is_empty() {
                let Some(message) = inbox.next().await else {
                    return;
                };
                let Ok(answer) = wire::decode::<PresenceAnswer>(&message.payload) else {
                    continue;
                };
                missing.retain(|gateway| gateway.0 != answer.gateway);
                if answers.len() < MAX_ANSWERS {
                    answers.push(answer);
                }
            }
        };
        // Who has not answered when the time is over is left out.
        let is_late = tokio::time::timeout(ANSWER_TIMEOUT, gathering)
            .await
            .is_err();
        Ok(PresenceAnswers {
            answers,
            is_whole: !is_late,
        })
    }

    async fn ask_presence(
        &self,
        tenant: &TenantId,
        question: &PresenceQuestion,
    ) -> Result<Subscriber, BusError> {
        let payload = wire::encode(question)?;
        let inbox = self.client.new_inbox();
        let answers = self.client.subscribe(inbox.clone()).await;
        let answers = answers.map_err(BusError::nats("listen for presence"))?;
        self.client
            .publish_with_reply(subjects::presence_question(tenant), inbox, payload.into())
            .await
            .map_err(BusError::nats("ask for presence"))?;
        Ok(answers)
    }

    /// Answers a question about presence.
    ///
    /// # Errors
    /// When NATS is away: who asked does without.
    pub async fn answer_presence(
        &self,
        reply: Reply,
        answer: &PresenceAnswer,
    ) -> Result<(), BusError> {
        if !self.is_connected() {
            return Err(BusError::Disconnected);
        }
        self.client
            .publish(reply.0, wire::encode(answer)?.into())
            .await
            .map_err(BusError::nats("tell presence"))
    }
}

#[cfg(test)]
mod tests {
    use confab_protocol::signal::{Presence, PresenceStatus};
    use tokio::task::JoinSet;
    use tokio::time::timeout;
    use uuid::Uuid;

    use super::*;
    use crate::signals::{Signalled, Signals};
    use crate::testing::{NatsServer, TEST_TIMEOUT};

    /// Gateways that answer as long as the set lives.
    async fn answering(bus: &Bus, gateways: &[u128]) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        for number in gateways.iter().copied() {
            let (bus, mut signals) = (bus.clone(), Signals::open(bus).await.unwrap());
            tasks.spawn(async move {
                while let Some(signalled) = signals.next().await {
                    let Signalled::Asked(tenant, question, reply) = signalled else {
                        panic!("{signalled:?}")
                    };
                    let answer = PresenceAnswer {
                        gateway: Uuid::from_u128(number),
                        number: 1,
                        is_whole: true,
                        words: vec![Presence {
                            tenant,
                            user: question.users[0].clone(),
                            status: PresenceStatus::Away,
                            conversations: question.conversations,
                            as_of: Vec::new(),
                        }],
                        lingering: Vec::new(),
                    };
                    bus.answer_presence(reply, &answer).await.unwrap();
                }
            });
        }
        tasks
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn silent_gateway_makes_presence_answer_incomplete() {
        let server = NatsServer::start().await;
        let bus = server.connect().await;
        let _gateways = answering(&bus, &[1, 2]).await;
        let question = PresenceQuestion {
            users: vec!["alice".parse().unwrap()],
            conversations: vec![],
        };
        let tenant = "acme".parse().unwrap();
        for (alive, is_whole) in [(vec![1, 2], true), (vec![1, 2, 3], false), (vec![], false)] {
            let alive: Vec<_> = alive
                .into_iter()
                .map(|n| GatewayId(Uuid::from_u128(n)))
                .collect();
            let asked = bus.presence_of(&tenant, &question, &alive);
            let told = timeout(TEST_TIMEOUT, asked).await.unwrap().unwrap();
            assert_eq!((told.answers.len(), told.is_whole), (2, is_whole));
            assert_eq!(told.answers[0].words[0].user.as_str(), "alice");
        }
    }
}
