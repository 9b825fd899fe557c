//! Interleavings that the model seldom finds.

use super::*;
use crate::hub::delivery::PUSHING;

const A: usize = 0;

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
fn the_end_of_a_membership_that_stood_behind_a_truncated_range_is_told_without_workers_too() {
    let limits = ReplayLimits {
        events: 0,
        bytes: 0,
    };
    let mut world = World::new(1 << 20, limits, usize::MAX);
    for step in [Step::Create(A, 0), Step::Add(A, 1), Step::Open(0)] {
        world.take(step);
    }
    rest(&mut world);
    world.clients[0].says_seen = false;
    world.take(Step::Close(0));
    world.take(Step::Say(A));
    world.take(Step::Resume(0));
    rest(&mut world);
    assert!(world.clients[0].is_open);
    world.take(Step::Remove(A, 0));
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
fn what_the_client_truly_holds_is_not_void_by_an_answer_from_before_it_came_back() {
    let mut world = World::new(1 << 20, ALL, usize::MAX);
    for step in [Step::Create(A, 0), Step::Open(0), Step::Open(0)] {
        world.take(step);
    }
    rest(&mut world);
    world.take(Step::Break);
    world.take(Step::Work(0, false));
    world.take(Step::Say(A));
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

#[test]
fn a_walk_rests_only_while_hardly_anything_else_waits() {
    let mut world = World::new(1 << 20, ALL, usize::MAX);
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
fn while_events_of_many_conversations_are_on_their_way_no_more_are_heard() {
    let mut world = World::new(1 << 20, ALL, usize::MAX);
    world.logs = vec![Log::default(); 40];
    for c in 0..world.logs.len() {
        world.take(Step::Create(c, 0));
    }
    for _ in 0..3 {
        world.take(Step::Open(0));
    }
    rest(&mut world);
    for c in 0..world.logs.len() {
        assert_eq!(world.hub.may_hear(), c < PUSHING, "{c}");
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
