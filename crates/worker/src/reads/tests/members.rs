//! Who is shown with a conversation, in lists and alone.

use confab_protocol::ids::ConversationId;
use confab_protocol::query::{Answer, ListConversations, ListOrder, Query};
use confab_protocol::resource::ConversationType;
use serde_json::{Value, json};

use super::ask;
use crate::testing::{Fixture, caller};

/// What is shown of members in the list of a user and of one conversation alone.
async fn members_shown(fixture: &Fixture, user: &str, id: ConversationId) -> [Value; 2] {
    let list = ListConversations {
        caller: caller(user),
        limit: 100,
        cursor: None,
        r#type: None,
        order: ListOrder::Recent,
    };
    let Answer::Page { items, .. } = ask(fixture, Query::ListConversations(list)).await else {
        panic!("a page");
    };
    let all = items
        .iter()
        .map(|item| serde_json::from_str::<Value>(item.as_str()).unwrap());
    let listed = all.into_iter().find(|one| one["id"] == json!(id)).unwrap();
    let query = Query::GetConversation {
        caller: caller(user),
        conversation: id,
    };
    let Answer::Object(alone) = ask(fixture, query).await else {
        panic!("a conversation");
    };
    let alone: Value = serde_json::from_str(alone.as_str()).unwrap();
    [listed, alone["conversation"].clone()].map(|one| {
        let members = one["members"].as_array();
        let ids = members.map(|all| {
            all.iter()
                .map(|one| one["userId"].clone())
                .collect::<Vec<_>>()
        });
        json!([ids, one["memberCount"]])
    })
}

#[tokio::test]
async fn some_members_are_shown_with_a_conversation() {
    use ConversationType::{Channel, Direct, Group};
    let fixture = Fixture::new().await;
    let many = ["alice", "b", "c", "d", "e", "f", "g"];
    for (r#type, users, expected) in [
        (Direct, &many[..2], json!([["b"], 2])),
        (Group, &many[..3], json!([["alice", "b", "c"], 3])),
        (Group, &many[..], json!([["alice", "b", "c", "d", "e"], 7])),
        (Channel, &many[..], json!([null, 7])),
    ] {
        let id = fixture.begin(r#type, users).await;
        let shown = members_shown(&fixture, "alice", id).await;
        assert_eq!(shown, [expected.clone(), expected]);
    }
    // Who left is none of them, and counts no more.
    let id = fixture.begin(Group, &many).await;
    fixture.remove("b", "b", id).await;
    let expected = json!([["alice", "c", "d", "e", "f"], 6]);
    let shown = members_shown(&fixture, "alice", id).await;
    assert_eq!(shown, [expected.clone(), expected]);
}
