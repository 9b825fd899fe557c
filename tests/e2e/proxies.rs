//! Gateways behind nginx and `HAProxy` with the files of `deploy/` restart in turn without refusing or losing anything.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use confab_client::{Change, Changes, Http, NewMessage, Options, ResumeOptions, Resuming, Session};
use confab_protocol::error::Code;
use confab_protocol::ids::{ConversationId, Seq};
use confab_stack::{Launch, Process, free_port};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::support::{Cluster, Setup, User, eventually, text};

const WAIT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long who comes again and again waits in between.
const RECONNECT_DELAY: Duration = Duration::from_millis(20);
/// How long newcomers come before the first restart and behind the last one.
const NEWCOMER_TIME: Duration = Duration::from_millis(500);

/// A proxy of the distribution.
#[derive(Clone, Copy)]
enum ProxyKind {
    Nginx,
    Haproxy,
}

/// The seqs that were heard.
type Heard = Arc<Mutex<BTreeSet<Seq>>>;

/// A running proxy.
struct Proxy {
    url: String,
    _process: Process,
    _folder: TempDir,
}

impl ProxyKind {
    const fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
        }
    }

    /// Its program.
    fn program(self) -> PathBuf {
        let name = self.name();
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let unpacked = checkout.join(format!(".confab/tools/{name}/usr/sbin"));
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path)
            .chain([PathBuf::from("/usr/sbin"), unpacked])
            .map(|folder| folder.join(name))
            .find(|program| program.is_file())
            .unwrap_or_else(|| panic!("no {name}: `make setup` gets it from Debian, or install it"))
    }

    /// The file of `deploy/`, at this port and for these gateways.
    fn config(self, port: u16, gateways: [u16; 2]) -> String {
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy");
        let (file, listens, here) = match self {
            Self::Nginx => (
                "nginx/confab.conf",
                "listen 80;\n    listen [::]:80;",
                format!("listen 127.0.0.1:{port};"),
            ),
            Self::Haproxy => (
                "haproxy/haproxy.cfg",
                "bind :::80 v4v6",
                format!("bind 127.0.0.1:{port}"),
            ),
        };
        let text = std::fs::read_to_string(deploy.join(file)).unwrap();
        assert!(text.contains(listens));
        let mut text = text.replace(listens, &here);
        for (number, port) in (1..).zip(gateways) {
            let address = format!("gateway-{number}:8080");
            assert!(text.contains(&address));
            text = text.replace(&address, &format!("127.0.0.1:{port}"));
        }
        text
    }

    /// Writes what the program is started with, and gives its arguments.
    fn arguments(self, folder: &Path, config: &str) -> Vec<String> {
        let path = folder.join("confab.conf");
        std::fs::write(&path, config).unwrap();
        let path = path.display();
        match self {
            Self::Haproxy => vec!["-db".to_owned(), "-f".to_owned(), path.to_string()],
            Self::Nginx => {
                let main = folder.join("nginx.conf");
                let folder = folder.display();
                let of_requests = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
                    .map(|of| format!("{of}_temp_path {folder}/{of};\n"))
                    .concat();
                let text = format!(
                    "daemon off;\nmaster_process off;\npid {folder}/nginx.pid;\nerror_log stderr notice;\n\
                     events {{}}\nhttp {{\naccess_log off;\n{of_requests}include {path};\n}}\n"
                );
                std::fs::write(&main, text).unwrap();
                let main = main.display().to_string();
                ["-e", "stderr", "-c", &main].map(str::to_owned).to_vec()
            }
        }
    }

    /// Starts it before the cluster's two gateways, and waits until it leads to them.
    async fn start(self, port: u16, cluster: &Cluster) -> Proxy {
        let folder = tempfile::tempdir().unwrap();
        let gateways = [cluster.gateways[0].port(), cluster.gateways[1].port()];
        let args = self.arguments(folder.path(), &self.config(port, gateways));
        let launch = Launch {
            name: self.name().to_owned(),
            program: self.program(),
            args,
            env: Vec::new(),
            log: folder.path().join("proxy.log"),
        };
        let proxy = Proxy {
            _process: Process::spawn(launch).unwrap(),
            url: format!("http://127.0.0.1:{port}"),
            _folder: folder,
        };
        let alice = cluster.user("alice").at(&proxy.url);
        eventually("the proxy leads to a gateway", WAIT_TIMEOUT, async || {
            let http = alice.http(0);
            let listed = http.raw("GET", "/v1/conversations", &[], Vec::new());
            listed
                .await
                .is_ok_and(|answer| answer.status == 401)
                .then_some(())
        })
        .await;
        proxy
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rolling_restart_behind_nginx_refuses_nobody() {
    rolling_restart(ProxyKind::Nginx).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rolling_restart_behind_haproxy_refuses_nobody() {
    rolling_restart(ProxyKind::Haproxy).await;
}

async fn rolling_restart(kind: ProxyKind) {
    let port = free_port().unwrap();
    let mut cluster = Cluster::start(Setup {
        workers: 1,
        gateway_env: vec![
            ("CONFAB_DRAIN_DELAY", Some("5".to_owned())),
            ("CONFAB_DRAIN", Some("2".to_owned())),
            ("CONFAB_TRUSTED_PROXIES", Some("1".to_owned())),
            (
                "CONFAB_PUBLIC_URL",
                Some(format!("http://127.0.0.1:{port}/confab")),
            ),
        ],
        ..Setup::default()
    })
    .await;
    let proxy = kind.start(port, &cluster).await;
    let alice = cluster.user("alice").at(&proxy.url);
    let bob = cluster.user("bob").at(&proxy.url);
    let conversation = alice
        .on(0)
        .await
        .create_group(std::slice::from_ref(&bob.id))
        .await;
    let (resident, changes) = resident(&bob).await;
    let heard = Heard::default();
    let mut listening = JoinSet::new();
    listening.spawn(listen(changes, conversation, Arc::clone(&heard)));
    let is_over = AtomicBool::new(false);
    let (newcomers, posted, said, ()) = tokio::join!(
        come(&alice, &is_over),
        post(&alice, conversation, &is_over),
        say(&resident, conversation, &is_over),
        restart_all(&mut cluster, &is_over),
    );
    assert!(newcomers > 20, "{newcomers} newcomers");
    assert!(posted.len() > 20 && said.len() > 20);
    let all: BTreeSet<Seq> = posted.into_iter().chain(said).collect();
    eventually("all is heard", WAIT_TIMEOUT, async || {
        all.is_subset(&heard.lock().unwrap()).then_some(())
    })
    .await;
    assert!(resident.reconnects() >= 1, "both gateways were restarted");
    assert_under_path(&alice, &proxy.url).await;
    assert_admin_stays_inside(&alice).await;
    assert_takes_long_tokens(&alice).await;
    drop((resident, proxy, listening));
    cluster.end().await;
}

/// A session that goes on over restarts.
async fn resident(user: &User) -> (Resuming, Changes) {
    let options = ResumeOptions::new(vec![user.url(0).to_owned()], user.token.as_str());
    Resuming::open(options).await.unwrap()
}

/// Notes what is heard of a conversation, for as long as there is something to hear.
async fn listen(mut changes: Changes, conversation: ConversationId, heard: Heard) {
    while let Some(change) = changes.next().await {
        if let Change::Event(event) = change
            && event.conversation_id == conversation
        {
            heard.lock().unwrap().insert(event.seq);
        }
    }
}

/// Opens sessions one after the other, each on a connection of its own: every one must be welcomed.
async fn come(user: &User, is_over: &AtomicBool) -> usize {
    let mut newcomers = 0;
    while !is_over.load(Ordering::Relaxed) {
        let opened = Session::open(user.url(0), Options::bearer(&user.token)).await;
        drop(opened.unwrap_or_else(|error| panic!("newcomer {newcomers}: {error:?}")));
        newcomers += 1;
        sleep(RECONNECT_DELAY).await;
    }
    newcomers
}

/// Sends over HTTP, each message once, in turn on a connection that is kept and on one of its own: every one must be taken.
async fn post(user: &User, conversation: ConversationId, is_over: &AtomicBool) -> Vec<Seq> {
    let kept = user.http(0);
    let mut sent = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        let message = NewMessage {
            conversation_id: conversation,
            client_id: None,
            body: text("over HTTP"),
        };
        let posted = if sent.len() % 2 == 0 {
            kept.send_message(&message).await
        } else {
            let own = Http::new(user.url(0), &user.token).unwrap();
            own.send_message(&message).await
        };
        let posted = posted.unwrap_or_else(|error| panic!("message {}: {error}", sent.len()));
        sent.push(posted.answer.seq);
        sleep(RECONNECT_DELAY).await;
    }
    sent
}

/// Sends over the resident's WebSocket.
async fn say(resident: &Resuming, conversation: ConversationId, is_over: &AtomicBool) -> Vec<Seq> {
    let mut sent = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        let said = resident.send(conversation, text("over the socket")).await;
        sent.push(said.unwrap_or_else(|error| panic!("{error}")).seq);
        sleep(RECONNECT_DELAY).await;
    }
    sent
}

/// Restarts one gateway after the other, the next when the one before is ready.
async fn restart_all(cluster: &mut Cluster, is_over: &AtomicBool) {
    sleep(NEWCOMER_TIME).await;
    for number in 0..cluster.gateways.len() {
        let ended = cluster.gateways[number]
            .process_mut()
            .stop(WAIT_TIMEOUT)
            .await;
        assert!(ended.unwrap().success());
        cluster.restart_gateway(number).await;
    }
    sleep(NEWCOMER_TIME).await;
    is_over.store(true, Ordering::Relaxed);
}

/// What a proxy takes away from paths stands in answers and descriptions.
async fn assert_under_path(user: &User, url: &str) {
    let base = format!("{url}/confab");
    let http = user.http(0);
    let bearer = format!("Bearer {}", user.token);
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "application/json"),
    ];
    let body = br#"{"type":"group","participants":["carol","x/y"]}"#.to_vec();
    let created = http.raw("POST", "/confab/v1/conversations", &headers, body);
    let created = created.await.unwrap();
    assert_eq!(created.status, 201);
    let location = created.header("location").unwrap().to_owned();
    assert!(
        location.starts_with("/confab/v1/conversations/"),
        "{location}"
    );
    let response = http.raw("GET", &location, &headers[..1], Vec::new());
    assert_eq!(response.await.unwrap().status, 200);
    let member = format!("{location}/participants/x%2Fy");
    let removed = http.raw("DELETE", &member, &headers[..1], Vec::new());
    assert_eq!(removed.await.unwrap().status, 200);
    let described = http.raw("GET", "/confab/openapi.json", &[], Vec::new());
    let described: serde_json::Value =
        serde_json::from_slice(&described.await.unwrap().body).unwrap();
    assert_eq!(described["servers"][0]["url"], base);
    user.at(&base).on(0).await;
}

/// What the process itself tells is not for clients.
async fn assert_admin_stays_inside(user: &User) {
    for name in ["metrics", "ready", "health", "version"] {
        for path in [format!("/{name}"), format!("/confab/{name}")] {
            let answer = user.http(0).raw("GET", &path, &[], Vec::new()).await;
            assert_eq!(answer.unwrap().status, 404, "{path}");
        }
    }
}

/// The longest token that a gateway reads comes to it.
async fn assert_takes_long_tokens(user: &User) {
    let bearer = format!("Bearer {}", "x".repeat(16 * 1024));
    let headers = [("authorization", bearer.as_str())];
    let http = user.http(0);
    let refused = http.raw("GET", "/v1/conversations", &headers, Vec::new());
    let problem: serde_json::Value = refused.await.unwrap().json().unwrap();
    assert_eq!(problem["code"], Code::InvalidToken.as_str());
}
