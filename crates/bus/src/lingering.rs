//! What is committed and not in the stream, over core NATS: best effort, told again while it lasts.

use async_nats::Subscriber;
use confab_protocol::chain::chain;
use confab_protocol::lingering::Announcement;
use confab_protocol::wire;
use futures_util::StreamExt as _;
use tracing::debug;

use crate::connection::Bus;
use crate::error::BusError;
use crate::subjects;

/// Every announcement of every worker.
#[derive(Debug)]
pub struct Announcements(Subscriber);

impl Announcements {
    /// Subscribes; while NATS is away, it hears nothing, and goes on when NATS is back.
    ///
    /// # Errors
    /// When NATS refuses the subscription.
    pub async fn open(bus: &Bus) -> Result<Self, BusError> {
        let subscribed = bus.client.subscribe(subjects::LINGERING_SUBJECT).await;
        let announcements = subscribed.map_err(BusError::nats("listen to announcements"))?;
        Ok(Self(announcements))
    }

    /// The next one; none when the connection was closed. What no worker of this version sends is skipped. Cancel-safe.
    pub async fn next(&mut self) -> Option<Announcement> {
        loop {
            let message = self.0.next().await?;
            match wire::decode(&message.payload) {
                Ok(announcement) => return Some(announcement),
                Err(error) => debug!(error = %chain(&error), "an announcement cannot be read"),
            }
        }
    }
}

impl Bus {
    /// Announces to all gateways what is committed and not in the stream; it must fit one message.
    ///
    /// # Errors
    /// When NATS is away: then nothing is announced.
    pub async fn announce_lingering(&self, announcement: &Announcement) -> Result<(), BusError> {
        // The library would keep it until NATS is back, when it may linger no more.
        if !self.is_connected() {
            return Err(BusError::Disconnected);
        }
        self.client
            .publish(
                subjects::LINGERING_SUBJECT,
                wire::encode(announcement)?.into(),
            )
            .await
            .map_err(BusError::nats("announce what lingers"))
    }
}
