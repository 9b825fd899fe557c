//! Runs the guide's examples in order against `confab dev`.
//!
//! | block | what is done |
//! |---|---|
//! | `sh` | commands are run, a line each; they must succeed |
//! | `text` | what the last command printed |
//! | `sh NAME`, `text NAME` | likewise in a second terminal, whose commands go on |
//! | `json` | the answer to the last command |
//! | `http` | a WebSocket is opened; the one before breaks |
//! | `json client`, `json server` | frames are said, and must come |
//! | `json lost` | frames come, and then the connection breaks |
//! | `json closed` | the gateway closes the connection so |

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Deserializer, Value};

use crate::development::Development;
use crate::markdown::{Block, blocks, folder, page};
use crate::shape::Meanings;
use crate::socket::Socket;
use crate::terminal::Terminal;

/// Addresses and a process that the pages show, and where `confab dev` tells what they are.
const SHOWN_VALUES: [(&str, &str); 3] = [
    ("http://127.0.0.1:40101", "/gateways/0/url"),
    ("http://127.0.0.1:40102", "/gateways/1/url"),
    ("40702", "/gateways/1/pid"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_example_of_the_guide_is_so() {
    let development = Development::start().await;
    let mut reader = GuideReader::new(&development).await;
    for name in pages() {
        for block in blocks(&page(&name)) {
            let at = format!("docs/{name}:{}", block.line);
            Box::pin(reader.follow(&block, &at)).await;
        }
        reader.turn_the_page();
    }
    drop(reader);
    development.stop().await;
}

/// The pages in the order in which the first one names them: all of the guide, then the operator's checklist.
fn pages() -> Vec<String> {
    let first = page("guide/README.md");
    let numbered = first
        .lines()
        .filter(|line| line.starts_with(|c: char| c.is_ascii_digit()));
    let links = numbered.filter_map(|line| line.split("](").nth(1)?.split(')').next());
    let named = links.map(|link| match link.strip_prefix("../") {
        Some(elsewhere) => elsewhere.to_owned(),
        None => format!("guide/{link}"),
    });
    let named: Vec<_> = named.collect();
    let files = std::fs::read_dir(folder().join("guide")).unwrap();
    let files = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut all: BTreeSet<_> = files.map(|file| format!("guide/{file}")).collect();
    all.remove("guide/README.md");
    all.insert("operations/production.md".to_owned());
    assert_eq!(named.iter().cloned().collect::<BTreeSet<_>>(), all);
    named
}

/// Somebody who does what the guide says.
struct GuideReader {
    environment: Vec<(&'static str, String)>,
    meanings: Meanings,
    terminal: Terminal,
    /// Further terminals by their names.
    others: BTreeMap<String, Terminal>,
    /// The commands that set variables: a further terminal is given them first.
    variables: Vec<String>,
    socket: Option<Socket>,
    /// What the last command printed.
    printed: String,
}

impl GuideReader {
    async fn new(development: &Development) -> Self {
        let mut meanings = Meanings::default();
        for (shown, at) in SHOWN_VALUES {
            let told = development.told.pointer(at).unwrap();
            let actual = told
                .as_str()
                .map_or_else(|| told.to_string(), str::to_owned);
            meanings.set(shown, &actual);
        }
        let environment = development.environment();
        let terminal = Terminal::open(&environment).await;
        Self {
            environment,
            meanings,
            terminal,
            others: BTreeMap::new(),
            variables: Vec::new(),
            socket: None,
            printed: String::new(),
        }
    }

    async fn follow(&mut self, block: &Block, at: &str) {
        let words: Vec<_> = block.kind.split(' ').collect();
        match words[..] {
            ["sh"] => self.run(&block.text, at).await,
            ["text"] => self.compare_lines(&block.text, at),
            ["sh", name] => self.begin_beside(name, &block.text).await,
            ["text", name] => self.hear_beside(name, &block.text, at).await,
            ["json"] => self.compare_printed(&block.text, at),
            ["http"] => {
                let request = self.say(&block.text).await;
                self.socket = Some(Socket::connect(&request).await);
            }
            ["json", "client"] => {
                for frame in values(&self.say(&block.text).await, at) {
                    self.socket(at).say(&frame).await;
                }
            }
            ["json", "server"] => self.hear(&block.text, at).await,
            ["json", "lost"] => {
                self.hear(&block.text, at).await;
                self.socket = None;
            }
            ["json", "closed"] => {
                let (code, reason) = self.socket(at).closed().await;
                let closed = serde_json::json!({ "code": code, "reason": reason });
                assert_eq!(values(&block.text, at), [closed], "{at}");
            }
            _ => panic!("{at}: nothing runs a block of {:?}", block.kind),
        }
    }

    /// What is open ends with its page; variables stay.
    fn turn_the_page(&mut self) {
        self.socket = None;
        self.others.clear();
    }

    fn socket(&mut self, at: &str) -> &mut Socket {
        let socket = self.socket.as_mut();
        socket.unwrap_or_else(|| panic!("{at}: no WebSocket is open"))
    }

    async fn run(&mut self, text: &str, at: &str) {
        for command in commands(text) {
            assert!(!command.starts_with("$ "), "{at}: it cannot be pasted");
            let command = self.meanings.apply(&command);
            if sets_variable(&command) {
                self.variables.push(command.clone());
            }
            let printed = self.terminal.run(&command).await;
            self.printed = printed.join("\n");
        }
    }

    fn compare_lines(&mut self, text: &str, at: &str) {
        let (shown, printed) = (text.lines(), self.printed.lines());
        assert_eq!(shown.count(), printed.count(), "{at}: {}", self.printed);
        for (shown, line) in text.lines().zip(self.printed.lines()) {
            assert!(self.meanings.line(shown, line), "{at}: {line}");
        }
    }

    async fn begin_beside(&mut self, name: &str, text: &str) {
        if !self.others.contains_key(name) {
            let mut terminal = Terminal::open(&self.environment).await;
            for command in &self.variables {
                terminal.run(command).await;
            }
            self.others.insert(name.to_owned(), terminal);
        }
        let terminal = self.others.get_mut(name).unwrap();
        for command in commands(text) {
            terminal.begin(&self.meanings.apply(&command)).await;
        }
    }

    async fn hear_beside(&mut self, name: &str, text: &str, at: &str) {
        let Some(terminal) = self.others.get_mut(name) else {
            panic!("{at}: no terminal {name} is open");
        };
        for shown in text.lines() {
            let line = terminal.line().await;
            assert!(self.meanings.line(shown, &line), "{at}: {line}");
        }
    }

    fn compare_printed(&mut self, text: &str, at: &str) {
        let printed: Value = serde_json::from_str(&self.printed)
            .unwrap_or_else(|error| panic!("{at}: {error}: {}", self.printed));
        let [shown] = &values(text, at)[..] else {
            panic!("{at}: one answer is expected");
        };
        let learned = self.meanings.learn(shown, &printed);
        learned.unwrap_or_else(|difference| panic!("{at}: {difference}: {printed:#}"));
    }

    async fn hear(&mut self, text: &str, at: &str) {
        let Some(socket) = &mut self.socket else {
            panic!("{at}: no WebSocket is open");
        };
        for shown in values(text, at) {
            socket.hear(&shown, &mut self.meanings, at).await;
        }
    }

    /// A text with what this run has in the place of ids, addresses and variables.
    async fn say(&mut self, text: &str) -> String {
        let mut said = self.meanings.apply(text);
        while let Some((before, behind)) = said.split_once('$') {
            let end = behind.find(|c: char| !c.is_ascii_uppercase()).unwrap();
            let (name, behind) = behind.split_at(end);
            let value = self.terminal.variable(name).await;
            said = format!("{before}{value}{behind}");
        }
        said
    }
}

/// The JSON values of a block.
fn values(text: &str, at: &str) -> Vec<Value> {
    let values = Deserializer::from_str(text).into_iter();
    let values: Result<_, _> = values.collect();
    values.unwrap_or_else(|error| panic!("{at}: {error}"))
}

/// The commands of a block, a line each, or several where a line ends in a backslash.
fn commands(text: &str) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let mut goes_on = false;
    for line in text.lines() {
        match all.last_mut() {
            Some(command) if goes_on => {
                command.push('\n');
                command.push_str(line);
            }
            _ => all.push(line.to_owned()),
        }
        goes_on = line.ends_with('\\');
    }
    all
}

fn sets_variable(command: &str) -> bool {
    let name = command.split('=').next().unwrap();
    let name = name.strip_prefix("export ").unwrap_or(name);
    name != command && name.bytes().all(|byte| byte.is_ascii_uppercase())
}
