//! What is locked waits apart, and in few places for its lock.

use super::*;

#[test]
fn locked_log_waits_apart_then_for_its_lock() {
    let now = Instant::now();
    let mut planner = Planner::new(CAPS);
    for key in [1, 2] {
        planner.push(send(1, key, now));
    }
    planner.push(send(2, 3, now));
    let (ticket, mut items) = batch(planner.next(now));
    let free = items.pop().unwrap();
    assert_eq!(free.job, 3);
    planner.finish(left_out(ticket, items), now);
    planner.push(send(1, 4, now));
    assert_eq!((planner.waiting(), planner.postponed()), (0, 3));
    // Others do not wait.
    planner.push(send(2, 5, now));
    let (ticket, items) = batch(planner.next(now));
    assert_eq!(jobs(&items), [5]);
    planner.finish(done(ticket), now);

    let at = retry(&planner, now);
    let (ticket, items) = batch(planner.next(at));
    assert_eq!((ticket.locking, jobs(&items)), (Locking::Skip, vec![1]));
    assert_eq!(planner.postponed(), 0);
    planner.finish(left_out(ticket, items), at);
    let later = retry(&planner, at);
    let (ticket, items) = batch(planner.next(later));
    assert_eq!(
        (ticket.locking, jobs(&items)),
        (Locking::Wait, vec![1, 2, 4])
    );
    planner.push(send(1, 6, now));
    assert!(planner.next(later).is_none());
    planner.finish(done(ticket), later);
    let (ticket, items) = batch(planner.next(later));
    assert_eq!((ticket.locking, jobs(&items)), (Locking::Skip, vec![6]));
    planner.finish(done(ticket), later);
    assert!(planner.is_idle());
}

#[test]
fn no_user_holds_all_waiting_places() {
    let now = Instant::now();
    let caps = Caps {
        places: 8,
        batch_events: 100,
        ..CAPS
    };
    let mut planner = Planner::new(caps);
    let users = [
        ("t", "alice"),
        ("t", "bob"),
        ("t", "carol"),
        ("other", "dave"),
    ];
    for (n, (tenant, user)) in (0_u8..).zip(users) {
        for m in 0..5 {
            let of = n * 5 + m;
            planner.push(by(tenant, user, send(of, of.into(), now)));
        }
    }
    let mut held: HashMap<Owner, usize> = HashMap::new();
    let mut at = now;
    for _ in 0..50 {
        while let Some(work) = planner.next(at) {
            let (ticket, items) = batch(Some(work));
            match ticket.locking {
                Locking::Skip => planner.finish(left_out(ticket, items), at),
                Locking::Wait => *held.entry(items[0].owner.clone()).or_default() += 1,
            }
        }
        at = planner.next_retry().unwrap_or(at);
    }
    assert!(held.values().all(|count| *count <= 2), "{held:?}");
    let of_tenant = |tenant: &str| {
        let all = held
            .iter()
            .filter(|(owner, _)| owner.tenant.as_str() == tenant);
        all.map(|(_, count)| count).sum::<usize>()
    };
    assert_eq!((of_tenant("t"), of_tenant("other")), (4, 2));
}

#[test]
fn stranger_takes_no_place_in_a_locked_log() {
    let now = Instant::now();
    let caps = Caps {
        queue_events: 10_000,
        queue_bytes: 1 << 20,
        ..CAPS
    };
    let mut planner = Planner::new(caps);
    planner.push(send(1, 1, now));
    let (ticket, items) = batch(planner.next(now));
    planner.finish(left_out(ticket, items), now);
    let hour = Duration::from_secs(3600);
    let mut taken = 0;
    for key in 0..1000 {
        let item = by("t", "mallory", send(1, key, now));
        if planner.admit(&item, hour).is_ok() {
            planner.push(item);
            taken += 1;
        }
    }
    assert_eq!(taken, MAX_POSTPONED.events);
    assert_eq!(planner.admit(&send(1, 2, now), hour), Ok(()));
}

#[test]
fn doubt_stays_until_a_run_decides() {
    let skipped = Open {
        is_unknown: false,
        skipped: Some(Failure::of(Code::IdempotencyInProgress)),
    };
    assert_eq!(skipped.when_late().code, Code::IdempotencyInProgress);
    let doubted = Open {
        is_unknown: true,
        ..skipped
    };
    assert_eq!(doubted.when_late().code, Code::Timeout);
}

#[test]
fn foreign_tenant_takes_no_part_in_a_waiting_place() {
    let now = Instant::now();
    for n in 0..16 {
        let mut planner = Planner::new(CAPS);
        planner.push(send(1, 1, now));
        planner.push(by("other", &format!("m{n}"), send(1, 2, now)));
        let mut at = now;
        let waiting = loop {
            let (ticket, items) = batch(planner.next(at));
            if ticket.locking == Locking::Wait {
                break items;
            }
            planner.finish(left_out(ticket, items), at);
            at = planner.next_retry().unwrap();
        };
        let tenant = waiting[0].owner.tenant.clone();
        assert!(waiting.iter().all(|item| item.owner.tenant == tenant));
    }
}

#[test]
fn backlog_of_waiting_log_fills_nobodys_share() {
    let now = Instant::now();
    let caps = Caps {
        queue_events: 800,
        queue_bytes: 1 << 30,
        ..CAPS
    };
    let mut planner = Planner::new(caps);
    let hour = Duration::from_secs(3600);
    planner.push(by("t", "u0", send(1, 0, now)));
    let (ticket, items) = batch(planner.next(now));
    planner.finish(left_out(ticket, items), now);
    let mut at = now;
    let held = loop {
        at = planner.next_retry().unwrap().max(at);
        let (ticket, items) = batch(planner.next(at));
        if ticket.locking == Locking::Wait {
            break ticket;
        }
        planner.finish(left_out(ticket, items), at);
    };
    for (n, user) in (0..1000).zip((0..4).cycle()) {
        let item = by("t", &format!("u{user}"), send(1, n, now));
        if planner.admit(&item, hour).is_ok() {
            planner.push(item);
        }
    }
    assert_eq!(planner.waiting(), 0);
    assert!(planner.postponed() >= 400);
    let elsewhere = by("t", "innocent", send(7, 1, now));
    assert_eq!(planner.admit(&elsewhere, hour), Ok(()));
    planner.finish(done(held), at);
    assert_eq!(planner.postponed(), 0);
}

#[test]
fn locked_log_is_tried_with_one_command() {
    let now = Instant::now();
    let mut planner = Planner::new(CAPS);
    for key in 0..20 {
        planner.push(send(1, key, now));
    }
    let (ticket, items) = batch(planner.next(now));
    planner.finish(left_out(ticket, items), now);
    let at = retry(&planner, now);
    let (ticket, items) = batch(planner.next(at));
    assert_eq!((ticket.locking, jobs(&items)), (Locking::Skip, vec![0]));
    planner.finish(done(ticket), at);
    assert_eq!(jobs(&batch(planner.next(at)).1), [1, 2, 3, 4]);
}
