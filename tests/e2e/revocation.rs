//! A revocation takes effect within a second at every gateway and closes the sockets.

use std::time::Duration;

use confab_client::{ClientError, Http, NewRevocation, TokenIn};
use confab_protocol::error::Code;
use confab_protocol::revocation::RevocationView;
use confab_protocol::timestamp::Timestamp;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::support::{Cluster, Member, Setup, User, claims, eventually};
use crate::tokens::{opened, over_http};

mod faults;

/// What the issue promises of every gateway that has NATS.
const AT_ONCE: Duration = Duration::from_secs(1);

/// A user by claims with some changed.
fn user(cluster: &Cluster, name: &str, change: &Value) -> User {
    let mut claims = claims(name);
    let change = change.as_object().unwrap().clone();
    claims.as_object_mut().unwrap().extend(change);
    cluster.user_of(&claims)
}

fn backend(cluster: &Cluster) -> User {
    user(cluster, "backend", &json!({"scope": "confab:admin"}))
}

fn seconds_ago(seconds: i64) -> i64 {
    OffsetDateTime::now_utc().unix_timestamp() - seconds
}

fn at(second: i64) -> Timestamp {
    Timestamp::new(OffsetDateTime::from_unix_timestamp(second).unwrap())
}

async fn revoke(backend: &User, what: NewRevocation) -> RevocationView {
    backend.http(0).revoke(&what).await.unwrap()
}

fn login(name: &str) -> NewRevocation {
    NewRevocation {
        login_session_id: Some(name.to_owned()),
        ..NewRevocation::default()
    }
}

fn all_of(user: &User) -> NewRevocation {
    NewRevocation {
        user_id: Some(user.id.clone()),
        ..NewRevocation::default()
    }
}

/// Whether the token is refused as revoked on every way in to a gateway.
async fn is_refused(url: &str, token: &str) -> bool {
    let code = Code::TokenRevoked;
    over_http(url, token).await == Some(code)
        && opened(url, TokenIn::Header(token.to_owned())).await == Some((code, None))
        && opened(url, TokenIn::Hello(token.to_owned())).await == Some((code, Some(4403)))
}

async fn refused_everywhere(user: &User, gateways: usize, deadline: Duration) {
    for gateway in 0..gateways {
        let url = user.url(gateway);
        let what = format!("{} is refused at gateway {gateway}", user.id);
        eventually(&what, deadline, async || {
            is_refused(url, &user.token).await.then_some(())
        })
        .await;
    }
}

async fn taken_everywhere(user: &User, gateways: usize) {
    for gateway in 0..gateways {
        let url = user.url(gateway);
        let token = || user.token.clone();
        assert_eq!(over_http(url, &user.token).await, None, "{}", user.id);
        assert_eq!(opened(url, TokenIn::Header(token())).await, None);
        assert_eq!(opened(url, TokenIn::Hello(token())).await, None);
    }
}

async fn assert_counted(user: &User) {
    let http = user.http(0);
    let metrics = http.raw("GET", "/metrics", &[], "").await.unwrap();
    let metrics = String::from_utf8(metrics.body).unwrap();
    for transport in ["http", "websocket"] {
        let counted = metrics.lines().any(|line| {
            let is_it = line.starts_with("confab_auth_requests_total{");
            is_it && line.contains(transport) && line.contains("\"TOKEN_REVOKED\"")
        });
        assert!(counted, "{transport}: {metrics}");
    }
}

async fn closes(member: &Member, deadline: Duration) {
    let end = member.closes(deadline).await;
    assert_eq!(
        (end.code, end.reason.as_str()),
        (Some(4403), "TOKEN_REVOKED")
    );
}

fn assert_open(members: &[&Member]) {
    for member in members {
        assert_eq!(member.record.borrow().closed, None, "{}", member.id);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoked_login_is_refused_and_others_continue() {
    let cluster = Cluster::start(Setup::default()).await;
    let stolen = user(&cluster, "alice", &json!({"sessionId": "stolen"}));
    let kept = user(&cluster, "alice", &json!({"sessionId": "kept"}));
    let foreign = json!({"sessionId": "stolen", "tenant": "acme"});
    let foreign = user(&cluster, "alice", &foreign);
    let sockets = [stolen.on(0).await, stolen.on(1).await];
    let others = [kept.on(0).await, foreign.on(1).await];

    let revoked = revoke(&backend(&cluster), login("stolen")).await;
    assert_eq!(revoked.login_session_id.as_deref(), Some("stolen"));
    assert_eq!((revoked.user_id, revoked.session_id), (None, None));
    refused_everywhere(&stolen, 2, AT_ONCE).await;
    for socket in &sockets {
        closes(socket, AT_ONCE).await;
    }
    taken_everywhere(&kept, 2).await;
    taken_everywhere(&foreign, 2).await;
    assert_counted(&stolen).await;
    assert_open(&[&others[0], &others[1]]);
    drop((sockets, others));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_issued_before_revocation_time_are_refused() {
    let cluster = Cluster::start(Setup::default()).await;
    let old = user(&cluster, "alice", &json!({"iat": seconds_ago(60)}));
    let young = user(&cluster, "alice", &json!({"iat": seconds_ago(10)}));
    let bob = user(&cluster, "bob", &json!({"iat": seconds_ago(60)}));
    let (old_socket, young_socket) = (old.on(0).await, young.on(1).await);

    let before = at(seconds_ago(30));
    let up_to = NewRevocation {
        issued_before: Some(before),
        ..all_of(&old)
    };
    let revoked = revoke(&backend(&cluster), up_to).await;
    assert_eq!(revoked.user_id, Some(old.id.clone()));
    assert_eq!(revoked.issued_before, Some(before));
    refused_everywhere(&old, 2, AT_ONCE).await;
    closes(&old_socket, AT_ONCE).await;
    taken_everywhere(&young, 2).await;
    taken_everywhere(&bob, 2).await;
    assert_open(&[&young_socket]);

    // An earlier time takes nothing back.
    let earlier = NewRevocation {
        issued_before: Some(at(seconds_ago(3600))),
        ..all_of(&old)
    };
    revoke(&backend(&cluster), earlier).await;
    refused_everywhere(&old, 2, AT_ONCE).await;
    drop((old_socket, young_socket));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoked_user_loses_sockets_until_new_token() {
    let cluster = Cluster::start(Setup::default()).await;
    let phone = user(&cluster, "alice", &json!({"sessionId": "phone"}));
    let laptop = user(&cluster, "alice", &json!({"sessionId": "laptop"}));
    let bob = cluster.user("bob").on(0).await;
    let sockets = [
        phone.on(0).await,
        phone.on(1).await,
        laptop.on(0).await,
        laptop.on(1).await,
    ];

    let revoked = revoke(&backend(&cluster), all_of(&phone)).await;
    assert_eq!(revoked.issued_before, Some(revoked.created_at));
    for socket in &sockets {
        closes(socket, AT_ONCE).await;
    }
    refused_everywhere(&phone, 2, AT_ONCE).await;
    refused_everywhere(&laptop, 2, AT_ONCE).await;
    let fresh = user(&cluster, "alice", &json!({"iat": seconds_ago(-2)}));
    taken_everywhere(&fresh, 2).await;
    assert_open(&[&bob]);
    drop((sockets, bob));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backend_revokes_only_sessions_of_own_tenant() {
    let cluster = Cluster::start(Setup::default()).await;
    let alice = cluster.user("alice");
    let socket = alice.on(1).await;
    let this = NewRevocation {
        session_id: Some(socket.session.welcome().session_id),
        ..NewRevocation::default()
    };
    let others = json!({"scope": "confab:admin", "tenant": "acme"});
    let others = user(&cluster, "backend", &others);
    revoke(&others, this.clone()).await;
    revoke(&others, all_of(&alice)).await;
    taken_everywhere(&alice, 2).await;
    assert_open(&[&socket]);

    let scope = Some(Code::InsufficientScope);
    for scopes in ["", "confab:read confab:write"] {
        let plain = user(&cluster, "alice", &json!({"scope": scopes}));
        let refused = plain.http(0).revoke(&this).await.unwrap_err();
        assert_eq!(refused.code(), scope, "{scopes:?}");
    }
    assert_open(&[&socket]);
    assert_bad_bodies_are_told(&backend(&cluster).http(0)).await;
    let revoked = revoke(&backend(&cluster), this.clone()).await;
    assert_eq!(revoked.session_id, this.session_id);
    closes(&socket, AT_ONCE).await;
    taken_everywhere(&alice, 2).await;
    drop(socket);
    cluster.end().await;
}

async fn assert_bad_bodies_are_told(backend: &Http) {
    let ahead = NewRevocation {
        user_id: Some("alice".parse().unwrap()),
        issued_before: Some(at(seconds_ago(-60))),
        ..NewRevocation::default()
    };
    let two = NewRevocation {
        user_id: Some("alice".parse().unwrap()),
        ..login("stolen")
    };
    let bad = [
        (NewRevocation::default(), "/userId"),
        (two, "/userId"),
        (ahead, "/issuedBefore"),
        (login(""), "/loginSessionId"),
    ];
    for (body, pointer) in bad {
        let Err(ClientError::Problem(problem)) = backend.revoke(&body).await else {
            panic!("{body:?} was taken");
        };
        assert_eq!(problem.code, Code::Validation);
        let pointers: Vec<_> = problem
            .extension
            .errors
            .iter()
            .map(|e| &e.pointer)
            .collect();
        assert_eq!(pointers, [pointer], "{body:?}");
    }
}
