//! One user's sockets flood a gateway with its most expensive frames while others' events keep arriving.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use confab_protocol::ids::ConversationId;
use futures_util::{SinkExt as _, StreamExt as _, stream};
use serde_json::{Map, json};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::{ClientRequestBuilder, IntoClientRequest as _};
use uuid::Uuid;

use super::{longest, user_of};
use crate::support::{Cluster, Member, Setup, User, soak};

/// Ids in one `seen`: about as many as fit a frame.
const SEEN_IDS: usize = 10_000;

/// A frame that a flood sends, by number.
type Frames = fn(usize) -> String;

const FRAME_KINDS: [(&str, Frames); 3] = [
    ("presence", presence),
    ("typing in foreign conversations", typing),
    ("seen of made-up ids", seen),
];

fn presence(n: usize) -> String {
    let status = if n.is_multiple_of(2) {
        "away"
    } else {
        "online"
    };
    json!({"type": "presence", "status": status}).to_string()
}

fn typing(_: usize) -> String {
    json!({"type": "typing", "conversationId": Uuid::now_v7(), "on": true}).to_string()
}

fn seen(_: usize) -> String {
    let made_up = (0..SEEN_IDS).map(|_| (Uuid::now_v7().to_string(), json!(1)));
    json!({"type": "seen", "positions": made_up.collect::<Map<_, _>>()}).to_string()
}

/// A socket that sends one frame after the other and ignores what it is told.
async fn flood(user: User, frames: Frames, sent: Arc<AtomicUsize>) {
    let address = user.url(0).strip_prefix("http://").unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let request = ClientRequestBuilder::new(format!("ws://{address}/v1/ws").parse().unwrap())
        .with_sub_protocol("confab.v1.json")
        .with_header("Authorization", format!("Bearer {}", user.token))
        .into_client_request()
        .unwrap();
    let (socket, _) = tokio_tungstenite::client_async(request, stream)
        .await
        .unwrap();
    let (mut sink, mut told) = socket.split();
    let hello = json!({ "type": "hello" }).to_string();
    sink.send(Message::text(hello)).await.unwrap();
    let welcome = told.next().await.unwrap().unwrap();
    assert!(welcome.to_text().unwrap().contains(r#""type":"welcome""#));
    let few: Vec<_> = (0..4).map(frames).collect();
    let sending = async {
        for n in 0.. {
            if sink.send(Message::text(&few[n % few.len()])).await.is_err() {
                return;
            }
            sent.fetch_add(1, Ordering::Relaxed);
        }
    };
    let reading = async { while let Some(Ok(_)) = told.next().await {} };
    tokio::join!(sending, reading);
}

/// The longest waits of a pair: until what one said was acknowledged, and from then on until the other had heard it.
#[derive(Debug, Default)]
struct Felt {
    acknowledged: Duration,
    heard: Duration,
    count: usize,
}

/// Two members of a conversation, one of whom speaks.
struct SpeakingPair {
    speaker: Member,
    listener: Member,
    conversation: ConversationId,
}

impl SpeakingPair {
    async fn of(cluster: &Cluster, tenant: &str) -> Self {
        let speaker = user_of(cluster, &format!("speaker-{tenant}"), tenant);
        let listener = user_of(cluster, &format!("listener-{tenant}"), tenant);
        let (speaker, listener) = (speaker.on(0).await, listener.on(0).await);
        let conversation = speaker
            .create_group(std::slice::from_ref(&listener.id))
            .await;
        Self {
            speaker,
            listener,
            conversation,
        }
    }

    /// Speaks for so long.
    async fn speak(&self, time: Duration) -> Felt {
        let (end, mut felt) = (Instant::now() + time, Felt::default());
        while Instant::now() < end {
            let began = Instant::now();
            let seq = self.speaker.say(self.conversation, "live").await;
            felt.acknowledged = felt.acknowledged.max(began.elapsed());
            let acknowledged = Instant::now();
            self.listener.hears(self.conversation, seq, longest()).await;
            felt.heard = felt.heard.max(acknowledged.elapsed());
            felt.count += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        felt
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn socket_floods_hold_up_no_live_event() {
    let setup = Setup {
        gateways: 1,
        workers: 1,
        gateway_env: vec![("CONFAB_RATE_LIMIT", Some("off".to_owned()))],
        ..Setup::default()
    };
    let cluster = Cluster::start(setup).await;
    let loud = user_of(&cluster, "loud", "loud");
    let conversations = (0..soak(2_000, 300)).map(|_| loud.begins(0, "group", &["other"]));
    stream::iter(conversations)
        .buffer_unordered(16)
        .for_each(async |_| ())
        .await;
    let pairs = [
        SpeakingPair::of(&cluster, "quiet").await,
        SpeakingPair::of(&cluster, "loud").await,
    ];
    let time = Duration::from_secs(soak(20, 1) as u64);
    for (what, frames) in FRAME_KINDS {
        for sockets in [1, 4, soak(40, 8)] {
            let sent = Arc::new(AtomicUsize::new(0));
            let mut floods = JoinSet::new();
            for _ in 0..sockets {
                floods.spawn(flood(loud.clone(), frames, Arc::clone(&sent)));
            }
            let heard = tokio::join!(pairs[0].speak(time), pairs[1].speak(time));
            floods.shutdown().await;
            let sent = sent.load(Ordering::Relaxed);
            println!("{what} by {sockets} sockets, {sent} frames: {heard:?}");
            assert!(sent > sockets, "{what}: the flood was refused");
        }
    }
    drop(pairs);
    cluster.end().await;
}
