//! `confab doctor` and the failing role name every wrong setup with its remedy.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

use confab_stack::{Launch, Process, free_port};
use futures_util::future::join_all;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::process::Command;
use tokio::time::timeout;

use crate::support::{Folder, Key, TOKEN_AUDIENCE, TOKEN_ISSUER, eventually, programs, soak};

mod commands;
mod keys;
mod nats;
mod permissions;
mod postgres;
mod streams;

/// How long the doctor may take in all, on a machine that runs other tests.
const DOCTOR_DEADLINE: Duration = Duration::from_secs(15);
/// How soon a role that starts must have said what is wrong, on such a machine.
const TOLD_DEADLINE: Duration = Duration::from_secs(10);

/// How long after its first line a role says what is wrong: two seconds, and as much again for such a machine; beside other tests longer.
pub(crate) fn told_time() -> Duration {
    Duration::from_secs(soak(4, 20) as u64)
}

/// How often a role is started until it says what is wrong.
const START_ATTEMPTS: usize = 3;
/// Longer than any look takes, which has its own deadline.
const LOOK_LIMIT: Duration = Duration::from_secs(60);

pub(crate) type Env = Vec<(&'static str, String)>;

/// A wrong set-up, and what must be said of it.
struct SetupFault<'a> {
    role: &'static str,
    env: &'a Env,
    /// The check that finds it.
    check: &'static str,
    /// How it comes out.
    status: &'static str,
    /// What the cause, or else what was found, must contain.
    words: &'static str,
    /// What the remedy must contain.
    remedy: &'static str,
    /// What the starting role must log where it is not the check itself.
    logged: Option<&'static str>,
}

impl SetupFault<'_> {
    /// Runs the doctor in both forms, and the role in both formats of the log.
    async fn is_told(&self, folder: &Folder) {
        self.is_told_to(&[], folder).await;
    }

    /// The same, and these roles have the fault as well.
    async fn is_told_to(&self, others: &[(&'static str, &Env)], folder: &Folder) {
        let text = self.asked(&[]).await;
        for words in [self.words, self.remedy, self.check] {
            assert!(text.contains(words), "no {words:?} in\n{text}");
        }
        let json = self.asked(&["--json"]).await;
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["ok"], self.status != "fail");
        let checks = json["roles"][0]["checks"].as_array().unwrap();
        let mut named = checks.iter().filter(|check| check["name"] == self.check);
        let is_told = named.any(|check| {
            let text = check.to_string();
            check["status"] == self.status
                && text.contains(&self.words.replace('"', "\\\""))
                && check["remedy"]
                    .as_str()
                    .is_some_and(|remedy| remedy.contains(self.remedy))
        });
        assert!(is_told, "{}: {json:#}", self.check);
        let own = [(self.role, self.env)];
        // One format after the other: of some things there is enough for one process of a role only.
        for format in ["json", "text"] {
            let roles = own.iter().chain(others);
            let logging = roles.map(|(role, env)| self.is_logged((role, env), format, folder));
            join_all(logging).await;
        }
    }

    /// What the doctor prints, which ends as it must and in time.
    async fn asked(&self, more: &[&str]) -> String {
        let began = Instant::now();
        let args = [&["doctor"], more].concat();
        let output = run(&args, self.env).await;
        assert!(began.elapsed() < DOCTOR_DEADLINE, "{:?}", began.elapsed());
        let wanted = i32::from(self.status == "fail");
        assert_eq!(output.status.code(), Some(wanted), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(!text.contains("hidden"), "{text}");
        text
    }

    /// Starts a role until it says so: on a machine that is too slow for the checks' deadlines it says that instead.
    async fn is_logged(&self, (role, env): (&str, &Env), format: &'static str, folder: &Folder) {
        let check = match format {
            "json" => format!("\"check\":\"{}\"", self.check),
            _ => format!("check=\"{}\"", self.check),
        };
        let logged = self.logged.unwrap_or(&check);
        let mut env = env.clone();
        env.push(("CONFAB_LOG_FORMAT", format.to_owned()));
        let mut told = None;
        for _attempt in 0..START_ATTEMPTS {
            let mut process = begin(role, &env, folder.path());
            let looking = eventually("told", LOOK_LIMIT, async || {
                let log = std::fs::read_to_string(process.log()).unwrap();
                let mut lines = log.lines();
                let first = lines.clone().next()?;
                let found = lines.find(|line| line.contains(logged) && line.contains(self.remedy));
                found.map(|line| (written(line) - written(first), line.to_owned()))
            });
            told = timeout(TOLD_DEADLINE, looking).await.ok();
            process.kill().unwrap();
            if told.as_ref().is_some_and(|(after, _)| *after < told_time()) {
                break;
            }
        }
        let (after, line) = told.unwrap_or_else(|| panic!("{role} does not tell {logged}"));
        assert!(
            after < told_time(),
            "{role} tells it after {after:?}: {line}"
        );
        assert!(!line.contains("hidden"), "{line}");
    }
}

/// When a log line was written.
pub(crate) fn written(line: &str) -> OffsetDateTime {
    let json: Option<Value> = serde_json::from_str(line).ok();
    let time = match &json {
        Some(json) => json["timestamp"].as_str(),
        None => line.split(' ').next(),
    };
    let time = time.and_then(|time| OffsetDateTime::parse(time, &Rfc3339).ok());
    time.unwrap_or_else(|| panic!("no time in {line}"))
}

/// Runs confab with nothing in its environment but this.
async fn run(args: &[&str], env: &Env) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_confab"));
    command.args(args).env_clear().kill_on_drop(true);
    command.envs(env.iter().map(|(name, value)| (name, value)));
    let running = timeout(Duration::from_secs(60), command.output());
    running.await.unwrap().unwrap()
}

/// Starts a role, whose log is in the folder.
pub(crate) fn begin(role: &str, env: &Env, folder: &Path) -> Process {
    let set = env
        .iter()
        .map(|(name, value)| ((*name).to_owned(), Some(value.clone())));
    Process::spawn(Launch {
        name: role.to_owned(),
        program: env!("CARGO_BIN_EXE_confab").into(),
        args: vec![role.to_owned()],
        env: set.collect(),
        log: folder
            .join("logs")
            .join(format!("{}.log", free_port().unwrap())),
    })
    .unwrap()
}

/// What a worker is told, beside where NATS is.
pub(crate) fn worker(nats: &str, database: &str) -> Env {
    vec![
        ("CONFAB_NATS_URL", nats.to_owned()),
        ("CONFAB_DATABASE_URL", database.to_owned()),
        (
            "CONFAB_LISTEN",
            format!("127.0.0.1:{}", free_port().unwrap()),
        ),
        ("CONFAB_LOG_FORMAT", "json".to_owned()),
    ]
}

/// What a gateway is told.
fn gateway(nats: &str) -> Env {
    vec![
        ("CONFAB_NATS_URL", nats.to_owned()),
        ("CONFAB_JWT_PUBLIC_KEY", Key::es256("a").public_pem()),
        ("CONFAB_JWT_ISSUER", TOKEN_ISSUER.to_owned()),
        ("CONFAB_JWT_AUDIENCE", TOKEN_AUDIENCE.to_owned()),
        ("CONFAB_SINGLE_TENANT", "true".to_owned()),
        (
            "CONFAB_LISTEN",
            format!("127.0.0.1:{}", free_port().unwrap()),
        ),
        ("CONFAB_LOG_FORMAT", "json".to_owned()),
    ]
}

/// A NATS server of any configuration.
struct NatsServer {
    url: String,
    _process: Process,
}

impl NatsServer {
    async fn start(folder: &Folder, config: &str) -> Self {
        Self::of(programs().nats_server, folder, config).await
    }

    /// One of another program.
    async fn of(program: PathBuf, folder: &Folder, config: &str) -> Self {
        let port = free_port().unwrap();
        let path = folder.path().join(format!("nats-{port}.conf"));
        let store = folder
            .path()
            .join(format!("nats-{port}"))
            .display()
            .to_string();
        let config = config.replace("STORE", &store);
        std::fs::write(&path, format!("listen: \"127.0.0.1:{port}\"\n{config}\n")).unwrap();
        let process = Process::spawn(Launch {
            name: "nats-server".to_owned(),
            program,
            args: vec!["--config".to_owned(), path.display().to_string()],
            env: Vec::new(),
            log: folder.path().join("logs").join(format!("nats-{port}.log")),
        })
        .unwrap();
        eventually("nats-server listens", TOLD_DEADLINE, async || {
            tokio::net::TcpStream::connect(("127.0.0.1", port))
                .await
                .ok()
        })
        .await;
        Self {
            url: format!("nats://127.0.0.1:{port}"),
            _process: process,
        }
    }
}

/// A server that does for every role.
const NATS_CONFIG: &str = "jetstream { store_dir: \"STORE\" }";
