//! Events on their way into the stream, and their acknowledgements.

use std::time::{Duration, Instant};

use confab_bus::{Bus, BusError, Outgoing, PendingAck};
use confab_protocol::ids::EventId;

use super::{Compared, Mark, Standing};

/// How long NATS may take to be handed the events of a commit.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// The events of a commit that were handed to NATS, each with its acknowledgement to come.
#[derive(Debug)]
pub(super) struct Sent {
    events: Vec<(EventId, PendingAck)>,
    /// Whether one of them is larger than NATS takes: the others are on their way.
    is_refused: bool,
    /// The stream that they were handed to, where it is known, and the highest sequence acknowledged before.
    stream: Option<Compared>,
    before: u64,
}

/// Why a commit was not published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unpublished {
    /// NATS takes none of it now, or has not said that it did.
    Away,
    /// NATS never takes one of its events.
    Refused,
}

/// Hands the events of a commit to NATS, in their order.
pub(super) async fn send(
    bus: &Bus,
    events: &[Outgoing],
    standing: &Standing,
) -> Result<Sent, Unpublished> {
    let mut sent = Sent {
        events: Vec::with_capacity(events.len()),
        is_refused: false,
        stream: standing.now(),
        before: standing.top(),
    };
    let sending = async {
        for event in events {
            match bus.publish(event).await {
                Ok(publishing) => sent.events.push((event.id, publishing)),
                Err(BusError::Refused) => sent.is_refused = true,
                Err(error) => {
                    standing.not_published(&error);
                    return Err(Unpublished::Away);
                }
            }
        }
        Ok(())
    };
    match tokio::time::timeout(SEND_TIMEOUT, sending).await {
        Ok(handed_over) => handed_over.map(|()| sent),
        Err(_stuck) => Err(Unpublished::Away),
    }
}

/// Waits until JetStream has acknowledged all events of a commit; gives its mark, where the stream that they were handed to is known.
/// Whatever shows that the stream is not what it was puts it in doubt.
pub(super) async fn acknowledged(
    row: i64,
    sent: Sent,
    standing: &Standing,
) -> Result<Option<Mark>, Unpublished> {
    let mut highest: Option<(u64, EventId)> = None;
    let (mut is_the_same, mut is_refused) = (true, sent.is_refused);
    for (event, publishing) in sent.events {
        match publishing.ack().await {
            Ok(ack) => {
                standing.published();
                if let Some(stream) = sent.stream {
                    is_the_same &= standing.acknowledged(stream, sent.before, ack);
                }
                highest = highest.max(Some((ack.sequence, event)));
            }
            Err(BusError::Refused) => is_refused = true,
            Err(error) => {
                standing.not_published(&error);
                if let Some(stream) = sent.stream {
                    standing.doubt(stream, "an event was not acknowledged");
                }
                return Err(Unpublished::Away);
            }
        }
    }
    if is_refused {
        return Err(Unpublished::Refused);
    }
    let (Some(stream), Some((stream_seq, event))) = (sent.stream, highest) else {
        return Ok(None);
    };
    if !is_the_same {
        standing.doubt(stream, "the stream gives sequences that it gave before");
        return Ok(None);
    }
    Ok(Some(Mark {
        row,
        stream,
        stream_seq,
        event,
        at: Instant::now(),
    }))
}
