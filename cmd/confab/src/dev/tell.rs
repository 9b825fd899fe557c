//! What `confab dev` tells: progress, how to try it, and the ready file that scripts wait for.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use confab_stack::Service;
use serde::Serialize;

/// Says what is being done.
pub(super) fn progress(what: &str) {
    // Where even standard error is gone, nobody looks.
    drop(writeln!(std::io::stderr().lock(), "confab dev: {what} …"));
}

/// A process that runs.
#[derive(Debug, Serialize)]
pub(super) struct Running {
    url: String,
    pid: u32,
}

impl Running {
    pub(super) fn of(service: &Service) -> Self {
        Self {
            url: service.url(),
            pid: service.process().id(),
        }
    }
}

/// What was started.
#[derive(Debug, Serialize)]
pub(super) struct Told {
    pub(super) gateways: Vec<Running>,
    pub(super) workers: Vec<Running>,
    pub(super) nats: String,
    pub(super) postgres: String,
    pub(super) tokens: BTreeMap<String, String>,
}

/// Writes what only its owner may read: keys, tokens, passwords.
pub(super) async fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use tokio::io::AsyncWriteExt as _;
    let mut options = tokio::fs::OpenOptions::new();
    let mut file = options
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .await?;
    file.write_all(bytes).await?;
    file.flush().await
}

/// Writes the ready file: whoever sees it sees all of it.
pub(super) async fn write(path: &Path, told: &Told) -> anyhow::Result<()> {
    let beside = path.with_extension("part");
    let cannot = || format!("cannot write {}", path.display());
    write_private(&beside, &serde_json::to_vec_pretty(told)?)
        .await
        .with_context(cannot)?;
    tokio::fs::rename(&beside, path).await.with_context(cannot)
}

impl Told {
    /// Lines to read and to paste.
    pub(super) fn lines(&self, data: &Path, binary: &Path) -> String {
        let url = |n: usize| {
            self.gateways
                .get(n)
                .or(self.gateways.first())
                .map_or("", |gateway| &gateway.url)
        };
        let urls = |all: &[Running]| {
            all.iter()
                .map(|one| one.url.as_str())
                .collect::<Vec<_>>()
                .join("  ")
        };
        let token = |user: &str| self.tokens.get(user).map_or("", String::as_str);
        let (first, second, confab) = (url(0), url(1), binary.display());
        format!(
            "\n\
confab runs. Ctrl-C stops it; a second start keeps the data, `make clean-data` forgets it.

  gateways   {gateways}
  workers    {workers}
  NATS       {nats}
  Postgres   {postgres}
  logs       {logs}

Paste into another terminal. First the tokens of alice and bob:

ALICE={alice}
BOB={bob}

A conversation of the two, begun by alice:

ID=$(curl -s {first}/v1/conversations -H \"Authorization: Bearer $ALICE\" -H 'Content-Type: application/json' \\
  -d '{{\"type\":\"group\",\"participants\":[\"bob\"]}}' | grep -o '\"id\":\"[^\"]*\"' | head -n 1 | cut -d '\"' -f 4); echo $ID

A message, and the history:

curl -s {first}/v1/messages -H \"Authorization: Bearer $ALICE\" -H 'Content-Type: application/json' \\
  -d \"{{\\\"conversationId\\\":\\\"$ID\\\",\\\"kind\\\":\\\"text\\\",\\\"content\\\":{{\\\"text\\\":\\\"hello bob\\\"}}}}\"; echo
curl -s {second}/v1/conversations/$ID/messages -H \"Authorization: Bearer $BOB\"; echo

In the terminal, bob listening at one gateway (Ctrl-C ends it) and alice sending at another:

{confab} listen --url {second} --token $BOB
{confab} send --url {first} --token $ALICE --conversation $ID \"hello again\"
",
            gateways = urls(&self.gateways),
            workers = urls(&self.workers),
            nats = self.nats,
            postgres = self.postgres,
            logs = data.join("logs").display(),
            alice = token("alice"),
            bob = token("bob"),
        )
    }
}
