//! Senders edit and senders or admins delete messages; old content is then served nowhere.

use confab_protocol::frame::{ClientFrame, Edit, Heard, ServerFrame};
use confab_protocol::json::JsonText;
use confab_protocol::resource::MessageContent;
use serde_json::{Value, json};

use super::WAIT_TIMEOUT;
use super::frames::Frames;
use crate::support::{Cluster, Setup, User, id_of};

/// The key of a change.
const CHANGE_KEY: &str = "01890A5D-AC96-774B-BCCE-B302099A8060";

/// Everything that is served of a conversation and of one message in it.
async fn everything(user: &User, gateway: usize, path: &str, message: &str) -> [Value; 4] {
    let get = async |route: &str| user.get(gateway, route).await.ok(200).body;
    [
        get(message).await["message"].clone(),
        get(&format!("{path}/messages")).await["messages"][0].clone(),
        get(&format!("{path}/events?after=1&limit=1")).await["events"][0]["data"].clone(),
        get("/v1/conversations").await["conversations"][0]["lastMessage"].clone(),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edited_message_serves_current_content_everywhere() {
    let cluster = Cluster::start(Setup::default()).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let path = alice.begins(0, "group", &["bob"]).await;
    let client_id = "01890a5d-ac96-774b-bcce-b302099a8057";
    let send = json!({"conversationId": id_of(&path), "clientId": client_id, "kind": "text", "content": "old", "metadata": {"m": 1}});
    let sent = alice.post(0, "/v1/messages", send.clone()).await.ok(201);
    let route = format!("/v1/messages/{}", sent.text("/message/id"));
    let first = alice
        .patch(1, &route, json!({"content": "newer"}))
        .await
        .ok(200);
    let edited = alice
        .patch(0, &route, json!({"content": {"b":  1}}))
        .await
        .ok(200);

    let mut expected = sent["message"].clone();
    expected["content"] = json!({"b": 1});
    expected["editedAt"] = edited["message"]["editedAt"].clone();
    expected["version"] = json!(3);
    assert!(expected["editedAt"].as_str() >= first["message"]["editedAt"].as_str());
    assert_eq!(edited["message"], expected);
    for gateway in 0..2 {
        let [one, history, log, preview] = everything(&bob, gateway, &path, &route).await;
        assert_eq!([&one, &history, &log], [&expected; 3]);
        assert_eq!(preview["content"], json!({"b": 1}));
    }
    let log = bob.get(1, &format!("{path}/events?after=2")).await.ok(200);
    for event in log.list("events") {
        assert_eq!(
            (&event["type"], &event["actor"]),
            (&json!("message.edited"), &json!("alice"))
        );
        assert_eq!(event["data"], json!({"targetSeq": 2, "message": expected}));
    }
    // The repeat of its send is acknowledged as ever, with what it is now.
    let repeated = alice.post(1, "/v1/messages", send).await.ok(201);
    assert_eq!(
        (&repeated["message"], repeated.header("idempotent-replayed")),
        (&expected, Some("true"))
    );
    // Content may become encrypted.
    let sealed = alice
        .patch(1, &route, json!({"encryptedContent": "AAEC"}))
        .await
        .ok(200);
    assert_eq!(sealed["message"]["payloadSizeBytes"], 3);
    assert!(sealed["message"].get("content").is_none());
    // And stays it.
    let opened = alice.patch(0, &route, json!({"content": "plain"})).await;
    opened.invalid(&["/content"]);
    let again = alice.patch(0, &route, json!({"encryptedContent": "AAECAw=="}));
    assert_eq!(again.await.ok(200)["message"]["payloadSizeBytes"], 4);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_edit_changes_no_later_content() {
    let cluster = Cluster::start(Setup::default()).await;
    let alice = cluster.user("alice");
    let path = alice.begins(0, "group", &["bob"]).await;
    let message = alice.says(0, &path, "one").await;
    let route = format!("/v1/messages/{}", message["id"].as_str().unwrap());
    let change = |gateway, more: &'static [(&str, &str)], content: Value| {
        let body = Some(json!({ "content": content }));
        alice.call(gateway, "PATCH", &route, more, body)
    };
    let keyed: &[(&str, &str)] = &[("idempotency-key", CHANGE_KEY)];
    let first = change(0, keyed, json!(2)).await.ok(200);
    let told = |answer: &crate::support::Answer| {
        let header = |name| answer.header(name).map(str::to_owned);
        (
            answer["message"]["content"].clone(),
            header("etag"),
            header("idempotent-replayed"),
        )
    };
    let etag = |version: &str| Some(version.to_owned());
    assert_eq!(told(&first), (json!(2), etag("\"2\""), None));
    let later = change(1, &[("if-match", "\"2\"")], json!(3)).await.ok(200);
    assert_eq!(told(&later), (json!(3), etag("\"3\""), None));
    let again = change(1, keyed, json!(2)).await.ok(200);
    assert_eq!(told(&again), (json!(3), etag("\"3\""), etag("true")));
    let stale = change(0, &[("if-match", "\"2\"")], json!(4)).await;
    let stale = stale.refused(412, "PRECONDITION_FAILED");
    assert_eq!(stale["currentVersion"], 3);
    // The same by a frame, whose id is the same key.
    let options = confab_client::Options::bearer(&alice.token);
    let (_, mut socket) = confab_client::Ws::connect(alice.url(1), options)
        .await
        .unwrap();
    let frame = ClientFrame::Edit(Edit {
        id: Some(CHANGE_KEY.to_lowercase()),
        conversation_id: id_of(&path).parse().unwrap(),
        message_id: serde_json::from_value(message["id"].clone()).unwrap(),
        if_version: None,
        content: Some(MessageContent {
            content: Some(JsonText::trusted("2".to_owned())),
            ..MessageContent::default()
        }),
        metadata: None,
    });
    socket.send_frame(&frame).await.unwrap();
    let ack = loop {
        if let Heard::Frame(ServerFrame::Ack(ack)) = socket.next().await.unwrap() {
            break ack;
        }
    };
    assert_eq!((ack.seq, ack.duplicate), (Some(3), true));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_message_keeps_seq_without_content() {
    let cluster = Cluster::start(Setup::default()).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let path = alice.begins(0, "group", &["bob"]).await;
    let client_id = "01890a5d-ac96-774b-bcce-b302099a8057";
    let send = json!({"conversationId": id_of(&path), "clientId": client_id, "kind": "text", "content": "sEcReT-1", "metadata": {"m": "sEcReT-2"}});
    let sent = alice.post(0, "/v1/messages", send.clone()).await.ok(201);
    let route = format!("/v1/messages/{}", sent.text("/message/id"));
    alice
        .patch(1, &route, json!({"content": "sEcReT-3"}))
        .await
        .ok(200);
    let deleted = alice.delete(0, &route).await.ok(200);
    let message = &deleted["message"];
    assert!(message["deletedAt"].is_string(), "{message}");
    assert_eq!(
        (&message["seq"], &message["kind"], &message["metadata"]),
        (&json!(2), &json!("text"), &json!({}))
    );
    assert!(message.get("content").is_none() && message.get("encryptedContent").is_none());
    assert_eq!(alice.delete(1, &route).await.ok(200).body, deleted.body);

    let repeated = alice.post(1, "/v1/messages", send).await.ok(201);
    assert_eq!(&repeated["message"], message);
    for gateway in 0..2 {
        let [one, history, log, preview] = everything(&bob, gateway, &path, &route).await;
        assert_eq!([&one, &history, &log], [message; 3]);
        assert_eq!(
            (&preview["content"], &preview["deletedAt"]),
            (&Value::Null, &message["deletedAt"])
        );
        let whole = bob.get(gateway, &format!("{path}/events")).await.body;
        assert!(!whole.to_string().contains("sEcReT"), "{whole}");
        assert_eq!(
            whole["events"][2]["data"],
            json!({"targetSeq": 2, "message": message})
        );
        let data =
            json!({"targetSeq": 2, "messageId": message["id"], "deletedAt": message["deletedAt"]});
        assert_eq!(whole["events"][3]["data"], data);
        assert_eq!(whole["headSeq"], 4);
    }
    alice
        .patch(0, &route, json!({"content": 1}))
        .await
        .refused(404, "MESSAGE_NOT_FOUND");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sender_edits_and_sender_or_admin_deletes() {
    let cluster = Cluster::start(Setup::default()).await;
    let (alice, bob, carol) = (
        cluster.user("alice"),
        cluster.user("bob"),
        cluster.user("carol"),
    );
    let path = alice.begins(0, "group", &["bob", "carol"]).await;
    let of_bob = bob.says(1, &path, "bob's").await;
    let of_alice = alice.says(0, &path, "alice's").await;
    let route = |message: &Value| format!("/v1/messages/{}", message["id"].as_str().unwrap());
    let edit = || json!({"content": 1});
    for other in [&alice, &carol] {
        other
            .patch(1, &route(&of_bob), edit())
            .await
            .refused(403, "INSUFFICIENT_PERMISSIONS");
    }
    carol
        .delete(0, &route(&of_bob))
        .await
        .refused(403, "INSUFFICIENT_PERMISSIONS");
    bob.delete(1, &route(&of_alice))
        .await
        .refused(403, "INSUFFICIENT_PERMISSIONS");
    bob.patch(0, &route(&of_bob), edit()).await.ok(200);
    alice.delete(1, &route(&of_bob)).await.ok(200);

    let bad = json!({"content": 1, "encryptedContent": "AAAA", "kind": "text"});
    alice
        .patch(0, &route(&of_alice), bad)
        .await
        .invalid(&["/encryptedContent", "/kind"]);
    alice
        .patch(0, &route(&of_alice), json!({}))
        .await
        .invalid(&["/content"]);
    // An event that is no message has no such route.
    let log = alice.get(0, &format!("{path}/events?limit=1")).await;
    let created = format!("/v1/messages/{}", log.text("/events/0/id"));
    alice
        .get(1, &created)
        .await
        .refused(404, "MESSAGE_NOT_FOUND");
    alice
        .delete(1, &created)
        .await
        .refused(404, "MESSAGE_NOT_FOUND");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn demoted_channel_admin_cannot_edit() {
    let cluster = Cluster::start(Setup::default()).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let path = alice.begins(0, "channel", &["bob"]).await;
    let of_bob = format!("{path}/participants/bob");
    alice
        .patch(1, &of_bob, json!({"role": "admin"}))
        .await
        .ok(200);
    let message = bob.says(0, &path, "hi").await;
    let route = format!("/v1/messages/{}", message["id"].as_str().unwrap());
    bob.patch(1, &route, json!({"content": 1})).await.ok(200);
    alice
        .patch(0, &of_bob, json!({"role": "member"}))
        .await
        .ok(200);
    bob.patch(1, &route, json!({"content": 2}))
        .await
        .refused(403, "INSUFFICIENT_PERMISSIONS");
    bob.delete(0, &route).await.ok(200);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edited_metadata_is_merged_and_heard() {
    let cluster = Cluster::start(Setup::default()).await;
    let alice = cluster.user("alice");
    let path = alice.begins(0, "group", &["bob"]).await;
    let (id, bob) = (id_of(&path), cluster.user("bob").on(1).await);
    let send = json!({"conversationId": id, "kind": "text", "content": "one", "metadata": {"a": 1, "b": {"c": [1]}}});
    let sent = alice.post(0, "/v1/messages", send).await.ok(201);
    let route = format!("/v1/messages/{}", sent.text("/message/id"));
    let edits = [
        (
            json!({"metadata": {"a": null, "b": {"d": "é"}}}),
            json!({"b": {"c": [1], "d": "é"}}),
            "one",
        ),
        (
            json!({"metadata": {"b": {"c": null}, "e": false}, "content": "two"}),
            json!({"b": {"d": "é"}, "e": false}),
            "two",
        ),
        (
            json!({"metadata": {"b": null, "e": null}}),
            json!({}),
            "two",
        ),
    ];
    for (seq, (patch, metadata, content)) in (3..).zip(edits) {
        let gateway = usize::from(seq % 2 == 0);
        let edited = alice.patch(gateway, &route, patch.clone()).await.ok(200);
        // Said again it changes nothing, and is no event.
        let again = alice.patch(gateway, &route, patch).await.ok(200);
        assert_eq!(again.body, edited.body);
        let message = &edited["message"];
        assert_eq!(
            (&message["metadata"], &message["content"]),
            (&metadata, &json!(content))
        );
        let conversation = id.parse().unwrap();
        bob.hears(conversation, seq, WAIT_TIMEOUT).await;
        let record = bob.record.borrow();
        let heard = record.events[&conversation].last().unwrap();
        let data: Value = serde_json::from_str(heard.data.as_str()).unwrap();
        assert_eq!(
            (heard.seq, data),
            (seq, json!({"targetSeq": 2, "message": message}))
        );
    }
    let large = |name: &str| json!({"metadata": {name: "x".repeat(9 * 1024)}});
    alice.patch(0, &route, large("a")).await.ok(200);
    let beyond = alice.patch(1, &route, large("b")).await;
    beyond.invalid(&["/metadata"]);
    drop(bob);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_is_edited_by_frame_and_replayed() {
    let cluster = Cluster::start(Setup::default()).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let path = alice.begins(0, "group", &["bob"]).await;
    let message = alice.says(0, &path, "one").await;
    let heard = bob.on(1).await;
    let mut frames = Frames::open(&cluster, &alice, 0, &path, &message).await;
    let edit = |metadata: Value| json!({"type": "edit", "id": CHANGE_KEY, "metadata": metadata});
    let first = frames.done(edit(json!({"mentions": ["bob"]}))).await;
    assert_eq!(first, (json!(3), json!(false)));
    let again = frames.done(edit(json!({"mentions": ["bob"]}))).await;
    assert_eq!(again, (json!(3), json!(true)));
    let other = frames.told(edit(json!({"mentions": []}))).await;
    assert_eq!(other["code"], "IDEMPOTENCY_KEY_REUSED", "{other}");
    let bad = frames.told(edit(json!([]))).await;
    assert_eq!(bad["errors"][0]["pointer"], "/metadata", "{bad}");
    let conversation = id_of(&path).parse().unwrap();
    heard.hears(conversation, 3, WAIT_TIMEOUT).await;
    // Who comes later is told the message as it is now.
    let late = bob.comes_late(conversation, 0).await;
    for event in [&late[1], &late[2]] {
        let data: Value = serde_json::from_str(event.data.as_str()).unwrap();
        let message = data.get("message").unwrap_or(&data);
        assert_eq!(message["metadata"], json!({"mentions": ["bob"]}));
        assert_eq!(message["content"], json!({"text": "one"}));
    }
    drop((frames, heard));
    cluster.end().await;
}
