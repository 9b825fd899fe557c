//! What must be read from a worker: gaps in a conversation's order, and what a membership lacks.

use confab_protocol::ids::{ConversationId, Seq};
use confab_protocol::query::EncodedEvent;

use super::conversation::Gap;
use super::{AGAIN, Effect, GAP_PATIENCE, Hub, PRESSED, Read, Reader, Retry, SessionKey};
use crate::sequencer::{LogEvent, Verdict};

impl Hub {
    /// Reads what the membership lacks, unless that is on its way, or must wait.
    pub(super) fn catch_up(&mut self, id: ConversationId, key: SessionKey, joined: Seq) {
        let unsure = self
            .sessions
            .get(&key)
            .is_none_or(|session| session.is_unsure(id, self.epoch));
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
        let Some(entry) = conversation.entry(key, joined) else {
            return;
        };
        if entry.waiting && unsure {
            return;
        }
        entry.waiting = false;
        let up_to = entry.left.map_or(position, |left| left.min(position));
        if entry.reading || entry.cursor >= up_to {
            return;
        }
        entry.reading = true;
        if entry.outbox.is_pressed() {
            self.effects
                .push(Effect::Later(PRESSED, Retry::CatchUp(id, key, joined)));
            return;
        }
        let reader = Reader::Entry(key, joined);
        self.effects.push(Effect::Read(Read {
            tenant,
            conversation: id,
            after: entry.cursor,
            up_to,
            reader,
        }));
    }

    /// Events that were read have come.
    pub(crate) fn events_read(&mut self, read: &Read, events: Vec<EncodedEvent>) {
        let id = read.conversation;
        let nothing = events.is_empty();
        let events = events.into_iter().map(LogEvent::from);
        match read.reader {
            Reader::Sequencer => {
                for event in events {
                    let Some(conversation) = self.conversations.get_mut(&id) else {
                        return;
                    };
                    if let Verdict::Deliver(event) = conversation.sequencer.offer(event) {
                        self.deliver_all(id, Some(event));
                    }
                }
                self.gap_was_read(id, nothing);
            }
            Reader::Entry(key, joined) => {
                let Some(conversation) = self.conversations.get_mut(&id) else {
                    return;
                };
                let mut members = conversation.members;
                let Some(entry) = conversation.entry(key, joined) else {
                    return;
                };
                let ended = events.into_iter().find_map(|event| {
                    if members.lacks(event.seq) {
                        members.fill(event.membership_change().as_ref());
                    }
                    entry.replay(&event)
                });
                entry.reading = nothing && ended.is_none();
                conversation.members = members;
                if let Some(left) = ended {
                    if let Some(conversation) = self.conversations.get_mut(&id) {
                        conversation.remove(key, joined);
                    }
                    self.end_entries(id, &[(key, left)]);
                    self.forget_if_empty(id);
                } else if nothing {
                    self.effects
                        .push(Effect::Later(AGAIN, Retry::CatchUp(id, key, joined)));
                } else {
                    self.catch_up(id, key, joined);
                }
            }
        }
    }

    /// Events could not be read now.
    pub(crate) fn read_failed(&mut self, read: &Read) {
        let retry = match read.reader {
            Reader::Sequencer => Retry::Gap(read.conversation),
            Reader::Entry(key, joined) => Retry::CatchUp(read.conversation, key, joined),
        };
        self.effects.push(Effect::Later(AGAIN, retry));
    }

    /// The time of [`Effect::Later`] has come.
    pub(crate) fn retry(&mut self, retry: Retry) {
        match retry {
            Retry::Gap(id) => self.read_gap(id),
            Retry::CatchUp(id, key, joined) => {
                if let Some(entry) = self
                    .conversations
                    .get_mut(&id)
                    .and_then(|c| c.entry(key, joined))
                {
                    entry.reading = false;
                }
                self.catch_up(id, key, joined);
            }
            Retry::Ask(ask) => self.ask_again(ask),
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
            self.effects.push(Effect::Later(AGAIN, Retry::Gap(id)));
        } else {
            self.read_gap(id);
        }
    }
}
