//! Users of NATS who may not subscribe all that they need.

use uuid::Uuid;

use super::*;
use crate::rpc::{Service, WorkerId};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn service_begins_once_its_subjects_are_permitted() {
    let users = |denied: &str| {
        format!(
            "authorization {{ users: [{{ user: ann, password: one, permissions: {{ subscribe: {{ deny: [{denied}] }} }} }}] }}\n"
        )
    };
    for denied in ["confab.v1.query", "confab.v2.command.>"] {
        let mut server = Strict::start(&users(&format!("\"{denied}\""))).await;
        let settings = server.settings_with("ann:one");
        let bus = server.takes(&settings).await;
        let id = WorkerId(Uuid::now_v7());
        let error = Service::start(&bus, id, "0.0.0").await.err().unwrap();
        let BusError::Forbidden(subject) = &error else {
            panic!("{error}");
        };
        assert!(
            subject.starts_with(denied.trim_end_matches(".>")),
            "{subject}"
        );
        configure(&server.folder, &users("\"confab.nothing\""));
        server.nats.reload().unwrap();
        let started = async {
            while Service::start(&bus, id, "0.0.0").await.is_err() {
                sleep(POLL_INTERVAL).await;
            }
        };
        timeout(TEST_TIMEOUT, started).await.unwrap();
    }
}
