//! What workers announce and the feed does not carry.

use super::*;

/// One member and one user without a conversation, both connected.
fn connected(shards: usize) -> World {
    let mut world = World::of(Shards::of(shards), 1 << 20, NO_LIMITS, usize::MAX);
    for step in [
        Step::Create(FIRST_CONVERSATION, 0),
        Step::Open(0),
        Step::Open(1),
    ] {
        world.take(step);
    }
    world.settle();
    world
}

fn takes(world: &mut World, n: usize) -> Option<Seq> {
    world.take(Step::Take(n, 10_000));
    world.clients[n].has.get(&FIRST_CONVERSATION).copied()
}

#[test]
fn announced_events_are_heard_without_feed() {
    for shards in [1, 3] {
        let mut world = connected(shards);
        for step in [
            Step::Say(FIRST_CONVERSATION),
            Step::Say(FIRST_CONVERSATION),
            Step::Announce(FIRST_CONVERSATION),
        ] {
            world.take(step);
        }
        world.settle();
        assert_eq!(takes(&mut world, 0), Some(3));
        // The stream carries them at last, and a worker that does not know it yet announces them once more.
        for seq in [2, 3] {
            world.publish(FIRST_CONVERSATION, Some(seq));
        }
        world.take(Step::Announce(FIRST_CONVERSATION));
        world.settle();
        assert_eq!(takes(&mut world, 0), Some(3));
        world.settle_all();
        world.check();
    }
}

#[test]
fn announced_addition_and_removal_bound_what_is_heard() {
    for shards in [1, 3] {
        let mut world = connected(shards);
        for step in [
            Step::Say(FIRST_CONVERSATION),
            Step::Add(FIRST_CONVERSATION, 1),
            Step::Say(FIRST_CONVERSATION),
        ] {
            world.take(step);
        }
        world.take(Step::Announce(FIRST_CONVERSATION));
        world.settle();
        assert_eq!(takes(&mut world, 1), Some(4), "from the joining on");
        for step in [
            Step::Remove(FIRST_CONVERSATION, 1),
            Step::Say(FIRST_CONVERSATION),
            Step::Announce(FIRST_CONVERSATION),
        ] {
            world.take(step);
        }
        world.settle();
        assert_eq!(takes(&mut world, 1), Some(5), "up to the removal");
        assert_eq!(takes(&mut world, 0), Some(6));
        world.settle_all();
        world.check();
    }
}

/// A gateway without any member of the conversation learns of it by the user that is named.
#[test]
fn announced_addition_is_confirmed_once() {
    let mut world = World::new(1 << 20, NO_LIMITS, usize::MAX);
    world.take(Step::Create(FIRST_CONVERSATION, 0));
    world.take(Step::Open(1));
    world.settle();
    for step in [
        Step::Say(FIRST_CONVERSATION),
        Step::Add(FIRST_CONVERSATION, 1),
        Step::Say(FIRST_CONVERSATION),
    ] {
        world.take(step);
    }
    world.take(Step::Announce(FIRST_CONVERSATION));
    world.take(Step::Announce(FIRST_CONVERSATION));
    assert_eq!(world.questions.len(), 1, "one question for both");
    world.settle();
    assert_eq!(takes(&mut world, 0), Some(4));
    world.take(Step::Announce(FIRST_CONVERSATION));
    assert!(world.questions.is_empty() && world.retries.is_empty());
    world.settle_all();
    world.check();
}

/// Nobody is told that every user was asked for again: that is for a break, behind which a gateway is not ready.
#[test]
fn recheck_finds_what_is_not_told() {
    let mut world = connected(1);
    for step in [
        Step::Say(FIRST_CONVERSATION),
        Step::Add(FIRST_CONVERSATION, 1),
    ] {
        world.take(step);
    }
    world.feed.clear();
    world.take(Step::Recheck(0));
    world.take(Step::Recheck(30));
    world.take(Step::Recheck(59));
    world.settle();
    assert_eq!(takes(&mut world, 0), Some(3));
    assert_eq!(takes(&mut world, 1), Some(3));
    world.settle_all();
    world.check();
}
