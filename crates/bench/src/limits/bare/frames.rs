//! What a frame costs a bare server: one that it reads, and one that it writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use confab_protocol::ids::ConversationId;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::{Bare, Kind};
use crate::Error;
use crate::load::{Connection, Pace, Timer, send_frame};
use crate::output::Progress;
use crate::processes;
use crate::scenario::fanout;
use crate::stack::Places;

/// As `send` has them.
const SOCKETS: usize = 64;
const TEXT: usize = 200;
/// Frames a second that come: about as many as a confab takes.
const RATE: f64 = 15_000.0;
const WARM_UP: Duration = Duration::from_secs(1);

/// Processors' time of a bare server, in microseconds a frame.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Frames {
    /// That it reads, as large as a send.
    pub(crate) taken: f64,
    /// That it writes, as large as the event of one; what waits for a socket goes in one write.
    pub(crate) written: f64,
}

/// Measures each for so many seconds.
pub(crate) async fn measure(
    places: &Places,
    seconds: u64,
    progress: &Progress,
) -> Result<Frames, Error> {
    Ok(Frames {
        taken: taken(places, Duration::from_secs(seconds)).await?,
        written: written(places, seconds, progress).await?,
    })
}

async fn taken(places: &Places, length: Duration) -> Result<f64, Error> {
    let bare = Bare::start(places, Kind::Hearing).await?;
    let (sent, ends) = (
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let (from, mut sending) = (Instant::now(), JoinSet::new());
    for place in 0..SOCKETS {
        let connection = Connection::bare(&bare.url(), "", Box::new(|_: &[u8]| {})).await?;
        let pace = Pace::new(from, RATE, place, SOCKETS);
        sending.spawn(send(connection, pace, Arc::clone(&sent), Arc::clone(&ends)));
    }
    sleep(WARM_UP).await;
    let (used, before) = (
        processes::processor(bare.pid()),
        sent.load(Ordering::Relaxed),
    );
    sleep(length).await;
    let used = processes::processor(bare.pid()) - used;
    let count = sent.load(Ordering::Relaxed) - before;
    ends.store(true, Ordering::Relaxed);
    for sent in sending.join_all().await {
        sent?;
    }
    bare.stop().await?;
    Ok(used * 1e6 / count as f64)
}

async fn send(
    connection: Connection,
    pace: Pace,
    sent: Arc<AtomicU64>,
    ends: Arc<AtomicBool>,
) -> Result<(), Error> {
    let (timer, text) = (Timer::new()?, "x".repeat(TEXT));
    let conversation = ConversationId(Uuid::now_v7());
    for number in 0.. {
        timer.until(pace.at(number)).await?;
        if ends.load(Ordering::Relaxed) {
            break;
        }
        let frame = send_frame(Uuid::now_v7(), conversation, &text);
        connection.send(frame).await?;
        sent.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

async fn written(places: &Places, seconds: u64, progress: &Progress) -> Result<f64, Error> {
    let bares = super::start_all(places, 1).await?;
    let load = fanout::Load {
        members: SOCKETS,
        max: true,
        in_flight: 8,
        warm_up: 1,
        seconds,
        ..fanout::Load::default()
    };
    let outcome = fanout::of_bare(&bares, &load, &event(), progress).await?;
    super::stop_all(bares).await?;
    let used = outcome.processor;
    used.map(|used| used.gateways)
        .ok_or_else(|| Error::Failed("the bare server's time is not known".to_owned()))
}

/// As long as a message's event, with the same place for its client id.
fn event() -> Bytes {
    let (id, text) = (Uuid::nil(), "x".repeat(TEXT));
    Bytes::from(format!(
        r#"{{"type":"message.created","id":"{id}","conversationId":"{id}","seq":1000,"actorId":"sender-00000000-0","createdAt":"2026-01-01T00:00:00.000000Z","data":{{"message":{{"id":"{id}","clientId":"{id}","kind":"text","content":{{"text":"{text}"}},"metadata":{{}}}}}}}}"#
    ))
}
