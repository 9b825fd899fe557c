//! What the coordinator decides for all shards together.

use super::*;

/// Conversations 0 and 1 are in different shards, and the client missed so many events of each.
fn away(shards: usize, limits: ReplayLimits, window: usize, missed: usize) -> World {
    let mut world = World::of(Shards::of(shards), window, limits, usize::MAX);
    for c in 0..CONVERSATION_COUNT {
        world.take(Step::Create(c, 0));
    }
    world.take(Step::Open(0));
    rest(&mut world);
    world.take(Step::Close(0));
    for c in 0..CONVERSATION_COUNT {
        for _ in 0..missed {
            world.take(Step::Say(c));
        }
    }
    rest(&mut world);
    world.hub.take_replays();
    world
}

#[test]
fn budget_of_replay_is_one_for_all_shards() {
    let event = r#"{"c":0,"seq":2,"data":{}}"#.len();
    let limits = ReplayLimits {
        events: u64::MAX,
        bytes: 3 * event,
    };
    for shards in [1, 2] {
        // Nobody knows before they are read what the events weigh.
        let mut world = away(shards, limits, 0, 9);
        world.take(Step::Resume(0));
        rest(&mut world);
        let replays = world.hub.take_replays();
        // A worker gives three at once here: what a shard reads when the budget is spent is its last.
        assert_eq!(replays.worker, 3 + 3 * shards as u64, "{shards}");
        assert_eq!(replays.truncated, 2, "{shards}");
        world.settle_all();
        world.check();
    }
}

#[test]
fn replay_budget_is_shared_by_shards() {
    let limits = ReplayLimits {
        events: 5,
        bytes: usize::MAX,
    };
    for shards in [1, 2, 3] {
        let mut world = away(shards, limits, 1 << 20, 4);
        world.take(Step::Resume(0));
        assert_eq!(world.questions.len(), 1, "{shards}");
        rest(&mut world);
        let replays = world.hub.take_replays();
        assert_eq!((replays.window, replays.truncated), (4, 1), "{shards}");
        world.settle_all();
        world.check();
    }
}

#[test]
fn room_in_send_queue_is_for_all_shards() {
    let mut world = World::of(Shards::of(2), 1 << 20, NO_LIMITS, 60);
    for c in 0..CONVERSATION_COUNT {
        world.take(Step::Create(c, 0));
    }
    world.take(Step::Open(0));
    rest(&mut world);
    for c in [0, 0, 0, 1, 1, 1] {
        world.take(Step::Say(c));
    }
    rest(&mut world);
    for _ in 0..20 {
        world.take(Step::Take(0, 60));
    }
    let has = &world.clients[0].has;
    assert_eq!((has[&0], has[&1]), (4, 4));
    world.settle_all();
    world.check();
}

/// Positions are of all shards, those that are late as well.
#[test]
fn record_names_conversations_of_every_shard() {
    let world = away(3, NO_LIMITS, 0, 0);
    assert_eq!(world.clients[0].record.len(), CONVERSATION_COUNT);
}

/// The shard is in a later epoch than the answer that the session is entered by: an addition that the break hid is told before the one behind
/// its removal, although the coordinator learns of the break last.
#[test]
fn addition_hidden_by_break_comes_first() {
    let mut world = World::waiting(1, 1 << 20, NO_LIMITS, usize::MAX);
    world.take(Step::Create(FIRST_CONVERSATION, 0));
    world.take(Step::Open(0));
    world.settle();
    world.take(Step::Open(1));
    for registered in [Step::Move(0), Step::Move(0)] {
        world.take(registered);
    }
    world.take(Step::Work(0, false));
    world.take(Step::Arrive(0));
    world.take(Step::Add(FIRST_CONVERSATION, 1));
    world.take(Step::BreakOf(FIRST_CONVERSATION));
    for entered in [Step::Move(0), Step::Move(0), Step::Move(0)] {
        assert!(!world.clients[1].is_open);
        world.take(entered);
    }
    // Its record is put before it is welcomed.
    world.take(Step::Move(0));
    assert!(world.clients[1].is_open);
    for step in [
        Step::Remove(FIRST_CONVERSATION, 1),
        Step::Add(FIRST_CONVERSATION, 1),
    ] {
        world.take(step);
        world.take(Step::Feed(0, false));
        world.take(Step::Move(0));
    }
    world.settle_all();
    world.check();
}

/// The answer to what a break began is on its way when another break hides an addition: it proves nothing, so that the addition is told before
/// the one behind its removal.
#[test]
fn answer_from_before_last_break_proves_nothing() {
    let mut world = World::waiting(1, 1 << 20, NO_LIMITS, usize::MAX);
    world.take(Step::Create(FIRST_CONVERSATION, 0));
    world.take(Step::Open(1));
    world.settle();
    let asks = |world: &mut World| {
        world.take(Step::Break);
        while world.questions.is_empty() {
            world.take(Step::Move(0));
        }
    };
    asks(&mut world);
    world.take(Step::Work(0, false));
    world.take(Step::Add(FIRST_CONVERSATION, 1));
    asks(&mut world);
    world.take(Step::Arrive(0));
    for step in [
        Step::Remove(FIRST_CONVERSATION, 1),
        Step::Add(FIRST_CONVERSATION, 1),
    ] {
        world.take(step);
        world.take(Step::Feed(0, false));
        world.take(Step::Move(0));
    }
    world.settle_all();
    world.check();
}
