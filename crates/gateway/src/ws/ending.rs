//! How a session ends: what was asked before is carried out and answered first, where there is anyone to hear of it.

use std::future::pending;
use std::pin::pin;
use std::time::Duration;

use confab_protocol::error::Code;
use confab_protocol::frame::{Goaway, GoawayReason, ServerFrame};
use futures_util::StreamExt as _;
use tokio::time::{sleep, timeout};
use tracing::info;

use super::Sockets;
use super::connection::{Connection, End};
use super::opening::finish;
use super::session::Session;

/// How long a connection that ends waits for the answers to what was asked before.
const SETTLING: Duration = Duration::from_secs(2);
/// The answer to `bye`.
pub(super) const BYE: End = End::Close(1000, "");
/// The close code of a drain.
const DRAIN: u16 = 1001;

impl Session<'_> {
    /// Carries out and answers what the client asked before the connection's end: whoever says `bye` or closes behind a
    /// send has sent it, and a drain loses no answer that comes soon. Says how the connection ends when that is otherwise
    /// meanwhile.
    pub(super) async fn settle(&mut self, connection: &mut Connection, end: End) -> Option<End> {
        let patience = patience(end, self.sockets.limits.drain)?;
        let mut late = pin!(sleep(patience));
        while !self.on_the_way.is_empty() {
            let writing = connection.writer.stalled_since().is_some();
            let step = tokio::select! {
                biased;
                () = &mut late => return None,
                Some(done) = self.on_the_way.next() => {
                    self.done(connection, done);
                    Ok(())
                }
                written = connection.writer.flush(), if writing => written.map_err(|_lost| End::Lost),
                () = connection.outbox.ready(), if !writing => connection.take(),
                code = connection.outbox.closed(), if writing => Err(End::of(code)),
            };
            if let Err(other) = step {
                return Some(other);
            }
        }
        None
    }

    /// Gives up its place in the hub, and its record to whoever may resume it, where it did not end for good: by its
    /// first end, or the one that came while it settled.
    pub(super) async fn close(self, first: End, last: End) {
        let Self {
            sockets,
            key,
            holder,
            ..
        } = self;
        let session = holder.session();
        holder.leaving();
        let positions = sockets.fanout.close(key).await;
        if is_for_good(first) || is_for_good(last) {
            finish(holder).await;
        } else {
            holder.ended(positions);
        }
        info!(session.id = %session, end = ?last, "a session ended");
    }
}

/// Whether a session that ends so cannot be resumed: it said `bye`, or was revoked.
fn is_for_good(end: End) -> bool {
    end == BYE || end == End::of(Code::TokenRevoked)
}

/// How long what was asked before may take when a connection ends so; none where nothing more is done for it.
fn patience(end: End, drain: Duration) -> Option<Duration> {
    const NO_MORE: [u16; 3] = [
        Code::SlowConsumer.close_code(),
        Code::TokenRevoked.close_code(),
        Code::SessionReplaced.close_code(),
    ];
    match end {
        End::Lost => None,
        End::Close(code, _) if NO_MORE.contains(&code) => None,
        // Of the drain time a fifth is left at least, for the closing as well.
        End::Close(DRAIN, _) => Some(SETTLING.min(drain / 10)),
        End::Close(..) | End::Closed => Some(SETTLING),
    }
}

/// Tells the client where to: anywhere else, after a moment of its own.
pub(super) fn goaway(connection: &Connection) -> End {
    let reconnect_after_ms = rand::random_range(0..1000);
    connection.answer(&ServerFrame::Goaway(Goaway {
        reason: GoawayReason::Drain,
        reconnect_after_ms,
    }));
    End::Close(DRAIN, "DRAIN")
}

/// Comes at this connection's own point of the drain time, so that clients do not all reconnect at once.
pub(super) async fn drained(sockets: &Sockets) {
    sockets.drain.cancelled().await;
    let share = sockets.limits.drain.mul_f64(rand::random::<f64>() * 0.8);
    let _elapsed = timeout(share, pending::<()>()).await;
}
