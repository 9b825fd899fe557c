//! Invented session ids cost no lasting memory.

use std::time::Instant;

use confab_client::Http;
use confab_protocol::error::Code;
use confab_protocol::ids::SessionId;
use futures_util::StreamExt as _;
use serde_json::json;
use uuid::Uuid;

use super::{AT_ONCE, WAIT_TIMEOUT, id, user};
use crate::support::{Cluster, Setup, eventually, soak};

/// Requests at once.
const AT_A_TIME: usize = 64;
/// A user's own revocations of sessions.
const MAX_SESSIONS: usize = 1000;

/// Deleted before memory is looked at, so that connections, tables and the allocator have what they keep.
const WARM_UP: usize = 2_000;
/// By how much a gateway's resident memory may grow over a million made-up sessions; a hundred bytes for each would be 95 MiB.
const MAX_GROWTH_MIB: f64 = 16.0;

/// `CONFAB_TEST_SOAK=1` deletes a million, or as many as `CONFAB_TEST_SESSIONS` says, and asserts memory; `--nocapture` shows the figures.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn made_up_sessions_leave_nothing_behind() {
    let cluster = Cluster::start(Setup::default()).await;
    all_are_heard(&cluster).await;
    let alice = cluster.user("alice");
    let kept = alice.on(1).await;
    let http = alice.http(0);
    made_up(&http, soak(WARM_UP, 200)).await;
    let before = memory(&cluster).await;
    let known = [known(&cluster, 0).await, known(&cluster, 1).await];
    let count = std::env::var_os("CONFAB_TEST_SESSIONS").and_then(|count| count.into_string().ok());
    let count = count.map_or_else(|| soak(1_000_000, 2_000), |count| count.parse().unwrap());
    let began = Instant::now();
    made_up(&http, count).await;
    let took = began.elapsed();
    let after = memory(&cluster).await;
    println!(
        "{count} made-up sessions in {took:?}; gateways' resident MiB {before:.1?} -> {after:.1?}"
    );
    let is_measured = soak(1, 0) == 1;
    for (before, after) in before.into_iter().zip(after) {
        assert!(
            !is_measured || after - before < MAX_GROWTH_MIB,
            "{before} -> {after} MiB"
        );
    }
    assert_eq!(rows(&cluster).await, 0);
    for (gateway, before) in known.into_iter().enumerate() {
        assert_eq!(self::known(&cluster, gateway).await, before);
    }
    // A real one ends all the same.
    http.revoke_session(id(&kept)).await.unwrap();
    kept.closes(AT_ONCE).await;
    assert_eq!(rows(&cluster).await, 1);
    drop(kept);
    cluster.end().await;
}

/// While a gateway may hold a session and cannot be asked, a revocation is stored: for a while, and so many a user.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_in_doubt_are_revoked_within_bounds() {
    let mut cluster = Cluster::start(Setup::default()).await;
    all_are_heard(&cluster).await;
    let alice = cluster.user("alice");
    cluster.gateways[1].process_mut().kill().unwrap();
    let http = alice.http(0);
    eventually("a gateway is missed", WAIT_TIMEOUT * 4, async || {
        revoke_made_up(&http).await;
        (rows(&cluster).await > 0).then_some(())
    })
    .await;
    let fill = "insert into revocations (revision, tenant, kind, subject, user_id, created_at, expires_at) \
        select nextval('revocation_revisions'), tenant, kind, gen_random_uuid()::text, user_id, created_at, expires_at \
        from (select * from revocations limit 1) r, generate_series(1, $1)";
    sqlx::query(fill)
        .bind(i32::try_from(MAX_SESSIONS).unwrap())
        .execute(&cluster.store)
        .await
        .unwrap();
    let refused = http.revoke_session(SessionId(Uuid::now_v7())).await;
    assert_eq!(refused.unwrap_err().code(), Some(Code::RateLimited));
    let (kept,): (f64,) = sqlx::query_as(
        "select max(extract(epoch from expires_at - created_at))::float8 from revocations",
    )
    .fetch_one(&cluster.store)
    .await
    .unwrap();
    // Twice the resume window of 15 minutes, and ten more.
    assert_eq!(kept, 2400.0);
    cluster.restart_gateway(1).await;
    cluster.end().await;
}

/// Gateways are told apart, and what each needs counts, whichever is asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revocation_outlives_tokens_of_every_gateway() {
    let hour = Setup {
        gateway_env: vec![("CONFAB_TOKEN_MAX_LIFETIME", Some("3600".to_owned()))],
        ..Setup::default()
    };
    let mut cluster = Cluster::start(hour).await;
    let backend = user(&cluster, "backend", &json!({"scope": "confab:admin"}));
    let revoke = async |login: &str| {
        let what = confab_client::NewRevocation {
            login_session_id: Some(login.to_owned()),
            ..confab_client::NewRevocation::default()
        };
        backend.http(0).revoke(&what).await.unwrap()
    };
    let seconds = |told: &confab_protocol::revocation::RevocationView| {
        let kept = told.expires_at.to_datetime() - told.created_at.to_datetime();
        kept.whole_seconds()
    };
    let hourly = revoke("first").await;
    assert!((3600..3800).contains(&seconds(&hourly)), "{hourly:?}");
    // Another gateway comes with another setting.
    cluster
        .add_gateway(vec![(
            "CONFAB_TOKEN_MAX_LIFETIME",
            Some("86400".to_owned()),
        )])
        .await;
    let daily = revoke("second").await;
    assert!((86_400..86_600).contains(&seconds(&daily)), "{daily:?}");
    let (least,): (f64,) = sqlx::query_as(
        "select min(extract(epoch from expires_at - created_at))::float8 from revocations",
    )
    .fetch_one(&cluster.store)
    .await
    .unwrap();
    assert!(least >= 86_400.0, "the first is kept longer, too: {least}");
    cluster.end().await;
}

/// Deletes so many sessions that nobody has, many at a time.
async fn made_up(http: &Http, count: usize) {
    futures_util::stream::iter(0..count)
        .map(|_| revoke_made_up(http))
        .buffer_unordered(AT_A_TIME)
        .for_each(async |()| {})
        .await;
}

async fn revoke_made_up(http: &Http) {
    let session = SessionId(Uuid::now_v7());
    let told = http.revoke_session(session).await.unwrap();
    assert_eq!(told.session_id, Some(session));
    assert!(told.expires_at > told.created_at);
}

/// Gateways that began lately may not have heard each other yet.
async fn all_are_heard(cluster: &Cluster) {
    let probe = cluster.user("probe");
    for gateway in 0..2 {
        let http = probe.http(gateway);
        eventually("a gateway knows the others", WAIT_TIMEOUT * 4, async || {
            revoke_made_up(&http).await;
            let stored = rows(cluster).await;
            sqlx::query("delete from revocations")
                .execute(&cluster.store)
                .await
                .unwrap();
            (stored == 0).then_some(())
        })
        .await;
    }
}

async fn rows(cluster: &Cluster) -> i64 {
    let (rows,): (i64,) = sqlx::query_as("select count(*) from revocations")
        .fetch_one(&cluster.store)
        .await
        .unwrap();
    rows
}

/// How many revocations a gateway has in memory.
async fn known(cluster: &Cluster, gateway: usize) -> f64 {
    let http = cluster.user("probe").http(gateway);
    metric(&http, "confab_revocations").await
}

/// The resident memory of each gateway, in MiB.
async fn memory(cluster: &Cluster) -> [f64; 2] {
    let probe = cluster.user("probe");
    let of = async |gateway| {
        let http = probe.http(gateway);
        metric(&http, "process_resident_memory_bytes").await / f64::from(1 << 20)
    };
    [of(0).await, of(1).await]
}

async fn metric(http: &Http, name: &str) -> f64 {
    let answer = http.raw("GET", "/metrics", &[], "").await.unwrap();
    let text = String::from_utf8(answer.body).unwrap();
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value
        .unwrap_or_else(|| panic!("no {name}"))
        .parse()
        .unwrap()
}
