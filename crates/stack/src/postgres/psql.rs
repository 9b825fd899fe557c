use std::time::Duration;

use tokio::process::Command;

use super::{Postgres, SUPERUSER_NAME};
use crate::Error;

/// Runs statements through `psql`. The password goes by the environment, which other users cannot read.
pub(super) async fn run(
    postgres: &Postgres,
    database: &str,
    statements: &str,
) -> Result<String, Error> {
    const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);
    let output = tokio::time::timeout(
        STATEMENT_TIMEOUT,
        command(postgres, database, statements).output(),
    )
    .await;
    let output = output
        .map_err(|late| Error::io("wait for psql")(late.into()))?
        .map_err(Error::io("run psql"))?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Error::Failed {
            program: "psql".to_owned(),
            status: output.status,
            output: message,
        });
    }
    Ok(String::from_utf8_lossy(&output.stdout)
        .trim_end()
        .to_owned())
}

fn command(postgres: &Postgres, database: &str, statements: &str) -> Command {
    let mut command = Command::new(postgres.programs.join("psql"));
    command.args([
        "-X",
        "-A",
        "-t",
        "-q",
        "-v",
        "ON_ERROR_STOP=1",
        "-c",
        statements,
    ]);
    for stray in ["PGSERVICE", "PGOPTIONS", "PGHOSTADDR", "PGSSLMODE"] {
        command.env_remove(stray);
    }
    command
        .env("PGHOST", "127.0.0.1")
        .env("PGPORT", postgres.settings.port.to_string());
    command
        .env("PGUSER", SUPERUSER_NAME)
        .env("PGPASSWORD", &postgres.password)
        .env("PGDATABASE", database);
    command.env("LC_ALL", "C").kill_on_drop(true);
    command
}
