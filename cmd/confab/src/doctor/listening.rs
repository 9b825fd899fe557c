//! The address that a role listens on: free, taken, or not this host's.

use std::io::{Error, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::anyhow;
use confab_gateway::ListenAddress;
use confab_protocol::check::Check;

/// How long a process that listens there already may take to say what it is.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
const CHECK_NAME: &str = "listen";

/// Checks whether a role could listen, or a process of confab does so already.
pub(crate) async fn check(address: ListenAddress) -> Check {
    let place = address.to_string();
    let error = match address.bind().await {
        Ok(_listener) => return Check::ok(CHECK_NAME, &place, "the address is free"),
        Err(error) => error,
    };
    if error.kind() == ErrorKind::AddrInUse && is_confab(address).await {
        let found = "a process of confab listens there already";
        return Check::ok(CHECK_NAME, &place, found);
    }
    Check::fail(
        CHECK_NAME,
        &place,
        "the address cannot be listened on",
        remedy(&error),
    )
    .because(&error)
}

/// The end of a role that cannot listen, with what to do.
pub(crate) fn cannot_listen(address: ListenAddress, error: &Error) -> anyhow::Error {
    anyhow!("cannot listen on {address}: {error}: {}", remedy(error))
}

fn remedy(error: &Error) -> &'static str {
    match error.kind() {
        ErrorKind::AddrInUse => {
            "another process listens there (`ss -ltnp` names it): stop it, or set CONFAB_LISTEN to a free port"
        }
        ErrorKind::AddrNotAvailable => {
            "this host has no such address: set CONFAB_LISTEN to one of its own, or to the port alone, such as :8080"
        }
        ErrorKind::PermissionDenied => {
            "ports below 1024 are for privileged users: set CONFAB_LISTEN to a higher one"
        }
        _ => "set CONFAB_LISTEN to an address and port of this host",
    }
}

/// Whether what listens there answers `/health` as a process of confab does.
async fn is_confab(address: ListenAddress) -> bool {
    let places = match address {
        ListenAddress::Every(port) => vec![
            (Ipv4Addr::LOCALHOST, port).into(),
            (Ipv6Addr::LOCALHOST, port).into(),
        ],
        ListenAddress::One(address) => vec![reachable(address)],
    };
    for place in places {
        let answer = confab_stack::get_at(place, "/health", ANSWER_TIMEOUT).await;
        if matches!(answer, Ok((200, body)) if body.contains("\"alive\"")) {
            return true;
        }
    }
    false
}

/// Where what listens on every address is asked.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        IpAddr::V4(_) | IpAddr::V6(_) => {}
    }
    address
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use axum::{Json, Router};
    use confab_protocol::check::CheckStatus;
    use serde_json::json;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn own_process_is_known_at_any_address() {
        for host in ["127.0.0.1", "127.0.0.2", "0.0.0.0", "[::1]", "[::]"] {
            let listener = TcpListener::bind(format!("{host}:0")).await.unwrap();
            let address = listener.local_addr().unwrap();
            let health = get(async || Json(json!({ "status": "alive" })));
            let server = axum::serve(listener, Router::new().route("/health", health));
            tokio::select! {
                found = check(ListenAddress::One(address)) => assert_eq!(found.status, CheckStatus::Ok, "{found:?}"),
                ended = server.into_future() => panic!("{ended:?}"),
            }
        }
    }

    #[tokio::test]
    async fn taken_and_foreign_addresses_have_remedies() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = ListenAddress::One(taken.local_addr().unwrap());
        let found = check(address).await;
        assert_eq!(found.status, CheckStatus::Fail);
        assert!(found.remedy.unwrap().contains("ss -ltnp"));
        let every = check(ListenAddress::Every(address.port())).await;
        assert_eq!(every.status, CheckStatus::Fail);
        drop(taken);
        assert_eq!(check(address).await.status, CheckStatus::Ok);
        // TEST-NET-1 (RFC 5737) is nobody's.
        let foreign = check("192.0.2.1:8080".parse().unwrap()).await;
        assert!(foreign.remedy.unwrap().contains("no such address"));
    }
}
