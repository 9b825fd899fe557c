//! More unpublished events than workers can name by key make gateways recheck every user within a minute.

use std::time::Duration;

use confab_protocol::ids::UserId;
use confab_protocol::lingering::Announcement;
use confab_protocol::wire;
use futures_util::StreamExt as _;
use tokio::time::timeout;

use super::{WAIT_TIMEOUT, degraded, is_level};
use crate::support::{Cluster, RefusingStream, Setup, assert_hears_only};

/// A round over all users, and what a machine takes that runs other tests.
const ROUND_TIMEOUT: Duration = Duration::from_secs(90);
/// Groups and their members, whose names take more room than is announced.
const GROUP_COUNT: usize = 8;
const GROUP_STRANGERS: usize = 900;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_hear_what_is_too_much_to_announce() {
    let cluster = Cluster::start(Setup::default()).await;
    let (alice, bob) = (
        cluster.user("alice").on(0).await,
        cluster.user("bob").on(1).await,
    );
    is_level(&cluster).await;
    let client = async_nats::connect(cluster.nats.url()).await.unwrap();
    let mut announcements = client.subscribe("confab.v1.lingering").await.unwrap();
    let stream = RefusingStream::of(&cluster).await;
    let strangers = (0..GROUP_STRANGERS).map(|number| format!("{number:0>120}").parse().unwrap());
    let mut members: Vec<UserId> = strangers.collect();
    members.push(bob.id.clone());
    let mut groups = Vec::new();
    for _ in 0..GROUP_COUNT {
        groups.push(alice.create_group(&members).await);
    }
    let is_cut = async {
        while let Some(message) = announcements.next().await {
            let announcement: Announcement = wire::decode(&message.payload).unwrap();
            if announcement.is_cut {
                return;
            }
        }
    };
    timeout(WAIT_TIMEOUT, is_cut).await.unwrap();
    for group in &groups {
        for member in [&alice, &bob] {
            member.hears(*group, 1, ROUND_TIMEOUT).await;
        }
    }
    for service in cluster.workers.iter().chain(&cluster.gateways) {
        let (status, degraded) = degraded(service.port()).await;
        assert_eq!(status, 200, "{degraded}");
        assert_eq!(degraded[0]["what"], "events_linger", "it lasts: {degraded}");
    }
    stream.accept().await;
    is_level(&cluster).await;
    for group in &groups {
        let said = alice.say(*group, "level again").await;
        bob.hears(*group, said, WAIT_TIMEOUT).await;
    }
    for member in [&alice, &bob] {
        assert_hears_only(member, &groups);
    }
    drop((alice, bob));
    cluster.end().await;
}
