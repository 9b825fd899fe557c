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
pub(super) struct StartedStack {
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
pub(super) async fn write(path: &Path, told: &StartedStack) -> anyhow::Result<()> {
    let beside = path.with_extension("part");
    let cannot = || format!("cannot write {}", path.display());
    write_private(&beside, &serde_json::to_vec_pretty(told)?)
        .await
        .with_context(cannot)?;
    tokio::fs::rename(&beside, path).await.with_context(cannot)
}

impl StartedStack {
    /// Lines to read and to paste.
    pub(super) fn lines(&self, data: &Path, binary: &Path) -> String {
        [
            self.what_runs(data),
            self.in_a_browser(),
            self.variables(binary),
            self.first_lines(),
            self.further_lines(data),
        ]
        .concat()
    }

    fn what_runs(&self, data: &Path) -> String {
        let mut lines = "
confab runs. Ctrl-C stops it; a second start keeps the data, `make clean-data` forgets it.

"
        .to_owned();
        let mut line = |name: &str, what: &str| lines.push_str(&format!("  {name:<9}  {what}\n"));
        for (name, all) in [("gateway", &self.gateways), ("worker", &self.workers)] {
            for Running { url, pid } in all {
                line(name, &format!("{url}  pid {pid}"));
            }
        }
        line("NATS", &self.nats);
        line("Postgres", &self.postgres);
        line("logs", &data.join("logs").display().to_string());
        lines
    }

    fn in_a_browser(&self) -> String {
        let first = self.gateway(0);
        format!(
            "
In a browser:

  {first}/      what there is
  {first}/try   a page to try it: open it twice, with the tokens below
  {first}/docs  the API

Pages of this machine (localhost, 127.0.0.1, [::1]) may call, on any port. Pages of another origin may when this is started with it:

  CONFAB_CORS_ORIGINS=https://app.example make dev
"
        )
    }

    fn variables(&self, binary: &Path) -> String {
        let folder = binary.parent().unwrap_or(binary).display();
        let urls: Vec<_> = self.gateways.iter().map(|one| one.url.as_str()).collect();
        format!(
            "
Paste into another terminal. First where everything is, and the tokens of alice and bob:

export PATH=\"{folder}:$PATH\" CONFAB_URL={urls} CONFAB_NATS_URL={nats}
ALICE={alice}
BOB={bob}
",
            urls = urls.join(","),
            nats = self.nats,
            alice = self.token("alice"),
            bob = self.token("bob"),
        )
    }

    fn first_lines(&self) -> String {
        let (first, second) = (self.gateway(0), self.gateway(1));
        format!(
            "
A conversation of the two, begun by alice:

ID=$(curl -s {first}/v1/conversations -H \"Authorization: Bearer $ALICE\" -H 'Content-Type: application/json' \\
  -d '{{\"type\":\"group\",\"participants\":[\"bob\"]}}' | grep -o '\"id\":\"[^\"]*\"' | head -n 1 | cut -d '\"' -f 4); echo $ID

A message, and the history:

curl -s {first}/v1/messages -H \"Authorization: Bearer $ALICE\" -H 'Content-Type: application/json' \\
  -d \"{{\\\"conversationId\\\":\\\"$ID\\\",\\\"kind\\\":\\\"text\\\",\\\"content\\\":{{\\\"text\\\":\\\"hello bob\\\"}}}}\"; echo
curl -s {second}/v1/conversations/$ID/messages -H \"Authorization: Bearer $BOB\"; echo

In the terminal, bob listening at one gateway (Ctrl-C ends it) and alice sending at another:

confab listen --token $BOB
confab send --url {first} --token $ALICE --conversation $ID \"hello again\"
"
        )
    }

    fn further_lines(&self, data: &Path) -> String {
        format!(
            "
A token of another user, what a token says, the sessions there are, and NATS (with the nats CLI):

CAROL=$(confab token --sub carol --data-dir \"{data}\"); echo $CAROL
echo $CAROL | confab token --check - --data-dir \"{data}\"
confab session ls
nats -s {nats} micro info confab-worker
",
            data = data.display(),
            nats = self.nats,
        )
    }

    /// The URL of a gateway, of the first one where there are fewer.
    fn gateway(&self, n: usize) -> &str {
        let gateway = self.gateways.get(n).or(self.gateways.first());
        gateway.map_or("", |gateway| &gateway.url)
    }

    fn token(&self, user: &str) -> &str {
        self.tokens.get(user).map_or("", String::as_str)
    }
}
