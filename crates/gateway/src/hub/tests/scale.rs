//! Many sessions in one conversation: what a session does there must not cost more the more others are there.

use super::*;

/// Opens sessions of as many users in one conversation, breaks the feed, and ends them.
fn storm(users: usize) {
    let mut world = World::new(0, NO_LIMITS, usize::MAX);
    let log = &mut world.logs[0];
    log.append(EventType::ConversationCreated, "{}".into());
    for user in 0..users {
        log.memberships.insert(user, vec![(1, None)]);
    }
    for user in 0..users {
        world.open(user);
    }
    answer_all(&mut world, users);
    world.hub.breaks(None);
    answer_all(&mut world, users);
    for client in &world.clients {
        let key = client.key.unwrap();
        world.hub.close(key);
        let gathered = world.hub.take_gathered();
        let positions: usize = gathered.iter().map(|(.., of)| of.len()).sum();
        assert_eq!((gathered.len(), positions), (1, 1));
    }
    assert_eq!(world.hub.conversation_count(), 0);
}

fn answer_all(world: &mut World, members: usize) {
    loop {
        let effects = world.hub.effects();
        let asks = effects.into_iter().filter_map(|effect| match effect {
            Effect::MembershipQuery(ask) => Some(ask),
            _ => None,
        });
        let asks: Vec<_> = asks.collect();
        if asks.is_empty() {
            return;
        }
        for ask in asks {
            let membership = Membership {
                conversation: conversation(0),
                joined: 1,
                left: None,
                head: 1,
                members: members as u64,
            };
            let answer = UserMemberships {
                memberships: vec![membership],
                next: None,
                ended: vec![],
            };
            let answers = vec![answer; ask.of.len()];
            world.hub.memberships(ask, answers);
        }
    }
}

/// With subscriptions in a list, 8,000 sessions took 100 times as long as 1,000: eleven seconds unoptimised, half a second now. So
/// many are opened here that anyone who waits for this test would notice.
#[test]
fn thousands_of_sessions_come_and_go() {
    storm(8000);
}

/// Opens a session of a user beside the clients.
fn open_of(world: &mut World, tenant: &str, user: usize) {
    world.keys += 1;
    world.hub.open(Opening {
        key: SessionKey(world.keys),
        account: Account {
            tenant: tenant.parse().unwrap(),
            user: format!("u{user}").parse().unwrap(),
        },
        send_queue: Arc::new(SendQueue::new(Encoding::Json, 1 << 20)),
        start: Start::default(),
    });
}

/// The questions for memberships that the hub has since the last look.
fn asks(world: &mut World) -> Vec<MembershipQuery> {
    let effects = world.hub.effects().into_iter();
    let ask = |effect| match effect {
        Effect::MembershipQuery(ask) => Some(ask),
        _ => None,
    };
    effects.filter_map(ask).collect()
}

#[test]
fn opening_passes_flood_of_another_tenant() {
    let mut world = World::new(0, NO_LIMITS, usize::MAX);
    for user in 0..2000 {
        open_of(&mut world, "flood", user);
    }
    let mut on_their_way = asks(&mut world);
    open_of(&mut world, "other", 0);
    assert!(asks(&mut world).is_empty());
    let first = on_their_way.remove(0);
    let nothing = UserMemberships {
        memberships: vec![],
        next: None,
        ended: vec![],
    };
    let answers = vec![nothing; first.of.len()];
    world.hub.memberships(first, answers);
    let next = asks(&mut world);
    let mut asked = next.iter().flat_map(|ask| &ask.of);
    assert!(asked.any(|of| of.tenant.as_str() == "other"));
}
