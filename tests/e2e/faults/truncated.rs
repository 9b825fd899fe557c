//! An oversized replay is truncated, named until it is read, and a lost welcome can be requested again.

use confab_client::{Encoding, Options, Session};
use confab_protocol::frame::Hello;
use confab_protocol::ids::{ConversationId, Seq};
use confab_stack::Traffic;
use serde_json::json;

use super::{WAIT_TIMEOUT, links, setup};
use crate::history::{Generation, HistoryClient, Profile, ReceivedItem, assert_told};
use crate::support::{Cluster, Member, Raw, User, eventually};

/// Too much for a replay: its limit is 5 MiB.
const MESSAGE_COUNT: usize = 110;
const MESSAGE_BYTES: usize = 60_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_truncation_is_told_again_after_crash() {
    let cluster = Cluster::start(setup()).await;
    let (mut links, urls) = links(&cluster).await;
    let alice = cluster.user("alice").on(0).await;
    let bob = cluster.user("bob");
    let reading = Profile::usual(urls);
    let silent = Profile {
        says_seen: false,
        ..reading.clone()
    };
    let clients = [reading, silent].map(|profile| HistoryClient::start(&bob, profile, 0, 2));
    had(&clients, 1).await;
    let conversation = alice.create_group(std::slice::from_ref(&bob.id)).await;
    let first = alice.say(conversation, "while bob is there").await;
    heard(&clients, conversation, first).await;

    for link in &mut links {
        link.set(Traffic::Refuse).await;
    }
    let last = say_much(&alice, conversation).await;
    for link in &mut links {
        link.set(Traffic::Pass).await;
    }
    heard(&clients, conversation, last).await;
    for client in &clients {
        assert!(client.reconnects().await);
    }
    had(&clients, 3).await;
    let [reading, silent] = &clients;
    let silent = silent.account().generations.clone();
    // What was not proven to have come may be named as well.
    let names = |generation: &Generation| {
        truncated(generation).is_some_and(|(from, head)| from <= first + 1 && head == last)
    };
    assert!(silent[1..3].iter().all(names), "{silent:?}");
    let read = truncated(&reading.account().generations[1]);
    assert_eq!(read, Some((first + 1, last)));
    assert_told(&cluster, &clients).await;
    drop((alice, clients));
    cluster.end().await;
}

/// Waits until each had so many welcomes.
async fn had(clients: &[HistoryClient], generations: usize) {
    eventually("a welcome", WAIT_TIMEOUT, async || {
        clients
            .iter()
            .all(|one| one.generations() >= generations)
            .then_some(())
    })
    .await;
}

/// Waits until each was told an event, or that it is to be read.
async fn heard(clients: &[HistoryClient], conversation: ConversationId, seq: Seq) {
    let is_told = |heard: &ReceivedItem| match heard {
        ReceivedItem::Event(told) => told.conversation == conversation && told.seq >= seq,
        ReceivedItem::Truncated { head, .. } => *head >= seq,
        ReceivedItem::Read { .. }
        | ReceivedItem::Receipt { .. }
        | ReceivedItem::Presence(_)
        | ReceivedItem::Snapshot { .. } => false,
    };
    eventually("the event is told", WAIT_TIMEOUT, async || {
        let mut clients = clients.iter();
        let has = |client: &HistoryClient| {
            let account = client.account();
            account
                .generations
                .iter()
                .flat_map(|generation| &generation.heard)
                .any(is_told)
        };
        clients.all(has).then_some(())
    })
    .await;
}

fn truncated(generation: &Generation) -> Option<(Seq, Seq)> {
    generation.heard.iter().find_map(|heard| match heard {
        ReceivedItem::Truncated { from, head, .. } => Some((*from, *head)),
        _ => None,
    })
}

async fn say_much(member: &Member, conversation: ConversationId) -> Seq {
    let mut last = 0;
    for _ in 0..MESSAGE_COUNT {
        last = member.say(conversation, &"x".repeat(MESSAGE_BYTES)).await;
    }
    last
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_above_the_head_is_void() {
    let cluster = Cluster::start(setup()).await;
    let alice = cluster.user("alice").on(0).await;
    let conversation = alice.create_group(std::slice::from_ref(&alice.id)).await;
    let head = alice.say(conversation, "the last one").await;
    for encoding in [Encoding::Json, Encoding::MsgPack] {
        let hello = Hello {
            seen: Some([(conversation, head + 7)].into()),
            ..Hello::default()
        };
        let options = Options {
            encoding,
            hello,
            ..Options::bearer(&cluster.user("alice").token)
        };
        let opened = Session::open(cluster.user("alice").url(1), options).await;
        let (session, _events) = opened.unwrap();
        let [truncated] = &session.welcome().truncated[..] else {
            panic!("{:?}", session.welcome().truncated);
        };
        assert_eq!(truncated.conversation_id, conversation);
        assert_eq!((truncated.head_seq, truncated.reset), (head, Some(true)));
    }
    drop(alice);
    cluster.end().await;
}

/// The hello came to the gateway and its answer to nobody, twice: the third try goes on with the session.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn welcome_lost_twice_loses_nothing() {
    let cluster = Cluster::start(setup()).await;
    let alice = cluster.user("alice");
    let first = alice.on(0).await;
    let conversation = first.create_group(std::slice::from_ref(&first.id)).await;
    let seen = first.say(conversation, "before").await;
    first.hears(conversation, seen, WAIT_TIMEOUT).await;
    let welcome = first.session.welcome().clone();
    let token = welcome.resume_token.expect("a resume token");
    drop(first);
    for gateway in [1, 0] {
        let mut raw = resume(&cluster, &alice, gateway, &token).await;
        // It is on its way, unread and unanswered.
        let welcome = raw.json().await;
        assert_eq!(welcome["resumed"], true, "{welcome}");
    }
    let mut raw = resume(&cluster, &alice, 1, &token).await;
    let again = raw.json().await;
    assert_eq!(again["resumed"], true, "{again}");
    assert_eq!(again["sessionId"], welcome.session_id.to_string());
    drop(raw);
    cluster.end().await;
}

/// Says hello with a resume token by hand: pings are not answered.
async fn resume(cluster: &Cluster, user: &User, gateway: usize, token: &str) -> Raw {
    let headers = [format!("Authorization: Bearer {}", user.token)];
    let port = cluster.gateways[gateway].port();
    let mut raw = Raw::upgraded(port, "confab.v1.json", &headers).await;
    let hello = json!({"type": "hello", "resumeToken": token});
    raw.text(&hello.to_string()).await;
    raw
}
