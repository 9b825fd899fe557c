//! Sessions that open: those that name little do not wait behind those that name much.

use super::*;
use crate::hub::coordinator::OpeningSize;

/// Opens a session of a user that says what it has of so many conversations.
fn open(world: &mut World, user: &str, positions: u128) -> SessionKey {
    world.keys += 1;
    let key = SessionKey(world.keys);
    let seen = (0..positions).map(|n| (ConversationId(Uuid::from_u128(n)), 1));
    world.hub.open(Opening {
        key,
        account: Account {
            tenant: "t".parse().unwrap(),
            user: user.parse().unwrap(),
        },
        send_queue: Arc::new(SendQueue::new(Encoding::Json, 1000)),
        start: Start {
            seen: seen.collect(),
            ..Start::default()
        },
    });
    key
}

/// The questions that openings go with, each with its sessions.
fn asked(world: &mut World) -> Vec<(OpeningSize, Vec<SessionKey>)> {
    let effects = world.hub.effects().into_iter();
    let asks = effects.filter_map(|effect| match effect {
        Effect::MembershipQuery(MembershipQuery {
            purpose: Purpose::Opening(size, keys),
            ..
        }) => Some((size, keys)),
        _ => None,
    });
    asks.collect()
}

fn answer(world: &mut World, next: Option<ConversationId>) {
    let asks: Vec<_> = world
        .hub
        .effects()
        .into_iter()
        .filter_map(|effect| match effect {
            Effect::MembershipQuery(ask) => Some(ask),
            _ => None,
        })
        .collect();
    for ask in asks {
        let answers = ask.of.iter().map(|_| UserMemberships {
            memberships: Vec::new(),
            next,
            ended: Vec::new(),
        });
        let answers = answers.collect();
        world.hub.memberships(ask, answers);
    }
}

#[test]
fn small_opening_goes_at_once_beside_large_ones() {
    let mut world = World::new(0, NO_LIMITS, usize::MAX);
    for n in 0..50 {
        open(&mut world, &format!("loud{n}"), 10_000);
    }
    let large = asked(&mut world);
    assert!(large.iter().all(|(size, _)| *size == OpeningSize::Large));
    assert_eq!(large.len(), 2, "the others wait");
    assert_eq!(world.hub.waiting_openings(), [0, 48]);
    let quiet = open(&mut world, "quiet", 20);
    assert_eq!(asked(&mut world), [(OpeningSize::Small, vec![quiet])]);
}

#[test]
fn session_of_many_pages_waits_among_large() {
    let mut world = World::new(0, NO_LIMITS, usize::MAX);
    let key = open(&mut world, "ann", 0);
    answer(&mut world, Some(ConversationId(Uuid::from_u128(7))));
    assert_eq!(asked(&mut world), [(OpeningSize::Large, vec![key])]);
}

#[test]
fn storm_shares_queries_despite_stuck_one() {
    let mut world = World::new(0, NO_LIMITS, usize::MAX);
    let first = open(&mut world, "first", 0);
    assert_eq!(asked(&mut world), [(OpeningSize::Small, vec![first])]);
    let few: Vec<_> = (0..15)
        .map(|n| open(&mut world, &format!("u{n}"), 0))
        .collect();
    assert_eq!(asked(&mut world), [], "they wait for others");
    world.hub.tick(Instant::now());
    let asks = asked(&mut world);
    assert_eq!(asks.len(), 1, "not for the answer of a stuck question");
    assert_eq!(asks[0].1.len(), few.len());
    for n in 0..32 {
        open(&mut world, &format!("v{n}"), 0);
    }
    assert_eq!(asked(&mut world)[0].1.len(), 32);
}
