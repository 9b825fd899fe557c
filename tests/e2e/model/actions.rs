//! The model's rules for a command in one conversation.

use confab_protocol::ids::Seq;
use serde_json::{Value, json};
use uuid::Uuid;

use super::command::{BACKEND_USER, Content, ModelAction, ModelBody, Who};
use super::rendered::at;
use super::state::{Conversation, Data, ModelAnswer, ModelMessage, named, ok, refused};

/// An answer, or a refusal: both are one.
type Outcome = Result<ModelAnswer, ModelAnswer>;

impl Conversation {
    /// Carries out a command.
    pub(super) fn apply(&mut self, who: Who, action: &ModelAction) -> ModelAnswer {
        let outcome = match action {
            ModelAction::Patch { patch, if_match } => {
                let version = if_match.as_ref().and_then(|(_, version)| *version);
                self.patch(who, patch, version)
            }
            ModelAction::Delete => self.delete(who),
            ModelAction::Add { members } => self.add(who, members),
            ModelAction::SetRole { user, role } => self.set_role(who, user, role),
            ModelAction::Remove { user } => self.remove(who, user),
            ModelAction::Send { client_id, message } => self.send(who, *client_id, message),
            ModelAction::Edit { seq, content } => self.edit(who, *seq, content),
            ModelAction::Unsend { seq } => self.unsend(who, *seq),
            ModelAction::Read { up_to } => self.read(who, *up_to),
        };
        outcome.unwrap_or_else(|refusal| refusal)
    }

    fn patch(&mut self, who: Who, patch: &Value, version: Option<u64>) -> Outcome {
        self.visible(who)?;
        self.only_admins(who)?;
        if version.is_some_and(|version| version != self.version) {
            let code = "VERSION_CONFLICT";
            let conflict = json!({"code": code, "currentVersion": self.version});
            return Err(ok(409, conflict));
        }
        let before = self.metadata.clone();
        merge(&mut self.metadata, patch);
        if self.metadata == before {
            return Ok(ok(200, json!({"conversation": self.rendered(who)})));
        }
        self.version += 1;
        let data = json!({"metadata": self.metadata, "version": self.version});
        self.updated = self.append("conversation.updated", who, Data::Plain(data));
        Ok(ok(200, json!({"conversation": self.rendered(who)})))
    }

    fn delete(&mut self, who: Who) -> Outcome {
        let deleted = |end| ok(200, json!({"deleted": true, "deletedAt": at(end)}));
        if self.is_deleted && (who == BACKEND_USER || self.was_member(who)) {
            return Ok(deleted(self.head()));
        }
        self.visible(who)?;
        self.only_admins(who)?;
        self.end(who);
        Ok(deleted(self.head()))
    }

    fn end(&mut self, who: Who) {
        let data = Data::Plain(json!({"deletedAt": at(self.head() + 1)}));
        let seq = self.append("conversation.deleted", who, data);
        self.is_deleted = true;
        for membership in &mut self.memberships {
            membership.left.get_or_insert(seq);
        }
    }

    fn add(&mut self, who: Who, members: &[(Who, &'static str)]) -> Outcome {
        self.visible(who)?;
        self.not_fixed()?;
        self.only_admins(who)?;
        let users = members.iter().map(|(user, _)| *user);
        let mut present: Vec<Who> = users.filter(|user| self.present(user).is_some()).collect();
        if !present.is_empty() {
            present.sort_unstable();
            let refusal = json!({"code": "ALREADY_PARTICIPANT", "userIds": present});
            return Err(ok(409, refusal));
        }
        let data = json!({"participants": named(members)});
        let seq = self.append("participant.added", who, Data::Plain(data));
        self.join(members, seq);
        let users = members.iter().filter_map(|(user, _)| self.present(user));
        let mut rendered: Vec<Value> = users.map(|one| one.rendered()).collect();
        let body = if rendered.len() == 1 {
            json!({"participant": rendered.remove(0)})
        } else {
            json!({ "participants": rendered })
        };
        Ok(ok(201, body))
    }

    fn set_role(&mut self, who: Who, user: Who, role: &'static str) -> Outcome {
        self.visible(who)?;
        self.not_fixed()?;
        self.only_admins(who)?;
        let Some(membership) = self.present(user) else {
            return Err(refused(404, "PARTICIPANT_NOT_FOUND"));
        };
        let steps_down = membership.role == "admin" && role != "admin";
        let (_, other_admins) = self.others(user);
        if steps_down && other_admins == 0 {
            return Err(refused(409, "LAST_ADMIN"));
        }
        if membership.role != role {
            self.give(who, user, role);
        }
        let rendered = self.present(user).map(|one| one.rendered());
        Ok(ok(200, json!({ "participant": rendered })))
    }

    fn give(&mut self, who: Who, user: Who, role: &'static str) {
        let data = json!({"userId": user, "role": role});
        self.append("participant.updated", who, Data::Plain(data));
        if let Some(membership) = self.present_mut(user) {
            membership.role = role;
        }
    }

    fn remove(&mut self, who: Who, user: Who) -> Outcome {
        self.visible(who)?;
        self.not_fixed()?;
        if who != user {
            self.only_admins(who)?;
        }
        let (others, other_admins) = self.others(user);
        let seq = self.head() + 1;
        let Some(membership) = self.present_mut(user) else {
            return Err(refused(404, "PARTICIPANT_NOT_FOUND"));
        };
        membership.left = Some(seq);
        let was_admin = membership.role == "admin";
        let rendered = membership.rendered();
        let reason = if who == user { "left" } else { "removed" };
        let data = json!({"userId": user, "reason": reason});
        self.append("participant.removed", who, Data::Plain(data));
        if others == 0 {
            self.end(who);
        } else if was_admin && other_admins == 0 {
            let mut present = self.memberships.iter().filter(|one| one.left.is_none());
            let heir = present.next().map(|one| one.user).unwrap();
            self.give(who, heir, "admin");
        }
        let ended = (others == 0).then(|| at(self.head()));
        let body = json!({"participant": rendered, "conversationDeletedAt": ended});
        Ok(ok(200, body))
    }

    /// How many members there are beside a user, and how many admins.
    fn others(&self, user: Who) -> (usize, usize) {
        let present = self.memberships.iter().filter(|one| one.left.is_none());
        let others: Vec<_> = present.filter(|one| one.user != user).collect();
        let admins = others.iter().filter(|one| one.role == "admin").count();
        (others.len(), admins)
    }

    fn send(&mut self, who: Who, client_id: Uuid, message: &ModelBody) -> Outcome {
        let mut sent = self.messages.iter();
        let first = sent.find(|(_, one)| one.sender == who && one.client_id == client_id);
        if let Some((seq, first)) = first {
            let stands = first.edited.is_none() && first.deleted.is_none();
            if stands && first.sent != *message {
                return Err(refused(422, "IDEMPOTENCY_KEY_REUSED"));
            }
            return Ok(ModelAnswer {
                replayed: true,
                ..ok(201, json!({"message": self.message(*seq)}))
            });
        }
        self.visible(who)?;
        if self.r#type == "channel" {
            self.only_admins(who)?;
        }
        if message
            .reply_to
            .is_some_and(|seq| !self.messages.contains_key(&seq))
        {
            return Err(refused(404, "MESSAGE_NOT_FOUND"));
        }
        let seq = self.append("message.created", who, Data::Sent);
        let message = ModelMessage {
            sender: who,
            client_id,
            sent: message.clone(),
            content: message.content.clone(),
            edited: None,
            deleted: None,
            version: 1,
            versions: Vec::new(),
        };
        self.messages.insert(seq, message);
        self.note(seq);
        Ok(ok(201, json!({"message": self.message(seq)})))
    }

    fn edit(&mut self, who: Who, seq: Seq, content: &Content) -> Outcome {
        self.message_visible(who, seq)?;
        let is_channel = self.r#type == "channel";
        let (administers, head) = (self.administers(who), self.head() + 1);
        let message = self.messages.get_mut(&seq);
        let message = message.filter(|one| one.deleted.is_none());
        let Some(message) = message else {
            return Err(refused(404, "MESSAGE_NOT_FOUND"));
        };
        if message.sender != who || (is_channel && !administers) {
            return Err(refused(403, "INSUFFICIENT_PERMISSIONS"));
        }
        let (was, is) = (&message.content, content);
        if matches!((was, is), (Content::Sealed(..), Content::Clear(_))) {
            let message = "must be encryptedContent: the message is encrypted";
            let errors = json!([{"pointer": "/content", "message": message}]);
            let refusal = json!({"code": "VALIDATION_ERROR", "errors": errors});
            return Err(ok(400, refusal));
        }
        if message.content == *content {
            return Ok(ok(200, json!({"message": self.message(seq)})));
        }
        message.content = content.clone();
        message.edited = Some(head);
        message.version += 1;
        self.append("message.edited", who, Data::Edited(seq));
        self.note(seq);
        Ok(ok(200, json!({"message": self.message(seq)})))
    }

    fn unsend(&mut self, who: Who, seq: Seq) -> Outcome {
        self.message_visible(who, seq)?;
        let is_direct = self.r#type == "direct";
        let (administers, head) = (self.administers(who), self.head() + 1);
        let Some(message) = self.messages.get_mut(&seq) else {
            return Err(refused(404, "MESSAGE_NOT_FOUND"));
        };
        let moderates = administers && (!is_direct || who == BACKEND_USER);
        if message.sender != who && !moderates {
            return Err(refused(403, "INSUFFICIENT_PERMISSIONS"));
        }
        if message.deleted.is_none() {
            message.deleted = Some(head);
            message.version += 1;
            let id = self.message_name(seq);
            let data = json!({"targetSeq": seq, "messageId": id, "deletedAt": at(head)});
            self.append("message.deleted", who, Data::Plain(data));
            self.note(seq);
        }
        Ok(ok(200, json!({"message": self.message(seq)})))
    }

    /// Notes what a message is from the head on.
    fn note(&mut self, seq: Seq) {
        let (head, rendered) = (self.head(), self.message(seq));
        if let Some(message) = self.messages.get_mut(&seq) {
            message.versions.push((head, rendered));
        }
    }

    fn read(&mut self, who: Who, up_to: Seq) -> Outcome {
        self.readable(who)?;
        let mark = self.mark(who, up_to);
        Ok(ok(200, json!({"read": {self.name.clone(): mark}})))
    }

    /// Refuses who has nothing to mark as read here: also the backend, which is no member.
    pub(super) fn readable(&self, who: Who) -> Result<(), ModelAnswer> {
        if self.is_deleted && self.was_member(who) {
            return Err(refused(410, "CONVERSATION_DELETED"));
        }
        if self.present(who).is_none() {
            return Err(refused(404, "CONVERSATION_NOT_FOUND"));
        }
        Ok(())
    }

    /// Moves a member's mark forward, up to the head, and tells where it stands.
    pub(super) fn mark(&mut self, who: Who, up_to: Seq) -> Seq {
        let head = self.head();
        let membership = self.present_mut(who).unwrap();
        membership.read = membership.read.max(up_to.min(head));
        membership.read
    }

    fn only_admins(&self, who: Who) -> Result<(), ModelAnswer> {
        if self.administers(who) {
            return Ok(());
        }
        Err(refused(403, "INSUFFICIENT_PERMISSIONS"))
    }

    fn not_fixed(&self) -> Result<(), ModelAnswer> {
        if self.r#type == "direct" {
            return Err(refused(409, "DIRECT_CONVERSATION_FIXED"));
        }
        Ok(())
    }

    /// On a route that names a message alone a stranger is told of no conversation, and nobody of one where there is no message.
    fn message_visible(&self, who: Who, seq: Seq) -> Result<(), ModelAnswer> {
        let not_found = refused(404, "MESSAGE_NOT_FOUND");
        if !self.messages.contains_key(&seq) {
            return Err(not_found);
        }
        self.visible(who).map_err(|refusal| match refusal.status {
            404 => not_found,
            _ => refusal,
        })
    }
}

/// A JSON merge patch (RFC 7396, section 2).
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, value) in patch {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(name);
        } else {
            merge(&mut target[name], value);
        }
    }
}
