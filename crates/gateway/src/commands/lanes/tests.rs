use std::iter::from_fn;

use confab_protocol::command::{Command, MarkRead, UpdateConversation};
use confab_protocol::ids::{ClientId, ConversationId};
use confab_protocol::json::JsonText;
use uuid::Uuid;

use super::super::submission::tests::{submission, submitted};
use super::*;

fn lanes(in_flight: usize) -> Lanes {
    Lanes::new(&CommandLimits {
        budget: Duration::from_secs(5),
        in_flight,
        waiting: 10_000,
        waiting_bytes: 1 << 30,
    })
}

fn later() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

fn update() -> Command {
    Command::UpdateConversation(UpdateConversation {
        conversation: ConversationId(Uuid::nil()),
        patch: JsonText::empty_object(),
        expected_version: None,
        client_id: ClientId(Uuid::nil()),
    })
}

fn other(tenant: &str, user: &str) -> Submission {
    submitted(tenant, user, vec![update()], later()).0
}

fn mark() -> Submission {
    let mark = Command::MarkRead(MarkRead::Messages(Vec::new()));
    submitted("t", "u", vec![mark], later()).0
}

fn counts(message: &Message) -> Vec<usize> {
    message.submissions.iter().map(Submission::count).collect()
}

/// Whose all commands are that may go.
fn owners(lanes: &mut Lanes, now: Instant) -> Vec<Owner> {
    let messages = from_fn(|| lanes.next(now));
    let submissions = messages.flat_map(|message| message.submissions);
    submissions
        .map(|submission| submission.owner().clone())
        .collect()
}

#[test]
fn what_waits_while_messages_are_on_the_way_goes_together() {
    let now = Instant::now();
    let mut lanes = lanes(1);
    lanes.push(Target::Any, submission(1, 10, later()).0);
    assert_eq!(counts(&lanes.next(now).unwrap()), [1]);
    lanes.push(Target::Any, submission(2, 10, later()).0);
    lanes.push(Target::Any, submission(3, 10, later()).0);
    assert!(lanes.next(now).is_none());
    lanes.finished(Target::Any, Class::Sends, &[], 0);
    assert_eq!(counts(&lanes.next(now).unwrap()), [2, 3]);
    assert_eq!(lanes.waiting(), 0);
}

#[test]
fn a_retry_has_a_message_of_its_own_for_its_time_is_another() {
    let now = Instant::now();
    let mut lanes = lanes(4);
    for attempts in [0, 1, 1, 0] {
        let (mut next, _outcomes) = submission(1, 10, later());
        next.attempts = attempts;
        lanes.push(Target::Any, next);
    }
    let messages: Vec<_> = from_fn(|| lanes.next(now)).collect();
    let sizes: Vec<_> = messages
        .iter()
        .map(|message| counts(message).len())
        .collect();
    assert_eq!(sizes, [1, 2, 1]);
}

#[test]
fn what_waits_for_a_worker_that_is_gone_can_go_elsewhere() {
    let now = Instant::now();
    let mut lanes = lanes(1);
    for _ in 0..3 {
        lanes.push(Target::Any, submission(1, limits::RPC, later()).0);
    }
    assert_eq!(counts(&lanes.next(now).unwrap()), [1]);
    lanes.push(Target::Any, mark());
    assert_eq!(lanes.abandon(Target::Any).len(), 3);
    assert_eq!(lanes.waiting(), 0);
    lanes.finished(Target::Any, Class::Sends, &[], 0);
    assert!(lanes.abandon(Target::Any).is_empty());
}

#[test]
fn a_message_fits_nats_and_late_commands_are_refused() {
    let now = Instant::now();
    let mut lanes = lanes(4);
    let (late, mut outcome) = submission(1, 10, now);
    lanes.push(Target::Any, late);
    for _ in 0..3 {
        lanes.push(Target::Any, submission(1, limits::RPC / 2, later()).0);
    }
    assert_eq!(counts(&lanes.next(now).unwrap()), [1]);
    assert_eq!(
        outcome.try_recv().unwrap()[0].as_ref().unwrap_err().code,
        Code::Overloaded
    );
    assert_eq!(counts(&lanes.next(now).unwrap()), [1]);
}

#[test]
fn sends_and_marks_wait_for_no_other_command() {
    let now = Instant::now();
    let mut lanes = lanes(1);
    for _ in 0..2 * MAX_OTHERS_ON_THE_WAY {
        lanes.push(Target::Any, other("t", "u"));
    }
    while lanes.next(now).is_some() {}
    lanes.push(Target::Any, mark());
    assert_eq!(lanes.next(now).unwrap().class, Class::Marks);
    lanes.push(Target::Any, mark());
    lanes.push(Target::Any, submission(1, 10, later()).0);
    let message = lanes.next(now).unwrap();
    assert_eq!((message.class, counts(&message)), (Class::Sends, vec![1]));
    assert!(lanes.next(now).is_none());
    // What has marks or sends among others is neither.
    let mixed = vec![update(), Command::MarkRead(MarkRead::Messages(Vec::new()))];
    assert_eq!(submitted("t", "u", mixed, later()).0.class(), Class::Others);
}

#[test]
fn other_commands_on_the_way_are_bounded_and_refilled_by_parts() {
    let now = Instant::now();
    let mut lanes = lanes(1);
    for n in 0..1500 {
        lanes.push(Target::Any, other(&format!("t{}", n % 9), "u"));
    }
    let owners = |lanes: &mut Lanes| owners(lanes, now);
    let first = owners(&mut lanes);
    assert_eq!(first.len(), MAX_OTHERS_ON_THE_WAY);
    assert!(lanes.next(now).is_none());
    lanes.finished(Target::Any, Class::Others, &first[..3], 9);
    assert_eq!(owners(&mut lanes).len(), 3);
    lanes.finished(Target::Any, Class::Others, &first[3..], 0);
    assert_eq!(owners(&mut lanes).len(), MAX_OTHERS_ON_THE_WAY - 3);
}

#[test]
fn no_user_takes_all_places_on_the_way() {
    let now = Instant::now();
    let mut lanes = lanes(1);
    for _ in 0..1500 {
        lanes.push(Target::Any, other("t", "flood"));
    }
    let flood = owners(&mut lanes, now);
    assert_eq!(flood.len(), MAX_OTHERS_OF_USER);
    // Others wait for none of its commands to end.
    for (tenant, user) in [("t", "of the tenant"), ("s", "of another")] {
        lanes.push(Target::Any, other(tenant, user));
        let next = owners(&mut lanes, now);
        assert_eq!(next.len(), 1);
        assert_eq!(next[0].user.as_str(), user);
    }
    for n in 0..100 {
        lanes.push(Target::Any, other("t", &n.to_string()));
    }
    assert_eq!(
        owners(&mut lanes, now).len(),
        MAX_OTHERS_OF_TENANT - MAX_OTHERS_OF_USER - 1
    );
    lanes.push(Target::Any, other("r", "of a third"));
    assert_eq!(owners(&mut lanes, now).len(), 1);
    lanes.finished(Target::Any, Class::Others, &flood, 0);
    assert_eq!(owners(&mut lanes, now).len(), MAX_OTHERS_OF_USER);
}

#[test]
fn commands_that_go_together_count_in_no_others_way() {
    let now = Instant::now();
    let mut lanes = lanes(1);
    let many = submitted("t", "flood", vec![update(); 500], later()).0;
    lanes.push(Target::Any, many);
    lanes.push(Target::Any, other("t", "flood"));
    assert_eq!(counts(&lanes.next(now).unwrap()), [500]);
    for n in 0..MAX_OTHERS_OF_TENANT {
        lanes.push(Target::Any, other("t", &n.to_string()));
    }
    let flood = other("t", "flood").owner().clone();
    let others = owners(&mut lanes, now);
    assert_eq!(others.len(), MAX_OTHERS_OF_TENANT - MAX_OTHERS_OF_USER);
    assert!(!others.contains(&flood));
    // Its own next one waits until it has less than its share on the way.
    let heard = vec![flood.clone(); 500 - MAX_OTHERS_OF_USER];
    lanes.finished(Target::Any, Class::Others, &heard, MAX_OTHERS_OF_USER);
    lanes.finished(Target::Any, Class::Others, &others, 0);
    assert!(!owners(&mut lanes, now).contains(&flood));
    let last = [flood.clone()];
    lanes.finished(Target::Any, Class::Others, &last, MAX_OTHERS_OF_USER - 1);
    assert!(owners(&mut lanes, now).contains(&flood));
}

#[test]
fn no_user_takes_all_that_may_wait() {
    let mut lanes = Lanes::new(&CommandLimits {
        budget: Duration::from_secs(5),
        in_flight: 1,
        waiting: 100,
        waiting_bytes: 1 << 30,
    });
    let owner = other("t", "flood").owner().clone();
    let mut admitted = 0;
    while lanes.admits(&owner) {
        lanes.push(Target::Any, other("t", "flood"));
        admitted += 1;
    }
    assert_eq!(admitted, 25);
    assert!(lanes.admits(other("t", "u").owner()));
    while lanes.next(Instant::now()).is_some() {}
    assert!(lanes.admits(&owner));
}
