//! Reads after every acknowledged write at every gateway: a read may be late, never stale.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::call::{Answer, id_of};
use super::{Cluster, User, eventually};

/// Reads at once of each thing: more than a worker has connections for them.
const READ_COUNT: usize = 10;

/// Two of whom one is added, spoken to and removed.
pub(crate) struct Witness {
    alice: User,
    bob: User,
    gateways: usize,
}

impl Witness {
    pub(crate) fn new(cluster: &Cluster) -> Self {
        let name = Uuid::now_v7().simple();
        Self {
            alice: cluster.user(&format!("alice-{name}")),
            bob: cluster.user(&format!("bob-{name}")),
            gateways: cluster.gateways.len(),
        }
    }

    /// Begins a conversation, sends, edits, removes, and looks behind each. An error when something was not answered: what became of
    /// it is not known then, so that the next look begins another conversation.
    ///
    /// # Panics
    /// When an answer is older than what was acknowledged before its request.
    pub(crate) async fn look(&self) -> Result<(), String> {
        let (alice, bob) = (&self.alice, &self.bob);
        let group = json!({"type": "group", "participants": [bob.id]});
        let created = alice.tries("POST", "/v1/conversations", Some(group));
        let created = created.await?.ok(201);
        let path = created.header("location").unwrap();
        self.looks(path, |response| response.status == 200).await?;

        let words = Uuid::now_v7().to_string();
        let message = json!({"conversationId": id_of(path), "kind": "text", "content": words});
        let sent = alice.tries("POST", "/v1/messages", Some(message));
        let sent = sent.await?.ok(201);
        let seq = sent["message"]["seq"].as_u64().unwrap();
        let history = format!("{path}/messages");
        let has = |page: &Answer, content: &Value| {
            let messages = page.body["messages"].as_array();
            let mut messages = messages.into_iter().flatten();
            messages.any(|one| one["seq"] == seq && one["content"] == *content)
        };
        self.looks(&history, |page| has(page, &json!(words)))
            .await?;
        let head = |response: &Answer| response["conversation"]["lastSeq"].as_u64();
        self.looks(path, |response| head(response) >= Some(seq))
            .await?;

        let message = format!("/v1/messages/{}", sent.text("/message/id"));
        let edited = alice.tries("PATCH", &message, Some(json!({"content": 2})));
        edited.await?.ok(200);
        self.looks(&history, |page| has(page, &json!(2))).await?;

        let membership = format!("{path}/participants/{}", bob.id);
        let removed = alice.tries("DELETE", &membership, None);
        removed.await?.ok(200);
        self.looks(&history, |page| page.status == 404).await
    }

    /// Waits until everything is answered, and all rounds behind that are.
    pub(crate) async fn level(&self, what: &str, within: Duration) {
        eventually(what, within, async || {
            let look = self.look().await;
            look.inspect_err(|why| println!("not yet {what}: {why}"))
                .ok()
        })
        .await;
        for _ in 0..4 {
            let look = self.look().await;
            look.unwrap_or_else(|why| panic!("answered once and then not: {what}: {why}"));
        }
    }

    /// Many of the same read at once, through every gateway.
    async fn looks(&self, path: &str, is_right: impl Fn(&Answer) -> bool) -> Result<(), String> {
        let reads =
            (0..READ_COUNT).map(|n| self.bob.tries_at(n % self.gateways, "GET", path, None));
        for answer in futures_util::future::join_all(reads).await {
            let answer = answer?;
            assert!(
                is_right(&answer),
                "behind an acknowledged write {path} gave {} {}",
                answer.status,
                answer.body
            );
        }
        Ok(())
    }
}

impl User {
    /// A call at the first gateway; an error when it says that the outcome is not known or that it cannot.
    async fn tries(&self, method: &str, path: &str, body: Option<Value>) -> Result<Answer, String> {
        self.tries_at(0, method, path, body).await
    }

    async fn tries_at(
        &self,
        gateway: usize,
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> Result<Answer, String> {
        let bearer = format!("Bearer {}", self.token);
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-type", "application/json"),
        ];
        let bytes = body.map(|body| body.to_string().into_bytes());
        let http = self.http(gateway);
        let response = http.raw(method, path, &headers, bytes.unwrap_or_default());
        let response = response.await;
        let response = response.map_err(|error| format!("{method} {path}: {error}"))?;
        let answer = Answer {
            status: response.status,
            body: response.json().unwrap_or_default(),
            response,
        };
        match answer.status {
            500.. => Err(format!("{method} {path}: {}", answer.body)),
            _ => Ok(answer),
        }
    }
}

/// Many who read all the while, faults or not: none may be given what is older than an acknowledged send.
pub(crate) struct Readers {
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
    state: Arc<WitnessState>,
}

#[derive(Default)]
struct WitnessState {
    /// The last acknowledged message's seq.
    floor: AtomicU64,
    answered: AtomicU64,
    wrong: Mutex<Vec<String>>,
}

impl Readers {
    pub(crate) async fn start(cluster: &Cluster) -> Self {
        let name = Uuid::now_v7().simple();
        let alice = cluster.user(&format!("alice-{name}"));
        let path = alice.begins(0, "group", &["bob"]).await;
        let mut readers = Self {
            stop: watch::Sender::new(false),
            tasks: JoinSet::new(),
            state: Arc::default(),
        };
        let first = alice.says(0, &path, "first").await["seq"].as_u64().unwrap();
        readers.state.floor.store(first, Ordering::SeqCst);
        for number in 0..16 {
            let (user, path, state) = (alice.clone(), path.clone(), Arc::clone(&readers.state));
            let (gateways, stop) = (cluster.gateways.len(), readers.stop.subscribe());
            let read = async move {
                while !*stop.borrow() {
                    state.read(&user, number % gateways, &path, number).await;
                }
            };
            readers.tasks.spawn(read);
        }
        let (state, stop) = (Arc::clone(&readers.state), readers.stop.subscribe());
        readers.tasks.spawn(async move {
            while !*stop.borrow() {
                let message =
                    json!({"conversationId": id_of(&path), "kind": "text", "content": "more"});
                if let Ok(sent) = alice.tries("POST", "/v1/messages", Some(message)).await {
                    let seq = sent["message"]["seq"].as_u64().unwrap();
                    state.floor.fetch_max(seq, Ordering::SeqCst);
                }
            }
        });
        readers
    }

    /// Ends them all.
    ///
    /// # Panics
    /// When an answer was older than what was acknowledged before its request.
    pub(crate) async fn end(mut self) {
        self.stop.send_replace(true);
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        let answered = self.state.answered.load(Ordering::SeqCst);
        let wrong = self.state.wrong.lock().unwrap();
        println!(
            "{answered} reads behind acknowledged sends, {} wrong",
            wrong.len()
        );
        let few: Vec<_> = wrong.iter().take(10).collect();
        assert!(wrong.is_empty(), "{} of {answered}: {few:#?}", wrong.len());
        assert!(answered > 0, "nothing was read");
    }
}

impl WitnessState {
    async fn read(&self, user: &User, gateway: usize, path: &str, number: usize) {
        let floor = self.floor.load(Ordering::SeqCst);
        let asked = match number % 3 {
            0 => format!("{path}/messages?after={}", floor - 1),
            1 => path.to_owned(),
            _ => "/v1/conversations".to_owned(),
        };
        let Ok(answer) = user.tries_at(gateway, "GET", &asked, None).await else {
            return;
        };
        self.answered.fetch_add(1, Ordering::SeqCst);
        let head = |conversation: &Value| conversation["lastSeq"].as_u64() >= Some(floor);
        let list = |name: &str| answer.body[name].as_array().into_iter().flatten();
        let is_right = match number % 3 {
            // The newest first, and none below the floor: one of them was stored behind it.
            0 => list("messages").next().is_some(),
            1 => head(&answer["conversation"]),
            _ => list("conversations").any(head),
        };
        if !is_right {
            let (status, body) = (answer.status, &answer.body);
            let wrong = format!("behind {floor}: GET {asked} gave {status} {body}");
            self.wrong.lock().unwrap().push(wrong);
        }
    }
}
