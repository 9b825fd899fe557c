//! Admins and users change participants and roles atomically, and an admin always remains.

use serde_json::{Value, json};

use crate::support::{Cluster, Setup, id_of};

mod leaving;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_added_all_or_none_by_admins() {
    let cluster = Cluster::start(Setup::default()).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let path = alice.begins(0, "group", &["bob"]).await;
    let people = format!("{path}/participants");
    let many = json!({"participants": [{"userId": "dave", "role": "admin"}, {"userId": "carol"}]});
    bob.post(0, &people, many.clone())
        .await
        .refused(403, "INSUFFICIENT_PERMISSIONS");
    let added = alice.post(1, &people, many).await.ok(201);
    assert_eq!(added.each("participants", "userId"), ["dave", "carol"]);
    assert_eq!(added.each("participants", "role"), ["admin", "member"]);
    let one = alice
        .post(0, &people, json!({"userId": "erin"}))
        .await
        .ok(201);
    assert_eq!(
        (&one["participant"]["role"], &one["participant"]["leftAt"]),
        (&json!("member"), &Value::Null)
    );

    let partly =
        json!({"participants": [{"userId": "carol"}, {"userId": "frank"}, {"userId": "dave"}]});
    let refused = alice
        .post(1, &people, partly)
        .await
        .refused(409, "ALREADY_PARTICIPANT");
    assert_eq!(refused["userIds"], json!(["carol", "dave"]));
    let present = bob.get(1, &people).await.ok(200);
    assert_eq!(
        present.each("participants", "userId"),
        ["alice", "bob", "dave", "carol", "erin"]
    );
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_participants_are_refused_with_every_field() {
    let setup = Setup {
        gateways: 1,
        workers: 1,
        ..Setup::default()
    };
    let cluster = Cluster::start(setup).await;
    let alice = cluster.user("alice");
    let path = alice.begins(0, "group", &["bob"]).await;
    let people = format!("{path}/participants");
    alice
        .post(0, &people, json!({"userId": "", "role": "king"}))
        .await
        .invalid(&["/role", "/userId"]);
    alice
        .post(0, &people, json!({"participants": []}))
        .await
        .invalid(&["/participants"]);
    let many: Vec<_> = (0..1001)
        .map(|n| json!({"userId": format!("u{n}")}))
        .collect();
    alice
        .post(0, &people, json!({"participants": many}))
        .await
        .invalid(&["/participants"]);
    alice
        .patch(0, &format!("{people}/bob"), json!({"role": "king", "x": 1}))
        .await
        .invalid(&["/role", "/x"]);
    alice
        .patch(0, &format!("{people}/bob"), json!({}))
        .await
        .invalid(&["/role"]);
    let bad = "limit=1001&includeLeft=yes&role=king&typo=1";
    let refused = alice.get(0, &format!("{people}?{bad}")).await;
    refused.invalid(&["includeLeft", "limit", "role", "typo"]);
    alice
        .get(0, &format!("{people}?limit=0"))
        .await
        .invalid(&["limit"]);
    alice
        .get(0, &format!("{people}?cursor=x"))
        .await
        .refused(400, "INVALID_CURSOR");
    for nobody in ["nobody", "%00"] {
        let route = format!("{people}/{nobody}");
        alice
            .delete(0, &route)
            .await
            .refused(404, "PARTICIPANT_NOT_FOUND");
        alice
            .patch(0, &route, json!({"role": "admin"}))
            .await
            .refused(404, "PARTICIPANT_NOT_FOUND");
    }
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rejoining_member_has_new_membership() {
    let cluster = Cluster::start(Setup::default()).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let path = alice.begins(0, "group", &["bob"]).await;
    let people = format!("{path}/participants");
    alice.says(0, &path, "one").await;
    bob.post(
        1,
        "/v1/messages/read",
        json!({"conversationId": id_of(&path), "upToSeq": 2}),
    )
    .await
    .ok(200);
    let left = bob.delete(1, &format!("{people}/bob")).await.ok(200);
    assert!(left["participant"]["leftAt"].is_string(), "{left:?}");
    assert_eq!(left["conversationDeletedAt"], Value::Null);
    bob.delete(0, &format!("{people}/bob"))
        .await
        .refused(404, "CONVERSATION_NOT_FOUND");
    alice
        .delete(0, &format!("{people}/bob"))
        .await
        .refused(404, "PARTICIPANT_NOT_FOUND");

    alice.says(1, &path, "two").await;
    alice
        .post(0, &people, json!({"userId": "bob", "role": "admin"}))
        .await
        .ok(201);
    let present = bob.get(1, &people).await.ok(200);
    assert_eq!(present.each("participants", "userId"), ["alice", "bob"]);
    let all = bob
        .get(0, &format!("{people}?includeLeft=true"))
        .await
        .ok(200);
    assert_eq!(all.each("participants", "userId"), ["alice", "bob", "bob"]);
    assert_eq!(
        all.each("participants", "role"),
        ["admin", "member", "admin"]
    );
    let ended: Vec<_> = all
        .each("participants", "leftAt")
        .iter()
        .map(Value::is_string)
        .collect();
    assert_eq!(ended, [false, true, false]);
    // A current member may read what came before its joining.
    assert_eq!(
        bob.get(0, &format!("{path}/messages"))
            .await
            .list("messages")
            .len(),
        2
    );
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn participants_are_paged_by_role_including_left() {
    let cluster = Cluster::start(Setup::default()).await;
    let alice = cluster.user("alice");
    let path = alice.begins(0, "channel", &["bob"]).await;
    let people = format!("{path}/participants");
    let many: Vec<_> = (0..250)
        .map(|n| json!({"userId": format!("u{n:03}"), "role": if n % 50 == 0 { "admin" } else { "member" }}))
        .collect();
    alice
        .post(1, &people, json!({"participants": many}))
        .await
        .ok(201);
    let response = alice.get(0, &path).await.ok(200);
    assert_eq!(response.list("participants").len(), 100);

    let mut users = response.each("participants", "userId");
    let mut cursor = response.text("/participantsNextCursor");
    loop {
        let page = alice
            .get(1, &format!("{people}?limit=70&cursor={cursor}"))
            .await
            .ok(200);
        users.extend(page.each("participants", "userId"));
        let Some(next) = page["nextCursor"].as_str() else {
            break;
        };
        cursor = next.to_owned();
    }
    let expected: Vec<_> = ["alice".to_owned(), "bob".to_owned()]
        .into_iter()
        .chain((0..250).map(|n| format!("u{n:03}")))
        .collect();
    assert_eq!(users, expected);
    let whole = alice.get(0, &format!("{people}?limit=1000")).await.ok(200);
    assert_eq!(
        (whole.list("participants").len(), &whole["nextCursor"]),
        (252, &Value::Null)
    );
    let admins = alice.get(0, &format!("{people}?role=admin")).await.ok(200);
    assert_eq!(
        admins.each("participants", "userId"),
        ["alice", "u000", "u050", "u100", "u150", "u200"]
    );

    alice.delete(0, &format!("{people}/u050")).await.ok(200);
    let admins = alice
        .get(1, &format!("{people}?role=admin&includeLeft=true"))
        .await
        .ok(200);
    assert_eq!(admins.list("participants").len(), 6);
    let admins = alice
        .get(1, &format!("{people}?role=admin&includeLeft=false"))
        .await
        .ok(200);
    assert_eq!(admins.list("participants").len(), 5);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_conversation_takes_nobody() {
    let cluster = Cluster::start(Setup::default()).await;
    let alice = cluster.user("alice");
    for (r#type, members) in [("group", 1_000), ("channel", 100_000)] {
        let path = alice.begins(0, r#type, &["bob"]).await;
        sqlx::query("update conversations set members = $2 where id = $1::uuid")
            .bind(id_of(&path))
            .bind(members - 1)
            .execute(&cluster.store)
            .await
            .unwrap();
        let people = format!("{path}/participants");
        let two = json!({"participants": [{"userId": "carol"}, {"userId": "dave"}]});
        alice
            .post(1, &people, two)
            .await
            .refused(409, "CONVERSATION_FULL");
        alice
            .post(0, &people, json!({"userId": "carol"}))
            .await
            .ok(201);
        alice
            .post(1, &people, json!({"userId": "dave"}))
            .await
            .refused(409, "CONVERSATION_FULL");
    }
    let many: Vec<_> = (0..1000).map(|n| format!("u{n}")).collect();
    let group = json!({"type": "group", "participants": many});
    alice
        .post(0, "/v1/conversations", group)
        .await
        .refused(409, "CONVERSATION_FULL");
    cluster.end().await;
}
