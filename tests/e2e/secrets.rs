//! Secrets are replaced without restarting a process.

use std::path::Path;
use std::time::Duration;

use confab_client::{NewConversation, NewMessage};
use confab_protocol::error::Code;
use confab_protocol::ids::ClientId;
use confab_protocol::resource::ConversationType;
use confab_stack::Service;
use uuid::Uuid;

use crate::support::{Cluster, DatabaseRole, Folder, Key, Setup, claims, eventually, text};
use crate::tokens::over_http;

/// How long what was replaced may take to be in use, on a machine that runs other tests.
const WAIT_TIMEOUT: Duration = Duration::from_secs(30);

/// Replaces a secret as a whole, as those who hand secrets out do.
fn replace(path: &Path, secret: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, format!("{secret}\n")).unwrap();
    std::fs::rename(new, path).unwrap();
}

fn log(service: &Service) -> String {
    std::fs::read_to_string(service.process().log()).unwrap()
}

/// How often a process has told that a condition fails, and that it holds again.
fn told(service: &Service, condition: &str) -> [usize; 2] {
    let (log, condition) = (log(service), format!("\"condition\":\"{condition}\""));
    ["\"level\":\"WARN\"", "\"level\":\"INFO\""].map(|level| {
        let lines = log.lines();
        lines
            .filter(|line| line.contains(level) && line.contains(&condition))
            .count()
    })
}

/// Two users who come anew talk with each other, sooner or later.
async fn new_users_talk(cluster: &Cluster) {
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let (alice, bob) = (alice.on(0).await, bob.on(0).await);
    let group = NewConversation {
        r#type: ConversationType::Group,
        participants: vec![bob.id.clone()],
        metadata: None,
    };
    let conversation = eventually("a conversation begins", WAIT_TIMEOUT, async || {
        let created = alice.http.create_conversation(&group, None).await;
        Some(created.ok()?.answer.conversation.id)
    })
    .await;
    let words = NewMessage {
        conversation_id: conversation,
        client_id: Some(ClientId(Uuid::now_v7())),
        body: text("hello"),
    };
    let seq = eventually("a message is taken", WAIT_TIMEOUT, async || {
        Some(alice.http.send_message(&words).await.ok()?.answer.seq)
    })
    .await;
    bob.hears(conversation, seq, WAIT_TIMEOUT).await;
}

/// The only user of NATS from now on.
fn nats_user(password: &str) -> String {
    format!("authorization {{ user: confab, password: \"{password}\" }}\n")
}

fn both(cluster: &Cluster) -> [&Service; 2] {
    [&cluster.gateways[0], &cluster.workers[0]]
}

/// How often each process was let in by NATS.
fn connections(cluster: &Cluster) -> [usize; 2] {
    both(cluster).map(|role| {
        log(role)
            .matches("\"message\":\"connected to NATS\"")
            .count()
    })
}

async fn connected_again(cluster: &Cluster, before: [usize; 2]) {
    eventually("both are let in again", WAIT_TIMEOUT, async || {
        let now = connections(cluster);
        (0..2).all(|role| now[role] > before[role]).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replaced_nats_password_needs_no_restart() {
    let folder = Folder::of_test();
    let path = folder.path().join("password");
    replace(&path, "first");
    let env = vec![
        ("CONFAB_NATS_USER", Some("confab".to_owned())),
        (
            "CONFAB_NATS_PASSWORD_FILE",
            Some(path.display().to_string()),
        ),
    ];
    let mut cluster = Cluster::start(Setup {
        gateways: 1,
        workers: 1,
        gateway_env: env.clone(),
        worker_env: env,
        nats_config: nats_user("first"),
        ..Setup::default()
    })
    .await;
    new_users_talk(&cluster).await;

    // The file before the server: it is let in at once.
    let before = connections(&cluster);
    replace(&path, "second");
    cluster.reconfigure_nats(&nats_user("second"));
    connected_again(&cluster, before).await;
    cluster.ready().await;
    new_users_talk(&cluster).await;

    // The server before the file: while they differ each says so, once.
    let before = connections(&cluster);
    let said = both(&cluster).map(|role| told(role, "nats"));
    cluster.reconfigure_nats(&nats_user("third"));
    for (role, [warnings, _]) in both(&cluster).into_iter().zip(said) {
        eventually("the refusal is told", WAIT_TIMEOUT, async || {
            (told(role, "nats")[0] > warnings).then_some(())
        })
        .await;
    }
    replace(&path, "third");
    connected_again(&cluster, before).await;
    cluster.ready().await;
    new_users_talk(&cluster).await;
    for (role, said) in both(&cluster).into_iter().zip(said) {
        assert_eq!(told(role, "nats"), said.map(|count| count + 1));
        assert!(!log(role).contains("third"), "a secret is in the log");
    }
    cluster.end().await;
}

/// What Postgres says to a wrong password.
const PASSWORD_REFUSAL: &str = "password authentication failed";

/// As often as the worker told that Postgres is away, it told that it is there again.
async fn level(cluster: &Cluster) {
    eventually("the end is told", WAIT_TIMEOUT, async || {
        let [warnings, ends] = told(&cluster.workers[0], "postgres");
        (warnings == ends).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replaced_postgres_password_needs_no_restart() {
    let folder = Folder::of_test();
    let path = folder.path().join("password");
    replace(&path, "first");
    let mut cluster = Cluster::start(Setup {
        gateways: 1,
        workers: 1,
        ..Setup::default()
    })
    .await;
    let role = DatabaseRole::new(&cluster, "superuser password 'first'").await;
    let worker = cluster.begin_worker(&[
        ("CONFAB_DATABASE_URL", Some(role.url(&cluster, ""))),
        (
            "CONFAB_DATABASE_PASSWORD_FILE",
            Some(path.display().to_string()),
        ),
    ]);
    cluster.ready().await;
    cluster.workers[0].process_mut().kill().unwrap();
    cluster.workers.swap(0, worker);
    let killed = cluster.workers.pop();
    new_users_talk(&cluster).await;

    // The file before the server: it is let in at once.
    replace(&path, "second");
    role.takes(&cluster, "second").await;
    new_users_talk(&cluster).await;
    cluster.ready().await;
    assert!(!log(&cluster.workers[0]).contains(PASSWORD_REFUSAL));
    level(&cluster).await;

    // The server before the file: while they differ the worker says so, once.
    let said = told(&cluster.workers[0], "postgres");
    role.takes(&cluster, "third").await;
    eventually("the refusal is told", WAIT_TIMEOUT, async || {
        log(&cluster.workers[0])
            .contains(PASSWORD_REFUSAL)
            .then_some(())
    })
    .await;
    replace(&path, "third");
    new_users_talk(&cluster).await;
    cluster.ready().await;
    level(&cluster).await;
    let now = told(&cluster.workers[0], "postgres");
    assert_eq!(now, said.map(|count| count + 1));
    let log = log(&cluster.workers[0]);
    for secret in ["second", "third"] {
        assert!(!log.contains(secret), "a secret is in the log");
    }
    drop(killed);
    cluster.workers[0].process_mut().kill().unwrap();
    role.end(&cluster).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replaced_public_key_needs_no_restart() {
    let folder = Folder::of_test();
    let path = folder.path().join("key.pem");
    let (old, new) = (Key::es256("old"), Key::es256("new"));
    replace(&path, &old.public_pem());
    let cluster = Cluster::start(Setup {
        gateways: 1,
        workers: 1,
        gateway_env: vec![("CONFAB_JWT_PUBLIC_KEY", Some(path.display().to_string()))],
        ..Setup::default()
    })
    .await;
    let url = cluster.gateways[0].url();
    let (old, new) = (old.token(&claims("alice")), {
        let token = new.token(&claims("alice"));
        assert_eq!(over_http(&url, &token).await, Some(Code::InvalidToken));
        replace(&path, &new.public_pem());
        token
    });
    eventually("the new key is in use", WAIT_TIMEOUT, async || {
        over_http(&url, &new).await.is_none().then_some(())
    })
    .await;
    assert_eq!(over_http(&url, &old).await, Some(Code::InvalidToken));
    cluster.end().await;
}
