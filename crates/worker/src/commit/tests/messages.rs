use confab_protocol::command::{Caller, Command};
use confab_protocol::error::Code;
use confab_protocol::ids::{ConversationId, EventId};
use confab_protocol::resource::{ConversationType, Message, Role};
use uuid::Uuid;

use crate::commit::CommandOutcome;
use crate::testing::{
    Fixture, backend, caller, code, deletion, edit, key, keyed, message, role_change, sent, unsend,
};

#[tokio::test]
async fn an_edit_is_a_later_event_and_the_message_keeps_its_place() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice", "bob"]).await;
    let first = sent(fixture.send(message(group, "bob", "first")).await);
    for (seq, named) in [(3, Some(group)), (4, None)] {
        let text = format!("edited to {seq}");
        let command = edit(named, first.message_id, &text);
        let (outcome, events) = fixture.alone("bob", command.clone()).await;
        assert_eq!(events, 1);
        let told = sent(outcome.clone());
        assert_eq!((told.seq, told.duplicate), (seq, false));
        assert_eq!(
            (told.message_id, told.conversation),
            (first.message_id, group)
        );
        let edited = shown(outcome.clone());
        assert_eq!((edited.seq, edited.sender.as_str()), (2, "bob"));
        assert_eq!(edited.created_at, first.created_at);
        assert_eq!(edited.edited_at, Some(told.created_at));
        assert_eq!(edited.content.unwrap().as_str(), format!("{text:?}"));
        assert_eq!(fixture.alone("bob", command).await, (outcome, 0));
    }
    assert_eq!(fixture.log(group).await[2..], ["message.edited"; 2]);
}

#[tokio::test]
async fn a_deletion_keeps_the_message_without_its_content() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice", "bob", "carol"]).await;
    for (who, named) in [
        (caller("bob"), Some(group)),
        (caller("alice"), None),
        (backend(), None),
    ] {
        let first = sent(fixture.send(message(group, "bob", "gone")).await);
        let command = unsend(named, first.message_id);
        let (outcome, events) = fixture.alone_as(who.clone(), command.clone()).await;
        assert_eq!(events, 1);
        let told = sent(outcome.clone());
        assert_eq!((told.seq, told.duplicate), (first.seq + 1, false));
        let deleted = shown(outcome.clone());
        assert_eq!((deleted.id, deleted.seq), (first.message_id, first.seq));
        assert_eq!((deleted.content, deleted.encrypted_content), (None, None));
        assert_eq!(deleted.deleted_at, Some(told.created_at));
        assert_eq!(
            (deleted.metadata.as_str(), deleted.kind.as_str()),
            ("{}", "text")
        );
        assert_eq!(fixture.alone_as(who, command).await, (outcome, 0));

        // Deleted is deleted, whoever deletes it again, as long as it may.
        for again in [caller("bob"), caller("alice"), backend()] {
            let command = unsend(None, first.message_id);
            let (outcome, events) = fixture.alone_as(again, command).await;
            let told_again = sent(outcome);
            assert_eq!(
                (told_again.seq, told_again.duplicate, events),
                (told.seq, false, 0)
            );
            assert_eq!(told_again.created_at, told.created_at);
        }
        let (carols, _) = fixture.alone("carol", unsend(None, first.message_id)).await;
        assert_eq!(code(carols), Code::InsufficientPermissions);
        let (edited, _) = fixture
            .alone("bob", edit(None, first.message_id, "again"))
            .await;
        assert_eq!(code(edited), Code::MessageNotFound);
    }
    assert_eq!(fixture.log(group).await.len(), 7);
}

#[tokio::test]
async fn a_second_execution_answers_as_the_first_also_to_one_who_left() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice", "bob"]).await;
    let first = sent(fixture.send(message(group, "bob", "one")).await).message_id;
    let second = sent(fixture.send(message(group, "bob", "two")).await).message_id;
    let commands = [
        edit(None, first, "edited"),
        edit(Some(group), first, "edited once more"),
        unsend(None, second),
    ];
    let mut outcomes = Vec::new();
    for command in &commands {
        outcomes.push(fixture.alone("bob", command.clone()).await.0);
    }
    let same = |one: &CommandOutcome, other: &CommandOutcome| {
        let (one, other) = (sent(one.clone()), sent(other.clone()));
        assert_eq!(
            (one.seq, one.created_at, one.message_id, one.duplicate),
            (
                other.seq,
                other.created_at,
                other.message_id,
                other.duplicate
            )
        );
    };
    fixture.remove("alice", "bob", group).await;
    for ends in [false, true] {
        if ends {
            fixture.alone("alice", deletion(group)).await.0.unwrap();
        }
        for (command, first) in commands.iter().zip(&outcomes) {
            let (again, events) = fixture.alone("bob", command.clone()).await;
            assert_eq!(events, 0);
            same(&again, first);
        }
    }
    // The first edit's content is no more: its repeat shows what the message is now.
    let (again, _) = fixture.alone("bob", commands[0].clone()).await;
    assert_eq!(
        shown(again).content.unwrap().as_str(),
        r#""edited once more""#
    );
}

#[tokio::test]
async fn a_key_is_good_for_one_change_of_one_message() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice"]).await;
    let first = sent(fixture.send(message(group, "alice", "one")).await).message_id;
    let second = sent(fixture.send(message(group, "alice", "two")).await).message_id;
    let command = edit(None, first, "edited");
    fixture.alone("alice", command.clone()).await.0.unwrap();
    let Command::EditMessage(used) = command else {
        panic!("an edit");
    };
    let mut other = used.clone();
    other.message = second;
    let Command::DeleteMessage(mut delete) = unsend(None, first) else {
        panic!("a deletion");
    };
    delete.client_id = used.client_id;
    for reused in [Command::EditMessage(other), Command::DeleteMessage(delete)] {
        let (outcome, events) = fixture.alone("alice", reused).await;
        assert_eq!((code(outcome), events), (Code::IdempotencyKeyReused, 0));
    }
}

/// What an edit and a deletion of the message are refused with, by its id alone and with its conversation.
async fn refusals(
    fixture: &Fixture,
    who: &Caller,
    conversation: ConversationId,
    id: EventId,
) -> [Code; 4] {
    let mut codes = Vec::new();
    for command in [
        edit(None, id, "x"),
        edit(Some(conversation), id, "x"),
        unsend(None, id),
        unsend(Some(conversation), id),
    ] {
        let (outcome, events) = fixture.alone_as(who.clone(), command).await;
        assert_eq!(events, 0);
        codes.push(code(outcome));
    }
    codes.try_into().unwrap()
}

#[tokio::test]
async fn those_who_may_not_learn_nothing() {
    use Code::{
        ConversationDeleted, ConversationNotFound, InsufficientPermissions, MessageNotFound,
    };
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice", "bob", "carol"]).await;
    let other = fixture.group(&["alice", "bob"]).await;
    let id = sent(fixture.send(message(group, "bob", "hello")).await).message_id;
    let elsewhere = sent(fixture.send(message(other, "bob", "hello")).await).message_id;

    let members = refusals(&fixture, &caller("carol"), group, id).await;
    assert_eq!(members, [InsufficientPermissions; 4]);
    let foreign = Caller {
        tenant: "other".parse().unwrap(),
        ..caller("bob")
    };
    let hidden = [
        MessageNotFound,
        ConversationNotFound,
        MessageNotFound,
        ConversationNotFound,
    ];
    for stranger in [caller("mallory"), foreign] {
        assert_eq!(refusals(&fixture, &stranger, group, id).await, hidden);
    }
    let nothing = EventId(Uuid::now_v7());
    for who in [caller("bob"), backend()] {
        let codes = refusals(&fixture, &who, group, nothing).await;
        assert_eq!(codes, [MessageNotFound; 4]);
    }
    // A message of another conversation is not in this one, and an event that is no message is none.
    let (misnamed, _) = fixture
        .alone("bob", edit(Some(group), elsewhere, "x"))
        .await;
    assert_eq!(code(misnamed), MessageNotFound);
    let (created,): (Uuid,) =
        sqlx::query_as("select id from events where conversation_id = $1 and seq = 1")
            .bind(group.0)
            .fetch_one(&fixture.pool)
            .await
            .unwrap();
    let codes = refusals(&fixture, &caller("alice"), group, EventId(created)).await;
    assert_eq!(codes, [MessageNotFound; 4]);

    fixture.remove("bob", "bob", group).await;
    assert_eq!(refusals(&fixture, &caller("bob"), group, id).await, hidden);
    fixture.alone("alice", deletion(group)).await.0.unwrap();
    for who in [caller("alice"), caller("bob"), caller("carol"), backend()] {
        let codes = refusals(&fixture, &who, group, id).await;
        assert_eq!(codes, [ConversationDeleted; 4]);
    }
    assert_eq!(
        refusals(&fixture, &caller("mallory"), group, id).await,
        hidden
    );
    assert_eq!(fixture.log(group).await.len(), 4);
}

#[tokio::test]
async fn in_a_channel_a_sender_edits_only_while_it_may_send() {
    let fixture = Fixture::new().await;
    let channel = fixture
        .begin(ConversationType::Channel, &["alice", "bob"])
        .await;
    let change = |role| fixture.alone("alice", role_change(channel, "bob", role));
    change(Role::Admin).await.0.unwrap();
    let id = sent(fixture.send(message(channel, "bob", "hello")).await).message_id;
    sent(fixture.alone("bob", edit(None, id, "as an admin")).await.0);
    change(Role::Member).await.0.unwrap();
    let (edited, _) = fixture.alone("bob", edit(None, id, "as a member")).await;
    assert_eq!(code(edited), Code::InsufficientPermissions);
    sent(fixture.alone("bob", unsend(None, id)).await.0);
}

#[tokio::test]
async fn a_send_is_repeated_as_ever_after_its_message_was_edited_or_deleted() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice", "bob"]).await;
    let client_id = key();
    let send = |text: &str| fixture.send(keyed(group, "bob", text, client_id));
    let first = sent(send("as sent").await);
    assert_eq!(code(send("other").await), Code::IdempotencyKeyReused);
    let assert_repeat_of = async |text: &str, content: Option<&str>| {
        let outcome = send(text).await;
        let again = sent(outcome.clone());
        assert_eq!(
            (
                again.seq,
                again.message_id,
                again.created_at,
                again.duplicate
            ),
            (first.seq, first.message_id, first.created_at, true)
        );
        let message = shown(outcome);
        assert_eq!(message.content.as_ref().map(|text| text.as_str()), content);
    };
    // What was sent is gone: nothing is left to compare with.
    let assert_repeat = async |content| {
        for text in ["as sent", "edited", "other"] {
            assert_repeat_of(text, content).await;
        }
    };
    sent(
        fixture
            .alone("bob", edit(None, first.message_id, "edited"))
            .await
            .0,
    );
    assert_repeat(Some(r#""edited""#)).await;
    sent(
        fixture
            .alone("alice", unsend(None, first.message_id))
            .await
            .0,
    );
    assert_repeat(None).await;
    fixture.remove("bob", "bob", group).await;
    assert_repeat(None).await;
}

fn shown(outcome: CommandOutcome) -> Message {
    let message = sent(outcome).message.unwrap();
    serde_json::from_str(message.as_str()).unwrap()
}
