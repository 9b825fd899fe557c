//! The oracle: reads from Postgres what each client must receive, and compares.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use confab_protocol::event::{Event, EventType};
use confab_protocol::ids::{ClientId, ConversationId, EventId, Seq, UserId};
use confab_protocol::resource::{Message, MessageBody};
use serde_json::Value;
use uuid::Uuid;

use super::{AckedMessage, Cluster, Member};

/// How long after the last commit an event may still be on its way.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(10);

/// What a connection is owed of a conversation.
pub(crate) struct Owed<'a> {
    pub(crate) member: &'a Member,
    /// The first event: of one who was connected when it joined, the joining.
    pub(crate) from: Seq,
    /// The end of the membership; none for one who is still a member, who is owed all up to the head.
    pub(crate) to: Option<Seq>,
}

impl<'a> Owed<'a> {
    /// All of it.
    pub(crate) const fn all(member: &'a Member) -> Self {
        Self {
            member,
            from: 1,
            to: None,
        }
    }
}

/// An event as Postgres has it.
#[derive(Debug)]
struct EventRow {
    seq: i64,
    id: Uuid,
    r#type: String,
    actor: String,
    client_id: Option<Uuid>,
    payload: String,
}

type Columns = (i64, Uuid, String, String, Option<Uuid>, String);

impl From<Columns> for EventRow {
    fn from((seq, id, r#type, actor, client_id, payload): Columns) -> Self {
        Self {
            seq,
            id,
            r#type,
            actor,
            client_id,
            payload,
        }
    }
}

impl EventRow {
    fn seq(&self) -> Seq {
        self.seq.try_into().unwrap()
    }

    fn event_type(&self) -> EventType {
        self.r#type.parse().unwrap()
    }

    fn body(&self) -> MessageBody {
        serde_json::from_str(&self.payload).unwrap()
    }
}

/// Asserts that the log has no gap, that everyone hears what it is owed of it exactly once and in order, and that the
/// history that each who is still a member reads over HTTP equals it. Waits for what is still on its way.
pub(crate) async fn assert_log(cluster: &Cluster, conversation: ConversationId, owed: &[Owed<'_>]) {
    let log = read_log(cluster, conversation).await;
    let seqs: Vec<Seq> = log.iter().map(EventRow::seq).collect();
    let head = Seq::try_from(log.len()).unwrap();
    assert_eq!(
        seqs,
        (1..=head).collect::<Vec<_>>(),
        "gaps in {conversation}"
    );
    for Owed { member, from, to } in owed {
        let (last, is_member) = (to.unwrap_or(head), to.is_none());
        member.hears(conversation, last, ARRIVAL_TIMEOUT).await;
        let owed: Vec<&EventRow> = log
            .iter()
            .filter(|row| (*from..=last).contains(&row.seq()))
            .collect();
        assert_heard(member, conversation, &owed);
        if is_member {
            let history = member.http.history(conversation).await.unwrap();
            assert_history(&log, &history);
        }
    }
}

/// Asserts that a connection heard of no conversation but these.
pub(crate) fn assert_hears_only(member: &Member, conversations: &[ConversationId]) {
    let record = member.record.borrow();
    let heard: BTreeSet<_> = record.events.keys().copied().collect();
    let allowed: BTreeSet<_> = conversations.iter().copied().collect();
    assert!(
        heard.is_subset(&allowed),
        "{} heard of {heard:?}",
        member.id
    );
}

/// Asserts that everything acknowledged is stored once, with the seq that was acknowledged and the words that were sent.
pub(crate) async fn assert_stored(cluster: &Cluster, sent: &[AckedMessage]) {
    let mut by_conversation: BTreeMap<ConversationId, Vec<&AckedMessage>> = BTreeMap::new();
    for sent in sent {
        by_conversation
            .entry(sent.conversation)
            .or_default()
            .push(sent);
    }
    for (conversation, sent) in by_conversation {
        let log = read_log(cluster, conversation).await;
        let mut stored: BTreeMap<String, Vec<&EventRow>> = BTreeMap::new();
        let messages = log
            .iter()
            .filter(|row| row.event_type() == EventType::MessageCreated);
        for row in messages {
            stored.entry(words(&row.body())).or_default().push(row);
        }
        for sent in sent {
            let rows = stored.get(&sent.words).map_or(&[][..], Vec::as_slice);
            let [row] = rows else {
                panic!("stored {} times: {sent:?}", rows.len());
            };
            let found = (row.seq(), row.actor.as_str(), row.client_id.map(ClientId));
            assert_eq!(
                found,
                (sent.seq, sent.sender.as_str(), Some(sent.client_id))
            );
        }
    }
}

/// When a user's only membership of a conversation began, and when it ended.
pub(crate) async fn membership(
    cluster: &Cluster,
    conversation: ConversationId,
    user: &UserId,
) -> (Seq, Option<Seq>) {
    let (joined, left): (i64, Option<i64>) = sqlx::query_as(
        "select joined_seq, left_seq from participants where conversation_id = $1 and user_id = $2",
    )
    .bind(conversation.0)
    .bind(user.as_str())
    .fetch_one(&cluster.store)
    .await
    .unwrap();
    let seq = |number: i64| Seq::try_from(number).unwrap();
    (seq(joined), left.map(seq))
}

/// When each of a user's memberships of a conversation began, and when it ended, the first one first.
pub(crate) async fn memberships(
    cluster: &Cluster,
    conversation: ConversationId,
    user: &UserId,
) -> Vec<(Seq, Option<Seq>)> {
    let rows: Vec<(i64, Option<i64>)> = sqlx::query_as(
        "select joined_seq, left_seq from participants where conversation_id = $1 and user_id = $2 order by joined_seq",
    )
    .bind(conversation.0)
    .bind(user.as_str())
    .fetch_all(&cluster.store)
    .await
    .unwrap();
    let seq = |number: i64| Seq::try_from(number).unwrap();
    rows.into_iter()
        .map(|(joined, left)| (seq(joined), left.map(seq)))
        .collect()
}

/// Asserts that a connection which stood before its user first joined heard exactly what the user's memberships allow: each
/// from the addition that names it to its own removal.
pub(crate) async fn assert_memberships(
    cluster: &Cluster,
    conversation: ConversationId,
    member: &Member,
) {
    let log = read_log(cluster, conversation).await;
    let head = Seq::try_from(log.len()).unwrap();
    let memberships = memberships(cluster, conversation, &member.id).await;
    let mut owed: Vec<&EventRow> = Vec::new();
    for (joined, left) in memberships {
        let last = left.unwrap_or(head);
        let part = log
            .iter()
            .filter(|row| (joined..=last).contains(&row.seq()));
        let part: Vec<&EventRow> = part.collect();
        assert_names(part[0], EventType::ParticipantAdded, &member.id);
        if left.is_some() {
            let end = part[part.len() - 1];
            assert_names(end, EventType::ParticipantRemoved, &member.id);
        }
        owed.extend(part);
    }
    let last = owed.last().map_or(0, |row| row.seq());
    member.hears(conversation, last, ARRIVAL_TIMEOUT).await;
    assert_heard(member, conversation, &owed);
}

fn assert_names(row: &EventRow, r#type: EventType, user: &UserId) {
    let named = format!("\"userId\":\"{user}\"");
    assert!(
        row.event_type() == r#type && row.payload.contains(&named),
        "{user}: {row:?}"
    );
}

async fn read_log(cluster: &Cluster, conversation: ConversationId) -> Vec<EventRow> {
    let rows: Vec<Columns> = sqlx::query_as(
        "select seq, id, type, actor, client_id, payload from events where conversation_id = $1 order by seq",
    )
    .bind(conversation.0)
    .fetch_all(&cluster.store)
    .await
    .unwrap();
    rows.into_iter().map(EventRow::from).collect()
}

fn assert_history(log: &[EventRow], history: &[Message]) {
    let stored: Vec<&EventRow> = log
        .iter()
        .filter(|row| row.event_type() == EventType::MessageCreated)
        .collect();
    let seqs = |rows: &[&EventRow]| rows.iter().map(|row| row.seq()).collect::<Vec<_>>();
    let read: Vec<Seq> = history.iter().map(|message| message.seq).collect();
    assert_eq!(read, seqs(&stored), "history");
    for (row, message) in stored.into_iter().zip(history) {
        assert_message(row, message);
        let content = message
            .content
            .as_ref()
            .map(|content| content.as_str().to_owned());
        let kept = row.body().content.map(|content| content.into_string());
        assert_eq!(content, kept, "byte for byte");
    }
}

fn assert_heard(member: &Member, conversation: ConversationId, owed: &[&EventRow]) {
    let id = &member.id;
    let record = member.record.borrow();
    let heard = record
        .events
        .get(&conversation)
        .map_or(&[][..], Vec::as_slice);
    let seqs: Vec<Seq> = heard.iter().map(|event| event.seq).collect();
    let due: Vec<Seq> = owed.iter().map(|row| row.seq()).collect();
    assert_eq!(seqs, due, "{id} in {conversation}");
    assert_eq!(member.session.ignored(), 0, "{id} heard something twice");
    for (event, row) in heard.iter().zip(owed) {
        assert_event(row, event);
    }
}

fn assert_event(row: &EventRow, event: &Event) {
    let heard = (event.id, event.r#type, event.actor.as_str());
    assert_eq!(
        heard,
        (EventId(row.id), row.event_type(), row.actor.as_str())
    );
    if event.r#type == EventType::MessageCreated {
        assert_message(row, &serde_json::from_str(event.data.as_str()).unwrap());
    } else {
        assert_eq!(value(event.data.as_str()), value(&row.payload));
    }
}

fn assert_message(row: &EventRow, message: &Message) {
    let found = (message.id.0, message.seq, message.sender.as_str());
    assert_eq!(found, (row.id, row.seq(), row.actor.as_str()));
    assert_eq!(message.client_id.map(|id| id.0), row.client_id);
    let body = row.body();
    let content = |content: &Option<_>| {
        content
            .as_ref()
            .map(confab_protocol::json::JsonText::as_str)
            .map(value)
    };
    assert_eq!(message.kind, body.kind);
    assert_eq!(content(&message.content), content(&body.content));
    assert_eq!(message.encrypted_content, body.encrypted_content);
    assert_eq!(
        value(message.metadata.as_str()),
        value(body.metadata.as_str())
    );
}

/// `MessagePack` has no JSON text to compare by bytes.
fn value(json: &str) -> Value {
    serde_json::from_str(json).unwrap()
}

fn words(body: &MessageBody) -> String {
    let content = body.content.as_ref().map(|content| value(content.as_str()));
    let words = content
        .as_ref()
        .and_then(|content| content["text"].as_str());
    words.unwrap_or_default().to_owned()
}
