//! Whether this gateway has lost the others. It cannot tell why: all it knows is that NATS is away, also when that only
//! swallows packets, since the link is pinged every two seconds.

use std::time::Duration;

use confab_bus::Link;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::info;

/// How long NATS may be away until clients are told to try elsewhere: a server that is only restarted is back sooner.
const DEGRADED_DELAY: Duration = Duration::from_secs(3);

/// Says whether the gateway is cut off, until `stop`.
pub(crate) async fn run(
    link: watch::Receiver<Link>,
    degraded: watch::Sender<bool>,
    stop: CancellationToken,
) {
    stop.run_until_cancelled(follow(link, degraded)).await;
}

async fn follow(mut link: watch::Receiver<Link>, degraded: watch::Sender<bool>) {
    while link.wait_for(|link| !link.connected).await.is_ok() {
        let back = link.wait_for(|link| link.connected);
        if let Ok(back) = tokio::time::timeout(DEGRADED_DELAY, back).await {
            if back.is_err() {
                return;
            }
            continue;
        }
        info!("NATS is away: clients are told to try elsewhere");
        degraded.send_replace(true);
        if link.wait_for(|link| link.connected).await.is_err() {
            return;
        }
        info!("NATS is back: clients are not told to try elsewhere any more");
        degraded.send_replace(false);
    }
}

/// Comes when the gateway is found to be cut off, once each time. Cancel-safe.
pub(crate) async fn found(degraded: &mut watch::Receiver<bool>) {
    while degraded.changed().await.is_ok() {
        if *degraded.borrow_and_update() {
            return;
        }
    }
    std::future::pending::<()>().await;
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinSet;
    use tokio::time::{Instant, timeout};

    use super::*;

    const CONNECTED_LINK: Link = Link {
        connected: true,
        epoch: 1,
    };

    #[tokio::test(start_paused = true)]
    async fn long_absence_is_told_once() {
        let (link, of_link) = watch::channel(CONNECTED_LINK);
        let (degraded, mut of_degraded) = watch::channel(false);
        let mut tasks = JoinSet::new();
        tasks.spawn(follow(of_link, degraded));
        let away = Link {
            connected: false,
            epoch: 1,
        };
        let long = Duration::from_secs(60);
        link.send_replace(away);
        tokio::time::sleep(DEGRADED_DELAY / 2).await;
        link.send_replace(CONNECTED_LINK);
        assert!(timeout(long, found(&mut of_degraded)).await.is_err());
        for _ in 0..2 {
            let begin = Instant::now();
            link.send_replace(away);
            timeout(long, found(&mut of_degraded)).await.unwrap();
            assert_eq!(begin.elapsed(), DEGRADED_DELAY);
            assert!(timeout(long, found(&mut of_degraded)).await.is_err());
            link.send_replace(CONNECTED_LINK);
            assert!(timeout(long, found(&mut of_degraded)).await.is_err());
        }
        link.send_replace(away);
        tokio::time::sleep(2 * DEGRADED_DELAY).await;
        let mut opened_meanwhile = of_degraded.clone();
        timeout(long, found(&mut opened_meanwhile)).await.unwrap();
    }
}
