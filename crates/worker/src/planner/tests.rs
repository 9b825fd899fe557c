use std::collections::HashMap;

use proptest::prelude::*;
use uuid::Uuid;

use confab_protocol::error::{Code, Failure};
use confab_protocol::ids::{ClientId, ConversationId};

use super::*;

mod locks;

const CAPS: Caps = Caps {
    batch_events: 4,
    batch_bytes: 100,
    lanes: 2,
    slots: 2,
    places: 4,
    queue_events: 100,
    queue_bytes: 10_000,
};

fn conversation(n: u8) -> ConversationId {
    ConversationId(Uuid::from_u128(u128::from(n)))
}

fn owner(tenant: &str, user: &str) -> Owner {
    Owner {
        tenant: tenant.parse().unwrap(),
        user: user.parse().unwrap(),
    }
}

fn send(of: u8, key: u32, now: Instant) -> Item<u32> {
    Item {
        owner: owner("t", "alice"),
        conversation: Some(conversation(of)),
        kind: Kind::Send(
            "alice".parse().unwrap(),
            ClientId(Uuid::from_u128(u128::from(key))),
        ),
        bytes: 10,
        deadline: now + Duration::from_secs(1),
        open: Open::default(),
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

fn by(tenant: &str, user: &str, item: Item<u32>) -> Item<u32> {
    Item {
        owner: owner(tenant, user),
        ..item
    }
}

fn batch(work: Option<Work<u32>>) -> (Ticket, Vec<Item<u32>>) {
    match work {
        Some(Work::Batch(ticket, items)) => (ticket, items),
        other => panic!("not a batch: {other:?}"),
    }
}

fn single(work: Option<Work<u32>>) -> (Ticket, Item<u32>) {
    match work {
        Some(Work::Alone(ticket, item)) => (ticket, item),
        other => panic!("not a single command: {other:?}"),
    }
}

fn jobs(items: &[Item<u32>]) -> Vec<u32> {
    items.iter().map(|item| item.job).collect()
}

fn done(ticket: Ticket) -> Done<u32> {
    left_out(ticket, Vec::new())
}

fn left_out(ticket: Ticket, skipped: Vec<Item<u32>>) -> Done<u32> {
    Done {
        ticket,
        took: Duration::ZERO,
        skipped,
        refused: Vec::new(),
    }
}

/// The time of the next retry, which must not be far.
fn retry(planner: &Planner<u32>, now: Instant) -> Instant {
    let at = planner.next_retry().unwrap();
    assert!(at > now && at <= now + Duration::from_millis(50));
    at
}

/// A planner of usual batches in which a flood of many conversations waits.
fn flooded(now: Instant) -> Planner<u32> {
    let mut planner = Planner::new(Caps {
        batch_events: 200,
        batch_bytes: 1 << 20,
        queue_events: 10_000,
        queue_bytes: 1 << 20,
        ..CAPS
    });
    for n in 0..2000 {
        let item = Item {
            deadline: now + Duration::from_secs(5),
            ..send(u8::try_from(n % 8).unwrap(), n, now)
        };
        planner.push(by("t", "flood", item));
    }
    planner
}

/// Whose the sends of the next batch are; it ends at once.
fn next_users(planner: &mut Planner<u32>, now: Instant) -> Vec<Owner> {
    let (ticket, items) = batch(planner.next(now));
    planner.finish(done(ticket), now);
    items.into_iter().map(|item| item.owner).collect()
}

#[test]
fn flood_fills_batches_only_while_nobody_else_sends() {
    let now = Instant::now();
    let mut planner = flooded(now);
    assert_eq!(next_users(&mut planner, now).len(), 200);
    planner.push(by("t", "alice", send(100, 5000, now)));
    let both = next_users(&mut planner, now);
    assert!(both.contains(&owner("t", "alice")));
    // Whoever comes next waits for a third of a batch.
    assert_eq!(next_users(&mut planner, now).len(), 200 / 3);
    let later = now + Duration::from_millis(999);
    assert_eq!(next_users(&mut planner, later).len(), 200 / 3);
    let forgotten = now + Duration::from_secs(1) - Duration::from_nanos(1);
    assert_eq!(next_users(&mut planner, forgotten).len(), 200 / 3);
    let items = next_users(&mut planner, now + Duration::from_secs(1));
    assert_eq!(items.len(), 200);
}

#[test]
fn tenant_fills_half_batches_where_others_send() {
    let now = Instant::now();
    let mut planner = flooded(now);
    for n in 2000..3000 {
        let user = format!("user-{}", n % 10);
        planner.push(by(
            "t",
            &user,
            send(u8::try_from(n % 10).unwrap() + 50, n, now),
        ));
    }
    planner.push(by("s", "other", send(100, 5000, now)));
    assert_eq!(next_users(&mut planner, now).len(), 200);
    assert_eq!(next_users(&mut planner, now).len(), 100);
}

#[test]
fn second_lane_is_used_only_by_full_batch() {
    let now = Instant::now();
    let mut planner = Planner::new(CAPS);
    planner.push(send(1, 1, now));
    let (first, items) = batch(planner.next(now));
    assert_eq!(jobs(&items), [1]);
    for n in 2..5 {
        planner.push(send(2, n, now));
    }
    assert!(planner.next(now).is_none());
    planner.push(send(3, 5, now));
    let (second, items) = batch(planner.next(now));
    assert_eq!(jobs(&items), [2, 3, 4, 5]);
    planner.finish(done(first), now);
    planner.finish(done(second), now);
    assert!(planner.is_idle());
}

#[test]
fn key_of_the_batch_waits_for_the_next() {
    let now = Instant::now();
    let mut planner = Planner::new(CAPS);
    for key in [1, 1, 2] {
        planner.push(send(1, key, now));
    }
    planner.push(send(2, 1, now));
    let (ticket, items) = batch(planner.next(now));
    assert_eq!(jobs(&items), [1, 1]);
    assert_ne!(items[0].conversation, items[1].conversation);
    planner.finish(done(ticket), now);
    assert_eq!(jobs(&batch(planner.next(now)).1), [1, 2]);
}

#[test]
fn other_command_keeps_its_place_among_sends() {
    let now = Instant::now();
    let mut planner = Planner::new(CAPS);
    planner.push(send(1, 1, now));
    planner.push(alone(Some(1), 2, now));
    planner.push(send(1, 3, now));
    let (ticket, items) = batch(planner.next(now));
    assert_eq!(jobs(&items), [1]);
    assert!(planner.next(now).is_none());
    planner.finish(done(ticket), now);
    let (ticket, item) = single(planner.next(now));
    assert_eq!(item.job, 2);
    assert!(planner.next(now).is_none());
    planner.finish(done(ticket), now);
    assert_eq!(jobs(&batch(planner.next(now)).1), [3]);
}

#[test]
fn expired_commands_are_not_carried_out() {
    let now = Instant::now();
    let mut planner = Planner::new(CAPS);
    let late = now + Duration::from_secs(2);
    planner.push(send(1, 1, now));
    planner.push(send(1, 2, late));
    planner.push(alone(Some(2), 3, now));
    let (ticket, items) = batch(planner.next(late));
    assert_eq!(jobs(&items), [2]);
    let Some(Work::Expired(items)) = planner.next(late) else {
        panic!("nothing has expired");
    };
    assert_eq!(jobs(&items), [3, 1]);
    assert_eq!(items[0].open.when_late().code, Code::Overloaded);
    planner.finish(done(ticket), now);
    assert!(planner.is_idle());
}

#[test]
fn queue_too_long_for_the_budget_is_refused() {
    let now = Instant::now();
    let mut planner = Planner::new(CAPS);
    let second = Duration::from_secs(1);
    for key in 0..25 {
        assert_eq!(planner.admit(&send(1, key, now), second), Ok(()));
        planner.push(send(1, key, now));
    }
    let more = send(1, 99, now);
    assert!(planner.admit(&more, second).is_err());
    let other = by("t", "bob", send(1, 99, now));
    let stranger = by("other", "carol", send(1, 99, now));
    for item in [&other, &stranger] {
        assert_eq!(planner.admit(item, second), Ok(()));
    }
    let (ticket, items) = batch(planner.next(now));
    assert_eq!(items.len(), 4);
    let slow = Done {
        took: Duration::from_millis(1900),
        ..done(ticket)
    };
    planner.finish(slow, now);
    let minute = Duration::from_secs(60);
    let mine = send(1, 99, now);
    assert!(planner.admit(&mine, second).is_err());
    assert_eq!(planner.admit(&mine, minute), Ok(()));
    // Users take turns, as tenants do: before one that has nothing waiting stands nothing of its own.
    for item in [&other, &stranger] {
        assert_eq!(planner.admit(item, second), Ok(()));
    }
    planner.push(by("t", "bob", send(2, 100, now)));
    assert!(planner.admit(&other, Duration::from_millis(100)).is_err());
    assert_eq!(planner.admit(&other, second), Ok(()));
}

#[test]
fn standstill_refuses_nothing_behind_it() {
    let now = Instant::now();
    let mut planner = Planner::new(CAPS);
    for job in 0..10 {
        planner.push(alone(None, job, now));
        let (ticket, _) = single(planner.next(now));
        let stood = Done {
            took: Duration::from_secs(5),
            ..done(ticket)
        };
        planner.finish(stood, now);
    }
    for job in 0..20 {
        planner.push(alone(Some(1), job, now));
    }
    let more = alone(None, 99, now);
    assert_eq!(planner.admit(&more, Duration::from_secs(1)), Ok(()));
}

#[test]
fn batch_takes_of_all_tenants_in_turn() {
    let now = Instant::now();
    let caps = Caps {
        batch_events: 64,
        batch_bytes: 1 << 20,
        queue_events: 10_000,
        ..CAPS
    };
    let mut planner = Planner::new(caps);
    for key in 0..200 {
        planner.push(by("loud", "mallory", send(1, key, now)));
    }
    planner.push(by("quiet", "alice", send(2, 1000, now)));
    planner.push(by("loud", "bob", send(3, 2000, now)));
    let (_, items) = batch(planner.next(now));
    assert_eq!(items.len(), 64);
    assert!(jobs(&items).contains(&1000) && jobs(&items).contains(&2000));
}

#[test]
fn no_tenant_holds_all_slots() {
    let now = Instant::now();
    let caps = Caps { slots: 4, ..CAPS };
    let mut planner = Planner::new(caps);
    for n in 0..20 {
        planner.push(by("loud", &format!("u{}", n % 5), alone(None, n, now)));
    }
    let mut tickets = Vec::new();
    for _ in 0..3 {
        tickets.push(single(planner.next(now)).0);
    }
    assert!(planner.next(now).is_none());
    planner.push(by("quiet", "alice", alone(None, 99, now)));
    let (ticket, item) = single(planner.next(now));
    assert_eq!(item.job, 99);
    planner.finish(done(ticket), now);
    assert!(planner.next(now).is_none());
    planner.finish(done(tickets.remove(0)), now);
    assert!(planner.next(now).is_some());
}

/// Carries out everything, one round after the other; gives the jobs in their order.
fn carry_out_all(planner: &mut Planner<u32>, now: Instant) -> Vec<u32> {
    let mut order = Vec::new();
    while !planner.is_idle() {
        let mut running = Vec::new();
        while let Some(work) = planner.next(now) {
            running.push(match work {
                Work::Batch(ticket, items) => (ticket, items),
                Work::Alone(ticket, item) => (ticket, vec![item]),
                Work::Expired(items) => panic!("nothing expires here: {items:?}"),
            });
        }
        assert!(!running.is_empty());
        for (ticket, items) in running {
            order.extend(jobs(&items));
            planner.finish(done(ticket), now);
        }
    }
    order
}

#[test]
fn send_passes_other_commands_of_its_conversation() {
    let now = Instant::now();
    let mut planner = Planner::new(CAPS);
    for job in 0..50 {
        planner.push(by("t", "mallory", alone(Some(1), job, now)));
    }
    planner.push(by("t", "bob", send(1, 1000, now)));
    let order = carry_out_all(&mut planner, now);
    let place = order.iter().position(|job| *job == 1000);
    assert!(place.unwrap() <= 1, "{order:?}");
}

#[test]
fn other_commands_of_two_users_alternate_in_a_conversation() {
    let now = Instant::now();
    for n in 0..8 {
        let mut planner = Planner::new(CAPS);
        for job in 0..50 {
            planner.push(by("t", "alice", alone(Some(1), job, now)));
        }
        planner.push(by("t", &format!("bob{n}"), alone(Some(1), 1000, now)));
        let order = carry_out_all(&mut planner, now);
        let place = order.iter().position(|job| *job == 1000);
        assert!(place.unwrap() <= 1, "{order:?}");
    }
}

#[test]
fn commands_behind_an_undone_one_are_refused_with_it() {
    let now = Instant::now();
    let mut planner = Planner::new(CAPS);
    for key in 0..6 {
        planner.push(send(1, key, now));
    }
    planner.push(by("t", "bob", send(1, 100, now)));
    let (ticket, items) = batch(planner.next(now));
    assert_eq!(jobs(&items), [0, 1, 2, 3]);
    let away = Refused {
        owner: owner("t", "alice"),
        conversation: conversation(1),
        failure: Failure::of(Code::Unavailable),
    };
    let done = Done {
        refused: vec![away],
        ..done(ticket)
    };
    planner.finish(done, now);
    let (ticket, items) = batch(planner.next(now));
    assert_eq!(jobs(&items), [100]);
    let Some(Work::Expired(items)) = planner.next(now) else {
        panic!("nothing was refused");
    };
    assert_eq!(jobs(&items), [4, 5]);
    let told = items.iter().map(|item| item.open.when_late().code);
    assert!(told.eq([Code::Unavailable; 2]));
    planner.finish(left_out(ticket, Vec::new()), now);
    assert!(planner.is_idle());
}

#[test]
fn slow_batch_opens_another_lane() {
    let now = Instant::now();
    let mut planner = Planner::new(CAPS);
    planner.push(send(1, 1, now));
    let (_silent, _items) = batch(planner.next(now));
    planner.push(send(2, 2, now));
    assert!(planner.next(now).is_none());
    let at = planner.next_retry().unwrap();
    assert_eq!(at, now + MAX_BATCH_WAIT);
    assert_eq!(jobs(&batch(planner.next(at)).1), [2]);
    assert_eq!(planner.next_retry(), None);
}

/// What a run of the planner has shown so far.
#[derive(Default)]
struct Witness {
    running: Vec<(Ticket, Vec<Item<u32>>)>,
    seen: HashMap<(Owner, Option<ConversationId>), Vec<u32>>,
}

impl Witness {
    fn take(&mut self, planner: &mut Planner<u32>, now: Instant) {
        while let Some(work) = planner.next(now) {
            let (ticket, items) = match work {
                Work::Batch(ticket, items) => (ticket, items),
                Work::Alone(ticket, item) => (ticket, vec![item]),
                Work::Expired(items) => panic!("nothing expires here: {items:?}"),
            };
            assert!(items.len() <= CAPS.batch_events);
            assert!(
                items.len() == 1
                    || items.iter().map(|i| i.bytes).sum::<usize>() <= CAPS.batch_bytes
            );
            for (_, others) in &self.running {
                let both = others
                    .iter()
                    .flat_map(|one| items.iter().map(move |other| (one, other)));
                for (one, other) in both {
                    let at_once = one.conversation.is_some()
                        && one.conversation == other.conversation
                        && one.owner.tenant == other.owner.tenant;
                    assert!(!at_once, "two at once");
                }
            }
            self.running.push((ticket, items));
        }
    }

    /// Ends something that runs; what is in a conversation that is `locked` is left out.
    fn end_one(
        &mut self,
        planner: &mut Planner<u32>,
        which: usize,
        locked: Option<ConversationId>,
        now: Instant,
    ) {
        if self.running.is_empty() {
            return;
        }
        let (ticket, items) = self.running.remove(which % self.running.len());
        let is_skipped = |item: &Item<u32>| {
            ticket.locking == Locking::Skip && locked.is_some() && item.conversation == locked
        };
        let (skipped, carried_out): (Vec<_>, Vec<_>) = items.into_iter().partition(is_skipped);
        for item in &carried_out {
            let order = (item.owner.clone(), item.conversation);
            self.seen.entry(order).or_default().push(item.job);
        }
        planner.finish(left_out(ticket, skipped), now);
    }
}

proptest! {
    #[test]
    fn every_owner_keeps_its_order_and_nothing_is_lost(
        steps in prop::collection::vec(
            (0u8..6, 0u8..8, 0usize..3, 1usize..80, any::<prop::sample::Index>()), 1..200
        )
    ) {
        let mut now = Instant::now();
        let begin = now;
        let mut planner = Planner::new(CAPS);
        let mut witness = Witness::default();
        let mut pushed: HashMap<(Owner, Option<ConversationId>), Vec<u32>> = HashMap::new();
        let far = now + Duration::from_secs(3600);
        for (n, (of, what, user, bytes, which)) in (0u32..).zip(steps) {
            let item = match what {
                0 => alone(Some(of), n, far),
                1 => alone(None, n, far),
                2 => send(of, 0, far),
                _ => send(of, n, far),
            };
            let (tenant, user) = [("t", "alice"), ("t", "bob"), ("u", "carol")][user];
            let item = by(tenant, user, Item { bytes, job: n, ..item });
            pushed.entry((item.owner.clone(), item.conversation)).or_default().push(n);
            planner.push(item);
            now += Duration::from_millis(3);
            if what % 2 == 0 {
                witness.take(&mut planner, now);
            }
            if what > 4 {
                let locked = (what > 5).then(|| conversation(of));
                witness.end_one(&mut planner, which.index(100), locked, now);
            }
        }
        while !planner.is_idle() {
            now = planner.next_retry().unwrap_or(now).max(now);
            witness.take(&mut planner, now);
            witness.end_one(&mut planner, 0, None, now);
            prop_assert!(now < begin + Duration::from_secs(3600));
        }
        for jobs in witness.seen.iter_mut().filter(|((_, of), _)| of.is_none()) {
            jobs.1.sort_unstable();
        }
        prop_assert_eq!(&witness.seen, &pushed);
        prop_assert!(planner.queues.is_empty());
        prop_assert_eq!((planner.sends.all(), planner.singles.all()), Default::default());
    }
}
