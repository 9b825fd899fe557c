use confab_protocol::command::{Caller, Outcome};
use confab_protocol::error::Code;
use confab_protocol::ids::ConversationId;
use confab_protocol::query::{Answer, Query};
use confab_protocol::resource::{Conversation, ConversationType, Role};
use confab_protocol::timestamp::Timestamp;
use futures_util::future::join_all;

use crate::commit::CommandOutcome;
use crate::reads;
use crate::testing::{
    Fixture, addition, backend, caller, code, creation, deletion, message, patch, patch_of_version,
    removal, role_change, sent, soak,
};

#[tokio::test]
async fn a_patch_changes_what_it_names_and_is_read_by_all() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice", "bob"]).await;
    sent(fixture.send(message(group, "bob", "unread")).await);
    let name = patch(group, r#"{"name":"one","custom":{"a":{"b": 1.0},"c":2}}"#);
    let (outcome, events) = fixture.alone("alice", name).await;
    assert_eq!(events, 1);
    let first = updated(outcome);
    assert_eq!((first.version, first.last_seq), (2, 3));
    assert_eq!(
        (first.role, first.unread_count),
        (Some(Role::Admin), Some(1))
    );
    assert_eq!(first.last_event_at, first.updated_at);

    let custom = patch(group, r#"{"name":null,"custom":{"c":null,"d":[]}}"#);
    let second = updated(fixture.alone("alice", custom).await.0);
    assert_eq!(
        second.metadata.as_str(),
        r#"{"custom":{"a":{"b":1.0},"d":[]}}"#
    );
    assert_eq!(second.version, 3);
    // As its caller sees it: the answer is what a read gives.
    assert_eq!(second, get(&fixture, "alice", group).await);
    assert_eq!(second.metadata, get(&fixture, "bob", group).await.metadata);
    // Changes of members are no changes of metadata.
    let (more, _) = fixture.alone("alice", addition(group, &["carol"])).await;
    more.unwrap();
    assert_eq!(get(&fixture, "alice", group).await.version, 3);
    let log = fixture.log(group).await;
    assert_eq!(log[2..4], ["conversation.updated"; 2]);
}

#[tokio::test]
async fn a_second_execution_of_a_patch_answers_as_the_first() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice", "bob"]).await;
    let command = patch_of_version(group, r#"{"name":"one"}"#, Some(1));
    let (first, events) = fixture.alone("alice", command.clone()).await;
    assert_eq!(events, 1);
    let repeat = || fixture.alone("alice", command.clone());
    assert_eq!(repeat().await, (first.clone(), 0));

    updated(
        fixture
            .alone("alice", patch(group, r#"{"name":"two"}"#))
            .await
            .0,
    );
    sent(fixture.send(message(group, "bob", "hello")).await);
    assert_eq!(repeat().await, (first.clone(), 0));
    let (promoted, _) = fixture
        .alone("alice", role_change(group, "bob", Role::Admin))
        .await;
    promoted.unwrap();
    let (demoted, _) = fixture
        .alone("bob", role_change(group, "alice", Role::Member))
        .await;
    demoted.unwrap();
    assert_eq!(repeat().await, (first.clone(), 0));
    fixture.remove("bob", "alice", group).await;
    assert_eq!(repeat().await, (first.clone(), 0));
    deleted(fixture.alone("bob", deletion(group)).await.0);
    assert_eq!(repeat().await, (first, 0));
}

#[tokio::test]
async fn of_two_patches_of_one_version_one_is_taken() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice"]).await;
    let both = ["one", "two"].map(|name| {
        let text = format!(r#"{{"name":"{name}"}}"#);
        fixture.alone("alice", patch_of_version(group, &text, Some(1)))
    });
    let (taken, refused): (Vec<_>, Vec<_>) = join_all(both)
        .await
        .into_iter()
        .map(|(outcome, _)| outcome)
        .partition(Result::is_ok);
    let [taken] = <[_; 1]>::try_from(taken).unwrap();
    let taken = updated(taken);
    let [Err(failure)] = refused.as_slice() else {
        panic!("{refused:?}");
    };
    assert_eq!(failure.code, Code::VersionConflict);
    assert_eq!(failure.extension.current_version, Some(2));
    assert_eq!(get(&fixture, "alice", group).await, taken);
    // What is expected is compared before anything is changed, and without it any version will do.
    updated(fixture.alone("alice", patch(group, "{}")).await.0);
    assert_eq!(fixture.log(group).await.len(), 2);
}

#[tokio::test]
async fn only_admins_change_and_delete_and_strangers_learn_nothing() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice", "bob", "carol"]).await;
    fixture.remove("alice", "carol", group).await;
    let foreign = || Caller {
        tenant: "other".parse().unwrap(),
        ..backend()
    };
    let commands = || [patch(group, "{}"), deletion(group)];
    for command in commands() {
        let refused = [
            (caller("bob"), Code::InsufficientPermissions),
            (caller("carol"), Code::ConversationNotFound),
            (caller("mallory"), Code::ConversationNotFound),
            (foreign(), Code::ConversationNotFound),
        ];
        for (who, told) in refused {
            let (outcome, events) = fixture.alone_as(who, command.clone()).await;
            assert_eq!((code(outcome), events), (told, 0));
        }
    }
    for command in commands() {
        fixture.alone_as(backend(), command).await.0.unwrap();
    }
    for (who, told) in [
        (caller("bob"), Code::ConversationDeleted),
        (caller("carol"), Code::ConversationDeleted),
        (backend(), Code::ConversationDeleted),
        (caller("mallory"), Code::ConversationNotFound),
        (foreign(), Code::ConversationNotFound),
    ] {
        let (outcome, _) = fixture.alone_as(who, patch(group, "{}")).await;
        assert_eq!(code(outcome), told);
    }
}

#[tokio::test]
async fn a_deletion_ends_all_memberships_and_is_told_alike_to_all_who_were_there() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice", "bob", "carol"]).await;
    fixture.group(&["bob", "carol"]).await;
    fixture.remove("carol", "carol", group).await;
    let command = deletion(group);
    let (first, events) = fixture.alone("alice", command.clone()).await;
    assert_eq!(events, 1);
    let at = deleted(first.clone());
    fixture.assert_counts().await;
    assert_eq!(
        endings(&fixture, group).await,
        [("alice", 3), ("bob", 3), ("carol", 2)].map(|(user, seq)| (user.to_owned(), Some(seq)))
    );

    assert_eq!(fixture.alone("alice", command).await, (first, 0));
    for who in [caller("alice"), caller("bob"), caller("carol"), backend()] {
        let (outcome, events) = fixture.alone_as(who, deletion(group)).await;
        assert_eq!((deleted(outcome), events), (at, 0));
    }
    let (stranger, _) = fixture.alone("mallory", deletion(group)).await;
    assert_eq!(code(stranger), Code::ConversationNotFound);
    assert_eq!(fixture.log(group).await.len(), 3);
    let send = fixture.send(message(group, "bob", "?")).await;
    assert_eq!(code(send), Code::ConversationDeleted);
}

#[tokio::test]
async fn what_the_last_leaver_took_along_is_deleted_for_all_who_were_there() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice", "bob"]).await;
    fixture.remove("alice", "bob", group).await;
    let at = match fixture
        .alone("alice", removal(group, "alice"))
        .await
        .0
        .unwrap()
    {
        Outcome::Removed {
            conversation_deleted_at: Some(at),
            ..
        } => at,
        other => panic!("{other:?}"),
    };
    for who in ["alice", "bob"] {
        let (outcome, events) = fixture.alone(who, deletion(group)).await;
        assert_eq!((deleted(outcome), events), (at, 0));
    }
    // The leaver's membership ends with its own leaving, one event before the conversation does.
    assert_eq!(
        endings(&fixture, group).await,
        [("alice", 3), ("bob", 2)].map(|(user, seq)| (user.to_owned(), Some(seq)))
    );
    fixture.assert_counts().await;
}

#[tokio::test]
async fn a_deleted_direct_conversation_frees_its_pair_and_no_other() {
    let fixture = Fixture::new().await;
    let first = fixture
        .begin(ConversationType::Direct, &["alice", "bob"])
        .await;
    let other = fixture
        .begin(ConversationType::Direct, &["alice", "carol"])
        .await;
    // Either of the two may.
    deleted(fixture.alone("bob", deletion(first)).await.0);
    let second = fixture
        .begin(ConversationType::Direct, &["bob", "alice"])
        .await;
    assert_ne!(first, second);
    deleted(fixture.alone("alice", deletion(first)).await.0);
    for (users, id) in [(["alice", "bob"], second), (["carol", "alice"], other)] {
        let again = creation("again", ConversationType::Direct, &users);
        let failure = fixture.alone(users[0], again).await.0.unwrap_err();
        assert_eq!(failure.code, Code::DirectConversationExists);
        assert_eq!(failure.extension.conversation_id, Some(id));
    }
    fixture.assert_counts().await;
}

#[tokio::test]
async fn a_channel_with_many_members_is_deleted_in_time() {
    let fixture = Fixture::new().await;
    let channel = fixture
        .begin(ConversationType::Channel, &["alice", "bob"])
        .await;
    let untouched = fixture.group(&["u7", "bob"]).await;
    let count = soak(100_000, 5000);
    enter(&fixture, channel, i32::try_from(count).unwrap()).await;
    fixture.assert_counts().await;

    let (outcome, events) = fixture.alone("alice", deletion(channel)).await;
    deleted(outcome);
    assert_eq!(events, 1);
    let endings = endings(&fixture, channel).await;
    assert_eq!(endings.len(), count + 2);
    assert!(endings.iter().all(|(_, left)| *left == Some(2)));
    assert_eq!(fixture.log(untouched).await.len(), 1);
    fixture.assert_counts().await;
}

#[tokio::test]
async fn times_of_one_conversation_never_go_down() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice", "bob"]).await;
    // As if another worker's clock were an hour ahead.
    sqlx::query("update conversations set last_event_at = last_event_at + interval '1 hour'")
        .execute(&fixture.pool)
        .await
        .unwrap();
    let ahead = get(&fixture, "alice", group).await.last_event_at;
    let renamed = patch(group, r#"{"name":"x"}"#);
    let change = updated(fixture.alone("alice", renamed).await.0);
    assert_eq!(change.updated_at, ahead);
    assert_eq!(
        deleted(fixture.alone("alice", deletion(group)).await.0),
        ahead
    );
}

/// Enters `u0`, `u1` … as members of a conversation, as additions would.
async fn enter(fixture: &Fixture, conversation: ConversationId, count: i32) {
    for text in [
        "insert into participants (conversation_id, user_id, joined_seq, tenant, role, position, joined_at, last_read_seq) \
         select $1, 'u' || n, 1, 'default', 'member', n + 2, now(), 1 from generate_series(0, $2 - 1) n",
        "insert into user_counts (tenant, user_id, memberships) \
         select 'default', 'u' || n, 1 from generate_series(0, $2 - 1) n where $1 = $1 \
         on conflict (tenant, user_id) do update set memberships = user_counts.memberships + 1",
        "update conversations set members = members + $2 where id = $1",
    ] {
        sqlx::query(text)
            .bind(conversation.0)
            .bind(count)
            .execute(&fixture.pool)
            .await
            .unwrap();
    }
}

/// With which event each membership ended, in the order of users; ended at the time of that event.
async fn endings(fixture: &Fixture, conversation: ConversationId) -> Vec<(String, Option<i64>)> {
    let rows: Vec<(String, Option<i64>, bool)> = sqlx::query_as(
        "select p.user_id, p.left_seq, p.left_at is not distinct from e.created_at from participants p \
         left join events e on e.conversation_id = p.conversation_id and e.seq = p.left_seq \
         where p.conversation_id = $1 order by p.user_id",
    )
    .bind(conversation.0)
    .fetch_all(&fixture.pool)
    .await
    .unwrap();
    let ending = |(user, left_seq, at_that_time): (String, _, bool)| {
        assert!(at_that_time, "{user}");
        (user, left_seq)
    };
    rows.into_iter().map(ending).collect()
}

async fn get(fixture: &Fixture, user: &str, conversation: ConversationId) -> Conversation {
    #[derive(serde::Deserialize)]
    struct Shown {
        conversation: Conversation,
    }
    let query = Query::GetConversation {
        caller: caller(user),
        conversation,
    };
    let budget = std::time::Duration::from_secs(20);
    match reads::answer(&fixture.connections, &query, budget)
        .await
        .unwrap()
    {
        Answer::Object(text) => {
            let shown: Shown = serde_json::from_str(text.as_str()).unwrap();
            Conversation {
                members: None,
                member_count: None,
                ..shown.conversation
            }
        }
        other => panic!("{other:?}"),
    }
}

fn updated(outcome: CommandOutcome) -> Conversation {
    match outcome.unwrap() {
        Outcome::Updated { conversation, .. } => {
            serde_json::from_str(conversation.as_str()).unwrap()
        }
        other => panic!("{other:?}"),
    }
}

fn deleted(outcome: CommandOutcome) -> Timestamp {
    match outcome.unwrap() {
        Outcome::Deleted { deleted_at, .. } => deleted_at,
        other => panic!("{other:?}"),
    }
}
