//! Connections come and go; the session stays.

use std::sync::atomic::Ordering;

use confab_protocol::frame::Welcome;
use tokio::time::Instant;

use super::link::Link;
use super::{Driver, Flow, SEEN_EVERY, gone};
use crate::resuming::Change;
use crate::resuming::connect::ConnectAttempt;
use crate::resuming::handshake::{HandshakeResult, told};
use crate::ws::{Closed, Ws};

impl Driver {
    /// The connection ended.
    pub(super) fn lost(&mut self, closed: Closed, now: Instant) -> Flow {
        let Some(link) = self.link.take() else {
            return Flow::Continue(());
        };
        self.sends.lost(&closed);
        self.ask_at = None;
        if self.leaving.is_some() {
            return Flow::Break(closed);
        }
        let handshake = match HandshakeResult::of_closed(&closed, link.named(now)) {
            // It was taken over by a try of our own that has not told yet.
            HandshakeResult::End if link.succeeded && closed.code == Some(4409) => {
                HandshakeResult::Again(None)
            }
            handshake => handshake,
        };
        self.dialer.stood(link.since, now);
        // Where a goaway named the time or a try is on its way, that is when and where it goes on.
        let settled = self.dialer.is_running() || self.dialer.due.is_some();
        let settled = settled && matches!(handshake, HandshakeResult::Again(_));
        if !settled && self.dialer.again(handshake, None, now).is_none() {
            return Flow::Break(closed);
        }
        self.told.tell(Change::Disconnected(closed));
        Flow::Continue(())
    }

    /// A try ended.
    pub(super) fn dialed(&mut self, dialed: ConnectAttempt, now: Instant) -> Flow {
        let ConnectAttempt {
            url,
            token,
            outcome,
        } = dialed;
        let error = match outcome {
            Ok(welcomed) => {
                let (welcome, ws) = *welcomed;
                self.dialer.welcomed(token);
                self.counts.reconnects.fetch_add(1, Ordering::Relaxed);
                self.welcomed(url, welcome, ws, now);
                return Flow::Continue(());
            }
            Err(error) => error,
        };
        let closed = told(&error);
        let due = self
            .dialer
            .again(HandshakeResult::of_failure(&error), token, now);
        if self.link.is_some() {
            // The connection of before stands, and its end will say what follows.
            return Flow::Continue(());
        }
        if due.is_none() {
            return Flow::Break(closed);
        }
        // A program that takes nothing is not told of every try.
        if self.told.is_done() {
            self.told.tell(Change::Disconnected(closed));
        }
        Flow::Continue(())
    }

    /// The session goes on over `ws`. A connection of before is let go.
    pub(super) fn welcomed(&mut self, url: String, welcome: Welcome, ws: Ws, now: Instant) {
        if self.link.take().is_some() {
            self.sends.lost(&gone("the session moved over"));
        }
        let mut link = Link::new(&welcome, ws, now);
        self.ask_at = None;
        // A session that goes on may not have heard what was said while there was no connection.
        if let Some(presence) = self.presence.clone() {
            link.say(presence);
        }
        self.link = Some(link);
        // A session that goes on without a new token goes on with the old one.
        let kept = self.resume_token.take().filter(|_| welcome.resumed);
        self.resume_token = welcome.resume_token.or(kept);
        let session_id = welcome.session_id;
        self.standing
            .send_modify(|standing| standing.session_id = session_id);
        self.told.tell(Change::Connected {
            url,
            resumed: welcome.resumed,
            reason: welcome.reason,
            session_id,
            replayed: welcome.replayed,
        });
        if self.options.says_seen && self.positions.has_moved() {
            self.say_at = Some(now + SEEN_EVERY);
        }
        if !welcome.resumed {
            self.positions.begin(welcome.heads.unwrap_or_default());
        }
        for range in welcome.truncated {
            self.positions.truncate(&range);
            self.told.tell(Change::Truncated(range));
        }
    }
}
