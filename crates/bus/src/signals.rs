//! Signals between gateways, over core NATS: best effort, not numbered, not replayed.

use async_nats::{Subject, Subscriber};
use confab_protocol::ids::TenantId;
use confab_protocol::signal::{PresenceNews, PresenceQuestion, Signal};
use confab_protocol::wire;
use futures_util::StreamExt as _;

use crate::connection::Bus;
use crate::error::BusError;
use crate::presence::Reply;
use crate::subjects::{self, SignalSubject};

/// A message that another gateway, or this one, published.
#[derive(Debug)]
pub enum Signalled {
    /// A signal about one conversation.
    Signal(Signal),
    /// News of the presence of users.
    Presence(PresenceNews),
    /// A gateway asks about the presence of a tenant's users.
    Asked(TenantId, PresenceQuestion, Reply),
    /// What no gateway of this version sends.
    Malformed,
}

/// Every signal of every gateway.
#[derive(Debug)]
pub struct Signals(Subscriber);

impl Signals {
    /// Subscribes; while NATS is away, it hears nothing, and goes on when NATS is back.
    ///
    /// # Errors
    /// When NATS refuses the subscription.
    pub async fn open(bus: &Bus) -> Result<Self, BusError> {
        let subscribe = bus.client.subscribe(subjects::SIGNALS_FILTER);
        Ok(Self(
            subscribe
                .await
                .map_err(BusError::nats("listen to signals"))?,
        ))
    }

    /// The next one; none when the connection was closed. Cancel-safe.
    pub async fn next(&mut self) -> Option<Signalled> {
        let mut message = self.0.next().await?;
        while *message.subject == *subjects::UNUSED_SIGNAL_SUBJECT {
            message = self.0.next().await?;
        }
        let signalled = read(&message.subject, &message.payload, message.reply);
        Some(signalled.unwrap_or(Signalled::Malformed))
    }
}

/// Returns what a message says; it must be about what its subject names.
fn read(subject: &str, payload: &[u8], reply: Option<Subject>) -> Option<Signalled> {
    match subjects::parse_signal(subject)? {
        SignalSubject::Presence(tenant) => {
            let news: PresenceNews = wire::decode(payload).ok()?;
            let mut words = news.changes.iter().chain(&news.repeats);
            let is_about = words.all(|word| word.tenant == tenant);
            is_about.then_some(Signalled::Presence(news))
        }
        SignalSubject::PresenceQuestion(tenant) => {
            let question = wire::decode(payload).ok()?;
            Some(Signalled::Asked(tenant, question, Reply(reply?)))
        }
        SignalSubject::Conversation(tenant, conversation) => {
            let signal: Signal = wire::decode(payload).ok()?;
            let is_about = signal.tenant == tenant && signal.conversation == conversation;
            is_about.then_some(Signalled::Signal(signal))
        }
    }
}

impl Bus {
    /// Hands a signal to NATS.
    ///
    /// # Errors
    /// When NATS is away: then the signal is lost.
    pub async fn signal(&self, signal: &Signal) -> Result<(), BusError> {
        let subject = subjects::signal(&signal.tenant, signal.conversation);
        self.publish_signal(subject, wire::encode(signal)?).await
    }

    /// Hands news of the presence of a tenant's users to NATS; they must fit one message.
    ///
    /// # Errors
    /// When NATS is away: then they are lost.
    pub async fn presence(&self, tenant: &TenantId, news: &PresenceNews) -> Result<(), BusError> {
        let payload = wire::encode(news)?;
        self.publish_signal(subjects::presence(tenant), payload)
            .await
    }

    async fn publish_signal(&self, subject: String, payload: Vec<u8>) -> Result<(), BusError> {
        // The library would keep it until NATS is back, when nobody wants it any more.
        if !self.is_connected() {
            return Err(BusError::Disconnected);
        }
        self.client
            .publish(subject, payload.into())
            .await
            .map_err(BusError::nats("publish a signal"))
    }
}

#[cfg(test)]
mod tests {
    use confab_protocol::ids::ConversationId;
    use confab_protocol::signal::SignalKind;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn signal_not_matching_subject_is_malformed() {
        let tenant: TenantId = "acme".parse().unwrap();
        let conversation = ConversationId(Uuid::now_v7());
        let signal = Signal {
            tenant: tenant.clone(),
            conversation,
            user: "alice".parse().unwrap(),
            kind: SignalKind::Typing(true),
            gateway: None,
        };
        let payload = wire::encode(&signal).unwrap();
        let own = subjects::signal(&tenant, conversation);
        assert!(
            matches!(read(&own, &payload, None), Some(Signalled::Signal(heard)) if heard == signal)
        );
        let elsewhere = subjects::signal(&"other".parse().unwrap(), conversation);
        assert!(read(&elsewhere, &payload, None).is_none());
        assert!(read(&subjects::presence(&tenant), &payload, None).is_none());
        assert!(read(&own, b"junk", None).is_none());
        assert!(read("confab.v1.signal.acme", &payload, None).is_none());
    }
}
