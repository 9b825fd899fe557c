//! Users and their connections.

use std::time::Duration;

use confab_client::{
    Closed, Encoding, Http, NewConversation, NewMembers, NewMessage, Options, Session,
};
use confab_protocol::event::{Event, Member as NewMember};
use confab_protocol::frame::Hello;
use confab_protocol::ids::{ClientId, ConversationId, Seq, UserId};
use confab_protocol::json::JsonText;
use confab_protocol::resource::{ConversationType, MessageBody, Role};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::record::{Record, keep};

/// How long what is replayed may take.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Someone with a token, nowhere yet.
#[derive(Clone)]
pub(crate) struct User {
    pub(crate) id: UserId,
    pub(crate) token: String,
    urls: Vec<String>,
    http: Http,
}

impl User {
    pub(super) fn new(id: UserId, token: String, urls: Vec<String>, http: Http) -> Self {
        Self {
            id,
            token,
            urls,
            http,
        }
    }

    /// The same user where the only gateway is at `url`: behind a proxy, say.
    pub(crate) fn at(&self, url: &str) -> Self {
        Self {
            urls: vec![url.to_owned()],
            ..self.clone()
        }
    }

    /// The URL of a gateway.
    pub(crate) fn url(&self, gateway: usize) -> &str {
        &self.urls[gateway]
    }

    /// The user's HTTP calls to a gateway.
    pub(crate) fn http(&self, gateway: usize) -> Http {
        self.http.with(self.url(gateway), &self.token).unwrap()
    }

    /// Opens a session at a gateway, as JSON.
    pub(crate) async fn on(&self, gateway: usize) -> Member {
        self.speaking(Encoding::Json, gateway).await
    }

    /// Opens a session at a gateway.
    pub(crate) async fn speaking(&self, encoding: Encoding, gateway: usize) -> Member {
        let hello = Hello {
            heads: Some(true),
            ..Hello::default()
        };
        self.greeting(hello, encoding, gateway).await
    }

    /// Opens a session at a gateway that wants to know who is there.
    pub(crate) async fn asking_presence(&self, gateway: usize) -> Member {
        let hello = Hello {
            heads: Some(true),
            presence: Some(true),
            ..Hello::default()
        };
        self.greeting(hello, Encoding::Json, gateway).await
    }

    /// What a client has of a conversation that comes to a gateway with nothing of it: told or read, as welcome says.
    pub(crate) async fn comes_late(
        &self,
        conversation: ConversationId,
        gateway: usize,
    ) -> Vec<Event> {
        let hello = Hello {
            heads: Some(true),
            seen: Some([(conversation, 0)].into()),
            ..Hello::default()
        };
        let late = self.greeting(hello, Encoding::Json, gateway).await;
        let truncated = &late.session.welcome().truncated;
        let unsent = truncated.iter().find(|t| t.conversation_id == conversation);
        if let Some(unsent) = unsent {
            assert_eq!(unsent.from_seq, 1);
            let log = late.http.events(conversation, unsent.from_seq - 1).await;
            return log.unwrap();
        }
        let head = late.cursor(conversation).unwrap();
        late.hears(conversation, head, ARRIVAL_TIMEOUT).await;
        late.record.borrow().events[&conversation].clone()
    }

    /// Opens or resumes a session at a gateway with this hello.
    pub(crate) async fn greeting(
        &self,
        hello: Hello,
        encoding: Encoding,
        gateway: usize,
    ) -> Member {
        let options = Options {
            encoding,
            hello,
            ..Options::bearer(&self.token)
        };
        let opened = Session::open(self.url(gateway), options).await;
        let (session, events) = opened.unwrap_or_else(|error| panic!("{}: {error:?}", self.id));
        let (write, record) = watch::channel(Record::default());
        let mut recorder = JoinSet::new();
        recorder.spawn(keep(events, write));
        Member {
            http: self.http(gateway),
            id: self.id.clone(),
            session,
            record,
            _recorder: recorder,
        }
    }
}

/// A user's connection to a gateway, recorded from its opening on.
pub(crate) struct Member {
    pub(crate) id: UserId,
    /// Calls to the same gateway.
    pub(crate) http: Http,
    pub(crate) session: Session,
    /// What the connection heard.
    pub(crate) record: watch::Receiver<Record>,
    _recorder: JoinSet<()>,
}

impl Member {
    /// Begins a group with these others.
    pub(crate) async fn create_group(&self, others: &[UserId]) -> ConversationId {
        let group = NewConversation {
            r#type: ConversationType::Group,
            participants: others.to_vec(),
            metadata: None,
        };
        let key = Uuid::now_v7().to_string();
        let created = self.http.create_conversation(&group, Some(&key)).await;
        created.unwrap().answer.conversation.id
    }

    /// Where the session's cursor stood at its opening; none when the user was no member then.
    pub(crate) fn cursor(&self, conversation: ConversationId) -> Option<Seq> {
        let heads = self.session.welcome().heads.as_ref().unwrap();
        heads.get(&conversation).copied()
    }

    /// Adds users as plain members.
    pub(crate) async fn add(&self, conversation: ConversationId, users: &[UserId]) {
        let participants = users
            .iter()
            .map(|user| NewMember {
                user_id: user.clone(),
                role: Role::Member,
            })
            .collect();
        let members = NewMembers { participants };
        let added = self.http.add_participants(conversation, &members).await;
        assert_eq!(added.unwrap().len(), users.len());
    }

    /// Sends a text over the WebSocket and gives its seq.
    pub(crate) async fn say(&self, conversation: ConversationId, words: &str) -> Seq {
        let sent = self.session.send(conversation, text(words)).await;
        sent.unwrap_or_else(|error| panic!("{}: {error}", self.id))
            .seq
    }

    /// Sends a text over HTTP and gives its seq.
    pub(crate) async fn post(&self, conversation: ConversationId, words: &str) -> Seq {
        let message = NewMessage {
            conversation_id: conversation,
            client_id: Some(ClientId(Uuid::now_v7())),
            body: text(words),
        };
        self.http.send_message(&message).await.unwrap().answer.seq
    }

    /// Waits until the event `seq` of a conversation, or a later one, was heard.
    pub(crate) async fn hears(&self, conversation: ConversationId, seq: Seq, deadline: Duration) {
        let mut record = self.record.clone();
        let heard = record.wait_for(|record| record.last(conversation) >= seq);
        if tokio::time::timeout(deadline, heard)
            .await
            .is_ok_and(|heard| heard.is_ok())
        {
            return;
        }
        let record = self.record.borrow();
        panic!(
            "{} heard {conversation} up to {} and not to {seq} within {deadline:?}; closed: {:?}, errors: {:?}",
            self.id,
            record.last(conversation),
            record.closed,
            record.errors,
        );
    }

    /// Waits for the end of the connection.
    pub(crate) async fn closes(&self, deadline: Duration) -> Closed {
        let mut record = self.record.clone();
        let closed = record.wait_for(|record| record.closed.is_some());
        let closed = tokio::time::timeout(deadline, closed).await;
        let closed = closed.unwrap_or_else(|_| panic!("{} is open after {deadline:?}", self.id));
        closed.unwrap().closed.clone().unwrap()
    }
}

/// A text message.
pub(crate) fn text(words: &str) -> MessageBody {
    MessageBody {
        kind: "text".to_owned(),
        content: Some(JsonText::of(&json!({ "text": words })).unwrap()),
        encrypted_content: None,
        payload_size_bytes: None,
        reply_to: None,
        metadata: JsonText::empty_object(),
    }
}
