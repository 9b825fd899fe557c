//! NATS servers of every kind that does not do, each real.

use confab_protocol::check::CheckStatus;

use super::*;
use crate::testing::NatsServer;

pub(super) fn settings(url: &str) -> Settings {
    Settings {
        events_max_age: 60,
        events_max_bytes: 1000,
        ..Settings::of_server(url.to_owned())
    }
}

const GATEWAY_ROLE: Role = Role::Gateway {
    sessions_max_bytes: 1 << 20,
};

fn wrong(checks: &[Check]) -> Vec<&Check> {
    let mut wrong = checks.iter().collect::<Vec<_>>();
    wrong.retain(|check| check.status != CheckStatus::Ok);
    wrong
}

#[tokio::test]
async fn usable_server_passes_and_stays_unchanged() {
    let server = NatsServer::start().await;
    for role in [Role::Worker, GATEWAY_ROLE] {
        let checks = nats(&settings(&server.nats.url()), role).await;
        assert!(wrong(&checks).is_empty(), "{checks:?}");
        assert!(checks.len() >= 6, "{checks:?}");
    }
    let bus = server.connect().await;
    let none = bus.stream_state().await.unwrap_err();
    assert!(matches!(none, crate::BusError::NoStream), "{none:?}");
    let made = bus.provision().await.unwrap();
    for role in [Role::Worker, GATEWAY_ROLE] {
        let checks = nats(&settings(&server.nats.url()), role).await;
        let names: Vec<_> = checks.iter().map(|check| check.name).collect();
        assert!(names.contains(&"nats.clock"), "{names:?}");
    }
    assert_eq!(bus.stream_state().await.unwrap(), made);
}

#[tokio::test]
async fn replicas_want_a_cluster() {
    let server = NatsServer::start().await;
    let settings = Settings {
        nats_replicas: 3,
        ..settings(&server.nats.url())
    };
    let checks = nats(&settings, Role::Worker).await;
    let names: Vec<_> = wrong(&checks).iter().map(|check| check.name).collect();
    assert_eq!(names, ["nats.replicas"]);
}

#[tokio::test]
async fn absent_server_is_told_with_address_and_cause() {
    let checks = nats(&settings("nats://user:secret@127.0.0.1:1"), Role::Worker).await;
    let [check] = checks.as_slice() else {
        panic!("{checks:?}");
    };
    assert_eq!(check.status, CheckStatus::Fail);
    assert_eq!(check.address, "127.0.0.1:1");
    assert!(
        check.cause().contains("refused (os error 111)"),
        "{check:?}"
    );
    assert!(!format!("{check:?}").contains("secret"), "{check:?}");
}

#[test]
fn versions_and_payloads_are_compared() {
    for (text, status) in [
        ("2.9.10", CheckStatus::Fail),
        ("2.11.99", CheckStatus::Fail),
        ("2.12.0-RC.1", CheckStatus::Ok),
        ("2.15.1", CheckStatus::Ok),
        ("3.0.0", CheckStatus::Ok),
        ("", CheckStatus::Fail),
    ] {
        assert_eq!(is_supported(text, "here").status, status, "{text}");
    }
    assert_eq!(payload(1 << 20, "here").status, CheckStatus::Ok);
    assert_eq!(payload(65_536, "here").status, CheckStatus::Fail);
}
