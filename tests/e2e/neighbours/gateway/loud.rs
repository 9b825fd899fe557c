//! A user that abuses many sockets from an address of its own.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::OwnedReadHalf;
use tokio::time::{Instant, sleep, timeout_at};

use crate::support::{Answer, Cluster, Raw, TEXT_BYTE, User, frame, soak};

/// Where the loud one connects from: limits of its address are not its neighbours'.
const LOUD_ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// How long it waits before it connects anew where it was refused.
const RETRY_DELAY: Duration = Duration::from_millis(10);
/// Bytes that it writes at once.
const WRITE_BYTES: usize = 16 * 1024;
const READ_BYTES: usize = 64 * 1024;

/// The loud one.
pub(super) struct Loud {
    pub(super) user: User,
    port: u16,
    /// Sockets that were welcomed.
    welcomed: AtomicUsize,
    /// Frames that were written, in all: no two have the same number.
    frames: AtomicUsize,
    /// Answers of the last flood that say that a frame is not valid.
    invalid: AtomicUsize,
}

/// Whether a socket's answers are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// All, and none may say that the frame is not valid: such frames do not get to what is to be flooded.
    Valid,
    All,
    Nothing,
}

impl Loud {
    pub(super) fn new(cluster: &Cluster, user: User) -> Self {
        Self {
            user,
            port: cluster.gateways[0].port(),
            welcomed: AtomicUsize::new(0),
            frames: AtomicUsize::new(0),
            invalid: AtomicUsize::new(0),
        }
    }

    /// Begins so many conversations, however often it is told to come again.
    pub(super) async fn begins(&self, count: usize) -> Vec<String> {
        let begins = (0..count).map(|_| async {
            let group = json!({"type": "group", "participants": ["other"]});
            let created = self.until_admitted("/v1/conversations", group).await;
            created.ok(201).text("/conversation/id")
        });
        stream::iter(begins).buffer_unordered(16).collect().await
    }

    /// Says something, and gives the message's id.
    pub(super) async fn says(&self, conversation: &str) -> String {
        let message = json!({"conversationId": conversation, "kind": "text", "content": 1});
        let said = self.until_admitted("/v1/messages", message).await;
        said.ok(201).text("/message/id")
    }

    async fn until_admitted(&self, path: &str, body: Value) -> Answer {
        loop {
            let answer = self.user.post(0, path, body.clone()).await;
            if answer.status != 429 && answer.status != 503 {
                return answer;
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    pub(super) async fn connect(&self) -> Option<Raw> {
        Raw::connect_from(LOUD_ADDRESS, self.port).await.ok()
    }

    /// A socket that said this hello, and what belongs to it, and was welcomed.
    async fn welcomed(&self, hello: &[String]) -> Option<Raw> {
        let mut raw = self.connect().await?;
        let frames: Vec<_> = hello.iter().map(String::as_str).collect();
        let answer = raw.hello(&self.user.token, &frames).await?;
        if answer["type"] != "welcome" {
            return None;
        }
        self.welcomed.fetch_add(1, Ordering::Relaxed);
        Some(raw)
    }

    /// Writes frames over so many sockets for as long as it may, as fast as they are taken; connects anew where it is thrown out.
    pub(super) async fn floods(
        &self,
        what: &str,
        sockets: usize,
        for_so_long: Duration,
        reading: Reading,
        next: impl Fn(usize) -> String,
    ) {
        let until = Instant::now() + for_so_long;
        let before = self.frames.load(Ordering::Relaxed);
        self.welcomed.store(0, Ordering::Relaxed);
        let flooding = (0..sockets).map(|_| timeout_at(until, self.flood(reading, &next)));
        // Each goes on until the time is up.
        let _elapsed = join_all(flooding).await;
        self.tell(&format!("{what} from {sockets}"), before);
        let invalid = self.invalid.swap(0, Ordering::Relaxed);
        assert!(
            reading != Reading::Valid || invalid == 0,
            "{what}: {invalid} frames are not valid"
        );
    }

    async fn flood(&self, reading: Reading, next: &impl Fn(usize) -> String) {
        loop {
            let hello = json!({"type": "hello"}).to_string();
            let Some(raw) = self.welcomed(&[hello]).await else {
                sleep(RETRY_DELAY).await;
                continue;
            };
            let (mut read, mut write) = raw.into_stream().into_split();
            let writing = async {
                loop {
                    let mut bytes = Vec::new();
                    while bytes.len() < WRITE_BYTES {
                        let number = self.frames.fetch_add(1, Ordering::Relaxed);
                        bytes.extend(frame(TEXT_BYTE, next(number).as_bytes()));
                    }
                    if write.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
            };
            match reading {
                Reading::Nothing => writing.await,
                Reading::All | Reading::Valid => {
                    tokio::select! {
                        () = writing => {}
                        () = self.reads(&mut read) => {}
                    }
                }
            }
        }
    }

    /// Reads until the end, and counts answers that say that a frame is not valid.
    async fn reads(&self, answers: &mut OwnedReadHalf) {
        const INVALID_CODE: &str = "VALIDATION_ERROR";
        let mut buffer = vec![0; READ_BYTES];
        let mut kept = 0;
        while let Ok(count @ 1..) = answers.read(&mut buffer[kept..]).await {
            let read = kept + count;
            let text = String::from_utf8_lossy(&buffer[..read]);
            let invalid = text.matches(INVALID_CODE).count();
            self.invalid.fetch_add(invalid, Ordering::Relaxed);
            // One that is not whole yet.
            kept = read.min(INVALID_CODE.len() - 1);
            buffer.copy_within(read - kept..read, 0);
        }
    }

    /// Opens sockets with this hello and what belongs to it, and drops each at once.
    pub(super) async fn reconnects(
        &self,
        what: &str,
        at_once: usize,
        for_so_long: Duration,
        hello: impl Fn() -> Vec<String>,
    ) {
        let until = Instant::now() + for_so_long;
        let before = self.frames.load(Ordering::Relaxed);
        let one = || async {
            loop {
                if self.welcomed(&hello()).await.is_none() {
                    sleep(RETRY_DELAY).await;
                }
            }
        };
        let connecting = (0..at_once).map(|_| timeout_at(until, one()));
        let _elapsed: Vec<Result<(), _>> = join_all(connecting).await;
        self.tell(&format!("{what} by {at_once}"), before);
        assert!(
            self.welcomed.swap(0, Ordering::Relaxed) >= soak(1, 0),
            "{what}: nobody was welcomed"
        );
    }

    /// What was written since so many frames were.
    fn tell(&self, what: &str, before: usize) {
        let welcomed = self.welcomed.load(Ordering::Relaxed);
        let frames = self.frames.load(Ordering::Relaxed) - before;
        println!("{what}: {welcomed} sockets welcomed, {frames} frames taken");
    }
}
