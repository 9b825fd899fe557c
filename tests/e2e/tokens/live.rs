//! A token on an open socket can be refreshed, its expiry is announced, and expiry closes the connection.

use std::time::Duration;

use confab_client::{Notice, SendError};
use confab_protocol::error::Code;
use confab_protocol::frame::TokenExpiring;
use confab_protocol::timestamp::Timestamp;
use serde_json::json;
use time::OffsetDateTime;

use super::{merged, now, small};
use crate::support::{Cluster, Member, claims, text};

/// How long a token is good after its `exp`, in seconds: the default of the clock skew.
const CLOCK_SKEW_SECONDS: i64 = 30;
const WAIT_TIMEOUT: Duration = Duration::from_secs(10);

fn token(cluster: &Cluster, changes: &serde_json::Value) -> String {
    cluster.key.token(&merged(&claims("alice"), changes))
}

async fn open(cluster: &Cluster, exp: i64) -> Member {
    let claims = merged(&claims("alice"), &json!({ "exp": exp }));
    cluster.user_of(&claims).on(0).await
}

fn expiring(exp: i64) -> Notice {
    let at = OffsetDateTime::from_unix_timestamp(exp).unwrap();
    Notice::TokenExpiring(TokenExpiring {
        expires_at: Timestamp::new(at),
    })
}

async fn hears(member: &Member, what: &Notice) {
    let mut record = member.record.clone();
    let heard = record.wait_for(|record| record.signals.contains(what));
    let heard = tokio::time::timeout(WAIT_TIMEOUT, heard).await;
    assert!(heard.is_ok_and(|heard| heard.is_ok()), "no {what:?}");
}

fn code(answer: Result<(), SendError>) -> Code {
    match answer {
        Err(SendError::Refused(error)) => error.code,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_lives_until_last_token_expires() {
    let cluster = Cluster::start(small(Vec::new())).await;
    let first = now() + 6 - CLOCK_SKEW_SECONDS;
    let alice = open(&cluster, first).await;
    let bob = merged(&claims("bob"), &json!({ "exp": first }));
    let bob = cluster.user_of(&bob).on(0).await;
    hears(&alice, &expiring(first)).await;
    let own = std::slice::from_ref(&alice.id);

    let second = now() + 14 - CLOCK_SKEW_SECONDS;
    let fresh = token(
        &cluster,
        &json!({ "exp": second, "sessionId": "another login" }),
    );
    alice.session.renew(&fresh).await.unwrap();
    hears(&alice, &expiring(second)).await;
    // Bob had no other, and so shows when the first one ends.
    let closed = bob.closes(Duration::from_secs(20)).await;
    assert_eq!(closed.code, Some(4401));
    assert_eq!(alice.session.is_closed(), None, "the first has ended");
    let http = cluster.user("alice").http(0);
    let conversation = {
        let group = confab_client::NewConversation {
            r#type: confab_protocol::resource::ConversationType::Group,
            participants: own.to_vec(),
            metadata: None,
        };
        let created = http.create_conversation(&group, None).await;
        created.unwrap().answer.conversation.id
    };
    let sent = alice.session.send(conversation, text("still here")).await;
    // On a busy machine a refusal is an answer as well.
    assert!(!matches!(sent, Err(SendError::Closed(_))), "{sent:?}");

    let closed = alice.closes(Duration::from_secs(20)).await;
    assert_eq!(closed.code, Some(4401));
    assert_eq!(closed.reason, "TOKEN_EXPIRED");
    assert!(now() >= second + CLOCK_SKEW_SECONDS - 1, "too early");
    drop((alice, bob));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_refresh_changes_nothing_and_good_one_scope() {
    let cluster = Cluster::start(small(Vec::new())).await;
    let alice = open(&cluster, now() + 3600).await;
    let conversation = alice.create_group(std::slice::from_ref(&alice.id)).await;
    let bad = [
        (json!({"sub": "bob"}), Code::InvalidToken),
        (json!({"deviceId": "another"}), Code::InvalidToken),
        (json!({"tenant": "elsewhere"}), Code::InvalidToken),
        (json!({"aud": "elsewhere"}), Code::InvalidToken),
        (json!({"exp": now() - 3600}), Code::TokenExpired),
        (json!({"nbf": now() + 3600}), Code::TokenNotYetValid),
        (json!({"scope": "confab:write"}), Code::InsufficientScope),
    ];
    for (changes, expected) in bad {
        let answer = alice.session.renew(&token(&cluster, &changes)).await;
        assert_eq!(code(answer), expected, "{changes}");
        alice.say(conversation, "with the old one").await;
    }

    let reads = token(&cluster, &json!({"scope": "confab:read"}));
    let writes = token(&cluster, &json!({"scope": "confab:read confab:write"}));
    let send = async || {
        let sent = alice.session.send(conversation, text("?")).await;
        sent.map(|_| ())
    };
    let (renewed, refused) = tokio::join!(alice.session.renew(&reads), send());
    renewed.unwrap();
    assert_eq!(code(refused), Code::InsufficientScope);
    let mark = alice.session.read(conversation, 1).await;
    assert_eq!(code(mark.map(|_| ())), Code::InsufficientScope);
    let (renewed, sent) = tokio::join!(alice.session.renew(&writes), send());
    renewed.unwrap();
    sent.unwrap();
    drop(alice);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn token_expiry_is_announced_minute_ahead() {
    let cluster = Cluster::start(small(Vec::new())).await;
    let exp = now() + 64;
    let alice = open(&cluster, exp).await;
    hears(&alice, &expiring(exp)).await;
    let left = exp - now();
    // Neither at once nor late.
    assert!((57..=61).contains(&left), "{left} s ahead");
    drop(alice);
    cluster.end().await;
}
