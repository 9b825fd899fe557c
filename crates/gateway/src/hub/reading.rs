//! What must be read from a worker: gaps in a conversation's order, and what a membership lacks.

use confab_protocol::ids::{ConversationId, Seq, TenantId, UserId};
use confab_protocol::query::EncodedEvent;

use super::conversation::{Conversation, Gap};
use super::subscription::PushOutcome;
use super::{Effect, GAP_PATIENCE, RETRY_DELAY, Read, Reader, Retry, Shard};
use crate::account::SessionKey;
use crate::delivery::sequencer::{LogEvent, SequenceVerdict};

/// What became of events that were replayed to a subscription.
#[derive(Debug, Default)]
struct Replayed {
    events: u64,
    /// Bytes of what was missed while the session was away.
    missed: usize,
    /// Where the membership ended.
    ended: Option<Seq>,
    no_room: bool,
    /// Whether it is known only since then that the membership lasts.
    acked: bool,
}

/// Replays events to a subscription, up to where the order here stands.
fn replay<'a>(
    conversation: &mut Conversation,
    (id, key, joined): (ConversationId, SessionKey, Seq),
    user: &UserId,
    position: Seq,
    events: impl Iterator<Item = &'a LogEvent>,
) -> Replayed {
    let mut members = conversation.members;
    let mut replayed = Replayed::default();
    if let Some(subscription) = conversation.entry(key, joined) {
        let was_unproven = subscription.unacked().is_some();
        for event in events.take_while(|event| event.seq <= position) {
            if members.lacks(event.seq) {
                members.fill(event.membership_change().as_ref());
            }
            let was_missed = event.seq <= subscription.replay_to();
            match subscription.replay(id, event, user) {
                PushOutcome::NotNext => continue,
                PushOutcome::NoRoom => {
                    replayed.no_room = true;
                    break;
                }
                PushOutcome::Ended => replayed.ended = Some(event.seq),
                PushOutcome::Queued => {}
            }
            replayed.events += 1;
            replayed.missed += if was_missed { event.bytes() } else { 0 };
            if replayed.ended.is_some() {
                break;
            }
        }
        replayed.acked = was_unproven && subscription.listens();
    }
    conversation.members = members;
    replayed
}

impl Shard {
    /// Reads what the membership lacks, unless that is on its way, or must wait.
    pub(super) fn catch_up(&mut self, id: ConversationId, key: SessionKey, joined: Seq) {
        let Some(session) = self.sessions.get(&key) else {
            return;
        };
        let unsure = session.is_unsure(id, self.epoch);
        let Some(conversation) = self.conversations.get_mut(&id) else {
            return;
        };
        let (tenant, position) = (
            conversation.tenant.clone(),
            conversation.sequencer.position(),
        );
        if conversation.first_of(key) != Some(joined) {
            return;
        }
        let Some(subscription) = conversation.entry(key, joined) else {
            return;
        };
        if subscription.is_waiting() && unsure {
            return;
        }
        subscription.set_waiting(false);
        if subscription.is_reading() || subscription.cursor >= subscription.goal(position) {
            return;
        }
        if subscription.send_queue().is_pressed() {
            self.is_behind(id, key);
            return;
        }
        let cursor = subscription.cursor;
        let held = self.window.behind(id, cursor, conversation.head());
        let (place, user) = ((id, key, joined), &session.account.user);
        let held = held.into_iter().flatten();
        let replayed = replay(conversation, place, user, position, held);
        self.replays.window += replayed.events;
        if !self.is_over(id, key, joined, replayed) {
            self.read_rest(id, key, joined, tenant);
        }
    }

    /// What the window may not serve is read from a worker, up to where it may.
    fn read_rest(&mut self, id: ConversationId, key: SessionKey, joined: Seq, tenant: TenantId) {
        let Some(conversation) = self.conversations.get_mut(&id) else {
            return;
        };
        let position = conversation.sequencer.position();
        let Some(subscription) = conversation.entry(key, joined) else {
            return;
        };
        let (after, goal) = (subscription.cursor, subscription.goal(position));
        if subscription.is_reading() || after >= goal {
            return;
        }
        subscription.set_reading(true);
        let held_from = self.window.held_from(id, conversation.head());
        let before_held = held_from.map(|from| from.saturating_sub(1));
        let up_to = before_held
            .filter(|up_to| *up_to > after)
            .map_or(goal, |up_to| up_to.min(goal));
        self.effects.push(Effect::Read(Read {
            tenant,
            conversation: id,
            after,
            up_to,
            reader: Reader::Subscription(key, joined),
        }));
    }

    /// What became of a replay; says whether nothing more is to be done for the subscription now.
    fn is_over(
        &mut self,
        id: ConversationId,
        key: SessionKey,
        joined: Seq,
        replayed: Replayed,
    ) -> bool {
        let Replayed {
            missed,
            ended,
            no_room,
            acked,
            ..
        } = replayed;
        if acked {
            self.is_proven(key);
        }
        if no_room {
            self.is_behind(id, key);
        }
        if let Some(left) = ended {
            if let Some(conversation) = self.conversations.get_mut(&id) {
                conversation.remove(key, joined);
            }
            self.end_entries(id, &[(key, left)]);
            self.forget_if_empty(id);
        }
        if missed > 0 {
            self.replayed(key, missed);
        }
        no_room || ended.is_some()
    }

    /// Events that were read have come.
    pub(crate) fn events_read(&mut self, read: &Read, events: Vec<EncodedEvent>) {
        let id = read.conversation;
        let nothing = events.is_empty();
        let events = events.into_iter().map(LogEvent::from);
        match read.reader {
            Reader::Sequencer => {
                for event in events {
                    // A worker of before this field names no target: what is not noted is a hole.
                    if event.target.is_some() || !event.r#type.changes_message() {
                        self.window.note(id, &event, self.now);
                    }
                    let Some(conversation) = self.conversations.get_mut(&id) else {
                        return;
                    };
                    if let SequenceVerdict::Deliver(event) = conversation.sequencer.offer(event) {
                        self.deliver_all(id, Some(event));
                    }
                }
                self.gap_was_read(id, nothing);
            }
            Reader::Subscription(key, joined) => {
                let (Some(session), Some(conversation)) =
                    (self.sessions.get(&key), self.conversations.get_mut(&id))
                else {
                    return;
                };
                let position = conversation.sequencer.position();
                let Some(subscription) = conversation.entry(key, joined) else {
                    return;
                };
                subscription.set_reading(false);
                let events: Vec<_> = events.collect();
                let (place, user) = ((id, key, joined), &session.account.user);
                let replayed = replay(conversation, place, user, position, events.iter());
                self.replays.worker += replayed.events;
                if self.is_over(id, key, joined, replayed) {
                    return;
                }
                if nothing {
                    self.entry_waits(id, key, joined);
                    self.effects
                        .push(Effect::Later(RETRY_DELAY, Retry::CatchUp(id, key, joined)));
                } else {
                    self.catch_up(id, key, joined);
                }
            }
        }
    }

    /// Nobody else is to read for the subscription until it is tried again.
    fn entry_waits(&mut self, id: ConversationId, key: SessionKey, joined: Seq) {
        let there = self.conversations.get_mut(&id);
        if let Some(subscription) = there.and_then(|there| there.entry(key, joined)) {
            subscription.set_reading(true);
        }
    }

    /// Events could not be read now.
    pub(crate) fn read_failed(&mut self, read: &Read) {
        let retry = match read.reader {
            Reader::Sequencer => Retry::Gap(read.conversation),
            Reader::Subscription(key, joined) => Retry::CatchUp(read.conversation, key, joined),
        };
        self.effects.push(Effect::Later(RETRY_DELAY, retry));
    }

    /// The time of [`Effect::Later`] has come.
    pub(crate) fn retry(&mut self, retry: Retry) {
        match retry {
            Retry::Gap(id) => self.read_gap(id),
            Retry::CatchUp(id, key, joined) => {
                if let Some(subscription) = self
                    .conversations
                    .get_mut(&id)
                    .and_then(|c| c.entry(key, joined))
                {
                    subscription.set_reading(false);
                }
                self.catch_up(id, key, joined);
            }
            Retry::MembershipQuery(ask) => self.ask_again(ask),
            Retry::Open(_) | Retry::OpenWithout(_) => {}
        }
    }

    pub(super) fn watch_gap(&mut self, id: ConversationId) {
        if let Some(conversation) = self.conversations.get_mut(&id)
            && conversation.sequencer.has_gap()
            && conversation.gap == Gap::None
        {
            conversation.gap = Gap::Watched;
            self.effects
                .push(Effect::Later(GAP_PATIENCE, Retry::Gap(id)));
        }
    }

    fn read_gap(&mut self, id: ConversationId) {
        let Some(conversation) = self.conversations.get_mut(&id) else {
            return;
        };
        let Some((after, up_to)) = conversation.sequencer.missing() else {
            conversation.gap = Gap::None;
            return;
        };
        let tenant = conversation.tenant.clone();
        self.effects.push(Effect::Read(Read {
            tenant,
            conversation: id,
            after,
            up_to,
            reader: Reader::Sequencer,
        }));
    }

    fn gap_was_read(&mut self, id: ConversationId, nothing: bool) {
        if nothing {
            self.effects
                .push(Effect::Later(RETRY_DELAY, Retry::Gap(id)));
        } else {
            self.read_gap(id);
        }
    }
}
