use confab_protocol::command::{Command, CreateConversation, Created, Outcome};
use confab_protocol::error::{Code, Failure};
use confab_protocol::json::JsonText;
use confab_protocol::resource::ConversationType;
use futures_util::future::join_all;

use crate::commit::CommandOutcome;
use crate::testing::{Fixture, code, creation, deletion, patch, request, soon};

#[tokio::test]
async fn a_creation_key_used_concurrently_begins_one_conversation() {
    let fixture = Fixture::new().await;
    let workers = [fixture.committer.clone(), fixture.another_committer()];
    let requests: Vec<_> = (0..8)
        .map(|_| creation("k", ConversationType::Group, &["alice", "bob"]))
        .map(|creation| request("alice", creation))
        .collect();
    let all = requests.iter().enumerate();
    let all = all.map(|(n, request)| workers[n % 2].finish_alone(request, soon()));
    let outcomes = Box::pin(join_all(all)).await;

    assert_eq!(
        outcomes
            .iter()
            .filter(|(_, events)| events.is_some())
            .count(),
        1
    );
    let all: Vec<_> = outcomes.into_iter().map(|(one, _)| created(one)).collect();
    assert_eq!(all.iter().filter(|created| !created.replayed).count(), 1);
    // A gateway's own second try, which has the same id, is no repeat.
    let own = all.iter().position(|created| !created.replayed).unwrap();
    let again = created(
        fixture
            .committer
            .finish_alone(&requests[own], soon())
            .await
            .0,
    );
    assert!(!again.replayed && again.body == all[own].body);
    for one in &all {
        assert_eq!(one.conversation, all[0].conversation);
        assert_eq!(one.body, all[0].body);
    }
    assert_eq!(fixture.log(all[0].conversation).await.len(), 1);
    let (conversations,): (i64,) = sqlx::query_as("select count(*) from conversations")
        .fetch_one(&fixture.pool)
        .await
        .unwrap();
    assert_eq!(conversations, 1);
}

#[tokio::test]
async fn a_creation_key_is_good_for_one_request_of_one_user() {
    let fixture = Fixture::new().await;
    let create = |user, users: &'static [&'static str]| {
        fixture.alone(user, creation("k", ConversationType::Group, users))
    };
    let first = created(create("alice", &["alice", "bob"]).await.0);
    let (other, events) = create("alice", &["alice", "bob", "carol"]).await;
    assert_eq!((code(other), events), (Code::IdempotencyKeyReused, 0));
    let again = created(create("alice", &["alice", "bob"]).await.0);
    assert!(again.replayed);
    assert_eq!(again.body, first.body);
    let bobs = created(create("bob", &["alice", "bob"]).await.0);
    assert!(!bobs.replayed);
    assert_ne!(bobs.conversation, first.conversation);
}

#[tokio::test]
async fn an_expired_creation_key_is_free_again() {
    let fixture = Fixture::new().await;
    let create = || {
        let command = creation("k", ConversationType::Group, &["alice"]);
        fixture.alone("alice", command)
    };
    let first = created(create().await.0);
    sqlx::query("update creation_keys set expires_at = now() - interval '1 second'")
        .execute(&fixture.pool)
        .await
        .unwrap();
    let second = created(create().await.0);
    assert!(!second.replayed);
    assert_ne!(second.conversation, first.conversation);
    assert_eq!(created(create().await.0).body, second.body);
}

#[tokio::test]
async fn repeat_of_a_creation_survives_what_became_of_it() {
    let fixture = Fixture::new().await;
    let group = |users: &[&str]| creation("k", ConversationType::Group, users);
    let create = async |users: &[&str]| fixture.alone("alice", group(users)).await.0;
    let first = created(create(&["alice", "bob"]).await);
    let id = first.conversation;
    let renamed = patch(id, r#"{"name":"renamed"}"#);
    fixture.alone("alice", renamed).await.0.unwrap();
    fixture.remove("bob", "bob", id).await;
    assert_eq!(created(create(&["alice", "bob"]).await).body, first.body);
    assert_eq!(code(create(&["alice"]).await), Code::IdempotencyKeyReused);

    // Nothing tells any more what it began with, but for its key.
    fixture.alone("alice", deletion(id)).await.0.unwrap();
    for users in [["alice", "bob"].as_slice(), &["alice"]] {
        assert_eq!(created(create(users).await).body, first.body, "{users:?}");
    }
    let kept = "select request_hash is null and hash_key is null and outcome is null from creation_keys where key = 'k'";
    let is_gone: bool = sqlx::query_scalar(kept)
        .fetch_one(&fixture.pool)
        .await
        .unwrap();
    assert!(is_gone);
}

#[tokio::test]
async fn key_of_an_older_version_is_recognised() {
    let fixture = Fixture::new().await;
    let command = || creation("k", ConversationType::Group, &["alice"]);
    let first = created(fixture.alone("alice", command()).await.0);
    sqlx::query("update creation_keys set request_hash = null, hash_key = null")
        .execute(&fixture.pool)
        .await
        .unwrap();
    let again = created(fixture.alone("alice", command()).await.0);
    assert_eq!((again.body, again.replayed), (first.body, true));
}

#[tokio::test]
async fn two_users_have_one_direct_conversation_whoever_begins_it() {
    let fixture = Fixture::new().await;
    let both = ["alice", "bob"];
    let keys: Vec<_> = (0..8).map(|n| format!("k{n}")).collect();
    let begin = |n: usize| {
        let users = [both[n % 2], both[(n + 1) % 2]];
        let command = creation(&keys[n], ConversationType::Direct, &users);
        fixture.alone(users[0], command)
    };
    let outcomes: Vec<_> = Box::pin(join_all((0..8).map(begin))).await;
    let begun: Vec<_> = outcomes.iter().filter(|(one, _)| one.is_ok()).collect();
    let [(one, 1)] = begun.as_slice() else {
        panic!("{begun:?}");
    };
    let first = created(one.clone());
    for (n, (outcome, _)) in outcomes.into_iter().enumerate() {
        let Err(failure) = outcome else { continue };
        assert_eq!(failure.code, Code::DirectConversationExists);
        assert_eq!(failure.extension.conversation_id, Some(first.conversation));
        assert!(!failure.replayed);
        // A refusal that was decided under the key is what its repeat gets, which says that it is one.
        let again = begin(n).await.0.unwrap_err();
        assert_eq!(
            again,
            Failure {
                replayed: true,
                ..failure
            }
        );
    }
    assert_eq!(fixture.log(first.conversation).await.len(), 1);
}

#[tokio::test]
async fn a_creation_larger_than_an_event_may_be_is_refused_and_leaves_nothing() {
    let fixture = Fixture::new().await;
    let names: Vec<_> = (0..1000)
        .map(|n| format!("{n:03}{}", "🜁".repeat(125)))
        .collect();
    let participants = names.iter().map(|name| name.parse().unwrap()).collect();
    let command = Command::CreateConversation(CreateConversation {
        conversation: confab_protocol::ids::ConversationId(uuid::Uuid::now_v7()),
        key: "k".to_owned(),
        request_hash: [0; 32],
        r#type: ConversationType::Channel,
        participants,
        metadata: JsonText::empty_object(),
    });
    let (outcome, events) = fixture.alone("alice", command).await;
    assert_eq!((code(outcome), events), (Code::PayloadTooLarge, 0));
    let (left,): (i64,) = sqlx::query_as(
        "select (select count(*) from conversations) + (select count(*) from creation_keys)",
    )
    .fetch_one(&fixture.pool)
    .await
    .unwrap();
    assert_eq!(left, 0);
}

fn created(outcome: CommandOutcome) -> Created {
    match outcome.unwrap() {
        Outcome::Created(created) => created,
        other => panic!("{other:?}"),
    }
}
