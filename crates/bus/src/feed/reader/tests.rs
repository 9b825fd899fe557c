//! A consumer that is gone and cannot be made again, at a real server.

use async_nats::jetstream::stream::Stream;
use confab_protocol::event::EventType;
use confab_protocol::ids::{ConversationId, EventId};
use futures_util::TryStreamExt as _;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::*;
use crate::connection::Settings;
use crate::publish::Outgoing;
use crate::testing::NatsServer;

/// Time for which a consumer that gives nothing may stay unnoticed, on a machine that runs other tests.
const NOTICE_TIMEOUT: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Returns a server's users: the reader may publish all but `denied`.
fn users(denied: &str) -> String {
    format!(
        "authorization {{ users: [\n\
         {{ user: reader, password: p, permissions: {{ publish: {{ allow: \">\", deny: [\"{denied}\"] }} }} }}\n\
         {{ user: writer, password: p }} ] }}\n"
    )
}

async fn connect(server: &NatsServer, user: &str) -> Bus {
    let mut settings = Settings {
        events_max_bytes: 1 << 20,
        ..Settings::of_server(server.nats.url())
    };
    settings.auth.nats_user = Some(user.to_owned());
    settings.auth.nats_password = Some("p".to_owned());
    let bus = Bus::connect(&settings, user).await.unwrap();
    let mut link = bus.connection();
    let connected = link.wait_for(|link| link.connected);
    timeout(NOTICE_TIMEOUT, connected).await.unwrap().unwrap();
    bus
}

async fn publish(bus: &Bus, seq: u64) {
    let event = Outgoing {
        tenant: "acme".parse().unwrap(),
        conversation: ConversationId(Uuid::from_u128(1)),
        seq,
        id: EventId(Uuid::now_v7()),
        r#type: EventType::MessageCreated,
        target_seq: None,
        json: Bytes::from_static(b"{}"),
    };
    let published = async {
        loop {
            if let Ok(publishing) = bus.publish(&event).await
                && publishing.ack().await.is_ok()
            {
                return;
            }
            sleep(POLL_INTERVAL).await;
        }
    };
    timeout(NOTICE_TIMEOUT, published).await.unwrap();
}

/// Waits until nobody reads the stream.
async fn delete_consumers(stream: &Stream<()>) {
    let gone = async {
        loop {
            let names: Vec<String> = stream.consumer_names().try_collect().await.unwrap();
            if names.is_empty() {
                return;
            }
            for name in names {
                // One that the library deletes itself meanwhile is gone as well.
                drop(stream.delete_consumer(&name).await);
            }
        }
    };
    timeout(NOTICE_TIMEOUT, gone).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumer_that_gives_nothing_is_told_and_replaced() {
    let mut server = NatsServer::with(&users("nothing")).await;
    let (reader, writer) = (
        connect(&server, "reader").await,
        connect(&server, "writer").await,
    );
    let mut feed = Feed::begin(&reader).await;
    publish(&writer, 1).await;
    let first = timeout(NOTICE_TIMEOUT, feed.next()).await.unwrap();
    assert!(matches!(first, FeedItem::Event(..)), "{first:?}");
    server.reconfigure(&users("$JS.API.CONSUMER.CREATE.>"));
    delete_consumers(&writer.events().await.unwrap()).await;
    publish(&writer, 2).await;
    let stalled = timeout(NOTICE_TIMEOUT, feed.next()).await.unwrap();
    assert!(matches!(stalled, FeedItem::Stalled), "{stalled:?}");
    let monitor = Arc::clone(&feed.monitor);
    let mut mending = JoinSet::new();
    mending.spawn(async move {
        let broken = feed.next().await;
        (broken, feed)
    });
    let told = async {
        while !monitor.is_failing() {
            sleep(POLL_INTERVAL).await;
        }
    };
    timeout(NOTICE_TIMEOUT, told).await.unwrap();
    server.reconfigure(&users("nothing"));
    let mended = timeout(NOTICE_TIMEOUT, mending.join_next()).await;
    let (broken, mut feed) = mended.unwrap().unwrap().unwrap();
    assert!(
        matches!(broken, FeedItem::Broken(StreamDiscontinuity::Stalled)),
        "{broken:?}"
    );
    publish(&writer, 3).await;
    let next = timeout(NOTICE_TIMEOUT, feed.next()).await.unwrap();
    let FeedItem::Event(event, _) = next else {
        panic!("{next:?}");
    };
    assert_eq!(event.seq, 3);
}
