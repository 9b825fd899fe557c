//! How a session ends: what was asked before is carried out and answered first, where there is anyone to hear of it.

use std::future::pending;
use std::pin::pin;
use std::time::Duration;

use confab_protocol::error::Code;
use confab_protocol::frame::{Goaway, GoawayReason, ServerFrame};
use tokio::time::{sleep, timeout};
use tracing::info;

use super::Sockets;
use super::connection::{Connection, End, Meanwhile, pump};
use super::opening::finish;
use super::session::Session;

/// How long a connection that ends waits for the answers to what was asked before.
const ANSWERS_TIMEOUT: Duration = Duration::from_secs(2);
/// The answer to `bye`.
pub(super) const BYE_END: End = End::Close(1000, "");
/// The part of the drain time over which clients are sent away.
const DRAIN_SHARE: f64 = 0.8;
/// Clients that are sent away come back elsewhere within so long at least, and at most.
const MIN_RECONNECT_DELAY: Duration = Duration::from_secs(1);
const MAX_RECONNECT_DELAY: Duration = Duration::from_secs(30);
/// The close code of a drain.
const DRAIN_CLOSE_CODE: u16 = 1001;

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
                written = pump(&connection.send_queue, &mut connection.writer, Meanwhile::ReadingWaits) => written,
                code = connection.send_queue.closed(), if writing => Err(End::of(code)),
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
            lease,
            ..
        } = self;
        let session = lease.session();
        lease.leaving();
        let positions = sockets.hub.close(key).await;
        if is_for_good(first) || is_for_good(last) {
            finish(lease).await;
        } else {
            lease.ended(positions);
        }
        info!(session.id = %session, end = ?last, "a session ended");
    }
}

/// Whether a session that ends so cannot be resumed: it said `bye`, was revoked, or may have been without this gateway's knowing.
fn is_for_good(end: End) -> bool {
    end == BYE_END || end == End::of(Code::TokenRevoked) || end == End::of(Code::Unavailable)
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
        End::Close(DRAIN_CLOSE_CODE, _) => Some(ANSWERS_TIMEOUT.min(drain / 10)),
        End::Close(..) | End::Closed => Some(ANSWERS_TIMEOUT),
    }
}

/// Tells the client where to: anywhere else, after a moment of its own.
pub(super) fn goaway(sockets: &Sockets, connection: &Connection) -> End {
    send_away(sockets, connection, GoawayReason::Drain);
    End::Close(DRAIN_CLOSE_CODE, "DRAIN")
}

/// The gateway has lost the others: the client should look for another, and keep this connection until it has one.
pub(super) fn try_elsewhere(sockets: &Sockets, connection: &Connection) {
    send_away(sockets, connection, GoawayReason::Degraded);
}

fn send_away(sockets: &Sockets, connection: &Connection, reason: GoawayReason) {
    let spread_already = match reason {
        GoawayReason::Drain => sockets.limits.drain.mul_f64(DRAIN_SHARE),
        GoawayReason::Degraded => Duration::ZERO,
    };
    let open = sockets.connections.len();
    let within = spread(open, sockets.limits.resume_rate, spread_already);
    let after = within.mul_f64(rand::random::<f64>());
    connection.answer(&ServerFrame::Goaway(Goaway {
        reason,
        reconnect_after_ms: u64::try_from(after.as_millis()).unwrap_or(u64::MAX),
    }));
}

/// Within what time so many clients should come to another gateway, so that it lets them in as they come.
fn spread(open: usize, rate: u32, already: Duration) -> Duration {
    let open = u32::try_from(open).unwrap_or(u32::MAX);
    let needed = Duration::from_secs(1) * open / rate.max(1);
    needed
        .saturating_sub(already)
        .clamp(MIN_RECONNECT_DELAY, MAX_RECONNECT_DELAY)
}

/// Comes at this connection's own point of the drain time, so that clients do not all reconnect at once.
pub(super) async fn drained(sockets: &Sockets) {
    sockets.drain.cancelled().await;
    let share = sockets
        .limits
        .drain
        .mul_f64(rand::random::<f64>() * DRAIN_SHARE);
    let _elapsed = timeout(share, pending::<()>()).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reconnects_are_spread_at_resume_rate() {
        let seconds = Duration::from_secs;
        assert_eq!(spread(10, 5000, Duration::ZERO), seconds(1));
        assert_eq!(spread(50_000, 5000, Duration::ZERO), seconds(10));
        assert_eq!(spread(50_000, 5000, seconds(8)), seconds(2));
        assert_eq!(spread(50_000, 5000, seconds(24)), seconds(1));
        assert_eq!(spread(usize::MAX, 1, Duration::ZERO), MAX_RECONNECT_DELAY);
    }
}
