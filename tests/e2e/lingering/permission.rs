//! Workers lose the permission to publish events, which NATS then drops without an answer.

use super::members_hear;
use crate::support::{Cluster, Setup};

/// Users of NATS; the worker's may publish all but what is denied.
fn users(denied: &str) -> String {
    format!(
        "authorization {{ users: [\n\
         {{ user: \"worker\", password: \"secret\", permissions: {{ publish: {{ deny: [{denied}] }} }} }}\n\
         {{ user: \"anyone\", password: \"secret\" }}\n\
         ] }}\nno_auth_user: \"anyone\"\n"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_hear_all_while_workers_may_not_publish() {
    let mut cluster = Cluster::start(Setup {
        nats_config: users("\"confab.v1.nothing\""),
        worker_env: vec![
            ("CONFAB_NATS_USER", Some("worker".to_owned())),
            ("CONFAB_NATS_PASSWORD", Some("secret".to_owned())),
        ],
        ..Setup::default()
    })
    .await;
    Box::pin(members_hear(
        &mut cluster,
        async |cluster| cluster.reconfigure_nats(&users("\"confab.v1.event.>\"")),
        async |cluster, ()| cluster.reconfigure_nats(&users("\"confab.v1.nothing\"")),
    ))
    .await;
    cluster.end().await;
}
