use confab_protocol::command::{COMMAND_VERSION, Outcome};
use confab_protocol::error::{Code, Failure};
use tokio::sync::oneshot::Receiver;
use uuid::Uuid;

use super::super::CommandOutcome;
use super::super::submission::tests::submission;
use super::*;

const SILENCE_TIMEOUT: Duration = Duration::from_secs(2);
const TEST_BUDGET: Duration = Duration::from_secs(5);
const WORKER_ID: WorkerId = WorkerId(Uuid::max());

type Outcomes = Receiver<Vec<CommandOutcome>>;

/// A message of submissions with so many commands each, and where their outcomes go.
fn attempt(counts: &[usize], now: Instant) -> (Attempt, Vec<Outcomes>) {
    let submissions = counts
        .iter()
        .map(|count| submission(*count, 10, now + TEST_BUDGET));
    let (submissions, outcomes) = submissions.unzip();
    let message = Message {
        target: Target::Any,
        class: Class::Sends,
        submissions,
        large: LargeParts::default(),
    };
    (
        Attempt::new(message, now, SILENCE_TIMEOUT, now + TEST_BUDGET),
        outcomes,
    )
}

fn done() -> CommandOutcome {
    Ok(Outcome::Read(Vec::new()))
}

fn part(done_places: &[u32], waiting: &[u32]) -> Part {
    Part {
        version: COMMAND_VERSION,
        worker: WORKER_ID.0,
        outcomes: done_places.iter().map(|place| (*place, done())).collect(),
        waiting: waiting.to_vec(),
    }
}

#[test]
fn submission_is_answered_when_its_last_place_is() {
    let now = Instant::now();
    let (mut attempt, mut outcomes) = attempt(&[1, 2, 1], now);
    assert_eq!(attempt.requests().len(), 4);
    let complete = attempt.part(now, part(&[0, 2], &[])).complete;
    assert_eq!((complete.len(), attempt.unheard()), (1, 2));
    complete.into_iter().for_each(Submission::answer);
    assert_eq!(outcomes[0].try_recv().unwrap(), [done()]);
    assert_eq!(attempt.worker(), Some(WORKER_ID));

    let complete = attempt.part(now, part(&[3, 1], &[])).complete;
    assert_eq!((complete.len(), attempt.unheard()), (2, 0));
    assert!(attempt.is_complete());
    complete.into_iter().for_each(Submission::answer);
    assert_eq!(outcomes[1].try_recv().unwrap(), [done(), done()]);
    assert_eq!(outcomes[2].try_recv().unwrap(), [done()]);
}

#[test]
fn places_told_twice_or_unknown_change_nothing() {
    let now = Instant::now();
    let (mut attempt, mut outcomes) = attempt(&[2], now);
    let refused = Err(Failure::of(Code::MessageNotFound));
    let mut first = part(&[], &[]);
    first.outcomes.push((0, refused.clone()));
    assert!(attempt.part(now, first).complete.is_empty());
    assert!(
        attempt
            .part(now, part(&[0, 7], &[0, 9, u32::MAX]))
            .complete
            .is_empty()
    );
    assert_eq!(attempt.unheard(), 1);
    let complete = attempt.part(now, part(&[1, 1], &[])).complete;
    complete.into_iter().for_each(Submission::answer);
    assert_eq!(outcomes[0].try_recv().unwrap(), [refused, done()]);
    assert!(attempt.part(now, part(&[0, 1], &[1])).complete.is_empty());
    assert!(attempt.is_complete() && attempt.unheard() == 0);
}

#[test]
fn silence_is_measured_from_the_last_part() {
    let now = Instant::now();
    let (mut attempt, _outcomes) = attempt(&[1, 1], now);
    let lives = Some(Liveness::Punctual);
    let almost = Duration::from_millis(1999);
    assert!(!attempt.is_over(now + almost, lives));
    assert!(attempt.is_over(now + SILENCE_TIMEOUT, lives));
    assert_eq!(attempt.next_look(now + almost), now + SILENCE_TIMEOUT);
    attempt.part(now + almost, part(&[0], &[]));
    assert!(!attempt.is_over(now + SILENCE_TIMEOUT, lives));
    assert!(attempt.is_silent(now + almost + SILENCE_TIMEOUT, lives));
    let last = now + almost + SILENCE_TIMEOUT - Duration::from_millis(1);
    assert_eq!(attempt.next_look(last), now + almost + SILENCE_TIMEOUT);
}

#[test]
fn late_worker_is_abandoned_when_others_live() {
    let now = Instant::now();
    let (mut attempt, _outcomes) = attempt(&[1, 1], now);
    assert_eq!(attempt.next_look(now), now + LATE_PATIENCE);
    let late = Some(Liveness::Late);
    let almost = LATE_PATIENCE - Duration::from_millis(1);
    assert!(!attempt.is_over(now + almost, late));
    assert!(attempt.is_silent(now + LATE_PATIENCE, late));
    for patient in [Liveness::Punctual, Liveness::Silent] {
        // Where no other is heard of, nothing is won by giving it up.
        assert!(!attempt.is_over(now + LATE_PATIENCE, Some(patient)));
    }
    attempt.part(now + almost, part(&[0], &[]));
    assert!(!attempt.is_over(now + LATE_PATIENCE, late));
}

#[test]
fn worker_with_waiting_commands_can_be_gone() {
    let now = Instant::now();
    let (mut attempt, _outcomes) = attempt(&[1, 1], now);
    attempt.part(now, part(&[0], &[1]));
    assert_eq!((attempt.unheard(), attempt.is_complete()), (0, false));
    let (late, lives) = (now + 2 * SILENCE_TIMEOUT, Some(Liveness::Late));
    assert!(!attempt.is_over(late, lives));
    assert!(attempt.is_silent(late, Some(Liveness::Silent)));
    assert!(attempt.next_look(late) < late + SILENCE_TIMEOUT);
    // At the deadline it is over, and its worker is not silent.
    assert!(
        attempt.is_over(now + TEST_BUDGET, lives) && !attempt.is_silent(now + TEST_BUDGET, lives)
    );
    assert_eq!(attempt.next_look(now + TEST_BUDGET), now + TEST_BUDGET);
    assert_eq!(attempt.part(late, part(&[1], &[])).complete.len(), 1);
}

#[test]
fn last_attempt_waits_for_worker_that_is_late() {
    let (now, late) = (Instant::now(), Some(Liveness::Late));
    let silent_at = |attempts| {
        let (mut submission, _outcomes) = submission(1, 10, now + TEST_BUDGET);
        submission.attempts = attempts;
        let message = Message {
            target: Target::Any,
            class: Class::Sends,
            submissions: vec![submission],
            large: LargeParts::default(),
        };
        let attempt = Attempt::new(message, now, SILENCE_TIMEOUT, now + TEST_BUDGET);
        [LATE_PATIENCE, SILENCE_TIMEOUT].map(|after| attempt.is_silent(now + after, late))
    };
    assert_eq!(silent_at(1), [true, true]);
    assert_eq!(silent_at(MAX_ATTEMPTS), [false, true]);
}

#[test]
fn failed_message_gives_back_only_what_is_open() {
    let now = Instant::now();
    let (mut first, _outcomes) = attempt(&[1, 3, 1], now);
    assert_eq!(first.part(now, part(&[0, 2], &[1])).complete.len(), 1);
    let incomplete = first.into_incomplete();
    let counts: Vec<_> = incomplete.iter().map(Submission::count).collect();
    assert_eq!(counts, [2, 1]);
    // The next message has the commands that are open, in its own places.
    let message = Message {
        target: Target::Worker(WORKER_ID),
        class: Class::Sends,
        submissions: incomplete,
        large: LargeParts::default(),
    };
    let mut second = Attempt::new(message, now, SILENCE_TIMEOUT, now + TEST_BUDGET);
    assert_eq!((second.requests().len(), second.unheard()), (3, 3));
    assert_eq!(second.part(now, part(&[0, 1, 2], &[])).complete.len(), 2);
}
