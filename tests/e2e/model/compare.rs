//! Compares what is served, stored and received at the end with the model.

use std::time::Duration;

use confab_protocol::event::Event;
use confab_protocol::ids::Seq;
use serde_json::{Value, json};

use super::command::{BACKEND_USER, MODEL_USERS, Who};
use super::executor::Executor;
use super::rendered::with_times;
use super::state::{Conversation, ModelAnswer, ModelState};
use crate::support::{Cluster, Member, User};

/// How long after its answer an event may still be on its way.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Asserts it all, over both gateways.
pub(super) async fn everything(cluster: &Cluster, executor: &Executor, state: &ModelState) {
    hears(executor, &state.conversations).await;
    let times = times(cluster, executor).await;
    for (at, conversation) in state.conversations.iter().enumerate() {
        for who in MODEL_USERS.into_iter().chain([BACKEND_USER]) {
            served(executor, at, conversation, who, &times[at]).await;
        }
        stored(cluster, executor, at, conversation).await;
    }
    for who in MODEL_USERS.into_iter().chain([BACKEND_USER]) {
        listed(executor, state, who, &times).await;
    }
    counted(cluster, executor, state).await;
    heard(executor, &state.conversations, &times);
}

/// Waits until everyone has heard the last that is owed to it of each conversation.
pub(super) async fn hears(executor: &Executor, conversations: &[Conversation]) {
    for who in MODEL_USERS {
        for (at, conversation) in conversations.iter().enumerate() {
            let id = executor.names.lock().unwrap().conversations[at];
            let own = conversation.memberships.iter().rfind(|one| one.user == who);
            let Some(own) = own else { continue };
            let last = own.left.unwrap_or_else(|| conversation.head());
            for socket in &executor.players[who].sockets {
                socket.hears(id, last, ARRIVAL_TIMEOUT).await;
            }
        }
    }
}

/// When each event of each conversation was stored, as the service writes it.
type Times = Vec<Vec<String>>;

async fn times(cluster: &Cluster, executor: &Executor) -> Times {
    let ids = executor.names.lock().unwrap().conversations.clone();
    let mut times = Vec::new();
    for id in ids {
        let of_one = sqlx::query_scalar(
            "select to_char(created_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"') from events \
             where conversation_id = $1 order by seq",
        );
        times.push(of_one.bind(id.0).fetch_all(&cluster.store).await.unwrap());
    }
    times
}

/// What the model says of a conversation, at the log's times.
fn timed(due: &Value, times: &[String]) -> Value {
    let form = |time: &str| {
        let seq: usize = time.trim_start_matches('T').parse().unwrap();
        times[seq - 1].clone()
    };
    with_times(due, &form)
}

fn all_timed(dues: Vec<Value>, times: &[String]) -> Vec<Value> {
    dues.iter().map(|due| timed(due, times)).collect()
}

/// What one user reads of a conversation.
async fn served(
    executor: &Executor,
    at: usize,
    conversation: &Conversation,
    who: Who,
    times: &[String],
) {
    let id = executor.names.lock().unwrap().conversations[at];
    let user = &executor.players[who].user;
    let path = format!("/v1/conversations/{id}");
    let reader = UserReads { executor, user };
    if let Err(refusal) = conversation.visible(who) {
        for route in ["", "/events", "/messages", "/participants"] {
            let answer = reader.get(at, &format!("{path}{route}")).await;
            assert_eq!(answer, refusal, "{route} of {} as {who}", conversation.name);
        }
        return;
    }
    let name = &conversation.name;
    let view = reader.get(at + 1, &path).await;
    let due = timed(&conversation.view(who), times);
    assert_eq!(view.body, due, "{name} as {who}");
    let events = reader.log(at, &path, 7).await;
    let due = all_timed(conversation.events(), times);
    assert_eq!(events, due, "log of {name} as {who}");
    let route = format!("{path}/messages?limit=4");
    let history = reader.pages(at + 1, &route, "messages").await;
    assert_eq!(
        history,
        all_timed(conversation.history(), times),
        "history of {name} as {who}"
    );
    for with_left in [false, true] {
        let route = format!("{path}/participants?limit=2&includeLeft={with_left}");
        let rendered = reader.pages(at, &route, "participants").await;
        let due = all_timed(conversation.participants(with_left), times);
        assert_eq!(
            rendered, due,
            "participants of {name} as {who}, {with_left}"
        );
    }
    for seq in conversation.messages.keys() {
        let message = executor.names.lock().unwrap().message(at, *seq);
        let answer = reader.get(at + 1, &format!("/v1/messages/{message}")).await;
        let due = timed(&conversation.message(*seq), times);
        assert_eq!(answer.body, json!({ "message": due }));
    }
}

/// The lists of one user, in both orders.
async fn listed(executor: &Executor, state: &ModelState, who: Who, times: &Times) {
    let reader = UserReads {
        executor,
        user: &executor.players[who].user,
    };
    let mine = state.conversations.iter();
    let mine: Vec<_> = mine.filter(|one| one.present(who).is_some()).collect();
    for (gateway, order) in ["recent", "created"].into_iter().enumerate() {
        let route = format!("/v1/conversations?limit=2&order={order}");
        let raw = reader.raw_pages(gateway, &route, "conversations").await;
        let rendered: Vec<Value> = raw.iter().map(|one| reader.plain(one)).collect();
        let by_name = |one: &Value| one["id"].as_str().unwrap().to_owned();
        let mut sorted = rendered.clone();
        sorted.sort_by_key(by_name);
        let due = state.conversations.iter().zip(times);
        let due = due.filter(|(one, _)| one.present(who).is_some());
        let mut due: Vec<Value> = due
            .map(|(one, times)| timed(&one.listed(who), times))
            .collect();
        due.sort_by_key(by_name);
        assert_eq!(sorted, due, "{order} list of {who}");
        for pair in raw.windows(2) {
            let id = |one: &Value| one["id"].as_str().unwrap().to_owned();
            let at = |one: &Value| {
                let last = one.pointer("/lastMessage/createdAt");
                let last = last.unwrap_or(&one["createdAt"]);
                last.as_str().unwrap().to_owned()
            };
            let [before, behind] = pair else { continue };
            if order == "created" || at(before) == at(behind) {
                assert!(id(before) > id(behind), "{order} list of {who}: {raw:?}");
                continue;
            }
            let touched = |one: &Value| {
                let name = reader.plain(one)["id"].clone();
                mine.iter().find(|one| name == *one.name).unwrap().touched
            };
            assert!(at(before) > at(behind), "{order} list of {who}: {raw:?}");
            let (before, behind) = (touched(before), touched(behind));
            assert!(before > behind || behind == 0, "{who}: {raw:?}");
        }
    }
    let route = "/v1/conversations?limit=3&type=channel";
    let rendered = reader.pages(1, route, "conversations").await;
    let due = mine.iter().filter(|one| one.r#type == "channel").count();
    assert_eq!(rendered.len(), due, "channels of {who}");
}

/// The log in the store, which nobody can read any more where the conversation is deleted; and no time goes down.
async fn stored(cluster: &Cluster, executor: &Executor, at: usize, conversation: &Conversation) {
    let id = executor.names.lock().unwrap().conversations[at];
    let rows: Vec<(i64, String, String, bool)> = sqlx::query_as(
        "select seq, type, actor, created_at >= coalesce(lag(created_at) over (order by seq), created_at) \
         from events where conversation_id = $1 order by seq",
    )
    .bind(id.0)
    .fetch_all(&cluster.store)
    .await
    .unwrap();
    let log = conversation.log.iter().zip(1..);
    let due: Vec<_> = log
        .map(|(event, seq)| (seq, event.r#type.to_owned(), event.actor.to_owned(), true))
        .collect();
    assert_eq!(rows, due, "{} in the store", conversation.name);
}

/// How many memberships everyone has.
async fn counted(cluster: &Cluster, executor: &Executor, state: &ModelState) {
    let counts: Vec<(String, i32)> = sqlx::query_as(
        "select user_id, memberships from user_counts where tenant = $1 and memberships <> 0 order by user_id",
    )
    .bind(&executor.tenant)
    .fetch_all(&cluster.store)
    .await
    .unwrap();
    let count = |who: &Who| {
        let all = state.conversations.iter();
        all.filter(|one| one.present(who).is_some()).count()
    };
    let due: Vec<_> = MODEL_USERS
        .iter()
        .map(|who| ((*who).to_owned(), i32::try_from(count(who)).unwrap()))
        .filter(|(_, count)| *count > 0)
        .collect();
    assert_eq!(counts, due, "memberships in the store");
}

/// Every socket heard of every membership what it is owed, in order and once, and nothing else.
fn heard(executor: &Executor, conversations: &[Conversation], times: &Times) {
    for who in MODEL_USERS {
        for socket in &executor.players[who].sockets {
            assert_eq!(socket.session.ignored(), 0, "{who} heard something twice");
            let record = socket.record.borrow();
            assert!(
                record.closed.is_none() && record.errors.is_empty(),
                "{record:?}"
            );
            assert!(
                record.events.len() <= conversations.len(),
                "{who} of others"
            );
            drop(record);
            for (at, conversation) in conversations.iter().enumerate() {
                heard_of(executor, (at, conversation), who, socket, &times[at]);
            }
        }
    }
}

/// What is owed of a membership that ended may be skipped from any point to the event that ended it.
fn heard_of(
    executor: &Executor,
    (at, conversation): (usize, &Conversation),
    who: Who,
    socket: &Member,
    times: &[String],
) {
    let names = executor.names.lock().unwrap();
    let record = socket.record.borrow();
    let heard = record.events.get(&names.conversations[at]);
    let heard: Vec<(Seq, Value)> = heard
        .into_iter()
        .flatten()
        .map(|event| (event.seq, names.plain(&json_of(event))))
        .collect();
    let seqs: Vec<Seq> = heard.iter().map(|(seq, _)| *seq).collect();
    let mut rest = heard.into_iter().peekable();
    let own = conversation
        .memberships
        .iter()
        .filter(|one| one.user == who);
    for membership in own {
        let last = membership.left.unwrap_or_else(|| conversation.head());
        let mut due = membership.joined;
        while due <= last {
            let may_skip = membership.left.is_some();
            let next = rest.next_if(|(seq, _)| *seq == due || (may_skip && *seq == last));
            let Some((seq, event)) = next else {
                panic!(
                    "{who} in {}, {due} of {membership:?}: {seqs:?}",
                    conversation.name
                );
            };
            let hearable = all_timed(conversation.hearable(seq), times);
            assert!(
                hearable.contains(&event),
                "{who}: {event} is none of {hearable:?}"
            );
            due = seq + 1;
        }
    }
    let more: Vec<_> = rest.collect();
    assert_eq!(more, [], "{who} in {}", conversation.name);
}

fn json_of(event: &Event) -> Value {
    serde_json::from_str(&serde_json::to_string(event).unwrap()).unwrap()
}

/// One user's reads.
struct UserReads<'a> {
    executor: &'a Executor,
    user: &'a User,
}

impl UserReads<'_> {
    fn plain(&self, value: &Value) -> Value {
        self.executor.names.lock().unwrap().plain(value)
    }

    async fn get(&self, gateway: usize, path: &str) -> ModelAnswer {
        let answer = self.user.get(gateway % 2, path).await;
        ModelAnswer {
            status: answer.status,
            body: self.plain(&answer.body),
            replayed: false,
        }
    }

    /// All pages, whose first one `route` asks for with its query.
    async fn pages(&self, gateway: usize, route: &str, name: &str) -> Vec<Value> {
        let raw = self.raw_pages(gateway, route, name).await;
        raw.iter().map(|one| self.plain(one)).collect()
    }

    async fn raw_pages(&self, gateway: usize, route: &str, name: &str) -> Vec<Value> {
        let (mut all, mut cursor) = (Vec::new(), String::new());
        for page in gateway.. {
            let answer = self.user.get(page % 2, &format!("{route}{cursor}")).await;
            let answer = answer.ok(200);
            all.extend(answer.list(name).iter().cloned());
            let Some(next) = answer["nextCursor"].as_str() else {
                break;
            };
            cursor = format!("&cursor={next}");
        }
        all
    }

    /// The log from its beginning to its head.
    async fn log(&self, gateway: usize, path: &str, limit: usize) -> Vec<Value> {
        let mut all = Vec::new();
        loop {
            let route = format!("{path}/events?after={}&limit={limit}", all.len());
            let page = self.user.get(gateway % 2, &route).await.ok(200);
            all.extend(page.list("events").iter().map(|one| self.plain(one)));
            if page["headSeq"] == all.len() {
                return all;
            }
            assert!(!page.list("events").is_empty(), "{}", page.body);
        }
    }
}
