//! The shipped NATS permissions suffice for both roles, and a gateway's forbid writing events.

use std::time::Duration;

use confab_client::Encoding;
use confab_protocol::frame::Hello;
use confab_stack::get;

use super::{Env, gateway, run, worker};
use crate::support::{Cluster, Owed, Setup, User, assert_log, eventually, text};

const SHIPPED_PERMISSIONS: &str = include_str!("../../../deploy/nats-permissions.conf");
const WAIT_TIMEOUT: Duration = Duration::from_secs(30);

fn user(name: &str) -> Vec<(&'static str, Option<String>)> {
    vec![
        ("CONFAB_NATS_USER", Some(name.to_owned())),
        ("CONFAB_NATS_PASSWORD", Some(format!("{name}-password"))),
    ]
}

/// The same for a command.
fn as_user(mut env: Env, name: &str) -> Env {
    let set = user(name).into_iter();
    env.extend(set.map(|(name, value)| (name, value.unwrap())));
    env
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shipped_permissions_are_enough_for_both_roles() {
    let passwords = "CONFAB_NATS_WORKER_PASSWORD: worker-password\nCONFAB_NATS_GATEWAY_PASSWORD: gateway-password\n";
    let mut cluster = Cluster::start(Setup {
        nats_config: format!("{passwords}{SHIPPED_PERMISSIONS}"),
        worker_env: user("worker"),
        gateway_env: user("gateway"),
        ..Setup::default()
    })
    .await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let (alice, bob) = (alice.on(0).await, bob.on(1).await);
    let conversation = alice
        .create_group(&[alice.id.clone(), bob.id.clone()])
        .await;
    alice
        .session
        .send(conversation, text("hello"))
        .await
        .unwrap();
    // The feed's past is read by a gateway that begins later, and the event is found there.
    cluster.add_gateway(user("gateway")).await;
    assert_log(
        &cluster,
        conversation,
        &[Owed::all(&alice), Owed::all(&bob)],
    )
    .await;
    eventually("both gateways stay ready", WAIT_TIMEOUT, async || {
        for one in &cluster.gateways {
            let (status, _) = get(one.port(), "/ready", Duration::from_secs(2))
                .await
                .ok()?;
            (status == 200).then_some(())?;
        }
        Some(())
    })
    .await;
    for (role, env) in [
        ("worker", worker(&cluster.nats.url(), &cluster.database.url)),
        ("gateway", gateway(&cluster.nats.url())),
    ] {
        let output = run(&["doctor"], &as_user(env, role)).await;
        assert!(output.status.success(), "{role}: {output:?}");
    }
    assert_gateway_cannot_write_events(&cluster).await;
    for service in cluster.gateways.iter().chain(&cluster.workers) {
        let log = std::fs::read_to_string(service.process().log()).unwrap();
        for problem in ["ermissions Violation", "is no signal"] {
            let told = log.lines().find(|line| line.contains(problem));
            assert_eq!(told, None);
        }
    }
    drop((alice, bob));
    cluster.end().await;
}

async fn assert_gateway_cannot_write_events(cluster: &Cluster) {
    let options = async_nats::ConnectOptions::with_user_and_password(
        "gateway".to_owned(),
        "gateway-password".to_owned(),
    );
    let client = options.connect(cluster.nats.url()).await.unwrap();
    let stream = async_nats::jetstream::new(client);
    let subject = "confab.v1.event.0.default.x.message.created";
    let published = stream.publish(subject, "forged".into()).await.unwrap();
    let stored = tokio::time::timeout(Duration::from_secs(1), published).await;
    assert!(!matches!(stored, Ok(Ok(_))), "{stored:?}");
}

/// A user of NATS who may not subscribe these.
fn deaf(denied: &str) -> String {
    format!(
        "authorization {{ users: [\n\
         {{ user: deaf, password: deaf-password, permissions: {{ subscribe: {{ deny: [{denied}] }} }} }}\n\
         {{ user: anyone, password: anyone-password }}\n] }}\nno_auth_user: anyone\n"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker_that_may_not_subscribe_is_not_ready() {
    let mut cluster = Cluster::start(Setup {
        gateways: 1,
        workers: 1,
        nats_config: deaf("\"confab.v1.query\", \"confab.v1.query.>\""),
        ..Setup::default()
    })
    .await;
    let mut env = user("deaf");
    env.push(("CONFAB_LOG_FORMAT", Some("json".to_owned())));
    let worker = cluster.begin_worker(&env);
    let told = |cluster: &Cluster, level: &str| {
        let log = std::fs::read_to_string(cluster.workers[worker].process().log()).unwrap();
        let lines = log
            .lines()
            .filter(|line| line.contains("\"condition\":\"start\"") && line.contains(level));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    eventually("it says why", WAIT_TIMEOUT, async || {
        told(&cluster, "WARN").pop()
    })
    .await;
    // Each of these is spread over the workers that gateways have heard of.
    let alice = cluster.user("alice");
    let path = alice.begins(0, "group", &["bob"]).await;
    for _ in 0..20 {
        alice.says(0, &path, "hello").await;
        alice.get(0, &path).await.ok(200);
    }
    let port = cluster.workers[worker].port();
    let (status, body) = get(port, "/ready", Duration::from_secs(2)).await.unwrap();
    assert_eq!(status, 503, "{body}");
    assert!(body.contains("\"service\""), "{body}");
    let warnings = told(&cluster, "WARN");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let words = "NATS does not permit this user to subscribe confab.v1.query";
    assert!(warnings[0].contains(words), "{warnings:?}");
    // What it lacks is given to it.
    cluster.reconfigure_nats(&deaf("\"confab.v1.nothing\""));
    cluster.ready().await;
    assert_eq!(told(&cluster, "INFO").len(), 1);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn account_that_wants_bounds_serves() {
    let config = "accounts { A { jetstream { max_file: 4GB, max_bytes_required: true }, users: [{ user: a, password: a }] } }\n\
                  no_auth_user: a\n";
    let cluster = Cluster::start(Setup {
        nats_config: config.to_owned(),
        ..Setup::default()
    })
    .await;
    let alice = cluster.user("alice").on(0).await;
    let conversation = alice.create_group(std::slice::from_ref(&alice.id)).await;
    alice
        .session
        .send(conversation, text("hello"))
        .await
        .unwrap();
    let client = async_nats::connect(cluster.nats.url()).await.unwrap();
    let stream = async_nats::jetstream::new(client);
    eventually(
        "the bucket of revocations is made",
        WAIT_TIMEOUT,
        async || stream.get_stream("KV_confab_revocations").await.ok(),
    )
    .await;
    let output = run(&["doctor"], &gateway(&cluster.nats.url())).await;
    assert!(output.status.success(), "{output:?}");
    drop(alice);
    assert_resumes(&cluster, &cluster.user("bob")).await;
    cluster.end().await;
}

/// Asserts that welcomes bring resume tokens, and that they are good at the other gateway.
async fn assert_resumes(cluster: &Cluster, user: &User) {
    let open = async |gateway: usize, token: Option<String>| {
        let hello = Hello {
            resume_token: token,
            ..Hello::default()
        };
        user.greeting(hello, Encoding::Json, gateway).await
    };
    let (first, token) = eventually("a resume token", WAIT_TIMEOUT, async || {
        let first = open(0, None).await;
        let token = first.session.welcome().resume_token.clone()?;
        Some((first, token))
    })
    .await;
    let session = first.session.welcome().session_id;
    drop(first);
    let again = open(1, Some(token)).await;
    let welcome = again.session.welcome();
    assert!(welcome.resumed, "{:?}", welcome.reason);
    assert_eq!(welcome.session_id, session);
    assert!(welcome.resume_token.is_some());
    // The record is in the bucket, and in no gateway's memory alone.
    let client = async_nats::connect(cluster.nats.url()).await.unwrap();
    let stream = async_nats::jetstream::new(client);
    let mut records = stream.get_stream("KV_confab_sessions").await.unwrap();
    let info = records.info().await.unwrap();
    assert!(info.config.max_bytes > 0 && info.state.messages > 0);
}
