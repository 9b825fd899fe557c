//! What a worker is told of the server that it begins on, behind the distribution's `PgBouncer` among them.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Instant;

use confab_protocol::check::Check;
use confab_stack::free_port;
use sqlx::postgres::PgConnectOptions;
use tempfile::TempDir;

use super::*;
use crate::database;
use crate::database::check::{When, check_database};
use crate::testing::{Fixture, eventually, is_soak, settings};

/// How soon a worker must say that it does not work with a pooler; beside other tests longer.
fn refusal_time() -> Duration {
    Duration::from_secs(if is_soak() { 2 } else { 20 })
}

/// How a pooler hands out connections.
const TRANSACTION: &str = "transaction";
const SESSION: &str = "session";

/// What lets a session begin that says settings.
const IGNORING: &str = "ignore_startup_parameters = options,extra_float_digits";

/// A `PgBouncer` before the fixture's Postgres. It ends with the test.
struct Pooler {
    url: String,
    process: Child,
    _folder: TempDir,
}

impl Pooler {
    /// One of a mode (`pool_mode`), with more lines of configuration.
    async fn start(
        fixture: &Fixture,
        (user, password): (&str, &str),
        mode: &str,
        more: &str,
    ) -> Self {
        let program = program().expect("no pgbouncer: `make setup` gets it on Debian and Ubuntu; elsewhere install your distribution's");
        let folder = TempDir::new().unwrap();
        // It does not run as root, and must read this as nobody.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let port = free_port().unwrap();
        let direct = PgConnectOptions::clone(&fixture.pool.connect_options());
        let config = format!(
            "[databases]\n\
             * = host=127.0.0.1 port={} user={user} password={password}\n\
             [pgbouncer]\n\
             listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n\
             pool_mode = {mode}\n{more}\n",
            direct.get_port(),
        );
        let path = folder.path().join("pgbouncer.ini");
        fs::write(&path, config).unwrap();
        let process = Command::new(program)
            .args(["-u", "nobody", "-q"])
            .arg(&path)
            .spawn()
            .unwrap();
        let address = format!("127.0.0.1:{port}");
        eventually("the pooler listens", async || {
            tokio::net::TcpStream::connect(&address).await.ok()
        })
        .await;
        let (_, database) = fixture.url.rsplit_once('/').unwrap();
        Self {
            url: format!("postgres://anyone@{address}/{database}"),
            process,
            _folder: folder,
        }
    }

    async fn refusal(&self) -> String {
        let began = Instant::now();
        let connector = database::connector(&settings(&self.url), "tests").unwrap();
        let error = check(&connector).await.unwrap_err();
        assert!(began.elapsed() < refusal_time(), "{:?}", began.elapsed());
        assert!(matches!(error, Error::Pooler(_)), "{error:?}");
        let checks = check_database(&settings(&self.url), When::AtWill).await;
        let remedy = |check: &Check| {
            check
                .remedy
                .as_ref()
                .is_some_and(|text| text.contains("pooler"))
        };
        assert!(checks.iter().any(remedy), "{checks:?}");
        error.to_string()
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let ended = self.process.kill().and_then(|()| self.process.wait());
        if let Err(error) = ended {
            eprintln!("the pooler stays: {error}");
        }
    }
}

/// The name and password of the fixture's own role.
fn owner(fixture: &Fixture) -> (&str, &str) {
    let (_, rest) = fixture.url.split_once("://").unwrap();
    let (role, _) = rest.split_once('@').unwrap();
    role.split_once(':').unwrap()
}

fn program() -> Option<PathBuf> {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let unpacked = checkout.join(".confab/tools/pgbouncer/usr/sbin");
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), unpacked])
        .map(|folder| folder.join("pgbouncer"))
        .find(|program| program.is_file())
}

#[tokio::test]
async fn server_itself_is_used() {
    let fixture = Fixture::new().await;
    let connector = database::connector(&settings(&fixture.url), "tests").unwrap();
    check(&connector).await.unwrap();
    let mut connection = connector.connect().await.unwrap();
    compare_connections(&mut connection, 1).await.unwrap();
}

#[tokio::test]
async fn pooler_without_settings_is_refused() {
    let fixture = Fixture::new().await;
    let pooler = Pooler::start(&fixture, owner(&fixture), TRANSACTION, "").await;
    let refusal = pooler.refusal().await;
    assert!(refusal.contains("takes no settings"), "{refusal}");
}

#[tokio::test]
async fn pooler_that_loses_settings_is_refused() {
    let fixture = Fixture::new().await;
    for mode in [TRANSACTION, SESSION] {
        let pooler = Pooler::start(&fixture, owner(&fixture), mode, IGNORING).await;
        let refusal = pooler.refusal().await;
        assert!(refusal.contains("loses the settings"), "{mode}: {refusal}");
    }
}

#[tokio::test]
async fn pooler_is_refused_with_settings_of_its_role() {
    let fixture = Fixture::new().await;
    // They stand on every connection, all that the pools agree in.
    let role = format!("kept_{}", uuid::Uuid::now_v7().simple());
    for text in [
        format!("create role {role} login superuser password 'kept'"),
        format!("alter role {role} set plan_cache_mode = 'force_generic_plan'"),
        format!("alter role {role} set enable_seqscan = off"),
        format!("alter role {role} set jit = off"),
        format!(
            "alter role {role} set idle_in_transaction_session_timeout = '{IDLE_IN_TRANSACTION}'"
        ),
    ] {
        let statement = AssertSqlSafe(text);
        sqlx::query(statement).execute(&fixture.pool).await.unwrap();
    }
    for (mode, reason) in [
        (TRANSACTION, "two transactions"),
        (SESSION, "loses the settings"),
    ] {
        let pooler = Pooler::start(&fixture, (&role, "kept"), mode, IGNORING).await;
        let refusal = pooler.refusal().await;
        assert!(refusal.contains(reason), "{mode}: {refusal}");
    }
}
