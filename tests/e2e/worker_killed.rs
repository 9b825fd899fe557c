//! A killed worker loses no acknowledged send.

use std::sync::Arc;
use std::time::Duration;

use crate::support::{
    Cluster, Member, Owed, Setup, Traffic, assert_log, assert_stored, eventually, soak,
};

const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_sends_are_stored_once_despite_kills() {
    let mut cluster = Cluster::start(Setup::default()).await;
    let members = connect(&cluster).await;
    let ids: Vec<_> = members.iter().map(|member| member.id.clone()).collect();
    let mut groups = Vec::new();
    for member in &members {
        groups.push((member.create_group(&ids).await, members.clone()));
    }
    let count = soak(10_000, 2_000);

    let mut traffic = tokio::task::JoinSet::new();
    traffic.spawn(Traffic::deal(count, &groups).run());
    for round in 1..=2 {
        let progress = count * round / 4;
        heard_at_least(&members[0], progress).await;
        cluster.workers[0].process_mut().kill().unwrap();
        heard_at_least(&members[0], progress + count / 8).await;
        cluster.restart_worker(0).await;
    }
    let sent = traffic.join_all().await.concat();

    assert_eq!(sent.len(), count);
    assert_stored(&cluster, &sent).await;
    for (conversation, members) in &groups {
        let owed: Vec<_> = members.iter().map(|member| Owed::all(member)).collect();
        assert_log(&cluster, *conversation, &owed).await;
    }
    drop((members, groups));
    cluster.end().await;
}

async fn connect(cluster: &Cluster) -> Vec<Arc<Member>> {
    let mut members = Vec::new();
    for (number, name) in ["alice", "bob", "carol", "dave"].iter().enumerate() {
        members.push(Arc::new(cluster.user(name).on(number % 2).await));
    }
    members
}

/// A measure of progress: sending goes on while a worker is away.
async fn heard_at_least(member: &Member, count: usize) {
    eventually(&format!("{count} events heard"), WAIT_TIMEOUT, async || {
        let record = member.record.borrow();
        (record.events.values().map(Vec::len).sum::<usize>() >= count).then_some(())
    })
    .await;
}
