//! Real servers and databases, each with one thing wrong.

use confab_protocol::check::CheckStatus;
use confab_stack::free_port;

use super::*;
use crate::testing::{Fixture, is_soak, settings};

fn named<'a>(checks: &'a [Check], name: &str) -> &'a Check {
    let mut found = checks.iter().filter(|check| check.name == name);
    found
        .next()
        .unwrap_or_else(|| panic!("no {name}: {checks:?}"))
}

async fn checked(url: &str) -> Vec<Check> {
    check_database(&settings(url), When::AtWill).await
}

async fn run(fixture: &Fixture, statement: &str) {
    let statement = sqlx::AssertSqlSafe(statement.to_owned());
    sqlx::query(statement).execute(&fixture.pool).await.unwrap();
}

#[tokio::test]
async fn usable_database_fails_nothing() {
    let fixture = Fixture::new().await;
    let checks = checked(&fixture.url).await;
    let failed: Vec<_> = checks
        .iter()
        .filter(|check| check.status == CheckStatus::Fail)
        .collect();
    assert!(failed.is_empty(), "{failed:?}");
    for name in [
        "postgres",
        "postgres.pooler",
        "postgres.primary",
        "postgres.settings",
        "postgres.migrations",
        "postgres.privileges",
        "postgres.connections",
        "postgres.outbox",
        "postgres.clock",
    ] {
        named(&checks, name);
    }
}

#[tokio::test]
async fn each_refusal_to_connect_has_its_remedy() {
    let fixture = Fixture::new().await;
    let (server, database) = fixture.url.rsplit_once('/').unwrap();
    let (_, host) = server.rsplit_once('@').unwrap();
    let nowhere = format!("postgres://u:hidden@127.0.0.1:{}/d", free_port().unwrap());
    for (url, cause, remedy) in [
        (nowhere, "refused (os error 111)", "start Postgres"),
        (
            format!("{server}/absent"),
            "does not exist",
            "CREATE DATABASE",
        ),
        (
            format!("postgres://confab:hidden@{host}/{database}"),
            "password authentication failed",
            "correct user and password",
        ),
        ("postgres://[".to_owned(), "", "write it as postgres://"),
    ] {
        let checks = checked(&url).await;
        let [check] = checks.as_slice() else {
            panic!("{checks:?}");
        };
        assert_eq!(check.status, CheckStatus::Fail);
        assert!(check.cause().contains(cause), "{check:?}");
        assert!(check.remedy.as_ref().unwrap().contains(remedy), "{check:?}");
        assert!(!format!("{check:?}").contains("hidden"), "{check:?}");
    }
}

#[tokio::test]
async fn schema_of_another_version_is_told() {
    let fixture = Fixture::new().await;
    let migrations = async || {
        let checks = checked(&fixture.url).await;
        named(&checks, "postgres.migrations").clone()
    };
    run(
        &fixture,
        "insert into _sqlx_migrations values (9999, 'later', now(), true, '\\x00', 1)",
    )
    .await;
    let newer = migrations().await;
    assert_eq!(newer.status, CheckStatus::Warn);
    assert!(newer.found.contains("newer (9999)"), "{newer:?}");
    run(
        &fixture,
        "delete from _sqlx_migrations where version in (12, 9999)",
    )
    .await;
    let older = migrations().await;
    assert_eq!(older.status, CheckStatus::Fail);
    assert!(older.found.contains("migration 12 of"), "{older:?}");
    assert!(older.remedy.unwrap().contains("confab migrate"));
    run(
        &fixture,
        "update _sqlx_migrations set checksum = '\\x00' where version = 3",
    )
    .await;
    let foreign = migrations().await;
    assert!(
        foreign.found.contains("migration 3 of the database is not"),
        "{foreign:?}"
    );
    run(&fixture, "drop table _sqlx_migrations").await;
    let never = migrations().await;
    assert_eq!(never.found, "the database was never migrated");
}

#[tokio::test]
async fn settings_that_break_promises_are_told() {
    let fixture = Fixture::new().await;
    let (_, database) = fixture.url.rsplit_once('/').unwrap();
    run(
        &fixture,
        &format!("alter database {database} set default_transaction_isolation = 'repeatable read'"),
    )
    .await;
    let checks = checked(&fixture.url).await;
    let check = named(&checks, "postgres.settings");
    assert_eq!(check.status, CheckStatus::Fail);
    assert!(check.remedy.as_ref().unwrap().contains("'read committed'"));
    run(
        &fixture,
        &format!("alter database {database} set default_transaction_read_only = on"),
    )
    .await;
    let checks = checked(&fixture.url).await;
    let check = named(&checks, "postgres.primary");
    assert!(check.found.contains("read-only"), "{check:?}");
}

#[tokio::test]
async fn limited_role_is_told_what_it_lacks() {
    let fixture = Fixture::new().await;
    let role = format!("limited_{}", uuid::Uuid::now_v7().simple());
    run(
        &fixture,
        &format!("create role {role} login password 'p' connection limit 5"),
    )
    .await;
    let (_, host) = fixture.url.rsplit_once('@').unwrap();
    let checks = checked(&format!("postgres://{role}:p@{host}")).await;
    // It may not read the table of migrations, which is the first that it lacks.
    let lacks = checks
        .iter()
        .find(|check| check.status == CheckStatus::Fail)
        .unwrap();
    assert!(lacks.cause().contains("permission denied"), "{lacks:?}");
    run(
        &fixture,
        &format!("grant select on all tables in schema public to {role}"),
    )
    .await;
    let checks = checked(&format!("postgres://{role}:p@{host}")).await;
    let check = named(&checks, "postgres.privileges");
    assert!(
        check
            .found
            .ends_with("conversations, participants, events, outbox"),
        "{check:?}"
    );
    let check = named(&checks, "postgres.connections");
    assert_eq!(check.status, CheckStatus::Warn);
    assert!(check.found.contains("are left"), "{check:?}");
}

#[tokio::test]
async fn events_that_are_not_published_are_told() {
    let fixture = Fixture::new().await;
    run(
        &fixture,
        "insert into outbox (created_at, conversation_ids, seqs) values (now() - interval '40 s', '{}', '{}')",
    )
    .await;
    let checks = checked(&fixture.url).await;
    let check = named(&checks, "postgres.outbox");
    assert_eq!(check.status, CheckStatus::Fail);
    assert!(check.found.contains("committed 40 s ago"), "{check:?}");
    assert!(
        check
            .remedy
            .as_ref()
            .unwrap()
            .contains("restart nats-server")
    );
}

#[tokio::test]
async fn events_that_are_stepped_over_are_told_apart() {
    let fixture = Fixture::new().await;
    run(
        &fixture,
        "insert into outbox (created_at, conversation_ids, seqs, attempts) values (now() - interval '40 s', '{}', '{}', 3)",
    )
    .await;
    let checks = checked(&fixture.url).await;
    let check = named(&checks, "postgres.outbox");
    assert_eq!(check.status, CheckStatus::Warn, "{check:?}");
    let remedy = check.remedy.as_ref().unwrap();
    assert!(
        remedy.contains("max_msg_size") && !remedy.contains("restart"),
        "{check:?}"
    );
}

/// Two seconds; beside other tests longer.
fn told_time() -> Duration {
    Duration::from_secs(if is_soak() { 2 } else { 20 })
}

/// A server that takes connections and says nothing.
#[tokio::test]
async fn silent_server_is_told_within_two_seconds() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://u@{}/d", silent.local_addr().unwrap());
    let began = Instant::now();
    let checks = check_database(&settings(&url), When::Start).await;
    assert!(began.elapsed() < told_time(), "{:?}", began.elapsed());
    assert!(checks[0].found.contains("does not answer"), "{checks:?}");
}

/// A server whose answers are held up by another's lock.
#[tokio::test]
async fn late_answer_is_told_within_two_seconds() {
    let fixture = Fixture::new().await;
    let mut other = fixture.pool.begin().await.unwrap();
    let lock = "lock table _sqlx_migrations in access exclusive mode";
    sqlx::query(lock).execute(&mut *other).await.unwrap();
    let began = Instant::now();
    let checks = check_database(&settings(&fixture.url), When::Start).await;
    assert!(began.elapsed() < told_time(), "{:?}", began.elapsed());
    assert!(checks[0].found.contains("does not answer"), "{checks:?}");
    other.rollback().await.unwrap();
}
