//! Another worker takes over what one does not do; if none can, the error code says why.

use std::time::Duration;

use async_nats::{Client, Message};
use confab_protocol::command::{Batch, COMMAND_VERSION, Part};
use confab_protocol::error::{Code, Failure};
use confab_protocol::wire;
use futures_util::StreamExt as _;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use uuid::Uuid;

use crate::support::{Answer, Cluster, Setup, User, eventually, id_of};

const WAIT_TIMEOUT: Duration = Duration::from_secs(20);

/// A worker that says that it lives and takes what its share of the conversations asks, and answers as a test wants.
struct ScriptedWorker {
    nats: Client,
    tasks: JoinSet<()>,
    /// How often it was asked for something.
    asked: watch::Receiver<usize>,
}

impl ScriptedWorker {
    async fn start<F: Future<Output = ()> + Send + 'static>(
        cluster: &Cluster,
        beside_a_worker: bool,
        answer: impl Fn(Client, Message) -> F + Send + 'static,
    ) -> Self {
        let nats = async_nats::connect(cluster.nats.url()).await.unwrap();
        let id = Uuid::now_v7();
        let own = format!("confab.v2.command.{}", id.simple());
        // What is heard of the others now the gateway has heard before it hears of the stranger.
        let mut lives = nats.subscribe("confab.v1.workers").await.unwrap();
        if beside_a_worker {
            timeout(WAIT_TIMEOUT, lives.next()).await.unwrap().unwrap();
        }
        let mut commands = nats.subscribe(own).await.unwrap();
        let mut tasks = JoinSet::new();
        let (asks, asked) = watch::channel(0);
        let client = nats.clone();
        tasks.spawn(async move {
            while let Some(message) = commands.next().await {
                asks.send_modify(|count| *count += 1);
                answer(client.clone(), message).await;
            }
        });
        let client = nats.clone();
        tasks.spawn(async move {
            loop {
                let says = [id.as_bytes().as_slice(), &0_u64.to_be_bytes()].concat();
                let says = client.publish("confab.v1.workers", says.into());
                says.await.unwrap();
                // No wait for anything: so often it says that it lives.
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
        let worker = Self { nats, tasks, asked };
        worker.is_known(cluster).await;
        worker
    }

    /// Waits until the gateway has it do its share: of conversations that nobody has begun, some are its own.
    async fn is_known(&self, cluster: &Cluster) {
        let someone = cluster.user("someone");
        let mut asked = self.asked.clone();
        eventually("the stranger is asked", WAIT_TIMEOUT, async || {
            let message = json!({"conversationId": Uuid::now_v7(), "kind": "text", "content": 1});
            let sent = someone.post(0, "/v1/messages", message);
            // It may answer nobody.
            tokio::select! {
                asked = asked.wait_for(|count| *count > 0) => asked.is_ok().then_some(()),
                _answer = sent => None,
            }
        })
        .await;
    }

    async fn end(mut self) {
        self.tasks.shutdown().await;
        self.nats.drain().await.unwrap();
    }
}

/// Refuses a whole batch.
async fn refuse(nats: Client, message: Message, code: Code) {
    let batch: Batch = wire::decode(&message.payload).unwrap();
    let outcomes = batch.requests.iter().map(|_| Err(Failure::of(code)));
    let part = Part {
        version: COMMAND_VERSION,
        worker: Uuid::nil(),
        outcomes: (0..).zip(outcomes).collect(),
        waiting: Vec::new(),
    };
    let bytes = wire::encode(&part).unwrap();
    nats.publish(message.reply.unwrap(), bytes.into())
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_worker_refuses_to_begin_another_does() {
    let setup = Setup {
        gateways: 1,
        workers: 1,
        ..Setup::default()
    };
    let cluster = Cluster::start(setup).await;
    let alice = cluster.user("alice");
    let mut paths = Vec::new();
    for _ in 0..16 {
        paths.push(alice.begins(0, "group", &["bob"]).await);
    }
    for code in [Code::Overloaded, Code::Unavailable] {
        let worker = ScriptedWorker::start(&cluster, true, move |nats, message| {
            refuse(nats, message, code)
        })
        .await;
        for path in &paths {
            alice.says(0, path, "hi").await;
            alice
                .patch(0, path, json!({"metadata": {"name": "x"}}))
                .await
                .ok(200);
        }
        worker.end().await;
    }
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateway_retry_answers_like_first_try() {
    let setup = Setup {
        gateways: 1,
        workers: 1,
        // A second try has the time that is left, which must do on a busy machine.
        gateway_env: vec![("CONFAB_REQUEST_BUDGET", Some("8000".to_owned()))],
        ..Setup::default()
    };
    let cluster = Cluster::start(setup).await;
    let alice = cluster.user("alice");
    let mut paths = Vec::new();
    for _ in 0..6 {
        paths.push(alice.begins(0, "group", &["bob"]).await);
    }
    // It has everything done, and tells nobody.
    let worker = ScriptedWorker::start(&cluster, true, |nats, message| async move {
        nats.request("confab.v2.command", message.payload)
            .await
            .unwrap();
    })
    .await;
    let calls = paths.iter().map(|path| {
        let alice = &alice;
        async move {
            let id = Uuid::now_v7();
            let message = json!({"conversationId": id_of(path), "kind": "text", "content": 1, "clientId": id});
            let sent = alice.post(0, "/v1/messages", message).await.ok(201);
            assert_eq!(
                (&sent["message"]["seq"], sent.header("idempotent-replayed")),
                (&json!(2), None)
            );
            let changed = alice
                .patch(0, path, json!({"metadata": {"name": "x"}}))
                .await
                .ok(200);
            assert_eq!(
                (
                    &changed["conversation"]["version"],
                    &changed["conversation"]["lastSeq"]
                ),
                (&json!(2), &json!(3))
            );
            let people = format!("{path}/participants");
            alice
                .post(0, &people, json!({"userId": "carol"}))
                .await
                .ok(201);
            alice
                .patch(0, &format!("{people}/carol"), json!({"role": "admin"}))
                .await
                .ok(200);
            alice.delete(0, &format!("{people}/carol")).await.ok(200);
            let message = format!("/v1/messages/{}", sent.text("/message/id"));
            alice
                .patch(0, &message, json!({"content": 2}))
                .await
                .ok(200);
            alice.delete(0, &message).await.ok(200);
            alice.delete(0, path).await.ok(200);
        }
    });
    futures_util::future::join_all(calls).await;
    worker.end().await;
    for path in &paths {
        let last: i64 =
            sqlx::query_scalar("select last_seq from conversations where id = $1::uuid")
                .bind(id_of(path))
                .fetch_one(&cluster.store)
                .await
                .unwrap();
        assert_eq!(last, 9);
    }
    cluster.end().await;
}

/// One gateway, one worker, and a group.
async fn with_a_group() -> (Cluster, User, String) {
    let setup = Setup {
        gateways: 1,
        workers: 1,
        ..Setup::default()
    };
    let cluster = Cluster::start(setup).await;
    let alice = cluster.user("alice");
    let path = alice.begins(0, "group", &["bob"]).await;
    (cluster, alice, path)
}

/// A send to the conversation at `path`, and a look at it.
async fn send_and_look(alice: &User, path: &str) -> [Answer; 2] {
    let message = json!({"conversationId": id_of(path), "kind": "text", "content": 1});
    let (sent, response) = tokio::join!(alice.post(0, "/v1/messages", message), alice.get(0, path));
    [sent, response]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unanswered_command_has_unknown_outcome() {
    let (mut cluster, alice, path) = with_a_group().await;
    cluster.workers[0].process_mut().pause().unwrap();
    for answer in send_and_look(&alice, &path).await {
        answer.refused(504, "TIMEOUT");
    }
    cluster.workers[0].process_mut().resume().unwrap();
    alice.says(0, &path, "hi").await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_worker_is_unavailable_and_busy_one_overloaded() {
    let (mut cluster, alice, path) = with_a_group().await;
    cluster.workers[0].process_mut().kill().unwrap();
    let gone = async || {
        let [sent, response] = send_and_look(&alice, &path).await;
        let away = |answer: &Answer| answer["code"] == "UNAVAILABLE";
        (away(&sent) && away(&response)).then_some([sent, response])
    };
    for answer in eventually("no worker", WAIT_TIMEOUT, gone).await {
        let answer = answer.refused(503, "UNAVAILABLE");
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    let worker = ScriptedWorker::start(&cluster, false, |nats, message| {
        refuse(nats, message, Code::Overloaded)
    })
    .await;
    let [sent, _] = send_and_look(&alice, &path).await;
    let refused = sent.refused(503, "OVERLOADED");
    assert_eq!(refused.header("retry-after"), Some("1"));
    worker.end().await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_inside_tells_nothing_of_the_inside() {
    let (cluster, alice, path) = with_a_group().await;
    alice.says(0, &path, "hi").await;
    sqlx::query("update events set actor = ''")
        .execute(&cluster.store)
        .await
        .unwrap();
    let refused = alice.get(0, &format!("{path}/messages")).await;
    let refused = refused.refused(500, "INTERNAL");
    assert_eq!(refused["detail"], "Something failed inside");
    cluster.end().await;
}
