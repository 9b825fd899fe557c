//! The one task of a session: everything that can wake it, and what follows from that.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use confab_protocol::frame::{Auth, ClientFrame, Heard, Hello, Plain, Seen};
use confab_protocol::ids::{ConversationId, Seq};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

mod change_queue;
mod connections;
mod hearing;
mod link;
mod opening;

use super::connect::{ConnectAttempt, Connector};
use super::options::Source;
use super::positions::Positions;
use super::sends::{PendingSend, Room, Sends};
use super::{BYE_TIMEOUT, Change, CurrentSession, EventCounts, ResumeOptions};
use crate::session::{Answer, SendError};
use crate::ws::Closed;
use change_queue::ChangeQueue;
use link::Link;

/// Interval at which the gateway is told what was heard, where something was: so often may a record that is written at the end
/// lag behind the client.
const SEEN_EVERY: Duration = Duration::from_secs(5);
/// Conversations in one `seen` frame: half of what a frame holds.
const SEEN_MOST: usize = 5000;
/// Delay until the source of tokens is asked again after it had none.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// A command of the program to the driver.
pub(super) enum DriverCommand {
    Keep(PendingSend),
    Renew { token: String, answer: Answer },
    Say(ClientFrame),
    Seen(BTreeMap<ConversationId, Seq>),
    Bye,
}

/// Everything that can wake the driver.
enum Wake {
    DriverCommand(Option<DriverCommand>),
    Heard(Box<Result<Heard, Closed>>),
    Writable,
    Taken,
    ConnectAttempt(ConnectAttempt),
    Token(Result<String, Source>),
    Time,
}

/// Goes on, or ends so.
type Flow = ControlFlow<Closed>;

pub(super) struct Driver {
    options: Arc<ResumeOptions>,
    commands: mpsc::Receiver<DriverCommand>,
    told: ChangeQueue,
    counts: Arc<EventCounts>,
    standing: watch::Sender<CurrentSession>,
    link: Option<Link>,
    dialer: Connector,
    sends: Sends,
    positions: Positions,
    /// What resumes the session.
    resume_token: Option<String>,
    /// What the program last said of the user's presence.
    presence: Option<ClientFrame>,
    /// When the gateway is told what was heard.
    say_at: Option<Instant>,
    /// A question for a fresh token, and when to put it again.
    asked: JoinSet<Result<String, Source>>,
    ask_at: Option<Instant>,
    /// By when a bye must have been answered.
    leaving: Option<Instant>,
}

impl Driver {
    pub(super) async fn run(mut self) {
        let closed = loop {
            let wake = self.wake().await;
            let now = Instant::now();
            if let ControlFlow::Break(closed) = self.handle(wake, now) {
                break closed;
            }
        };
        self.finish(closed).await;
    }

    async fn wake(&mut self) -> Wake {
        let reads = self.told.is_done();
        let writes = self.sends.is_ready() || self.link.as_ref().is_some_and(Link::has_own);
        let writes = writes && self.link.as_ref().is_some_and(Link::is_writable);
        let due = self.due();
        let asks = !self.asked.is_empty();
        let (receiver, frames) = self.link.as_mut().map(Link::sides).unzip();
        tokio::select! {
            command = self.commands.recv() => Wake::DriverCommand(command),
            heard = link::hear(receiver), if reads => Wake::Heard(Box::new(heard)),
            () = link::room(frames), if writes => Wake::Writable,
            () = self.told.room(), if !reads => Wake::Taken,
            dialed = self.dialer.next() => Wake::ConnectAttempt(dialed),
            Some(Ok(token)) = self.asked.join_next(), if asks => Wake::Token(token),
            () = sleep_until(due) => Wake::Time,
        }
    }

    /// When something is to be done though nothing happens.
    fn due(&self) -> Option<Instant> {
        let dead = self.link.as_ref().filter(|_| self.told.is_done());
        [
            dead.map(Link::dead_at),
            self.dialer.due,
            self.sends.due(),
            self.say_at.filter(|_| self.link.is_some()),
            self.ask_at,
            self.leaving,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn handle(&mut self, wake: Wake, now: Instant) -> Flow {
        match wake {
            Wake::DriverCommand(Some(command)) => self.command(command, now),
            Wake::DriverCommand(None) => Flow::Break(gone("the program left")),
            Wake::Heard(heard) => match *heard {
                Ok(heard) => {
                    self.hear(heard, now);
                    Flow::Continue(())
                }
                Err(closed) => self.lost(closed, now),
            },
            Wake::Writable => {
                self.write();
                Flow::Continue(())
            }
            Wake::Taken => {
                self.told.hand_over();
                if let Some(link) = self.link.as_mut().filter(|_| self.told.is_done()) {
                    link.reads_again(now);
                }
                Flow::Continue(())
            }
            Wake::ConnectAttempt(dialed) => self.dialed(dialed, now),
            Wake::Token(token) => {
                self.fresh(token, now);
                Flow::Continue(())
            }
            Wake::Time => self.time(now),
        }
    }

    fn command(&mut self, command: DriverCommand, now: Instant) -> Flow {
        match command {
            DriverCommand::Keep(kept) => self.sends.keep(kept, now),
            DriverCommand::Renew { token, answer } => self.renew(token, Some(answer), now),
            DriverCommand::Say(frame) => {
                if matches!(frame, ClientFrame::Presence(_)) {
                    self.presence = Some(frame.clone());
                }
                self.say(frame);
            }
            DriverCommand::Seen(positions) => {
                let held = positions.into_iter();
                let moved: Vec<bool> = held
                    .map(|(conversation, seq)| self.positions.hold(conversation, seq))
                    .collect();
                if moved.contains(&true) && self.options.says_seen {
                    self.say_at = Some(now);
                }
            }
            DriverCommand::Bye if self.link.is_some() => {
                self.dialer.stop();
                self.say(ClientFrame::Bye(Plain::default()));
                self.leaving = Some(now + BYE_TIMEOUT);
            }
            DriverCommand::Bye => return Flow::Break(gone("left without a connection")),
        }
        Flow::Continue(())
    }

    /// Writes what there is room for, and counts on being woken when there is more.
    fn write(&mut self) {
        let Some(link) = &mut self.link else {
            return;
        };
        while link.has_room()
            && let Some(frame) = link.take_own().or_else(|| self.sends.next())
        {
            link.write(frame);
        }
    }

    /// For this connection only.
    fn say(&mut self, frame: ClientFrame) {
        if let Some(link) = &mut self.link {
            link.say(frame);
        }
    }

    fn time(&mut self, now: Instant) -> Flow {
        self.sends.tick(now);
        if self.leaving.is_some_and(|end| end <= now) {
            return Flow::Break(gone("the bye was not answered"));
        }
        if self.say_at.is_some_and(|at| at <= now) && self.link.is_some() {
            self.say_seen(now);
        }
        if self.ask_at.is_some_and(|at| at <= now) {
            self.ask();
        }
        let link = self.link.as_ref().filter(|_| self.told.is_done());
        if let Some(link) = link.filter(|link| link.dead_at() <= now) {
            let silent = link.silent();
            self.lost(silent, now)?;
        }
        if self.dialer.due.is_some_and(|due| due <= now) {
            self.connect();
        }
        Flow::Continue(())
    }

    fn connect(&mut self) {
        if let Some(link) = &mut self.link {
            link.succeeded = true;
        }
        let hello = Hello {
            resume_token: self.resume_token.clone(),
            seen: self.options.says_seen.then(|| self.positions.all()),
            heads: self.options.says_seen.then_some(true),
            presence: self.options.asks_presence.then_some(true),
            ..Hello::default()
        };
        self.dialer.start(hello);
    }

    /// Tells the gateway what was heard, so that the record of the session is up to date where it cannot be asked.
    fn say_seen(&mut self, now: Instant) {
        let positions = self.positions.moved(SEEN_MOST);
        self.say_at = self.positions.has_moved().then(|| now + SEEN_EVERY);
        if !positions.is_empty() {
            let id = None;
            self.say(ClientFrame::Seen(Seen { id, positions }));
        }
    }

    fn ask(&mut self) {
        self.ask_at = None;
        if self.asked.is_empty() {
            let options = Arc::clone(&self.options);
            self.asked
                .spawn(async move { super::connect::ask(&options).await });
        }
    }

    fn fresh(&mut self, token: Result<String, Source>, now: Instant) {
        match token {
            // What the source has not renewed cannot be.
            Ok(token) if self.dialer.has_token(&token) => {}
            Ok(token) => self.renew(token, None, now),
            Err(_none) => self.ask_at = Some(now + ASK_AGAIN),
        }
    }

    fn renew(&mut self, token: String, answer: Option<Answer>, now: Instant) {
        self.dialer.use_token(token.clone());
        let id = Uuid::now_v7().to_string();
        let frame = ClientFrame::Auth(Auth {
            id: Some(id.clone()),
            token,
        });
        let kept = PendingSend::new(id, frame, answer, Room::default());
        self.sends.keep(kept, now);
    }

    /// Tells everyone who waits, and the program.
    async fn finish(mut self, closed: Closed) {
        self.link = None;
        self.sends.end(&closed);
        let end = closed.clone();
        self.told.tell(Change::Closed(end.clone()));
        self.standing
            .send_modify(|standing| standing.closed = Some(end));
        self.commands.close();
        while let Some(command) = self.commands.recv().await {
            if let DriverCommand::Keep(PendingSend {
                answer: Some(answer),
                ..
            })
            | DriverCommand::Renew { answer, .. } = command
            {
                let _unheard = answer.send(Err(SendError::Closed(closed.clone()))).is_err();
            }
        }
        self.told.finish().await;
    }
}

/// An end that no gateway told.
fn gone(why: &str) -> Closed {
    Closed {
        code: None,
        reason: why.to_owned(),
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
