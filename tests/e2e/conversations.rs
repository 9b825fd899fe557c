//! Members find, read and list conversations over HTTP at any gateway; their number is bounded.

use serde_json::{Value, json};

use crate::support::{Cluster, Setup, claims, id_of};

mod creation;
mod deletion;
mod metadata;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pair_has_one_direct_conversation_with_fixed_members() {
    let cluster = Cluster::start(Setup::default()).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let direct = json!({"type": "direct", "participants": ["alice", "bob"]});
    let first = alice
        .post(0, "/v1/conversations", direct.clone())
        .await
        .ok(201);
    assert_eq!(first.each("participants", "role"), ["admin", "admin"]);
    let second = bob.post(1, "/v1/conversations", direct.clone()).await;
    let second = second.refused(409, "DIRECT_CONVERSATION_EXISTS");
    assert_eq!(second["conversationId"], first["conversation"]["id"]);
    assert_eq!(second.header("location"), first.header("location"));
    for listed in [
        json!(["bob", "carol"]),
        json!(["alice"]),
        json!(["alice", "bob", "carol"]),
    ] {
        let body = json!({"type": "direct", "participants": listed});
        let refused = alice.post(0, "/v1/conversations", body).await;
        refused.refused(400, "INVALID_DIRECT_CONVERSATION");
    }

    let path = first.header("location").unwrap();
    let people = format!("{path}/participants");
    let fixed = "DIRECT_CONVERSATION_FIXED";
    alice
        .post(1, &people, json!({"userId": "carol"}))
        .await
        .refused(409, fixed);
    bob.delete(0, &format!("{people}/bob"))
        .await
        .refused(409, fixed);
    alice
        .delete(0, &format!("{people}/bob"))
        .await
        .refused(409, fixed);
    alice
        .patch(1, &format!("{people}/bob"), json!({"role": "member"}))
        .await
        .refused(409, fixed);

    // Either may delete it, and then there is room for another.
    bob.delete(1, path).await.ok(200);
    let anew = alice.post(0, "/v1/conversations", direct).await.ok(201);
    assert_ne!(anew.header("location"), first.header("location"));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn member_reads_conversation_with_changing_etag() {
    let cluster = Cluster::start(Setup::default()).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let path = alice.begins(0, "group", &["bob"]).await;
    let response = bob.get(1, &path).await.ok(200);
    let mut etag = response.header("etag").unwrap().to_owned();
    let changes = [
        (
            "POST",
            "/v1/messages".to_owned(),
            json!({"conversationId": id_of(&path), "kind": "text", "content": 1}),
        ),
        ("PATCH", path.clone(), json!({"metadata": {"name": "trio"}})),
        (
            "POST",
            format!("{path}/participants"),
            json!({"userId": "carol"}),
        ),
        (
            "PATCH",
            format!("{path}/participants/carol"),
            json!({"role": "admin"}),
        ),
    ];
    for (method, route, body) in changes {
        let held = [("if-none-match", etag.as_str())];
        let unchanged = bob.call(0, "GET", &path, &held, None).await;
        assert_eq!(
            (unchanged.status, unchanged.header("etag")),
            (304, Some(etag.as_str()))
        );
        assert!(unchanged.response.body.is_empty());
        let done = alice.call(1, method, &route, &[], Some(body)).await;
        assert!(matches!(done.status, 200 | 201), "{done:?}");
        let changed = bob.call(0, "GET", &path, &held, None).await.ok(200);
        assert_ne!(
            changed.header("etag"),
            Some(etag.as_str()),
            "{method} {route}"
        );
        etag = changed.header("etag").unwrap().to_owned();
    }
    let read = bob.get(1, &path).await;
    assert_eq!(read["conversation"]["unreadCount"], 1);
    assert_eq!(read["conversation"]["role"], "member");
    assert_eq!(read["conversation"]["lastMessage"], Value::Null);
    assert_eq!(
        read.each("participants", "userId"),
        ["alice", "bob", "carol"]
    );
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn own_conversations_are_listed_ordered_with_unread_counts() {
    let cluster = Cluster::start(Setup::default()).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let first = alice.begins(0, "group", &["bob"]).await;
    let second = alice.begins(1, "channel", &["bob"]).await;
    let third = alice.begins(0, "direct", &["alice", "bob"]).await;
    alice.says(1, &first, "hi").await;

    let ids =
        |paths: &[&String]| -> Vec<Value> { paths.iter().map(|path| json!(id_of(path))).collect() };
    let recent = bob.get(1, "/v1/conversations").await.ok(200);
    assert_eq!(
        recent.each("conversations", "id"),
        ids(&[&first, &third, &second])
    );
    let preview = &recent["conversations"][0];
    assert_eq!(preview["lastMessage"]["content"]["text"], "hi");
    assert_eq!(
        (&preview["unreadCount"], &preview["lastReadSeq"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(recent["nextCursor"], Value::Null);

    let mut created = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = bob
            .get(
                0,
                &format!("/v1/conversations?order=created&limit=1{cursor}"),
            )
            .await
            .ok(200);
        created.extend(page.each("conversations", "id"));
        let Some(next) = page["nextCursor"].as_str() else {
            break;
        };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(created, ids(&[&third, &second, &first]));
    let channels = bob.get(0, "/v1/conversations?type=channel").await.ok(200);
    assert_eq!(channels.each("conversations", "id"), ids(&[&second]));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_conversations_are_refused_naming_users() {
    let cluster = Cluster::start(Setup::default()).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let path = alice.begins(0, "group", &["carol"]).await;
    let have = async |user: &str, count: i32| {
        let sql = "insert into user_counts values ('default', $1, $2) \
            on conflict (tenant, user_id) do update set memberships = $2";
        sqlx::query(sql)
            .bind(user)
            .bind(count)
            .execute(&cluster.store)
            .await
            .unwrap();
    };
    for user in ["bob", "dave"] {
        have(user, 8_000).await;
    }
    let people =
        json!({"participants": [{"userId": "bob"}, {"userId": "eve"}, {"userId": "dave"}]});
    let added = alice.post(1, &format!("{path}/participants"), people).await;
    let mut users = added
        .refused(409, "TOO_MANY_CONVERSATIONS")
        .list("userIds")
        .to_vec();
    users.sort_by_key(Value::to_string);
    assert_eq!(users, ["bob", "dave"]);
    let group = json!({"type": "group", "participants": ["bob"]});
    let created = alice.post(0, "/v1/conversations", group.clone()).await;
    assert_eq!(
        created.refused(409, "TOO_MANY_CONVERSATIONS")["userIds"],
        json!(["bob"])
    );

    // One's own go further.
    bob.post(
        1,
        "/v1/conversations",
        json!({"type": "group", "participants": ["bob"]}),
    )
    .await
    .ok(201);
    have("bob", 10_000).await;
    let created = bob.post(0, "/v1/conversations", group).await;
    assert_eq!(
        created.refused(409, "TOO_MANY_CONVERSATIONS")["userIds"],
        json!(["bob"])
    );
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backend_acts_in_any_conversation_of_tenant() {
    let cluster = Cluster::start(Setup::default()).await;
    let mut admin = claims("backend");
    admin["scope"] = "confab:admin".into();
    let backend = cluster.user_of(&admin);
    admin["tenant"] = "elsewhere".into();
    let foreign = cluster.user_of(&admin);
    let alice = cluster.user("alice");
    let path = backend.begins(0, "group", &["alice", "bob"]).await;
    let created = backend.get(1, &path).await.ok(200);
    assert_eq!(created.each("participants", "userId"), ["alice", "bob"]);
    assert_eq!(created["conversation"]["role"], Value::Null);

    let people = format!("{path}/participants");
    backend
        .patch(1, &path, json!({"metadata": {"name": "x"}}))
        .await
        .ok(200);
    backend
        .post(0, &people, json!({"userId": "carol"}))
        .await
        .ok(201);
    backend
        .patch(1, &format!("{people}/carol"), json!({"role": "admin"}))
        .await
        .ok(200);
    backend.delete(0, &format!("{people}/carol")).await.ok(200);
    backend.says(1, &path, "from the house").await;
    let hello = alice.says(0, &path, "hello").await;
    let message = format!("/v1/messages/{}", hello["id"].as_str().unwrap());
    backend.get(0, &message).await.ok(200);
    let edit = json!({"content": 1});
    backend
        .patch(1, &message, edit)
        .await
        .refused(403, "INSUFFICIENT_PERMISSIONS");
    backend.delete(1, &message).await.ok(200);
    let log = backend.get(0, &format!("{path}/events")).await.ok(200);
    let actors = log.each("events", "actor");
    assert_eq!(actors.iter().filter(|actor| *actor == "backend").count(), 7);

    foreign
        .get(0, &path)
        .await
        .refused(404, "CONVERSATION_NOT_FOUND");
    foreign
        .get(0, &message)
        .await
        .refused(404, "MESSAGE_NOT_FOUND");
    let deleted = backend.delete(1, &path).await.ok(200);
    assert_eq!(alice.delete(0, &path).await.ok(200).body, deleted.body);
    cluster.end().await;
}
