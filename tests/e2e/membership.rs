//! Members receive everything from their joining or session start on, and nobody else receives anything.

use std::time::Duration;

use confab_client::{ClientError, NewMessage, SendError};
use confab_protocol::error::Code;
use confab_protocol::ids::{ConversationId, Seq};
use serde_json::json;

use crate::support::{
    Cluster, Member, Owed, Setup, User, assert_hears_only, assert_log, claims, membership, soak,
    text,
};

const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_sessions_and_members_receive_from_cursor() {
    let cluster = Cluster::start(Setup::default()).await;
    let alice = cluster.user("alice").on(0).await;
    let mut removed = Vec::new();
    for round in 0..soak(200, 25) {
        let newcomer = cluster.user(&format!("newcomer-{round}"));
        removed.extend(Box::pin(amid_sends(&cluster, &alice, &newcomer, round % 2)).await);
    }
    for Removed {
        member,
        conversation,
        last,
    } in &removed
    {
        let heard = member.record.borrow().last(*conversation);
        assert_eq!(heard, *last, "{} heard on", member.id);
    }
    drop((alice, removed));
    cluster.end().await;
}

/// A session whose user was removed, and the last event that it may ever hear.
struct Removed {
    member: Member,
    conversation: ConversationId,
    last: Seq,
}

/// Alice sends on and on while a newcomer joins, connects and is removed again.
async fn amid_sends(
    cluster: &Cluster,
    alice: &Member,
    newcomer: &User,
    gateway: usize,
) -> Vec<Removed> {
    let bob = cluster.user("bob");
    let conversation = alice.create_group(std::slice::from_ref(&bob.id)).await;
    let early = newcomer.on(gateway).await;
    let added = [newcomer.id.clone()];
    let ((), (), late, bob) = tokio::join!(
        talk(alice, conversation, 10),
        alice.add(conversation, &added),
        newcomer.on(1 - gateway),
        bob.on(gateway),
    );
    alice.post(conversation, "the last before a silence").await;
    let (joined, _) = membership(cluster, conversation, &newcomer.id).await;
    let owed = [
        Owed::all(alice),
        from_cursor(&bob, conversation, joined),
        from_cursor(&early, conversation, joined),
        from_cursor(&late, conversation, joined),
    ];
    assert_log(cluster, conversation, &owed).await;

    let ((), gone, opening) = tokio::join!(
        talk(alice, conversation, 5),
        alice.http.remove_participant(conversation, &newcomer.id),
        newcomer.on(gateway),
    );
    gone.unwrap();
    alice.say(conversation, "not for the newcomer").await;
    let sessions = vec![early, late, opening];
    until_removed(cluster, alice, conversation, sessions, joined).await
}

async fn until_removed(
    cluster: &Cluster,
    alice: &Member,
    conversation: ConversationId,
    sessions: Vec<Member>,
    joined: Seq,
) -> Vec<Removed> {
    let (_, left) = membership(cluster, conversation, &sessions[0].id).await;
    let left = left.unwrap();
    let mut removed = Vec::new();
    for (place, member) in sessions.into_iter().enumerate() {
        // The third was opened during the removal: without a cursor it was opened after it.
        let is_owed = place < 2 || member.cursor(conversation).is_some();
        let mut owed = vec![Owed::all(alice)];
        if is_owed {
            let to = Some(left);
            owed.push(Owed {
                to,
                ..from_cursor(&member, conversation, joined)
            });
        }
        assert_log(cluster, conversation, &owed).await;
        removed.push(Removed {
            member,
            conversation,
            last: if is_owed { left } else { 0 },
        });
    }
    removed
}

/// Who was a member when it connected hears from its cursor on, another from its joining.
fn from_cursor(member: &Member, conversation: ConversationId, joined: Seq) -> Owed<'_> {
    let cursor = member.cursor(conversation);
    Owed {
        from: cursor.map_or(joined, |cursor| cursor + 1),
        ..Owed::all(member)
    }
}

async fn talk(member: &Member, conversation: ConversationId, count: usize) {
    for number in 0..count {
        member.say(conversation, &format!("word {number}")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stranger_and_namesake_of_other_tenant_see_nothing() {
    let cluster = Cluster::start(Setup::default()).await;
    let alice = cluster.user("alice").on(0).await;
    let bob = cluster.user("bob").on(1).await;
    let mut worker_retry = claims("alice");
    worker_retry["tenant"] = "elsewhere".into();
    let strangers = [
        cluster.user("eve").on(1).await,
        cluster.user_of(&worker_retry).on(1).await,
    ];
    let conversation = alice.create_group(std::slice::from_ref(&bob.id)).await;

    for stranger in &strangers {
        assert_kept_out(stranger, conversation).await;
    }
    let last = alice.say(conversation, "among us").await;

    bob.hears(conversation, last, ARRIVAL_TIMEOUT).await;
    assert_log(
        &cluster,
        conversation,
        &[Owed::all(&alice), Owed::all(&bob)],
    )
    .await;
    for stranger in &strangers {
        assert_hears_only(stranger, &[]);
    }
    drop((alice, bob, strangers));
    cluster.end().await;
}

async fn assert_kept_out(stranger: &Member, conversation: ConversationId) {
    let unknown = |error: ClientError| assert_eq!(error.code(), Some(Code::ConversationNotFound));
    let http = &stranger.http;
    unknown(http.conversation(conversation).await.unwrap_err());
    unknown(http.history(conversation).await.unwrap_err());
    unknown(
        http.remove_participant(conversation, &stranger.id)
            .await
            .unwrap_err(),
    );
    let message = NewMessage {
        conversation_id: conversation,
        client_id: None,
        body: text("let me in"),
    };
    unknown(http.send_message(&message).await.unwrap_err());
    let listed = http.conversations(100, None).await.unwrap();
    assert_eq!(listed.conversations, []);
    match stranger.session.send(conversation, text("let me in")).await {
        Err(SendError::Refused(error)) => assert_eq!(error.code, Code::ConversationNotFound),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sender_is_token_user_never_from_body() {
    let setup = Setup {
        gateways: 1,
        workers: 1,
        ..Setup::default()
    };
    let cluster = Cluster::start(setup).await;
    let alice = cluster.user("alice");
    let http = alice.http(0);
    let member = alice.on(0).await;
    let conversation = member.create_group(std::slice::from_ref(&alice.id)).await;
    let body = json!({
        "conversationId": conversation,
        "kind": "text",
        "content": {"text": "hi"},
        "sender": "bob",
    });
    let bearer = format!("Bearer {}", alice.token);
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "application/json"),
    ];

    let answer = http
        .raw("POST", "/v1/messages", &headers, body.to_string())
        .await
        .unwrap();

    assert_eq!(answer.status, 400);
    let problem: serde_json::Value = answer.json().unwrap();
    assert_eq!(problem["code"], "VALIDATION_ERROR");
    assert_eq!(problem["errors"][0]["pointer"], "/sender");
    assert_eq!(http.history(conversation).await.unwrap(), []);
    drop(member);
    cluster.end().await;
}
