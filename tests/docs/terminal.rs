//! A terminal: a shell that runs commands and returns their output.

use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

/// How long a line may take to come.
const LINE_TIMEOUT: Duration = Duration::from_secs(60);
/// Printed behind what a command prints, with its status.
const END_MARK: &str = "--end-of-command";

/// A shell, and everything that it started. Dropping it ends them.
pub(crate) struct Terminal {
    shell: Child,
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Terminal {
    pub(crate) async fn open(env: &[(&str, String)]) -> Self {
        let mut command = Command::new("bash");
        command
            .args(["--noprofile", "--norc"])
            .envs(env.iter().map(|(name, value)| (name, value)))
            .current_dir(env!("CARGO_TARGET_TMPDIR"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let mut shell = command.spawn().unwrap();
        let (input, output) = (shell.stdin.take().unwrap(), shell.stdout.take().unwrap());
        let lines = BufReader::new(output).lines();
        let mut terminal = Self {
            shell,
            input,
            lines,
        };
        terminal.begin("exec 2>&1; set -o pipefail").await;
        terminal
    }

    /// Begins a command, and does not wait for its end.
    pub(crate) async fn begin(&mut self, command: &str) {
        let line = format!("{{ {command}\n}} </dev/null\n");
        self.input.write_all(line.as_bytes()).await.unwrap();
    }

    /// Runs a command, which must succeed, and gives the lines that it printed.
    pub(crate) async fn run(&mut self, command: &str) -> Vec<String> {
        self.begin(command).await;
        // Behind a line that has no end as well.
        let mark = format!("printf '\\n%s %s\\n' {END_MARK} $?\n");
        self.input.write_all(mark.as_bytes()).await.unwrap();
        let mut printed = Vec::new();
        loop {
            let line = self.line().await;
            if let Some(status) = line.strip_prefix(END_MARK) {
                assert_eq!(status.trim(), "0", "{command}\n{}", printed.join("\n"));
                break;
            }
            printed.push(line);
        }
        if printed.last().is_some_and(String::is_empty) {
            printed.pop();
        }
        printed
    }

    /// The next line that is printed.
    pub(crate) async fn line(&mut self) -> String {
        let line = timeout(LINE_TIMEOUT, self.lines.next_line()).await;
        let line = line.expect("a line in time").unwrap();
        line.expect("the shell ended").trim_end().to_owned()
    }

    /// What a variable holds.
    pub(crate) async fn variable(&mut self, name: &str) -> String {
        self.run(&format!("printf %s \"${name}\"")).await.concat()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(id) = self.shell.id() {
            let group = Pid::from_raw(id.try_into().unwrap());
            // Nothing of it runs where that fails.
            let _gone = killpg(group, Signal::SIGKILL).is_err();
        }
    }
}
