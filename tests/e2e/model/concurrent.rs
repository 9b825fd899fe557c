//! Concurrent commands: the log must be an order of granted commands that the model can replay.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

use confab_protocol::ids::Seq;
use futures_util::future::join_all;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::command::{BACKEND_USER, Create, MODEL_USERS, ModelCommand, Who};
use super::compare;
use super::executor::{CommandRoute, Executor};
use super::generator::Generator;
use super::is_same;
use super::replay::{StoredEvent, replay};
use super::state::{Conversation, ModelAnswer, ModelState, ok, refused};
use crate::support::Cluster;

/// What somebody asked for, and was told.
#[derive(Debug, Clone)]
pub(super) struct AnsweredCommand {
    pub(super) who: Who,
    pub(super) command: ModelCommand,
    pub(super) answer: ModelAnswer,
    /// A head of the conversation that was known before it was asked for.
    pub(super) from: Seq,
    /// Its head when the answer had come.
    pub(super) to: Seq,
}

pub(super) async fn all_at_once(cluster: &Cluster, seed: u64, commands: usize) {
    let executor = Executor::set(cluster, format!("at-once-{seed}")).await;
    let generator = Mutex::new(Generator::default());
    let mut told = Vec::new();
    for create in beginnings() {
        let command = ModelCommand::Create(create);
        told.push(
            ask(
                cluster,
                &executor,
                &generator,
                "alice",
                command,
                CommandRoute::Http(0),
            )
            .await,
        );
    }
    let everyone = MODEL_USERS.into_iter().chain([BACKEND_USER]);
    let asking = everyone.zip(seed..).map(|(who, seed)| {
        let (executor, generator) = (&executor, &generator);
        async move {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut told = Vec::new();
            for _ in 0..commands {
                let command = generator.lock().unwrap().draw(&mut rng, who);
                let way = CommandRoute::any(&mut rng);
                told.push(ask(cluster, executor, generator, who, command, way).await);
            }
            told
        }
    });
    let all = Box::pin(join_all(asking)).await;
    told.extend(all.into_iter().flatten());
    let state = ModelState::of(conversations(cluster, &executor, &told).await);
    assert_pairs(&state);
    compare::everything(cluster, &executor, &state).await;
}

/// Conversations in which all of them are, so that they meet.
fn beginnings() -> [Create; 4] {
    let all = MODEL_USERS.to_vec();
    let of = |r#type, users| Create {
        r#type,
        users,
        metadata: json!({}),
        key: None,
    };
    [
        of("group", all.clone()),
        of("channel", all.clone()),
        of("group", all),
        of("direct", vec!["alice", "bob"]),
    ]
}

async fn ask(
    cluster: &Cluster,
    executor: &Executor,
    generator: &Mutex<Generator>,
    who: Who,
    command: ModelCommand,
    way: CommandRoute,
) -> AnsweredCommand {
    let from = match &command {
        ModelCommand::In(at, _) => generator.lock().unwrap().conversations[*at].head,
        ModelCommand::Create(_) | ModelCommand::ReadMessages(_) => 0,
    };
    let answer = executor.perform(who, &command, way).await;
    let known = executor.names.lock().unwrap().conversations.len();
    generator
        .lock()
        .unwrap()
        .note(known, who, &command, &answer);
    let to = match &command {
        ModelCommand::In(at, _) => head(cluster, executor, *at).await,
        ModelCommand::Create(_) | ModelCommand::ReadMessages(_) => 0,
    };
    AnsweredCommand {
        who,
        command,
        answer,
        from,
        to,
    }
}

async fn head(cluster: &Cluster, executor: &Executor, at: usize) -> Seq {
    let id = executor.names.lock().unwrap().conversations[at];
    let head: i64 = sqlx::query_scalar("select last_seq from conversations where id = $1")
        .bind(id.0)
        .fetch_one(&cluster.store)
        .await
        .unwrap();
    head.try_into().unwrap()
}

/// What each conversation has become, by its log and by what everyone was told.
async fn conversations(
    cluster: &Cluster,
    executor: &Executor,
    told: &[AnsweredCommand],
) -> Vec<Conversation> {
    let begun = begun(executor, told);
    let ids = executor.names.lock().unwrap().conversations.clone();
    assert_eq!(begun.len(), ids.len(), "conversations, and who began them");
    let mut all = Vec::new();
    for (at, id) in ids.into_iter().enumerate() {
        let rows: Vec<(i64, String, String)> = sqlx::query_as(
            "select seq, type, actor from events where conversation_id = $1 order by seq",
        )
        .bind(id.0)
        .fetch_all(&cluster.store)
        .await
        .unwrap();
        let row = |(seq, r#type, actor): (i64, String, String)| StoredEvent {
            seq: seq.try_into().unwrap(),
            r#type,
            actor,
        };
        let rows: Vec<StoredEvent> = rows.into_iter().map(row).collect();
        let mut queues: BTreeMap<Who, VecDeque<&AnsweredCommand>> = BTreeMap::new();
        for one in told {
            if matches!(&one.command, ModelCommand::In(place, _) if *place == at) {
                queues.entry(one.who).or_default().push_back(one);
            }
        }
        let mut conversation = replay(begun[&at].clone(), &rows, queues);
        for membership in &mut conversation.memberships {
            let ends = membership.left.unwrap_or(Seq::MAX);
            let marks = told.iter().filter(|one| one.who == membership.user);
            let marks = marks.filter_map(|one| mark(&one.answer, &conversation.name));
            let own = marks.filter(|mark| (membership.joined..ends).contains(mark));
            membership.read = own.max().unwrap_or(membership.joined);
        }
        all.push(conversation);
    }
    all
}

/// Where a read mark of a conversation stands by an answer.
fn mark(answer: &ModelAnswer, conversation: &str) -> Option<Seq> {
    answer.body.get("read")?.get(conversation)?.as_u64()
}

/// The conversations as they began. A key gives the first answer again, whatever that was.
fn begun(executor: &Executor, told: &[AnsweredCommand]) -> BTreeMap<usize, Conversation> {
    let mut begun = BTreeMap::new();
    let mut keys: BTreeMap<(Who, &str), (&Create, &ModelAnswer)> = BTreeMap::new();
    for one in told {
        let ModelCommand::Create(create) = &one.command else {
            continue;
        };
        if let Some(key) = &create.key {
            match keys.get(&(one.who, key.as_str())) {
                Some((first, answer)) if *first == create => {
                    assert_eq!(one.answer.body, answer.body, "{one:?}");
                    assert!(one.answer.replayed, "{one:?}");
                    continue;
                }
                // Of a conversation that is deleted by then the key alone is recognised.
                Some((_, answer)) if one.answer.replayed && answer.status == 201 => {
                    assert_eq!(one.answer.body, answer.body, "{one:?}");
                    continue;
                }
                Some(_) => {
                    assert_eq!(one.answer, refused(422, "IDEMPOTENCY_KEY_REUSED"));
                    continue;
                }
                None => keys.insert((one.who, key), (create, &one.answer)),
            };
        }
        let name = one.answer.body.pointer("/conversation/id");
        match (create.first_members(one.who), name.and_then(Value::as_str)) {
            (Err(refusal), _) => assert_eq!(one.answer, refusal, "{one:?}"),
            (Ok(users), Some(name)) => {
                let new = Conversation::begun(name.to_owned(), one.who, create, &users);
                let due = ok(201, new.begun_by(one.who));
                assert!(is_same(&one.answer, &due), "{one:?} and not {due:?}");
                let at = name.trim_start_matches('c').parse().unwrap();
                assert!(begun.insert(at, new).is_none(), "begun twice: {one:?}");
            }
            (Ok(_), None) => {
                let body = executor.names.lock().unwrap().plain(&one.answer.body);
                let code = "DIRECT_CONVERSATION_EXISTS";
                assert_eq!((one.answer.status, &body["code"]), (409, &json!(code)));
                let other = body["conversationId"].as_str().unwrap();
                assert!(other.starts_with('c'), "nobody began {other}");
            }
        }
    }
    begun
}

/// Two users have one direct conversation at most.
fn assert_pairs(state: &ModelState) {
    let mut pairs = Vec::new();
    let direct = state
        .conversations
        .iter()
        .filter(|one| one.r#type == "direct");
    for conversation in direct.filter(|one| !one.is_deleted) {
        let mut pair: Vec<Who> = conversation
            .memberships
            .iter()
            .map(|one| one.user)
            .collect();
        pair.sort_unstable();
        assert!(!pairs.contains(&pair), "{pair:?} twice");
        pairs.push(pair);
    }
}

/// Whether an answer is what the model says, but for read marks, which stand in no log.
pub(super) fn is_alike(answer: &ModelAnswer, due: &ModelAnswer) -> bool {
    let unread = |answer: &ModelAnswer| ModelAnswer {
        body: without_marks(&answer.body),
        ..answer.clone()
    };
    is_same(&unread(answer), &unread(due))
}

fn without_marks(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let members = members
                .iter()
                .filter(|(name, _)| !matches!(name.as_str(), "lastReadSeq" | "unreadCount"));
            let members = members.map(|(name, value)| (name.clone(), without_marks(value)));
            Value::Object(members.collect())
        }
        Value::Array(elements) => elements.iter().map(without_marks).collect(),
        _ => value.clone(),
    }
}
