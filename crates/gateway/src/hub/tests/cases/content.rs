//! What is replayed from the window, and what workers are asked for: content that was edited or deleted is told to nobody as it was.

use super::*;

/// Works and delivers what workers say, but nothing that the feed has.
fn work(world: &mut World) {
    for _ in 0..1000 {
        if !world.arriving.is_empty() {
            world.take(Step::Arrive(0));
        } else if !world.questions.is_empty() {
            world.take(Step::Work(0, false));
        } else {
            break;
        }
    }
}

/// One who was told a message comes back after others; its record says that it has nothing of them.
fn left_behind(said: usize) -> World {
    let mut world = World::new(1 << 20, NO_LIMITS, usize::MAX);
    for step in [
        Step::Create(FIRST_CONVERSATION, 0),
        Step::Add(FIRST_CONVERSATION, 1),
        Step::Open(0),
        Step::Open(1),
    ] {
        world.take(step);
    }
    rest(&mut world);
    world.take(Step::Take(0, 10_000));
    world.take(Step::Pong(0));
    world.clients[0].says_seen = false;
    world.take(Step::Close(0));
    for _ in 0..said {
        world.take(Step::Say(FIRST_CONVERSATION));
    }
    rest(&mut world);
    world.hub.take_replays();
    world
}

#[test]
fn workers_replay_range_whose_deletion_is_missing() {
    let mut world = left_behind(2);
    world.take(Step::Delete(FIRST_CONVERSATION, 1));
    world.take(Step::Resume(0));
    work(&mut world);
    let replays = world.hub.take_replays();
    assert_eq!((replays.window, replays.worker), (0, 2));
    world.settle_all();
    world.check();
}

#[test]
fn deletion_read_for_gap_is_kept() {
    let mut world = left_behind(2);
    world.take(Step::Delete(FIRST_CONVERSATION, 1));
    world.feed.clear();
    world.take(Step::Say(FIRST_CONVERSATION));
    rest(&mut world);
    let gap = world
        .retries
        .iter()
        .position(|retry| matches!(retry, Retry::Gap(_)));
    world.take(Step::Retry(gap.unwrap()));
    rest(&mut world);
    // What was deleted and before it is read, the rest is there.
    world.take(Step::Resume(0));
    rest(&mut world);
    let replays = world.hub.take_replays();
    assert_eq!((replays.window, replays.worker), (3, 1));
    world.settle_all();
    world.check();
}

#[test]
fn nothing_is_replayed_below_missing_seq() {
    let mut world = left_behind(3);
    world.take(Step::Delete(FIRST_CONVERSATION, 1));
    rest(&mut world);
    world.take(Step::Resume(0));
    open_without(&mut world);
    let replays = world.hub.take_replays();
    assert_eq!((replays.window, replays.worker), (0, 0));
    world.settle_all();
    world.check();
}
