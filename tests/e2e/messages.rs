//! Messages over HTTP are stored once and are readable by members only.

use std::time::Duration;

use confab_protocol::timestamp::Timestamp;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::support::{Cluster, Setup, User, eventually, id_of};

mod changes;
mod direct;
mod frames;
mod versions;

const MESSAGES_PATH: &str = "/v1/messages";
const WAIT_TIMEOUT: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_send_is_stored_once_marking_keyed_replay() {
    let cluster = Cluster::start(Setup::default()).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let path = alice.begins(0, "group", &["bob"]).await;
    let id = id_of(&path);
    let client_id = "01890a5d-ac96-774b-bcce-b302099a8057";
    let with = |content: u64| json!({"conversationId": id, "clientId": client_id, "kind": "text", "content": content});
    let (one, other) = tokio::join!(
        alice.post(0, MESSAGES_PATH, with(1)),
        alice.post(1, MESSAGES_PATH, with(1))
    );
    let (one, other) = (one.ok(201), other.ok(201));
    assert_eq!(one.body, other.body);
    assert_eq!(
        (&one["message"]["seq"], &one["message"]["clientId"]),
        (&json!(2), &json!(client_id))
    );
    let replays = [&one, &other].map(|r| r.header("idempotent-replayed") == Some("true"));
    assert_ne!(replays[0], replays[1]);
    alice
        .post(1, MESSAGES_PATH, with(2))
        .await
        .refused(422, "IDEMPOTENCY_KEY_REUSED");
    // Another sender's key is another.
    assert_eq!(
        bob.post(0, MESSAGES_PATH, with(2)).await.ok(201)["message"]["seq"],
        3
    );

    let plain = |content: u64| json!({"conversationId": id, "kind": "text", "content": content});
    let keyed = async |gateway: usize, key: &str, body: Value| {
        alice
            .call(
                gateway,
                "POST",
                MESSAGES_PATH,
                &[("idempotency-key", key)],
                Some(body),
            )
            .await
    };
    let first = keyed(0, "k", plain(1)).await.ok(201);
    let again = keyed(1, "\"k\"", plain(1)).await.ok(201);
    assert_eq!(
        (
            first.header("idempotent-replayed"),
            again.header("idempotent-replayed")
        ),
        (None, Some("true"))
    );
    assert_eq!(first.body, again.body);
    keyed(0, "k", plain(2))
        .await
        .refused(422, "IDEMPOTENCY_KEY_REUSED");
    keyed(0, "a b", plain(2))
        .await
        .refused(400, "INVALID_IDEMPOTENCY_KEY");
    keyed(1, "k", with(1)).await.invalid(&["/clientId"]);
    // Without a key the same words are another message.
    let seqs = [
        alice.post(0, MESSAGES_PATH, plain(1)).await,
        alice.post(1, MESSAGES_PATH, plain(1)).await,
    ];
    assert_eq!(seqs.map(|sent| sent["message"]["seq"].clone()), [5, 6]);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_message_is_refused_with_every_field() {
    let setup = Setup {
        gateways: 1,
        workers: 1,
        ..Setup::default()
    };
    let cluster = Cluster::start(setup).await;
    let alice = cluster.user("alice");
    let path = alice.begins(0, "group", &["bob"]).await;
    let other = alice.begins(0, "group", &["bob"]).await;
    let id = id_of(&path);
    let bad = json!({"conversationId": "x", "kind": "poem", "sender": "eve", "metadata": 1, "replyTo": "x"});
    alice.post(0, MESSAGES_PATH, bad).await.invalid(&[
        "/content",
        "/conversationId",
        "/kind",
        "/metadata",
        "/replyTo",
        "/sender",
    ]);
    let both =
        json!({"conversationId": id, "kind": "text", "content": 1, "encryptedContent": "AAAA"});
    alice
        .post(0, MESSAGES_PATH, both)
        .await
        .invalid(&["/encryptedContent"]);
    let large = json!({"conversationId": id, "kind": "text", "content": "x".repeat(65 * 1024)});
    alice
        .post(0, MESSAGES_PATH, large)
        .await
        .invalid(&["/content"]);
    let sized = json!({"conversationId": id, "kind": "text", "encryptedContent": "AAAA", "payloadSizeBytes": 4});
    alice
        .post(0, MESSAGES_PATH, sized)
        .await
        .invalid(&["/payloadSizeBytes"]);
    let huge = json!({"conversationId": id, "kind": "text", "content": "x".repeat(600 * 1024)});
    alice
        .post(0, MESSAGES_PATH, huge)
        .await
        .refused(413, "PAYLOAD_TOO_LARGE");
    // A reply answers a message of the same conversation.
    let worker_retry = alice.says(0, &other, "hi").await["id"].clone();
    for stranger in [worker_retry, json!(id)] {
        let reply =
            json!({"conversationId": id, "kind": "text", "content": 1, "replyTo": stranger});
        alice
            .post(0, MESSAGES_PATH, reply)
            .await
            .refused(404, "MESSAGE_NOT_FOUND");
    }
    for nothing in ["1", "%ff", id] {
        let route = format!("/v1/messages/{nothing}");
        let not_found = "MESSAGE_NOT_FOUND";
        alice.get(0, &route).await.refused(404, not_found);
        alice
            .patch(0, &route, json!({"content": 1}))
            .await
            .refused(404, not_found);
        alice.delete(0, &route).await.refused(404, not_found);
    }
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_channel_only_admins_send() {
    let cluster = Cluster::start(Setup::default()).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let path = alice.begins(0, "channel", &["bob"]).await;
    let message = json!({"conversationId": id_of(&path), "kind": "text", "content": 1});
    alice.post(1, MESSAGES_PATH, message.clone()).await.ok(201);
    bob.post(0, MESSAGES_PATH, message)
        .await
        .refused(403, "INSUFFICIENT_PERMISSIONS");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn message_is_read_by_id_as_sent() {
    let cluster = Cluster::start(Setup::default()).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let path = alice.begins(0, "group", &["bob"]).await;
    let first = alice.says(0, &path, "hi").await;
    let reply = json!({"conversationId": id_of(&path), "kind": "x-sealed", "encryptedContent": "AAEC", "replyTo": first["id"], "metadata": {"m": [null]}});
    let sent = bob.post(1, MESSAGES_PATH, reply).await.ok(201);
    let message = &sent["message"];
    assert_eq!(
        (&message["payloadSizeBytes"], &message["replyTo"]),
        (&json!(3), &first["id"])
    );
    assert_eq!(
        (&message["sender"], &message["metadata"]),
        (&json!("bob"), &json!({"m": [null]}))
    );
    assert!(message.get("content").is_none());
    let route = format!("/v1/messages/{}", sent.text("/message/id"));
    assert_eq!(alice.get(0, &route).await.ok(200).body, sent.body);
    cluster.end().await;
}

/// The seqs of a page of the history.
async fn seqs(user: &User, gateway: usize, path: &str, query: &str) -> Vec<u64> {
    let page = user
        .get(gateway, &format!("{path}/messages?{query}"))
        .await
        .ok(200);
    let seqs = page.each("messages", "seq");
    seqs.iter().map(|seq| seq.as_u64().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_is_filtered_by_range_sender_kind_time() {
    let cluster = Cluster::start(Setup::default()).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let path = alice.begins(0, "group", &["bob"]).await;
    let mut times = Vec::new();
    for number in 0..6 {
        let (user, kind) = if number % 2 == 0 {
            (&alice, "text")
        } else {
            (&bob, "x-odd")
        };
        let message = json!({"conversationId": id_of(&path), "kind": kind, "content": number});
        let sent = user.post(number % 2, MESSAGES_PATH, message).await.ok(201);
        times.push(sent.text("/message/createdAt"));
        let its_own: Timestamp = sent.text("/message/createdAt").parse().unwrap();
        eventually("its millisecond is over", WAIT_TIMEOUT, async || {
            (Timestamp::new(OffsetDateTime::now_utc()) > its_own).then_some(())
        })
        .await;
    }
    assert_eq!(seqs(&bob, 1, &path, "").await, [7, 6, 5, 4, 3, 2]);
    assert_eq!(seqs(&bob, 0, &path, "before=6&after=3").await, [5, 4]);
    assert_eq!(seqs(&bob, 1, &path, "sender=bob").await, [7, 5, 3]);
    assert_eq!(seqs(&bob, 0, &path, "kind=text&limit=2").await, [6, 4]);
    assert_eq!(
        seqs(
            &bob,
            1,
            &path,
            &format!("from={}&to={}", times[2], times[4])
        )
        .await,
        [5, 4]
    );
    assert_eq!(
        seqs(&bob, 0, &path, "sender=nobody").await,
        Vec::<u64>::new()
    );
    assert_eq!(
        seqs(&bob, 0, &path, &format!("before={}", u64::MAX))
            .await
            .len(),
        6
    );

    let mut read = Vec::new();
    let mut cursor = String::new();
    loop {
        let route = format!(
            "/v1/messages/conversation/{}?sender=alice&limit=2{cursor}",
            id_of(&path)
        );
        let page = bob.get(1, &route).await.ok(200);
        read.extend(page.each("messages", "seq"));
        let Some(next) = page["nextCursor"].as_str() else {
            break;
        };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(read, [6, 4, 2]);
    let bad = "limit=201&before=x&after=-1&sender=&from=yesterday&to=1&typo=1";
    let refused = bob.get(0, &format!("{path}/messages?{bad}")).await;
    refused.invalid(&["after", "before", "from", "limit", "sender", "to", "typo"]);
    bob.get(0, &format!("{path}/messages?cursor=x"))
        .await
        .refused(400, "INVALID_CURSOR");
    cluster.end().await;
}
