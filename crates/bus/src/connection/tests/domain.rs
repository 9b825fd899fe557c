//! JetStream in another domain, behind a leaf node that has one of its own.

use bytes::Bytes;
use confab_protocol::event::EventType;
use confab_protocol::ids::{ConversationId, EventId};
use uuid::Uuid;

use super::*;
use crate::publish::Outgoing;

/// A server with a JetStream domain, and its store apart.
async fn in_domain(folder: &TempDir, domain: &str, leafnodes: &str) -> Strict {
    let store = folder.path().join(domain);
    let extra = format!(
        "jetstream {{ store_dir: {:?}, domain: {domain} }}\nleafnodes {{ {leafnodes} }}\n",
        store.display().to_string()
    );
    Strict::start(&extra).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_are_in_the_domain_of_settings() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port().unwrap();
    let hub = in_domain(&folder, "hub", &format!("listen: \"127.0.0.1:{port}\"")).await;
    let remote = format!("remotes: [{{ url: \"nats-leaf://127.0.0.1:{port}\" }}]");
    let leaf = in_domain(&folder, "leaf", &remote).await;
    let mut settings = leaf.settings();
    settings.nats_jetstream_domain = Some("hub".to_owned());
    let bus = leaf.takes(&settings).await;
    let provisioned = async {
        while bus.provision().await.is_err() {
            sleep(GLANCE).await;
        }
    };
    timeout(SOON, provisioned).await.expect("a link to the hub");
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
            sleep(GLANCE).await;
        }
    };
    timeout(SOON, published).await.expect("an acknowledgement");
    let at_hub = hub.takes(&hub.settings()).await;
    assert_eq!(at_hub.stream_state().await.unwrap().messages, 1);
    let at_leaf = leaf.takes(&leaf.settings()).await;
    let there = at_leaf.stream_state().await;
    assert!(matches!(there, Err(BusError::NoStream)), "{there:?}");
}
