//! Revocations survive crashes, erased stores and isolated gateways.

use std::time::Duration;

use confab_protocol::error::Code;
use confab_stack::Traffic;
use serde_json::json;

use super::{AT_ONCE, all_of, backend, closes, login, refused_everywhere, revoke, user};
use crate::support::{Cluster, Setup, User, eventually};

/// Within seconds of the return.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(10);
const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

/// A user whose login was revoked, and one who was revoked itself.
async fn revoked(cluster: &Cluster) -> [User; 2] {
    let stolen = user(cluster, "alice", &json!({"sessionId": "stolen"}));
    let bob = cluster.user("bob");
    let backend = backend(cluster);
    revoke(&backend, login("stolen")).await;
    revoke(&backend, all_of(&bob)).await;
    let both = [stolen, bob];
    still_refused(&both, AT_ONCE).await;
    both
}

async fn still_refused(users: &[User], deadline: Duration) {
    for user in users {
        refused_everywhere(user, 2, deadline).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn starting_gateway_admits_no_revoked_user() {
    let mut cluster = Cluster::start(Setup::default()).await;
    let users = revoked(&cluster).await;
    for number in 0..2 {
        cluster.gateways[number].respawn().unwrap();
        let url = users[0].url(number).to_owned();
        let token = users[0].token.clone();
        // From its first answer on: unavailable for as long as it does not know, never let in.
        let http = users[0].http(number);
        eventually("the gateway answers", WAIT_TIMEOUT, async || {
            let refused = http.sessions().await.unwrap_err();
            match refused.code() {
                Some(Code::TokenRevoked) => Some(()),
                Some(code) => {
                    assert_eq!(code, Code::Unavailable);
                    None
                }
                None => None,
            }
        })
        .await;
        assert!(super::is_refused(&url, &token).await);
    }
    cluster.ready().await;
    still_refused(&users, AT_ONCE).await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn erased_store_or_bucket_undoes_no_revocation() {
    let mut cluster = Cluster::start(Setup::default()).await;
    let users = revoked(&cluster).await;
    cluster.nats.kill().unwrap();
    cluster.nats.erase_store().unwrap();
    cluster.nats.up().await.unwrap();
    cluster.ready().await;
    still_refused(&users, CATCH_UP_TIMEOUT).await;

    delete_bucket(&cluster).await;
    cluster.restart_gateway(0).await;
    still_refused(&users, AT_ONCE).await;

    // What comes behind it is told as fast as before, and kept in a bucket that is made anew.
    let carol = cluster.user("carol");
    let socket = carol.on(1).await;
    revoke(&backend(&cluster), all_of(&carol)).await;
    closes(&socket, AT_ONCE).await;
    refused_everywhere(&carol, 2, AT_ONCE).await;
    eventually("it is kept in the bucket", CATCH_UP_TIMEOUT, async || {
        let bucket = jetstream(&cluster).await;
        let bucket = bucket.get_key_value("confab_revocations").await.ok()?;
        let kept = bucket.get("default.user.6361726f6c").await.ok()??;
        let record: serde_json::Value = serde_json::from_slice(&kept).unwrap();
        assert_eq!(record["userId"], "carol");
        Some(())
    })
    .await;
    drop(socket);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn isolated_gateway_learns_revocations_on_return() {
    let setup = Setup {
        links: true,
        ..Setup::default()
    };
    let mut cluster = Cluster::start(setup).await;
    let stolen = user(&cluster, "alice", &json!({"sessionId": "stolen"}));
    let (here, cut_off) = (stolen.on(0).await, stolen.on(1).await);

    cluster.links[1].set(Traffic::Refuse).await;
    revoke(&backend(&cluster), login("stolen")).await;
    closes(&here, AT_ONCE).await;
    // A broadcast that nobody told it, and a bucket that is gone: only a worker knows.
    delete_bucket(&cluster).await;
    assert_eq!(cut_off.record.borrow().closed, None, "it cannot know");

    cluster.links[1].set(Traffic::Pass).await;
    closes(&cut_off, CATCH_UP_TIMEOUT).await;
    refused_everywhere(&stolen, 2, CATCH_UP_TIMEOUT).await;
    drop((here, cut_off));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateway_behind_silent_link_learns_revocations() {
    let setup = Setup {
        links: true,
        ..Setup::default()
    };
    let mut cluster = Cluster::start(setup).await;
    let stolen = user(&cluster, "alice", &json!({"sessionId": "stolen"}));
    let cut_off = stolen.on(1).await;

    cluster.links[1].set(Traffic::Swallow).await;
    revoke(&backend(&cluster), login("stolen")).await;
    cluster.links[1].set(Traffic::Pass).await;
    closes(&cut_off, CATCH_UP_TIMEOUT).await;
    refused_everywhere(&stolen, 2, CATCH_UP_TIMEOUT).await;
    drop(cut_off);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_worker_undoes_no_revocation() {
    let mut cluster = Cluster::start(Setup::default()).await;
    let users = revoked(&cluster).await;
    cluster.workers[0].process_mut().kill().unwrap();
    delete_bucket(&cluster).await;
    cluster.restart_gateway(0).await;
    cluster.restart_gateway(1).await;
    still_refused(&users, AT_ONCE).await;
    cluster.end().await;
}

/// A row that nobody broadcast and no bucket holds.
async fn insert(cluster: &Cluster, login: &str) {
    let inserted = sqlx::query(
        "insert into revocations (tenant, kind, subject, user_id, revision, created_at, expires_at) \
         values ('default', 'login', $1, '', nextval('revocation_revisions'), now(), now() + interval '1 hour')",
    )
    .bind(login)
    .execute(&cluster.store);
    inserted.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revocations_in_postgres_are_read_periodically() {
    let mut cluster = Cluster::start(Setup::default()).await;
    let first = user(&cluster, "alice", &json!({"sessionId": "login-1"}));
    let last = user(&cluster, "bob", &json!({"sessionId": "login-4000"}));
    let (here, there) = (first.on(0).await, first.on(1).await);

    insert(&cluster, "login-1").await;
    closes(&here, CATCH_UP_TIMEOUT).await;
    closes(&there, CATCH_UP_TIMEOUT).await;
    refused_everywhere(&first, 2, AT_ONCE).await;

    let many = "insert into revocations (tenant, kind, subject, user_id, revision, created_at, expires_at) \
        select 'default', 'login', 'login-' || n, '', nextval('revocation_revisions'), now(), now() + interval '1 hour' \
        from generate_series(2, 4000) n order by n";
    sqlx::query(many).execute(&cluster.store).await.unwrap();
    cluster.restart_gateway(0).await;
    assert!(super::is_refused(last.url(0), &last.token).await);
    still_refused(&[first, last], CATCH_UP_TIMEOUT).await;
    drop((here, there));
    cluster.end().await;
}

async fn jetstream(cluster: &Cluster) -> async_nats::jetstream::Context {
    let client = async_nats::connect(cluster.nats.url()).await.unwrap();
    async_nats::jetstream::new(client)
}

async fn delete_bucket(cluster: &Cluster) {
    let jetstream = jetstream(cluster).await;
    // It may be gone already.
    drop(jetstream.delete_key_value("confab_revocations").await);
}
