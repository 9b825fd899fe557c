//! Arrivals of all patterns: whatever comes, the rates, the waits and the order hold.

use proptest::prelude::*;

use super::*;

const TEST_RATES: Rates = Rates {
    resumes: 50,
    fresh: 20,
};

fn tenant(n: usize) -> TenantId {
    format!("t{n}").parse().unwrap()
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Someone who came, and what it was told.
#[derive(Debug, Clone, Copy)]
struct Arrival {
    kind: Kind,
    at: Duration,
    turn: ConnectSlot,
}

fn arrive_all(steps: &[(bool, u64, f64)]) -> Vec<Arrival> {
    let mut gate = ConnectSchedule::new(TEST_RATES);
    let mut at = Duration::ZERO;
    let arrivals = steps.iter().map(|(resumes, later, chance)| {
        at += ms(*later);
        let kind = if *resumes { Kind::Resume } else { Kind::Fresh };
        let turn = gate.arrive(kind, &tenant(0), at, *chance);
        Arrival { kind, at, turn }
    });
    arrivals.collect()
}

/// When those of a kind come in, in their order.
fn entries(arrivals: &[Arrival], kind: Kind) -> Vec<Duration> {
    let of = arrivals.iter().filter(|arrival| arrival.kind == kind);
    of.filter_map(|arrival| match arrival.turn {
        ConnectSlot::In(wait) => Some(arrival.at + wait),
        ConnectSlot::Again(_) => None,
    })
    .collect()
}

/// Storms, trickles and pauses.
fn steps() -> impl Strategy<Value = Vec<(bool, u64, f64)>> {
    let later = prop_oneof![6 => Just(0_u64), 3 => 0..30_u64, 1 => 0..3000_u64];
    prop::collection::vec((any::<bool>(), later, 0.0..1.0_f64), 1..600)
}

proptest! {
    #[test]
    fn no_kind_comes_in_faster_than_its_rate(steps in steps()) {
        let arrivals = arrive_all(&steps);
        for (kind, rate) in [(Kind::Resume, TEST_RATES.resumes), (Kind::Fresh, TEST_RATES.fresh)] {
            let entries = entries(&arrivals, kind);
            prop_assert!(entries.is_sorted(), "first come, first in");
            let pace = Duration::from_secs(1) / rate;
            for (n, first) in entries.iter().enumerate() {
                for (m, last) in entries.iter().enumerate().skip(n + 1) {
                    let least = (pace * u32::try_from(m - n).unwrap()).saturating_sub(UNUSED_SLOT_LIFETIME);
                    prop_assert!(*last - *first >= least);
                }
            }
        }
    }

    #[test]
    fn waits_are_bounded_and_refusals_were_necessary(steps in steps()) {
        for arrival in arrive_all(&steps) {
            match arrival.turn {
                ConnectSlot::In(wait) => prop_assert!(wait <= MAX_CONNECT_WAIT),
                ConnectSlot::Again(after) => {
                    prop_assert!(after >= MAX_CONNECT_WAIT.mul_f64(0.75));
                    prop_assert!(after <= MAX_RETRY_AFTER.mul_f64(1.25));
                }
            }
        }
    }

    #[test]
    fn resumes_do_not_wait_for_new_sessions(steps in steps()) {
        let arrivals = arrive_all(&steps);
        let mut alone = ConnectSchedule::new(TEST_RATES);
        let mut resumes_until = Duration::ZERO;
        for (arrival, (.., chance)) in arrivals.iter().zip(&steps) {
            match (arrival.kind, arrival.turn) {
                (Kind::Resume, turn) => {
                    prop_assert_eq!(turn, alone.arrive(Kind::Resume, &tenant(0), arrival.at, *chance));
                    if let ConnectSlot::In(wait) = turn {
                        resumes_until = arrival.at + wait;
                    }
                }
                (Kind::Fresh, ConnectSlot::In(wait)) => prop_assert!(arrival.at + wait >= resumes_until),
                (Kind::Fresh, ConnectSlot::Again(_)) => {}
            }
        }
    }

    #[test]
    fn connects_below_rate_do_not_wait(gaps in prop::collection::vec(20..200_u64, 1..100)) {
        let steps: Vec<_> = gaps.iter().map(|gap| (true, *gap, 0.5)).collect();
        for arrival in arrive_all(&steps) {
            prop_assert_eq!(arrival.turn, ConnectSlot::In(Duration::ZERO));
        }
    }
}

#[test]
fn storm_connects_at_rate_despite_refusals() {
    let mut gate = ConnectSchedule::new(TEST_RATES);
    // Everyone comes at once, and comes again when told to; entries are counted by second.
    let mut waiting: Vec<_> = (0..1000).map(|n| (Duration::ZERO, n)).collect();
    let (mut entered, mut tries) = (Vec::new(), 0);
    while let Some((at, n)) = waiting.pop() {
        tries += 1;
        let chance = f64::from(n % 100) / 100.0;
        match gate.arrive(Kind::Resume, &tenant(0), at, chance) {
            ConnectSlot::In(wait) => entered.push(at + wait),
            ConnectSlot::Again(after) => waiting.push((at + after, n)),
        }
        waiting.sort_unstable_by(|a, b| b.cmp(a));
    }
    let last = entered.iter().max().unwrap();
    assert_eq!(entered.len(), 1000);
    assert!(*last >= Duration::from_secs(19), "{last:?}");
    assert!(*last < Duration::from_secs(40), "{last:?}: turns are lost");
    assert!(tries < 3000, "{tries}: they come again in vain");
}

#[test]
fn storm_of_a_tenant_leaves_room_for_others() {
    let mut gate = ConnectSchedule::new(TEST_RATES);
    let now = Duration::from_secs(1);
    let mut come = |n: usize, kind| gate.arrive(kind, &tenant(n), now, 0.5);
    for storm in 0..3 {
        let turns: Vec<_> = (0..1000).map(|_| come(storm, Kind::Resume)).collect();
        let let_in = turns
            .iter()
            .filter(|turn| matches!(turn, ConnectSlot::In(_)));
        assert!(let_in.count() > 10, "each has a share");
        assert!(matches!(turns.last(), Some(ConnectSlot::Again(_))));
    }
    for kind in [Kind::Resume, Kind::Fresh] {
        for _ in 0..3 {
            let turn = come(9, kind);
            assert!(
                matches!(turn, ConnectSlot::In(wait) if wait <= 2 * MAX_CONNECT_WAIT),
                "{turn:?}"
            );
        }
    }
}
