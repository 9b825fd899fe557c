//! The model: plain state that executes one command at a time and names times, conversations and messages.

use std::collections::BTreeMap;

use confab_protocol::ids::Seq;
use serde_json::{Value, json};
use uuid::Uuid;

use super::command::{BACKEND_USER, Content, Create, ModelBody, ModelCommand, Who};
use super::generator::Hint;

/// What a command is answered with.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ModelAnswer {
    pub(super) status: u16,
    pub(super) body: Value,
    /// Whether it says that it was given before.
    pub(super) replayed: bool,
}

pub(super) fn ok(status: u16, body: Value) -> ModelAnswer {
    ModelAnswer {
        status,
        body,
        replayed: false,
    }
}

pub(super) fn refused(status: u16, code: &str) -> ModelAnswer {
    ok(status, json!({ "code": code }))
}

#[derive(Debug, Default)]
pub(super) struct ModelState {
    pub(super) conversations: Vec<Conversation>,
    keys: BTreeMap<(Who, String), (Create, ModelAnswer)>,
    appends: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Conversation {
    pub(super) name: String,
    pub(super) r#type: &'static str,
    pub(super) created_by: Who,
    pub(super) metadata: Value,
    pub(super) version: u64,
    /// The seq of its last change of metadata.
    pub(super) updated: Seq,
    /// The event of seq n at n − 1.
    pub(super) log: Vec<Event>,
    /// All that ever were, by joining.
    pub(super) memberships: Vec<ModelMembership>,
    pub(super) messages: BTreeMap<Seq, ModelMessage>,
    pub(super) is_deleted: bool,
    /// Grows from append to append, over all conversations; 0 where nobody knows.
    pub(super) touched: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Event {
    pub(super) r#type: &'static str,
    pub(super) actor: Who,
    pub(super) data: Data,
}

#[derive(Debug, Clone)]
pub(super) enum Data {
    Plain(Value),
    /// The message of this seq: as it is now.
    Sent,
    /// The message of that seq: as it is now.
    Edited(Seq),
}

#[derive(Debug, Clone)]
pub(super) struct ModelMembership {
    pub(super) user: Who,
    pub(super) role: &'static str,
    pub(super) joined: Seq,
    pub(super) left: Option<Seq>,
    pub(super) read: Seq,
}

#[derive(Debug, Clone)]
pub(super) struct ModelMessage {
    pub(super) sender: Who,
    pub(super) client_id: Uuid,
    /// As it was sent: what a repeat is compared with, for as long as it stands so.
    pub(super) sent: ModelBody,
    /// As it is now.
    pub(super) content: Content,
    pub(super) edited: Option<Seq>,
    pub(super) deleted: Option<Seq>,
    /// How often it changed, from 1.
    pub(super) version: u64,
    /// What it was from each of these seqs on.
    pub(super) versions: Vec<(Seq, Value)>,
}

impl ModelState {
    /// Conversations of which nobody knows in which order they were appended to.
    pub(super) fn of(conversations: Vec<Conversation>) -> Self {
        Self {
            conversations,
            ..Self::default()
        }
    }

    /// Carries out a command.
    pub(super) fn apply(&mut self, who: Who, command: &ModelCommand) -> ModelAnswer {
        // Only a message moves a conversation in lists.
        let said = |one: &Conversation| one.messages.keys().last().copied();
        let before: Vec<_> = self.conversations.iter().map(said).collect();
        let answer = match command {
            ModelCommand::Create(create) => self.create_once(who, create),
            ModelCommand::In(at, action) => self.conversations[*at].apply(who, action),
            ModelCommand::ReadMessages(messages) => self.read_messages(who, messages),
        };
        for (at, conversation) in self.conversations.iter_mut().enumerate() {
            if before.get(at) != Some(&said(conversation)) {
                self.appends += 1;
                conversation.touched = self.appends;
            }
        }
        answer
    }

    /// What there is, for who draws the next command.
    pub(super) fn hints(&self) -> Vec<Hint> {
        self.conversations.iter().map(Conversation::hint).collect()
    }

    fn create_once(&mut self, who: Who, create: &Create) -> ModelAnswer {
        let Some(key) = &create.key else {
            return self.create(who, create);
        };
        let key = (who, key.clone());
        match self.keys.get(&key) {
            Some((first, answer)) if first == create || self.forgot(answer) => ModelAnswer {
                replayed: true,
                ..answer.clone()
            },
            Some(_) => refused(422, "IDEMPOTENCY_KEY_REUSED"),
            None => {
                let answer = self.create(who, create);
                self.keys.insert(key, (create.clone(), answer.clone()));
                answer
            }
        }
    }

    /// Whether nothing is left of a creation to compare a repeat with: its conversation is deleted, and the key alone is recognised.
    fn forgot(&self, answer: &ModelAnswer) -> bool {
        let id = answer.body.pointer("/conversation/id");
        let begun = |conversation: &&Conversation| id == Some(&json!(conversation.name));
        let begun = self.conversations.iter().find(begun);
        begun.is_some_and(|conversation| conversation.is_deleted)
    }

    fn create(&mut self, who: Who, create: &Create) -> ModelAnswer {
        let users = match create.first_members(who) {
            Ok(users) => users,
            Err(refusal) => return refusal,
        };
        let same = |other: &&Conversation| {
            let is_direct = create.r#type == "direct" && other.r#type == "direct";
            is_direct && users.iter().all(|user| other.present(user).is_some())
        };
        if let Some(other) = self.conversations.iter().find(same) {
            let code = "DIRECT_CONVERSATION_EXISTS";
            return ok(409, json!({"code": code, "conversationId": other.name}));
        }
        let name = format!("c{}", self.conversations.len());
        let conversation = Conversation::begun(name, who, create, &users);
        let body = conversation.begun_by(who);
        self.conversations.push(conversation);
        ok(201, body)
    }

    fn read_messages(&mut self, who: Who, messages: &[(usize, Seq)]) -> ModelAnswer {
        let mut marks: BTreeMap<usize, Seq> = BTreeMap::new();
        let mut is_deleted = false;
        for (at, seq) in messages {
            let conversation = &self.conversations[*at];
            let is_there = conversation.messages.contains_key(seq);
            match conversation.readable(who) {
                Ok(()) if is_there => {
                    let mark = marks.entry(*at).or_default();
                    *mark = (*mark).max(*seq);
                }
                Err(gone) if is_there && gone.status == 410 => is_deleted = true,
                _ => return refused(404, "MESSAGE_NOT_FOUND"),
            }
        }
        if is_deleted {
            return refused(410, "CONVERSATION_DELETED");
        }
        let mut read = json!({});
        for (at, seq) in marks {
            let conversation = &mut self.conversations[at];
            read[conversation.name.clone()] = conversation.mark(who, seq).into();
        }
        ok(200, json!({ "read": read }))
    }
}

impl Create {
    /// The members to begin with, in their order.
    pub(super) fn first_members(&self, who: Who) -> Result<Vec<Who>, ModelAnswer> {
        let mut users = Vec::new();
        for user in &self.users {
            if !users.contains(user) {
                users.push(*user);
            }
        }
        if self.r#type == "direct" {
            if users.len() == 2 && (who == BACKEND_USER || users.contains(&who)) {
                return Ok(users);
            }
            return Err(refused(400, "INVALID_DIRECT_CONVERSATION"));
        }
        if who != BACKEND_USER {
            users.retain(|user| *user != who);
            users.insert(0, who);
        }
        Ok(users)
    }
}

impl Conversation {
    /// One that begins, with these users; of what is no direct conversation the first one is the admin.
    pub(super) fn begun(name: String, who: Who, create: &Create, users: &[Who]) -> Self {
        let mut conversation = Self {
            name,
            r#type: create.r#type,
            created_by: who,
            metadata: create.metadata.clone(),
            version: 1,
            updated: 1,
            log: Vec::new(),
            memberships: Vec::new(),
            messages: BTreeMap::new(),
            is_deleted: false,
            touched: 0,
        };
        let is_direct = create.r#type == "direct";
        let role = |place| {
            if place == 0 || is_direct {
                "admin"
            } else {
                "member"
            }
        };
        let users = users.iter().enumerate();
        let members: Vec<_> = users.map(|(place, user)| (*user, role(place))).collect();
        conversation.append("conversation.created", who, Data::Plain(Value::Null));
        let rendered = conversation.rendered(BACKEND_USER);
        let data = json!({"conversation": rendered, "participants": named(&members)});
        conversation.log[0].data = Data::Plain(data);
        conversation.join(&members, 1);
        conversation
    }

    pub(super) fn head(&self) -> Seq {
        self.log.len() as Seq
    }

    /// A user's present membership.
    pub(super) fn present(&self, user: &str) -> Option<&ModelMembership> {
        let mut all = self.memberships.iter();
        all.find(|one| one.user == user && one.left.is_none())
    }

    pub(super) fn present_mut(&mut self, user: &str) -> Option<&mut ModelMembership> {
        let mut all = self.memberships.iter_mut();
        all.find(|one| one.user == user && one.left.is_none())
    }

    pub(super) fn was_member(&self, user: &str) -> bool {
        self.memberships.iter().any(|one| one.user == user)
    }

    /// Whether the caller may do what admins may.
    pub(super) fn administers(&self, who: Who) -> bool {
        who == BACKEND_USER || self.present(who).is_some_and(|one| one.role == "admin")
    }

    /// Refuses who may not see it at all.
    pub(super) fn visible(&self, who: Who) -> Result<(), ModelAnswer> {
        if self.is_deleted && (who == BACKEND_USER || self.was_member(who)) {
            return Err(refused(410, "CONVERSATION_DELETED"));
        }
        if self.is_deleted || !(who == BACKEND_USER || self.present(who).is_some()) {
            return Err(refused(404, "CONVERSATION_NOT_FOUND"));
        }
        Ok(())
    }

    /// Appends an event and gives its seq.
    pub(super) fn append(&mut self, r#type: &'static str, actor: Who, data: Data) -> Seq {
        self.log.push(Event {
            r#type,
            actor,
            data,
        });
        self.head()
    }

    pub(super) fn join(&mut self, members: &[(Who, &'static str)], joined: Seq) {
        let begin = |(user, role): &(Who, &'static str)| ModelMembership {
            user,
            role,
            joined,
            left: None,
            read: joined,
        };
        self.memberships.extend(members.iter().map(begin));
    }

    fn hint(&self) -> Hint {
        let present = self.memberships.iter().filter(|one| one.left.is_none());
        let messages = self.messages.iter();
        Hint {
            members: present.map(|one| one.user).collect(),
            version: self.version,
            head: self.head(),
            messages: messages.map(|(seq, one)| (*seq, one.sender)).collect(),
            is_deleted: self.is_deleted,
        }
    }
}

/// Members as events name them.
pub(super) fn named(members: &[(Who, &'static str)]) -> Value {
    let one = |(user, role): &(Who, &'static str)| json!({"userId": user, "role": role});
    members.iter().map(one).collect()
}
