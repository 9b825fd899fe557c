//! A message reaches every member at every gateway from any gateway.

use std::sync::Arc;

use confab_client::Encoding;
use confab_protocol::ids::{ConversationId, UserId};

use crate::support::{
    Cluster, Member, Owed, Setup, Traffic, assert_hears_only, assert_log, assert_stored,
};

const USER_COUNT: usize = 20;
const CONVERSATION_COUNT: usize = 10;
const CONVERSATION_MEMBERS: usize = 6;
const MESSAGE_COUNT: usize = 2_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_receive_each_message_once_as_history() {
    let cluster = Cluster::start(Setup::default()).await;
    let members = connect(&cluster).await;
    let groups = create(&members).await;

    let sent = Traffic::deal(MESSAGE_COUNT, &groups).run().await;

    assert_eq!(sent.len(), MESSAGE_COUNT);
    assert_stored(&cluster, &sent).await;
    for (conversation, members) in &groups {
        let owed: Vec<_> = members.iter().map(|member| Owed::all(member)).collect();
        assert_log(&cluster, *conversation, &owed).await;
    }
    for member in &members {
        assert_hears_only(member, &of(member, &groups));
    }
    drop((members, groups));
    cluster.end().await;
}

/// Users on both gateways, speaking both subprotocols on each.
async fn connect(cluster: &Cluster) -> Vec<Arc<Member>> {
    let mut members = Vec::new();
    for number in 0..USER_COUNT {
        let encoding = if number % 4 < 2 {
            Encoding::Json
        } else {
            Encoding::MsgPack
        };
        let user = cluster.user(&format!("user-{number}"));
        members.push(Arc::new(user.speaking(encoding, number % 2).await));
    }
    members
}

/// Conversations whose members overlap, each with members on both gateways.
async fn create(members: &[Arc<Member>]) -> Vec<(ConversationId, Vec<Arc<Member>>)> {
    let mut groups = Vec::new();
    for number in 0..CONVERSATION_COUNT {
        let group: Vec<_> = (0..CONVERSATION_MEMBERS)
            .map(|place| Arc::clone(&members[(2 * number + 3 * place) % USER_COUNT]))
            .collect();
        let ids: Vec<UserId> = group.iter().map(|member| member.id.clone()).collect();
        groups.push((group[0].create_group(&ids).await, group));
    }
    groups
}

fn of(member: &Arc<Member>, groups: &[(ConversationId, Vec<Arc<Member>>)]) -> Vec<ConversationId> {
    let own = |(id, members): &(ConversationId, Vec<Arc<Member>>)| {
        members
            .iter()
            .any(|other| Arc::ptr_eq(other, member))
            .then_some(*id)
    };
    groups.iter().filter_map(own).collect()
}
