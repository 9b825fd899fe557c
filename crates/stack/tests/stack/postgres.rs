use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use confab_stack::{Durability, Error, PostgresSettings, free_port};

use crate::support::{TEST_TIMEOUT, lives, programs, start_postgres, start_postgres_with, state};

#[tokio::test]
async fn commits_outlive_a_kill_and_the_url_stays() {
    for durability in [Durability::Disk, Durability::Processes] {
        let folder = tempfile::tempdir().unwrap();
        let postgres = start_postgres_with(folder.path(), durability);
        let mut postgres = postgres.await.unwrap();
        let url = postgres.database("kept").await.unwrap();
        let again = postgres.database("kept").await.unwrap();
        assert_eq!(again, url, "a second time it is there already");
        let table = "CREATE TABLE t (n int); INSERT INTO t VALUES (41), (42)";
        postgres.sql("kept", table).await.unwrap();
        for _ in 0..3 {
            let before = postgres.process().unwrap().id();
            postgres.restart().await.unwrap();
            assert!(!lives(before));
            let rows = postgres.sql("kept", "SELECT n FROM t ORDER BY n").await;
            assert_eq!(rows.unwrap(), "41\n42");
        }
        assert_eq!(postgres.database("kept").await.unwrap(), url);
    }
}

#[tokio::test]
async fn second_start_finds_data_in_root_only_folder() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let mut postgres = start_postgres(folder.path()).await.unwrap();
    postgres.sql("postgres", "CREATE TABLE t ()").await.unwrap();
    postgres.stop(TEST_TIMEOUT).await.unwrap();
    drop(postgres);
    let postgres = start_postgres(folder.path()).await.unwrap();
    assert_eq!(
        postgres
            .sql("postgres", "SELECT count(*) FROM t")
            .await
            .unwrap(),
        "0"
    );
}

#[tokio::test]
async fn password_is_required_and_commits_are_durable() {
    let folder = tempfile::tempdir().unwrap();
    let postgres = start_postgres_with(folder.path(), Durability::Disk);
    let postgres = postgres.await.unwrap();
    let methods = postgres
        .sql(
            "postgres",
            "SELECT DISTINCT auth_method FROM pg_hba_file_rules",
        )
        .await
        .unwrap();
    assert_eq!(methods, "scram-sha-256");
    let password = folder.path().join("postgres/password");
    assert_eq!(
        std::fs::metadata(password).unwrap().permissions().mode() & 0o777,
        0o600
    );
    for (setting, value) in [
        ("fsync", "on"),
        ("full_page_writes", "on"),
        ("synchronous_commit", "on"),
        ("listen_addresses", "127.0.0.1"),
    ] {
        assert_eq!(
            postgres
                .sql("postgres", &format!("SHOW {setting}"))
                .await
                .unwrap(),
            value
        );
    }
}

#[tokio::test]
async fn paused_server_answers_nobody_until_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let mut postgres = start_postgres(folder.path()).await.unwrap();
    postgres.pause().unwrap();
    let asked = tokio::time::timeout(
        Duration::from_millis(300),
        postgres.sql("postgres", "SELECT 1"),
    )
    .await;
    assert!(asked.is_err());
    postgres.resume().unwrap();
    assert_eq!(postgres.sql("postgres", "SELECT 1").await.unwrap(), "1");
    let pid = postgres.process().unwrap().id();
    postgres.pause().unwrap();
    drop(postgres);
    assert_eq!(state(pid), None);
}

#[tokio::test]
async fn refused_statement_is_error_with_postgres_text() {
    let folder = tempfile::tempdir().unwrap();
    let postgres = start_postgres(folder.path()).await.unwrap();
    let error = postgres.sql("postgres", "SELECT 1/0").await.unwrap_err();
    assert!(error.to_string().contains("division by zero"), "{error}");
    for name in ["", "Robert'); --", "a-b"] {
        assert!(
            matches!(postgres.database(name).await, Err(Error::Misuse(_))),
            "{name}"
        );
    }
}

#[tokio::test]
async fn promoted_standby_has_every_commit_and_takes_writes() {
    let folder = tempfile::tempdir().unwrap();
    let mut primary = start_postgres(folder.path()).await.unwrap();
    let settings = PostgresSettings {
        folder: folder.path().join("standby"),
        port: free_port().unwrap(),
        durability: Durability::Processes,
    };
    let programs = programs().unwrap();
    let mut standby = primary.standby(&programs, settings).await.unwrap();
    primary.commit_on_standby().await.unwrap();
    let table = "CREATE TABLE t AS SELECT 41 AS n";
    primary.sql("postgres", table).await.unwrap();
    primary.kill().unwrap();
    let insert = "INSERT INTO t VALUES (42)";
    let refused = standby.sql("postgres", insert).await;
    assert!(matches!(refused, Err(Error::Failed { .. })), "{refused:?}");
    standby.promote().await.unwrap();
    standby.sql("postgres", insert).await.unwrap();
    let all = standby.sql("postgres", "SELECT n FROM t ORDER BY n");
    assert_eq!(all.await.unwrap(), "41\n42");
    standby.stop(TEST_TIMEOUT).await.unwrap();
}
