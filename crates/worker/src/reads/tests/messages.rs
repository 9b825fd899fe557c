use confab_protocol::command::Caller;
use confab_protocol::error::Code;
use confab_protocol::ids::EventId;
use confab_protocol::query::{Answer, Query};
use uuid::Uuid;

use super::{ask, refused};
use crate::testing::{Fixture, caller, message, sent};

#[tokio::test]
async fn a_message_is_for_members_and_told_to_nobody_else() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice", "bob"]).await;
    let stored = sent(fixture.send(message(group, "alice", "hello")).await);
    let id = stored.message_id;
    let product = Caller {
        admin: true,
        ..caller("backend")
    };
    for caller in [caller("alice"), caller("bob"), product.clone()] {
        let answer = ask(&fixture, get(&caller, id)).await;
        assert_eq!(answer, Answer::Object(stored.message.clone().unwrap()));
    }
    fixture.remove("alice", "bob", group).await;
    let other_tenant = Caller {
        tenant: "other".parse().unwrap(),
        ..product.clone()
    };
    for caller in [caller("bob"), caller("mallory"), other_tenant.clone()] {
        let code = refused(&fixture, get(&caller, id)).await;
        assert_eq!(code, Code::MessageNotFound, "{caller:?}");
    }
    let events: Vec<(Uuid,)> =
        sqlx::query_as("select id from events where type <> 'message.created'")
            .fetch_all(&fixture.pool)
            .await
            .unwrap();
    assert_eq!(events.len(), 2);
    for (event,) in events.into_iter().chain([(Uuid::now_v7(),)]) {
        let code = refused(&fixture, get(&caller("alice"), EventId(event))).await;
        assert_eq!(code, Code::MessageNotFound);
    }

    fixture.remove("alice", "alice", group).await;
    for (caller, told) in [
        (caller("alice"), Code::ConversationDeleted),
        (caller("bob"), Code::ConversationDeleted),
        (product, Code::ConversationDeleted),
        (caller("mallory"), Code::MessageNotFound),
        (other_tenant, Code::MessageNotFound),
    ] {
        assert_eq!(refused(&fixture, get(&caller, id)).await, told);
    }
}

fn get(caller: &Caller, message: EventId) -> Query {
    Query::GetMessage {
        caller: caller.clone(),
        message,
    }
}
