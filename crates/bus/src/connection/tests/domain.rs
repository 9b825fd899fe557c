//! JetStream in another domain, behind a leaf node that has one of its own.

use bytes::Bytes;
use confab_protocol::check::{Check, CheckStatus};
use confab_protocol::event::EventType;
use confab_protocol::ids::{ConversationId, EventId, SessionId};
use confab_protocol::revocation::{Revocation, RevocationTarget};
use confab_protocol::timestamp::Timestamp;
use time::OffsetDateTime;
use uuid::Uuid;

use super::*;
use crate::check::{self, Role};
use crate::publish::Outgoing;
use crate::records::{Bucket, Entry, Put};

/// A server with a JetStream domain, and its store apart.
async fn in_domain(folder: &TempDir, domain: &str, leafnodes: &str) -> Strict {
    let store = folder.path().join(domain);
    let extra = format!(
        "jetstream {{ store_dir: {:?}, domain: {domain} }}\nleafnodes {{ {leafnodes} }}\n",
        store.display().to_string()
    );
    Strict::start(&extra).await
}

/// A hub, a leaf node at it, and a connection to the leaf whose streams are the hub's.
async fn hub_and_leaf(folder: &TempDir) -> (Strict, Strict, Settings, Bus) {
    let port = free_port().unwrap();
    let hub = in_domain(folder, "hub", &format!("listen: \"127.0.0.1:{port}\"")).await;
    let remote = format!("remotes: [{{ url: \"nats-leaf://127.0.0.1:{port}\" }}]");
    let leaf = in_domain(folder, "leaf", &remote).await;
    let mut settings = leaf.settings();
    settings.nats_jetstream_domain = Some("hub".to_owned());
    let bus = leaf.takes(&settings).await;
    let provisioned = async {
        while bus.provision().await.is_err() {
            sleep(POLL_INTERVAL).await;
        }
    };
    timeout(TEST_TIMEOUT, provisioned)
        .await
        .expect("a link to the hub");
    (hub, leaf, settings, bus)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_are_in_the_domain_of_settings() {
    let folder = tempfile::tempdir().unwrap();
    let (hub, leaf, _, bus) = hub_and_leaf(&folder).await;
    let event = Outgoing {
        tenant: "acme".parse().unwrap(),
        conversation: ConversationId(Uuid::from_u128(1)),
        seq: 1,
        id: EventId(Uuid::from_u128(2)),
        r#type: EventType::MessageCreated,
        target_seq: None,
        json: Bytes::from_static(b"{}"),
    };
    let published = async {
        loop {
            if let Ok(publishing) = bus.publish(&event).await
                && let Ok(acknowledged) = publishing.ack().await
            {
                return acknowledged;
            }
            sleep(POLL_INTERVAL).await;
        }
    };
    timeout(TEST_TIMEOUT, published)
        .await
        .expect("an acknowledgement");
    let at_hub = hub.takes(&hub.settings()).await;
    assert_eq!(at_hub.stream_state().await.unwrap().messages, 1);
    let at_leaf = leaf.takes(&leaf.settings()).await;
    let there = at_leaf.stream_state().await;
    assert!(matches!(there, Err(BusError::NoStream)), "{there:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn buckets_are_written_in_the_domain_of_settings() {
    let folder = tempfile::tempdir().unwrap();
    let (hub, _leaf, _, bus) = hub_and_leaf(&folder).await;
    let at_hub = hub.takes(&hub.settings()).await;
    let (session, window) = (SessionId(Uuid::from_u128(1)), Duration::from_secs(60));
    let bucket = Bucket::new(bus.clone(), window);
    bucket.provision().await.unwrap();
    let ended = Entry::Ended {
        generation: 1,
        tokens: Vec::new(),
    };
    let put = bucket.put(session, &ended, 0).await;
    assert!(matches!(put, Put::Stored { .. }), "{put:?}");
    let found = Bucket::new(at_hub.clone(), window).get(session).await;
    assert!(found.unwrap().revision() > 0);
    let now = OffsetDateTime::now_utc();
    let revocation = Revocation {
        revision: 1,
        tenant: "acme".parse().unwrap(),
        target: RevocationTarget::Login("login".to_owned()),
        created_at: Timestamp::new(now),
        expires_at: Timestamp::new(now + time::Duration::HOUR),
    };
    bus.announce_revocation(&revocation).await.unwrap();
    let stream = at_hub.jetstream.get_stream("KV_confab_revocations").await;
    assert_eq!(stream.unwrap().cached_info().state.messages, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checks_look_into_the_domain_of_settings() {
    const GATEWAY_ROLE: Role = Role::Gateway {
        sessions_max_bytes: 1 << 20,
    };
    let folder = tempfile::tempdir().unwrap();
    let (mut hub, _leaf, mut settings, bus) = hub_and_leaf(&folder).await;
    let failed = |checks: &[Check]| {
        let failed = checks
            .iter()
            .filter(|check| check.status == CheckStatus::Fail);
        failed.cloned().collect::<Vec<_>>()
    };
    for role in [Role::Worker, GATEWAY_ROLE] {
        let checks = check::nats(&settings, role).await;
        assert!(failed(&checks).is_empty(), "{checks:?}");
        let names: Vec<_> = checks.iter().map(|check| check.name).collect();
        assert!(
            names.contains(&"nats.limits") && names.contains(&"nats.clock"),
            "{names:?}"
        );
    }
    let mut config = bus.stream_info().await.unwrap().config;
    config.subjects = vec!["orders.>".to_owned()];
    bus.jetstream.update_stream(config).await.unwrap();
    let checks = failed(&check::nats(&settings, Role::Worker).await);
    assert!(checks[0].found.contains("orders.>"), "{checks:?}");
    settings.nats_jetstream_domain = Some("elsewhere".to_owned());
    let checks = failed(&check::nats(&settings, Role::Worker).await);
    assert!(checks[0].found.contains("nobody serves"), "{checks:?}");
    settings.nats_jetstream_domain = Some("hub".to_owned());
    hub.nats.kill().unwrap();
    let checks = failed(&check::nats(&settings, Role::Worker).await);
    assert_eq!(checks[0].name, "nats.jetstream", "{checks:?}");
}
