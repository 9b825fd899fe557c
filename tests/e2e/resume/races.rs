//! Clients race to resume with one token.

use super::{RawClient, cluster};
use crate::support::soak;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn racing_resumes_with_one_token_leave_one() {
    let cluster = cluster().await;
    let alice = cluster.user("alice");
    for round in 0..soak(200, 20) {
        let first = RawClient::fresh(&cluster, &alice, round % 2).await;
        let (session, token) = (first.session(), first.token());
        drop(first);
        // At two gateways, at one, and where the session was.
        let (here, there) = [(0, 1), (0, 0), (1, 1)][round % 3];
        let (mut one, mut other) = tokio::join!(
            RawClient::hello(&cluster, &alice, here, Some(&token)),
            RawClient::hello(&cluster, &alice, there, Some(&token)),
        );
        let mut on_session = 0;
        for client in [&mut one, &mut other] {
            let is_it = client.welcome["sessionId"] == session.as_str();
            on_session += usize::from(client.is_served().await && is_it);
        }
        assert_eq!(on_session, 1, "in round {round}");
    }
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn racing_resumes_that_acknowledge_welcome_leave_one() {
    let cluster = cluster().await;
    let alice = cluster.user("alice");
    for round in 0..soak(20, 3) {
        let first = RawClient::fresh(&cluster, &alice, round % 2).await;
        let (session, token) = (first.session(), first.token());
        drop(first);
        let mut one = RawClient::hello(&cluster, &alice, 0, Some(&token)).await;
        let mut on_session = 0;
        let (_, mut other) = tokio::join!(
            one.proves_if_it_can(),
            RawClient::hello(&cluster, &alice, 1, Some(&token)),
        );
        for client in [&mut one, &mut other] {
            let is_it = client.welcome["sessionId"] == session.as_str();
            on_session += usize::from(client.is_served().await && is_it);
        }
        assert_eq!(on_session, 1, "in round {round}");
    }
    cluster.end().await;
}
