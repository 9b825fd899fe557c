//! Keys of commands: by its key a worker finds the first execution of a command, and answers a repeat with that.
//!
//! A client's key is good for one kind of command. What a worker is given is made of both (UUID version 5, RFC 9562, section 5.5), so that
//! the id of an edit frame and the same Idempotency-Key of a PATCH are one key, and that of a deletion is another.

use std::borrow::Cow;

use confab_protocol::command::Command;
use confab_protocol::ids::{ClientId, EventId, TenantId};
use uuid::{Uuid, uuid};

/// The namespace of keys made of a kind of command and a client's key.
const KEY_NAMESPACE: Uuid = uuid!("0d5a9a0e-3b0b-4f58-9a7e-5c1f2f6f4a61");

/// The key of a command whose client gives none: by it a retry of this gateway's finds the first execution.
pub(crate) fn own() -> ClientId {
    ClientId(Uuid::now_v7())
}

/// The key of a command of one kind by its Idempotency-Key, or one of its own.
pub(crate) fn of_request(kind: &str, key: Option<&str>) -> ClientId {
    key.map_or_else(own, |key| derived(kind, key))
}

/// The key of a command of one kind by its frame's id where that is a UUID, or one of its own: any other id is echoed and no more.
pub(crate) fn of_frame(kind: &str, id: Option<&str>) -> ClientId {
    let key = id.filter(|id| Uuid::try_parse(id).is_ok());
    of_request(kind, key)
}

/// The key of a revocation, which is of no conversation: its tenant is in it.
pub(crate) fn of_revocation(tenant: &TenantId, key: &str) -> ClientId {
    derived(&format!("revoke {}", tenant.as_str()), key)
}

fn derived(kind: &str, key: &str) -> ClientId {
    let id = Uuid::try_parse(key);
    let key = id.map_or(Cow::Borrowed(key), |id| Cow::Owned(id.to_string()));
    let name = format!("{kind}\0{key}");
    ClientId(Uuid::new_v5(&KEY_NAMESPACE, name.as_bytes()))
}

/// The id of the first event that a command appends, by which a worker tells this gateway's own retry from a repeat of the client's; none
/// where the command has such an id itself, or appends nothing.
pub(crate) fn event_of(command: &Command) -> Option<EventId> {
    match command {
        Command::SendMessage(_)
        | Command::CreateConversation(_)
        | Command::MarkRead(_)
        | Command::Revoke(_) => None,
        Command::UpdateConversation(_)
        | Command::DeleteConversation(_)
        | Command::AddParticipants(_)
        | Command::UpdateParticipant(_)
        | Command::RemoveParticipant(_)
        | Command::EditMessage(_)
        | Command::DeleteMessage(_) => Some(EventId(Uuid::now_v7())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE_ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

    #[test]
    fn key_is_good_for_one_kind_of_command() {
        let edit = |id: &str| of_frame("edit_message", Some(id));
        assert_eq!(edit(SAMPLE_ID), edit(&SAMPLE_ID.to_uppercase()));
        assert_eq!(edit(SAMPLE_ID), of_request("edit_message", Some(SAMPLE_ID)));
        assert_ne!(edit(SAMPLE_ID), of_frame("delete_message", Some(SAMPLE_ID)));
        assert_ne!(edit(SAMPLE_ID), ClientId(SAMPLE_ID.parse().unwrap()));
    }

    #[test]
    fn frame_id_without_uuid_is_no_key() {
        for id in [Some("7"), Some(""), Some("01890a5d-ac96"), None] {
            assert_ne!(of_frame("edit_message", id), of_frame("edit_message", id));
        }
        let header = || of_request("edit_message", Some("7"));
        assert_eq!(header(), header());
        assert_ne!(header(), of_request("edit_message", None));
    }

    #[test]
    fn key_of_a_revocation_is_of_one_tenant() {
        let [one, other] = ["a", "b"].map(|tenant| tenant.parse().unwrap());
        assert_eq!(of_revocation(&one, "k"), of_revocation(&one, "k"));
        assert_ne!(of_revocation(&one, "k"), of_revocation(&other, "k"));
    }
}
