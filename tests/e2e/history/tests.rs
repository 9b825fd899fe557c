//! Tests of the checker: it finds each planted violation and nothing else.

use confab_protocol::error::Code;
use confab_protocol::event::EventType;
use confab_protocol::ids::{ClientId, ConversationId, EventId, Seq, UserId};
use uuid::Uuid;

mod presence;
mod stored;

use super::check::{self, Violation};
use super::ledger::{ConversationLog, Ledger, LogRow};
use super::record::{
    ClientAccount, CommandOutcome, Generation, IssuedCommand, LogAction, Millis, Positions,
    ReadMark, ReceivedEvent, ReceivedItem,
};

const CHAT_ID: ConversationId = ConversationId(Uuid::from_u128(1));

fn user(name: &str) -> UserId {
    name.parse().unwrap()
}

/// Alice's messages have their seq as client id.
fn send(seq: Seq) -> LogAction {
    LogAction::Send(ClientId(Uuid::from_u128(seq.into())))
}

fn row(seq: Seq, r#type: EventType, action: LogAction, joins: &[&str]) -> LogRow {
    LogRow {
        seq,
        id: EventId(Uuid::from_u128(seq.into())),
        r#type,
        actor: user("alice"),
        at: 10_000 * Millis::try_from(seq).unwrap(),
        action,
        joins: joins.iter().map(|name| user(name)).collect(),
    }
}

/// Ten seconds between two events: 1 alice and bob; 2, 3; 4 carol joins; 5, 6; 7 carol leaves; 8; 9 carol joins again; 10.
fn ledger() -> Ledger {
    let mut rows = vec![row(
        1,
        EventType::ConversationCreated,
        LogAction::Create,
        &["alice", "bob"],
    )];
    for seq in 2..=10 {
        let carol = user("carol");
        rows.push(match seq {
            4 | 9 => {
                let action = LogAction::Add(vec![carol]);
                row(seq, EventType::ParticipantAdded, action, &["carol"])
            }
            7 => row(
                seq,
                EventType::ParticipantRemoved,
                LogAction::Remove(carol),
                &[],
            ),
            _ => row(seq, EventType::MessageCreated, send(seq), &[]),
        });
    }
    let mut log = ConversationLog {
        rows,
        read: [(user("bob"), 6), (user("carol"), 9)].into(),
        ..ConversationLog::default()
    };
    log.memberships = log.derived();
    Ledger {
        logs: [(CHAT_ID, log)].into(),
        is_final: true,
    }
}

/// What alice asked for, as it was answered.
fn commands() -> Vec<IssuedCommand> {
    let rows = ledger().logs[&CHAT_ID].rows.clone();
    rows.into_iter()
        .map(|row| IssuedCommand {
            conversation: CHAT_ID,
            actor: row.actor,
            time: row.at..=row.at + 1_000,
            outcome: CommandOutcome::Done(
                matches!(row.action, LogAction::Send(_)).then_some(row.seq),
            ),
            action: row.action,
        })
        .collect()
}

fn told(seq: Seq) -> ReceivedEvent {
    let row = ledger().logs[&CHAT_ID].row(seq).unwrap().clone();
    ReceivedEvent {
        conversation: CHAT_ID,
        seq,
        id: row.id,
        r#type: row.r#type,
        actor: row.actor,
    }
}

fn hears(seqs: impl IntoIterator<Item = Seq>) -> Vec<ReceivedItem> {
    seqs.into_iter()
        .map(|seq| ReceivedItem::Event(told(seq)))
        .collect()
}

/// The first connection of a client who is a member nowhere yet.
fn first(heard: Vec<ReceivedItem>) -> Generation {
    Generation {
        said: Some(Positions::new()),
        heads: Some(Positions::new()),
        heard,
        ..Generation::default()
    }
}

/// A connection that goes on with the session.
fn resumed(said: Option<Seq>, heard: Vec<ReceivedItem>) -> Generation {
    Generation {
        resumed: true,
        said: said.map(|seq| [(CHAT_ID, seq)].into()),
        heard,
        ..Generation::default()
    }
}

fn account(name: &str, generations: Vec<Generation>) -> ClientAccount {
    ClientAccount {
        generations,
        ..ClientAccount::new(user(name))
    }
}

fn found(account: ClientAccount) -> Vec<Violation> {
    check::told(&ledger(), &account)
}

fn bob(generations: Vec<Generation>) -> Vec<Violation> {
    found(account("bob", generations))
}

fn carol(generations: Vec<Generation>) -> Vec<Violation> {
    found(account("carol", generations))
}

fn truncated(from: Seq, head: Seq) -> ReceivedItem {
    ReceivedItem::Truncated {
        conversation: CHAT_ID,
        from,
        head,
        reset: false,
    }
}

#[test]
fn a_flawless_history_has_no_violation() {
    let bob = account("bob", vec![first(hears(1..=10))]);
    let carol = account("carol", vec![first(hears((4..=7).chain(9..=10)))]);
    assert_eq!((found(bob), found(carol)), (vec![], vec![]));
    assert_eq!(check::stored(&ledger(), &commands(), &[]), []);
}

#[test]
fn connections_continue_where_previous_ended() {
    let generations = vec![
        first(hears(1..=3)),
        resumed(Some(3), hears(4..=8)),
        resumed(Some(8), hears(9..=10)),
    ];
    assert_eq!(bob(generations), []);
}

#[test]
fn loss_is_found_inside_between_and_at_end() {
    let lost = |seq, missed| Violation::Gap(user("bob"), told(seq), missed);
    assert_eq!(
        bob(vec![first(hears([1, 2, 4, 5, 6, 7, 8, 9, 10]))]),
        [lost(4, 3)]
    );
    let seam = vec![first(hears(1..=3)), resumed(Some(3), hears(5..=10))];
    assert_eq!(bob(seam), [lost(5, 4)]);
    let seam = vec![first(hears(1..=3)), resumed(None, hears(5..=10))];
    assert_eq!(bob(seam), [lost(5, 4)]);
    let end = bob(vec![first(hears(1..=8))]);
    assert_eq!(end, [Violation::Late(user("bob"), CHAT_ID, 9)]);
    assert!(end[0].is_late());
    assert_eq!(
        bob(vec![first(vec![])]),
        [Violation::Late(user("bob"), CHAT_ID, 1)]
    );
}

#[test]
fn duplicate_is_found_within_connection_and_after_seen() {
    let twice = vec![first(hears([1, 2, 2, 3, 4, 5, 6, 7, 8, 9, 10]))];
    assert_eq!(bob(twice), [Violation::Backwards(user("bob"), told(2), 2)]);
    let generations = vec![first(hears(1..=5)), resumed(Some(5), hears(5..=10))];
    assert_eq!(
        bob(generations),
        [Violation::Repeated(user("bob"), told(5))]
    );
}

#[test]
fn client_without_seen_may_receive_repeats() {
    let generations = vec![first(hears(1..=5)), resumed(None, hears(3..=10))];
    assert_eq!(bob(generations), []);
}

#[test]
fn another_order_is_found() {
    let generations = vec![first(hears([1, 2, 4, 3, 5, 6, 7, 8, 9, 10]))];
    let gap = Violation::Gap(user("bob"), told(4), 3);
    let backwards = Violation::Backwards(user("bob"), told(3), 4);
    assert_eq!(bob(generations), [gap, backwards]);
}

#[test]
fn what_lies_outside_of_the_membership_is_found() {
    for (seqs, foreign) in [
        (vec![3, 4, 5, 6, 7, 9, 10], 3),
        (vec![4, 5, 6, 7, 8, 9, 10], 8),
    ] {
        let violation = Violation::Foreign(user("carol"), told(foreign));
        assert_eq!(carol(vec![first(hears(seqs))]), [violation]);
    }
    let stranger = found(account("dave", vec![first(hears([2]))]));
    assert_eq!(stranger, [Violation::Foreign(user("dave"), told(2))]);
}

#[test]
fn another_event_than_the_logs_is_found() {
    for spoil in [
        |told: &mut ReceivedEvent| told.id = EventId(Uuid::from_u128(77)),
        |told: &mut ReceivedEvent| told.r#type = EventType::MessageEdited,
        |told: &mut ReceivedEvent| told.actor = user("bob"),
        |told: &mut ReceivedEvent| told.seq = 11,
        |told: &mut ReceivedEvent| told.conversation = ConversationId(Uuid::from_u128(2)),
    ] {
        let mut spoiled = told(10);
        spoil(&mut spoiled);
        let mut heard = hears(1..=10);
        heard.push(ReceivedItem::Event(spoiled.clone()));
        assert_eq!(bob(vec![first(heard)]), [Violation::Altered(spoiled)]);
    }
}

#[test]
fn ended_membership_may_skip_only_to_end() {
    for skipped in [vec![7, 9, 10], vec![4, 7, 9, 10], vec![4, 5, 7, 9, 10]] {
        assert_eq!(carol(vec![first(hears(skipped))]), []);
    }
    let short = carol(vec![first(hears([4, 6, 7, 9, 10]))]);
    assert_eq!(short, [Violation::Gap(user("carol"), told(6), 5)]);
    let endless = carol(vec![first(hears([4, 5, 6, 9, 10]))]);
    assert_eq!(endless, [Violation::Gap(user("carol"), told(9), 7)]);
    let generations = vec![first(hears([4, 5])), resumed(Some(5), hears([7, 9, 10]))];
    assert_eq!(carol(generations), []);
    let unskipped = carol(vec![first(hears([4, 5, 6, 7, 10]))]);
    assert_eq!(unskipped, [Violation::Gap(user("carol"), told(10), 9)]);
}

#[test]
fn only_truncated_range_may_be_missing() {
    let tell = |from, head, next| {
        let mut heard = vec![truncated(from, head)];
        heard.extend(hears(next..=10));
        vec![first(hears(1..=3)), resumed(Some(3), heard)]
    };
    assert_eq!(bob(tell(4, 8, 9)), []);
    assert_eq!(
        bob(tell(5, 8, 9)),
        [Violation::Unnamed(user("bob"), CHAT_ID, 4)]
    );
    assert_eq!(
        bob(tell(4, 8, 10)),
        [Violation::Gap(user("bob"), told(10), 9)]
    );
    // Nothing of the range is sent.
    let sent = Violation::Backwards(user("bob"), told(8), 8);
    assert_eq!(bob(tell(4, 8, 8)), [sent]);
}

#[test]
fn unread_truncation_must_be_told_again() {
    let cut = || vec![first(hears(1..=3)), resumed(None, vec![truncated(4, 8)])];
    let silent = [cut(), vec![resumed(None, hears(9..=10))]].concat();
    assert_eq!(bob(silent), [Violation::Gap(user("bob"), told(9), 4)]);
    let again = resumed(None, vec![truncated(4, 10)]);
    assert_eq!(bob([cut(), vec![again]].concat()), []);
}

#[test]
fn read_of_truncated_range_must_equal_log() {
    let read = |seqs: Vec<Seq>| {
        let events = seqs.into_iter().map(told).collect();
        let (conversation, head) = (CHAT_ID, 10);
        let read = ReceivedItem::Read {
            conversation,
            head,
            events,
        };
        bob(vec![
            first(hears(1..=3)),
            resumed(Some(3), vec![truncated(4, 10), read]),
        ])
    };
    assert_eq!(read((4..=10).collect()), []);
    let hole = Violation::HoleInLog(user("bob"), CHAT_ID, 6);
    assert_eq!(read(vec![4, 5, 7, 8, 9, 10]), [hole]);
}

#[test]
fn new_session_counts_from_heads_or_seen() {
    let fresh = |said: Option<Seq>, seqs: Vec<Seq>| {
        let generation = Generation {
            heads: Some([(CHAT_ID, 8)].into()),
            resumed: false,
            ..resumed(said, hears(seqs))
        };
        bob(vec![first(hears(1..=3)), generation])
    };
    assert_eq!(fresh(None, vec![9, 10]), []);
    assert_eq!(fresh(Some(3), (4..=10).collect()), []);
    let gap = |seq, missed| Violation::Gap(user("bob"), told(seq), missed);
    assert_eq!(fresh(None, vec![10]), [gap(10, 9)]);
    assert_eq!(fresh(Some(3), vec![9, 10]), [gap(9, 4)]);
}

#[test]
fn events_newer_than_ledger_are_not_judged() {
    let mut ledger = ledger();
    ledger.is_final = false;
    let newer = ReceivedEvent {
        seq: 12,
        ..told(10)
    };
    let mut heard = hears(1..=10);
    heard.push(ReceivedItem::Event(newer));
    let account = account("bob", vec![first(heard)]);
    assert_eq!(check::told(&ledger, &account), []);
}

#[test]
fn acknowledged_mark_that_is_seen_lower_is_found() {
    let with = |told: &[(&str, Seq)]| {
        let told = told.iter().map(|(name, up_to)| ReadMark {
            conversation: CHAT_ID,
            user: user(name),
            up_to: *up_to,
        });
        check::stored(&ledger(), &commands(), &told.collect::<Vec<_>>())
    };
    let good = [
        ("bob", 2),
        ("carol", 5),
        ("bob", 6),
        ("carol", 9),
        ("bob", 6),
    ];
    assert_eq!(with(&good), []);
    let lower = |name, seen, told| Violation::MarkLower(user(name), CHAT_ID, seen, told);
    let back = [("bob", 4), ("carol", 2), ("bob", 3)];
    assert_eq!(with(&back), [lower("bob", 3, 4)]);
    assert_eq!(with(&[("bob", 7)]), [lower("bob", 6, 7)]);
    assert_eq!(with(&[("dave", 1)]), [lower("dave", 0, 1)]);
}

#[test]
fn read_marks_backward_or_beyond_log_are_found() {
    let receipt = |name, up_to| ReceivedItem::Receipt {
        conversation: CHAT_ID,
        user: user(name),
        up_to,
    };
    let all = || hears(1..=10);
    let with = |signals: &[ReceivedItem]| bob(vec![first([all(), signals.to_vec()].concat())]);
    let good = [
        receipt("alice", 3),
        receipt("carol", 2),
        receipt("alice", 9),
    ];
    assert_eq!(with(&good), []);
    let violation = |name, up_to| Violation::Receipt(user("bob"), CHAT_ID, user(name), up_to);
    let back = [receipt("alice", 9), receipt("alice", 5)];
    assert_eq!(with(&back), [violation("alice", 5)]);
    assert_eq!(with(&[receipt("alice", 11)]), [violation("alice", 11)]);
    let stranger = Violation::Stranger(user("bob"), user("dave"));
    assert_eq!(with(&[receipt("dave", 2)]), [stranger]);
}
