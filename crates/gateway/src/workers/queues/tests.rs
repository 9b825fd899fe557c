use std::iter::from_fn;

use confab_protocol::command::{Command, MarkRead, UpdateConversation};
use confab_protocol::ids::{ClientId, ConversationId};
use confab_protocol::json::JsonText;
use uuid::Uuid;

use super::super::submission::tests::{submission, submitted};
use super::*;

fn queues(in_flight: usize) -> WorkerQueues {
    WorkerQueues::new(&CommandLimits {
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
fn owners(queues: &mut WorkerQueues, now: Instant) -> Vec<Owner> {
    let messages = from_fn(|| queues.next(now));
    let submissions = messages.flat_map(|message| message.submissions);
    submissions
        .map(|submission| submission.owner().clone())
        .collect()
}

#[test]
fn commands_waiting_together_go_together() {
    let now = Instant::now();
    let mut queues = queues(1);
    queues.push(Target::Any, submission(1, 10, later()).0);
    assert_eq!(counts(&queues.next(now).unwrap()), [1]);
    queues.push(Target::Any, submission(2, 10, later()).0);
    queues.push(Target::Any, submission(3, 10, later()).0);
    assert!(queues.next(now).is_none());
    queues.ended(Target::Any, Class::Sends, &LargeParts::default());
    assert_eq!(counts(&queues.next(now).unwrap()), [2, 3]);
    assert_eq!(queues.waiting(), 0);
}

#[test]
fn retry_has_its_own_message() {
    let now = Instant::now();
    let mut queues = queues(4);
    for attempts in [0, 1, 1, 0] {
        let (mut next, _outcomes) = submission(1, 10, later());
        next.attempts = attempts;
        queues.push(Target::Any, next);
    }
    let messages: Vec<_> = from_fn(|| queues.next(now)).collect();
    let sizes: Vec<_> = messages
        .iter()
        .map(|message| counts(message).len())
        .collect();
    assert_eq!(sizes, [1, 2, 1]);
}

#[test]
fn commands_of_gone_worker_go_elsewhere() {
    let now = Instant::now();
    let mut queues = queues(1);
    for _ in 0..3 {
        queues.push(Target::Any, submission(1, limits::MAX_RPC_BYTES, later()).0);
    }
    assert_eq!(counts(&queues.next(now).unwrap()), [1]);
    queues.push(Target::Any, mark());
    assert_eq!(queues.abandon(Target::Any).len(), 3);
    assert_eq!(queues.waiting(), 0);
    queues.ended(Target::Any, Class::Sends, &LargeParts::default());
    assert!(queues.abandon(Target::Any).is_empty());
}

#[test]
fn message_fits_nats_and_late_commands_fail() {
    let now = Instant::now();
    let mut queues = queues(4);
    let (late, mut outcome) = submission(1, 10, now);
    queues.push(Target::Any, late);
    for _ in 0..3 {
        queues.push(
            Target::Any,
            submission(1, limits::MAX_RPC_BYTES / 2, later()).0,
        );
    }
    assert_eq!(counts(&queues.next(now).unwrap()), [1]);
    assert_eq!(
        outcome.try_recv().unwrap()[0].as_ref().unwrap_err().code,
        Code::Overloaded
    );
    assert_eq!(counts(&queues.next(now).unwrap()), [1]);
}

#[test]
fn sends_and_marks_wait_for_no_other_command() {
    let now = Instant::now();
    let mut queues = queues(1);
    for _ in 0..2 * MAX_OTHERS_ON_THE_WAY {
        queues.push(Target::Any, other("t", "u"));
    }
    while queues.next(now).is_some() {}
    queues.push(Target::Any, mark());
    assert_eq!(queues.next(now).unwrap().class, Class::Marks);
    queues.push(Target::Any, mark());
    queues.push(Target::Any, submission(1, 10, later()).0);
    let message = queues.next(now).unwrap();
    assert_eq!((message.class, counts(&message)), (Class::Sends, vec![1]));
    assert!(queues.next(now).is_none());
    // What has marks or sends among others is neither.
    let mixed = vec![update(), Command::MarkRead(MarkRead::Messages(Vec::new()))];
    assert_eq!(submitted("t", "u", mixed, later()).0.class(), Class::Others);
}

#[test]
fn other_commands_in_flight_are_bounded() {
    let now = Instant::now();
    let mut queues = queues(1);
    for n in 0..1500 {
        queues.push(Target::Any, other(&format!("t{}", n % 9), "u"));
    }
    let owners = |queues: &mut WorkerQueues| owners(queues, now);
    let first = owners(&mut queues);
    assert_eq!(first.len(), MAX_OTHERS_ON_THE_WAY);
    assert!(queues.next(now).is_none());
    queues.finished(Target::Any, Class::Others, &first[..3]);
    assert_eq!(owners(&mut queues).len(), 3);
    queues.finished(Target::Any, Class::Others, &first[3..]);
    assert_eq!(owners(&mut queues).len(), MAX_OTHERS_ON_THE_WAY - 3);
}

#[test]
fn no_user_takes_all_places_on_the_way() {
    let now = Instant::now();
    let mut queues = queues(1);
    for _ in 0..1500 {
        queues.push(Target::Any, other("t", "flood"));
    }
    let flood = owners(&mut queues, now);
    assert_eq!(flood.len(), MAX_OTHERS_OF_USER);
    // Others wait for none of its commands to end.
    for (tenant, user) in [("t", "of the tenant"), ("s", "of another")] {
        queues.push(Target::Any, other(tenant, user));
        let next = owners(&mut queues, now);
        assert_eq!(next.len(), 1);
        assert_eq!(next[0].user.as_str(), user);
    }
    for n in 0..100 {
        queues.push(Target::Any, other("t", &n.to_string()));
    }
    assert_eq!(
        owners(&mut queues, now).len(),
        MAX_OTHERS_OF_TENANT - MAX_OTHERS_OF_USER - 1
    );
    queues.push(Target::Any, other("r", "of a third"));
    assert_eq!(owners(&mut queues, now).len(), 1);
    queues.finished(Target::Any, Class::Others, &flood);
    assert_eq!(owners(&mut queues, now).len(), MAX_OTHERS_OF_USER);
}

#[test]
fn merged_commands_count_in_own_share() {
    let now = Instant::now();
    let mut queues = queues(1);
    let many = submitted("t", "flood", vec![update(); 500], later()).0;
    queues.push(Target::Any, many);
    queues.push(Target::Any, other("t", "flood"));
    assert_eq!(counts(&queues.next(now).unwrap()), [500]);
    for n in 0..MAX_OTHERS_OF_TENANT {
        queues.push(Target::Any, other("t", &n.to_string()));
    }
    let flood = other("t", "flood").owner().clone();
    let others = owners(&mut queues, now);
    assert_eq!(others.len(), MAX_OTHERS_OF_TENANT - MAX_OTHERS_OF_USER);
    assert!(!others.contains(&flood));
    // Its own next one waits until it has less than its share on the way.
    let heard = vec![flood.clone(); 500 - MAX_OTHERS_OF_USER];
    queues.finished(Target::Any, Class::Others, &heard);
    queues.finished(Target::Any, Class::Others, &others);
    assert!(!owners(&mut queues, now).contains(&flood));
    let last = [flood.clone()];
    queues.finished(Target::Any, Class::Others, &last);
    assert!(owners(&mut queues, now).contains(&flood));
}

#[test]
fn no_user_takes_all_that_may_wait() {
    let mut queues = WorkerQueues::new(&CommandLimits {
        budget: Duration::from_secs(5),
        in_flight: 1,
        waiting: 100,
        waiting_bytes: 1 << 30,
    });
    let owner = other("t", "flood").owner().clone();
    let mut admitted = 0;
    while queues.admits(&owner) {
        queues.push(Target::Any, other("t", "flood"));
        admitted += 1;
    }
    assert_eq!(admitted, 25);
    assert!(queues.admits(other("t", "u").owner()));
    while queues.next(Instant::now()).is_some() {}
    assert!(queues.admits(&owner));
}

/// The sizes of messages of sends that go now, by user, and what each is a large part of.
fn sends(queues: &mut WorkerQueues, now: Instant) -> Vec<(Vec<String>, LargeParts)> {
    let messages = from_fn(|| queues.next(now));
    let told = messages.map(|message| {
        let users = message.submissions.iter();
        let users = users.map(|one| one.owner().user.to_string());
        (users.collect(), message.large)
    });
    told.collect()
}

/// A user's sends that go together.
fn sends_of(tenant: &str, user: &str, count: usize) -> Submission {
    let (many, _outcomes) = submission(count, 10, later());
    let requests = many.open().map(|(_, request)| request.command.clone());
    submitted(tenant, user, requests.collect(), later()).0
}

#[test]
fn large_sends_leave_messages_to_others() {
    let now = Instant::now();
    let mut queues = queues(4);
    for _ in 0..4 {
        queues.push(Target::Any, sends_of("t", "flood", MAX_BATCH_COMMANDS));
    }
    let flood = sends(&mut queues, now);
    assert_eq!(flood.len(), 2);
    // One more is for others of its tenant, the last for those of others.
    for (tenant, user) in [("t", "two"), ("t", "three"), ("s", "four")] {
        queues.push(Target::Any, sends_of(tenant, user, MAX_BATCH_COMMANDS));
    }
    let others = sends(&mut queues, now);
    let users: Vec<_> = others.iter().map(|(users, _)| users.concat()).collect();
    assert_eq!(users.len(), 2, "{users:?}");
    assert!(users.contains(&"four".to_owned()), "{users:?}");
    queues.ended(Target::Any, Class::Sends, &flood[0].1);
    // The tenant has three quarters no more, and the user half.
    assert_eq!(sends(&mut queues, now).len(), 1);
    for (_, large) in &others {
        queues.ended(Target::Any, Class::Sends, large);
    }
    queues.ended(Target::Any, Class::Sends, &flood[1].1);
    assert_eq!(sends(&mut queues, now).len(), 2);
}

#[test]
fn second_message_is_for_others_of_tenant() {
    let now = Instant::now();
    let mut queues = queues(2);
    for _ in 0..2 {
        queues.push(Target::Any, sends_of("t", "flood", MAX_BATCH_COMMANDS));
    }
    assert_eq!(sends(&mut queues, now).len(), 1);
    queues.push(Target::Any, sends_of("t", "other", 1));
    let next = sends(&mut queues, now);
    assert_eq!(next, [(vec!["other".to_owned()], LargeParts::default())]);
}

#[test]
fn small_sends_of_one_user_take_all_messages() {
    let now = Instant::now();
    let mut queues = queues(4);
    for _ in 0..4 {
        queues.push(Target::Any, sends_of("t", "one", 64));
        assert_eq!(
            sends(&mut queues, now),
            [(vec!["one".to_owned()], LargeParts::default())]
        );
    }
    for _ in 0..4 {
        queues.ended(Target::Any, Class::Sends, &LargeParts::default());
    }
    // What many users of a tenant have together is large.
    for round in 0..4 {
        for user in 0..8 {
            queues.push(Target::Any, sends_of("t", &format!("{round}-{user}"), 64));
        }
        assert_eq!(sends(&mut queues, now).len(), usize::from(round < 3));
    }
    queues.push(Target::Any, sends_of("s", "other", 1));
    assert_eq!(sends(&mut queues, now).len(), 1);
}
