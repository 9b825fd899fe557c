//! A user's devices act as one: receipts never go back, and typing lasts while any device types.

use confab_client::Notice;
use confab_protocol::ids::{ConversationId, Seq, UserId};

use super::{WAIT_TIMEOUT, hears, of, receipt, typing};
use crate::support::{Cluster, Member, Setup};

/// What a member heard of a user's read marks, in that order.
fn receipts(member: &Member, conversation: ConversationId, user: &UserId) -> Vec<Seq> {
    let heard = of(member, conversation).into_iter();
    let of = heard.filter_map(|notice| match notice {
        Notice::Receipt(signal) if signal.user_id == *user => Some(signal.up_to_seq),
        _ => None,
    });
    of.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receipts_never_go_back_between_gateways() {
    let cluster = Cluster::start(Setup::default()).await;
    let alice = cluster.user("alice");
    let (phone, laptop) = (alice.on(0).await, alice.on(1).await);
    let bob = cluster.user("bob").on(1).await;
    let others = std::slice::from_ref(&bob.id);
    let (room, marker) = (
        bob_joins(&phone, others).await,
        bob_joins(&phone, others).await,
    );
    for conversation in [room, marker] {
        for member in [&phone, &laptop, &bob] {
            member.hears(conversation, 10, WAIT_TIMEOUT).await;
        }
    }

    phone.session.read(room, 3).await.unwrap();
    // Held back by the phone's gateway until a second is over.
    phone.session.read(room, 5).await.unwrap();
    laptop.session.read(room, 9).await.unwrap();
    // What is held back here goes behind it.
    phone.session.read(marker, 3).await.unwrap();
    phone.session.read(marker, 4).await.unwrap();
    for member in [&bob, &phone, &laptop] {
        hears(member, &receipt(room, &alice.id, 9)).await;
        hears(member, &receipt(marker, &alice.id, 4)).await;
        let heard = receipts(member, room, &alice.id);
        assert!(heard.is_sorted(), "{}: {heard:?}", member.id);
    }
    drop((phone, laptop, bob));
    cluster.end().await;
}

/// A group with ten events.
async fn bob_joins(alice: &Member, others: &[UserId]) -> ConversationId {
    let conversation = alice.create_group(others).await;
    for number in 0..9 {
        alice.say(conversation, &number.to_string()).await;
    }
    conversation
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn user_types_until_its_last_device_stops() {
    let cluster = Cluster::start(Setup::default()).await;
    let alice = cluster.user("alice");
    let (phone, tablet, laptop) = (alice.on(0).await, alice.on(0).await, alice.on(1).await);
    let bob = cluster.user("bob").on(1).await;
    let others = std::slice::from_ref(&bob.id);
    let room = phone.create_group(others).await;
    // Each marker is told behind what its device said of the room before.
    let mut markers = Vec::new();
    for _ in 0..5 {
        markers.push(phone.create_group(others).await);
    }
    for conversation in markers.iter().chain([&room]) {
        for member in [&phone, &tablet, &laptop, &bob] {
            member.hears(*conversation, 1, WAIT_TIMEOUT).await;
        }
    }
    let say = async |device: &Member, on, marker: ConversationId| {
        device.session.typing(room, on).await;
        device.session.typing(marker, true).await;
        hears(&bob, &typing(marker, &alice.id, true)).await;
    };
    say(&phone, true, markers[0]).await;
    hears(&bob, &typing(room, &alice.id, true)).await;
    say(&tablet, true, markers[1]).await;
    say(&laptop, true, markers[2]).await;
    say(&phone, false, markers[3]).await;
    say(&laptop, false, markers[4]).await;
    tablet.session.typing(room, false).await;
    hears(&bob, &typing(room, &alice.id, false)).await;
    let heard = of(&bob, room);
    let off = typing(room, &alice.id, false);
    let ends = heard.iter().filter(|notice| **notice == off).count();
    assert_eq!((ends, heard.last()), (1, Some(&off)), "{heard:?}");
    drop((phone, tablet, laptop, bob));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn own_devices_hear_receipts_of_large_conversations() {
    let cluster = Cluster::start(Setup::default()).await;
    let alice = cluster.user("alice");
    let (phone, laptop) = (alice.on(0).await, alice.on(1).await);
    let bob = cluster.user("bob").on(1).await;
    let mut crowd: Vec<UserId> = (0..99).map(|n| format!("u{n}").parse().unwrap()).collect();
    crowd.push(bob.id.clone());
    let large = phone.create_group(&crowd).await;
    let small = phone.create_group(std::slice::from_ref(&bob.id)).await;
    let last = phone.say(large, "hello").await;
    for (conversation, seq) in [(large, last), (small, 1)] {
        for member in [&phone, &laptop, &bob] {
            member.hears(conversation, seq, WAIT_TIMEOUT).await;
        }
    }
    phone.session.read(large, last).await.unwrap();
    phone.session.typing(small, true).await;
    for member in [&phone, &laptop] {
        hears(member, &receipt(large, &alice.id, last)).await;
    }
    hears(&bob, &typing(small, &alice.id, true)).await;
    assert_eq!(of(&bob, large), []);
    drop((phone, laptop, bob));
    cluster.end().await;
}
