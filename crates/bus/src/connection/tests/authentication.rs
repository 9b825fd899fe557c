//! Each way of authentication, at a server that requires it.

use nkeys::KeyPair;

use super::accounts::Operator;
use super::*;

const USERS_CONFIG: &str =
    "authorization { users: [{ user: \"gate way\", password: \"p@ss:w/rd\" }] }\n";
const TOKEN_CONFIG: &str = "authorization { token: \"s3cr3t/t0ken\" }\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn user_and_password_are_taken_from_settings() {
    let server = Strict::start(USERS_CONFIG).await;
    server.refuses(&server.settings(), REFUSED_LINE).await;
    let mut settings = server.settings();
    settings.auth.nats_user = Some("gate way".to_owned());
    settings.auth.nats_password = Some("p@ss:w/rd".to_owned());
    server.takes(&settings).await;
    settings.auth.nats_password = Some("wrong".to_owned());
    server.refuses(&settings, REFUSED_LINE).await;
    settings.auth.nats_password = None;
    settings.auth.nats_password_file = Some(server.write("password", "p@ss:w/rd\n"));
    server.takes(&settings).await;
    settings.auth.nats_user = None;
    settings.auth.nats_user_file = Some(server.write("user", "gate way"));
    server.takes(&settings).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn user_and_password_are_taken_from_url() {
    let server = Strict::start(USERS_CONFIG).await;
    server
        .takes(&server.settings_with("gate%20way:p%40ss%3Aw%2Frd"))
        .await;
    server
        .refuses(&server.settings_with("gate%20way:wrong"), REFUSED_LINE)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn token_is_taken_from_settings_file_and_url() {
    let server = Strict::start(TOKEN_CONFIG).await;
    server.refuses(&server.settings(), REFUSED_LINE).await;
    server.takes(&server.settings_with("s3cr3t%2Ft0ken")).await;
    let mut settings = server.settings();
    settings.auth.nats_token = Some("s3cr3t/t0ken".to_owned());
    server.takes(&settings).await;
    settings.auth.nats_token = None;
    settings.auth.nats_token_file = Some(server.write("token", "s3cr3t/t0ken\n"));
    server.takes(&settings).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nkey_seed_file_answers_the_challenge() {
    let (pair, other) = (KeyPair::new_user(), KeyPair::new_user());
    let users = format!(
        "authorization {{ users: [{{ nkey: {} }}] }}\n",
        pair.public_key()
    );
    let server = Strict::start(&users).await;
    let mut settings = server.settings();
    server.refuses(&settings, REFUSED_LINE).await;
    settings.auth.nats_nkey = Some(server.write("seed", &pair.seed().unwrap()));
    server.takes(&settings).await;
    settings.auth.nats_nkey = Some(server.write("other", &other.seed().unwrap()));
    server.refuses(&settings, REFUSED_LINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_file_answers_the_challenge() {
    let operator = Operator::new();
    let server = Strict::start(&operator.config()).await;
    let mut settings = server.settings();
    server.refuses(&settings, REFUSED_LINE).await;
    let credentials = operator.credentials(Duration::from_secs(600));
    settings.auth.nats_credentials = Some(server.write("gateway.creds", &credentials));
    server.takes(&settings).await;
    let foreign = Operator::new().credentials(Duration::from_secs(600));
    settings.auth.nats_credentials = Some(server.write("foreign.creds", &foreign));
    server.refuses(&settings, REFUSED_LINE).await;
}

/// The error of settings that cannot be run with.
async fn error(change: impl FnOnce(&mut Settings)) -> String {
    let mut settings = Settings::of_server("nats://127.0.0.1:1".to_owned());
    change(&mut settings);
    Bus::connect(&settings, "test")
        .await
        .unwrap_err()
        .to_string()
}

#[tokio::test]
async fn settings_that_contradict_themselves_are_refused() {
    let two = error(|settings| {
        settings.auth.nats_token = Some("t".to_owned());
        settings.nats_url = vec!["nats://ann:secret@127.0.0.1:1".to_owned()];
    });
    let two = two.await;
    assert!(two.contains("one way of authentication"), "{two}");
    assert!(!two.contains("secret"), "{two}");
    let other = error(|settings| {
        settings.nats_url = vec!["nats://a:b@h1".to_owned(), "nats://c:d@h2".to_owned()];
    });
    let other = other.await;
    assert!(other.contains("the same user"), "{other}");
    let half = error(|settings| settings.auth.nats_user = Some("ann".to_owned())).await;
    assert!(half.contains("need each other"), "{half}");
    let both = error(|settings| {
        settings.auth.nats_token = Some("t".to_owned());
        settings.auth.nats_token_file = Some("/t".into());
    });
    let both = both.await;
    assert!(both.contains("CONFAB_NATS_TOKEN_FILE"), "{both}");
    for url in ["ws://h", "http://h", "nats://:p@h", "nats://"] {
        let refused = error(|settings| settings.nats_url = vec![url.to_owned()]).await;
        assert!(refused.contains("CONFAB_NATS_URL"), "{url}: {refused}");
    }
}

#[tokio::test]
async fn unusable_files_are_named_at_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    let missing = error(|settings| settings.auth.nats_token_file = Some(path.clone())).await;
    assert!(missing.contains("secret"), "{missing}");
    let missing = error(|settings| settings.tls.nats_tls_ca = Some(path.clone())).await;
    assert!(missing.contains("secret"), "{missing}");
    std::fs::write(&path, "\n").unwrap();
    let empty = error(|settings| settings.auth.nats_token_file = Some(path.clone())).await;
    assert!(empty.contains("is empty"), "{empty}");
    std::fs::write(&path, "hush").unwrap();
    for what in ["nkey", "credentials"] {
        let malformed = error(|settings| match what {
            "nkey" => settings.auth.nats_nkey = Some(path.clone()),
            _ => settings.auth.nats_credentials = Some(path.clone()),
        });
        let malformed = malformed.await;
        assert!(malformed.contains("is not"), "{malformed}");
        assert!(!malformed.contains("hush"), "{malformed}");
    }
}
