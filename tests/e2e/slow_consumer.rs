//! A client that stops reading is disconnected, and nobody else is affected.

use std::time::Duration;

use confab_client::Closed;
use confab_protocol::ids::{ClientId, ConversationId, Seq};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::{ClientRequestBuilder, IntoClientRequest as _};
use tokio_tungstenite::tungstenite::{Error, Message};
use uuid::Uuid;

use crate::support::{Cluster, Member, Owed, Setup, User, assert_log, eventually, soak};

const WAIT_TIMEOUT: Duration = Duration::from_secs(60);
/// What the kernel takes for a client that does not read, in bytes: small, so that little traffic shows that it does not.
const RECEIVE_BUFFER: u32 = 16 * 1024;
/// The close code of a slow consumer (docs/protocol/websocket.md).
const SLOW_CONSUMER: u16 = 4440;
const IDLE_CLIENTS: usize = 40;
const MESSAGE_BYTES: usize = 48 * 1024;
const MIB_BYTES: u64 = 1024 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stalled_readers_are_closed_with_bounded_memory() {
    // What waits for them is bounded in bytes, and it is the time that they take nothing that ends them.
    let (cluster, alice, bob) = start(&[
        ("CONFAB_OUTBOX_BYTES", "262144"),
        ("CONFAB_WINDOW_BYTES", "1048576"),
        ("CONFAB_STALL_TIMEOUT", "5"),
        ("CONFAB_HEARTBEAT", "600"),
    ])
    .await;
    let conversation = alice.create_group(&everyone(&bob)).await;
    let mut idle_clients = Vec::new();
    for number in 0..IDLE_CLIENTS {
        idle_clients.push(IdleClient::open(&cluster.user(&idle_client(number))).await);
    }
    say(&alice, conversation, 10).await;
    let before = peak(&cluster);

    let count = soak(2_000, 700);
    let last = say(&alice, conversation, count).await;

    bob.hears(conversation, last, WAIT_TIMEOUT).await;
    closed(&cluster, IDLE_CLIENTS).await;
    let (sent, grown) = (count * MESSAGE_BYTES, peak(&cluster).saturating_sub(before));
    assert!(
        grown < 16 * MIB_BYTES,
        "grown by {grown} bytes while {sent} were sent"
    );
    for idle_client in idle_clients {
        idle_client.wakes_up_closed().await;
    }
    unnoticed(&cluster, conversation, &alice, &bob).await;
    drop((alice, bob));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stalled_client_with_queue_room_closes_with_4440() {
    let (cluster, alice, bob) = start(&[
        ("CONFAB_OUTBOX_BYTES", "67108864"),
        ("CONFAB_STALL_TIMEOUT", "2"),
    ])
    .await;
    let conversation = alice.create_group(&everyone(&bob)).await;
    let idle_client = IdleClient::open(&cluster.user(&idle_client(0))).await;

    say(&alice, conversation, 20).await;

    closed(&cluster, 1).await;
    let closed = idle_client.wakes_up_closed().await;
    assert_eq!(closed.code, Some(SLOW_CONSUMER), "{closed}");
    assert_eq!(closed.reason, "SLOW_CONSUMER");
    unnoticed(&cluster, conversation, &alice, &bob).await;
    drop((alice, bob));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sender_that_never_reads_closes_with_bounded_memory() {
    // The replay window has a bound of its own: of what was sent it is to hold little here.
    let (cluster, alice, bob) = start(&[
        ("CONFAB_STALL_TIMEOUT", "3"),
        ("CONFAB_WINDOW_BYTES", "1048576"),
    ])
    .await;
    let conversation = alice.create_group(&everyone(&bob)).await;
    let mut chatterer = IdleClient::open(&cluster.user(&idle_client(0))).await;
    let before = peak(&cluster);

    let sent = chatterer.sends_until_cut_off(conversation).await;

    closed(&cluster, 1).await;
    let grown = peak(&cluster).saturating_sub(before);
    // Thousands of sends pass within a moment: with the allocator's pages for each thread 10 to 18 MB were measured.
    assert!(
        grown < 24 * MIB_BYTES,
        "grown by {grown} bytes after {sent} sends"
    );
    say(&alice, conversation, 1).await;
    unnoticed(&cluster, conversation, &alice, &bob).await;
    drop((alice, bob));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slowly_reading_client_stays_connected() {
    let (cluster, alice, bob) = start(&[
        ("CONFAB_OUTBOX_BYTES", "67108864"),
        ("CONFAB_STALL_TIMEOUT", "3"),
        ("CONFAB_HEARTBEAT", "600"),
    ])
    .await;
    let conversation = alice.create_group(&everyone(&bob)).await;
    let mut idle_client = IdleClient::open(&cluster.user(&idle_client(0))).await;
    let last = say(&alice, conversation, 12).await;
    // The load itself: longer than it may take nothing at all, in steps that are shorter.
    for _ in 0..last {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let message = tokio::time::timeout(WAIT_TIMEOUT, idle_client.socket.next()).await;
        let message = message.unwrap().unwrap().unwrap();
        assert!(!message.is_close(), "{message:?}");
    }
    drop(idle_client);
    unnoticed(&cluster, conversation, &alice, &bob).await;
    drop((alice, bob));
    cluster.end().await;
}

/// A cluster whose only gateway has these settings: sleepers and those who read share it.
async fn start(env: &[(&'static str, &str)]) -> (Cluster, Member, Member) {
    // What is looked at is what the gateway holds, not what its allocator keeps for a moment before it gives it back.
    let at_once = ("MIMALLOC_PURGE_DELAY", "0");
    let setup = Setup {
        gateways: 1,
        workers: 1,
        gateway_env: env
            .iter()
            .chain([&at_once])
            .map(|(name, value)| (*name, Some((*value).to_owned())))
            .collect(),
        ..Setup::default()
    };
    let cluster = Cluster::start(setup).await;
    let alice = cluster.user("alice").on(0).await;
    let bob = cluster.user("bob").on(0).await;
    (cluster, alice, bob)
}

fn idle_client(number: usize) -> String {
    format!("sleeper-{number}")
}

fn everyone(bob: &Member) -> Vec<confab_protocol::ids::UserId> {
    let idle_clients = (0..IDLE_CLIENTS).map(|number| idle_client(number).parse().unwrap());
    idle_clients.chain([bob.id.clone()]).collect()
}

/// Sends large messages, a few at a time, and gives the seq of the last one.
async fn say(member: &Member, conversation: ConversationId, count: usize) -> Seq {
    let words = "z".repeat(MESSAGE_BYTES);
    let sends = (0..count).map(|_| member.say(conversation, &words));
    let seqs = futures_util::stream::iter(sends).buffered(4);
    seqs.collect::<Vec<_>>().await.pop().unwrap()
}

/// Waits until the gateway has closed as many slow consumers.
async fn closed(cluster: &Cluster, count: usize) {
    let line = format!("confab_sockets_ended_total{{code=\"{SLOW_CONSUMER}\"}} {count}");
    let port = cluster.gateways[0].port();
    eventually(&line, WAIT_TIMEOUT, async || {
        let (_, metrics) = confab_stack::get(port, "/metrics", WAIT_TIMEOUT)
            .await
            .unwrap();
        metrics.lines().any(|found| found == line).then_some(())
    })
    .await;
}

/// Who reads is still there and has heard everything, once and in order.
async fn unnoticed(cluster: &Cluster, conversation: ConversationId, alice: &Member, bob: &Member) {
    assert_log(cluster, conversation, &[Owed::all(alice), Owed::all(bob)]).await;
    for member in [alice, bob] {
        assert_eq!(member.record.borrow().closed, None, "{}", member.id);
    }
}

/// The most that the gateway ever had in memory, in bytes (proc(5), `VmHWM`).
fn peak(cluster: &Cluster) -> u64 {
    let pid = cluster.gateways[0].process().id();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.unwrap().trim().trim_end_matches(" kB");
    kib.parse::<u64>().unwrap() * 1024
}

/// A client that reads its welcome, and then nothing.
struct IdleClient {
    socket: WebSocketStream<TcpStream>,
}

impl IdleClient {
    async fn open(user: &User) -> Self {
        let address = user.url(0).strip_prefix("http://").unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(RECEIVE_BUFFER).unwrap();
        let stream = socket.connect(address.parse().unwrap()).await.unwrap();
        let request = ClientRequestBuilder::new(format!("ws://{address}/v1/ws").parse().unwrap())
            .with_sub_protocol("confab.v1.json")
            .with_header("Authorization", format!("Bearer {}", user.token))
            .into_client_request()
            .unwrap();
        let upgraded = tokio_tungstenite::client_async(request, stream).await;
        let (mut socket, _) = upgraded.unwrap();
        let hello = json!({ "type": "hello" }).to_string();
        socket.send(Message::text(hello)).await.unwrap();
        let welcome = socket.next().await.unwrap().unwrap();
        assert!(welcome.to_text().unwrap().contains(r#""type":"welcome""#));
        Self { socket }
    }

    /// Reads on, and gives how the connection ended: with a close frame for who wakes up while the gateway still waits.
    async fn wakes_up_closed(mut self) -> Closed {
        let rest = async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Close(frame))) => return close_of(frame.unwrap()),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return broken(&error.to_string()),
                    None => return broken("it ended"),
                }
            }
        };
        let closed = tokio::time::timeout(WAIT_TIMEOUT, rest).await;
        closed.expect("the end of the connection")
    }

    /// Sends without reading until the connection is gone, and gives how often.
    async fn sends_until_cut_off(&mut self, conversation: ConversationId) -> usize {
        let sends = async {
            let mut sent = 0;
            loop {
                match self.socket.send(Message::text(send(conversation))).await {
                    Ok(()) => sent += 1,
                    Err(Error::Io(_) | Error::ConnectionClosed) => return sent,
                    Err(error) => panic!("after {sent} sends: {error}"),
                }
            }
        };
        let sent = tokio::time::timeout(WAIT_TIMEOUT, sends).await;
        sent.expect("the end of the connection")
    }
}

fn send(conversation: ConversationId) -> String {
    json!({
        "type": "send",
        "id": ClientId(Uuid::now_v7()),
        "conversationId": conversation,
        "kind": "text",
        "content": { "text": "chatter".repeat(100) },
    })
    .to_string()
}

fn close_of(frame: tokio_tungstenite::tungstenite::protocol::CloseFrame) -> Closed {
    Closed {
        code: Some(frame.code.into()),
        reason: frame.reason.to_string(),
    }
}

fn broken(reason: &str) -> Closed {
    Closed {
        code: None,
        reason: reason.to_owned(),
    }
}
