//! Checks that each client receives every membership completely, in order and once (promise 4).
//!
//! Two things may be left out: what a `truncated` named, and, once a membership has ended, what lies between any point and the
//! event that ended it. A session that starts afresh counts from its heads, but where `seen` named a position.

use std::collections::BTreeMap;

use confab_protocol::ids::{ConversationId, Seq};

use super::check::Violation;
use super::ledger::{ConversationLog, Ledger, MemberInterval};
use super::record::{ClientAccount, Generation, ReceivedEvent, ReceivedItem};

/// What one client has of one conversation.
#[derive(Debug, Clone, Copy)]
struct Delivery {
    /// It has all that it is owed up to here; none where a fresh session has not said where it begins.
    held: Option<Seq>,
    /// The last seq of the present connection.
    last: Seq,
    /// What the present hello said that it holds.
    said: Option<Seq>,
    /// The first seq of a range that was named as truncated and has not been read.
    unread: Option<Seq>,
}

pub(super) fn check(ledger: &Ledger, account: &ClientAccount, found: &mut Vec<Violation>) {
    let mut walk = Walk {
        ledger,
        account,
        places: BTreeMap::new(),
        found,
    };
    for (number, generation) in account.generations.iter().enumerate() {
        walk.begin(generation, number == 0);
        for heard in &generation.heard {
            walk.hear(heard);
        }
    }
    walk.end();
}

struct Walk<'a> {
    ledger: &'a Ledger,
    account: &'a ClientAccount,
    places: BTreeMap<ConversationId, Delivery>,
    found: &'a mut Vec<Violation>,
}

impl<'a> Walk<'a> {
    fn begin(&mut self, generation: &Generation, is_first: bool) {
        let conversations = self.ledger.logs.keys().copied();
        for conversation in conversations {
            let head = generation
                .heads
                .as_ref()
                .and_then(|heads| heads.get(&conversation));
            let said = generation
                .said
                .as_ref()
                .and_then(|said| said.get(&conversation));
            let before = self.places.get(&conversation).copied();
            // Who has not said that it has read what was truncated is told of it again.
            let kept = before.and_then(|place| match place.unread {
                Some(unread) => Some(unread - 1),
                None => place.held,
            });
            let held = match (said, head) {
                (Some(said), _) => Some(*said),
                (None, _) if generation.resumed => kept,
                (None, Some(head)) => Some(*head),
                (None, None) => is_first.then_some(0),
            };
            let place = Delivery {
                held,
                last: 0,
                said: said.copied(),
                unread: None,
            };
            self.places.insert(conversation, place);
        }
    }

    fn hear(&mut self, heard: &ReceivedItem) {
        match heard {
            ReceivedItem::Event(told) => self.event(told),
            ReceivedItem::Receipt { .. }
            | ReceivedItem::Presence(_)
            | ReceivedItem::Snapshot { .. } => {}
            ReceivedItem::Truncated {
                conversation,
                from,
                head,
                reset,
            } => self.truncated(*conversation, *from, *head, *reset),
            ReceivedItem::Read {
                conversation,
                head,
                events,
            } => self.read(*conversation, *head, events),
        }
    }

    fn event(&mut self, told: &ReceivedEvent) {
        let user = &self.account.user;
        let Some(log) = self.log_of(told) else { return };
        let Some(place) = self.places.get_mut(&told.conversation) else {
            return;
        };
        let memberships = log.memberships_of(user);
        if told.seq <= place.last {
            self.found
                .push(Violation::Backwards(user.clone(), told.clone(), place.last));
            return;
        }
        place.last = told.seq;
        if told.seq > log.head() {
            // Newer than what was read, so that nothing is known of what lies before.
            place.held = Some(told.seq);
            return;
        }
        if !memberships.iter().any(|one| contains(one, told.seq)) {
            self.found
                .push(Violation::Foreign(user.clone(), told.clone()));
        }
        if place.said.is_some_and(|said| told.seq <= said) {
            self.found
                .push(Violation::Repeated(user.clone(), told.clone()));
        }
        let Some(held) = place.held else {
            place.held = Some(told.seq);
            return;
        };
        if let Some(missed) = missed(memberships, held, told.seq) {
            self.found
                .push(Violation::Gap(user.clone(), told.clone(), missed));
        }
        place.held = Some(held.max(told.seq));
    }

    /// The log that the event is in; nothing where there is none.
    fn log_of(&mut self, told: &ReceivedEvent) -> Option<&'a ConversationLog> {
        let ledger = self.ledger;
        let log = ledger.logs.get(&told.conversation);
        let row = log.and_then(|log| log.row(told.seq));
        let is_same = row.is_some_and(|row| {
            (row.id, row.r#type, &row.actor) == (told.id, told.r#type, &told.actor)
        });
        let is_newer = row.is_none() && !ledger.is_final;
        if !is_same && !is_newer {
            self.found.push(Violation::Altered(told.clone()));
            return None;
        }
        log
    }

    fn truncated(&mut self, conversation: ConversationId, from: Seq, head: Seq, reset: bool) {
        let user = &self.account.user;
        let log = self.ledger.logs.get(&conversation);
        let Some((log, place)) = log.zip(self.places.get_mut(&conversation)) else {
            return;
        };
        let held = place.held.unwrap_or(from - 1);
        // What is void begins anew.
        let held = if reset { from - 1 } else { held };
        let open = log.memberships_of(user).iter().filter_map(|one| {
            let first = one.joined.max(held + 1);
            (first < from && one.left.is_none_or(|left| left >= from)).then_some(first)
        });
        let ended = log.memberships_of(user).iter().filter_map(|one| {
            let left = one.left?;
            (left > held && left < from).then_some(left)
        });
        for missed in open.chain(ended) {
            self.found
                .push(Violation::Unnamed(user.clone(), conversation, missed));
        }
        place.unread = Some(place.unread.map_or(from, |unread| unread.min(from)));
        place.held = Some(held.max(head));
        place.last = place.last.max(head);
    }

    fn read(&mut self, conversation: ConversationId, head: Seq, events: &[ReceivedEvent]) {
        let mut due = events.first().map_or(head + 1, |told| told.seq);
        for told in events {
            if self.log_of(told).is_some() && told.seq != due {
                let user = self.account.user.clone();
                self.found
                    .push(Violation::HoleInLog(user, conversation, due));
            }
            due = told.seq + 1;
        }
        if due <= head {
            let user = self.account.user.clone();
            self.found
                .push(Violation::HoleInLog(user, conversation, due));
        }
        if let Some(place) = self.places.get_mut(&conversation) {
            place.unread = None;
        }
    }

    /// What is owed up to the heads.
    fn end(&mut self) {
        let user = &self.account.user;
        for (conversation, log) in &self.ledger.logs {
            let place = self.places.get(conversation);
            let Some(held) = place.and_then(|place| place.held) else {
                continue;
            };
            let missed = missed(log.memberships_of(user), held, log.head() + 1);
            if let Some(missed) = missed {
                self.found
                    .push(Violation::Late(user.clone(), *conversation, missed));
            }
        }
    }
}

fn contains(membership: &MemberInterval, seq: Seq) -> bool {
    (membership.joined..=membership.left.unwrap_or(Seq::MAX)).contains(&seq)
}

/// The first seq between two that was owed and may not be left out, when the next one told is `next`.
fn missed(memberships: &[MemberInterval], held: Seq, next: Seq) -> Option<Seq> {
    let missed = memberships.iter().filter_map(|one| {
        let first = one.joined.max(held + 1);
        match one.left {
            // From any point it may be skipped to the end.
            Some(left) if left == next => None,
            // The end itself is owed, whatever was skipped.
            Some(left) if left < next => (first <= left).then_some(left),
            _ => (first < next).then_some(first),
        }
    });
    missed.min()
}
