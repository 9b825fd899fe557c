//! Read marks of one user and conversation that wait for each other become one write. No IO.

use confab_protocol::command::{Command, MarkRead, Request};
use confab_protocol::fair::{Counts, Owner};
use confab_protocol::ids::{ConversationId, Seq};
use rustc_hash::FxHashMap;

/// Requests that may wait for a write which has not begun.
const MAX_WAITING: usize = 16 * 1024;
/// The same of one tenant.
const MAX_WAITING_OF_TENANT: usize = MAX_WAITING / 2;
/// The same of one user.
const MAX_WAITING_OF_USER: usize = MAX_WAITING / 4;

/// Whose read mark, and where.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct PendingMark {
    owner: Owner,
    conversation: ConversationId,
}

impl PendingMark {
    /// The mark that a request is about, and how far it is to be moved; none where it names messages instead.
    pub(super) fn of(request: &Request) -> Option<(Self, Seq)> {
        let Command::MarkRead(MarkRead::UpTo { conversation, seq }) = request.command else {
            return None;
        };
        let mark = Self {
            owner: Owner::from(&request.caller),
            conversation,
        };
        Some((mark, seq))
    }
}

/// One write, and who waits for its answer.
#[derive(Debug)]
pub(super) struct MarkWrite<W> {
    pub(super) request: Request,
    pub(super) waiters: Vec<W>,
}

/// The marks that are being written; of each, what goes next.
#[derive(Debug)]
pub(super) struct MarkMerger<W> {
    on_the_way: FxHashMap<PendingMark, Option<MarkWrite<W>>>,
    /// Requests that wait for a write which has not begun.
    waiting: Counts,
}

impl<W> Default for MarkMerger<W> {
    fn default() -> Self {
        Self {
            on_the_way: FxHashMap::default(),
            waiting: Counts::default(),
        }
    }
}

impl<W> MarkMerger<W> {
    /// Whether one more request for a mark may wait: of all, of its tenant, of its user.
    pub(super) fn has_room(&self, mark: &PendingMark) -> bool {
        let Owner { tenant, user } = &mark.owner;
        let (of_tenant, of_user) = self.waiting.of(tenant, user);
        self.waiting.all() < MAX_WAITING
            && of_tenant < MAX_WAITING_OF_TENANT
            && of_user < MAX_WAITING_OF_USER
    }

    /// Takes a request to move `mark` to `seq`; gives the write that must begin now.
    pub(super) fn submit(
        &mut self,
        mark: PendingMark,
        seq: Seq,
        request: Request,
        waiter: W,
    ) -> Option<MarkWrite<W>> {
        let Some(next) = self.on_the_way.get_mut(&mark) else {
            self.on_the_way.insert(mark, None);
            let waiters = vec![waiter];
            return Some(MarkWrite { request, waiters });
        };
        self.waiting.add(&mark.owner);
        match next {
            Some(write) => {
                if PendingMark::of(&write.request).is_none_or(|(_, before)| before < seq) {
                    write.request = request;
                }
                write.waiters.push(waiter);
            }
            None => {
                let waiters = vec![waiter];
                *next = Some(MarkWrite { request, waiters });
            }
        }
        None
    }

    /// The mark's write was answered; gives the one that goes next.
    pub(super) fn answered(&mut self, mark: &PendingMark) -> Option<MarkWrite<W>> {
        let next = self.on_the_way.get_mut(mark)?.take();
        match &next {
            Some(write) => {
                for _ in &write.waiters {
                    self.waiting.remove(&mark.owner);
                }
            }
            None => {
                self.on_the_way.remove(mark);
            }
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use confab_protocol::command::Caller;
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn request(user: u8, seq: Seq) -> Request {
        Request {
            request_id: format!("{user}-{seq}"),
            traceparent: None,
            event: None,
            caller: Caller {
                tenant: "t".parse().unwrap(),
                user: format!("u{user}").parse().unwrap(),
                admin: false,
            },
            command: Command::MarkRead(MarkRead::UpTo {
                conversation: ConversationId(Uuid::from_u128(1)),
                seq,
            }),
        }
    }

    fn submit(merging: &mut MarkMerger<Seq>, user: u8, seq: Seq) -> Option<MarkWrite<Seq>> {
        let request = request(user, seq);
        let (mark, seq) = PendingMark::of(&request).unwrap();
        merging.submit(mark, seq, request, seq)
    }

    fn mark(user: u8) -> PendingMark {
        PendingMark::of(&request(user, 0)).unwrap().0
    }

    fn seq(write: &MarkWrite<Seq>) -> Seq {
        PendingMark::of(&write.request).unwrap().1
    }

    #[test]
    fn marks_during_write_form_next_one() {
        let mut merging = MarkMerger::default();
        assert_eq!(submit(&mut merging, 1, 3).unwrap().waiters, [3]);
        assert!(submit(&mut merging, 1, 9).is_none());
        assert!(submit(&mut merging, 1, 5).is_none());
        assert!(submit(&mut merging, 2, 1).is_some(), "another user's");
        assert_eq!(merging.waiting.all(), 2);
        let next = merging.answered(&mark(1)).unwrap();
        assert_eq!((seq(&next), next.waiters), (9, vec![9, 5]));
        assert_eq!(merging.waiting.all(), 0);
        assert!(merging.answered(&mark(1)).is_none());
        assert!(submit(&mut merging, 1, 10).is_some());
    }

    #[test]
    fn one_users_marks_leave_room_for_others() {
        let mut merging = MarkMerger::default();
        submit(&mut merging, 1, 1);
        let mut taken = 0;
        while merging.has_room(&mark(1)) {
            submit(&mut merging, 1, taken + 2);
            taken += 1;
        }
        assert_eq!(taken, MAX_WAITING_OF_USER as u64);
        assert!(merging.has_room(&mark(2)));
        merging.answered(&mark(1));
        assert!(merging.has_room(&mark(1)), "what waited is being written");
    }

    proptest! {
        #[test]
        fn every_mark_is_answered_by_covering_write(steps in prop::collection::vec((0..2_u8, prop::option::of(1..100_u64)), 1..100)) {
            let mut merging = MarkMerger::default();
            let mut on_the_way: FxHashMap<u8, MarkWrite<Seq>> = FxHashMap::default();
            let (mut asked, mut answered) = (0, 0);
            let rest = (0..200).map(|n| (n % 2, None));
            for (user, step) in steps.into_iter().chain(rest) {
                let begun = match step {
                    Some(seq) => {
                        asked += 1;
                        submit(&mut merging, user, seq)
                    }
                    None => {
                        let Some(write) = on_the_way.remove(&user) else { continue };
                        prop_assert!(write.waiters.iter().all(|waited| *waited <= seq(&write)));
                        answered += write.waiters.len();
                        merging.answered(&mark(user))
                    }
                };
                if let Some(write) = begun {
                    prop_assert!(on_the_way.insert(user, write).is_none(), "two at once");
                }
            }
            prop_assert_eq!(asked, answered);
            prop_assert!(merging.on_the_way.is_empty() && merging.waiting.all() == 0);
        }
    }
}
