use std::collections::HashMap;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const CAPS: Caps = Caps {
    batch_events: 4,
    batch_bytes: 100,
    lanes: 2,
    slots: 2,
    queue_events: 100,
    queue_bytes: 10_000,
};

fn conversation(n: u8) -> ConversationId {
    ConversationId(Uuid::from_u128(u128::from(n)))
}

fn send(of: u8, key: u32, now: Instant) -> Item<u32> {
    Item {
        conversation: Some(conversation(of)),
        kind: Kind::Send(
            "alice".parse().unwrap(),
            ClientId(Uuid::from_u128(u128::from(key))),
        ),
        bytes: 10,
        deadline: now + Duration::from_secs(1),
        job: key,
    }
}

fn alone(of: Option<u8>, job: u32, now: Instant) -> Item<u32> {
    Item {
        conversation: of.map(conversation),
        kind: Kind::Alone,
        ..send(0, job, now)
    }
}

fn batch(work: Option<Work<u32>>) -> Vec<u32> {
    match work {
        Some(Work::Batch(items)) => items.into_iter().map(|item| item.job).collect(),
        other => panic!("not a batch: {other:?}"),
    }
}

#[test]
fn the_first_lane_is_used_at_once_and_another_only_by_a_full_batch() {
    let now = Instant::now();
    let mut planner = Planner::new(CAPS);
    planner.push(send(1, 1, now));
    assert_eq!(batch(planner.next(now)), [1]);
    for n in 2..5 {
        planner.push(send(2, n, now));
    }
    assert!(planner.next(now).is_none());
    planner.push(send(3, 5, now));
    assert_eq!(batch(planner.next(now)), [2, 3, 4, 5]);
    planner.finish(Done::Batch(vec![conversation(1)], 1, Duration::ZERO));
    planner.finish(Done::Batch(
        vec![conversation(2), conversation(3)],
        4,
        Duration::ZERO,
    ));
    assert!(planner.is_idle());
}

#[test]
fn a_key_that_is_in_the_batch_waits_for_the_next_one() {
    let now = Instant::now();
    let mut planner = Planner::new(CAPS);
    for key in [1, 1, 2] {
        planner.push(send(1, key, now));
    }
    planner.push(send(2, 1, now));
    assert_eq!(batch(planner.next(now)), [1, 1]);
    planner.finish(Done::Batch(
        vec![conversation(1), conversation(2)],
        2,
        Duration::ZERO,
    ));
    assert_eq!(batch(planner.next(now)), [1, 2]);
}

#[test]
fn another_command_keeps_its_place_among_the_sends() {
    let now = Instant::now();
    let mut planner = Planner::new(CAPS);
    planner.push(send(1, 1, now));
    planner.push(alone(Some(1), 2, now));
    planner.push(send(1, 3, now));
    assert_eq!(batch(planner.next(now)), [1]);
    assert!(planner.next(now).is_none());
    planner.finish(Done::Batch(vec![conversation(1)], 1, Duration::ZERO));
    assert!(matches!(planner.next(now), Some(Work::Alone(item)) if item.job == 2));
    assert!(planner.next(now).is_none());
    planner.finish(Done::Alone(Some(conversation(1))));
    assert_eq!(batch(planner.next(now)), [3]);
}

#[test]
fn what_nobody_waits_for_any_more_is_not_carried_out() {
    let now = Instant::now();
    let mut planner = Planner::new(CAPS);
    let late = now + Duration::from_secs(2);
    planner.push(send(1, 1, now));
    planner.push(send(1, 2, late));
    planner.push(alone(Some(2), 3, now));
    assert!(matches!(planner.next(late), Some(Work::Expired(items)) if items[0].job == 3));
    assert_eq!(batch(planner.next(late)), [2]);
    assert!(matches!(planner.next(late), Some(Work::Expired(items)) if items[0].job == 1));
    planner.finish(Done::Batch(vec![conversation(1)], 1, Duration::ZERO));
    assert!(planner.is_idle());
}

#[test]
fn a_queue_too_long_for_the_budget_is_refused() {
    let now = Instant::now();
    let mut planner = Planner::new(CAPS);
    for key in 0..100 {
        assert_eq!(planner.admit(1, 10, Duration::from_secs(1)), Ok(()));
        planner.push(send(1, key, now));
    }
    assert!(planner.admit(1, 10, Duration::from_secs(1)).is_err());
    assert_eq!(batch(planner.next(now)), [0, 1, 2, 3]);
    planner.finish(Done::Batch(
        vec![conversation(1)],
        4,
        Duration::from_secs(4),
    ));
    assert!(planner.admit(1, 10, Duration::from_secs(10)).is_err());
    assert_eq!(planner.admit(1, 10, Duration::from_secs(60)), Ok(()));
}

/// What a run of the planner has shown so far.
#[derive(Default)]
struct Witness {
    running: Vec<(Vec<ConversationId>, usize, bool)>,
    seen: HashMap<Option<ConversationId>, Vec<u32>>,
}

impl Witness {
    fn take(&mut self, planner: &mut Planner<u32>, now: Instant) {
        while let Some(work) = planner.next(now) {
            let (items, is_batch) = match work {
                Work::Batch(items) => (items, true),
                Work::Alone(item) => (vec![item], false),
                Work::Expired(items) => panic!("nothing expires here: {items:?}"),
            };
            assert!(items.len() <= CAPS.batch_events);
            assert!(
                items.len() == 1
                    || items.iter().map(|i| i.bytes).sum::<usize>() <= CAPS.batch_bytes
            );
            let mut conversations: Vec<_> = items.iter().filter_map(|i| i.conversation).collect();
            conversations.sort_unstable();
            conversations.dedup();
            for (others, ..) in &self.running {
                assert!(
                    others.iter().all(|other| !conversations.contains(other)),
                    "two at once"
                );
            }
            for item in &items {
                self.seen
                    .entry(item.conversation)
                    .or_default()
                    .push(item.job);
            }
            self.running.push((conversations, items.len(), is_batch));
        }
    }

    fn end_one(&mut self, planner: &mut Planner<u32>, which: usize) {
        if self.running.is_empty() {
            return;
        }
        let (conversations, events, is_batch) = self.running.remove(which % self.running.len());
        planner.finish(if is_batch {
            Done::Batch(conversations, events, Duration::from_millis(1))
        } else {
            Done::Alone(conversations.first().copied())
        });
    }
}

proptest! {
    #[test]
    fn every_conversation_keeps_its_order_and_nothing_is_lost(
        steps in prop::collection::vec((0u8..6, 0u8..8, 1usize..80, any::<prop::sample::Index>()), 1..200)
    ) {
        let now = Instant::now();
        let mut planner = Planner::new(CAPS);
        let mut witness = Witness::default();
        let mut pushed: HashMap<Option<ConversationId>, Vec<u32>> = HashMap::new();
        for (n, (of, what, bytes, which)) in (0u32..).zip(steps) {
            let item = match what {
                0 => alone(Some(of), n, now),
                1 => alone(None, n, now),
                2 => send(of, 0, now),
                _ => send(of, n, now),
            };
            let item = Item { bytes, job: n, ..item };
            pushed.entry(item.conversation).or_default().push(n);
            planner.push(item);
            if what % 2 == 0 {
                witness.take(&mut planner, now);
            }
            if what > 4 {
                witness.end_one(&mut planner, which.index(100));
            }
        }
        while !planner.is_idle() {
            witness.take(&mut planner, now);
            witness.end_one(&mut planner, 0);
        }
        prop_assert_eq!(&witness.seen, &pushed);
        prop_assert!(planner.conversations.is_empty() && planner.bytes == 0);
    }
}
