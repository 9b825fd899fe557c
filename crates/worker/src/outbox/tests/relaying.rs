//! What lingers is published, whatever stands in its way, and by whichever worker.

use std::time::{Duration, Instant};

use confab_stack::Traffic;
use tokio_util::sync::CancellationToken;

use super::part::{Part, execute};
use crate::outbox::relay;
use crate::testing::{eventually, message, soak, unsend};

/// How long marking may take where each answer of NATS comes late.
const LATE_TIMEOUT: Duration = Duration::from_secs(60);

/// A database whose clock has nothing to do with this worker's: what it stamps may lie ahead or behind.
#[tokio::test]
async fn row_stamped_ahead_is_relayed_at_once() {
    let part = Part::begin().await;
    part.verify().await.unwrap();
    part.commit().await;
    part.commit().await;
    execute(
        part.pool(),
        "update outbox set created_at = created_at + interval '1 hour'",
    )
    .await;
    let began = Instant::now();
    part.relay().await;
    assert!(began.elapsed() < Duration::from_secs(8));
    assert_eq!(part.messages().await, 2);
}

#[tokio::test]
async fn purged_event_holds_up_nothing() {
    let part = Part::begin().await;
    part.verify().await.unwrap();
    // A row whose only event is gone, one that lost one of two, and one behind them.
    part.commit().await;
    let items = ["one", "two"].map(|text| message(part.group, "alice", text));
    part.fixture.committer.finish_batch(&items).await;
    part.commit().await;
    execute(
        part.pool(),
        "delete from events where seq in (select min(seq) from events where type = 'message.created' \
            union select min(seq) + 1 from events where type = 'message.created')",
    )
    .await;
    part.relay().await;
    assert_eq!(part.marked().await, [true, true], "the first is forgotten");
    assert_eq!(part.messages().await, 2);
    assert_eq!(part.count("confab_outbox_unpublishable_total"), "2");
}

#[tokio::test]
async fn unreadable_event_is_stepped_over_and_retried() {
    let part = Part::begin().await;
    part.verify().await.unwrap();
    let items = ["broken", "good"].map(|text| message(part.group, "alice", text));
    part.fixture.committer.finish_batch(&items).await;
    for _ in 0..30 {
        part.commit().await;
    }
    let broken = "update events set type = 'message.unheard' \
        where seq = (select min(seq) from events where type = 'message.created')";
    execute(part.pool(), broken).await;
    eventually("the others are published", async || {
        part.turn().await;
        let marked = part.marked().await;
        marked[1..].iter().all(|is| *is).then_some(())
    })
    .await;
    part.turn().await;
    assert!(!part.marked().await[0]);
    assert_eq!(part.messages().await, 31, "the row's other event is out");
    assert_eq!(part.count("confab_outbox_stepped_over"), "1");
    assert_eq!(part.count("confab_outbox_lingering"), "0");
    assert_eq!(part.count("confab_outbox_unpublishable_total"), "1");

    // For nothing: it is tried more rarely from then on.
    part.retry().await;
    assert_eq!(part.attempts().await, 2);
    part.retry().await;
    assert_eq!(part.attempts().await, 3);
    part.retry().await;
    assert_eq!(part.attempts().await, 3);
    let mended = "update events set type = 'message.created' where type = 'message.unheard'";
    execute(part.pool(), mended).await;
    part.retry().await;
    assert!(part.marked().await[0]);
    assert_eq!(part.messages().await, 32);
    assert_eq!(
        part.count("confab_outbox_unpublishable_total"),
        "1",
        "told once"
    );
    let told = part.stepped_over().await;
    let seqs: Vec<_> = told.iter().flatten().map(|key| key.seq).collect();
    assert_eq!(
        seqs,
        [3],
        "of its two events the one that can be read, once"
    );
}

#[tokio::test]
async fn event_larger_than_message_is_stepped_over() {
    let part = Part::begin().await;
    part.verify().await.unwrap();
    part.commit().await;
    part.commit().await;
    let grown = "update events set payload = '{\"kind\":\"text\",\"content\":\"' || repeat('x', 2000000) || '\",\"metadata\":{}}' \
        where seq = (select min(seq) from events where type = 'message.created')";
    execute(part.pool(), grown).await;
    eventually("the other is published", async || {
        part.turn().await;
        (part.marked().await == [false, true] && part.attempts().await == 1).then_some(())
    })
    .await;
    assert_eq!(part.messages().await, 1);
    assert_eq!(part.count("confab_outbox_unpublishable_total"), "1");
}

/// A worker that claims rows and stops leaves them to the next pass.
#[tokio::test]
async fn claim_of_stopped_worker_is_relayed_by_another() {
    let part = Part::begin().await;
    part.verify().await.unwrap();
    for _ in 0..5 {
        part.commit().await;
    }
    eventually("a relay claims and stops", async || {
        relay::claim_and_stop(part.connections())
            .await
            .then_some(())
    })
    .await;
    let began = Instant::now();
    part.relay().await;
    assert!(began.elapsed() < Duration::from_secs(8));
    assert_eq!(part.messages().await, 5);
}

/// The relay holds no lock and no transaction while NATS is silent, and publishes all when it answers.
#[tokio::test]
async fn silent_nats_holds_up_no_rows() {
    let mut part = Part::begin().await;
    part.verify().await.unwrap();
    for _ in 0..50 {
        part.commit().await;
    }
    eventually("they linger", async || {
        part.turn().await;
        (part.count("confab_outbox_lingering") != "0").then_some(())
    })
    .await;
    execute(
        part.pool(),
        "update outbox set published_at = null, stream_created = null, stream_seq = null, stream_event_id = null",
    )
    .await;
    part.nats.process().unwrap().pause().unwrap();
    let ((), idle) = tokio::join!(part.turn(), idle_in_transaction(&part));
    assert_eq!(idle, 0);
    part.nats.process().unwrap().resume().unwrap();
    part.wait_for(true).await;
    eventually("the stream is compared", async || part.verify().await.ok()).await;
    part.relay().await;
    assert_eq!(part.messages().await, 50);
}

/// Acknowledgements take longer than a worker may stand inside a transaction, and than the relay waits for them.
#[tokio::test]
async fn late_acknowledgements_leave_no_row_unmarked() {
    const ROWS: usize = 20;
    let (part, mut proxy) = Part::behind_proxy().await;
    part.verify().await.unwrap();
    let mut published = 0;
    for (delay_ms, outlasts_relay) in [(1_500, false), (4_000, true)] {
        for _ in 0..ROWS {
            part.commit().await;
        }
        published += ROWS as u64;
        proxy
            .set(Traffic::DelayDown(Duration::from_millis(delay_ms)))
            .await;
        let began = Instant::now();
        let is_over = || match outlasts_relay {
            true => began.elapsed() > Duration::from_millis(3 * delay_ms),
            false => began.elapsed() > LATE_TIMEOUT,
        };
        let mut most_idle = 0;
        while part.unpublished().await > 0 && !is_over() {
            let ((), idle) = tokio::join!(part.turn(), idle_in_transaction(&part));
            most_idle = most_idle.max(idle);
        }
        assert_eq!(most_idle, 0, "{delay_ms} ms");
        assert!(
            outlasts_relay || part.unpublished().await == 0,
            "{delay_ms} ms"
        );
        println!(
            "{delay_ms} ms: {} rows left after {:?}",
            part.unpublished().await,
            began.elapsed()
        );
        proxy.set(Traffic::Pass).await;
        // A link whose pings are answered so late may have counted as broken.
        eventually("all is marked", async || {
            part.verify().await.ok()?;
            part.turn().await;
            (part.unpublished().await == 0).then_some(())
        })
        .await;
        assert_eq!(part.messages().await, published, "none is there twice");
    }
}

/// The most transactions that this worker left idle for half a second, over two.
async fn idle_in_transaction(part: &Part) -> i64 {
    let text = "select count(*) from pg_stat_activity where datname = current_database() \
        and state like 'idle in transaction%' and application_name = 'confab-worker tests' \
        and clock_timestamp() - state_change > interval '500 milliseconds'";
    let mut most = 0;
    for _ in 0..20 {
        let count = sqlx::query_scalar(text).fetch_one(part.pool());
        most = most.max(count.await.unwrap());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    most
}

/// Between the relay's reading and its publishing a deletion may be committed and published: consumers put events in the order of their
/// seqs, so that the deletion has the last word. What is read behind the deletion has no content.
#[tokio::test]
async fn message_deleted_while_it_lingers_is_relayed_without_content() {
    let part = Part::begin().await;
    part.verify().await.unwrap();
    let commit = part.commit().await;
    let before = String::from_utf8(commit.events[0].json.to_vec()).unwrap();
    assert!(before.contains("here"));
    let (outcome, _) = part
        .fixture
        .alone("alice", unsend(Some(part.group), commit.events[0].id))
        .await;
    outcome.unwrap();
    part.relay().await;
    let published = part.published().await;
    assert_eq!(published.len(), 2);
    assert!(
        published.iter().all(|json| !json.contains("here")),
        "{published:?}"
    );
}

/// One-event commits that two relays drain in a second at least, in a release build.
const MIN_DRAIN_RATE: f64 = 20_000.0;

/// `CONFAB_TEST_SOAK=1` drains 100,000, and in a release build asserts the rate; `--nocapture` shows the figure.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backlog_is_drained_by_two_relays_once() {
    let part = Part::begin().await;
    part.verify().await.unwrap();
    let count = soak(100_000, 2_000);
    part.backlog(count).await;
    part.turn().await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let (began, stop) = (Instant::now(), CancellationToken::new());
    let mut another = part.another_relay();
    another.turn(&stop).await.unwrap();
    let mut is_second = soak(0, 1) == 1;
    loop {
        part.turn().await;
        if is_second {
            another.turn(&stop).await.unwrap();
            is_second = false;
        }
        if part.unpublished().await == 0 {
            break;
        }
    }
    let took = began.elapsed();
    let rate = f64::from(u32::try_from(count).unwrap()) / took.as_secs_f64();
    println!("{count} one-event commits drained in {took:?}: {rate:.0}/s");
    assert_eq!(part.messages().await, count as u64);
    let is_measured = soak(1, 0) == 1 && !cfg!(debug_assertions);
    assert!(!is_measured || rate >= MIN_DRAIN_RATE, "{rate:.0}/s");
}
