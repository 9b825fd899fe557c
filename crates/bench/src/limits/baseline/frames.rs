//! What one frame costs a bare server, read and written, each alone and with a system call of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use serde::Serialize;
use tokio::time::{Duration, Instant, MissedTickBehavior, interval};

use super::{Baseline, BaselineKind};
use crate::Error;
use crate::load::Connection;
use crate::processes;
use crate::stack::Places;

/// Connections, as many as those of the sends that this is set against.
const CONNECTION_COUNT: usize = 64;
/// How often frames are sent, so many connections at a time: what is sent to one of them has long been read before the next.
const SEND_INTERVAL: Duration = Duration::from_millis(1);
const AT_ONCE: usize = 16;
/// How long before it is measured.
const WARM_UP: Duration = Duration::from_secs(1);

/// Processors' time of a frame, in microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FrameCosts {
    /// Of one that a client sent: read and unmasked.
    pub(crate) read: f64,
    /// Of one that a client is sent.
    pub(crate) written: f64,
    /// Frames a second that were read, and that were written, while that was measured.
    pub(crate) read_rate: f64,
    pub(crate) written_rate: f64,
}

/// Measures, for so long each, frames of so many bytes that come, and that go.
pub(crate) async fn frame_costs(
    places: &Places,
    incoming: usize,
    outgoing: usize,
    lasting: Duration,
) -> Result<FrameCosts, Error> {
    let (read, read_rate, _) =
        cost(places, BaselineKind::Hearing, incoming, AT_ONCE, lasting).await?;
    // One frame that comes goes to all.
    let written = cost(places, BaselineKind::Telling, outgoing, 1, lasting).await?;
    let (all, sent_rate, written_rate) = written;
    Ok(FrameCosts {
        read,
        written: (all - read) * sent_rate / written_rate.max(1.0),
        read_rate,
        written_rate,
    })
}

/// Processors' time of a server for each frame that is sent to it, in microseconds; how many a second those are, and how many
/// come back.
async fn cost(
    places: &Places,
    kind: BaselineKind,
    bytes: usize,
    at_once: usize,
    lasting: Duration,
) -> Result<(f64, f64, f64), Error> {
    let bare = Baseline::start(places, kind).await?;
    let heard = Arc::new(AtomicU64::new(0));
    let mut connections = Vec::new();
    for _ in 0..CONNECTION_COUNT {
        let heard = Arc::clone(&heard);
        let hearing = Box::new(move |_: &[u8]| {
            heard.fetch_add(1, Ordering::Relaxed);
        });
        connections.push(Connection::unwelcomed(&bare.url(), "", hearing).await?);
    }
    let frame = Bytes::from(vec![b'x'; bytes]);
    let mut turns = connections.iter().cycle();
    send(&mut turns, &frame, at_once, WARM_UP).await?;
    let used = processes::processor(bare.pid());
    let (before, began) = (heard.load(Ordering::Relaxed), Instant::now());
    let sent = send(&mut turns, &frame, at_once, lasting).await?;
    let heard = heard.load(Ordering::Relaxed) - before;
    let (used, seconds) = (
        processes::processor(bare.pid()) - used,
        began.elapsed().as_secs_f64(),
    );
    bare.stop().await?;
    let each = used * 1e6 / sent as f64;
    Ok((each, sent as f64 / seconds, heard as f64 / seconds))
}

/// Sends a frame by so many of the connections at every tick; says how many went.
async fn send<'a>(
    turns: &mut impl Iterator<Item = &'a Connection>,
    frame: &Bytes,
    at_once: usize,
    lasting: Duration,
) -> Result<u64, Error> {
    let mut ticks = interval(SEND_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (began, mut sent) = (Instant::now(), 0);
    while began.elapsed() < lasting {
        ticks.tick().await;
        for connection in turns.by_ref().take(at_once) {
            connection.send(frame.clone()).await?;
            sent += 1;
        }
    }
    Ok(sent)
}
