//! Missing or misconfigured streams, and workers without permission to publish into them.

use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::stream::{Config, DiscardPolicy};
use confab_stack::get;

use super::{NATS_CONFIG, NatsServer, SetupFault, gateway, run, worker};
use crate::support::{Cluster, Database, Folder, Setup, eventually};

const STREAM_NAMES: [&str; 3] = [
    "CONFAB_EVENTS",
    "KV_confab_revocations",
    "KV_confab_sessions",
];
/// How soon streams that vanished are there again, on a machine that runs other tests.
const WAIT_TIMEOUT: Duration = Duration::from_secs(60);
const EVENT_TIMEOUT: Duration = Duration::from_secs(10);

/// A server with a stream that somebody made; the doctor of a gateway and the gateway itself say what is wrong with it.
async fn told(config: Config, words: &'static str, remedy: &'static str) {
    let folder = Folder::of_test();
    let server = NatsServer::start(&folder, NATS_CONFIG).await;
    let client = async_nats::connect(&server.url).await.unwrap();
    let jetstream = jetstream::new(client);
    let subject = config.subjects[0].replace('>', "full");
    eventually("the stream is made", WAIT_TIMEOUT, async || {
        jetstream.create_stream(config.clone()).await.ok()
    })
    .await;
    let published = jetstream.publish(subject, "".into()).await.unwrap();
    published.await.unwrap();
    let fault = SetupFault {
        role: "gateway",
        env: &gateway(&server.url),
        check: "nats.stream",
        status: "fail",
        words,
        remedy,
        logged: None,
    };
    fault.is_told(&folder).await;
}

#[tokio::test]
async fn stream_of_other_subjects_is_told() {
    let config = Config {
        name: "CONFAB_EVENTS".to_owned(),
        subjects: vec!["orders.>".to_owned()],
        ..Config::default()
    };
    let words = "does not take confab.v1.event.>";
    told(config, words, "--subjects 'confab.v1.event.>'").await;
}

#[tokio::test]
async fn stream_that_refuses_events_is_told() {
    let config = Config {
        name: "CONFAB_EVENTS".to_owned(),
        subjects: vec!["confab.v1.event.>".to_owned()],
        discard: DiscardPolicy::New,
        max_messages: 1,
        ..Config::default()
    };
    told(config, "full and refuses events", "--discard old").await;
}

#[tokio::test]
async fn bucket_that_cannot_be_read_is_told() {
    let config = Config {
        name: "KV_confab_sessions".to_owned(),
        subjects: vec!["$KV.confab_sessions.>".to_owned()],
        max_messages_per_subject: 1,
        allow_direct: false,
        ..Config::default()
    };
    told(config, "records cannot be read", "--allow-direct").await;
}

#[tokio::test]
async fn worker_that_may_not_publish_is_told() {
    let folder = Folder::of_test();
    let config = "jetstream { store_dir: \"STORE\" }\nno_auth_user: a\n\
                  authorization { users: [{ user: a, password: a, permissions: { \
                  publish: { allow: \">\", deny: [\"confab.v1.event.>\", \"confab.v1.lingering.>\"] } } }] }";
    let server = NatsServer::start(&folder, config).await;
    let mut database = Database::shared().await;
    let env = worker(&server.url, &database.url);
    for words in [
        "publish confab.v1.event.check",
        "publish confab.v1.lingering.check",
    ] {
        let fault = SetupFault {
            role: "worker",
            env: &env,
            check: "nats.permissions",
            status: "fail",
            words,
            remedy: "deploy/nats-permissions.conf",
            logged: None,
        };
        fault.is_told(&folder).await;
    }
    database.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_vanish_are_made_again_and_told() {
    let cluster = Cluster::start(Setup {
        gateways: 1,
        workers: 1,
        ..Setup::default()
    })
    .await;
    let (alice, bob) = (
        cluster.user("alice").on(0).await,
        cluster.user("bob").on(0).await,
    );
    let group = alice.create_group(std::slice::from_ref(&bob.id)).await;
    bob.hears(group, 1, EVENT_TIMEOUT).await;
    eventually("all is marked as published", WAIT_TIMEOUT, async || {
        let text = "select count(*) from outbox where published_at is null";
        let waiting: i64 = sqlx::query_scalar(text)
            .fetch_one(&cluster.store)
            .await
            .unwrap();
        (waiting == 0).then_some(())
    })
    .await;
    let client = async_nats::connect(cluster.nats.url()).await.unwrap();
    let jetstream = jetstream::new(client);
    for stream in STREAM_NAMES {
        jetstream.delete_stream(stream).await.unwrap();
    }
    let output = run(&["doctor"], &gateway(&cluster.nats.url())).await;
    assert!(
        output.status.success(),
        "what is to be made is no fault: {output:?}"
    );
    eventually("all are there again", WAIT_TIMEOUT, async || {
        for stream in STREAM_NAMES {
            jetstream.get_stream(stream).await.ok()?;
        }
        Some(())
    })
    .await;
    for (service, line) in [
        (
            &cluster.workers[0],
            "the stream lost what it had acknowledged",
        ),
        (&cluster.gateways[0], "the feed broke"),
        (&cluster.gateways[0], "the bucket of sessions is another"),
    ] {
        eventually(line, WAIT_TIMEOUT, async || {
            let log = std::fs::read_to_string(service.process().log()).unwrap();
            log.contains(line).then_some(())
        })
        .await;
    }
    eventually("the gateway is ready", WAIT_TIMEOUT, async || {
        let (status, _) = get(cluster.gateways[0].port(), "/ready", EVENT_TIMEOUT)
            .await
            .ok()?;
        (status == 200).then_some(())
    })
    .await;
    let said = alice.say(group, "still here").await;
    bob.hears(group, said, EVENT_TIMEOUT).await;
    let output = run(&["doctor"], &gateway(&cluster.nats.url())).await;
    assert!(output.status.success(), "{output:?}");
    drop((alice, bob));
    cluster.end().await;
}
