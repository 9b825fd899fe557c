//! `confab dev` works as the README shows it, and a local web page may call it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use confab_client::{Http, Response};
use confab_stack::{Launch, Process};
use serde_json::Value;
use tokio::process::Command;
use tokio::time::timeout;

use crate::support::{Folder, Key, Raw, claims, eventually};

/// How long everything may take to be ready, on a machine that runs other tests.
const READY_TIMEOUT: Duration = Duration::from_secs(120);
/// How long it may take to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
/// How long all that is pasted may take.
const SCRIPT_TIMEOUT: Duration = Duration::from_secs(60);
/// The last line that it prints.
const LAST_LINE: &str = "micro info confab-worker";
const APP_ORIGIN: &str = "https://app.example";

/// A `confab dev` in a folder of the test's own.
struct Dev {
    process: Process,
    told: Value,
    /// What it printed for people.
    banner: String,
    folder: Folder,
}

impl Dev {
    async fn start() -> Self {
        let folder = Folder::of_test();
        let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.confab/tools");
        let ready = folder.path().join("ready.json");
        let variable = |name: &str, value: PathBuf| {
            let value = value.into_os_string().into_string().unwrap();
            (name.to_owned(), Some(value))
        };
        let env = vec![
            variable("CONFAB_DEV_TOOLS_DIR", tools),
            variable("CONFAB_DEV_DATA_DIR", folder.path().join(".confab/data")),
            variable("CONFAB_DEV_READY_FILE", ready.clone()),
            (
                "CONFAB_CORS_ORIGINS".to_owned(),
                Some(APP_ORIGIN.to_owned()),
            ),
        ];
        let mut process = Process::spawn(Launch {
            name: "dev".to_owned(),
            program: env!("CARGO_BIN_EXE_confab").into(),
            args: vec!["dev".to_owned()],
            env,
            log: folder.path().join("dev.log"),
        })
        .unwrap();
        let printed = eventually("what `confab dev` prints", READY_TIMEOUT, async || {
            let log = std::fs::read_to_string(process.log()).unwrap();
            assert_eq!(process.ended().unwrap(), None, "{log}");
            log.contains(LAST_LINE).then_some(log)
        })
        .await;
        let (_, banner) = printed.split_once("confab runs.").unwrap();
        let told = std::fs::read(ready).unwrap();
        Self {
            process,
            told: serde_json::from_slice(&told).unwrap(),
            banner: banner.to_owned(),
            folder,
        }
    }

    fn gateway(&self, n: usize) -> &str {
        self.told["gateways"][n]["url"].as_str().unwrap()
    }

    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
        let http = Http::new(self.gateway(0), "").unwrap();
        http.raw(method, path, headers, Vec::new()).await.unwrap()
    }

    /// Pastes lines into a shell in the folder, and gives what was printed.
    async fn paste(&self, lines: &str) -> String {
        let script = format!("{SCRIPT_PRELUDE}{lines}");
        let mut shell = Command::new("bash");
        shell
            .args(["-euo", "pipefail", "-c", &script])
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let ended = timeout(SCRIPT_TIMEOUT, shell.output()).await;
        let ended =
            ended.unwrap_or_else(|_late| panic!("not within {SCRIPT_TIMEOUT:?}:\n{script}"));
        let ended = ended.unwrap();
        let printed = String::from_utf8_lossy(&ended.stdout).into_owned();
        let errors = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.success(), "{script}\n{printed}\n{errors}");
        printed
    }

    async fn end(mut self) {
        let status = self.process.stop(STOP_TIMEOUT).await.unwrap();
        assert!(status.success(), "{status}");
    }
}

/// Stands in for the nats CLI, which a machine need not have: a line must name the server. What runs beside ends with the shell.
const SCRIPT_PRELUDE: &str = r#"
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
nats() { [ "$1" = -s ] && [ "$2" = "$CONFAB_NATS_URL" ] && echo "nats ${*:3}"; }
"#;

/// What is there to be pasted: paragraphs that do not end as those do that lead to one.
fn to_paste(banner: &str) -> String {
    let (_, pasted) = banner.split_once("Paste into another terminal").unwrap();
    let paragraphs = pasted.split("\n\n").map(str::trim_end);
    let pasted: Vec<_> = paragraphs.filter(|one| !one.ends_with(':')).collect();
    pasted.join("\n").trim_start_matches('\n').to_owned()
}

/// Lets `confab listen` run beside what follows, until it has heard what is sent.
fn with_listener(lines: &str) -> String {
    let mut script = String::new();
    for line in lines.lines() {
        let line = match line.split_whitespace().nth(1) {
            Some("listen") => format!(
                "{line} > heard & LISTENER=$!; until grep -q 'is open' heard; do sleep 0.05; done"
            ),
            Some("send") => format!(
                "{line}; until grep -q 'hello again' heard; do sleep 0.05; done; kill -INT $LISTENER; wait $LISTENER; cat heard"
            ),
            _ => line.to_owned(),
        };
        script.push_str(&line);
        script.push('\n');
    }
    script
}

/// The lines of the README for whoever has pasted the first ones of `confab dev`.
fn of_readme() -> String {
    let readme = include_str!("../../README.md");
    let (_, tried) = readme.split_once("## Try it").unwrap();
    let (tried, _) = tried.split_once("## Run it").unwrap();
    let code = tried.lines().filter_map(|line| line.strip_prefix("    "));
    let lines: Vec<_> = code.filter(|line| !line.starts_with("make ")).collect();
    assert!(lines.len() >= 6, "{lines:?}");
    lines.join("\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_of_dev_and_readme_work_as_pasted() {
    let dev = Dev::start().await;
    for gateway in dev.told["gateways"].as_array().unwrap() {
        let (url, pid) = (gateway["url"].as_str().unwrap(), &gateway["pid"]);
        assert!(dev.banner.contains(&format!("{url}  pid {pid}\n")), "{url}");
    }
    let first = dev.gateway(0);
    for page in ["/ ", "/try ", "/docs "] {
        assert!(dev.banner.contains(&format!("{first}{page}")), "{page}");
    }
    for words in ["confab token --sub", "CONFAB_CORS_ORIGINS=", "localhost"] {
        assert!(dev.banner.contains(words), "{words}");
    }
    let lines = to_paste(&dev.banner);
    let printed = dev
        .paste(&format!("{}\n{}", with_listener(&lines), of_readme()))
        .await;
    for words in [
        "hello bob",
        "hello again",
        "SESSION\tSTATE\tTENANT",
        "accepted: the user carol",
        "accepted: the user alice",
        "nats micro info confab-worker",
        "nats stream info CONFAB_EVENTS",
        "nats sub confab.v1.event.>",
    ] {
        assert!(printed.contains(words), "{words}\n{lines}\n{printed}");
    }
    dev.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dev_lets_in_local_pages_and_explains_refusals() {
    let dev = Dev::start().await;
    let asks = ("access-control-request-method", "POST");
    let (_, port) = dev.gateway(0).rsplit_once(':').unwrap();
    let port = port.parse().unwrap();
    for (origin, allowed) in [
        ("http://localhost:5173", true),
        ("https://localhost", true),
        ("http://127.0.0.1:3000", true),
        ("http://[::1]:8080", true),
        (APP_ORIGIN, true),
        ("https://evil.example", false),
        ("http://localhost.evil.example", false),
    ] {
        let preflight = [("origin", origin), asks];
        let answer = dev.ask("OPTIONS", "/v1/messages", &preflight).await;
        let told = answer.header("access-control-allow-origin");
        assert_eq!(told, allowed.then_some(origin));
        let mut raw = Raw::connect(port).await;
        let headers = [format!("Origin: {origin}")];
        let (status, _) = raw.upgrade("/v1/ws", "confab.v1.json", &headers).await;
        assert_eq!(status, if allowed { 101 } else { 403 }, "{origin}");
    }
    let log = dev.folder.path().join(".confab/data/logs/gateway-0.log");
    let log = std::fs::read_to_string(log).unwrap();
    let lines = log
        .lines()
        .filter(|line| line.contains("https://evil.example"));
    let lines: Vec<_> = lines.collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("CONFAB_CORS_ORIGINS"), "{}", lines[0]);
    let foreign = Key::es256("foreign").token(&claims("alice"));
    let bearer = format!("Bearer {foreign}");
    let answer = dev
        .ask("GET", "/v1/conversations", &[("authorization", &bearer)])
        .await;
    assert_eq!(answer.status, 401);
    let problem: Value = answer.json().unwrap();
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("To mend it: "), "{detail}");
    let html = [("accept", "text/html")];
    let home = dev.ask("GET", "/", &html).await;
    assert_eq!(home.status, 200);
    assert!(String::from_utf8_lossy(&home.body).contains("href=\"try\""));
    assert_eq!(dev.ask("GET", "/try", &html).await.status, 200);
    dev.end().await;
}
