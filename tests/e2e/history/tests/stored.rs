//! Tests of the checker with commands that are not stored as answered.

use super::*;

fn stored(change: impl FnOnce(&mut Ledger, &mut Vec<IssuedCommand>)) -> Vec<Violation> {
    let (mut ledger, mut commands) = (ledger(), commands());
    change(&mut ledger, &mut commands);
    check::stored(&ledger, &commands, &[])
}

fn log(ledger: &mut Ledger) -> &mut ConversationLog {
    ledger.logs.get_mut(&CHAT_ID).unwrap()
}

#[test]
fn answered_command_missing_from_store_is_found() {
    let alice = user("alice");
    let missing = stored(|_, commands| {
        commands.push(IssuedCommand {
            action: send(99),
            outcome: CommandOutcome::Done(None),
            ..commands[0].clone()
        });
    });
    assert_eq!(missing, [Violation::Lost(CHAT_ID, alice.clone(), send(99))]);
    let worker_retry = stored(|_, commands| commands[1].outcome = CommandOutcome::Done(Some(3)));
    assert_eq!(
        worker_retry,
        [Violation::Elsewhere(CHAT_ID, alice.clone(), send(2), 3)]
    );
    let role = LogAction::Role(user("bob"), "admin".to_owned());
    let changed = stored(|_, commands| {
        commands.push(IssuedCommand {
            action: role.clone(),
            outcome: CommandOutcome::Done(None),
            ..commands[0].clone()
        });
    });
    assert_eq!(changed, [Violation::Lost(CHAT_ID, alice, role)]);
}

/// What is wrong when alice gave bob these roles at these times, the first of which is stored and made him an admin.
fn roles(given: &[(&str, Millis)]) -> Vec<Violation> {
    stored(|ledger, commands| {
        let admin = LogAction::Role(user("bob"), "admin".to_owned());
        let change = row(11, EventType::ParticipantUpdated, admin, &[]);
        log(ledger).rows.push(change);
        let first = commands[0].clone();
        commands.extend(given.iter().map(|(role, at)| IssuedCommand {
            action: LogAction::Role(user("bob"), (*role).to_owned()),
            outcome: CommandOutcome::Done(None),
            time: *at..=at + 1_000,
            ..first.clone()
        }));
    })
}

#[test]
fn role_that_its_user_had_is_no_event() {
    let lost = |role: &str| {
        let action = LogAction::Role(user("bob"), role.to_owned());
        [Violation::Lost(CHAT_ID, user("alice"), action)]
    };
    let made = ("admin", 110_000);
    assert_eq!(roles(&[made]), []);
    assert_eq!(roles(&[made, ("admin", 130_000)]), []);
    assert_eq!(roles(&[("member", 100_000), made, ("member", 119_000)]), []);
    assert_eq!(roles(&[made, ("admin", 90_000)]), lost("admin"));
    assert_eq!(roles(&[made, ("member", 121_000)]), lost("member"));
}

#[test]
fn command_executed_twice_is_found() {
    let again = |ledger: &mut Ledger| {
        let rows = &mut log(ledger).rows;
        let row = LogRow {
            seq: 11,
            ..rows[9].clone()
        };
        rows.push(row);
    };
    let twice = stored(|ledger, _| again(ledger));
    assert_eq!(twice, [Violation::Twice(CHAT_ID, user("alice"), send(10))]);
    let repeated = stored(|ledger, commands| {
        again(ledger);
        commands[9].outcome = CommandOutcome::Unknown;
    });
    assert_eq!(
        repeated,
        [Violation::Twice(CHAT_ID, user("alice"), send(10))]
    );
}

#[test]
fn stored_refused_or_unrequested_command_is_found() {
    let code = Code::ConversationNotFound;
    let refused = stored(|_, commands| commands[9].outcome = CommandOutcome::Refused(code));
    let violation = Violation::RefusedAndStored(CHAT_ID, user("alice"), send(10), code);
    assert_eq!(refused, [violation]);
    let unasked = stored(|_, commands| drop(commands.pop()));
    assert_eq!(
        unasked,
        [Violation::Unasked(CHAT_ID, user("alice"), send(10))]
    );
}

#[test]
fn what_is_unknown_may_be_stored_or_not() {
    let kept = stored(|_, commands| commands[9].outcome = CommandOutcome::Unknown);
    let lost = stored(|ledger, commands| {
        commands[9].outcome = CommandOutcome::Unknown;
        log(ledger).rows.pop();
    });
    assert_eq!((kept, lost), (vec![], vec![]));
}

#[test]
fn log_gap_and_wrong_participants_are_found() {
    let gap = stored(|ledger, commands| {
        log(ledger).rows.remove(4);
        commands.remove(4);
    });
    assert_eq!(gap, [Violation::Numbers(CHAT_ID)]);
    let participants = stored(|ledger, _| {
        let bob = log(ledger).memberships.get_mut(&user("bob")).unwrap();
        bob[0].left = Some(10);
    });
    assert_eq!(participants, [Violation::Projection(CHAT_ID, user("bob"))]);
}
