use confab_auth::Scope;
use uuid::Uuid;

use super::*;
use crate::delivery::encoding::Encoding;

fn at(second: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(second).unwrap()
}

fn caller(user: &str, login: &str, issued: i64) -> Caller {
    Caller {
        tenant: "t".parse().unwrap(),
        user: user.parse().unwrap(),
        device: format!("{user}'s"),
        login_session: login.to_owned(),
        issued_at: at(issued),
        expires_at: at(issued + 3600),
        scope: Scope::parse(""),
    }
}

fn id(n: u128) -> SessionId {
    SessionId(Uuid::from_u128(n))
}

fn open(sessions: &Sessions, n: u128, caller: Caller) -> (Registered, Arc<SendQueue>) {
    let send_queue = Arc::new(SendQueue::new(Encoding::Json, 1000));
    (
        sessions.register(id(n), caller, Arc::clone(&send_queue)),
        send_queue,
    )
}

fn revoke(sessions: &Sessions, target: RevocationTarget) -> usize {
    sessions.close_revoked(&Revocation {
        revision: 1,
        tenant: "t".parse().unwrap(),
        target,
        created_at: Timestamp::new(at(100)),
        expires_at: Timestamp::new(at(9999)),
    })
}

fn is_closed(send_queue: &SendQueue) -> bool {
    send_queue.taken(1) == Err(Code::TokenRevoked)
}

fn listed(sessions: &Sessions, user: &str) -> Vec<SessionId> {
    let own = sessions.of(&"t".parse().unwrap(), &user.parse().unwrap());
    own.iter().map(|session| session.id).collect()
}

#[test]
fn user_lists_own_open_sessions() {
    let sessions = Sessions::default();
    let (first, _) = open(&sessions, 1, caller("alice", "a", 1));
    let (_second, _) = open(&sessions, 2, caller("alice", "b", 1));
    let (_others, _) = open(&sessions, 3, caller("bob", "a", 1));
    assert_eq!(listed(&sessions, "alice").len(), 2);
    assert_eq!(listed(&sessions, "bob"), [id(3)]);
    let (tenant, bob) = ("t".parse().unwrap(), "bob".parse().unwrap());
    let one = sessions.of(&tenant, &bob).remove(0);
    assert_eq!(
        (one.device_id.as_str(), one.login_session_id.as_str()),
        ("bob's", "a")
    );
    assert!(one.last_seen_at >= one.since);
    assert!(sessions.of(&"other".parse().unwrap(), &bob).is_empty());

    drop(first);
    assert_eq!(listed(&sessions, "alice"), [id(2)]);
}

#[test]
fn newest_sessions_are_listed_beyond_bound() {
    let sessions = Sessions::default();
    let all: Vec<_> = (0..300)
        .map(|n| open(&sessions, n, caller("alice", "a", 1)))
        .collect();
    assert_eq!(listed(&sessions, "alice").len(), MAX_LISTED_SESSIONS);
    drop(all);
    assert!(listed(&sessions, "alice").is_empty());
    let registry = sessions.lock();
    assert!(registry.users.is_empty() && registry.logins.is_empty());
}

#[test]
fn revocation_closes_exactly_what_it_covers() {
    let sessions = Sessions::default();
    let (_a, alice) = open(&sessions, 1, caller("alice", "a", 10));
    let (_b, alice_later) = open(&sessions, 2, caller("alice", "b", 50));
    let (_c, bob) = open(&sessions, 3, caller("bob", "c", 10));

    let another = RevocationTarget::Session {
        session: id(3),
        user: Some("alice".parse().unwrap()),
    };
    assert_eq!(revoke(&sessions, another), 0, "not hers");
    let user = RevocationTarget::User {
        user: "alice".parse().unwrap(),
        issued_before: Some(Timestamp::new(at(50))),
    };
    assert_eq!(revoke(&sessions, user), 1);
    assert!(is_closed(&alice) && !is_closed(&alice_later) && !is_closed(&bob));
    assert_eq!(
        revoke(&sessions, RevocationTarget::Login("c".to_owned())),
        1
    );
    assert!(is_closed(&bob));
    let session = RevocationTarget::Session {
        session: id(2),
        user: None,
    };
    assert_eq!(revoke(&sessions, session), 1);
    assert!(is_closed(&alice_later));
}

#[test]
fn renewed_token_replaces_first() {
    let sessions = Sessions::default();
    let (place, send_queue) = open(&sessions, 1, caller("alice", "old", 10));
    place.renewed(&caller("alice", "new", 200));
    assert_eq!(listed(&sessions, "alice"), [id(1)]);
    assert_eq!(
        revoke(&sessions, RevocationTarget::Login("old".to_owned())),
        0
    );
    let user = RevocationTarget::User {
        user: "alice".parse().unwrap(),
        issued_before: None,
    };
    assert_eq!(revoke(&sessions, user), 0);
    assert_eq!(
        revoke(&sessions, RevocationTarget::Login("new".to_owned())),
        1
    );
    assert!(is_closed(&send_queue));
}

#[test]
fn resumed_session_outlives_former_connection() {
    let sessions = Sessions::default();
    let (former, _) = open(&sessions, 1, caller("alice", "a", 1));
    let (_resumed, send_queue) = open(&sessions, 1, caller("alice", "b", 1));
    drop(former);
    assert_eq!(listed(&sessions, "alice"), [id(1)]);
    let target = RevocationTarget::Login("b".to_owned());
    assert_eq!(revoke(&sessions, target), 1);
    assert!(is_closed(&send_queue));
}
