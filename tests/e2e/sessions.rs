//! A user lists its open sessions at all gateways and ends one of them.

use std::time::Duration;

use confab_client::{ClientError, Ws};
use confab_protocol::error::Code;
use confab_protocol::frame::{ClientFrame, Plain};
use confab_protocol::ids::SessionId;
use confab_protocol::resource::Session;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Cluster, Member, Setup, User, claims, eventually};

mod unknown;

const WAIT_TIMEOUT: Duration = Duration::from_secs(5);
/// What the issue promises of every gateway that has NATS.
const AT_ONCE: Duration = Duration::from_secs(1);

/// A user by claims with some changed.
fn user(cluster: &Cluster, name: &str, change: &Value) -> User {
    let mut claims = claims(name);
    let change = change.as_object().unwrap().clone();
    claims.as_object_mut().unwrap().extend(change);
    cluster.user_of(&claims)
}

fn ids(sessions: &[Session]) -> Vec<SessionId> {
    sessions.iter().map(|session| session.id).collect()
}

fn id(member: &Member) -> SessionId {
    member.session.welcome().session_id
}

fn closed(member: &Member) -> bool {
    member.record.borrow().closed.is_some()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn user_lists_only_own_sessions_at_any_gateway() {
    let cluster = Cluster::start(Setup::default()).await;
    let phone = json!({"deviceId": "phone", "sessionId": "login-1"});
    let laptop = json!({"deviceId": "laptop", "sessionId": "login-2"});
    let first = user(&cluster, "alice", &phone).on(0).await;
    let second = user(&cluster, "alice", &laptop).on(1).await;
    let bob = cluster.user("bob").on(0).await;
    let namesake = user(&cluster, "alice", &json!({"tenant": "acme"}));
    let foreign = namesake.on(1).await;

    let alice = cluster.user("alice");
    for gateway in 0..2 {
        let listed = alice.http(gateway).sessions().await.unwrap();
        assert_eq!(ids(&listed), [id(&second), id(&first)], "the newest first");
        let devices = [("laptop", "login-2"), ("phone", "login-1")];
        for (session, (device, login)) in listed.iter().zip(devices) {
            assert_eq!(session.device_id, device);
            assert_eq!(session.login_session_id, login);
            assert!(session.since <= session.last_seen_at);
        }
    }
    let others = namesake.http(0).sessions().await.unwrap();
    assert_eq!(ids(&others), [id(&foreign)]);
    let bobs = bob.http.sessions().await.unwrap();
    assert_eq!(ids(&bobs), [id(&bob)]);

    drop(first);
    eventually("a session that ended is gone", WAIT_TIMEOUT, async || {
        let listed = alice.http(1).sessions().await.unwrap();
        (ids(&listed) == [id(&second)]).then_some(())
    })
    .await;
    drop((second, bob, foreign));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_from_a_client_is_seen() {
    let cluster = Cluster::start(Setup::default()).await;
    let alice = cluster.user("alice");
    let options = confab_client::Options::bearer(&alice.token);
    let (_, mut ws) = Ws::connect(alice.url(0), options).await.unwrap();
    let before = alice.http(1).sessions().await.unwrap()[0].last_seen_at;
    // A first ping may come in the millisecond of the hello.
    eventually("a ping is seen", WAIT_TIMEOUT, async || {
        let ping = ClientFrame::Ping(Plain::default());
        ws.send_frame(&ping).await.unwrap();
        ws.next().await.unwrap();
        let after = alice.http(1).sessions().await.unwrap()[0].last_seen_at;
        (after > before).then_some(())
    })
    .await;
    drop(ws);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_list_skips_dead_gateway_without_waiting() {
    let mut cluster = Cluster::start(Setup::default()).await;
    let alice = cluster.user("alice");
    let here = alice.on(0).await;
    let there = alice.on(1).await;
    cluster.gateways[1].process_mut().kill().unwrap();
    let listed = alice.http(0).sessions().await.unwrap();
    assert_eq!(ids(&listed), [id(&here)]);

    cluster.restart_gateway(1).await;
    let back = alice.on(1).await;
    let listed = alice.http(1).sessions().await.unwrap();
    assert_eq!(ids(&listed), [id(&back), id(&here)]);
    drop((here, there, back));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoked_session_alone_closes_at_any_gateway() {
    let cluster = Cluster::start(Setup::default()).await;
    let alice = cluster.user("alice");
    let here = alice.on(0).await;
    let there = alice.on(1).await;
    let bob = cluster.user("bob").on(1).await;

    let revoked = alice.http(0).revoke_session(id(&there)).await.unwrap();
    assert_eq!(revoked.session_id, Some(id(&there)));
    assert_eq!(revoked.user_id, Some(alice.id.clone()));
    assert!(revoked.expires_at > revoked.created_at);
    let end = there.closes(AT_ONCE).await;
    assert_eq!(
        (end.code, end.reason.as_str()),
        (Some(4403), "TOKEN_REVOKED")
    );

    // Its token is as good as before: a session was revoked, not a login.
    let again = alice.on(1).await;
    let listed = alice.http(0).sessions().await.unwrap();
    assert_eq!(ids(&listed), [id(&again), id(&here)]);

    // Another's session, one that never was: nothing happens, and nothing is told.
    let unknown = SessionId(Uuid::now_v7());
    for session in [id(&bob), unknown] {
        let told = alice.http(0).revoke_session(session).await.unwrap();
        assert_eq!(told.session_id, Some(session));
    }
    let own = alice.http(0).revoke_session(id(&here)).await.unwrap();
    assert_eq!(own.session_id, Some(id(&here)));
    here.closes(AT_ONCE).await;
    assert!(!closed(&bob) && !closed(&again));
    // What alice said of it is in nobody's way.
    bob.http.revoke_session(id(&bob)).await.unwrap();
    bob.closes(AT_ONCE).await;
    drop((here, there, bob, again));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_list_and_writers_end_sessions_by_id() {
    let setup = Setup {
        gateways: 1,
        workers: 1,
        ..Setup::default()
    };
    let cluster = Cluster::start(setup).await;
    let reads = user(&cluster, "alice", &json!({"scope": "confab:read"}));
    let writes = user(&cluster, "alice", &json!({"scope": "confab:write"}));
    let session = SessionId(Uuid::now_v7());
    let code = |error: ClientError| error.code();
    assert!(reads.http(0).sessions().await.is_ok());
    assert!(writes.http(0).revoke_session(session).await.is_ok());
    let scope = Some(Code::InsufficientScope);
    let refused = writes.http(0).sessions().await.unwrap_err();
    assert_eq!(code(refused), scope);
    let refused = reads.http(0).revoke_session(session).await.unwrap_err();
    assert_eq!(code(refused), scope);

    let bearer = format!("Bearer {}", writes.token);
    let path = format!("/v1/sessions/{session}");
    let headers = [("authorization", bearer.as_str())];
    let answer = writes.http(0).raw("DELETE", &path, &headers, "").await;
    let body: Value = answer.unwrap().json().unwrap();
    let told = &body["revocation"];
    let names: Vec<_> = told.as_object().unwrap().keys().collect();
    let all = [
        "createdAt",
        "expiresAt",
        "issuedBefore",
        "loginSessionId",
        "sessionId",
        "userId",
    ];
    assert_eq!(names, all, "nothing is left out");
    assert_eq!(told["sessionId"], session.to_string());
    assert!(told["loginSessionId"].is_null() && told["issuedBefore"].is_null());
    for (path, pointer) in [
        ("/v1/sessions/no-id", "id"),
        (&format!("/v1/sessions/{session}?all=1") as &str, "all"),
    ] {
        let headers = [("authorization", bearer.as_str())];
        let http = writes.http(0);
        let answer = http.raw("DELETE", path, &headers, "").await.unwrap();
        let problem: Value = answer.json().unwrap();
        assert_eq!(answer.status, 400, "{path}");
        assert_eq!(problem["code"], "VALIDATION_ERROR");
        assert_eq!(problem["errors"][0]["pointer"], pointer);
    }
    cluster.end().await;
}
