use proptest::prelude::*;

use super::*;

const BASE_PERIOD: Duration = Duration::from_secs(300);

fn position(n: u128, seq: u64) -> Position {
    Position {
        conversation: ConversationId(Uuid::from_u128(n)),
        joined: 1,
        seq,
    }
}

fn positions(count: u128, seq: u64) -> Vec<Position> {
    (0..count).map(|n| position(n, seq)).collect()
}

fn user() -> Uuid {
    Uuid::from_u128(7)
}

#[test]
fn similar_sessions_share_base_put_once_per_period() {
    let (bases, start) = (Bases::new(BASE_PERIOD), Instant::now());
    let mut all = positions(1000, 5);
    let first = bases.plan(user(), &all, start).unwrap();
    assert!(first.put.is_some() && first.is_new);
    // Until it is known to stand, every record puts it.
    assert!(bases.plan(user(), &all, start).unwrap().put.is_some());
    bases.stored(first.name, start, 1.0);
    all[3] = position(3, 9);
    all.pop();
    let second = bases.plan(user(), &all, start).unwrap();
    assert_eq!(
        (second.name, second.put, second.is_new),
        (first.name, None, false)
    );
    assert_eq!(second.difference.differs, [position(3, 9)]);
    assert_eq!(second.difference.gone.len(), 1);
    let later = bases.plan(user(), &all, start + BASE_PERIOD).unwrap();
    assert!(later.put.is_some() && !later.is_new);
    bases.stored(first.name, start + BASE_PERIOD, 1.0);
    bases.lost(start + BASE_PERIOD);
    let lost = bases.plan(user(), &all, start + BASE_PERIOD).unwrap();
    assert!(lost.put.is_some(), "the bucket may have lost it");
    let others = bases.plan(Uuid::from_u128(8), &all, start).unwrap();
    assert!(others.is_new, "another user's is another");
}

#[test]
fn dissimilar_record_gets_own_base() {
    let (bases, start) = (Bases::new(BASE_PERIOD), Instant::now());
    for n in 0..20_u64 {
        let plan = bases.plan(user(), &positions(1000, n), start + Duration::from_secs(n));
        assert!(plan.unwrap().is_new);
    }
    let known = &bases.lock().users[&user()];
    assert_eq!(known.len(), MAX_OF_USER);
}

#[test]
fn known_bases_are_bounded() {
    let (bases, start) = (Bases::new(BASE_PERIOD), Instant::now());
    let many = positions(20_000, 1);
    for n in 0..150_u64 {
        let at = start + Duration::from_secs(n);
        bases.plan(Uuid::from_u128(n.into()), &many, at).unwrap();
        assert!(bases.lock().count() <= MAX_POSITIONS);
    }
    let newest = bases.plan(Uuid::from_u128(149), &many, start).unwrap();
    assert!(!newest.is_new);
}

#[test]
fn base_bytes_must_match_their_name() {
    let base = Base::of(&positions(40, 3));
    let (name, bytes) = base.encode().unwrap();
    assert_eq!(Base::decode(name, &bytes), Some(base));
    let other = Base::of(&positions(40, 4)).encode().unwrap().1;
    for junk in [&b""[..], b"\x01", &other, &bytes[..bytes.len() - 1]] {
        assert_eq!(Base::decode(name, junk), None);
    }
}

proptest! {
    #[test]
    fn every_difference_gives_back_the_positions(
        one in prop::collection::btree_map(0..40_u128, 0..3_u64, 0..40),
        other in prop::collection::btree_map(0..40_u128, 0..3_u64, 0..40),
    ) {
        let all = |map: &std::collections::BTreeMap<u128, u64>| {
            map.iter().map(|(n, seq)| position(*n, *seq)).collect::<Vec<_>>()
        };
        let (base, other) = (Base::of(&all(&one)), Base::of(&all(&other)));
        let difference = base.difference(&other);
        prop_assert!(difference.len() <= base.0.len() + other.0.len());
        prop_assert_eq!(base.with(difference), other.0);
    }
}
