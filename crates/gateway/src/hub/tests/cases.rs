//! Interleavings that the model seldom finds.

use confab_protocol::signal::{MemberOf, Presence, PresenceStatus::Online};

use super::*;
use crate::hub::delivery::MAX_PUSHING_CONVERSATIONS;

mod content;
mod lingering;
mod shards;

const FIRST_CONVERSATION: usize = 0;

/// Works, delivers and takes all that is there, but lets no wait end.
fn rest(world: &mut World) {
    for _ in 0..1000 {
        if !world.arriving.is_empty() {
            world.take(Step::Arrive(0));
        } else if !world.questions.is_empty() {
            world.take(Step::Work(0, false));
        } else if !world.feed.is_empty() {
            world.take(Step::Feed(0, false));
        } else {
            break;
        }
    }
}

/// A wait of a session that opens without workers is over, before any worker answered.
fn open_without(world: &mut World) {
    let at = world
        .retries
        .iter()
        .rposition(|retry| matches!(retry, Retry::OpenWithout(_)));
    world.take(Step::Retry(at.unwrap()));
}

#[test]
fn end_behind_truncated_range_is_told() {
    let limits = ReplayLimits {
        events: 0,
        bytes: 0,
    };
    let mut world = World::new(1 << 20, limits, usize::MAX);
    for step in [
        Step::Create(FIRST_CONVERSATION, 0),
        Step::Add(FIRST_CONVERSATION, 1),
        Step::Open(0),
    ] {
        world.take(step);
    }
    rest(&mut world);
    world.clients[0].says_seen = false;
    world.take(Step::Close(0));
    world.take(Step::Say(FIRST_CONVERSATION));
    world.take(Step::Resume(0));
    rest(&mut world);
    assert!(world.clients[0].is_open);
    world.take(Step::Remove(FIRST_CONVERSATION, 0));
    rest(&mut world);
    // It takes the range's name, and the end behind it; before it reads that range, its connection ends.
    world.take(Step::Pong(0));
    world.take(Step::Take(0, 10_000));
    world.take(Step::Pong(0));
    world.take(Step::Close(0));
    world.take(Step::Resume(0));
    open_without(&mut world);
    world.settle_all();
    world.check();
}

#[test]
fn stale_answer_does_not_void_positions() {
    let mut world = World::new(1 << 20, NO_LIMITS, usize::MAX);
    for step in [
        Step::Create(FIRST_CONVERSATION, 0),
        Step::Open(0),
        Step::Open(0),
    ] {
        world.take(step);
    }
    rest(&mut world);
    world.take(Step::Break);
    world.take(Step::Work(0, false));
    world.take(Step::Say(FIRST_CONVERSATION));
    world.take(Step::Feed(0, false));
    world.take(Step::Take(0, 10_000));
    world.take(Step::Close(0));
    assert!(world.clients[0].says_seen);
    world.take(Step::Resume(0));
    open_without(&mut world);
    world.take(Step::Arrive(0));
    world.settle_all();
    world.check();
}

/// Spends the replay budget of a session that was removed, or whose conversation was deleted, behind the snapshot it opened with.
fn budget_spent_behind(end: Step) {
    let limits = ReplayLimits {
        events: u64::MAX,
        bytes: 1,
    };
    let mut world = World::new(0, limits, usize::MAX);
    for step in [
        Step::Create(FIRST_CONVERSATION, 0),
        Step::Add(FIRST_CONVERSATION, 1),
    ] {
        world.take(step);
    }
    for step in [Step::Open(1), Step::Open(0)] {
        world.take(step);
    }
    rest(&mut world);
    world.take(Step::Close(0));
    for _ in 0..5 {
        world.take(Step::Say(FIRST_CONVERSATION));
    }
    rest(&mut world);
    world.take(Step::Resume(0));
    world.take(Step::Work(0, false));
    world.take(end);
    world.take(Step::Say(FIRST_CONVERSATION));
    for _ in 0..world.feed.len() {
        world.take(Step::Feed(0, false));
    }
    world.take(Step::Arrive(0));
    world.settle_all();
    world.check();
}

#[test]
fn removal_while_opening_is_told_without_budget() {
    budget_spent_behind(Step::Remove(FIRST_CONVERSATION, 1));
}

#[test]
fn deletion_while_opening_is_told_without_budget() {
    budget_spent_behind(Step::End(FIRST_CONVERSATION));
}

/// A client heard its removal and was added again, of which it heard nothing; it comes back by its record alone.
fn rejoined_by_record(says_seen: bool) -> World {
    let mut world = World::new(1 << 20, NO_LIMITS, usize::MAX);
    for step in [
        Step::Create(FIRST_CONVERSATION, 0),
        Step::Add(FIRST_CONVERSATION, 1),
        Step::Open(1),
    ] {
        world.take(step);
    }
    rest(&mut world);
    world.clients[0].says_seen = says_seen;
    for step in [
        Step::Say(FIRST_CONVERSATION),
        Step::Remove(FIRST_CONVERSATION, 1),
    ] {
        world.take(step);
    }
    rest(&mut world);
    world.take(Step::Take(0, 10_000));
    world.take(Step::Pong(0));
    world.take(Step::Take(0, 10_000));
    world.take(Step::Pong(0));
    for step in [
        Step::Say(FIRST_CONVERSATION),
        Step::Add(FIRST_CONVERSATION, 1),
        Step::Say(FIRST_CONVERSATION),
    ] {
        world.take(step);
    }
    rest(&mut world);
    world.take(Step::Close(0));
    let record = world.clients[0].record.clone();
    assert!(
        record.iter().all(|one| one.joined == one.seq + 1),
        "{record:?}"
    );
    world.take(Step::Resume(0));
    open_without(&mut world);
    world
}

#[test]
fn ended_membership_is_not_told_again() {
    for says_seen in [false, true] {
        let mut world = rejoined_by_record(says_seen);
        for _ in 0..3 {
            world.settle();
            world.take(Step::Take(0, 10_000));
            world.take(Step::Break);
        }
        let (_, again) = (world.settle(), world.clients[0].repeats());
        assert_eq!(again, 0, "it says what it has: {says_seen}");
        world.settle_all();
        assert_eq!(world.clients[0].repeats(), 0);
        world.check();
    }
}

#[test]
fn lower_seen_than_record_hears_earlier_end_first() {
    let mut world = rejoined_by_record(true);
    // The same client lost what it had since its first joining.
    world.take(Step::Close(0));
    world.clients[0].forget(FIRST_CONVERSATION, 2);
    world.take(Step::Resume(0));
    open_without(&mut world);
    world.take(Step::Break);
    world.settle_all();
    world.check();
}

#[test]
fn fan_out_yields_only_when_little_waits() {
    let mut world = World::new(1 << 20, NO_LIMITS, usize::MAX);
    world.logs = vec![Log::default(); 2];
    for c in 0..world.logs.len() {
        world.take(Step::Create(c, 0));
    }
    for _ in 0..3 {
        world.take(Step::Open(0));
    }
    rest(&mut world);
    let say = |world: &mut World, c| {
        world.take(Step::Say(c));
        world.take(Step::Feed(0, false));
        assert!(world.hub.is_pushing());
        world.hub.may_rest()
    };
    assert!(say(&mut world, 0), "one event");
    assert!(say(&mut world, 0), "and one more");
    assert!(!say(&mut world, 0), "three");
    while world.hub.is_pushing() {
        world.take(Step::Push);
    }
    assert!(say(&mut world, 1), "one event");
    assert!(!say(&mut world, 0), "of two conversations");
    world.settle_all();
    world.check();
}

#[test]
fn feed_waits_while_many_conversations_are_pushed() {
    let mut world = World::new(1 << 20, NO_LIMITS, usize::MAX);
    world.logs = vec![Log::default(); 40];
    for c in 0..world.logs.len() {
        world.take(Step::Create(c, 0));
    }
    for _ in 0..3 {
        world.take(Step::Open(0));
    }
    rest(&mut world);
    for c in 0..world.logs.len() {
        assert_eq!(world.hub.may_hear(), c < MAX_PUSHING_CONVERSATIONS, "{c}");
        world.take(Step::Say(c));
        world.take(Step::Feed(0, false));
    }
    assert!(!world.hub.may_hear());
    while world.hub.is_pushing() {
        world.take(Step::Push);
    }
    assert!(world.hub.may_hear());
    world.settle_all();
    world.check();
}

/// A session behind its removal has not read it yet when the end of a later membership is delivered.
#[test]
fn removal_of_later_membership_does_not_prolong_earlier() {
    let limits = ReplayLimits {
        events: u64::MAX,
        bytes: 0,
    };
    for budget in [limits, NO_LIMITS] {
        let mut world = World::new(0, budget, 200);
        for step in [
            Step::Create(FIRST_CONVERSATION, 0),
            Step::Open(0),
            Step::Add(FIRST_CONVERSATION, 1),
        ] {
            world.take(step);
        }
        world.take(Step::Open(1));
        world.settle();
        for step in [
            Step::RemovedWhileOpening(1, FIRST_CONVERSATION),
            Step::Add(FIRST_CONVERSATION, 1),
            Step::Remove(FIRST_CONVERSATION, 1),
        ] {
            world.take(step);
        }
        world.settle_all();
        world.check();
    }
}

/// Its removal is heard while it is still caught up: what the budget leaves out is named, and all behind that is told.
#[test]
fn range_left_out_before_removal_is_named() {
    let limits = ReplayLimits {
        events: u64::MAX,
        bytes: 75,
    };
    let mut world = World::new(0, limits, 200);
    for step in [
        Step::Create(FIRST_CONVERSATION, 0),
        Step::Open(0),
        Step::Add(FIRST_CONVERSATION, 1),
        Step::Open(1),
    ] {
        world.take(step);
    }
    world.settle();
    for step in [
        Step::RemovedWhileOpening(1, FIRST_CONVERSATION),
        Step::RemovedWhileOpening(0, 1),
        Step::Say(FIRST_CONVERSATION),
        Step::Remove(FIRST_CONVERSATION, 0),
    ] {
        world.take(step);
    }
    world.settle_all();
    world.check();
}

/// An event is heard behind the snapshot that a session opens by, and forgotten before the session is entered.
#[test]
fn event_forgotten_before_session_is_entered_is_told() {
    let mut world = World::new(1 << 20, NO_LIMITS, usize::MAX);
    world.hub.remembers(0);
    let heard = |world: &mut World, steps: &[Step]| {
        for step in steps {
            world.take(*step);
            world.take(Step::Feed(0, false));
        }
    };
    heard(
        &mut world,
        &[
            Step::Create(FIRST_CONVERSATION, 0),
            Step::Add(FIRST_CONVERSATION, 1),
        ],
    );
    world.take(Step::Open(1));
    world.take(Step::Work(0, false));
    heard(
        &mut world,
        &[
            Step::Say(FIRST_CONVERSATION),
            Step::Create(1, 0),
            Step::Say(1),
        ],
    );
    world.take(Step::Arrive(0));
    world.settle_all();
    world.check();
    assert_eq!(world.clients[0].has[&FIRST_CONVERSATION], 3);
}

#[test]
fn presence_begins_with_the_member_count() {
    let mut world = rejoined_by_record(true);
    let before = world.hub.take_come();
    assert!(before.counted.is_empty(), "{before:?}");
    let key = SessionKey(world.keys);
    assert!(!world.hub.has_counted(key));
    world.settle();
    assert!(world.hub.has_counted(key));
    let come = world.hub.take_come();
    let hosted: Vec<_> = come.hosted.iter().map(|one| one.1).collect();
    let users: Vec<_> = come.counted.iter().map(|one| one.user.as_str()).collect();
    assert_eq!(
        (hosted, users),
        (vec![conversation(FIRST_CONVERSATION)], vec!["u1"])
    );
    world.take(Step::Break);
    world.settle_all();
    assert!(world.hub.take_come().is_empty(), "it is known already");
    world.take(Step::Remove(FIRST_CONVERSATION, 1));
    world.settle_all();
    let left = world.hub.take_come().left;
    let left: Vec<_> = left
        .iter()
        .map(|(account, id, _)| (account.user.as_str(), *id))
        .collect();
    assert_eq!(left, [("u1", conversation(FIRST_CONVERSATION))]);
}

/// A session goes on by a record that holds a membership which ended since, while others are there.
#[test]
fn ended_membership_of_record_carries_nothing() {
    for window in [1 << 20, 0] {
        let mut world = World::new(window, NO_LIMITS, usize::MAX);
        for step in [
            Step::Create(FIRST_CONVERSATION, 0),
            Step::Add(FIRST_CONVERSATION, 1),
            Step::Open(1),
        ] {
            world.take(step);
            world.settle();
        }
        world.take(Step::Close(0));
        for step in [
            Step::Remove(FIRST_CONVERSATION, 1),
            Step::Add(FIRST_CONVERSATION, 2),
            Step::Open(2),
            Step::Say(FIRST_CONVERSATION),
        ] {
            world.take(step);
            world.settle();
        }
        world.hub.take_come();
        world.take(Step::Resume(0));
        open_without(&mut world);
        let named = |world: &World| {
            let named = world
                .hub
                .listeners(conversation(FIRST_CONVERSATION))
                .into_iter();
            named.map(|one| one.0).collect::<Vec<_>>()
        };
        assert_eq!(named(&world), ["u2".parse().unwrap()]);
        assert_eq!(world.hub.has_counted(SessionKey(world.keys)), window > 0);
        world.settle_all();
        world.check();
        assert!(world.hub.take_come().counted.is_empty());
    }
}

#[test]
fn presence_is_told_to_members_by_then() {
    let mut world = World::new(1 << 20, NO_LIMITS, usize::MAX);
    for step in [
        Step::Create(FIRST_CONVERSATION, 0),
        Step::Add(FIRST_CONVERSATION, 1),
        Step::Add(FIRST_CONVERSATION, 2),
        Step::Open(1),
        Step::Open(2),
    ] {
        world.take(step);
        world.settle_all();
    }
    for (as_of, told) in [
        (1, [false, false]),
        (2, [true, false]),
        (3, [true, true]),
        (Seq::MAX, [true, true]),
    ] {
        for client in &world.clients {
            drop(client.send_queue().taken(usize::MAX));
        }
        let member_of = MemberOf {
            conversation: conversation(FIRST_CONVERSATION),
            as_of,
        };
        let (tenant, user) = ("t".parse().unwrap(), "u0".parse().unwrap());
        world
            .hub
            .tell(Presence::new(tenant, user, Online, [member_of]));
        let was_told = world.clients.iter().map(|client| {
            let frames = client.send_queue().taken(usize::MAX).unwrap();
            frames
                .iter()
                .any(|frame| frame.as_bytes()[0] != PING_OPCODE)
        });
        assert_eq!(was_told.collect::<Vec<_>>(), told, "as of {as_of}");
    }
}

/// It lasts, which is seen only when what the window does not hold is read.
#[test]
fn recorded_membership_carries_presence_once_confirmed() {
    let mut world = World::new(0, NO_LIMITS, usize::MAX);
    for step in [
        Step::Create(FIRST_CONVERSATION, 0),
        Step::Add(FIRST_CONVERSATION, 1),
        Step::Open(1),
        Step::Open(0),
    ] {
        world.take(step);
        world.settle();
    }
    world.take(Step::Close(0));
    world.take(Step::Say(FIRST_CONVERSATION));
    world.settle();
    world.hub.take_come();
    world.take(Step::Resume(0));
    open_without(&mut world);
    let key = SessionKey(world.keys);
    assert!(!world.hub.has_counted(key));
    assert!(!world.hub.is_sure_of(conversation(FIRST_CONVERSATION)));
    assert!(world.hub.take_come().counted.is_empty());
    world.settle();
    assert!(world.hub.is_sure_of(conversation(FIRST_CONVERSATION)));
    assert!(world.hub.has_counted(key));
    let counted = world.hub.take_come().counted;
    let users: Vec<_> = counted.iter().map(|one| one.user.as_str()).collect();
    assert_eq!(users, ["u1"]);
    world.settle_all();
    world.check();
}

#[test]
fn count_is_taken_after_feed_overtakes() {
    let mut world = rejoined_by_record(true);
    world.hub.take_come();
    world.take(Step::Add(FIRST_CONVERSATION, 2));
    for _ in 0..world.questions.len() {
        world.take(Step::Work(0, false));
    }
    assert!(!world.arriving.is_empty());
    for step in [
        Step::Say(FIRST_CONVERSATION),
        Step::Add(FIRST_CONVERSATION, 0),
    ] {
        world.take(step);
    }
    for _ in 0..world.feed.len() {
        world.take(Step::Feed(0, false));
    }
    for _ in 0..world.arriving.len() {
        world.take(Step::Arrive(0));
    }
    let come = world.hub.take_come();
    let users: Vec<_> = come.counted.iter().map(|one| one.user.as_str()).collect();
    assert_eq!(users, ["u1"]);
    world.settle_all();
    world.check();
}

/// Its removal is on its way through the subscriptions when the session is entered by an answer that does not know it.
#[test]
fn pending_removal_is_heeded_on_opening() {
    let mut world = World::new(0, NO_LIMITS, usize::MAX);
    world.take(Step::Create(FIRST_CONVERSATION, 0));
    world.take(Step::Add(FIRST_CONVERSATION, 1));
    for _ in 0..9 {
        world.take(Step::Open(0));
        world.settle_all();
    }
    world.take(Step::Open(1));
    world.take(Step::Work(0, false));
    for step in [
        Step::Say(FIRST_CONVERSATION),
        Step::Remove(FIRST_CONVERSATION, 1),
    ] {
        world.take(step);
        world.take(Step::Feed(0, false));
    }
    assert!(world.hub.is_pushing());
    world.take(Step::Arrive(0));
    for _ in 0..20 {
        world.take(Step::Push);
    }
    world.settle_all();
    world.check();
}
