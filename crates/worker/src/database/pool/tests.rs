//! What becomes of connections that fall silent, are dropped, or lead to a server that cannot write.

use std::net::{Ipv4Addr, SocketAddr};

use confab_protocol::query::{History, Query};
use confab_stack::{Proxy, Traffic};
use futures_util::future::join_all;
use sqlx::postgres::PgConnectOptions;
use tokio::net::TcpListener;

use super::*;
use crate::reads;
use crate::settings::DatabaseSettings;
use crate::testing::{Fixture, caller, eventually, message, sent};

const PATIENCE: Duration = Duration::from_secs(20);

async fn backend(connection: &mut PgConnection) -> i32 {
    let pid = sqlx::query_scalar("select pg_backend_pid()");
    pid.fetch_one(connection).await.unwrap()
}

/// A pool whose way to Postgres can be held and cut.
async fn behind_proxy(fixture: &Fixture, size: u32) -> (Pool, Proxy) {
    let options = PgConnectOptions::clone(&fixture.pool.connect_options());
    let target = SocketAddr::from((Ipv4Addr::LOCALHOST, options.get_port()));
    let proxy = Proxy::start(target).await.unwrap();
    let options = options.port(proxy.port());
    (Pool::new(options, size, PATIENCE), proxy)
}

#[tokio::test]
async fn released_connection_is_used_again_until_closed() {
    let fixture = Fixture::new().await;
    let pool = &fixture.connections;
    let (mut one, mut other) = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
    let first = backend(&mut one).await;
    assert_ne!(first, backend(&mut other).await);
    one.release();
    let mut again = pool.acquire().await.unwrap();
    assert_eq!(backend(&mut again).await, first);
    again.release();

    // One is idle, one in use until the pool is closed.
    let closing = timeout(PATIENCE, pool.close());
    let using = async {
        assert!(matches!(
            pool.try_acquire().await,
            Err(AcquireError::Closed)
        ));
        other.release();
    };
    let (closed, ()) = tokio::join!(closing, using);
    closed.unwrap();
    assert!(pool.0.idle().is_empty());
}

#[tokio::test]
async fn old_or_long_idle_connection_is_closed() {
    let fixture = Fixture::new().await;
    let shared = &fixture.connections.0;
    for age in [MAX_IDLE, MAX_LIFETIME] {
        fixture.connections.acquire().await.unwrap().release();
        let used = Instant::now();
        assert!(shared.take(used + age).is_none());
        assert!(shared.idle().is_empty());
    }
}

#[tokio::test]
async fn dropped_connection_frees_its_place_at_once() {
    let fixture = Fixture::new().await;
    let (pool, mut proxy) = behind_proxy(&fixture, 2).await;
    for _ in 0..2 {
        let all = [pool.acquire().await.unwrap(), pool.acquire().await.unwrap()];
        proxy.set(Traffic::Stall).await;
        for mut silent in all {
            let asked = timeout(Duration::from_millis(50), backend(&mut silent)).await;
            asked.unwrap_err();
        }
        proxy.cut();
        proxy.set(Traffic::Pass).await;
        let mut fresh = pool.acquire().await.unwrap();
        backend(&mut fresh).await;
        fresh.release();
    }
}

#[tokio::test]
async fn silent_idle_connections_are_replaced_at_next_use() {
    let fixture = Fixture::new().await;
    let (pool, mut proxy) = behind_proxy(&fixture, 4).await;
    let mut all = Vec::new();
    for _ in 0..4 {
        all.push(pool.acquire().await.unwrap());
    }
    all.into_iter().for_each(Connection::release);
    for opened in pool.0.idle().iter_mut() {
        opened.checked -= CHECK_PERIOD;
    }
    proxy.set(Traffic::Swallow).await;
    let direct = PgConnectOptions::clone(&fixture.pool.connect_options());
    let elsewhere = Pool(Arc::new(Shared {
        connector: direct.into(),
        idle: Mutex::new(std::mem::take(&mut *pool.0.idle())),
        ..shared(4)
    }));
    let mut fresh = elsewhere.acquire().await.unwrap();
    backend(&mut fresh).await;
    assert!(elsewhere.0.idle().is_empty());
}

fn shared(size: u32) -> Shared {
    let pool = Pool::new(PgConnectOptions::new(), size, PATIENCE);
    Arc::into_inner(pool.0).unwrap()
}

#[tokio::test]
async fn read_only_server_gives_no_connection_and_is_named() {
    let fixture = Fixture::new().await;
    let pool = &fixture.connections;
    let idle = pool.acquire().await.unwrap();
    idle.release();
    let set = async |value: &str| {
        let text = format!(
            "do $$ begin execute format('alter database %I set default_transaction_read_only = {value}', \
             current_database()); end $$"
        );
        let text = sqlx::AssertSqlSafe(text);
        sqlx::query(text).execute(&fixture.pool).await.unwrap();
    };
    set("on").await;
    pool.0.idle().clear();
    let refused = pool.try_acquire().await;
    assert!(
        matches!(refused, Err(AcquireError::ReadOnly)),
        "{refused:?}"
    );
    set("off").await;
    eventually("writes are taken again", async || pool.acquire().await.ok()).await;
}

#[tokio::test]
async fn idle_connection_to_demoted_server_is_not_used() {
    let fixture = Fixture::new().await;
    let pool = &fixture.connections;
    let mut connection = pool.acquire().await.unwrap();
    let demoted = backend(&mut connection).await;
    let read_only = "set session characteristics as transaction read only";
    connection.execute(read_only).await.unwrap();
    connection.release();
    for opened in pool.0.idle().iter_mut() {
        opened.checked -= CHECK_PERIOD;
    }
    let mut other = pool.acquire().await.unwrap();
    assert_ne!(backend(&mut other).await, demoted);
}

#[tokio::test]
async fn reads_dropped_at_begin_poison_no_later_read() {
    let fixture = Fixture::new().await;
    let group = fixture.group(&["alice", "bob"]).await;
    let (pool, mut proxy) = behind_proxy(&fixture, 1).await;
    let history = Query::History(History {
        caller: caller("bob"),
        conversation: group,
        before: None,
        after: None,
        cursor: None,
        from: None,
        to: None,
        sender: None,
        kind: None,
        limit: 10,
    });
    reads::answer(&pool, &history, PATIENCE).await.unwrap();
    proxy.set(Traffic::Stall).await;
    let dropped = reads::answer(&pool, &history, Duration::from_millis(200)).await;
    dropped.unwrap_err();
    proxy.set(Traffic::Pass).await;
    // A read that takes the snapshot of whatever transaction was left open.
    reads::answer(&pool, &history, PATIENCE).await.unwrap();
    let told = sent(fixture.send(message(group, "alice", "behind it")).await);
    let read = Query::GetMessage {
        caller: caller("bob"),
        message: told.message_id,
    };
    reads::answer(&pool, &read, PATIENCE).await.unwrap();
    fixture.remove("alice", "bob", group).await;
    let refused = reads::answer(&pool, &history, PATIENCE).await;
    refused.unwrap_err();
}

#[tokio::test]
async fn silent_server_is_tried_by_one_connection() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let options = PgConnectOptions::new_without_pgpass()
        .host("127.0.0.1")
        .port(listener.local_addr().unwrap().port());
    let pool = Pool::new(options, 8, Duration::from_millis(200));
    for _ in 0..3 {
        let all = join_all((0..8).map(|_| pool.try_acquire())).await;
        for acquired in all {
            assert!(matches!(acquired, Err(AcquireError::Timeout)));
        }
    }
    let mut tried = Vec::new();
    while let Ok(accepted) = timeout(Duration::from_millis(50), listener.accept()).await {
        tried.push(accepted.unwrap());
    }
    assert_eq!(tried.len(), 1);
}

/// Ways to the fixture's server as a role that may have so many connections.
async fn limited(fixture: &Fixture, limit: u32) -> PgConnectOptions {
    let role = format!("limited_{}", uuid::Uuid::now_v7().simple());
    let create = format!("create role {role} login password 'limited' connection limit {limit}");
    let statement = sqlx::AssertSqlSafe(create);
    sqlx::query(statement).execute(&fixture.pool).await.unwrap();
    let options = PgConnectOptions::clone(&fixture.pool.connect_options());
    options.username(&role).password("limited")
}

#[tokio::test]
async fn idle_connections_are_given_up_for_another_pool() {
    let fixture = Fixture::new().await;
    let options = limited(&fixture, 6).await;
    let siblings = Siblings::default();
    let pool = |size| Pool::among(&siblings, options.clone(), size, PATIENCE);
    let (reads, batches, others) = (pool(14), pool(4), pool(4));
    let burst = join_all((0..6).map(|_| reads.acquire())).await;
    for connection in burst {
        connection.unwrap().release();
    }
    assert_eq!(reads.0.idle().len(), 6);
    for writes in [&batches, &batches, &others] {
        let mut connection = writes.acquire().await.unwrap();
        backend(&mut connection).await;
        connection.release();
    }
    // One each, and what was not wanted stays.
    assert_eq!(batches.0.idle().len(), 1);
    assert_eq!(others.0.idle().len(), 1);
    assert!(reads.0.idle().len() >= 2);
}

#[tokio::test]
async fn pool_in_use_leaves_connections_to_another() {
    let fixture = Fixture::new().await;
    let options = limited(&fixture, 6).await;
    let siblings = Siblings::default();
    let pool = |size| Pool::among(&siblings, options.clone(), size, PATIENCE);
    let (reads, batches) = (pool(14), pool(4));
    let is_over = AtomicBool::new(false);
    let reading = join_all((0..12).map(|_| async {
        while !is_over.load(Ordering::Relaxed) {
            // Who waits for too long is refused, as a query is.
            if let Ok(mut connection) = reads.acquire().await {
                backend(&mut connection).await;
                connection.release();
            }
        }
    }));
    let writing = async {
        for _ in 0..20 {
            let mut connection = batches.acquire().await.unwrap();
            backend(&mut connection).await;
            connection.release();
        }
        is_over.store(true, Ordering::Relaxed);
    };
    Box::pin(timeout(PATIENCE * 3, async {
        tokio::join!(reading, writing)
    }))
    .await
    .unwrap();
}

/// Whether another connection of the pool can be made.
async fn connects(pool: &Pool) -> Result<(), AcquireError> {
    let connection = pool.try_acquire().await?;
    // Dropped it is closed, so that the next is a new one.
    drop(connection);
    Ok(())
}

#[tokio::test]
async fn replaced_user_and_password_are_read_at_connect() {
    let fixture = Fixture::new().await;
    let folder = tempfile::tempdir().unwrap();
    let (user, password) = (folder.path().join("user"), folder.path().join("password"));
    let options = limited(&fixture, 6).await;
    let mut settings = DatabaseSettings::of_url(fixture.url.clone());
    settings.database_user_file = Some(user.clone());
    settings.database_password_file = Some(password.clone());
    let connector = Connector::new(options.clone().username("nobody").password(""), &settings);
    let pool = Pool::new(connector, 2, PATIENCE);
    let missing = connects(&pool).await.unwrap_err();
    assert!(format!("{missing:?}").contains("user"), "{missing:?}");
    std::fs::write(&user, format!("{}\n", options.get_username())).unwrap();
    std::fs::write(&password, "limited\n").unwrap();
    connects(&pool).await.unwrap();
    let role = options.get_username();
    let change = sqlx::AssertSqlSafe(format!("alter role {role} password 'rotated'"));
    sqlx::query(change).execute(&fixture.pool).await.unwrap();
    connects(&pool).await.unwrap_err();
    std::fs::write(&password, "rotated\n").unwrap();
    connects(&pool).await.unwrap();
    let renamed = sqlx::AssertSqlSafe(format!("alter role {role} rename to {role}_b"));
    sqlx::query(renamed).execute(&fixture.pool).await.unwrap();
    // With scram-sha-256 the password stays the role's.
    std::fs::write(&user, format!("{role}_b")).unwrap();
    connects(&pool).await.unwrap();
}
