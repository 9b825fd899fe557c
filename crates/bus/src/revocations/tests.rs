use std::time::Duration;

use confab_protocol::ids::SessionId;
use confab_protocol::timestamp::Timestamp;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use uuid::Uuid;

use super::*;
use crate::testing::{NatsServer, TEST_TIMEOUT};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn revocation(revision: u64, target: RevocationTarget) -> Revocation {
    let now = OffsetDateTime::now_utc();
    Revocation {
        revision,
        tenant: "acme".parse().unwrap(),
        target,
        created_at: Timestamp::new(now),
        expires_at: Timestamp::new(now + time::Duration::HOUR),
    }
}

fn login(revision: u64, name: &str) -> Revocation {
    revocation(revision, RevocationTarget::Login(name.to_owned()))
}

#[test]
fn a_record_reads_well_and_survives() {
    let target = RevocationTarget::User {
        user: "auth0|5f".parse().unwrap(),
        issued_before: Some(at("2026-07-01T12:00:00.000Z")),
    };
    let revocation = Revocation {
        created_at: at("2026-07-01T12:00:00.000Z"),
        expires_at: at("2027-07-02T12:00:00.000Z"),
        ..revocation(7, target)
    };
    let record = encode(&revocation).unwrap();
    let text = r#"{"version":1,"revision":7,"tenant":"acme","sessionId":null,"loginSessionId":null,"userId":"auth0|5f","issuedBefore":"2026-07-01T12:00:00.000Z","createdAt":"2026-07-01T12:00:00.000Z","expiresAt":"2027-07-02T12:00:00.000Z"}"#;
    assert_eq!(str::from_utf8(&record).unwrap(), text);
    assert_eq!(decode(&record), Some(revocation));
    for junk in [
        "",
        "{}",
        &text.replace("\"version\":1", "\"version\":2"),
        &text.replace("\"auth0|5f\"", "null"),
    ] {
        assert_eq!(decode(junk.as_bytes()), None, "{junk}");
    }
}

#[test]
fn revocation_key_holds_any_text_without_collision() {
    let session = SessionId(Uuid::from_u128(7));
    let of = |user: Option<&str>| RevocationTarget::Session {
        session,
        user: user.map(|user| user.parse().unwrap()),
    };
    let keys: Vec<_> = [
        of(None),
        of(Some("alice")),
        of(Some("mallory")),
        RevocationTarget::Login("a.*> é".to_owned()),
        RevocationTarget::User {
            user: "a.*> é".parse().unwrap(),
            issued_before: None,
        },
    ]
    .map(|target| key(&revocation(1, target)))
    .into();
    assert_eq!(keys[3], "acme.login.612e2a3e20c3a9");
    let distinct: std::collections::BTreeSet<_> = keys.iter().collect();
    assert_eq!(distinct.len(), keys.len());
}

/// A NATS server, a bus connected to it, and a gateway that hears of revocations.
struct Running {
    bus: Bus,
    server: NatsServer,
    heard: mpsc::Receiver<RevocationUpdate>,
    _tasks: JoinSet<()>,
}

async fn start() -> Running {
    let server = NatsServer::start().await;
    let bus = server.connect().await;
    let (tasks, heard) = listen(bus.clone());
    Running {
        bus,
        server,
        heard,
        _tasks: tasks,
    }
}

/// A gateway of its own.
fn listen(bus: Bus) -> (JoinSet<()>, mpsc::Receiver<RevocationUpdate>) {
    let (gateway, heard) = mpsc::channel(64);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { Box::pin(watch_revocations(&bus, gateway)).await });
    (tasks, heard)
}

/// Waits until `revocation` is heard; what was heard before is passed over.
async fn hears(heard: &mut mpsc::Receiver<RevocationUpdate>, revocation: &Revocation) {
    let found = async {
        while let Some(item) = heard.recv().await {
            if matches!(&item, RevocationUpdate::Revoked(one) if one == revocation) {
                return;
            }
        }
        panic!("nobody tells any more");
    };
    timeout(TEST_TIMEOUT, found)
        .await
        .expect("not heard in time");
}

async fn announce(bus: &Bus, revocation: &Revocation) {
    let announced = async {
        while bus.announce_revocation(revocation).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(TEST_TIMEOUT, announced).await.unwrap();
}

/// Returns what NATS holds under a key of the bucket.
async fn kept(bus: &Bus, key: &str) -> Option<Bytes> {
    let bucket = bus.jetstream.get_key_value(REVOCATIONS_BUCKET).await;
    bucket.unwrap().get(key).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revocation_is_broadcast_and_kept_for_later_gateways() {
    let mut running = start().await;
    let first = login(1, "first");
    announce(&running.bus, &first).await;
    hears(&mut running.heard, &first).await;
    let record = kept(&running.bus, &key(&first)).await.unwrap();
    assert_eq!(decode(&record), Some(first.clone()));

    let again = Revocation {
        revision: 2,
        ..first.clone()
    };
    announce(&running.bus, &again).await;
    let (_tasks, mut later) = listen(running.server.connect().await);
    hears(&mut later, &again).await;
    let stream = running.bus.revocations_bucket().await.unwrap();
    let info = stream.cached_info();
    assert_eq!(
        info.state.messages, 1,
        "a repeat takes the place of the first"
    );
    assert_eq!(info.config.max_consumers, MAX_CONSUMERS);
    assert!(info.config.description.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_leaves_the_bucket_when_it_expires() {
    let running = start().await;
    let brief = Revocation {
        expires_at: Timestamp::new(OffsetDateTime::now_utc() + time::Duration::SECOND),
        ..login(1, "brief")
    };
    announce(&running.bus, &brief).await;
    let gone = async {
        while kept(&running.bus, &key(&brief)).await.is_some() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(TEST_TIMEOUT, gone).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_bucket_is_recreated_and_watched_again() {
    let mut running = start().await;
    let (first, second) = (login(1, "first"), login(2, "second"));
    announce(&running.bus, &first).await;
    hears(&mut running.heard, &first).await;

    let deleted = running.bus.jetstream.delete_key_value(REVOCATIONS_BUCKET);
    deleted.await.unwrap();
    put_in_bucket_only(&running.bus, &second).await;
    hears(&mut running.heard, &second).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateway_reads_again_after_store_was_erased() {
    let mut running = start().await;
    let first = login(1, "first");
    announce(&running.bus, &first).await;
    hears(&mut running.heard, &first).await;

    running.server.nats.kill().unwrap();
    running.server.nats.erase_store().unwrap();
    running.server.nats.up().await.unwrap();
    let reads = async {
        while !matches!(
            running.heard.recv().await,
            Some(RevocationUpdate::ReadAgain)
        ) {}
    };
    timeout(TEST_TIMEOUT, reads).await.unwrap();
    let second = login(2, "second");
    put_in_bucket_only(&running.bus, &second).await;
    hears(&mut running.heard, &second).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_revocation_is_reported_and_stops_nothing() {
    let mut running = start().await;
    let client = &running.bus.client;
    running.bus.revocations_bucket().await.unwrap();
    for subject in [REVOCATION_SUBJECT, "$KV.confab_revocations.acme.login.00"] {
        // Until the subscription stands, what is broadcast is not heard.
        let told = async {
            loop {
                client.publish(subject, "{}".into()).await.unwrap();
                let heard = timeout(Duration::from_millis(200), running.heard.recv()).await;
                if matches!(heard, Ok(Some(RevocationUpdate::Malformed))) {
                    return;
                }
            }
        };
        timeout(TEST_TIMEOUT, told).await.unwrap();
    }
    let good = login(1, "good");
    announce(&running.bus, &good).await;
    hears(&mut running.heard, &good).await;
}

/// As a worker whose broadcast nobody heard.
async fn put_in_bucket_only(bus: &Bus, revocation: &Revocation) {
    let put = async {
        loop {
            if bus.revocations_bucket().await.is_ok() {
                let subject = format!("$KV.{REVOCATIONS_BUCKET}.{}", key(revocation));
                let record = encode(revocation).unwrap();
                if let Ok(ack) = bus.jetstream.publish(subject, record).await
                    && ack.await.is_ok()
                {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(TEST_TIMEOUT, put).await.unwrap();
}
