//! A gateway's side: what is broadcast, what the bucket holds, and when it is time to read again from a worker.

use std::time::Duration;

use async_nats::jetstream::kv::{Operation, Watch};
use confab_protocol::chain::chain;
use confab_protocol::condition::Monitor;
use confab_protocol::revocation::Revocation;
use futures_util::StreamExt as _;
use time::OffsetDateTime;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use tracing::debug;

use super::decode;
use crate::conditions::REVOCATIONS_BUCKET as WATCHED;
use crate::connection::Bus;
use crate::error::BusError;
use crate::subjects::{REVOCATION_SUBJECT, REVOCATIONS_BUCKET};

/// Interval at which gateways read from a worker, and look whether the bucket is still the one they watch.
const POLL_INTERVAL: Duration = Duration::from_secs(5);
/// Delay after which a watch that ended or could not begin is begun again.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// An update of the revocations for a gateway.
#[derive(Debug)]
pub enum RevocationUpdate {
    /// This was revoked, now or at any time before.
    Revoked(Revocation),
    /// Some may have been missed: a period is over, or NATS was away.
    ReadAgain,
    /// Something that is no revocation of this version.
    Malformed,
}

/// Tells `gateway` what it hears, until nobody listens. A broadcast is told at once, whatever the bucket is waited for.
pub async fn watch_revocations(bus: &Bus, gateway: mpsc::Sender<RevocationUpdate>) {
    tokio::join!(
        broadcasts(bus, &gateway),
        bucket(bus, &gateway),
        readings(bus, &gateway)
    );
}

fn read(bytes: &[u8]) -> RevocationUpdate {
    decode(bytes).map_or(RevocationUpdate::Malformed, RevocationUpdate::Revoked)
}

async fn broadcasts(bus: &Bus, gateway: &mpsc::Sender<RevocationUpdate>) {
    while !gateway.is_closed() {
        match bus.client.subscribe(REVOCATION_SUBJECT).await {
            Ok(mut messages) => {
                while let Some(message) = messages.next().await {
                    if gateway.send(read(&message.payload)).await.is_err() {
                        return;
                    }
                }
            }
            Err(error) => debug!(error = %chain(&error), "revocations cannot be listened to yet"),
        }
        tokio::time::sleep(RETRY_DELAY).await;
    }
}

/// A reading is due at once, on a period, and whenever the link to NATS was broken or messages were dropped.
async fn readings(bus: &Bus, gateway: &mpsc::Sender<RevocationUpdate>) {
    let mut link = bus.connection();
    let mut period = interval(POLL_INTERVAL);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let is_due = tokio::select! {
            _ = period.tick() => true,
            Ok(()) = link.changed() => link.borrow_and_update().connected,
        };
        if is_due && gateway.send(RevocationUpdate::ReadAgain).await.is_err() {
            return;
        }
    }
}

async fn bucket(bus: &Bus, gateway: &mpsc::Sender<RevocationUpdate>) {
    let monitor = Monitor::new(WATCHED);
    while !gateway.is_closed() {
        match watch(bus).await {
            Ok((entries, made)) => {
                monitor.holds();
                follow(bus, entries, made, gateway).await;
            }
            Err(error) => bus.failed(&monitor, &error),
        }
        tokio::time::sleep(RETRY_DELAY).await;
    }
}

/// A watch that begins with what the bucket holds, and when the bucket was made.
async fn watch(bus: &Bus) -> Result<(Watch, OffsetDateTime), BusError> {
    let made = bus.revocations_bucket().await?.cached_info().created;
    let bucket = bus
        .jetstream
        .get_key_value(REVOCATIONS_BUCKET)
        .await
        .map_err(BusError::nats("open the bucket of revocations"))?;
    let entries = bucket
        .watch_with_history(">")
        .await
        .map_err(BusError::nats("watch the bucket of revocations"))?;
    Ok((entries, made))
}

/// Follows the watch until it ends, or the bucket is another: a watch of an erased one is silent.
async fn follow(
    bus: &Bus,
    mut entries: Watch,
    made: OffsetDateTime,
    gateway: &mpsc::Sender<RevocationUpdate>,
) {
    let mut period = interval(POLL_INTERVAL);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            entry = entries.next() => match entry {
                // What is deleted by hand from the bucket is still revoked.
                Some(Ok(entry)) if entry.operation != Operation::Put => {}
                Some(Ok(entry)) => {
                    if gateway.send(read(&entry.value)).await.is_err() {
                        return;
                    }
                }
                Some(Err(error)) => {
                    debug!(error = %chain(&error), "the watch of revocations failed");
                    return;
                }
                None => return,
            },
            _ = period.tick() => {
                if let Ok(bucket) = bus.revocations_bucket().await
                    && bucket.cached_info().created != made
                {
                    debug!("the bucket of revocations is another");
                    return;
                }
            }
            () = gateway.closed() => return,
        }
    }
}
