use proptest::prelude::*;

use super::*;

const SLOTS: usize = 8;
/// How long a query takes.
const TOOK: Duration = Duration::from_millis(20);

type Queue = QueryQueue<(usize, usize)>;

fn pages() -> Queue {
    QueryQueue::new(QueryKind::Page, SLOTS)
}

fn share((tenant, user): (usize, usize)) -> Option<QueryShare> {
    Some(QueryShare {
        tenant: format!("t{tenant}").parse().unwrap(),
        user: Some(format!("u{user}").parse().unwrap()),
    })
}

fn push(queue: &mut Queue, who: (usize, usize), count: usize) {
    for _ in 0..count {
        queue.push(share(who), soon(), who).unwrap();
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// Begins whatever has a slot.
fn begin(queue: &mut Queue) -> Vec<(Slot, (usize, usize))> {
    let mut begun = Vec::new();
    while let Some(next) = queue.next(Instant::now()) {
        match next {
            Next::Run(slot, who, _) => begun.push((slot, who)),
            Next::Expired(who) => panic!("{who:?}"),
        }
    }
    begun
}

fn count(begun: &[(Slot, (usize, usize))], tenant: usize) -> usize {
    begun.iter().filter(|(_, who)| who.0 == tenant).count()
}

#[test]
fn newcomer_begins_beside_a_flood_at_once() {
    let mut queue = pages();
    for user in 0..50 {
        push(&mut queue, (0, user), 10);
    }
    let flood = begin(&mut queue);
    assert_eq!(flood.len(), SLOTS - 1);
    push(&mut queue, (1, 0), 1);
    let begun = begin(&mut queue);
    assert_eq!(begun.len(), 1);
    assert_eq!(begun[0].1, (1, 0));
}

#[test]
fn user_alone_leaves_a_slot_of_its_tenants() {
    let mut queue = pages();
    push(&mut queue, (0, 0), 100);
    assert_eq!(begin(&mut queue).len(), SLOTS - 2);
    push(&mut queue, (0, 1), 1);
    let begun = begin(&mut queue);
    assert_eq!(begun.len(), 1);
    assert_eq!(begun[0].1, (0, 1));
}

#[test]
fn tenants_that_wait_have_half_and_users_a_quarter() {
    let mut queue = pages();
    for tenant in 0..2 {
        for user in 0..3 {
            push(&mut queue, (tenant, user), 200);
        }
    }
    let mut running = begin(&mut queue);
    for _ in 0..200 {
        assert_eq!(running.len(), SLOTS);
        for tenant in 0..2 {
            assert!(count(&running, tenant) <= SLOTS / 2);
            for user in 0..3 {
                let of_user = running.iter().filter(|(_, who)| *who == (tenant, user));
                assert!(of_user.count() <= SLOTS / 4);
            }
        }
        queue.finish(running.remove(0).0, TOOK);
        running.extend(begin(&mut queue));
    }
}

#[test]
fn costly_queries_are_paid_in_later_turns() {
    let mut queue = QueryQueue::new(QueryKind::Page, 2);
    push(&mut queue, (0, 0), 100);
    push(&mut queue, (1, 0), 100);
    let mut served = [0; 2];
    let mut running = begin(&mut queue);
    while served[1] < 90 {
        let (slot, who) = running.remove(0);
        served[who.0] += 1;
        let cost = if who.0 == 0 { 50 } else { 1 };
        queue.finish(slot, TOOK * cost);
        running.extend(begin(&mut queue));
    }
    // Either has a slot: what costs much takes no turn of the other.
    assert!(served[0] <= 100, "{served:?}");
}

#[test]
fn what_expired_is_given_back_and_takes_no_slot() {
    let mut queue = pages();
    let now = Instant::now();
    queue.push(share((0, 0)), now, (0, 0)).unwrap();
    assert!(matches!(queue.next(now), Some(Next::Expired((0, 0)))));
    assert_eq!((queue.waiting(), queue.running()), (0, 0));
}

#[test]
fn each_is_refused_at_its_own_bound() {
    let mut queue = pages();
    push(&mut queue, (0, 0), MAX_WAITING_OF_USER);
    queue.push(share((0, 0)), soon(), (0, 0)).unwrap_err();
    for user in 1..4 {
        push(&mut queue, (0, user), MAX_WAITING_OF_USER);
    }
    queue.push(share((0, 4)), soon(), (0, 4)).unwrap_err();
    push(&mut queue, (1, 0), 1);
}

#[test]
fn gateways_queries_of_no_tenant_come_first() {
    let mut queue = QueryQueue::new(QueryKind::Session, 4);
    push(&mut queue, (0, 0), 10);
    assert_eq!(begin(&mut queue).len(), 3);
    queue.push(None, soon(), (9, 9)).unwrap();
    push(&mut queue, (1, 0), 1);
    let begun = begin(&mut queue);
    assert_eq!(begun.len(), 1);
    assert_eq!(begun[0].1, (9, 9));
}

#[test]
fn tenants_sessions_are_of_no_user() {
    let mut queue = QueryQueue::new(QueryKind::Session, 4);
    for _ in 0..10 {
        let share = QueryShare {
            user: None,
            ..share((0, 0)).unwrap()
        };
        queue.push(Some(share), soon(), (0, 0)).unwrap();
    }
    assert_eq!(begin(&mut queue).len(), 3);
}

#[test]
fn single_slot_serves_everybody() {
    let mut queue = QueryQueue::new(QueryKind::Page, 1);
    for who in [(0, 0), (0, 1), (1, 0)] {
        push(&mut queue, who, 2);
    }
    let mut served = 0;
    while let Some((slot, _)) = begin(&mut queue).pop() {
        queue.finish(slot, TOOK);
        served += 1;
    }
    assert_eq!(served, 6);
}

proptest! {
    #[test]
    fn every_query_is_served_once(steps in prop::collection::vec((0..3_usize, 0..3_usize, any::<bool>()), 1..300), slots in 1..9_usize) {
        let mut queue = QueryQueue::new(QueryKind::Page, slots);
        let (mut pushed, mut served, mut running) = (0, 0, Vec::new());
        for (tenant, user, finishes) in steps {
            push(&mut queue, (tenant, user), 1);
            pushed += 1;
            running.extend(begin(&mut queue));
            prop_assert!(running.len() <= slots);
            if finishes && let Some((slot, _)) = running.pop() {
                queue.finish(slot, TOOK);
                served += 1;
            }
        }
        running.extend(begin(&mut queue));
        while let Some((slot, _)) = running.pop() {
            queue.finish(slot, TOOK);
            served += 1;
            running.extend(begin(&mut queue));
        }
        prop_assert_eq!(pushed, served);
        prop_assert_eq!((queue.waiting(), queue.running()), (0, 0));
        prop_assert!(queue.running.all() == 0 && queue.waiting.all() == 0);
    }
}
