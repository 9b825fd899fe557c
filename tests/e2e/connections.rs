//! A worker needs few Postgres connections, and a pooler in front must keep their settings.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use confab_stack::{Launch, Process, free_port};
use serde_json::json;
use tokio::task::JoinSet;

use crate::doctor::{begin, told_time, worker, written};
use crate::support::{Cluster, Database, DatabaseRole, Folder, Setup, eventually, id_of};

/// How long a send may be refused in a row, on a machine that runs other tests.
const LONGEST_REFUSAL: Duration = Duration::from_secs(30);
/// Reads at once, more than there are connections.
const READ_COUNT: usize = 40;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker_of_six_connections_sends_after_reads() {
    let mut cluster = Cluster::start(Setup {
        gateways: 1,
        workers: 1,
        ..Setup::default()
    })
    .await;
    let role = DatabaseRole::new(&cluster, "password 'few' connection limit 6").await;
    let url = role.url(&cluster, "few");
    let few = cluster.begin_worker(&[("CONFAB_DATABASE_URL", Some(url))]);
    cluster.ready().await;
    cluster.workers[0].process_mut().kill().unwrap();

    let alice = cluster.user("alice");
    let send = async |path: &str| {
        let began = Instant::now();
        let id = id_of(path);
        let message = json!({"conversationId": id, "kind": "text", "content": {"text": "hello"}});
        eventually("a send is taken", LONGEST_REFUSAL, async || {
            let sent = alice.post(0, "/v1/messages", message.clone()).await;
            (sent.status == 201).then_some(())
        })
        .await;
        began.elapsed()
    };
    let path = eventually("a conversation begins", LONGEST_REFUSAL, async || {
        let group = json!({"type": "group", "participants": ["bob"]});
        let created = alice.post(0, "/v1/conversations", group).await;
        (created.status == 201).then(|| created.header("location").unwrap().to_owned())
    })
    .await;
    send(&path).await;
    let mut longest = Duration::ZERO;
    for _ in 0..3 {
        let mut reads = JoinSet::new();
        for _ in 0..READ_COUNT {
            let (alice, path) = (alice.clone(), format!("{path}/messages"));
            reads.spawn(async move { alice.get(0, &path).await.status });
        }
        let statuses = reads.join_all().await;
        assert!(statuses.contains(&200), "{statuses:?}");
        for _ in 0..10 {
            longest = longest.max(send(&path).await);
        }
    }
    println!("the longest that a send was refused: {longest:?}");
    cluster.workers[few].process_mut().kill().unwrap();
    role.end(&cluster).await;
    cluster.end().await;
}

/// The distribution's `PgBouncer`, where set-up has put it or the machine has it.
fn pgbouncer() -> PathBuf {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.confab/tools");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut programs = std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), tools.join("pgbouncer/usr/sbin")])
        .map(|folder| folder.join("pgbouncer"));
    let found = programs.find(|program| program.is_file());
    found.expect("no pgbouncer: `make setup` gets it on Debian and Ubuntu; elsewhere install your distribution's")
}

/// A pooler before a database, and its URL. It ignores what it cannot keep, as its documentation advises.
pub(crate) async fn pool(folder: &Folder, database: &Database, mode: &str) -> (Process, String) {
    let (user, place) = database.url.rsplit_once('@').unwrap();
    let (user, password) = user.rsplit_once('/').unwrap().1.split_once(':').unwrap();
    let (host, name) = place.split_once('/').unwrap();
    let (_, postgres) = host.split_once(':').unwrap();
    let port = free_port().unwrap();
    // It does not run as root, and must read its configuration as nobody.
    let own = tempfile::Builder::new().prefix("pooler").tempdir().unwrap();
    let config = own.path().join("pgbouncer.ini");
    let text = format!(
        "[databases]\n* = host=127.0.0.1 port={postgres} user={user} password={password}\n[pgbouncer]\n\
         listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = {mode}\n\
         ignore_startup_parameters = options,extra_float_digits\n"
    );
    std::fs::write(&config, text).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(own.path(), mode).unwrap();
    let process = Process::spawn(Launch {
        name: "pgbouncer".to_owned(),
        program: pgbouncer(),
        args: ["-u", "nobody", "-q", &config.display().to_string()]
            .map(str::to_owned)
            .to_vec(),
        env: Vec::new(),
        log: folder.path().join("logs/pgbouncer.log"),
    })
    .unwrap();
    eventually("the pooler listens", Duration::from_secs(20), async || {
        tokio::net::TcpStream::connect(("127.0.0.1", port))
            .await
            .ok()
    })
    .await;
    (
        process,
        format!("postgres://anyone@127.0.0.1:{port}/{name}"),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker_behind_a_pooler_ends_and_says_why() {
    let folder = Folder::of_test();
    let mut database = Database::shared().await;
    for mode in ["transaction", "session"] {
        let (mut pooler, url) = pool(&folder, &database, mode).await;
        let nats = format!("nats://127.0.0.1:{}", free_port().unwrap());
        let mut process = begin("worker", &worker(&nats, &url), folder.path());
        let status = process.wait(Duration::from_secs(30)).await.unwrap();
        assert_eq!(status.code(), Some(1), "{mode}");
        let log = std::fs::read_to_string(process.log()).unwrap();
        let first = log.lines().next().unwrap();
        let last = log
            .lines()
            .find(|line| line.contains("confab ends with an error"));
        let last = last.unwrap_or_else(|| panic!("{mode}: no reason in {log}"));
        assert!(
            last.contains("it loses the settings of a session"),
            "{mode}: {last}"
        );
        let after = written(last) - written(first);
        assert!(after < told_time(), "{mode}: {after:?}");
        pooler.kill().unwrap();
    }
    database.end().await;
}
