use std::path::{Path, PathBuf};

/// A program to run, and the place of its output.
#[derive(Clone, Debug)]
pub struct Launch {
    /// How logs and errors call it, for example `gateway-1`.
    pub name: String,
    pub program: PathBuf,
    pub args: Vec<String>,
    /// Variables to set, or with `None` to take away, in what is otherwise this process' environment.
    pub env: Vec<(String, Option<String>)>,
    /// Output and errors are appended to this file; its folder is made when it is missing.
    pub log: PathBuf,
}

/// The last lines of a log, for an error message.
pub(crate) fn tail(log: &Path) -> String {
    const MAX_TAIL_LINES: usize = 12;
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines
        .get(lines.len().saturating_sub(MAX_TAIL_LINES)..)
        .unwrap_or_default()
        .join("\n")
}
