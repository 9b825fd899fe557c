//! What a session missed while it was away: how much of it is replayed, and what is named in `truncated` instead.

use confab_protocol::frame::{ServerFrame, Truncated};
use confab_protocol::ids::{ConversationId, Seq};
use confab_protocol::query::Membership;
use rustc_hash::FxHashMap;

use super::entry::Begin;
use super::{Hub, Kept, SessionKey, Start};

/// What a session missed.
#[derive(Debug, Default)]
pub(super) struct Missed {
    /// Where each membership begins to be heard.
    pub(super) begins: Vec<(Membership, Begin)>,
    pub(super) truncated: Vec<Truncated>,
    pub(super) kept: FxHashMap<ConversationId, Kept>,
    /// How many events are replayed.
    pub(super) replayed: u64,
}

/// A membership with a range to replay.
#[derive(Debug, Clone, Copy)]
struct Range {
    membership: Membership,
    after: Seq,
    /// What it would put on the wire, as far as that is known.
    weight: usize,
}

impl Range {
    const fn events(&self) -> u64 {
        self.membership.head - self.after
    }
}

impl Missed {
    /// The range is to be read over HTTP; the membership goes on behind it.
    fn truncate(&mut self, range: Range) {
        let Range {
            membership, after, ..
        } = range;
        self.name(membership, after, None);
    }

    /// The client holds what is not there: nothing of it counts.
    fn reset(&mut self, membership: Membership) {
        self.name(membership, membership.joined - 1, Some(true));
    }

    fn name(&mut self, membership: Membership, position: Seq, reset: Option<bool>) {
        let Membership {
            conversation, head, ..
        } = membership;
        self.truncated.push(Truncated {
            conversation_id: conversation,
            from_seq: if reset.is_some() { 1 } else { position + 1 },
            head_seq: head,
            reset,
        });
        let kept = Kept {
            joined: membership.joined,
            position,
            head,
        };
        self.kept.insert(conversation, kept);
        self.begins.push((membership, Begin::at(head)));
    }

    fn replay(&mut self, membership: Membership, cursor: Seq, up_to: Seq) {
        self.replayed += up_to - cursor;
        let begin = Begin {
            replay_to: up_to,
            ..Begin::at(cursor)
        };
        self.begins.push((membership, begin));
    }
}

impl Hub {
    /// Decides what is replayed of what is `owed` from behind a seq each: whole conversations, and of those that are too much
    /// the longest are left out. Of a membership that ended only its end is told.
    pub(super) fn missed(&self, start: &Start, owed: Vec<(Membership, Seq)>) -> Missed {
        let held = start.held();
        let mut missed = Missed::default();
        let mut ranges = Vec::new();
        for (membership, cursor) in owed {
            let goes_on = start.resumed || held.contains_key(&membership.conversation);
            match membership.left {
                Some(left) if goes_on => missed.replay(membership, cursor.max(left - 1), left),
                None if goes_on && cursor > membership.head => missed.reset(membership),
                None if goes_on && cursor < membership.head => {
                    let (id, head) = (membership.conversation, membership.head);
                    ranges.push(Range {
                        membership,
                        after: cursor,
                        weight: self.weight(id, cursor, head),
                    });
                }
                _ => missed.begins.push((membership, Begin::at(cursor))),
            }
        }
        ranges.sort_unstable_by_key(|range| std::cmp::Reverse(range.events()));
        let mut events: u64 = ranges.iter().map(Range::events).sum();
        let fits = |range: &Range| {
            let fits = events <= self.limits.events;
            events -= if fits { 0 } else { range.events() };
            fits
        };
        let (mut ranges, longest): (Vec<_>, Vec<_>) = ranges.into_iter().partition(fits);
        ranges.sort_unstable_by_key(|range| std::cmp::Reverse(range.weight));
        let mut bytes: usize = ranges.iter().map(|range| range.weight).sum();
        let fits = |range: &Range| {
            let fits = bytes <= self.limits.bytes;
            bytes -= if fits { 0 } else { range.weight };
            fits
        };
        let (ranges, heaviest): (Vec<_>, Vec<_>) = ranges.into_iter().partition(fits);
        for range in longest.into_iter().chain(heaviest) {
            missed.truncate(range);
        }
        for range in ranges {
            missed.replay(range.membership, range.after, range.membership.head);
        }
        missed
            .begins
            .sort_unstable_by_key(|(m, _)| (m.conversation, m.joined));
        missed
    }

    /// What a range would put on the wire, as far as the window knows; of one that is too long anyway it does not matter.
    fn weight(&self, id: ConversationId, after: Seq, head: Seq) -> usize {
        if head - after > self.limits.events {
            return 0;
        }
        let weight = self.window.weight(id, after, head);
        weight.unwrap_or_default()
    }

    /// So many bytes were replayed to a session; when that is too much, the rest is named.
    pub(super) fn replayed(&mut self, key: SessionKey, bytes: usize) {
        let Some(session) = self.sessions.get_mut(&key) else {
            return;
        };
        let left = session.replay_bytes.checked_sub(bytes);
        session.replay_bytes = left.unwrap_or_default();
        if left.is_none() {
            self.truncate_rest(key);
        }
    }

    /// What a session still has to replay is named instead.
    fn truncate_rest(&mut self, key: SessionKey) {
        let session = self.sessions.get(&key);
        let ids: Vec<_> = session
            .into_iter()
            .flat_map(|session| session.conversations.iter())
            .collect();
        for id in ids {
            let Some(conversation) = self.conversations.get_mut(&id) else {
                continue;
            };
            let Some(joined) = conversation.first_of(key) else {
                continue;
            };
            let Some(entry) = conversation.entry(key, joined) else {
                continue;
            };
            let replay_to = entry.replay_to();
            if entry.cursor >= replay_to {
                continue;
            }
            // The snapshot that told the membership proves nothing behind its head, where it may have ended since.
            let (cursor, left) = (entry.cursor, entry.left());
            let proven = left.map_or(replay_to, |left| replay_to.min(left - 1));
            entry.replays_no_more(proven.max(cursor));
            // Also of one that ended: what lies between the range and the end is told.
            if proven > cursor {
                self.truncate_later(key, (id, joined), (cursor, proven), None);
            }
            self.catch_up(id, key, joined);
        }
    }

    /// Names a range that is not sent.
    pub(super) fn truncate_later(
        &mut self,
        key: SessionKey,
        (id, joined): (ConversationId, Seq),
        (position, head): (Seq, Seq),
        reset: Option<bool>,
    ) {
        let Some(session) = self.sessions.get_mut(&key) else {
            return;
        };
        let kept = session.kept.entry(id).or_insert(Kept {
            joined,
            position,
            head,
        });
        (kept.position, kept.head) = (kept.position.min(position), head);
        self.replays.truncated += 1;
        session.outbox.tell(&ServerFrame::Truncated(Truncated {
            conversation_id: id,
            from_seq: if reset.is_some() { 1 } else { position + 1 },
            head_seq: head,
            reset,
        }));
    }
}
