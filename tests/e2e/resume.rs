//! A session survives its connection: who may resume it, where, with which token.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support::{CLOSE_BYTE, Cluster, Raw, Setup, TEXT_BYTE, User, claims, eventually, frame};

mod bucket;
mod cut_off;
mod fenced_writer;
mod races;
mod stores;
mod tokens;

const JSON_SUBPROTOCOL: &str = "confab.v1.json";
/// A ping's first byte, and a pong's.
const PING_BYTE: u8 = 0x89;
const PONG_BYTE: u8 = 0x8a;
/// How long anything may take, on a machine that runs other tests.
const WAIT_TIMEOUT: Duration = Duration::from_secs(20);

/// Two gateways whose pings, which prove what stands before them, come soon, and which have heard of each other.
async fn cluster() -> Cluster {
    // A client that answers no ping is closed as silent after two heartbeats: a drain is shorter.
    let env = vec![
        ("CONFAB_HEARTBEAT", Some("2".to_owned())),
        ("CONFAB_DRAIN", Some("2".to_owned())),
    ];
    let cluster = Cluster::start(Setup {
        gateway_env: env,
        workers: 1,
        ..Setup::default()
    })
    .await;
    all_heard(&cluster).await;
    cluster
}

/// Waits until both gateways know whom to ask of a session that is not in the bucket.
async fn all_heard(cluster: &Cluster) {
    let user = cluster.user("nobody");
    let token = URL_SAFE_NO_PAD.encode([7; 48]);
    for gateway in 0..2 {
        eventually("an unknown token is unknown", WAIT_TIMEOUT, async || {
            let client = RawClient::hello(cluster, &user, gateway, Some(&token)).await;
            (client.welcome["reason"] == "unknown").then_some(())
        })
        .await;
    }
}

/// A user on a device of its own choice.
fn on_device(cluster: &Cluster, name: &str, device: &str) -> User {
    let mut claims = claims(name);
    claims["deviceId"] = json!(device);
    cluster.user_of(&claims)
}

/// The first JSON frame; null when the connection is closed before.
async fn answer(raw: &mut Raw) -> Value {
    while let Some((first, payload)) = raw.frame().await
        && first != CLOSE_BYTE
    {
        if first == TEXT_BYTE {
            return serde_json::from_slice(&payload).unwrap();
        }
    }
    Value::Null
}

/// A client that answers no ping by itself: what it was sent is proven when the test wants it.
struct RawClient {
    raw: Raw,
    welcome: Value,
}

impl RawClient {
    /// Says hello at a gateway, with a resume token or without one; gives the connection and the first answer,
    /// null where it is closed at once.
    async fn hello(cluster: &Cluster, user: &User, gateway: usize, token: Option<&str>) -> Self {
        let bearer = format!("Authorization: Bearer {}", user.token);
        let port = cluster.gateways[gateway].port();
        let saying = async {
            let mut raw = Raw::upgraded(port, JSON_SUBPROTOCOL, &[bearer]).await;
            raw.text(&json!({"type": "hello", "resumeToken": token}).to_string())
                .await;
            let welcome = answer(&mut raw).await;
            Self { raw, welcome }
        };
        timeout(WAIT_TIMEOUT, saying)
            .await
            .expect("an answer to hello")
    }

    /// Opens a session afresh.
    async fn fresh(cluster: &Cluster, user: &User, gateway: usize) -> Self {
        let client = Self::hello(cluster, user, gateway, None).await;
        assert_eq!(client.welcome["type"], "welcome", "{}", client.welcome);
        assert_eq!(client.welcome["resumed"], false);
        assert_eq!(client.welcome["reason"], Value::Null);
        client
    }

    /// Resumes, and must succeed; a gateway that cannot read records now says so, and the token stays good.
    async fn resumed(cluster: &Cluster, user: &User, gateway: usize, token: &str) -> Self {
        let client = eventually("an answer about the token", WAIT_TIMEOUT, async || {
            let client = Self::hello(cluster, user, gateway, Some(token)).await;
            (client.welcome["code"] != "UNAVAILABLE").then_some(client)
        })
        .await;
        assert_eq!(client.welcome["resumed"], true, "{}", client.welcome);
        client
    }

    /// The token of the welcome.
    fn token(&self) -> String {
        self.welcome["resumeToken"].as_str().unwrap().to_owned()
    }

    fn session(&self) -> String {
        self.welcome["sessionId"].as_str().unwrap().to_owned()
    }

    /// Answers the next ping: the welcome, which stands before it, is proven to have come.
    async fn proves(&mut self) {
        let proving = async {
            loop {
                let (first, payload) = self.raw.frame().await.expect("a frame");
                if first == PING_BYTE {
                    self.raw.write(&frame(PONG_BYTE, &payload)).await.unwrap();
                    return;
                }
            }
        };
        timeout(WAIT_TIMEOUT, proving).await.expect("a ping");
        assert!(self.is_served().await);
    }

    /// The same, unless the connection is closed before.
    async fn proves_if_it_can(&mut self) {
        let proving = async {
            while let Some((first, payload)) = self.raw.frame().await
                && first != CLOSE_BYTE
            {
                if first == PING_BYTE {
                    // Who is closed in this moment proves nothing.
                    let _sent = self.raw.write(&frame(PONG_BYTE, &payload)).await.is_ok();
                    return;
                }
            }
        };
        timeout(WAIT_TIMEOUT, proving)
            .await
            .expect("a ping or the end");
    }

    /// Whether the connection still serves: it is asked, and answers, unless it is closed.
    async fn is_served(&mut self) -> bool {
        let asking = async {
            let asked = self
                .raw
                .write(&frame(TEXT_BYTE, br#"{"type":"ping"}"#))
                .await;
            while asked.is_ok()
                && let Some((first, payload)) = self.raw.frame().await
                && first != CLOSE_BYTE
            {
                if first == TEXT_BYTE && payload.starts_with(br#"{"type":"pong""#) {
                    return true;
                }
            }
            false
        };
        timeout(WAIT_TIMEOUT, asking)
            .await
            .expect("an answer or the end")
    }

    /// With which code the gateway closes.
    async fn close_code(mut self) -> Option<u16> {
        let ended = timeout(WAIT_TIMEOUT, self.raw.ended()).await;
        ended.expect("the connection's end").code()
    }

    async fn bye(mut self) {
        self.raw.text(r#"{"type":"bye"}"#).await;
        assert_eq!(self.close_code().await, Some(1000));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_resumes_at_other_gateway_with_new_token() {
    let cluster = cluster().await;
    let alice = cluster.user("alice");
    let mut client = RawClient::fresh(&cluster, &alice, 0).await;
    assert_eq!(client.welcome["resumeWindowSeconds"], 900);
    for gateway in [1, 0, 0, 1] {
        let (session, token) = (client.session(), client.token());
        client.proves().await;
        drop(client);
        client = RawClient::resumed(&cluster, &alice, gateway, &token).await;
        assert_eq!(client.session(), session);
        assert_ne!(client.token(), token);
        assert_eq!(client.welcome["reason"], Value::Null);
        let listed = alice.http(gateway).sessions().await.unwrap();
        assert!(listed.iter().any(|one| one.id.to_string() == session));
    }
    drop(client);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_old_connection_is_closed_wherever_it_is() {
    let cluster = cluster().await;
    let alice = cluster.user("alice");
    for (from, to) in [(0, 1), (1, 1)] {
        let mut old = RawClient::fresh(&cluster, &alice, from).await;
        old.proves().await;
        let token = old.token();
        let mut new = RawClient::resumed(&cluster, &alice, to, &token).await;
        assert_eq!(old.close_code().await, Some(4409));
        new.proves().await;
        assert!(new.is_served().await);
        let listed = alice.http(to).sessions().await.unwrap();
        let own = listed
            .iter()
            .filter(|one| one.id.to_string() == new.session());
        assert_eq!(own.count(), 1);
        new.bye().await;
    }
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_of_killed_gateway_resumes_at_another() {
    let mut cluster = cluster().await;
    let alice = cluster.user("alice");
    let mut client = RawClient::fresh(&cluster, &alice, 0).await;
    client.proves().await;
    let (session, token) = (client.session(), client.token());
    cluster.gateways[0].process_mut().kill().unwrap();
    let client = RawClient::resumed(&cluster, &alice, 1, &token).await;
    assert_eq!(client.session(), session);
    // The welcome is lost, and so is the gateway: the token that was used is good once more elsewhere.
    drop(client);
    cluster.restart_gateway(0).await;
    cluster.gateways[1].process_mut().kill().unwrap();
    let client = RawClient::resumed(&cluster, &alice, 0, &token).await;
    assert_eq!(client.session(), session);
    drop(client);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drained_gateway_hands_sessions_to_others() {
    let mut cluster = cluster().await;
    let alice = cluster.user("alice");
    let client = RawClient::fresh(&cluster, &alice, 0).await;
    let (session, token) = (client.session(), client.token());
    let stopping = async {
        cluster.gateways[0]
            .process_mut()
            .stop(WAIT_TIMEOUT * 2)
            .await
    };
    let (stopped, code) = tokio::join!(stopping, client.close_code());
    assert!(stopped.unwrap().success());
    assert_eq!(code, Some(1001));
    let client = RawClient::resumed(&cluster, &alice, 1, &token).await;
    assert_eq!(client.session(), session);
    drop(client);
    cluster.restart_gateway(0).await;
    cluster.end().await;
}
