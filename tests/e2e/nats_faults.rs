//! NATS restarts, is erased or is restored: sockets stay open and every acknowledged event arrives.

use std::sync::Arc;
use std::time::Duration;

use confab_protocol::ids::ConversationId;

use crate::support::{
    Cluster, Member, Owed, Setup, Traffic, assert_log, assert_stored, eventually, membership, soak,
};

const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_nats_loses_nothing() {
    survives(async |cluster| cluster.nats.restart().await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erased_store_loses_nothing() {
    survives(async |cluster| {
        cluster.nats.kill().unwrap();
        cluster.nats.erase_store().unwrap();
        cluster.nats.up().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_copy_of_the_store_loses_nothing() {
    survives(async |cluster| {
        cluster.nats.kill().unwrap();
        cluster.nats.put_back_store().unwrap();
        cluster.nats.up().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_and_nats_store_gone_lose_nothing() {
    survives(async |cluster| {
        for worker in &mut cluster.workers {
            worker.process_mut().kill().unwrap();
        }
        cluster.nats.kill().unwrap();
        cluster.nats.erase_store().unwrap();
        cluster.nats.up().await.unwrap();
        for number in 0..cluster.workers.len() {
            cluster.restart_worker(number).await;
        }
    })
    .await;
}

/// Members talk, users are added right before the fault and right behind it.
async fn survives(fault: impl AsyncFnOnce(&mut Cluster)) {
    let mut cluster = Cluster::start(Setup::default()).await;
    cluster.nats.kill().unwrap();
    cluster.nats.copy_store().unwrap();
    cluster.nats.up().await.unwrap();
    cluster.ready().await;
    let (members, newcomers) = connect(&cluster).await;
    let ids: Vec<_> = members.iter().map(|member| member.id.clone()).collect();
    let mut groups = Vec::new();
    for member in &members {
        groups.push((member.create_group(&ids).await, members.clone()));
    }
    let count = soak(6_000, 1_200);
    let mut traffic = tokio::task::JoinSet::new();
    traffic.spawn(Traffic::deal(count, &groups).run());
    heard_at_least(&members[0], count / 3).await;

    let (first, second) = (groups[0].0, groups[1].0);
    add_until_answered(&members[0], first, &newcomers[0]).await;
    fault(&mut cluster).await;
    add_until_answered(&members[1], second, &newcomers[1]).await;
    let sent = traffic.join_all().await.concat();

    assert_eq!(sent.len(), count);
    assert_stored(&cluster, &sent).await;
    for (conversation, members) in &groups {
        let mut owed: Vec<_> = members.iter().map(|member| Owed::all(member)).collect();
        for (newcomer, joins) in newcomers.iter().zip([first, second]) {
            if joins == *conversation {
                let (from, _) = membership(&cluster, joins, &newcomer.id).await;
                owed.push(Owed {
                    from,
                    ..Owed::all(newcomer)
                });
            }
        }
        assert_log(&cluster, *conversation, &owed).await;
    }
    for member in members.iter().chain(&newcomers) {
        let closed = member.record.borrow().closed.clone();
        assert!(closed.is_none(), "{} was closed: {closed:?}", member.id);
    }
    drop((members, newcomers, groups));
    cluster.end().await;
}

/// Members on both gateways, and users who are members nowhere yet.
async fn connect(cluster: &Cluster) -> (Vec<Arc<Member>>, Vec<Arc<Member>>) {
    let mut members = Vec::new();
    for (number, name) in ["alice", "bob", "carol", "dave", "erin", "frank"]
        .iter()
        .enumerate()
    {
        members.push(Arc::new(cluster.user(name).on(number % 2).await));
    }
    let newcomers = members.split_off(4);
    (members, newcomers)
}

async fn add_until_answered(admin: &Member, conversation: ConversationId, newcomer: &Member) {
    use confab_client::{ClientError, NewMembers};
    use confab_protocol::error::Code;
    use confab_protocol::event::Member as NewMember;
    let user_id = newcomer.id.clone();
    let role = confab_protocol::resource::Role::Member;
    let members = NewMembers {
        participants: vec![NewMember { user_id, role }],
    };
    eventually("an addition is answered", WAIT_TIMEOUT, async || {
        match admin.http.add_participants(conversation, &members).await {
            Ok(_) => Some(()),
            // A try whose answer was lost may have been carried out.
            Err(ClientError::Problem(problem)) if problem.code == Code::AlreadyParticipant => {
                Some(())
            }
            Err(ClientError::Problem(problem)) if problem.code.retryable() => None,
            Err(error) => panic!("{error:?}"),
        }
    })
    .await;
}

/// A measure of progress: the fault comes amid sends.
async fn heard_at_least(member: &Member, count: usize) {
    eventually(&format!("{count} events heard"), WAIT_TIMEOUT, async || {
        let record = member.record.borrow();
        (record.events.values().map(Vec::len).sum::<usize>() >= count).then_some(())
    })
    .await;
}
