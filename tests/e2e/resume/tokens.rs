//! The validity of resume tokens, and who may use them.

use futures_util::future::join_all;
use serde_json::Value;

use super::{RawClient, WAIT_TIMEOUT, cluster, eventually, on_device};
use crate::support::{Cluster, User};

/// A client that comes with this token starts afresh, and is told why.
async fn starts_afresh(cluster: &Cluster, user: &User, gateway: usize, token: &str, why: &str) {
    let client = RawClient::hello(cluster, user, gateway, Some(token)).await;
    assert_eq!(client.welcome["type"], "welcome", "{}", client.welcome);
    assert_eq!(client.welcome["resumed"], false);
    assert_eq!(client.welcome["reason"], why);
    assert_ne!(client.welcome["resumeToken"], Value::Null);
    client.bye().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn used_token_is_valid_until_welcome_acknowledged() {
    let cluster = cluster().await;
    let alice = cluster.user("alice");
    let mut first = RawClient::fresh(&cluster, &alice, 0).await;
    first.proves().await;
    let (session, token) = (first.session(), first.token());
    drop(first);
    // The welcome is lost twice in a row, here and there.
    for gateway in [1, 0, 1] {
        let client = RawClient::resumed(&cluster, &alice, gateway, &token).await;
        assert_eq!(client.session(), session);
    }
    let mut client = RawClient::resumed(&cluster, &alice, 0, &token).await;
    client.proves().await;
    for gateway in [0, 1] {
        starts_afresh(&cluster, &alice, gateway, &token, "used").await;
    }
    assert!(client.is_served().await, "it lost nothing by that");
    let newest = client.token();
    drop(client);
    starts_afresh(&cluster, &alice, 1, &token, "used").await;
    let client = RawClient::resumed(&cluster, &alice, 1, &newest).await;
    assert_eq!(client.session(), session);
    drop(client);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unauthorized_resume_starts_new_session() {
    let cluster = cluster().await;
    let alice = cluster.user("alice");
    let mut client = RawClient::fresh(&cluster, &alice, 0).await;
    client.proves().await;
    let (session, token) = (client.session(), client.token());
    let laptop = on_device(&cluster, "alice", "laptop");
    let mallory = cluster.user("mallory");
    let mut unknown = token.clone();
    unknown.replace_range(
        0..4,
        if token.starts_with("AAAA") {
            "BBBB"
        } else {
            "AAAA"
        },
    );
    let mut forged = token.clone();
    forged.replace_range(
        60..64,
        if token.ends_with("AAAA") {
            "BBBB"
        } else {
            "AAAA"
        },
    );
    for gateway in [0, 1] {
        starts_afresh(&cluster, &mallory, gateway, &token, "foreign").await;
        starts_afresh(&cluster, &laptop, gateway, &token, "foreign").await;
        starts_afresh(&cluster, &mallory, gateway, &forged, "unknown").await;
        starts_afresh(&cluster, &alice, gateway, &forged, "used").await;
        starts_afresh(&cluster, &alice, gateway, &unknown, "unknown").await;
        for junk in ["", "x", &"A".repeat(65), &"=".repeat(64)] {
            starts_afresh(&cluster, &alice, gateway, junk, "malformed").await;
        }
    }
    assert!(client.is_served().await);
    drop(client);
    let client = RawClient::resumed(&cluster, &alice, 1, &token).await;
    assert_eq!(client.session(), session);
    drop(client);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bye_is_for_good() {
    let cluster = cluster().await;
    let alice = cluster.user("alice");
    for gateway in [0, 1] {
        let client = RawClient::fresh(&cluster, &alice, 0).await;
        let token = client.token();
        client.bye().await;
        starts_afresh(&cluster, &alice, gateway, &token, "ended").await;
    }
    cluster.end().await;
}

/// Who knows a session's id and no token of it learns nothing: neither that it lives, nor that it ended, nor that it never was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn made_up_token_of_foreign_session_is_unknown() {
    let cluster = cluster().await;
    let alice = cluster.user("alice");
    let strangers = [
        cluster.user("mallory"),
        on_device(&cluster, "alice", "laptop"),
    ];
    let live = RawClient::fresh(&cluster, &alice, 0).await;
    let ended = RawClient::fresh(&cluster, &alice, 0).await;
    let tokens = [live.token(), ended.token(), "A".repeat(64)];
    ended.bye().await;
    for gateway in [0, 1] {
        for token in &tokens {
            // The session's id stands in the first 16 bytes.
            let id: String = token.chars().take(22).collect();
            let made_up = format!("{id}{}", "A".repeat(42));
            for stranger in &strangers {
                starts_afresh(&cluster, stranger, gateway, &made_up, "unknown").await;
            }
        }
    }
    drop(live);
    cluster.end().await;
}

/// The marker cannot be written while NATS is away; whoever comes at once when it is back finds that the session ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bye_while_nats_is_away_is_for_good() {
    const SESSION_COUNT: usize = 12;
    let mut cluster = cluster().await;
    let alice = cluster.user("alice");
    let mut tokens = Vec::new();
    let mut clients = Vec::new();
    for _ in 0..SESSION_COUNT {
        let client = RawClient::fresh(&cluster, &alice, 0).await;
        tokens.push(client.token());
        clients.push(client);
    }
    cluster.nats.kill().unwrap();
    join_all(clients.into_iter().map(RawClient::bye)).await;
    cluster.nats.up().await.unwrap();
    let coming = tokens.iter().zip([0, 1].into_iter().cycle());
    let coming = coming.map(async |(token, gateway)| {
        let client = eventually("an answer about the token", WAIT_TIMEOUT, async || {
            let client = RawClient::hello(&cluster, &alice, gateway, Some(token)).await;
            (client.welcome["type"] == "welcome").then_some(client)
        })
        .await;
        assert_eq!(client.welcome["resumed"], false, "{}", client.welcome);
        assert_eq!(client.welcome["reason"], "ended", "{}", client.welcome);
    });
    join_all(coming).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_session_cannot_be_resumed() {
    let cluster = cluster().await;
    let alice = cluster.user("alice");
    let other = cluster.user("alice");
    // Once while it is connected, once while it is not.
    for connected in [true, false] {
        let client = RawClient::fresh(&cluster, &alice, 0).await;
        let (session, token) = (client.session(), client.token());
        if connected {
            other
                .http(1)
                .revoke_session(session.parse().unwrap())
                .await
                .unwrap();
            assert_eq!(client.close_code().await, Some(4403));
        } else {
            drop(client);
            other
                .http(1)
                .revoke_session(session.parse().unwrap())
                .await
                .unwrap();
        }
        let refused = RawClient::hello(&cluster, &alice, 1, Some(&token)).await;
        // Its record is written over as ended; until then the revocation itself is found.
        if connected || refused.welcome["reason"] == "ended" {
            assert_eq!(refused.welcome["reason"], "ended", "{}", refused.welcome);
            refused.bye().await;
        } else {
            assert_eq!(
                refused.welcome["code"], "TOKEN_REVOKED",
                "{}",
                refused.welcome
            );
            assert_eq!(refused.close_code().await, Some(4403));
            eventually("it is ended for good", WAIT_TIMEOUT, async || {
                let again = RawClient::hello(&cluster, &alice, 0, Some(&token)).await;
                (again.welcome["reason"] == "ended").then_some(())
            })
            .await;
        }
    }
    cluster.end().await;
}
