//! Secrets that are replaced while the connection lives.

use nkeys::KeyPair;

use super::accounts::Operator;
use super::*;

/// Checks that a client of `settings`, whose secret `replace` changes, is taken by a server that begins to want the new one.
async fn survives(
    mut server: Strict,
    settings: Settings,
    new_extra: &str,
    replace: impl FnOnce(&Strict),
) {
    let bus = server.takes(&settings).await;
    let from = server.log().len();
    server.restart(new_extra).await;
    server.logs(REFUSED_LINE, from).await;
    assert!(!bus.is_connected(), "the old secret is not taken any more");
    replace(&server);
    link_is(&bus, |link| link.connected && link.epoch >= 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replaced_user_and_password_are_read_again() {
    let users = |name: &str, password: &str| {
        format!("authorization {{ users: [{{ user: {name}, password: {password} }}] }}\n")
    };
    let server = Strict::start(&users("ann", "one")).await;
    let mut settings = server.settings();
    settings.auth.nats_user_file = Some(server.write("user", "ann\n"));
    settings.auth.nats_password_file = Some(server.write("password", "one\n"));
    let replace = |server: &Strict| {
        server.write("user", "bob\n");
        server.write("password", "two\n");
    };
    Box::pin(survives(server, settings, &users("bob", "two"), replace)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replaced_token_is_read_again() {
    let token = |token: &str| format!("authorization {{ token: {token} }}\n");
    let server = Strict::start(&token("one")).await;
    let mut settings = server.settings();
    settings.auth.nats_token_file = Some(server.write("token", "one\n"));
    let replace = |server: &Strict| drop(server.write("token", "two\n"));
    Box::pin(survives(server, settings, &token("two"), replace)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replaced_nkey_is_read_again() {
    let (old, new) = (KeyPair::new_user(), KeyPair::new_user());
    let users = |pair: &KeyPair| {
        format!(
            "authorization {{ users: [{{ nkey: {} }}] }}\n",
            pair.public_key()
        )
    };
    let server = Strict::start(&users(&old)).await;
    let mut settings = server.settings();
    settings.auth.nats_nkey = Some(server.write("seed", &old.seed().unwrap()));
    let seed = new.seed().unwrap();
    let replace = move |server: &Strict| drop(server.write("seed", &seed));
    Box::pin(survives(server, settings, &users(&new), replace)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_replaced_before_expiry_keep_the_connection() {
    const TOKEN_LIFETIME: Duration = Duration::from_secs(3);
    let operator = Operator::new();
    let server = Strict::start(&operator.config()).await;
    let path = server.write("gateway.creds", &operator.credentials(TOKEN_LIFETIME));
    let mut settings = server.settings();
    settings.auth.nats_credentials = Some(path);
    let bus = server.takes(&settings).await;
    let from = server.log().len();
    let renewed = operator.credentials(Duration::from_secs(600));
    server.write("gateway.creds", &renewed);
    // The server ends the connection at the expiry of what it was made with.
    link_is(&bus, |link| link.connected && link.epoch >= 2).await;
    let new = server.log().split_off(from);
    assert!(!new.contains(REFUSED_LINE), "{new}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_replaced_after_expiry_reconnect() {
    const TOKEN_LIFETIME: Duration = Duration::from_secs(2);
    let operator = Operator::new();
    let server = Strict::start(&operator.config()).await;
    let path = server.write("gateway.creds", &operator.credentials(TOKEN_LIFETIME));
    let mut settings = server.settings();
    settings.auth.nats_credentials = Some(path.clone());
    let bus = server.takes(&settings).await;
    let from = server.log().len();
    server.logs(REFUSED_LINE, from).await;
    std::fs::remove_file(&path).unwrap();
    link_is(&bus, |link| !link.connected).await;
    let renewed = operator.credentials(Duration::from_secs(600));
    server.write("gateway.creds", &renewed);
    is_connected(&bus).await;
}
