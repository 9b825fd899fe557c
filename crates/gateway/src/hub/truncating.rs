//! What a session missed while it was away and is named in `truncated`: where the budget of all shards is spent, the rest.

use confab_protocol::frame::{ServerFrame, Truncated};
use confab_protocol::ids::{ConversationId, Seq};

use super::Shard;
use super::session::TruncatedRange;
use crate::account::SessionKey;

impl Shard {
    /// So many bytes were replayed to a session; when that is too much, the rest is named.
    pub(super) fn replayed(&mut self, key: SessionKey, bytes: usize) {
        let session = self.sessions.get(&key);
        if session.is_some_and(|session| !session.replay.take(bytes)) {
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
            let Some(subscription) = conversation.entry(key, joined) else {
                continue;
            };
            let replay_to = subscription.replay_to();
            if subscription.cursor >= replay_to {
                continue;
            }
            // The snapshot that told the membership proves nothing behind its head, where it may have ended since.
            let (cursor, left) = (subscription.cursor, subscription.left());
            let acked = left.map_or(replay_to, |left| replay_to.min(left - 1));
            subscription.replays_no_more(acked.max(cursor));
            // Also of one that ended: what lies between the range and the end is told.
            if acked > cursor {
                self.truncate_later(key, (id, joined), (cursor, acked), None);
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
        let kept = session.kept.entry(id).or_insert(TruncatedRange {
            joined,
            position,
            head,
        });
        (kept.position, kept.head) = (kept.position.min(position), head);
        self.replays.truncated += 1;
        session.send_queue.tell(&ServerFrame::Truncated(Truncated {
            conversation_id: id,
            from_seq: if reset.is_some() { 1 } else { position + 1 },
            head_seq: head,
            reset,
        }));
    }
}
