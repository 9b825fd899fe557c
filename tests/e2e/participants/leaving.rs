//! Role changes, and what happens when the admins or the last member leave.

use serde_json::{Value, json};

use crate::support::{Cluster, Setup, User};

/// The types and data of a conversation's events above a seq, as its backend reads them.
async fn events(user: &User, path: &str, after: u64) -> Vec<(Value, Value)> {
    let log = user
        .get(0, &format!("{path}/events?after={after}"))
        .await
        .ok(200);
    let events = log.list("events").iter();
    events
        .map(|event| (event["type"].clone(), event["data"].clone()))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn admins_change_roles_and_one_admin_remains() {
    let cluster = Cluster::start(Setup::default()).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let path = alice.begins(0, "group", &["bob", "carol"]).await;
    let of = |user: &str| format!("{path}/participants/{user}");
    bob.patch(1, &of("bob"), json!({"role": "admin"}))
        .await
        .refused(403, "INSUFFICIENT_PERMISSIONS");
    alice
        .patch(0, &of("alice"), json!({"role": "member"}))
        .await
        .refused(409, "LAST_ADMIN");
    // A role that is given again is no event.
    alice
        .patch(0, &of("alice"), json!({"role": "admin"}))
        .await
        .ok(200);
    let raised = alice
        .patch(1, &of("bob"), json!({"role": "admin"}))
        .await
        .ok(200);
    assert_eq!(
        (
            &raised["participant"]["userId"],
            &raised["participant"]["role"]
        ),
        (&json!("bob"), &json!("admin"))
    );
    bob.patch(0, &of("alice"), json!({"role": "member"}))
        .await
        .ok(200);
    alice
        .patch(1, &of("bob"), json!({"role": "member"}))
        .await
        .refused(403, "INSUFFICIENT_PERMISSIONS");
    bob.patch(1, &of("bob"), json!({"role": "member"}))
        .await
        .refused(409, "LAST_ADMIN");
    bob.patch(1, &of("dave"), json!({"role": "admin"}))
        .await
        .refused(404, "PARTICIPANT_NOT_FOUND");
    let updates = events(&bob, &path, 1).await;
    let expected = [("bob", "admin"), ("alice", "member")].map(|(user, role)| {
        (
            json!("participant.updated"),
            json!({"userId": user, "role": role}),
        )
    });
    assert_eq!(updates, expected);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lone_last_admin_leads_members_added_later() {
    let cluster = Cluster::start(Setup::default()).await;
    let alice = cluster.user("alice");
    let path = alice.begins(0, "group", &["alice"]).await;
    let alices = format!("{path}/participants/alice");
    alice
        .patch(1, &alices, json!({"role": "member"}))
        .await
        .refused(409, "LAST_ADMIN");
    alice
        .post(0, &format!("{path}/participants"), json!({"userId": "bob"}))
        .await
        .ok(201);
    alice
        .patch(1, &path, json!({"metadata": {"name": "led"}}))
        .await
        .ok(200);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_concurrently_demoted_admins_stays() {
    let cluster = Cluster::start(Setup::default()).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let path = alice.begins(0, "group", &["bob", "carol"]).await;
    let of = |user: &str| format!("{path}/participants/{user}");
    for _ in 0..5 {
        for user in ["alice", "bob"] {
            let mut backend = crate::support::claims("backend");
            backend["scope"] = "confab:admin".into();
            let backend = cluster.user_of(&backend);
            backend
                .patch(0, &of(user), json!({"role": "admin"}))
                .await
                .ok(200);
        }
        let (first_path, second_path) = (of("alice"), of("bob"));
        let (first, second) = tokio::join!(
            alice.patch(0, &first_path, json!({"role": "member"})),
            bob.patch(1, &second_path, json!({"role": "member"})),
        );
        let lost = if first.status == 200 {
            second
        } else {
            second.ok(200);
            first
        };
        lost.refused(409, "LAST_ADMIN");
    }
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_leave_or_are_removed_by_admins() {
    let cluster = Cluster::start(Setup::default()).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let path = alice.begins(0, "group", &["bob", "carol"]).await;
    let of = |user: &str| format!("{path}/participants/{user}");
    bob.delete(0, &of("carol"))
        .await
        .refused(403, "INSUFFICIENT_PERMISSIONS");
    let removed = alice.delete(1, &of("carol")).await.ok(200);
    assert_eq!(removed["participant"]["userId"], "carol");
    assert!(removed["participant"]["leftAt"].is_string());
    alice
        .delete(0, &of("carol"))
        .await
        .refused(404, "PARTICIPANT_NOT_FOUND");
    bob.delete(0, &of("bob")).await.ok(200);
    bob.get(1, &path)
        .await
        .refused(404, "CONVERSATION_NOT_FOUND");
    let gone = events(&alice, &path, 1).await;
    let expected = [("carol", "removed"), ("bob", "left")].map(|(user, reason)| {
        (
            json!("participant.removed"),
            json!({"userId": user, "reason": reason}),
        )
    });
    assert_eq!(gone, expected);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaving_last_admin_promotes_longest_member() {
    let cluster = Cluster::start(Setup::default()).await;
    let (alice, carol) = (cluster.user("alice"), cluster.user("carol"));
    let path = alice.begins(0, "group", &["bob", "carol", "dave"]).await;
    let people = format!("{path}/participants");
    // Whoever came again is there for less long.
    alice.delete(1, &format!("{people}/bob")).await.ok(200);
    alice
        .post(0, &people, json!({"userId": "bob"}))
        .await
        .ok(201);
    alice.delete(1, &format!("{people}/alice")).await.ok(200);
    let admins = carol.get(0, &format!("{people}?role=admin")).await.ok(200);
    assert_eq!(admins.each("participants", "userId"), ["carol"]);
    let events = events(&carol, &path, 3).await;
    assert_eq!(
        events,
        [
            (
                json!("participant.removed"),
                json!({"userId": "alice", "reason": "left"})
            ),
            (
                json!("participant.updated"),
                json!({"userId": "carol", "role": "admin"})
            ),
        ]
    );
    carol
        .patch(1, &path, json!({"metadata": {"name": "mine"}}))
        .await
        .ok(200);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_one_to_leave_deletes_the_conversation() {
    let cluster = Cluster::start(Setup::default()).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let path = alice.begins(0, "group", &["bob"]).await;
    bob.delete(1, &format!("{path}/participants/bob"))
        .await
        .ok(200);
    let left = alice
        .delete(0, &format!("{path}/participants/alice"))
        .await
        .ok(200);
    let deleted_at = left.text("/conversationDeletedAt");
    assert_eq!(left["participant"]["leftAt"], deleted_at.as_str());
    for user in [&alice, &bob] {
        user.get(1, &path)
            .await
            .refused(410, "CONVERSATION_DELETED");
        let again = user.delete(0, &path).await.ok(200);
        assert_eq!(
            again.body,
            json!({"deleted": true, "deletedAt": deleted_at})
        );
    }
    let id = crate::support::id_of(&path);
    let rows: Vec<(String, String)> = sqlx::query_as(
        "select type, actor from events where conversation_id = $1::uuid and seq > 2 order by seq",
    )
    .bind(id)
    .fetch_all(&cluster.store)
    .await
    .unwrap();
    let expected =
        ["participant.removed", "conversation.deleted"].map(|t| (t.to_owned(), "alice".to_owned()));
    assert_eq!(rows, expected);
    let counts: i64 = sqlx::query_scalar("select coalesce(sum(memberships), 0) from user_counts")
        .fetch_one(&cluster.store)
        .await
        .unwrap();
    assert_eq!(counts, 0);
    cluster.end().await;
}
