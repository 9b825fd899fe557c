//! Faults under load lose and repeat nothing, as the history checker verifies (promise 4).

use std::time::Duration;

use confab_stack::Proxy;

use crate::history::{HistoryLoad, LoadShape};
use crate::support::{Cluster, Setup, sample};

mod chaos;
mod frozen;
mod gateways;
mod links;
mod nats;
mod pauses;
mod poison;
mod postgres;
mod rolling;
mod slow;
mod storm;
mod truncated;
mod workers;

/// How long something may take that the test waits for.
const WAIT_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a page may take.
const PAGE_TIMEOUT: Duration = Duration::from_secs(2);

/// Two of each, with a heartbeat that a client need not wait long for, and users who are soon told to be gone.
fn setup() -> Setup {
    Setup {
        gateway_env: vec![
            ("CONFAB_HEARTBEAT", Some("2".to_owned())),
            ("CONFAB_PRESENCE_GRACE", Some("1".to_owned())),
        ],
        ..Setup::default()
    }
}

/// A link of the clients to each gateway, and where they connect then.
async fn links(cluster: &Cluster) -> (Vec<Proxy>, Vec<String>) {
    let (mut links, mut urls) = (Vec::new(), Vec::new());
    for gateway in &cluster.gateways {
        let address = ([127, 0, 0, 1], gateway.port()).into();
        let link = Proxy::narrow(address, 16 * 1024).await.unwrap();
        urls.push(format!("http://127.0.0.1:{}", link.port()));
        links.push(link);
    }
    (links, urls)
}

/// A load whose clients connect through links.
async fn linked(cluster: &Cluster) -> (Vec<Proxy>, HistoryLoad) {
    let (links, urls) = links(cluster).await;
    let shape = LoadShape {
        urls: Some(urls),
        ..LoadShape::default()
    };
    let load = HistoryLoad::start(cluster, shape).await;
    (links, load)
}

/// Whether a gateway says that it may serve.
async fn is_ready(cluster: &Cluster, gateway: usize) -> bool {
    let port = cluster.gateways[gateway].port();
    let answer = confab_stack::get(port, "/ready", PAGE_TIMEOUT).await;
    matches!(answer, Ok((200, _)))
}

/// The sum of a metric's samples over all gateways; 0 where it has none.
async fn metric(cluster: &Cluster, name: &str) -> f64 {
    let mut sum = 0.0;
    for gateway in &cluster.gateways {
        sum += sample(gateway.port(), name).await;
    }
    sum
}
