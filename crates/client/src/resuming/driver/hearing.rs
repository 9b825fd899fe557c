//! What a gateway says.

use std::sync::atomic::Ordering;
use std::time::Duration;

use confab_protocol::event::Event;
use confab_protocol::frame::{Goaway, Heard, ServerFrame};
use tokio::time::Instant;

use super::{Driver, SEEN_EVERY};
use crate::resuming::Change;
use crate::resuming::handshake::wait_of;

impl Driver {
    pub(super) fn hear(&mut self, heard: Heard, now: Instant) {
        match heard {
            Heard::Event(event) => self.event(event, now),
            Heard::Frame(frame) => self.frame(frame, now),
        }
    }

    fn event(&mut self, event: Event, now: Instant) {
        if !self.positions.advance(event.conversation_id, event.seq) {
            self.counts.ignored.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if self.options.says_seen {
            self.say_at.get_or_insert(now + SEEN_EVERY);
        }
        self.told.tell(Change::Event(event));
    }

    fn frame(&mut self, frame: ServerFrame, now: Instant) {
        let change = match frame {
            ServerFrame::Ack(ack) => {
                self.sends.acknowledge(ack);
                return;
            }
            ServerFrame::Error(error) => {
                let Some(error) = self.sends.refuse(error, now) else {
                    return;
                };
                if let Some(link) = self.link.as_mut().filter(|_| error.id.is_none()) {
                    link.not_before = wait_of(&error).map(|wait| now + wait);
                }
                Change::Error(error)
            }
            ServerFrame::ResumeToken(token) => {
                self.resume_token = Some(token.resume_token);
                return;
            }
            ServerFrame::TokenExpiring(_) => {
                self.ask();
                return;
            }
            ServerFrame::Truncated(range) => {
                self.positions.truncate(&range);
                Change::Truncated(range)
            }
            ServerFrame::Goaway(goaway) => {
                self.go_away(&goaway, now);
                Change::Goaway(goaway)
            }
            ServerFrame::Typing(typing) => Change::Typing(typing),
            ServerFrame::Receipt(receipt) => Change::Receipt(receipt),
            ServerFrame::Presence(presence) => Change::Presence(presence),
            ServerFrame::PresenceSnapshot(snapshot) => Change::PresenceSnapshot(snapshot),
            ServerFrame::Welcome(_) | ServerFrame::Pong { .. } => return,
        };
        self.told.tell(change);
    }

    /// Goes elsewhere when it is told to, unless it leaves. This connection stays until another gateway welcomes, or until it
    /// is closed.
    fn go_away(&mut self, goaway: &Goaway, now: Instant) {
        let goes_already = self.dialer.is_running() || self.dialer.due.is_some();
        if goes_already || self.leaving.is_some() {
            return;
        }
        self.dialer.elsewhere();
        self.dialer.due = Some(now + Duration::from_millis(goaway.reconnect_after_ms));
    }
}
