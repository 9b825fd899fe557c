//! What is not published is announced by its keys, and its age told.

use std::time::{Duration, Instant};

use confab_bus::{Announcements, BusError};
use confab_protocol::lingering::{Announced, AnnouncementKind, Joined};
use futures_util::FutureExt as _;

use super::part::{Part, execute};
use crate::testing::eventually;

/// What is announced of the one tenant that tests have.
async fn announced(part: &Part, heard: &mut Announcements) -> Announced {
    eventually("it is announced", async || {
        part.announce().await;
        let announcement = heard.next().now_or_never().flatten()?;
        assert_eq!(announcement.kind, AnnouncementKind::Lingering);
        assert!(!announcement.is_cut && announcement.tenants.len() == 1);
        announcement.tenants.into_iter().next()
    })
    .await
}

fn oldest(part: &Part) -> f64 {
    part.count("confab_outbox_oldest_seconds").parse().unwrap()
}

#[tokio::test]
async fn unpublished_commit_is_announced_until_published() {
    let part = Part::begin().await;
    part.verify().await.unwrap();
    let mut heard = Announcements::open(&part.bus).await.unwrap();
    let commits = [part.commit().await, part.commit().await];
    let told = announced(&part, &mut heard).await;
    let newest = commits[1].events[0].seq;
    assert_eq!(told.heads, [(part.group, newest)]);
    assert!(told.joined.is_empty());
    assert!(oldest(&part) >= 2.0);
    assert!(part.since.borrow().is_some());
    let again = announced(&part, &mut heard).await;
    assert_eq!(again, told, "as long as it lasts");

    for commit in &commits {
        part.publish(commit).await;
    }
    part.announce().await;
    assert!(oldest(&part) < 0.1);
    assert_eq!(part.count("confab_outbox_lingering"), "0");
    while heard.next().now_or_never().is_some() {}
    eventually("it is over", async || {
        part.announce().await;
        part.since.borrow().is_none().then_some(())
    })
    .await;
    assert!(heard.next().now_or_never().is_none());
}

#[tokio::test]
async fn announcement_names_users_who_joined() {
    let part = Part::begin().await;
    part.verify().await.unwrap();
    let mut heard = Announcements::open(&part.bus).await.unwrap();
    let group = part.fixture.group(&["alice", "bob"]).await;
    let told = announced(&part, &mut heard).await;
    assert_eq!(told.heads, [(group, 1)]);
    let users = ["alice", "bob"].map(|user| user.parse().unwrap());
    let joined = Joined {
        conversation: group,
        seq: 1,
        users: users.to_vec(),
    };
    assert_eq!(told.joined, [joined]);
}

#[tokio::test]
async fn age_is_told_while_nats_is_away() {
    let mut part = Part::begin().await;
    part.verify().await.unwrap();
    part.nats.kill().unwrap();
    part.wait_for(false).await;
    part.commit().await;
    eventually("its age is told", async || {
        part.announce().await;
        (oldest(&part) > 3.0).then_some(())
    })
    .await;
    assert_eq!(part.count("confab_outbox_lingering"), "1");
}

#[tokio::test]
async fn stepped_over_commit_counts_no_more() {
    let part = Part::begin().await;
    part.verify().await.unwrap();
    part.commit().await;
    execute(part.pool(), "update outbox set attempts = 1").await;
    let mut heard = Announcements::open(&part.bus).await.unwrap();
    let began = Instant::now();
    eventually("it is old enough", async || {
        part.announce().await;
        (began.elapsed() > Duration::from_secs(3)).then_some(())
    })
    .await;
    assert!(oldest(&part) < 0.1);
    assert_eq!(part.count("confab_outbox_stepped_over"), "1");
    assert!(part.since.borrow().is_none());
    assert!(heard.next().now_or_never().is_none());
}

/// What failed before is published at once when JetStream works again, and nothing is said after it.
#[tokio::test]
async fn publishing_holds_again_without_another_event() {
    let part = Part::begin().await;
    part.verify().await.unwrap();
    let commit = part.commit().await;
    part.standing.not_published(&BusError::Timeout);
    part.publish(&commit).await;
    assert!(part.standing.is_failing());
    eventually("it holds again", async || {
        part.announce().await;
        (!part.standing.is_failing()).then_some(())
    })
    .await;
}
