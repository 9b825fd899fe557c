//! Renders the model's values as the service's JSON.

use confab_protocol::ids::Seq;
use serde_json::{Value, json};

use super::command::{Content, Who};
use super::state::{Conversation, Data, ModelMembership};

/// When the event of this seq was stored.
pub(super) fn at(seq: Seq) -> String {
    format!("T{seq}")
}

/// A body with each of its times in another form.
pub(super) fn with_times(value: &Value, form: &impl Fn(&str) -> String) -> Value {
    match value {
        Value::Object(members) => {
            let members = members.iter().map(|(name, value)| {
                let formed = match value {
                    Value::String(time) if name.ends_with("At") => form(time).into(),
                    _ => with_times(value, form),
                };
                (name.clone(), formed)
            });
            Value::Object(members.collect())
        }
        Value::Array(elements) => elements.iter().map(|one| with_times(one, form)).collect(),
        _ => value.clone(),
    }
}

impl Conversation {
    /// The conversation, as its caller sees it alone.
    pub(super) fn rendered(&self, who: Who) -> Value {
        let own = self.present(who);
        json!({
            "id": self.name,
            "type": self.r#type,
            "metadata": self.metadata,
            "version": self.version,
            "createdBy": self.created_by,
            "createdAt": at(1),
            "updatedAt": at(self.updated),
            "deletedAt": null,
            "lastSeq": self.head(),
            "lastEventAt": at(self.head()),
            "role": own.map(|own| own.role),
            "joinedAt": own.map(|own| at(own.joined)),
            "lastReadSeq": own.map(|own| own.read),
            "unreadCount": own.map(|own| self.unread(own)),
            "lastMessage": null,
            "members": null,
            "memberCount": null,
        })
    }

    /// The same where it is read or listed, with some of its members.
    fn read_by(&self, who: Who) -> Value {
        let mut rendered = self.rendered(who);
        let present: Vec<_> = self
            .memberships
            .iter()
            .filter(|one| one.left.is_none())
            .collect();
        let preview = |one: &&ModelMembership| json!({"userId": one.user, "role": one.role});
        let members: Vec<Value> = match self.r#type {
            "direct" => {
                let others = present.iter().filter(|one| one.user != who);
                others.map(preview).collect()
            }
            _ => present.iter().take(5).map(preview).collect(),
        };
        if self.r#type != "channel" {
            rendered["members"] = members.into();
        }
        rendered["memberCount"] = present.len().into();
        rendered
    }

    fn unread(&self, own: &ModelMembership) -> usize {
        let above = self.messages.range(own.read + 1..);
        above
            .filter(|(_, message)| message.sender != own.user && message.deleted.is_none())
            .count()
    }

    /// The conversation with its participants, as it is answered to who began it.
    pub(super) fn begun_by(&self, who: Who) -> Value {
        self.with_participants(&self.rendered(who))
    }

    /// The conversation with its participants, as it is read.
    pub(super) fn view(&self, who: Who) -> Value {
        self.with_participants(&self.read_by(who))
    }

    fn with_participants(&self, conversation: &Value) -> Value {
        json!({
            "conversation": conversation,
            "participants": self.participants(false),
            "participantsNextCursor": null,
        })
    }

    /// As it stands in a list.
    pub(super) fn listed(&self, who: Who) -> Value {
        let mut listed = self.read_by(who);
        if let Some((seq, message)) = self.messages.last_key_value() {
            let content = match &message.content {
                Content::Clear(content) if message.deleted.is_none() => content,
                _ => &Value::Null,
            };
            listed["lastMessage"] = json!({
                "id": self.message_name(*seq),
                "seq": seq,
                "sender": message.sender,
                "kind": message.sent.kind,
                "content": content,
                "createdAt": at(*seq),
                "deletedAt": message.deleted.map(at),
            });
        }
        listed
    }

    /// Those who are there, or all who ever were, by joining.
    pub(super) fn participants(&self, with_left: bool) -> Vec<Value> {
        let all = self.memberships.iter();
        all.filter(|one| with_left || one.left.is_none())
            .map(ModelMembership::rendered)
            .collect()
    }

    pub(super) fn message_name(&self, seq: Seq) -> String {
        format!("{}/{seq}", self.name)
    }

    /// A message as it is now.
    pub(super) fn message(&self, seq: Seq) -> Value {
        let message = &self.messages[&seq];
        let mut rendered = json!({
            "id": self.message_name(seq),
            "conversationId": self.name,
            "seq": seq,
            "sender": message.sender,
            "clientId": message.client_id,
            "kind": message.sent.kind,
            "payloadSizeBytes": null,
            "replyTo": message.sent.reply_to.map(|seq| self.message_name(seq)),
            "metadata": message.sent.metadata,
            "createdAt": at(seq),
            "editedAt": message.edited.map(at),
            "deletedAt": message.deleted.map(at),
            "version": message.version,
        });
        match &message.content {
            _ if message.deleted.is_some() => rendered["metadata"] = json!({}),
            Content::Clear(content) => rendered["content"] = content.clone(),
            Content::Sealed(text, size) => {
                rendered["encryptedContent"] = (*text).into();
                rendered["payloadSizeBytes"] = (*size).into();
            }
        }
        rendered
    }

    /// The messages, newest first.
    pub(super) fn history(&self) -> Vec<Value> {
        let seqs = self.messages.keys().rev();
        seqs.map(|seq| self.message(*seq)).collect()
    }

    /// An event as it is served now.
    pub(super) fn event(&self, seq: Seq) -> Value {
        let event = &self.log[usize::try_from(seq).unwrap() - 1];
        let (id, data) = match &event.data {
            Data::Plain(data) => ("?".to_owned(), data.clone()),
            Data::Sent => (self.message_name(seq), self.message(seq)),
            Data::Edited(target) => {
                let data = json!({"targetSeq": target, "message": self.message(*target)});
                ("?".to_owned(), data)
            }
        };
        json!({
            "type": event.r#type,
            "conversationId": self.name,
            "seq": seq,
            "id": id,
            "actor": event.actor,
            "createdAt": at(seq),
            "data": data,
        })
    }

    /// The log as it is served now.
    pub(super) fn events(&self) -> Vec<Value> {
        (1..=self.head()).map(|seq| self.event(seq)).collect()
    }

    /// What a socket may have heard as the event of this seq: its message as it was then, or as it became since.
    pub(super) fn hearable(&self, seq: Seq) -> Vec<Value> {
        let event = self.event(seq);
        let (target, pointer) = match &self.log[usize::try_from(seq).unwrap() - 1].data {
            Data::Plain(_) => return vec![event],
            Data::Sent => (seq, "/data"),
            Data::Edited(target) => (*target, "/data/message"),
        };
        let versions = self.messages[&target].versions.iter();
        let since = versions.filter(|(from, _)| *from >= seq);
        let heard = since.map(|(_, message)| {
            let mut heard = event.clone();
            *heard.pointer_mut(pointer).unwrap() = message.clone();
            heard
        });
        heard.collect()
    }
}

impl ModelMembership {
    /// The membership as others see it.
    pub(super) fn rendered(&self) -> Value {
        json!({
            "userId": self.user,
            "role": self.role,
            "joinedAt": at(self.joined),
            "leftAt": self.left.map(at),
            "lastReadSeq": self.read,
        })
    }
}
