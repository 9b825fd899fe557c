//! Commands name the server that they connect to, and fail soon when it is unreachable.

use std::time::{Duration, Instant};

use confab_stack::free_port;
use serde_json::Value;
use sqlx::{Connection as _, Executor as _, PgConnection};
use uuid::Uuid;

use super::{TOLD_DEADLINE, begin, run};
use crate::support::{Database, Folder, eventually};

/// Five seconds, and what starting a process takes on a machine that runs other tests.
const GIVEN_UP: Duration = Duration::from_secs(8);

#[tokio::test]
async fn send_and_listen_give_up_soon() {
    let url = format!("http://127.0.0.1:{}", free_port().unwrap());
    let conversation = Uuid::now_v7().to_string();
    let env = vec![
        ("CONFAB_URL", url.clone()),
        ("CONFAB_TOKEN", "hidden".to_owned()),
    ];
    for args in [
        &["send", "--conversation", &conversation, "hello"][..],
        &["listen"],
    ] {
        let began = Instant::now();
        let output = run(args, &env).await;
        assert!(began.elapsed() < GIVEN_UP, "{:?}", began.elapsed());
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8(output.stderr).unwrap();
        for words in [
            format!("connecting to {url}\n").as_str(),
            "Connection refused (os error 111)",
            "CONFAB_URL",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
        assert!(!text.contains("hidden"), "{text}");
    }
}

#[tokio::test]
async fn migrate_says_at_once_why_it_cannot() {
    let port = free_port().unwrap();
    let url = format!("postgres://confab:hidden@127.0.0.1:{port}/d");
    let began = Instant::now();
    let output = run(&["migrate"], &vec![("CONFAB_DATABASE_URL", url)]).await;
    assert!(began.elapsed() < GIVEN_UP, "{:?}", began.elapsed());
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    let address = format!("127.0.0.1:{port}/d");
    for words in [
        &address,
        "Connection refused (os error 111)",
        "start Postgres",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(!text.contains("hidden"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn migrate_says_whom_it_waits_for() {
    let folder = Folder::of_test();
    let mut database = Database::shared().await;
    let mut other = PgConnection::connect(&database.url).await.unwrap();
    other
        .execute("set application_name = 'the other one'")
        .await
        .unwrap();
    other.execute("begin").await.unwrap();
    other
        .execute("lock table _sqlx_migrations in access exclusive mode")
        .await
        .unwrap();
    let env = vec![("CONFAB_DATABASE_URL", database.url.clone())];
    let mut migrate = begin("migrate", &env, folder.path());
    eventually("the migration tells", TOLD_DEADLINE, async || {
        let log = std::fs::read_to_string(migrate.log()).unwrap();
        log.contains("the other one").then_some(())
    })
    .await;
    other.execute("rollback").await.unwrap();
    other.close().await.unwrap();
    assert!(migrate.wait(TOLD_DEADLINE).await.unwrap().success());
    database.end().await;
}

#[tokio::test]
async fn unreadable_variable_is_told_as_json_too() {
    let env = vec![
        ("CONFAB_DATABASE_URL", "postgres://u:hidden@h/d".to_owned()),
        ("CONFAB_LISTEN", "nowhere".to_owned()),
    ];
    let output = run(&["doctor", "--json"], &env).await;
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["ok"], false);
    let check = &json["roles"][0]["checks"][0];
    assert_eq!(check["name"], "settings", "{json:#}");
    assert!(
        check["causes"][0].as_str().unwrap().contains("--listen"),
        "{json:#}"
    );
    assert!(!text.contains("hidden"), "{text}");
}
