//! Many sessions in one conversation: what a session does there must not cost more the more others are there.

use super::*;

/// Opens sessions of as many users in one conversation, breaks the feed, and ends them.
fn storm(users: usize) {
    let mut world = World::new(0, ALL, usize::MAX);
    let log = &mut world.logs[0];
    log.append(EventType::ConversationCreated, "{}".into());
    for user in 0..users {
        log.memberships.insert(user, vec![(1, None)]);
    }
    for user in 0..users {
        world.open(user);
    }
    answer_all(&mut world, users);
    world.hub.reconcile();
    answer_all(&mut world, users);
    for client in &world.clients {
        let key = client.key.unwrap();
        assert_eq!(world.hub.positions(key).len(), 1);
        world.hub.close(key);
    }
    assert_eq!(world.hub.conversation_count(), 0);
}

fn answer_all(world: &mut World, members: usize) {
    loop {
        let effects = world.hub.effects();
        let asks = effects.into_iter().filter_map(|effect| match effect {
            Effect::Ask(ask) => Some(ask),
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

/// With entries in a list, 8,000 sessions took 100 times as long as 1,000: eleven seconds unoptimised, half a second now. So
/// many are opened here that anyone who waits for this test would notice.
#[test]
fn thousands_of_sessions_in_one_conversation_come_and_go() {
    storm(8000);
}
