//! Every scenario of `confab bench` reports the numbers that it promises, whatever their values.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;
use tokio::time::timeout;

use crate::support::{Cluster, Folder, Setup, TOKEN_ISSUER};

/// How long one scenario with small counts may take on a machine that runs other tests.
const SCENARIO_TIMEOUT: Duration = Duration::from_secs(180);

/// Runs `confab bench` with these arguments, and gives what it printed.
async fn bench(folder: &Path, args: &[&str]) -> Value {
    let ended = run(folder, args).await;
    let told = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{args:?}: {told}");
    let printed: Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!(printed["scenario"], args[0]);
    printed["measured"].clone()
}

async fn run(folder: &Path, args: &[&str]) -> Output {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.confab/tools");
    let mut command = Command::new(env!("CARGO_BIN_EXE_confab"));
    command
        .args(["bench", "--json"])
        .args(args)
        .env("CONFAB_BENCH_TOOLS_DIR", tools)
        .env("CONFAB_BENCH_DATA_DIR", folder)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let ended = timeout(SCENARIO_TIMEOUT, command.output()).await;
    let ended =
        ended.unwrap_or_else(|_late| panic!("{args:?} took longer than {SCENARIO_TIMEOUT:?}"));
    ended.unwrap()
}

/// The number at a pointer, which must be above 0.
fn above_zero(measured: &Value, at: &str) -> f64 {
    let number = measured.pointer(at).and_then(Value::as_f64);
    let number = number.unwrap_or_else(|| panic!("no number at {at} in {measured:#}"));
    assert!(number > 0.0, "{at} in {measured:#}");
    number
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sends_at_rate_reach_every_member() {
    let folder = Folder::of_test();
    let load = [
        "--rate=40",
        "--connections=4",
        "--conversations=8",
        "--members=3",
    ];
    let time = ["--warm-up=1", "--seconds=1"];
    for by in [&[][..], &["--http"]] {
        let args = [&["send"], &load[..], &time[..], by].concat();
        let sends = bench(folder.path(), &args).await;
        let acknowledged = above_zero(&sends, "/acknowledged/count");
        assert!((39.0..=41.0).contains(&acknowledged), "{sends:#}");
        let heard = above_zero(&sends, "/heard/count");
        assert_eq!(heard, 3.0 * acknowledged, "{sends:#}");
        assert_eq!(
            (&sends["failed"], &sends["unanswered"]),
            (&0.into(), &0.into())
        );
        let (p50, p99) = (
            above_zero(&sends, "/acknowledged/p50"),
            above_zero(&sends, "/acknowledged/p99"),
        );
        assert!(p50 <= p99 && p99 <= above_zero(&sends, "/acknowledged/max"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn saturating_sends_are_counted_with_their_cost() {
    let folder = Folder::of_test();
    let args = "send --max --in-flight=2 --connections=4 --conversations=8 --warm-up=1 --seconds=2";
    let sends = bench(folder.path(), &args.split(' ').collect::<Vec<_>>()).await;
    let (rate, events) = (above_zero(&sends, "/sends"), above_zero(&sends, "/events"));
    assert!(
        (1.0..3.0).contains(&(events / rate)),
        "two members: {sends:#}"
    );
    // The kernel books hundredths of a second: of the others there may be none in so few sends.
    above_zero(&sends, "/processor/gateways");
    above_zero(&sends, "/processor/load");
    assert_eq!(sends["failed"], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fan_out_beside_baseline_reaches_every_member() {
    let folder = Folder::of_test();
    let args = "fanout --members=20 --rate=20 --warm-up=0 --seconds=1 --bare --sends-beside=20";
    let fanout = bench(folder.path(), &args.split(' ').collect::<Vec<_>>()).await;
    for at in [
        "/confab/frames",
        "/bare/frames",
        "/ratio",
        "/beside/with/acknowledged/p99",
        "/beside/without/acknowledged/p99",
    ] {
        above_zero(&fanout, at);
    }
    let frames = above_zero(&fanout, "/confab/frames");
    assert!(
        (200.0..=600.0).contains(&frames),
        "400 a second were said: {fanout:#}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_stay_open_while_memory_measured() {
    let folder = Folder::of_test();
    let args = "idle --connections=200 --conversations=2 --members=10 --settle=0.4";
    let idle = bench(folder.path(), &args.split(' ').collect::<Vec<_>>()).await;
    for whose in ["gateway", "bare"] {
        let held = &idle[whose];
        assert!(above_zero(held, "/sockets") >= 200.0, "{idle:#}");
        let with_first = above_zero(held, "/ownWithFirst");
        let with_all = above_zero(held, "/ownWithAll");
        above_zero(held, "/ownAtStart");
        // Whether a process grows for so few is for its allocator to say: each of its threads keeps some MiB free.
        let each = held["own"].as_f64().unwrap();
        assert!(
            (with_first + 160.0 * each - with_all).abs() < 1.0,
            "{idle:#}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resume_storm_completes_with_and_without_window() {
    let folder = Folder::of_test();
    let args = "resume --both --sessions=40 --conversations=2 --members=10 --missed=2";
    let storms = bench(folder.path(), &args.split(' ').collect::<Vec<_>>()).await;
    for storm in ["withWindow", "withoutWindow"] {
        above_zero(&storms, &format!("/{storm}/resumes"));
        let tries = above_zero(&storms, &format!("/{storm}/tries"));
        assert!(tries >= 1.0, "{storms:#}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_do_alone_what_they_are_asked_for() {
    let folder = Folder::of_test();
    let args = ["limits", "--part-seconds=1", "--sockets=100"];
    let limits = bench(folder.path(), &args).await;
    above_zero(&limits, "/singleCommit/perSecond");
    let single = above_zero(&limits, "/singleCommit/latency/p50");
    let batches = limits["batchCommits"].as_array().unwrap();
    assert!(batches.len() > 1 && single > 0.0);
    for batch in batches {
        above_zero(batch, "/perSecond");
        above_zero(batch, "/events");
    }
    for part in ["roundTrip", "requests", "publish", "replay"] {
        above_zero(&limits, &format!("/{part}/perSecond"));
    }
    above_zero(&limits, "/live/perSecond");
    for at in ["perSecond", "latency/p50", "serverMicros"] {
        above_zero(&limits, &format!("/bareFanOut/{at}"));
    }
    assert_eq!(limits["bareFanOut"]["sockets"], 100);
    assert!(
        above_zero(&limits, "/bareIdle/sockets") >= 100.0,
        "{limits:#}"
    );
    above_zero(&limits, "/bareIdle/ownWithAll");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_pages_are_equally_full_in_large_database() {
    let folder = Folder::of_test();
    let args =
        "history --events=4000 --conversations=40 --rounds=1 --round-seconds=0.2 --call-rate=20";
    let history = bench(folder.path(), &args.split(' ').collect::<Vec<_>>()).await;
    for call in history["calls"].as_array().unwrap() {
        above_zero(call, "/ratio");
        let items = (
            above_zero(call, "/large/items"),
            above_zero(call, "/small/items"),
        );
        if call["call"] == "newest" {
            assert_eq!(items.0, items.1, "{call:#}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interrupted_database_seed_is_redone_from_start() {
    let folder = Folder::of_test();
    let args = [
        "history",
        "--prepare",
        "--events=2000",
        "--conversations=20",
    ];
    let made = bench(folder.path(), &args).await;
    above_zero(&made, "/seconds");
    above_zero(&made, "/bytes");
    let found = bench(folder.path(), &args).await;
    assert_eq!(
        (&found["seconds"], &found["events"]),
        (&Value::Null, &2000.into())
    );
    let lock = folder.path().join("history-2000-20.lock");
    let lock = std::fs::File::open(lock).unwrap();
    lock.lock().unwrap();
    let refused = run(folder.path(), &args).await;
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(
        !refused.status.success() && told.contains("another bench works with"),
        "{told}"
    );
    drop(lock);
    let kept = folder.path().join("history-2000-20");
    std::fs::remove_file(kept.join("filled.json")).unwrap();
    above_zero(&bench(folder.path(), &args).await, "/seconds");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_runs_against_running_installation() {
    let folder = Folder::of_test();
    let cluster = Cluster::start(Setup::default()).await;
    let file = folder.path().join("key.pem");
    std::fs::write(&file, cluster.key.private_pem()).unwrap();
    let [first, second] = [0, 1].map(|number: usize| cluster.gateways[number].url());
    let there = [
        format!("--gateway={first}/"),
        format!("--gateway={second}"),
        format!("--key={}", file.display()),
        format!("--issuer={TOKEN_ISSUER}"),
    ];
    let there: Vec<&str> = there.iter().map(String::as_str).collect();
    let load =
        "send --rate=40 --connections=4 --conversations=8 --members=3 --warm-up=1 --seconds=1";
    for by in [&[][..], &["--http"]] {
        let load: Vec<_> = load.split(' ').collect();
        let sends = bench(folder.path(), &[&load, &there[..], by].concat()).await;
        let acknowledged = above_zero(&sends, "/acknowledged/count");
        assert!((39.0..=41.0).contains(&acknowledged), "{sends:#}");
        let heard = above_zero(&sends, "/heard/count");
        assert_eq!(heard, 3.0 * acknowledged, "{sends:#}");
        assert_eq!(
            (&sends["failed"], &sends["processor"]),
            (&0.into(), &Value::Null)
        );
    }
    let load = "fanout --members=20 --rate=20 --warm-up=0 --seconds=1 --bare --sends-beside=20";
    let load: Vec<_> = load.split(' ').collect();
    let fanout = bench(folder.path(), &[&load, &there[..]].concat()).await;
    for at in [
        "/confab/frames",
        "/bare/frames",
        "/ratio",
        "/beside/with/acknowledged/p99",
    ] {
        above_zero(&fanout, at);
    }
    assert_eq!(fanout["confab"]["processor"], Value::Null);
    let stored = "select count(*), count(distinct conversation_id) from events where type = 'message.created'";
    let (stored, conversations): (i64, i64) = sqlx::query_as(stored)
        .fetch_one(&cluster.store)
        .await
        .unwrap();
    // Two loads of two seconds, and three turns of a fan-out; into 8 conversations each, and one.
    assert!(
        stored > 2 * 70 + 50 && conversations > 8 + 8,
        "{stored} in {conversations}"
    );
    for scenario in ["idle", "resume", "history", "limits", "ratios"] {
        let ended = run(folder.path(), &[&[scenario], &there[..3]].concat()).await;
        let told = String::from_utf8_lossy(&ended.stderr);
        assert!(!ended.status.success(), "{scenario}: {told}");
        let why = format!("`{scenario}` measures servers that it starts itself");
        assert!(told.contains(&why), "{scenario}: {told}");
    }
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neighbours_are_measured_alone_and_beside_each_worst() {
    let folder = Folder::of_test();
    let load = ["neighbours", "--rate=40", "--seconds=1", "--sockets=1"];
    let worst = ["--conversations=2", "--worst=changes,ping"];
    let measured = bench(folder.path(), &[&load[..], &worst[..]].concat()).await;
    assert_eq!(measured.pointer("/0/worst").unwrap(), "changes");
    assert_eq!(measured.pointer("/1/worst").unwrap(), "ping");
    for at in ["/0/ratio", "/1/heardRatio"] {
        above_zero(&measured, at);
    }
    for at in ["/0/alone", "/0/beside", "/1/alone", "/1/beside"] {
        // Whenever it came: what the machine does in one second is not for a test.
        above_zero(&measured, &format!("{at}/acknowledged/count"));
    }
}
