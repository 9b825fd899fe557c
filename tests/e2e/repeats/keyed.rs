//! Every conversation command recognizes a repeat by its `Idempotency-Key`.

use serde_json::{Value, json};

use crate::support::{Answer, Cluster, Setup, User, id_of};

/// A key is good for one kind of command, so that all kinds here share one.
const SHARED_KEY: &str = "k";

/// A request over HTTP: its method, path and body.
type Request = (&'static str, String, Option<Value>);

async fn keyed(user: &User, gateway: usize, key: &str, request: &Request) -> Answer {
    let (method, path, body) = request;
    let key = [("idempotency-key", key)];
    user.call(gateway, method, path, &key, body.clone()).await
}

/// How many events a conversation has.
async fn count(cluster: &Cluster, path: &str) -> i64 {
    let count = "select count(*) from events where conversation_id = $1::uuid";
    let count = sqlx::query_scalar(count).bind(id_of(path));
    count.fetch_one(&cluster.store).await.unwrap()
}

/// Asserts that a request is done once, that its repeat at another gateway is answered as it was, and that its key is good for no other.
async fn assert_once(
    cluster: &Cluster,
    user: &User,
    path: &str,
    key: &str,
    request: &Request,
    others: &[Request],
) {
    let first = keyed(user, 0, key, request).await;
    assert!(first.status < 300, "{request:?}: {}", first.body);
    assert_eq!(first.header("idempotent-replayed"), None, "{request:?}");
    let stored = count(cluster, path).await;
    let again = keyed(user, 1, &format!("\"{key}\""), request).await;
    assert_eq!(
        (again.status, &again.body),
        (first.status, &first.body),
        "{request:?}"
    );
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    for other in others {
        println!("{other:?} under the key of {request:?}");
        let told = keyed(user, 0, key, other).await;
        told.refused(422, "IDEMPOTENCY_KEY_REUSED");
    }
    assert_eq!(count(cluster, path).await, stored, "{request:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keyed_command_is_done_once_over_http() {
    let cluster = Cluster::start(Setup::default()).await;
    let alice = cluster.user("alice");
    let path = alice.begins(0, "group", &["bob"]).await;
    let message = async |words: &str| {
        let said = alice.says(0, &path, words).await;
        format!("/v1/messages/{}", said["id"].as_str().unwrap())
    };
    let (one, other) = (message("one").await, message("other").await);
    let people = format!("{path}/participants");
    let of = |user: &str| format!("{people}/{user}");
    let add = |users: Value| ("POST", people.clone(), Some(json!({"participants": users})));
    let role = |user: &str, role: &str| ("PATCH", of(user), Some(json!({ "role": role })));
    let rename = |name: &str| {
        let patch = json!({"metadata": {"name": name}});
        ("PATCH", path.clone(), Some(patch))
    };
    let delete = |path: &str| ("DELETE", path.to_owned(), None);
    let (carol, dave) = (json!({"userId": "carol"}), json!({"userId": "dave"}));
    let steps = [
        (
            add(json!([carol, dave])),
            vec![add(json!([carol])), add(json!([{"userId": "erin"}]))],
        ),
        (
            role("carol", "admin"),
            vec![role("carol", "member"), role("dave", "admin")],
        ),
        (rename("x"), vec![rename("y")]),
        (delete(&of("dave")), vec![delete(&of("carol"))]),
        (delete(&one), vec![delete(&other)]),
    ];
    for (request, others) in &steps {
        assert_once(&cluster, &alice, &path, SHARED_KEY, request, others).await;
    }
    // What changes nothing is known again as well.
    for (request, another) in [
        (role("carol", "admin"), role("carol", "member")),
        (rename("x"), rename("y")),
    ] {
        assert_once(&cluster, &alice, &path, "nothing", &request, &[another]).await;
    }
    assert_once(&cluster, &alice, &path, SHARED_KEY, &delete(&path), &[]).await;
    // Whatever became of the conversation since, a repeat is told that it was done.
    let stored = count(&cluster, &path).await;
    for (request, _) in &steps {
        let again = keyed(&alice, 0, SHARED_KEY, request).await;
        assert!(again.status < 300, "{request:?}: {}", again.body);
        assert_eq!(again.header("idempotent-replayed"), Some("true"));
    }
    assert_eq!(count(&cluster, &path).await, stored);
    cluster.end().await;
}

/// Behind its leaving nobody but the key knows that it was a member.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaving_twice_by_one_key_is_leaving_once() {
    let cluster = Cluster::start(Setup::default()).await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let path = alice.begins(0, "group", &["bob"]).await;
    for user in [&alice, &bob] {
        let leave = ("DELETE", format!("{path}/participants/{}", user.id), None);
        assert_once(&cluster, user, &path, SHARED_KEY, &leave, &[]).await;
        // By no key it is nobody's any more.
        let told = user.call(1, "DELETE", &leave.1, &[], None).await;
        assert!(told.status >= 400, "{}", told.body);
    }
    cluster.end().await;
}
