//! `confab token --check -` says what a gateway would, and never prints the token.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use super::changed;
use crate::support::{Jwks, Key, TOKEN_AUDIENCE, TOKEN_ISSUER, jwks};

fn checked(token: &str, settings: &[&str]) -> (Output, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_confab"));
    command.args(["token", "--check", "-"]).args(settings);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    writeln!(stdin, "Bearer {token}").unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let text = [output.stdout.clone(), output.stderr.clone()].concat();
    let text = String::from_utf8(text).unwrap();
    for part in token.split('.') {
        assert!(!text.contains(part), "{text}");
    }
    (output, text)
}

fn token(key: &Key, change: &Value) -> String {
    key.token(&changed(change))
}

#[test]
fn check_explains_good_and_refused_tokens() {
    let key = Key::es256("a");
    let pem = key.public_pem();
    let base = [
        "--jwt-public-key",
        &pem,
        "--jwt-issuer",
        TOKEN_ISSUER,
        "--jwt-audience",
        TOKEN_AUDIENCE,
    ];
    let tenant = [
        &base[..],
        &["--jwt-tenant-claim", "/org/id", "--jwt-tenants", "acme"],
    ]
    .concat();

    let good = token(
        &key,
        &json!({"org": {"id": "acme"}, "email": "eve@example.com"}),
    );
    let (output, text) = checked(&good, &tenant);
    assert!(output.status.success(), "{text}");
    for line in [
        "ok     tenant    acme, from /org/id",
        "ok     user      eve, from sub",
        "ok     scope     may read, write, from scope, scp, roles, permissions",
        "accepted: the user eve of the tenant acme",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert!(
        text.contains("email") && !text.contains("eve@example.com"),
        "{text}"
    );

    let wrong = token(&key, &json!({"org": {"id": "globex"}, "aud": "other"}));
    let (output, text) = checked(&wrong, &tenant);
    assert!(!output.status.success(), "{text}");
    for words in [
        "WRONG  audience",
        "--jwt-audience",
        "WRONG  tenant",
        "--jwt-tenants",
        "INVALID_TOKEN",
    ] {
        assert!(text.contains(words), "{words}\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_fetches_key_sets_and_tells_failures() {
    let key = Key::es256("a");
    let mut server = Jwks::start(jwks([&key])).await;
    let url = server.url.clone();
    let good = token(&key, &json!({}));
    let stranger = token(&Key::es256("b"), &json!({}));
    let check = async |token: &str| {
        let (token, url) = (token.to_owned(), url.clone());
        let checking = tokio::task::spawn_blocking(move || {
            let base = [
                "--jwt-issuer",
                TOKEN_ISSUER,
                "--jwt-audience",
                TOKEN_AUDIENCE,
                "--single-tenant",
            ];
            checked(&token, &[&["--jwt-jwks-url", &url][..], &base].concat())
        });
        checking.await.unwrap()
    };
    let (output, text) = check(&good).await;
    assert!(output.status.success(), "{text}");
    assert!(text.contains("keys of the issuer: 1"), "{text}");
    let (output, text) = check(&stranger).await;
    assert!(
        !output.status.success() && text.contains("unknown kid"),
        "{text}"
    );
    server.down().await;
    let (output, text) = check(&good).await;
    assert!(
        !output.status.success() && text.contains("no key set was loaded"),
        "{text}"
    );
    assert!(text.contains("the key set could not be fetched"), "{text}");
}

#[test]
fn check_without_settings_names_what_is_missing() {
    let key = Key::es256("a");
    let folder = crate::support::Folder::of_test();
    let data = folder.path().display().to_string();
    let (output, text) = checked(&token(&key, &json!({})), &["--data-dir", &data]);
    assert!(
        !output.status.success() && text.contains("CONFAB_JWT_"),
        "{text}"
    );
}
