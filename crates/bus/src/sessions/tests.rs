use confab_protocol::ids::SessionId;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::*;
use crate::testing::{NatsServer, TEST_TIMEOUT};

fn session(n: u32) -> Session {
    let at = format!("2026-07-01T12:00:{:02}.{:03}Z", n / 1000, n % 1000);
    Session {
        id: SessionId(Uuid::from_u128(n.into())),
        device_id: "device".to_owned(),
        login_session_id: "login".to_owned(),
        since: at.parse().unwrap(),
        last_seen_at: at.parse().unwrap(),
    }
}

fn told(gateway: u128, sessions: impl IntoIterator<Item = u32>) -> UserSessions {
    UserSessions {
        gateway: GatewayId(Uuid::from_u128(gateway)),
        sessions: sessions.into_iter().map(session).collect(),
    }
}

#[test]
fn answer_is_complete_when_all_live_gateways_answered() {
    let alive = [1, 2].map(|n| GatewayId(Uuid::from_u128(n)));
    let mut gathered = GatheredSessions::of(&alive);
    for (gateway, sessions, complete) in [(1, 0..1, false), (3, 1..2, false), (2, 2..3, true)] {
        gathered.take(told(gateway, sessions));
        assert_eq!(gathered.is_complete(), complete);
    }
    let ids: Vec<_> = gathered.newest().iter().map(|s| s.id.0.as_u128()).collect();
    assert_eq!(ids, [2, 1, 0]);
    let mut unknown = GatheredSessions::of(&[]);
    unknown.take(told(1, []));
    assert!(!unknown.is_complete());
}

#[test]
fn only_the_newest_are_kept_however_many_answer() {
    let mut gathered = GatheredSessions::of(&[]);
    for gateway in 0..50 {
        let first = gateway * 200;
        gathered.take(told(gateway.into(), first..first + 200));
        assert!(gathered.sessions.len() <= 5 * MAX_LISTED_SESSIONS);
    }
    let newest = gathered.newest();
    assert_eq!(newest.len(), MAX_LISTED_SESSIONS);
    assert_eq!(newest[0].id, SessionId(Uuid::from_u128(9999)));
}

/// Gateways that answer as long as the set lives: gateway n has the session n.
async fn answering(bus: &Bus, gateways: &[u128]) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for number in gateways.iter().copied() {
        let mut queries = bus.session_queries().await.unwrap();
        tasks.spawn(async move {
            while let Some(query) = queries.next().await {
                assert_eq!(query.of.user.as_str(), "alice");
                let own = vec![session(number.try_into().unwrap())];
                let gateway = GatewayId(Uuid::from_u128(number));
                queries.answer(query, gateway, own).await.unwrap();
            }
        });
    }
    tasks
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_gateway_is_queried_and_silence_times_out() {
    let server = NatsServer::start().await;
    let bus = server.connect().await;
    let _gateways = answering(&bus, &[1, 2]).await;
    let of = SessionsOf::new("acme".parse().unwrap(), "alice".parse().unwrap());
    let gateways = |ids: &[u128]| ids.iter().map(|n| GatewayId(Uuid::from_u128(*n))).collect();
    let both: Vec<_> = gateways(&[1, 2]);
    for (alive, waits) in [(both, false), (gateways(&[1, 2, 3]), true), (vec![], true)] {
        let began = Instant::now();
        let asked = timeout(TEST_TIMEOUT, bus.sessions_of(&of, &alive)).await;
        let listed: Vec<_> = asked.unwrap().unwrap().iter().map(|s| s.id).collect();
        assert_eq!(listed, [session(2).id, session(1).id]);
        assert_eq!(began.elapsed() >= ANSWER_TIMEOUT, waits);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_nats_nobody_is_asked() {
    let mut server = NatsServer::start().await;
    let bus = server.connect().await;
    server.nats.kill().unwrap();
    let mut link = bus.connection();
    let away = link.wait_for(|link| !link.connected);
    timeout(TEST_TIMEOUT, away).await.unwrap().unwrap();
    let of = SessionsOf::new("acme".parse().unwrap(), "alice".parse().unwrap());
    let asked = bus.sessions_of(&of, &[]).await;
    assert!(matches!(asked, Err(BusError::Disconnected)));
}
