//! Tests of the test support itself.

use std::panic::AssertUnwindSafe;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
    VerificationAlgorithm,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use futures_util::FutureExt as _;
use serde_json::Value;

use crate::support::{Cluster, Jwks, Key, Owed, Setup, assert_log, claims, hs256, jwks, unsigned};

#[test]
fn tokens_are_signed_by_published_pem_key() {
    let cases: [(Key, &'static dyn VerificationAlgorithm); 3] = [
        (Key::es256("a"), &ECDSA_P256_SHA256_FIXED),
        (Key::rs256("b"), &RSA_PKCS1_2048_8192_SHA256),
        (Key::eddsa("c"), &ED25519),
    ];
    for (key, algorithm) in cases {
        let token = key.token(&claims("alice"));
        let (text, signature) = token.rsplit_once('.').unwrap();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        let pem = key.public_pem();
        let der: String = pem.lines().filter(|line| !line.starts_with("--")).collect();
        let public = UnparsedPublicKey::new(algorithm, STANDARD.decode(der).unwrap());
        public.verify(text.as_bytes(), &signature).unwrap();
        assert_eq!(key.jwk()["kid"], key.id.as_str());
    }
}

#[test]
fn forged_tokens_have_three_parts_too() {
    let forged = [unsigned(&claims("eve")), hs256(b"pem", "a", &claims("eve"))];
    for token in forged {
        assert_eq!(token.split('.').count(), 3);
    }
}

#[tokio::test]
async fn key_set_is_served_changed_and_removed() {
    let keys = [Key::es256("a"), Key::rs256("b"), Key::eddsa("c")];
    let mut server = Jwks::start(jwks(&keys)).await;
    let body = reqwest::get(&server.url)
        .await
        .unwrap()
        .bytes()
        .await
        .unwrap();
    let set: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(set["keys"].as_array().unwrap().len(), 3);

    server.set(500, String::new());
    assert_eq!(reqwest::get(&server.url).await.unwrap().status(), 500);
    assert_eq!(server.fetches(), 2);

    server.down().await;
    assert!(reqwest::get(&server.url).await.is_err());
    server.up().await;
    assert!(reqwest::get(&server.url).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn oracle_notices_extra_changed_and_missing_events() {
    let setup = Setup {
        gateways: 1,
        workers: 1,
        ..Setup::default()
    };
    let cluster = Cluster::start(setup).await;
    let alice = cluster.user("alice").on(0).await;
    let conversation = alice.create_group(std::slice::from_ref(&alice.id)).await;
    let last = alice.say(conversation, "hello").await;
    let is_content = async |from| {
        let owed = [Owed {
            from,
            ..Owed::all(&alice)
        }];
        let asked = AssertUnwindSafe(assert_log(&cluster, conversation, &owed));
        asked.catch_unwind().await.is_ok()
    };
    assert!(is_content(1).await);
    assert!(!is_content(2).await, "heard before the joining");
    let change = async |statement: &'static str| {
        let seq = i64::try_from(last).unwrap();
        let changed = sqlx::query(statement).bind(seq).execute(&cluster.store);
        assert_eq!(changed.await.unwrap().rows_affected(), 1);
    };
    change("update events set payload = replace(payload, 'hello', 'jello') where seq = $1").await;
    assert!(!is_content(1).await, "a message changed");
    change("update events set payload = replace(payload, 'jello', 'hello') where seq = $1").await;
    assert!(is_content(1).await);
    change("delete from events where seq = $1 - 1").await;
    assert!(!is_content(1).await, "an event is missing");
    drop(alice);
    cluster.end().await;
}
