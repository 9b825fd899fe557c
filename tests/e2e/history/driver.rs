//! The task behind a client: connects, receives, writes, reads truncated ranges and reconnects.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use confab_client::Http;
use confab_protocol::error::Code;
use confab_protocol::frame::{
    ClientFrame, Goaway, GoawayReason, Heard as Frame, Hello, Plain, Seen, ServerFrame,
    SetPresence, Truncated, Welcome,
};
use confab_protocol::ids::{ConversationId, Seq};
use confab_protocol::signal::PresenceStatus;
use rand::RngExt as _;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::client::{Farewell, FrameAnswer, Order, Profile};
use super::record::{
    ClientAccount, Generation, Positions, Presence, ReceivedEvent, ReceivedItem, now,
};
use super::socket::{End, Socket};

/// The most that is waited before it connects again, in milliseconds.
const MAX_BACKOFF_MS: u64 = 500;
/// How long a range is tried to be read.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// Close codes behind which a client may not come again (docs/protocol/websocket.md).
const FINAL_CODES: [u16; 7] = [1000, 1002, 1003, 1007, 1009, 4400, 4403];
/// Another connection went on with the session.
const REPLACED_CODE: u16 = 4409;

/// A range that was read; nothing of it where one is no member any more.
pub(super) type Range = (ConversationId, Seq, Vec<ReceivedEvent>);

pub(super) struct Driver {
    token: String,
    profile: Profile,
    /// The next gateway's place.
    next: usize,
    readers: Vec<Http>,
    resume_token: Option<String>,
    last: Positions,
    /// Ranges that are not read yet: their first and last seqs.
    unread: BTreeMap<ConversationId, (Seq, Seq)>,
    reads: JoinSet<Range>,
    waiting: BTreeMap<String, oneshot::Sender<FrameAnswer>>,
    /// What it says of its user's presence on each connection, once it was told to.
    presence: Option<PresenceStatus>,
    /// When it was asked to look elsewhere, and whether this connection serves until then.
    worker_retry: Option<Instant>,
}

impl Driver {
    pub(super) fn new(token: String, profile: Profile, next: usize, readers: Vec<Http>) -> Self {
        Self {
            token,
            profile,
            next,
            readers,
            resume_token: None,
            last: Positions::new(),
            unread: BTreeMap::new(),
            reads: JoinSet::new(),
            waiting: BTreeMap::new(),
            presence: None,
            worker_retry: None,
        }
    }

    pub(super) async fn run(
        mut self,
        account: Arc<Mutex<ClientAccount>>,
        mut orders: mpsc::Receiver<Order>,
    ) {
        let mut better = None;
        loop {
            let opened = match better.take() {
                Some(opened) => Ok(opened),
                None => self.connect().await,
            };
            let end = match opened {
                Ok((generation, mut socket)) => {
                    account.lock().unwrap().generations.push(generation);
                    let lived = self.live(&mut socket, &account, &mut orders).await;
                    for (_, answer) in std::mem::take(&mut self.waiting) {
                        let _gone = answer.send(FrameAnswer::Broken).is_err();
                    }
                    match lived {
                        Ok(opened) => {
                            better = Some(opened);
                            continue;
                        }
                        Err(Some(end)) => end,
                        Err(None) => return,
                    }
                }
                Err(end) => end,
            };
            ended(&account, &end);
            match self.wait_for(&end) {
                Some(wait) => sleep(wait).await,
                None => {
                    account.lock().unwrap().trouble = Some(format!("{end:?}"));
                    return;
                }
            }
        }
    }

    /// How long to wait before it comes again; nothing where it may not.
    fn wait_for(&mut self, end: &End) -> Option<Duration> {
        let jitter = Duration::from_millis(rand::rng().random_range(10..MAX_BACKOFF_MS));
        match end {
            End::Closed(code, _) if FINAL_CODES.contains(code) => return None,
            End::Closed(REPLACED_CODE, _) => self.resume_token = None,
            End::Closed(..) | End::Broken(_) => {}
            End::Refused(code, after) => {
                let retryable = code.retryable() || *code == Code::SessionReplaced;
                let after = Duration::from_millis(after.unwrap_or_default().min(2_000));
                return retryable.then(|| after + jitter);
            }
        }
        Some(jitter)
    }

    async fn connect(&mut self) -> Result<(Generation, Socket), End> {
        let url = self.profile.urls[self.next % self.profile.urls.len()].clone();
        self.next += 1;
        self.worker_retry = None;
        let said = self.profile.says_seen.then(|| self.said());
        let hello = Hello {
            resume_token: self.resume_token.clone(),
            seen: said.clone(),
            heads: Some(true),
            presence: Some(true),
            ..Hello::default()
        };
        let opened = Socket::open(&url, &self.token, hello, self.profile.buffer).await;
        let (welcome, socket) = opened?;
        let generation = Generation {
            url,
            ..self.welcomed(*welcome, said)
        };
        Ok((generation, socket))
    }

    /// What it holds without a gap.
    fn said(&self) -> Positions {
        let said = self.last.iter().map(|(conversation, last)| {
            let unread = self.unread.get(conversation);
            (*conversation, unread.map_or(*last, |(from, _)| from - 1))
        });
        said.collect()
    }

    fn welcomed(&mut self, welcome: Welcome, said: Option<Positions>) -> Generation {
        self.resume_token = welcome.resume_token;
        if !welcome.resumed {
            for (conversation, head) in welcome.heads.iter().flatten() {
                self.last.entry(*conversation).or_insert(*head);
            }
        }
        // What was not read of it is told again.
        self.unread.clear();
        self.reads = JoinSet::new();
        let mut generation = Generation {
            resumed: welcome.resumed,
            reason: welcome.reason,
            said,
            heads: welcome.heads,
            welcomed_at: now(),
            ..Generation::default()
        };
        for truncated in &welcome.truncated {
            generation.heard.push(self.truncated(truncated));
        }
        generation
    }

    /// Serves one connection to its end, or until another welcomes it.
    async fn live(
        &mut self,
        socket: &mut Socket,
        account: &Mutex<ClientAccount>,
        orders: &mut mpsc::Receiver<Order>,
    ) -> Result<(Generation, Socket), Option<End>> {
        let mut alive = Instant::now();
        if let Some(status) = self.presence {
            say_presence(socket, status).await?;
        }
        loop {
            let silent = alive + self.profile.silence;
            let worker_retry = self.worker_retry.unwrap_or(silent);
            tokio::select! {
                heard = socket.next() => {
                    alive = Instant::now();
                    if let Some(heard) = heard.map_err(Some)?.and_then(|frame| self.hear(frame)) {
                        note(account, heard);
                    }
                }
                () = sleep_until(silent) => return Err(Some(End::Broken("silence".to_owned()))),
                order = orders.recv() => match order {
                    Some(Order::Ask(_, _, answer)) if answer.is_closed() => {}
                    Some(Order::Ask(id, frame, answer)) => {
                        self.waiting.insert(id, answer);
                        socket.send(&frame).await.map_err(Some)?;
                    }
                    Some(Order::Presence(status)) => {
                        self.presence = Some(status);
                        say_presence(socket, status).await?;
                    }
                    Some(Order::Leave(Farewell::Bye)) => {
                        let bye = ClientFrame::Bye(Plain::default());
                        socket.send(&bye).await.map_err(Some)?;
                        return Err(None);
                    }
                    Some(Order::Leave(Farewell::None)) => return Err(None),
                    Some(Order::Reconnect) => return Err(Some(End::Broken("left".to_owned()))),
                    None => return Err(None),
                },
                Some(read) = self.reads.join_next() => {
                    if let Some(seen) = self.has_read(read.unwrap(), account) {
                        socket.send(&ClientFrame::Seen(seen)).await.map_err(Some)?;
                    }
                }
                () = sleep_until(worker_retry), if self.worker_retry.is_some() => {
                    match self.connect().await {
                        Ok(better) => return Ok(better),
                        Err(_) => self.worker_retry = Some(Instant::now() + Duration::from_secs(2)),
                    }
                }
            }
        }
    }

    /// What to say behind a reading, unless another that goes further is on its way.
    fn has_read(&mut self, range: Range, account: &Mutex<ClientAccount>) -> Option<Seen> {
        let (conversation, head, events) = range;
        let (_, wanted) = *self.unread.get(&conversation)?;
        if head < wanted {
            return None;
        }
        self.unread.remove(&conversation);
        let read = ReceivedItem::Read {
            conversation,
            head,
            events,
        };
        note(account, read);
        let positions = [(conversation, head)].into();
        Some(Seen {
            id: None,
            positions,
        })
    }

    fn hear(&mut self, frame: Frame) -> Option<ReceivedItem> {
        match frame {
            Frame::Event(event) => {
                let last = self.last.entry(event.conversation_id).or_default();
                *last = event.seq.max(*last);
                Some(ReceivedItem::Event(ReceivedEvent::from(&event)))
            }
            Frame::Frame(ServerFrame::Truncated(truncated)) => Some(self.truncated(&truncated)),
            Frame::Frame(ServerFrame::Ack(ack)) => {
                if let (Some(id), Some(message), Some(seq)) = (ack.id, ack.message_id, ack.seq) {
                    self.answer(&id, FrameAnswer::Done(message, seq));
                }
                None
            }
            Frame::Frame(ServerFrame::Error(error)) => {
                if let Some(id) = error.id.clone() {
                    self.answer(&id, FrameAnswer::Refused(Box::new(error)));
                }
                None
            }
            Frame::Frame(ServerFrame::ResumeToken(token)) => {
                self.resume_token = Some(token.resume_token);
                None
            }
            Frame::Frame(ServerFrame::Goaway(goaway)) => {
                self.asked_to_go(&goaway);
                None
            }
            Frame::Frame(ServerFrame::Receipt(receipt)) => Some(ReceivedItem::Receipt {
                conversation: receipt.conversation_id,
                user: receipt.user_id,
                up_to: receipt.up_to_seq,
            }),
            Frame::Frame(ServerFrame::Presence(presence)) => {
                Some(ReceivedItem::Presence(Presence::told(&presence)))
            }
            Frame::Frame(ServerFrame::PresenceSnapshot(snapshot)) => {
                Some(ReceivedItem::snapshot(&snapshot))
            }
            Frame::Frame(_) => None,
        }
    }

    /// A draining gateway ends the connection itself; one that has lost the others keeps it until another welcomes.
    fn asked_to_go(&mut self, goaway: &Goaway) {
        if goaway.reason == GoawayReason::Degraded {
            self.worker_retry =
                Some(Instant::now() + Duration::from_millis(goaway.reconnect_after_ms));
        }
    }

    fn answer(&mut self, id: &str, answer: FrameAnswer) {
        if let Some(waiting) = self.waiting.remove(id) {
            let _gone = waiting.send(answer).is_err();
        }
    }

    fn truncated(&mut self, truncated: &Truncated) -> ReceivedItem {
        let (conversation, from) = (truncated.conversation_id, truncated.from_seq);
        let head = truncated.head_seq;
        let last = self.last.entry(conversation).or_default();
        *last = head.max(*last);
        if self.profile.says_seen {
            let unread = self.unread.entry(conversation).or_insert((from, head));
            *unread = (from.min(unread.0), head.max(unread.1));
            let (from, head) = *unread;
            self.reads
                .spawn(read(self.readers.clone(), conversation, from, head));
        }
        ReceivedItem::Truncated {
            conversation,
            from,
            head,
            reset: truncated.reset.unwrap_or_default(),
        }
    }
}

async fn say_presence(socket: &mut Socket, status: PresenceStatus) -> Result<(), Option<End>> {
    let frame = ClientFrame::Presence(SetPresence { id: None, status });
    socket.send(&frame).await.map_err(Some)
}

fn note(account: &Mutex<ClientAccount>, heard: ReceivedItem) {
    let mut account = account.lock().unwrap();
    let generation = account.generations.last_mut().unwrap();
    generation.heard.push(heard);
}

fn ended(account: &Mutex<ClientAccount>, end: &End) {
    let mut account = account.lock().unwrap();
    let open = account
        .generations
        .last_mut()
        .filter(|generation| generation.ended.is_none());
    open.into_iter()
        .for_each(|generation| generation.ended = Some(format!("{end:?}")));
}

/// Reads a range of a log at any gateway.
pub(super) async fn read(
    readers: Vec<Http>,
    conversation: ConversationId,
    from: Seq,
    head: Seq,
) -> Range {
    let until = Instant::now() + READ_TIMEOUT;
    for http in readers.iter().cycle() {
        let log = timeout(READ_TIMEOUT / 6, http.events(conversation, from - 1)).await;
        match log {
            Ok(Ok(events)) => {
                let told = events.iter().map(ReceivedEvent::from);
                return (
                    conversation,
                    head,
                    told.filter(|told| told.seq <= head).collect(),
                );
            }
            Ok(Err(error)) if error.code().is_some_and(|code| !code.retryable()) => break,
            Ok(Err(_)) | Err(_) if Instant::now() < until => {}
            Ok(Err(_)) | Err(_) => break,
        }
        sleep(Duration::from_millis(100)).await;
    }
    (conversation, head, Vec::new())
}
