//! A client as the contract has it: it ignores what it has, reads what was truncated, and comes back.

use std::collections::BTreeMap;
use std::sync::Arc;

use confab_bus::records::Position;
use confab_protocol::ids::Seq;

use super::log::Log;
use super::{Opened, PING_OPCODE, SessionKey, index};
use crate::delivery::frames::Frame;
use crate::delivery::send_queue::SendQueue;

pub(super) struct Client {
    pub(super) user: usize,
    pub(super) says_seen: bool,
    /// The connection, and whether it was welcomed.
    pub(super) key: Option<SessionKey>,
    pub(super) is_open: bool,
    send_queue: Option<Arc<SendQueue>>,
    /// What would be in the bucket.
    pub(super) record: Vec<Position>,
    /// The connection that ended last in order, until its positions are put; none once another began.
    ended: Option<SessionKey>,
    /// What it is welcomed with once its first record is put, and the heads when it opened.
    opening: Option<(Opened, Vec<Seq>)>,
    /// The heads when the session was noted, and, once it first opened, those it was told and those there were.
    noted: Vec<Seq>,
    pub(super) told: Option<(BTreeMap<usize, Seq>, Vec<Seq>)>,
    lives: usize,
    /// Up to where it has each conversation, and what it took.
    pub(super) has: BTreeMap<usize, Seq>,
    heard: BTreeMap<usize, Vec<Seq>>,
    /// Ranges that it is still to read, with what came behind them.
    unread: BTreeMap<usize, (Seq, Seq, Vec<Seq>)>,
    /// Pings not answered yet.
    pings: Vec<Vec<u8>>,
    idle: bool,
    /// How often it was told what it had.
    repeats: usize,
}

#[derive(serde::Deserialize)]
struct Event {
    c: usize,
    seq: Seq,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Later {
    conversation_id: confab_protocol::ids::ConversationId,
    from_seq: Seq,
    head_seq: Seq,
}

impl Client {
    pub(super) fn new(user: usize, says_seen: bool, noted: Vec<Seq>) -> Self {
        Self {
            user,
            says_seen,
            key: None,
            is_open: false,
            send_queue: None,
            record: Vec::new(),
            ended: None,
            opening: None,
            noted,
            told: None,
            lives: 0,
            has: BTreeMap::new(),
            heard: BTreeMap::new(),
            unread: BTreeMap::new(),
            pings: Vec::new(),
            idle: false,
            repeats: 0,
        }
    }

    pub(super) const fn repeats(&self) -> usize {
        self.repeats
    }

    /// It lost what it had behind `seq`, where it is away and says what it has.
    pub(super) fn loses(&mut self, c: usize, seq: Seq) {
        if self.key.is_none() && self.says_seen {
            self.forget(c, seq);
        }
    }

    /// It has a conversation up to `seq` only, or up to where it first opened.
    pub(super) fn forget(&mut self, c: usize, seq: Seq) {
        let opened = self.told.as_ref().and_then(|(told, _)| told.get(&c));
        let seq = opened.copied().unwrap_or_default().max(seq);
        if let Some(has) = self.has.get_mut(&c).filter(|has| **has > seq) {
            *has = seq;
            let heard = self.heard.entry(c).or_default();
            heard.retain(|heard| *heard <= seq);
        }
    }

    pub(super) fn send_queue(&self) -> &SendQueue {
        self.send_queue.as_ref().unwrap()
    }

    pub(super) fn connected(&mut self, key: SessionKey, send_queue: Arc<SendQueue>) {
        (self.key, self.send_queue) = (Some(key), Some(send_queue));
        self.ended = None;
        self.idle = false;
    }

    /// What was truncated and not read, and all behind it, the client does not have.
    pub(super) fn disconnected(&mut self, in_order: bool) {
        self.ended = self.key.filter(|_| in_order && self.is_open);
        self.opening = None;
        (self.key, self.is_open, self.send_queue) = (None, false, None);
        self.unread.clear();
        self.pings.clear();
    }

    /// Its session is open. One that begins is welcomed once its record is put: says whether that is to be done.
    pub(super) fn opens(&mut self, opened: Opened, now: Vec<Seq>) -> bool {
        let begins = self.told.is_none();
        if begins {
            self.opening = Some((opened, now));
        } else {
            self.opened(&opened, now);
        }
        begins
    }

    /// Whether what a session has acknowledged is this client's record now.
    pub(super) fn is_recorded(&self, key: SessionKey, is_last: bool) -> bool {
        let of = if is_last { self.ended } else { self.key };
        of == Some(key)
    }

    /// Its record is put.
    pub(super) fn recorded(&mut self, positions: Vec<Position>) {
        self.record = positions;
        if let Some((opened, now)) = self.opening.take() {
            self.opened(&opened, now);
        }
    }

    fn opened(&mut self, opened: &Opened, now: Vec<Seq>) {
        self.is_open = true;
        self.lives += 1;
        self.send_queue().start(Frame::text(b"{}"));
        if self.told.is_none() {
            let heads = opened.heads.iter();
            let told: BTreeMap<_, _> = heads.map(|(id, head)| (index(*id), *head)).collect();
            self.has = told.clone();
            self.told = Some((told, now));
        }
        for range in &opened.truncated {
            assert_eq!(range.reset, None);
            self.truncated(index(range.conversation_id), range.from_seq, range.head_seq);
        }
    }

    fn truncated(&mut self, c: usize, from: Seq, head: Seq) {
        let unread = self.unread.entry(c).or_insert((from, head, Vec::new()));
        unread.0 = unread.0.min(from);
        unread.1 = unread.1.max(head);
    }

    /// Takes some of what waits; says whether the hub is to be told that there is room.
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        let frames = self.send_queue().taken(bytes).unwrap();
        let wants_more = self.send_queue().wants_more();
        let is_ping = |frame: &Frame| frame.as_bytes()[0] == PING_OPCODE;
        self.idle = frames.iter().all(is_ping) && !wants_more;
        for frame in frames {
            if frame.as_bytes()[0] == PING_OPCODE {
                self.pings.push(frame.payload().to_vec());
            } else if let Ok(event) = serde_json::from_slice::<Event>(frame.payload()) {
                self.hear(event.c, event.seq);
            } else if let Ok(range) = serde_json::from_slice::<Later>(frame.payload()) {
                self.truncated(index(range.conversation_id), range.from_seq, range.head_seq);
            }
        }
        wants_more
    }

    fn hear(&mut self, c: usize, seq: Seq) {
        if let Some((_, head, behind)) = self.unread.get_mut(&c) {
            if seq > *head {
                behind.push(seq);
            } else {
                self.have(c, seq);
            }
            return;
        }
        self.have(c, seq);
    }

    fn have(&mut self, c: usize, seq: Seq) {
        let has = self.has.entry(c).or_default();
        let is_new = seq > *has;
        assert!(
            is_new || !(self.says_seen && self.lives > 1),
            "{c} {seq} again on the wire, after {has}"
        );
        self.repeats += usize::from(!is_new);
        if is_new {
            *has = seq;
            self.heard.entry(c).or_default().push(seq);
        }
    }

    /// Answers the pings, and pings are asked for.
    pub(super) fn pong(&mut self) {
        for ping in std::mem::take(&mut self.pings) {
            self.send_queue().acked(&ping);
        }
        if let Some(send_queue) = self.send_queue.as_ref().filter(|_| self.is_open) {
            send_queue.push_ping();
        }
    }

    /// Reads what was truncated; says whether there was any.
    pub(super) fn read_over(&mut self) -> bool {
        let unread = std::mem::take(&mut self.unread);
        let any = !unread.is_empty();
        for (c, (from, head, behind)) in unread {
            for seq in from..=head {
                if seq > self.has.get(&c).copied().unwrap_or_default() {
                    self.have(c, seq);
                }
            }
            for seq in behind {
                self.have(c, seq);
            }
        }
        any
    }

    pub(super) const fn never_left(&self) -> bool {
        self.lives == 1
    }

    pub(super) const fn has_all(&self) -> bool {
        self.idle || !self.is_open
    }

    /// The client heard of a conversation what it is owed, and nothing else.
    pub(super) fn check(&self, c: usize, log: &Log) {
        let (told, opened) = self.told.as_ref().expect("every session opens");
        let (told, opened) = (told.get(&c).copied(), opened[c]);
        let heard = self.heard.get(&c).cloned().unwrap_or_default();
        let memberships = log.memberships.get(&self.user).cloned().unwrap_or_default();
        let mut rest = heard.clone();
        for (joined, left) in memberships {
            let end = left.unwrap_or(log.head());
            let from = match told {
                Some(head) if joined <= head => head + 1,
                _ => joined,
            };
            let (own, others): (Vec<_>, Vec<_>) =
                rest.into_iter().partition(|seq| (from..=end).contains(seq));
            rest = others;
            let ended_before = left.is_some_and(|left| left <= told.unwrap_or(opened));
            // What began and ended while the session opened may be told or not; what was over before, not.
            let may_be_told = left.is_some_and(|left| left > self.noted[c]);
            if own.is_empty() && (from > end || ended_before) {
                continue;
            }
            assert!(
                !ended_before || may_be_told,
                "{self} in {c}: {heard:?}, {log:?}"
            );
            // Catching up may skip to the end of a membership that is over.
            let gap = own.iter().zip(from..).position(|(seq, due)| *seq != due);
            let is_all = gap.is_none() && own.last() == Some(&end);
            let skips = left.is_some() && self.lives > 1;
            let is_skipped =
                skips && own.last() == Some(&end) && gap.is_none_or(|at| at + 1 == own.len());
            assert!(
                is_all || is_skipped,
                "{self} in {c}, told {told:?}: {heard:?}, owed {from}..={end}, {log:?}"
            );
        }
        assert!(
            rest.is_empty(),
            "{self} in {c}, told {told:?}: {heard:?}, {log:?}"
        );
    }
}

impl std::fmt::Display for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "user {} ({} lives)", self.user, self.lives)
    }
}
