use confab_protocol::error::Code;
use confab_protocol::ids::ConversationId;

use super::super::testing::{hash, owner, record};
use super::*;
use crate::delivery::encoding::Encoding;

const TEST_LIFETIMES: RecordLifetimes = RecordLifetimes {
    window: Duration::from_secs(900),
    period: Duration::from_secs(300),
};

fn id(n: u128) -> SessionId {
    SessionId(Uuid::from_u128(n))
}

fn send_queue() -> Arc<SendQueue> {
    Arc::new(SendQueue::new(Encoding::Json, 1000))
}

fn is_closed(send_queue: &SendQueue) -> bool {
    send_queue.taken(1) == Err(Code::SessionReplaced)
}

fn position(seq: u64) -> Position {
    Position {
        conversation: ConversationId(Uuid::nil()),
        joined: 1,
        seq,
    }
}

struct Case {
    table: Table,
    now: Instant,
}

impl Case {
    fn new() -> Self {
        Self {
            table: Table::new(TEST_LIFETIMES),
            now: Instant::now(),
        }
    }

    /// A session of generation 1 by token 1, whose record stands under revision 10.
    fn live(&mut self, n: u128) -> (LeaseHold, Arc<SendQueue>) {
        let record = record("alice", "phone", hash(1));
        let hold = LeaseHold {
            session: id(n),
            take_over: record.owner.take_over,
        };
        let send_queue = send_queue();
        let live = (Arc::clone(&send_queue), SessionKey(1));
        let (waits, mut stands) = oneshot::channel();
        self.table.begin(id(n), record, live, waits, self.now);
        assert_eq!(self.table.unsettled(), 1);
        self.write(n);
        assert!(stands.try_recv().is_ok());
        assert_eq!(self.table.unsettled(), 0);
        (hold, send_queue)
    }

    /// Takes the one record that is due, and stores it.
    fn write(&mut self, n: u128) -> Entry {
        let due = self.table.take_due(self.now).expect("something is due");
        assert_eq!(due.hold.session, id(n));
        let snapshot = self.table.snapshot(due.hold).unwrap();
        self.table.stored(due.hold, 10, self.now, 0.0);
        snapshot.entry
    }

    fn nothing_due(&mut self) {
        assert_eq!(self.table.take_due(self.now), None);
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    /// Session n is taken over here, by token 1 for token 2.
    fn take(&mut self, n: u128, generation: u64) -> Option<(Arc<SendQueue>, usize)> {
        let owner = owner(generation);
        self.table.taking(id(n), owner, [hash(2), hash(1)]);
        self.take_begun(n, generation)
    }

    fn take_begun(&mut self, n: u128, generation: u64) -> Option<(Arc<SendQueue>, usize)> {
        let record = Record {
            owner: owner(generation),
            former: Some(hash(1)),
            ..record("alice", "phone", hash(2))
        };
        let send_queue = send_queue();
        let next = self.now + TEST_LIFETIMES.period;
        let taken = self
            .table
            .taken(id(n), record, 20, Arc::clone(&send_queue), next);
        Some((send_queue, taken?.close()))
    }

    fn let_go(&mut self, n: u128, token: u8) -> Answer {
        let (answer, replaced) = self.table.let_go(id(n), &hash(token), self.now);
        let _closed = replaced.close();
        answer
    }
}

fn positions(entry: &Entry) -> Vec<Position> {
    match entry {
        Entry::Live(record) => record.positions.clone(),
        Entry::Ended { .. } => panic!("it ended"),
    }
}

#[test]
fn live_record_is_rewritten_every_period() {
    let mut case = Case::new();
    let (hold, _outbox) = case.live(1);
    case.nothing_due();
    for seq in 1..4 {
        case.pass(300);
        let due = case.table.take_due(case.now).unwrap();
        assert_eq!(due.key, Some(SessionKey(1)));
        case.table
            .positions(hold, SessionKey(1), vec![position(seq)]);
        let snapshot = case.table.snapshot(hold).unwrap();
        assert_eq!(positions(&snapshot.entry), [position(seq)]);
        assert_eq!(snapshot.revision, 10);
        case.table.stored(hold, 10, case.now, 1.0);
        case.nothing_due();
    }
    case.table.leaving(hold);
    case.table.positions(hold, SessionKey(1), Vec::new());
    let entry = case.table.entry(id(1)).unwrap();
    assert_eq!(
        positions(&entry),
        [position(3)],
        "the hub knows nothing more"
    );
}

#[test]
fn ended_record_is_written_and_kept() {
    let mut case = Case::new();
    let (hold, _outbox) = case.live(1);
    case.table.ended(hold, Some(vec![position(7)]), case.now);
    assert_eq!((case.table.unsettled(), case.table.counts()), (1, (0, 1)));
    assert_eq!(positions(&case.write(1)), [position(7)]);
    // The connection says it once more when it is dropped.
    case.table.ended(hold, None, case.now);
    assert_eq!(case.table.unsettled(), 0);
    case.pass(899);
    case.nothing_due();
    assert!(case.table.entry(id(1)).is_some());
    case.pass(1);
    case.nothing_due();
    assert!(case.table.entry(id(1)).is_none());
    assert_eq!(case.table.counts(), (0, 0));
    assert_eq!(case.table.next_due(), None);
}

#[test]
fn final_end_is_written_then_forgotten() {
    let mut case = Case::new();
    let (hold, _outbox) = case.live(1);
    let (waits, mut written) = oneshot::channel();
    case.table.finished(hold, waits, case.now);
    assert_eq!(case.let_go(1, 1), Answer::Refused);
    assert!(matches!(
        case.table.entry(id(1)),
        Some(Entry::Ended { generation: 1, .. })
    ));
    assert!(matches!(case.write(1), Entry::Ended { generation: 1, .. }));
    assert!(written.try_recv().is_ok());
    assert_eq!(case.table.counts(), (0, 0));
    assert_eq!((case.table.unsettled(), case.table.next_due()), (0, None));
}

#[test]
fn change_during_write_is_written_again() {
    let mut case = Case::new();
    let (hold, _outbox) = case.live(1);
    case.pass(300);
    let due = case.table.take_due(case.now).unwrap();
    let _begun = case.table.snapshot(due.hold).unwrap();
    case.table.ended(hold, Some(vec![position(9)]), case.now);
    case.nothing_due();
    case.table.stored(hold, 11, case.now, 0.0);
    assert_eq!(case.table.unsettled(), 1);
    assert_eq!(positions(&case.write(1)), [position(9)]);
    assert_eq!(case.table.unsettled(), 0);
    case.nothing_due();
}

#[test]
fn failed_write_is_due_again() {
    let mut case = Case::new();
    let (hold, _outbox) = case.live(1);
    case.table.ended(hold, None, case.now);
    let due = case.table.take_due(case.now).unwrap();
    let later = case.now + Duration::from_secs(1);
    case.table.put_off(due.hold, later);
    case.nothing_due();
    assert_eq!(case.table.unsettled(), 1);
    case.pass(1);
    case.write(1);
    assert_eq!(case.table.unsettled(), 0);
}

#[test]
fn former_token_is_good_until_welcome_acked() {
    let mut case = Case::new();
    let (_, first) = case.live(1);
    let (second, closed) = case.take(1, 2).unwrap();
    assert_eq!(closed, 1);
    assert!(is_closed(&first));
    assert_eq!(case.let_go(1, 3), Answer::Refused);
    assert!(!is_closed(&second));
    assert_eq!(case.let_go(1, 1), Answer::Granted);
    assert!(is_closed(&second));
    // A pong that comes now proves nothing: the welcome was given up.
    let hold = LeaseHold {
        session: id(1),
        take_over: owner(2).take_over,
    };
    case.table.acked(hold);
    assert_eq!(case.let_go(1, 1), Answer::Granted);

    let (third, closed) = case.take(1, 3).unwrap();
    assert_eq!(closed, 0);
    let take_over = owner(3).take_over;
    case.table.acked(LeaseHold { take_over, ..hold });
    assert_eq!(case.let_go(1, 1), Answer::Refused);
    assert!(!is_closed(&third));
    assert_eq!(case.let_go(1, 2), Answer::Granted, "the newest is good");
    assert_eq!(case.let_go(9, 1), Answer::Unknown);
}

#[test]
fn proof_holds_also_when_the_connection_has_ended() {
    let mut case = Case::new();
    let _connection = case.take(1, 2).unwrap();
    let hold = LeaseHold {
        session: id(1),
        take_over: owner(2).take_over,
    };
    case.table.acked(hold);
    case.table.ended(hold, None, case.now);
    assert_eq!(case.let_go(1, 1), Answer::Refused);
    assert_eq!(case.let_go(1, 2), Answer::Granted);
}

#[test]
fn pending_takeover_can_be_lost() {
    let mut case = Case::new();
    for (lost_by, is_lost) in [
        (None, false),
        (Some(Err(owner(3))), true),
        (Some(Err(owner(1))), false),
        (Some(Ok(1)), true),
        (Some(Ok(7)), false),
    ] {
        case.table.taking(id(1), owner(2), [hash(2), hash(1)]);
        match lost_by {
            Some(Ok(token)) => {
                let answer = case.let_go(1, token);
                assert_eq!(answer == Answer::Granted, is_lost);
            }
            Some(Err(owner)) => {
                let session = id(1);
                assert_eq!(case.table.fence(Fence { session, owner }).close(), 0);
            }
            None => {}
        }
        assert_eq!(case.take_begun(1, 2).is_none(), is_lost);
        let owner = owner(99);
        let fence = Fence {
            session: id(1),
            owner,
        };
        assert_eq!(case.table.fence(fence).close(), usize::from(!is_lost));
    }
    let hold = LeaseHold {
        session: id(1),
        take_over: owner(2).take_over,
    };
    case.table.taking(id(1), owner(2), [hash(2), hash(1)]);
    case.table.not_taken(hold);
    assert_eq!(case.let_go(1, 1), Answer::Unknown);
}

#[test]
fn later_owner_fences_earlier_writes() {
    let mut case = Case::new();
    let _former = case.take(1, 2).unwrap();
    let (send_queue, _) = case.take(1, 3).unwrap();
    let session = id(1);
    for (generation, closed) in [(1, 0), (3, 0), (4, 1), (4, 0)] {
        let owner = owner(generation);
        assert_eq!(case.table.fence(Fence { session, owner }).close(), closed);
    }
    assert!(is_closed(&send_queue));
    let hold = LeaseHold {
        session,
        take_over: owner(3).take_over,
    };
    case.table.ended(hold, Some(vec![position(1)]), case.now);
    assert_eq!((case.table.unsettled(), case.table.counts()), (0, (0, 0)));
    case.pass(9999);
    case.nothing_due();
}

#[test]
fn replaced_connection_changes_nothing() {
    let mut case = Case::new();
    let (first, _) = case.live(1);
    let (second, _) = case.take(1, 2).unwrap();
    case.table.ended(first, Some(vec![position(5)]), case.now);
    case.table.presence(first, PresenceStatus::Away);
    assert_eq!(case.table.counts(), (1, 0));
    let Some(Entry::Live(record)) = case.table.entry(id(1)) else {
        panic!("it is gone");
    };
    assert_eq!(record.presence, PresenceStatus::Online);
    assert_eq!(record.positions, []);
    assert_eq!(case.table.lost(first).close(), 0);
    assert!(!is_closed(&second));
}

#[test]
fn all_are_written_again_at_a_pace() {
    let mut case = Case::new();
    for n in 0..4000 {
        case.live(n);
    }
    case.table.sweep(case.now);
    let mut written = 0;
    for _ in 0..3 {
        while let Some(due) = case.table.take_due(case.now) {
            case.table.stored(due.hold, 11, case.now, 0.5);
            written += 1;
        }
        assert!(written <= 4000);
        case.pass(1);
    }
    assert_eq!(written, 4000);
    case.nothing_due();
    // Of one whose write is on its way another write follows.
    case.pass(300);
    let due = case.table.take_due(case.now).unwrap();
    let _begun = case.table.snapshot(due.hold).unwrap();
    case.table.sweep(case.now);
    case.table.stored(due.hold, 12, case.now, 0.5);
    let mut again = std::iter::from_fn(|| case.table.take_due(case.now + Duration::from_secs(2)));
    assert!(again.any(|other| other.hold == due.hold));
}

#[test]
fn user_keeps_fifty_ended_and_all_live() {
    let mut case = Case::new();
    let live: Vec<_> = (0..60).map(|n| case.live(n).0).collect();
    for hold in &live[..50] {
        case.table.ended(*hold, None, case.now);
        case.write(hold.session.0.as_u128());
        case.pass(1);
    }
    case.table.ended(live[50], None, case.now);
    assert_eq!(case.table.counts(), (9, 50));
    assert!(case.table.entry(id(0)).is_none());
    assert!(case.table.entry(id(59)).is_some());
}

#[test]
fn final_end_is_written_after_any_outage() {
    let mut case = Case::new();
    let live: Vec<_> = (0..60).map(|n| case.live(n).0).collect();
    let (waits, _written) = oneshot::channel();
    case.table.finished(live[0], waits, case.now);
    for hold in &live[1..] {
        case.table.ended(*hold, None, case.now);
    }
    assert_eq!(case.table.counts(), (1, 50));
    // The bucket keeps a live session's record for the window and two periods after its last put.
    let _last = case.table.take_due(case.now).unwrap();
    case.table.put_off(live[0], case.now);
    case.pass(1499);
    let due = std::iter::from_fn(|| case.table.take_due(case.now));
    assert_eq!(due.map(|due| due.hold).collect::<Vec<_>>(), [live[0]]);
    assert_eq!(case.table.counts(), (1, 0));
    case.table.put_off(live[0], case.now);
    case.pass(1);
    case.nothing_due();
    assert_eq!(case.table.counts(), (0, 0));
}

#[test]
fn displaced_sessions_are_deleted_from_bucket() {
    let mut case = Case::new();
    for n in 0..60 {
        let (hold, _outbox) = case.live(n);
        case.table.ended(hold, None, case.now);
        case.write(n);
    }
    let dropped: Vec<_> = std::iter::from_fn(|| case.table.take_dropped()).collect();
    let expected: Vec<_> = (0..10).map(|n| (id(n), 10)).collect();
    assert_eq!(dropped, expected);
}

#[test]
fn session_without_durable_record_leaves_no_trace() {
    let mut case = Case::new();
    let record = record("alice", "phone", hash(1));
    let hold = LeaseHold {
        session: id(1),
        take_over: record.owner.take_over,
    };
    let (waits, mut stands) = oneshot::channel();
    let live = (send_queue(), SessionKey(1));
    case.table.begin(id(1), record, live, waits, case.now);
    let (waits, mut written) = oneshot::channel();
    case.table.finished(hold, waits, case.now);
    assert!(stands.try_recv().is_err() && written.try_recv().is_err());
    assert_eq!((case.table.unsettled(), case.table.counts()), (0, (0, 0)));
    case.nothing_due();
}
