//! Where sessions stand: what their clients have acknowledged, and what they say that they have.

use std::cmp::Reverse;

use confab_bus::records::Position;
use confab_protocol::ids::{ConversationId, Seq};
use confab_protocol::query::Membership;

use super::Shard;
use super::subscription::StartPosition;
use crate::account::SessionKey;

/// Memberships that are over of which a record says so, at most: of others that ended lately the end is told again, which a
/// client ignores. With all conversations that a user can be in, a record fits one message of NATS twice.
const MAX_ENDED_MEMBERSHIPS: usize = 1000;
/// Those of the conversations that were made last.
fn newest(mut positions: Vec<Position>, most: usize) -> Vec<Position> {
    if positions.len() > most {
        positions.select_nth_unstable_by_key(most, |one| Reverse(one.conversation));
        positions.truncate(most);
    }
    positions
}

/// Puts what the shards say of a session together.
pub(crate) fn gathered(parts: Vec<Vec<Position>>) -> Vec<Position> {
    match <[_; 1]>::try_from(parts) {
        Ok([positions]) => positions,
        Err(parts) => kept_apart(parts.into_iter().flatten()),
    }
}

/// All positions in memberships, and of those that are over only so many.
fn kept_apart(positions: impl Iterator<Item = Position>) -> Vec<Position> {
    let (over, mut positions): (Vec<_>, Vec<_>) = positions.partition(|one| one.joined == 0);
    positions.extend(newest(over, MAX_ENDED_MEMBERSHIPS));
    // They are kept with the record for as long as the session lasts.
    positions.shrink_to_fit();
    positions
}

impl Shard {
    /// What a session's client has acknowledged of each conversation. Those whose membership ended, its end included, are
    /// named with a joining of 0, so that nothing is told of them again, unless they are very many.
    pub(crate) fn positions(&self, key: SessionKey) -> Vec<Position> {
        let Some(session) = self.sessions.get(&key) else {
            return Vec::new();
        };
        let entered = session.conversations.iter().filter_map(|id| {
            let subscription = self.conversations.get(&id)?.first_entry(key)?;
            Some((id, subscription.joined(), subscription.cursor))
        });
        let is_over = |id: ConversationId| !session.conversations.contains(id);
        let ended = session.ended.iter().filter(|(id, _)| is_over(*id));
        let cursors: Vec<_> = entered
            .chain(ended.map(|(id, left)| (id, 0, left)))
            .collect();
        // Behind the cursors: what is pushed is unacked before it counts in a position.
        let unacked = session.send_queue.unacked();
        let position = |conversation: ConversationId, joined: Seq, cursor: Seq| {
            let (mut joined, mut seq) = match unacked.get(&conversation) {
                Some((joined, first)) => (*joined, cursor.min(first - 1)),
                None => (joined, cursor),
            };
            if let Some(kept) = session.kept.get(&conversation) {
                seq = seq.min(kept.position);
                // Its end may be among what the client puts behind the range until that is read.
                joined = kept.joined;
            }
            Position {
                conversation,
                joined,
                seq,
            }
        };
        let positions = cursors
            .into_iter()
            .map(|(id, joined, cursor)| position(id, joined, cursor));
        kept_apart(positions)
    }

    /// A session's client says what it has: that counts up to what was queued for it or named in `truncated`.
    pub(crate) fn seen(
        &mut self,
        key: SessionKey,
        seen: impl IntoIterator<Item = (ConversationId, Seq)>,
    ) {
        let Some(session) = self.sessions.get_mut(&key) else {
            return;
        };
        for (id, seq) in seen {
            let is_entered = session.conversations.contains(id);
            let conversation = self.conversations.get(&id).filter(|_| is_entered);
            let subscription = conversation.and_then(|conversation| conversation.first_entry(key));
            let cursor = subscription.map(|subscription| subscription.cursor);
            let Some(bound) = cursor.or_else(|| session.ended.get(id)) else {
                continue;
            };
            session.send_queue.seen(id, seq.min(bound));
            if let Some(kept) = session.kept.get_mut(&id) {
                kept.position = kept.position.max(seq);
                if kept.position >= kept.head {
                    session.kept.remove(&id);
                }
            }
        }
    }

    /// In how many conversations a session has memberships.
    pub(crate) fn conversations_of(&self, key: SessionKey) -> usize {
        let session = self.sessions.get(&key);
        session.map_or(0, |session| session.conversations.len())
    }

    /// In how many conversations events wait for room in a session's send queue.
    pub(crate) fn behind_of(&self, key: SessionKey) -> usize {
        let session = self.sessions.get(&key);
        session.map_or(0, |session| session.behind.len())
    }

    /// A session's send queue has no room for the next event of a conversation.
    pub(super) fn is_behind(&mut self, id: ConversationId, key: SessionKey) {
        if let Some(session) = self.sessions.get_mut(&key) {
            session.behind.insert(id);
        }
    }

    /// A session's send queue has room for what was held back.
    pub(crate) fn drained(&mut self, key: SessionKey) {
        let session = self.sessions.get_mut(&key);
        let behind = session.map(|session| std::mem::take(&mut session.behind));
        for id in behind.unwrap_or_default() {
            self.release(id, key);
        }
    }

    /// A worker's word on a membership by which a session opened without one: what the client claims to hold and is not there is void.
    pub(super) fn check_claim(&mut self, key: SessionKey, membership: &Membership) {
        let Membership {
            conversation: id,
            joined,
            head,
            left,
            ..
        } = *membership;
        let session = self.sessions.get_mut(&key);
        let claim = session.and_then(|session| session.claims.get(&id).copied());
        if claim.is_none_or(|claim| claim <= head) || left.is_some() {
            return;
        }
        if let Some(session) = self.sessions.get_mut(&key) {
            session.claims.insert(id, head);
        }
        let there = self.conversations.get_mut(&id);
        if let Some(subscription) = there.and_then(|there| there.entry(key, joined)) {
            subscription.skips_none(head);
        }
        self.truncate_later(key, (id, joined), (joined - 1, head), Some(true));
    }

    /// A membership that the session may not know is entered from its joining on, or from what the client claims to have of it,
    /// as far as the snapshot that told it proves that it had not ended there. One of which the client claims the end is over.
    pub(super) fn enter_unknown(&mut self, key: SessionKey, membership: Membership) {
        let Membership {
            conversation: id,
            joined,
            left,
            head,
            ..
        } = membership;
        let Some(session) = self.sessions.get_mut(&key) else {
            return;
        };
        let claim = session.claims.get(&id).copied().unwrap_or_default();
        let there = self.conversations.get_mut(&id);
        let is_entered = there.is_some_and(|there| there.entry(key, joined).is_some());
        if left.is_some_and(|left| left <= claim) && !is_entered {
            session.note_ended(&[membership]);
            return;
        }
        let acked = left.map_or(head, |left| left - 1);
        let begin = StartPosition {
            skip: claim,
            ..StartPosition::at(claim.min(acked).max(joined - 1))
        };
        self.enter(key, membership, begin);
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn newest_ended_memberships_are_named() {
        let position = |n: u128| Position {
            conversation: ConversationId(Uuid::from_u128(n)),
            joined: 0,
            seq: 1,
        };
        let shuffled: Vec<_> = (0..100).map(|n| position(n * 37 % 100)).collect();
        let mut left = newest(shuffled.clone(), 10);
        left.sort_unstable_by_key(|one| one.conversation);
        let last: Vec<_> = (90..100).map(position).collect();
        assert_eq!(left, last);
        assert_eq!(newest(shuffled.clone(), 100), shuffled);
    }
}
