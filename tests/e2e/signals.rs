//! Typing and receipts reach only present members of small conversations, throttled, at any gateway.

use std::time::Duration;

use confab_client::{Encoding, Notice};
use confab_protocol::error::Code;
use confab_protocol::frame::{ReceiptSignal, TypingSignal};
use confab_protocol::ids::{ConversationId, UserId};

use crate::support::{Cluster, Member, Setup};

mod devices;
mod presence;

const WAIT_TIMEOUT: Duration = Duration::from_secs(10);

/// Waits until a member has heard a signal.
async fn hears(member: &Member, what: &Notice) {
    hears_within(member, what, WAIT_TIMEOUT).await;
}

async fn hears_within(member: &Member, what: &Notice, deadline: Duration) {
    let mut record = member.record.clone();
    let heard = record.wait_for(|record| record.signals.contains(what));
    let heard = tokio::time::timeout(deadline, heard).await;
    if !heard.is_ok_and(|heard| heard.is_ok()) {
        let record = member.record.borrow();
        panic!(
            "{} did not hear {what:?} but {:?}",
            member.id, record.signals
        );
    }
}

fn typing(conversation: ConversationId, user: &UserId, on: bool) -> Notice {
    Notice::Typing(TypingSignal {
        conversation_id: conversation,
        user_id: user.clone(),
        on,
    })
}

fn receipt(conversation: ConversationId, user: &UserId, up_to_seq: u64) -> Notice {
    Notice::Receipt(ReceiptSignal {
        conversation_id: conversation,
        user_id: user.clone(),
        up_to_seq,
    })
}

/// What a member heard of a conversation, presence aside.
fn of(member: &Member, conversation: ConversationId) -> Vec<Notice> {
    let is_of = |notice: &&Notice| match notice {
        Notice::Typing(signal) => signal.conversation_id == conversation,
        Notice::Receipt(signal) => signal.conversation_id == conversation,
        _ => false,
    };
    let record = member.record.borrow();
    record.signals.iter().filter(is_of).cloned().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn typing_and_receipts_reach_only_present_members() {
    let cluster = Cluster::start(Setup::default()).await;
    let alice = cluster.user("alice").on(0).await;
    let again = cluster.user("alice").on(1).await;
    let bob = cluster.user("bob").on(1).await;
    let carol = cluster.user("carol");
    let carol = carol.speaking(Encoding::MsgPack, 0).await;
    let dave = cluster.user("dave").on(1).await;
    let eve = cluster.user("eve").on(1).await;
    let others = [bob.id.clone(), carol.id.clone(), dave.id.clone()];
    let conversation = alice.create_group(&others).await;
    let removed = alice.http.remove_participant(conversation, &dave.id).await;
    removed.unwrap();
    let last = alice.say(conversation, "hello").await;
    for member in [&alice, &again, &bob, &carol] {
        member.hears(conversation, last, WAIT_TIMEOUT).await;
    }

    alice.session.typing(conversation, true).await;
    for member in [&bob, &carol] {
        hears(member, &typing(conversation, &alice.id, true)).await;
    }
    assert_eq!(carol.session.read(conversation, last).await, Ok(last));
    for member in [&alice, &again, &bob, &carol] {
        hears(member, &receipt(conversation, &carol.id, last)).await;
    }
    // A mark that did not move is told to nobody.
    assert_eq!(carol.session.read(conversation, 1).await, Ok(last));
    assert_eq!(carol.session.read(conversation, last).await, Ok(last));
    let alice_id = alice.id.clone();
    drop(alice);
    for member in [&bob, &carol] {
        hears(member, &typing(conversation, &alice_id, false)).await;
    }

    for member in [&dave, &eve] {
        assert_eq!(of(member, conversation), [], "{}", member.id);
    }
    for member in [&again, &carol, &bob] {
        let heard = of(member, conversation).into_iter();
        let receipts = heard.filter(|notice| matches!(notice, Notice::Receipt(_)));
        assert_eq!(receipts.count(), 1, "{}", member.id);
    }
    let own = of(&again, conversation);
    assert!(
        own.iter()
            .all(|notice| matches!(notice, Notice::Receipt(_))),
        "its own typing"
    );
    drop((again, bob, carol, dave, eve));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn non_member_typing_is_refused_and_queries_counted() {
    let setup = Setup {
        gateways: 1,
        workers: 1,
        ..Setup::default()
    };
    let cluster = Cluster::start(setup).await;
    let alice = cluster.user("alice").on(0).await;
    let bob = cluster.user("bob").on(0).await;
    let conversation = alice.create_group(std::slice::from_ref(&bob.id)).await;
    let eve = cluster.user("eve").on(0).await;

    eve.session.typing(conversation, true).await;

    let mut record = eve.record.clone();
    let refused = record.wait_for(|record| !record.errors.is_empty());
    let refused = tokio::time::timeout(WAIT_TIMEOUT, refused)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(refused.errors[0].code, Code::ConversationNotFound);
    drop(refused);
    let last = alice.say(conversation, "hello").await;
    alice.hears(conversation, last, WAIT_TIMEOUT).await;
    alice.session.typing(conversation, true).await;
    hears(&bob, &typing(conversation, &alice.id, true)).await;
    assert_eq!(of(&bob, conversation).len(), 1);
    let metrics = alice.http.raw("GET", "/metrics", &[], "").await.unwrap();
    let metrics = String::from_utf8(metrics.body).unwrap();
    for line in [
        "confab_participant_cache_hits_total 1",
        "confab_participant_cache_misses_total 1",
        "confab_participant_cache_stale_total 0",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line}");
    }
    drop((alice, bob, eve));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signals_are_throttled_and_last_one_arrives() {
    let cluster = Cluster::start(Setup::default()).await;
    let alice = cluster.user("alice").on(0).await;
    let bob = cluster.user("bob").on(1).await;
    let conversation = alice.create_group(std::slice::from_ref(&bob.id)).await;
    let last = alice.say(conversation, "hello").await;
    alice.hears(conversation, last, WAIT_TIMEOUT).await;
    bob.hears(conversation, last, WAIT_TIMEOUT).await;

    for number in 0..200 {
        alice.session.typing(conversation, number % 2 == 0).await;
    }
    hears(&bob, &typing(conversation, &alice.id, false)).await;
    let marks = (1..=last).map(|seq| bob.session.read(conversation, seq));
    for (answer, asked) in futures_util::future::join_all(marks).await.iter().zip(1..) {
        assert!(*answer.as_ref().unwrap() >= asked);
    }
    hears(&alice, &receipt(conversation, &bob.id, last)).await;

    let heard = of(&bob, conversation);
    let typings = heard
        .iter()
        .filter(|heard| matches!(heard, Notice::Typing(_)));
    assert!(typings.count() <= 3, "{heard:?}");
    assert!(of(&alice, conversation).len() <= 2);
    drop((alice, bob));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_conversation_carries_no_signals_until_smaller() {
    let cluster = Cluster::start(Setup::default()).await;
    let alice = cluster.user("alice").on(0).await;
    let bob = cluster.user("bob").on(1).await;
    let mut crowd: Vec<UserId> = (0..99).map(|n| format!("u{n}").parse().unwrap()).collect();
    crowd.push(bob.id.clone());
    let large = alice.create_group(&crowd).await;
    let small = alice.create_group(std::slice::from_ref(&bob.id)).await;
    let last = alice.say(large, "hello").await;
    for (conversation, seq) in [(large, last), (small, 1)] {
        alice.hears(conversation, seq, WAIT_TIMEOUT).await;
        bob.hears(conversation, seq, WAIT_TIMEOUT).await;
    }

    alice.session.typing(large, true).await;
    alice.session.read(large, last).await.unwrap();
    alice.session.typing(small, true).await;
    hears(&bob, &typing(small, &alice.id, true)).await;
    assert_eq!(of(&bob, large), []);

    let removed = alice.http.remove_participant(large, &crowd[0]).await;
    removed.unwrap();
    let last = alice.say(large, "now we are a hundred").await;
    alice.hears(large, last, WAIT_TIMEOUT).await;
    bob.hears(large, last, WAIT_TIMEOUT).await;
    alice.session.typing(large, true).await;
    hears(&bob, &typing(large, &alice.id, true)).await;
    alice.session.read(large, last).await.unwrap();
    hears(&bob, &receipt(large, &alice.id, last)).await;

    alice.add(large, &crowd[..1]).await;
    let last = alice.say(large, "too many again").await;
    alice.hears(large, last, WAIT_TIMEOUT).await;
    bob.hears(large, last, WAIT_TIMEOUT).await;
    let before = of(&bob, large);
    alice.session.typing(large, false).await;
    alice.session.typing(small, false).await;
    hears(&bob, &typing(small, &alice.id, false)).await;
    assert_eq!(of(&bob, large), before);
    drop((alice, bob));
    cluster.end().await;
}
