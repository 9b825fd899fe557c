//! Commands of every kind run while workers are killed repeatedly.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::sync::watch;
use uuid::Uuid;

use crate::support::{Answer, Cluster, Setup, User, eventually, id_of, soak};

const WAIT_TIMEOUT: Duration = Duration::from_secs(60);
/// What says nothing of the outcome, or that nothing was done; any other refusal would be of the gateway's own making.
const OPEN_OUTCOMES: [&str; 3] = ["TIMEOUT", "UNAVAILABLE", "OVERLOADED"];
const TIME_FORMAT: &str = r#"YYYY-MM-DD"T"HH24:MI:SS.MS"Z""#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answered_commands_happen_once_while_workers_die() {
    let setup = Setup {
        gateway_env: vec![("CONFAB_REQUEST_BUDGET", Some("3000".to_owned()))],
        ..Setup::default()
    };
    let mut cluster = Cluster::start(setup).await;
    let (end, is_over) = watch::channel(false);
    let answered = watch::channel(0_usize).0;
    let writers = (0..6).map(|number| Writer {
        user: cluster.user(&format!("writer-{number}")),
        gateway: number % 2,
        answered: &answered,
    });
    let writers: Vec<_> = writers
        .map(|writer| writer.write(is_over.clone()))
        .collect();
    let killings = async {
        for round in 0..soak(20, 4) {
            progress(&answered, 40).await;
            cluster.workers[round % 2].process_mut().kill().unwrap();
            progress(&answered, 20).await;
            cluster.restart_worker(round % 2).await;
        }
        progress(&answered, 20).await;
        end.send_replace(true);
    };
    let (ledgers, ()) = tokio::join!(join_all(writers), killings);
    let ledgers = ledgers.concat();

    let mut begun = BTreeSet::new();
    for ledger in &ledgers {
        assert_kept(&cluster, ledger).await;
        begun.insert(ledger.id());
    }
    let stored = sqlx::query_scalar::<_, Uuid>("select id from conversations");
    let stored = stored.fetch_all(&cluster.store).await.unwrap();
    assert_eq!(stored.len(), ledgers.len(), "conversations");
    assert_eq!(BTreeSet::from_iter(stored), begun);
    cluster.end().await;
}

/// Waits until so many commands more were answered.
async fn progress(answered: &watch::Sender<usize>, count: usize) {
    let until = *answered.borrow() + count;
    eventually(&format!("{until} answers"), WAIT_TIMEOUT, async || {
        (*answered.borrow() >= until).then_some(())
    })
    .await;
}

/// A conversation with a single writer, and what its log must be.
#[derive(Debug, Clone, Default)]
struct Ledger {
    path: String,
    /// The events by type, with the time that the answer named where it names one.
    certain: Vec<(&'static str, Option<String>)>,
    /// What a command whose outcome is open appended, or not. Nothing comes behind it.
    open: Option<&'static str>,
    version: u64,
    /// The writer's own read mark.
    read: u64,
}

impl Ledger {
    fn id(&self) -> Uuid {
        id_of(&self.path).parse().unwrap()
    }
}

/// A command: its method, its path, and the version that it wants.
struct RouteCommand<'a>(&'a str, &'a str, Option<u64>, Value);

/// Writes to conversations of its own, one command after the other.
struct Writer<'a> {
    user: User,
    gateway: usize,
    answered: &'a watch::Sender<usize>,
}

impl Writer<'_> {
    /// A conversation after the other; one in which an outcome is open is written to no more.
    async fn write(self, is_over: watch::Receiver<bool>) -> Vec<Ledger> {
        let mut ledgers: Vec<Ledger> = Vec::new();
        while !*is_over.borrow() {
            let mut ledger = self.begin().await;
            for _ in 0..3 {
                let whole = self.round(&mut ledger).await;
                if whole.is_none() || *is_over.borrow() {
                    break;
                }
            }
            if ledger.open.is_none() && ledgers.len().is_multiple_of(2) {
                let deletion = RouteCommand("DELETE", &ledger.path.clone(), None, Value::Null);
                let deleted = ("conversation.deleted", Some("/deletedAt"));
                self.append(&mut ledger, deleted, deletion).await;
            }
            ledgers.push(ledger);
        }
        ledgers
    }

    /// The key makes it safe to try until it is answered.
    async fn begin(&self) -> Ledger {
        let key = Uuid::now_v7().to_string();
        let group =
            json!({"type": "group", "participants": ["resident"], "metadata": {"name": key}});
        let created = eventually("a conversation", WAIT_TIMEOUT, async || {
            let keyed = [("idempotency-key", key.as_str())];
            self.try_once("POST", "/v1/conversations", &keyed, group.clone())
                .await
        })
        .await;
        let at = created.text("/conversation/createdAt");
        Ledger {
            path: created.header("location").unwrap().to_owned(),
            certain: vec![("conversation.created", Some(at))],
            version: 1,
            ..Ledger::default()
        }
    }

    /// Every other command; none where the outcome of one is open.
    async fn round(&self, ledger: &mut Ledger) -> Option<()> {
        let path = ledger.path.clone();
        let people = format!("{path}/participants");
        let guest = format!("{people}/guest");
        let added = ("participant.added", Some("/participant/joinedAt"));
        let add = RouteCommand("POST", &people, None, json!({"userId": "guest"}));
        self.append(ledger, added, add).await?;
        self.message(ledger).await?;
        let updated = ("conversation.updated", Some("/conversation/updatedAt"));
        let patch = json!({"metadata": {"description": format!("behind {}", ledger.version)}});
        let patch = RouteCommand("PATCH", &path, Some(ledger.version), patch);
        let answer = self.append(ledger, updated, patch).await?;
        ledger.version += 1;
        assert_eq!(answer["conversation"]["version"], ledger.version);
        for role in ["admin", "member"] {
            let change = RouteCommand("PATCH", &guest, None, json!({ "role": role }));
            let change = self.append(ledger, ("participant.updated", None), change);
            assert_eq!(change.await?["participant"]["role"], role);
        }
        let removed = ("participant.removed", Some("/participant/leftAt"));
        let removal = RouteCommand("DELETE", &guest, None, Value::Null);
        self.append(ledger, removed, removal).await?;
        self.mark(ledger).await;
        Some(())
    }

    /// Sent, edited, deleted.
    async fn message(&self, ledger: &mut Ledger) -> Option<()> {
        let send = json!({"conversationId": id_of(&ledger.path), "kind": "text", "content": 1});
        let send = RouteCommand("POST", "/v1/messages", None, send);
        let created = ("message.created", Some("/message/createdAt"));
        let sent = self.append(ledger, created, send).await?;
        assert_eq!(sent["message"]["seq"], ledger.certain.len());
        let route = format!("/v1/messages/{}", sent.text("/message/id"));
        let edited = ("message.edited", Some("/message/editedAt"));
        let edit = RouteCommand("PATCH", &route, None, json!({"content": 2}));
        let answer = self.append(ledger, edited, edit).await?;
        assert_eq!(answer["message"]["content"], 2);
        let deleted = ("message.deleted", Some("/message/deletedAt"));
        let deletion = RouteCommand("DELETE", &route, None, Value::Null);
        self.append(ledger, deleted, deletion).await?;
        Some(())
    }

    /// It appends nothing, and may be tried again.
    async fn mark(&self, ledger: &mut Ledger) {
        let head = u64::try_from(ledger.certain.len()).unwrap();
        let id = id_of(&ledger.path);
        let mark = json!({"conversationId": id, "upToSeq": head});
        let marked = self.try_once("POST", "/v1/messages/read", &[], mark).await;
        if let Some(marked) = marked {
            assert_eq!(marked.body, json!({"read": {id: head}}));
            ledger.read = head;
        }
    }

    async fn append(
        &self,
        ledger: &mut Ledger,
        (r#type, time): (&'static str, Option<&str>),
        RouteCommand(method, path, version, body): RouteCommand<'_>,
    ) -> Option<Answer> {
        let version = version.map(|version| format!("\"{version}\""));
        let headers: Vec<_> = version.iter().map(|v| ("if-match", v.as_str())).collect();
        let answer = self.try_once(method, path, &headers, body).await;
        match &answer {
            Some(answer) => {
                let time = time.map(|pointer| answer.text(pointer));
                ledger.certain.push((r#type, time));
            }
            None => ledger.open = Some(r#type),
        }
        answer
    }

    /// The success; none where the outcome is open.
    async fn try_once(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Value,
    ) -> Option<Answer> {
        let body = (!body.is_null()).then_some(body);
        let call = self.user.call(self.gateway, method, path, headers, body);
        let answer = call.await;
        if (200..300).contains(&answer.status) {
            self.answered.send_modify(|count| *count += 1);
            return Some(answer);
        }
        let code = answer["code"].as_str().unwrap_or_default();
        assert!(
            OPEN_OUTCOMES.contains(&code),
            "{method} {path}: {}",
            answer.body
        );
        None
    }
}

/// Asserts that the log is what was answered, each once and in order, and no more but for a command whose outcome is open.
async fn assert_kept(cluster: &Cluster, ledger: &Ledger) {
    let rows: Vec<(i64, String, String)> = sqlx::query_as(
        "select seq, type, to_char(created_at at time zone 'UTC', $2) from events where conversation_id = $1 order by seq",
    )
    .bind(ledger.id())
    .bind(TIME_FORMAT)
    .fetch_all(&cluster.store)
    .await
    .unwrap();
    let told = ledger.certain.len();
    assert!(rows.len() >= told, "{rows:?} of {ledger:?}");
    for (place, (seq, r#type, at)) in rows.iter().enumerate() {
        assert_eq!(usize::try_from(*seq).unwrap(), place + 1);
        match ledger.certain.get(place) {
            Some((certain, time)) => {
                let time = time.as_ref().unwrap_or(at);
                assert_eq!(
                    (r#type.as_str(), at),
                    (*certain, time),
                    "{seq} of {ledger:?}"
                );
            }
            None => assert!(
                place == told && Some(r#type.as_str()) == ledger.open,
                "{rows:?} of {ledger:?}"
            ),
        }
    }
    let mark: i64 = sqlx::query_scalar(
        "select last_read_seq from participants where conversation_id = $1 and user_id like 'writer-%'",
    )
    .bind(ledger.id())
    .fetch_one(&cluster.store)
    .await
    .unwrap();
    assert!(u64::try_from(mark).unwrap() >= ledger.read, "{ledger:?}");
}
