//! A gateway's retry returns the first outcome when the worker dies between commit and answer.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use uuid::Uuid;

use confab_protocol::timestamp::Timestamp;

use crate::support::{Answer, Cluster, Setup, User, id_of};

mod killed;

/// A command as it was answered, without what is different each time.
#[derive(Debug, PartialEq)]
struct PlainAnswer {
    step: &'static str,
    status: u16,
    etag: Option<String>,
    body: Value,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker_death_after_commit_is_answered_normally() {
    let setup = Setup {
        gateway_env: vec![("CONFAB_REQUEST_BUDGET", Some("3000".to_owned()))],
        ..Setup::default()
    };
    let mut cluster = Cluster::start(setup).await;
    let mut outcomes = Vec::new();
    for dies in [false, true] {
        let (told, conversations) = whole_walk(&mut cluster, dies).await;
        let mut logs = Vec::new();
        for path in &conversations {
            logs.push(log(&cluster, path).await);
        }
        outcomes.push((told, logs));
    }
    let (died, undisturbed) = (outcomes.pop().unwrap(), outcomes.pop().unwrap());
    for (one, other) in died.0.iter().zip(&undisturbed.0) {
        assert_eq!(one, other);
    }
    assert_eq!(died.0.len(), undisturbed.0.len());
    assert_eq!(died.1, undisturbed.1, "the logs");
    cluster.end().await;
}

/// Walks until every command was answered: on a machine with too much to do, what is left of the budget behind a death is
/// too little now and then, and `TIMEOUT` promises nothing.
async fn whole_walk(cluster: &mut Cluster, dies: bool) -> (Vec<PlainAnswer>, [String; 2]) {
    let mut late = Vec::new();
    while late.len() < 3 {
        let mut steps = Steps {
            cluster,
            dies,
            told: Vec::new(),
        };
        match steps.walk().await {
            Ok(conversations) => return (steps.told, conversations),
            Err(step) => late.push(step),
        }
        for number in 0..cluster.workers.len() {
            let worker = cluster.workers[number].process_mut();
            if worker.ended().unwrap().is_some() {
                cluster.restart_worker(number).await;
            }
        }
    }
    panic!("not in time: {late:?}");
}

/// A command that was answered `TIMEOUT`.
type Late = &'static str;

/// Every command over HTTP, once with workers that die and once with workers that live.
struct Steps<'a> {
    cluster: &'a mut Cluster,
    dies: bool,
    told: Vec<PlainAnswer>,
}

impl Steps<'_> {
    /// Commands whose second execution would find another state than the first; gives the conversations' paths.
    async fn walk(&mut self) -> Result<[String; 2], Late> {
        let alice = self.cluster.user("alice");
        let carol = self.cluster.user("carol");
        let begun =
            json!({"type": "group", "participants": ["bob", "carol"], "metadata": {"name": "one"}});
        let begun = ("POST", "/v1/conversations".to_owned(), begun);
        let path = self
            .step("begins a conversation", &alice, begun)
            .await?
            .text("/conversation/id");
        let path = format!("/v1/conversations/{path}");
        self.metadata_and_members(&alice, &carol, &path).await?;
        self.messages(&carol, &path).await?;
        let deletion = ("DELETE", path.clone(), Value::Null);
        self.step("deletes the conversation", &carol, deletion)
            .await?;
        let other = self.last_to_leave(&carol).await?;
        Ok([path, other])
    }

    async fn metadata_and_members(
        &mut self,
        alice: &User,
        carol: &User,
        path: &str,
    ) -> Result<(), Late> {
        let people = format!("{path}/participants");
        let of = |user: &str| format!("{people}/{user}");
        let patch = (
            "PATCH",
            path.to_owned(),
            json!({"metadata": {"name": "two"}}),
        );
        self.step("changes metadata of version 1", alice, patch)
            .await?;
        let one = ("POST", people.clone(), json!({"userId": "dave"}));
        self.step("adds a member", alice, one).await?;
        let two =
            json!({"participants": [{"userId": "frank", "role": "admin"}, {"userId": "erin"}]});
        let two = ("POST", people.clone(), two);
        self.step("adds two members", alice, two).await?;
        let removal = ("DELETE", of("dave"), Value::Null);
        self.step("removes a member", alice, removal).await?;
        let again = ("POST", people.clone(), json!({"userId": "dave"}));
        self.step("adds a member again", alice, again).await?;
        let role = ("PATCH", of("carol"), json!({"role": "admin"}));
        self.step("makes an admin", alice, role).await?;
        // The retry comes from one who is no admin any more.
        let role = ("PATCH", of("alice"), json!({"role": "member"}));
        self.step("steps down", alice, role).await?;
        // And from one who is no member any more.
        let leaving = ("DELETE", of("alice"), Value::Null);
        self.step("leaves", alice, leaving).await?;
        let removal = ("DELETE", of("frank"), Value::Null);
        self.step("removes an admin", carol, removal).await?;
        // The last admin hands the role over.
        let leaving = ("DELETE", of("carol"), Value::Null);
        self.step("leaves as the last admin", carol, leaving)
            .await?;
        let bob = self.cluster.user("bob");
        let back = ("POST", people, json!({"userId": "carol", "role": "admin"}));
        self.step("adds an admin", &bob, back).await?;
        Ok(())
    }

    async fn messages(&mut self, carol: &User, path: &str) -> Result<(), Late> {
        let sent = json!({"conversationId": id_of(path), "kind": "text", "content": "first"});
        let sent = ("POST", "/v1/messages".to_owned(), sent);
        let sent = self.step("sends", carol, sent).await?;
        let message = format!("/v1/messages/{}", sent.text("/message/id"));
        let edit = ("PATCH", message.clone(), json!({"content": "second"}));
        self.step("edits", carol, edit).await?;
        let read = json!({"messageIds": [sent["message"]["id"]]});
        let read = ("POST", "/v1/messages/read".to_owned(), read);
        self.step("marks a message as read", carol, read).await?;
        let up_to = sent["message"]["seq"].as_u64().unwrap() + 1;
        let read = json!({"conversationId": id_of(path), "upToSeq": up_to});
        let read = ("POST", "/v1/messages/read".to_owned(), read);
        self.step("marks as read", carol, read).await?;
        self.step("deletes a message", carol, ("DELETE", message, Value::Null))
            .await?;
        Ok(())
    }

    async fn last_to_leave(&mut self, carol: &User) -> Result<String, Late> {
        let group = json!({"type": "channel", "participants": ["carol"]});
        let begun = ("POST", "/v1/conversations".to_owned(), group);
        let begun = self.step("begins a channel", carol, begun).await?;
        let path = format!("/v1/conversations/{}", begun.text("/conversation/id"));
        let leaving = format!("{path}/participants/carol");
        let left = self
            .step(
                "leaves as the last",
                carol,
                ("DELETE", leaving, Value::Null),
            )
            .await?;
        assert!(left["conversationDeletedAt"].is_string(), "{}", left.body);
        Ok(path)
    }

    /// Makes a call that must succeed in time; where workers die, one has died of it and runs again.
    async fn step(
        &mut self,
        step: &'static str,
        user: &User,
        (method, path, body): (&str, String, Value),
    ) -> Result<Answer, Late> {
        let fate = if self.dies { "x-fault" } else { "x-spared" };
        let id = format!("{fate}-{}", self.told.len());
        let mut headers = vec![("x-request-id", id.as_str())];
        if step.ends_with("of version 1") {
            headers.push(("if-match", "\"1\""));
        }
        let gateway = self.told.len() % 2;
        let body = (!body.is_null()).then_some(body);
        let answer = user.call(gateway, method, &path, &headers, body).await;
        if self.dies && answer["code"] == "TIMEOUT" {
            return Err(step);
        }
        assert!(
            (200..300).contains(&answer.status),
            "{step}: {}",
            answer.body
        );
        assert_eq!(answer.header("idempotent-replayed"), None, "{step}");
        if self.dies {
            let dead = self.cluster.worker_died(step).await;
            self.cluster.restart_worker(dead).await;
        }
        let mut ids = Names::default();
        self.told.push(PlainAnswer {
            step,
            status: answer.status,
            etag: answer.header("etag").map(|_| "some".to_owned()),
            body: ids.hide(&answer.body),
        });
        Ok(answer)
    }
}

/// The log as it is told, and as the store has it: each event once.
async fn log(cluster: &Cluster, path: &str) -> Value {
    let events: Vec<(i64, String, String, String)> = sqlx::query_as(
        "select seq, type, actor, payload from events where conversation_id = $1 order by seq",
    )
    .bind(id_of(path).parse::<Uuid>().unwrap())
    .fetch_all(&cluster.store)
    .await
    .unwrap();
    let mut ids = Names::default();
    let events = events.into_iter().map(|(seq, r#type, actor, payload)| {
        let payload: Value = serde_json::from_str(&payload).unwrap();
        json!([seq, r#type, actor, payload])
    });
    ids.hide(&events.collect())
}

/// Ids by the order in which they came; times are all the same.
#[derive(Default)]
struct Names(BTreeMap<Uuid, usize>);

impl Names {
    fn hide(&mut self, value: &Value) -> Value {
        match value {
            Value::String(text) => self.hide_text(text).into(),
            Value::Array(list) => list.iter().map(|element| self.hide(element)).collect(),
            Value::Object(members) => members
                .iter()
                .map(|(name, member)| (self.hide_text(name), self.hide(member)))
                .collect::<serde_json::Map<_, _>>()
                .into(),
            other => other.clone(),
        }
    }

    fn hide_text(&mut self, text: &str) -> String {
        if let Ok(id) = text.parse::<Uuid>() {
            let next = self.0.len();
            return format!("id {}", self.0.entry(id).or_insert(next));
        }
        match text.parse::<Timestamp>() {
            Ok(_) => "a time".to_owned(),
            Err(_) => text.to_owned(),
        }
    }
}
