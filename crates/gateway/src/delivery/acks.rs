//! What a client has acknowledged: each ping marks what was queued before it, and its pong proves that (a WebSocket is
//! ordered).

use std::collections::VecDeque;

use confab_protocol::ids::{ConversationId, Seq};
use rustc_hash::FxHashMap;

use crate::delivery::send_queue::Place;

/// Pings whose pong has not come, with marks of their own; a later one takes the marks of the last of them with it.
const MAX_PENDING_PINGS: usize = 8;

/// By conversation: the first event that is not acknowledged, with its membership's joining.
pub(crate) type Unacked = FxHashMap<ConversationId, (Seq, Seq)>;

/// Places kept for marks that a pong has made void, so that the next ones cost no allocation.
const PLACES_KEPT: usize = 16;

/// The events of one membership. Each has its own mark, since between two of them the conversation goes on without the client.
#[derive(Debug, Clone, Copy)]
struct AckMark {
    conversation: ConversationId,
    joined: Seq,
    first: Seq,
    last: Seq,
}

impl AckMark {
    const fn membership(&self) -> (ConversationId, Seq) {
        (self.conversation, self.joined)
    }
}

/// In order of conversation and joining.
type AckMarks = Vec<AckMark>;

/// What was queued and is not acknowledged yet.
#[derive(Debug, Default)]
pub(crate) struct Acks {
    /// Oldest first: what was queued before each ping, and behind the ping before it.
    pinged: VecDeque<(u64, AckMarks)>,
    /// Queued behind the last ping.
    since: AckMarks,
    /// Empty, with places.
    spare: AckMarks,
    pings: u64,
    /// The ping behind the welcome, until it is acked.
    welcome: Option<u64>,
}

impl Acks {
    /// An event is queued.
    pub(crate) fn queued(&mut self, place: Place) {
        let Place {
            conversation,
            joined,
            seq,
        } = place;
        let membership = (conversation, joined);
        match self
            .since
            .binary_search_by_key(&membership, AckMark::membership)
        {
            Ok(at) => {
                if let Some(mark) = self.since.get_mut(at) {
                    mark.last = seq;
                }
            }
            Err(at) => self.since.insert(
                at,
                AckMark {
                    conversation,
                    joined,
                    first: seq,
                    last: seq,
                },
            ),
        }
    }

    /// A ping is queued; gives its payload.
    pub(crate) fn ping(&mut self) -> [u8; 8] {
        self.pings += 1;
        if !self.since.is_empty() {
            let marks = std::mem::replace(&mut self.since, std::mem::take(&mut self.spare));
            self.pinged.push_back((self.pings, marks));
        }
        if self.pinged.len() > MAX_PENDING_PINGS
            && let (Some((ping, mut later)), Some((last, marks))) =
                (self.pinged.pop_back(), self.pinged.back_mut())
        {
            *last = ping;
            marks.append(&mut later);
            // Two that are in order, one behind the other: this sort merges them, and the earlier mark of a membership stays first.
            marks.sort_by_key(AckMark::membership);
            marks.dedup_by(|later, mark| {
                let same = later.membership() == mark.membership();
                if same {
                    mark.last = later.last;
                }
                same
            });
        }
        self.pings.to_be_bytes()
    }

    /// The ping behind the welcome is queued, before all events; gives its payload.
    pub(crate) fn welcome(&mut self) -> [u8; 8] {
        self.pings += 1;
        self.welcome = Some(self.pings);
        self.pings.to_be_bytes()
    }

    /// A pong came with this payload; says whether it proves the welcome for the first time.
    pub(crate) fn pong(&mut self, payload: &[u8]) -> bool {
        let Ok(payload) = payload.try_into() else {
            return false;
        };
        let ping = u64::from_be_bytes(payload);
        if ping > self.pings {
            return false;
        }
        while self.pinged.front().is_some_and(|(first, _)| *first <= ping) {
            let acked = self.pinged.pop_front();
            self.spare = acked.map(|(_, marks)| marks).unwrap_or_default();
        }
        self.spare.clear();
        self.spare.shrink_to(PLACES_KEPT);
        self.welcome.take_if(|welcome| *welcome <= ping).is_some()
    }

    /// The client says that it has a conversation up to `seq`.
    pub(crate) fn seen(&mut self, id: ConversationId, seq: Seq) {
        let marks = self.pinged.iter_mut().map(|(_, marks)| marks);
        for marks in marks.chain([&mut self.since]) {
            let from = marks.partition_point(|mark| mark.conversation < id);
            let to = marks.partition_point(|mark| mark.conversation <= id);
            let own = marks.extract_if(from..to, |mark| {
                mark.first = seq.saturating_add(1).max(mark.first);
                mark.first > mark.last
            });
            own.for_each(drop);
        }
    }

    /// What is not acked.
    pub(crate) fn unacked(&self) -> Unacked {
        let mut all = Unacked::default();
        let marks = self.pinged.iter().map(|(_, marks)| marks);
        for mark in marks.chain([&self.since]).flatten() {
            let (joined, first) = all
                .entry(mark.conversation)
                .or_insert((mark.joined, mark.first));
            if mark.first < *first {
                (*joined, *first) = (mark.joined, mark.first);
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn id(n: u128) -> ConversationId {
        ConversationId(Uuid::from_u128(n))
    }

    fn queue(acks: &mut Acks, n: u128, seq: Seq) {
        acks.queued(Place {
            conversation: id(n),
            joined: 1,
            seq,
        });
    }

    fn first(acks: &Acks, n: u128) -> Option<Seq> {
        acks.unacked().get(&id(n)).map(|(_, first)| *first)
    }

    #[test]
    fn pong_acks_what_preceded_its_ping() {
        let mut acks = Acks::default();
        let welcome = acks.welcome();
        queue(&mut acks, 1, 5);
        queue(&mut acks, 1, 6);
        let ping = acks.ping();
        queue(&mut acks, 1, 7);
        queue(&mut acks, 2, 3);
        assert!(acks.pong(&welcome), "the welcome");
        assert_eq!(first(&acks, 1), Some(5), "it stood before all events");
        assert!(!acks.pong(&ping));
        assert_eq!((first(&acks, 1), first(&acks, 2)), (Some(7), Some(3)));
        assert!(!acks.pong(&99_u64.to_be_bytes()), "never sent");
        assert!(!acks.pong(b"x"));
        assert_eq!(first(&acks, 2), Some(3));
        queue(&mut acks, 1, 8);
        acks.seen(id(1), 7);
        assert_eq!(first(&acks, 1), Some(8));
        let ping = acks.ping();
        acks.pong(&ping);
        assert!(acks.unacked().is_empty());
    }

    #[test]
    fn seen_of_ended_membership_acks_no_later_one() {
        let mut acks = Acks::default();
        let mut queue = |joined, seq| {
            let conversation = id(1);
            acks.queued(Place {
                conversation,
                joined,
                seq,
            });
        };
        for (joined, seq) in [(1, 9), (1, 10), (60, 60), (60, 61)] {
            queue(joined, seq);
        }
        let at = |acks: &Acks| acks.unacked().get(&id(1)).copied();
        assert_eq!(at(&acks), Some((1, 9)));
        acks.seen(id(1), 9);
        acks.ping();
        assert_eq!(at(&acks), Some((1, 10)));
        acks.seen(id(1), 10);
        assert_eq!(at(&acks), Some((60, 60)));
        acks.seen(id(1), 60);
        assert_eq!(at(&acks), Some((60, 61)));
        acks.seen(id(1), 61);
        assert_eq!(at(&acks), None);
    }

    #[test]
    fn shared_marks_are_kept_by_membership() {
        let mut acks = Acks::default();
        for seq in 1..=20 {
            for n in [3, 1, 2] {
                queue(&mut acks, n, seq);
            }
            acks.ping();
        }
        for seq in [8, 12, 19] {
            acks.seen(id(2), seq);
            let firsts = [1, 2, 3].map(|n| first(&acks, n));
            assert_eq!(firsts, [Some(1), Some(seq + 1), Some(1)]);
        }
        acks.seen(id(2), 20);
        assert_eq!([1, 2, 3].map(|n| first(&acks, n)), [Some(1), None, Some(1)]);
        acks.pong(&20_u64.to_be_bytes());
        assert!(acks.unacked().is_empty());
    }

    #[test]
    fn marks_are_few_however_long_no_pong_comes() {
        let mut acks = Acks::default();
        let mut pings = Vec::new();
        for seq in 1..=100 {
            queue(&mut acks, 1, seq);
            pings.push(acks.ping());
        }
        assert!(acks.pinged.len() <= MAX_PENDING_PINGS);
        acks.pong(&pings[50]);
        let first = first(&acks, 1).unwrap();
        assert!(first <= 52, "{first}");
        acks.pong(&pings[99]);
        assert!(acks.unacked().is_empty());
    }
}
