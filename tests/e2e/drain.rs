//! A gateway that is told to stop sends its clients elsewhere within its drain time, and ends well.

use std::time::Duration;

use confab_protocol::frame::GoawayReason;
use tokio::time::Instant;

use crate::support::{Cluster, Setup, eventually};

const SOON: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_of_one_second_tells_everyone_and_ends_in_time() {
    let mut cluster = Cluster::start(Setup {
        gateways: 1,
        workers: 1,
        gateway_env: vec![("CONFAB_DRAIN", Some("1".to_owned()))],
        ..Setup::default()
    })
    .await;
    let mut members = Vec::new();
    for number in 0..20 {
        members.push(cluster.user(&format!("user-{number}")).on(0).await);
    }

    let begin = Instant::now();
    let status = cluster.gateways[0].process_mut().stop(SOON).await.unwrap();
    assert!(status.success(), "{status}");
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");

    for member in &members {
        let closed = eventually("the end", SOON, async || {
            member.record.borrow().closed.clone()
        });
        assert_eq!(closed.await.code, Some(1001));
        let record = member.record.borrow();
        let [goaway] = &record.goaways[..] else {
            panic!("{:?}", record.goaways);
        };
        assert_eq!(goaway.reason, GoawayReason::Drain);
        assert!(goaway.reconnect_after_ms <= 1000, "{goaway:?}");
    }
    drop(members);
    cluster.restart_gateway(0).await;
    cluster.end().await;
}
