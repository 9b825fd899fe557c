//! Wrong key sets and addresses, as `confab doctor` reports them.

use tokio::net::TcpListener;

use super::{Env, NATS_CONFIG, NatsServer, SetupFault, gateway, run, worker};
use crate::support::{Database, Folder, Jwks, Key, jwks};

/// A gateway that fetches its keys.
fn with_key_set(nats: &str, url: &str) -> Env {
    let mut env = gateway(nats);
    env.retain(|(name, _)| *name != "CONFAB_JWT_PUBLIC_KEY");
    env.push(("CONFAB_JWT_JWKS_URL", url.to_owned()));
    env
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn key_sets_that_are_none_are_told() {
    let folder = Folder::of_test();
    let server = NatsServer::start(&folder, NATS_CONFIG).await;
    let mut keys = Jwks::start(jwks([&Key::es256("a")])).await;
    let env = with_key_set(&server.url, &keys.url);
    let good = run(&["doctor"], &env).await;
    assert!(good.status.success(), "{good:?}");
    let told = async |words, remedy| {
        let fault = SetupFault {
            role: "gateway",
            env: &env,
            check: "keys",
            status: "fail",
            words,
            remedy,
            logged: None,
        };
        fault.is_told(&folder).await;
    };
    keys.set(404, String::new());
    told("answered 404 Not Found", "openid-configuration").await;
    keys.set(200, "<!doctype html><title>Sign in</title>".to_owned());
    told("not a key set", "not to a page").await;
    keys.down().await;
    told(
        "Connection refused (os error 111)",
        "see that the provider runs",
    )
    .await;
}

#[tokio::test]
async fn address_that_is_taken_is_told() {
    let folder = Folder::of_test();
    let server = NatsServer::start(&folder, NATS_CONFIG).await;
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut database = Database::shared().await;
    let listening = |mut env: Env| {
        env.push(("CONFAB_LISTEN", taken.local_addr().unwrap().to_string()));
        env
    };
    let env = listening(gateway(&server.url));
    let worker = listening(worker(&server.url, &database.url));
    let fault = SetupFault {
        role: "gateway",
        env: &env,
        check: "listen",
        status: "fail",
        words: "Address already in use (os error 98)",
        remedy: "set CONFAB_LISTEN to a free port",
        logged: Some("cannot listen on"),
    };
    fault.is_told_to(&[("worker", &worker)], &folder).await;
    database.end().await;
}
