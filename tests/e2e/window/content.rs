//! The replay window serves no content that was edited or deleted.

use confab_client::{Notice, Options, Session};
use confab_protocol::event::Event;
use confab_protocol::frame::Hello;
use confab_protocol::ids::{ConversationId, EventId, Seq};
use confab_protocol::json::JsonText;
use confab_protocol::resource::MessageContent;
use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};
use serde_json::json;

use super::WAIT_TIMEOUT;
use crate::support::{Cluster, Member, RefusingStream, Setup, User, eventually, text};

/// In all content that must not be told again.
const CONTENT_MARKER: &str = "zq7Marker";
/// Small messages, and large ones behind them: the window is as large as the stream's average says that they are.
const SMALL_MESSAGES: usize = 4000;
const LARGE_MESSAGES: usize = 400;
const LARGE_BYTES: usize = 5000;
const WINDOW_BYTES: usize = 1_200_000;
/// Deletions while a gateway begins, of the newest messages: at the end of its fill they are what the window has room for.
const DELETION_COUNT: usize = 120;
/// Deletions on their way at once.
const MAX_DELETING: usize = 4;
/// Sends on their way at once.
const MAX_PENDING: usize = 100;

/// Sends texts of a length each, and gives what became of them.
async fn send(
    member: &Member,
    conversation: ConversationId,
    count: usize,
    bytes: usize,
) -> Vec<(EventId, Seq)> {
    let words = format!("{CONTENT_MARKER} {}", "x".repeat(bytes));
    let mut sent = Vec::new();
    while sent.len() < count {
        let some = MAX_PENDING.min(count - sent.len());
        let sends = (0..some).map(|_| member.session.send(conversation, text(&words)));
        let stored = join_all(sends).await.into_iter().map(Result::unwrap);
        sent.extend(stored.map(|stored| (stored.message_id, stored.seq)));
    }
    sent
}

/// The first events that a client is told which comes with all below a seq.
async fn told(
    user: &User,
    gateway: usize,
    conversation: ConversationId,
    seq: Seq,
    count: usize,
) -> Vec<Event> {
    let hello = Hello {
        seen: Some([(conversation, seq - 1)].into()),
        ..Hello::default()
    };
    let options = Options {
        hello,
        ..Options::bearer(&user.token)
    };
    let opened = Session::open(user.url(gateway), options).await;
    let (session, mut events) = opened.unwrap();
    assert!(session.welcome().truncated.is_empty());
    let mut told = Vec::new();
    while told.len() < count {
        let next = tokio::time::timeout(WAIT_TIMEOUT, events.next()).await;
        match next.expect("an event") {
            Some(Notice::Event(event)) => told.push(event),
            Some(_) => {}
            None => panic!("the connection ended"),
        }
    }
    assert_eq!(told.first().map(|event| event.seq), Some(seq));
    told
}

fn assert_not_former(told: &[Event], place: &str) {
    for event in told {
        let data = event.data.as_str();
        assert!(
            !data.contains(CONTENT_MARKER),
            "{place} tells {}: {data:.80}",
            event.seq
        );
    }
}

/// A rolling restart: a gateway fills its window with more than that holds while messages are deleted all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletions_during_window_fill_are_applied() {
    let mut cluster = Cluster::start(Setup {
        gateway_env: vec![("CONFAB_WINDOW_BYTES", Some(WINDOW_BYTES.to_string()))],
        ..Setup::default()
    })
    .await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let member = alice.on(1).await;
    let conversation = member.create_group(std::slice::from_ref(&bob.id)).await;
    send(&member, conversation, SMALL_MESSAGES, 10).await;
    for gateway in [0, 0] {
        let mut large = send(&member, conversation, LARGE_MESSAGES, LARGE_BYTES).await;
        large.reverse();
        large.truncate(DELETION_COUNT);
        cluster.gateways[gateway].respawn().unwrap();
        let port = cluster.gateways[gateway].port();
        eventually("the gateway listens", WAIT_TIMEOUT, async || {
            confab_stack::get(port, "/health", WAIT_TIMEOUT).await.ok()
        })
        .await;
        let (http, messages) = (alice.http(1), stream::iter(&large));
        let deleting = messages.for_each_concurrent(MAX_DELETING, async |(message, _)| {
            http.delete_message(*message).await.unwrap();
        });
        let (ready, ()) = tokio::join!(cluster.gateways[gateway].ready(WAIT_TIMEOUT * 2), deleting);
        ready.unwrap();
        for (_, seq) in &large {
            let first = told(&bob, gateway, conversation, *seq, 1).await;
            assert_not_former(&first, "a gateway that was filled");
        }
    }
    drop(member);
    cluster.end().await;
}

/// Edits and deletions are committed and answered while JetStream takes nothing, so that no gateway hears of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resume_applies_changes_missing_from_feed() {
    let cluster = Cluster::start(Setup::default()).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let live = [alice.on(0).await, alice.on(1).await];
    let conversation = live[0].create_group(std::slice::from_ref(&bob.id)).await;
    let sent = send(&live[0], conversation, 3, 10).await;
    let (first, last) = (sent[0].1, sent[2].1);
    for member in &live {
        member.hears(conversation, last, WAIT_TIMEOUT).await;
    }
    let stream = RefusingStream::of(&cluster).await;
    let http = alice.http(0);
    let content = MessageContent {
        content: Some(JsonText::of(&json!({"text": "edited"})).unwrap()),
        encrypted_content: None,
        payload_size_bytes: None,
    };
    http.edit_message(sent[0].0, &content).await.unwrap();
    for (message, _) in &sent[1..] {
        http.delete_message(*message).await.unwrap();
    }
    // All of the gap at once, and each message alone, at each gateway.
    for gateway in 0..2 {
        for after in first..=last {
            let count = usize::try_from(last + 1 - after).unwrap();
            let told = told(&bob, gateway, conversation, after, count).await;
            assert_not_former(&told, "a gateway whose feed lags");
        }
    }
    stream.accept().await;
    for member in &live {
        member.hears(conversation, last + 3, WAIT_TIMEOUT * 2).await;
    }
    drop(live);
    cluster.end().await;
}

/// Who resumes by a token while the feed lags is told the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn window_applies_deletions_read_for_gap() {
    let cluster = Cluster::start(Setup {
        gateways: 1,
        workers: 1,
        ..Setup::default()
    })
    .await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let live = alice.on(0).await;
    let conversation = live.create_group(std::slice::from_ref(&bob.id)).await;
    let sent = send(&live, conversation, 2, 10).await;
    live.hears(conversation, sent[1].1, WAIT_TIMEOUT).await;
    let stream = RefusingStream::of(&cluster).await;
    let deleted = alice.http(0).delete_message(sent[0].0).await;
    deleted.unwrap();
    // Bob's opening names the head, and the gap is read from a worker.
    let bobs = told(&bob, 0, conversation, sent[1].1 + 1, 1).await;
    assert_eq!(bobs.len(), 1);
    live.hears(conversation, sent[1].1 + 1, WAIT_TIMEOUT).await;
    let first = told(&bob, 0, conversation, sent[0].1, 3).await;
    assert_not_former(&first[..1], "a gateway that read the gap");
    stream.accept().await;
    drop(live);
    cluster.end().await;
}
