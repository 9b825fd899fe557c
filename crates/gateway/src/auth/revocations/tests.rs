use clap::Parser;
use confab_auth::mint::{Claims, Key};
use confab_auth::{Scope, Verifier};
use confab_protocol::revocation::RevocationTarget;
use confab_protocol::timestamp::Timestamp;
use prometheus_client::registry::Registry;

use super::*;
use crate::auth::{Authenticator, Transport};
use crate::delivery::encoding::Encoding;
use crate::delivery::send_queue::SendQueue;
use crate::limits::refusals::Refusals;
use crate::metrics::AuthMetrics;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    settings: confab_auth::Settings,
}

fn revocations() -> Revocations {
    let metrics = RevocationMetrics::new(&mut Registry::default());
    Revocations::new(Sessions::default(), metrics)
}

fn authenticator(key: &Key, revocations: &Revocations) -> Authenticator {
    let pem = key.public_pem().unwrap();
    let any = ["--jwt-any-issuer", "--jwt-any-audience", "--single-tenant"];
    let key = ["confab", "--jwt-public-key", pem.as_str()];
    let cli = Cli::try_parse_from(key.into_iter().chain(any)).unwrap();
    Authenticator::new(
        Arc::new(Verifier::new(&cli.settings).unwrap()),
        revocations.clone(),
        Refusals::new(false),
        AuthMetrics::new(&mut Registry::default()),
        0,
    )
}

fn of_login(name: &str) -> Revocation {
    let now = OffsetDateTime::now_utc();
    Revocation {
        revision: 1,
        tenant: "default".parse().unwrap(),
        target: RevocationTarget::Login(name.to_owned()),
        created_at: Timestamp::new(now),
        expires_at: Timestamp::new(now + time::Duration::HOUR),
    }
}

fn caller(login: &str) -> Caller {
    let now = OffsetDateTime::now_utc();
    Caller {
        tenant: "default".parse().unwrap(),
        user: "alice".parse().unwrap(),
        device: "device".to_owned(),
        login_session: login.to_owned(),
        issued_at: now,
        expires_at: now + time::Duration::HOUR,
        scope: Scope::parse(""),
    }
}

fn send_queue() -> Arc<SendQueue> {
    Arc::new(SendQueue::new(Encoding::Json, 1000))
}

#[tokio::test]
async fn revoked_callers_are_refused_once_revocations_are_known() {
    let (key, revocations) = (Key::generate().unwrap(), revocations());
    let authenticator = authenticator(&key, &revocations);
    let mut claims = Claims::new("alice", OffsetDateTime::now_utc(), time::Duration::HOUR);
    let mut token = |login: &str| {
        claims.session_id = login.to_owned();
        key.mint(&claims).unwrap()
    };
    let (good, stolen) = (token("good"), token("stolen"));
    let code = async |token: &str| {
        let admitted = authenticator.admit(token, Transport::WebSocket).await;
        admitted.err().map(|failure| failure.code)
    };
    assert_eq!(code(&good).await, Some(Code::Unavailable));
    assert_eq!(code("nonsense").await, Some(Code::InvalidToken));
    revocations.apply(&of_login("stolen"));
    assert_eq!(code(&stolen).await, Some(Code::TokenRevoked));

    revocations.loaded.store(true, Ordering::Release);
    assert_eq!(code(&good).await, None);
    assert_eq!(code(&stolen).await, Some(Code::TokenRevoked));
    assert_eq!(code("").await, Some(Code::MissingToken));
}

#[test]
fn token_revoked_after_check_opens_nothing() {
    let (key, revocations) = (Key::generate().unwrap(), revocations());
    let authenticator = authenticator(&key, &revocations);
    let session = SessionId(Uuid::from_u128(1));
    let place = authenticator
        .open(session, &caller("good"), send_queue())
        .unwrap();
    revocations.apply(&of_login("stolen"));
    let refused = |result: Result<(), Failure>| result.unwrap_err().code;
    let renewed = authenticator.renewed(&place, &caller("stolen"));
    assert_eq!(refused(renewed), Code::TokenRevoked);
    let other = SessionId(Uuid::from_u128(2));
    let opened = authenticator.open(other, &caller("stolen"), send_queue());
    assert_eq!(refused(opened.map(drop)), Code::TokenRevoked);
    let listed = revocations
        .sessions()
        .of(&"default".parse().unwrap(), &"alice".parse().unwrap());
    let ids: Vec<_> = listed.iter().map(|session| session.id).collect();
    assert_eq!(ids, [session], "what was refused has no place");
}

#[test]
fn revocation_between_check_and_opening_is_heeded() {
    let (key, revocations) = (Key::generate().unwrap(), revocations());
    let authenticator = authenticator(&key, &revocations);
    revocations.loaded.store(true, Ordering::Release);
    for round in 0..2000 {
        let login = format!("login-{round}");
        let (caller, send_queue) = (caller(&login), send_queue());
        let session = SessionId(Uuid::from_u128(round));
        let place = std::thread::scope(|scope| {
            scope.spawn(|| revocations.apply(&of_login(&login)));
            let checked = revocations.check(&caller);
            checked.and_then(|()| authenticator.open(session, &caller, Arc::clone(&send_queue)))
        });
        if place.is_ok() {
            assert_eq!(
                send_queue.taken(1),
                Err(Code::TokenRevoked),
                "round {round}"
            );
        }
    }
}

#[test]
fn gateway_without_reading_for_long_has_missed_some() {
    let lifetimes = Lifetimes {
        token_seconds: 3600,
        session_seconds: 2400,
    };
    let start = Instant::now();
    let after = |seconds| start + Duration::from_secs(seconds);
    assert!(!has_missed_some(start, after(5), lifetimes));
    assert!(!has_missed_some(start, after(2100), lifetimes));
    assert!(
        has_missed_some(start, after(2101), lifetimes),
        "some may have expired unheard"
    );
    let revocations = revocations();
    let (send_queue, session) = (send_queue(), SessionId(Uuid::from_u128(1)));
    let _place = revocations
        .sessions()
        .register(session, caller("l"), Arc::clone(&send_queue));
    assert_eq!(revocations.sessions().close_all(), 1);
    assert_eq!(send_queue.taken(1), Err(Code::Unavailable));
}
