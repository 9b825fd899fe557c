//! A client that reconnects to any gateway and records what it receives.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use confab_client::{Http, Resuming};
use confab_protocol::frame::{ClientFrame, ErrorFrame};
use confab_protocol::ids::{EventId, Seq, UserId};
use confab_protocol::signal::PresenceStatus;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::driver::Driver;
use super::library;
use super::record::{ClientAccount, Generation, Saying, now};
use crate::support::User;

/// How long an answer may take, reconnects included.
const CALL_TIMEOUT: Duration = Duration::from_secs(8);

/// What kind of client it is.
#[derive(Debug, Clone)]
pub(crate) struct Profile {
    /// The gateways that it connects to, in turn.
    pub(crate) urls: Vec<String>,
    /// Whether it says in each hello what it holds, and reads what was truncated.
    pub(crate) says_seen: bool,
    /// After how long without a byte it holds its connection for dead.
    pub(crate) silence: Duration,
    /// What the kernel takes for it when it does not read, in bytes.
    pub(crate) buffer: Option<u32>,
}

impl Profile {
    /// Says what it holds, and goes to any gateway.
    pub(crate) fn usual(urls: Vec<String>) -> Self {
        Self {
            urls,
            says_seen: true,
            silence: Duration::from_secs(5),
            buffer: None,
        }
    }
}

/// What a frame was answered with.
#[derive(Debug)]
pub(crate) enum FrameAnswer {
    /// What it is about, and the seq of its event.
    Done(EventId, Seq),
    Refused(Box<ErrorFrame>),
    /// Nobody knows.
    Broken,
}

/// How a client leaves for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Farewell {
    /// It says so.
    Bye,
    /// It lets its connection go.
    None,
}

/// What the driver is asked for.
pub(super) enum Order {
    /// Write a frame with this id, and tell its answer.
    Ask(String, Box<ClientFrame>, oneshot::Sender<FrameAnswer>),
    /// Say so of the user, now and on each connection to come.
    Presence(PresenceStatus),
    /// Go, and do not come again.
    Leave(Farewell),
    /// Drop the connection and come again.
    Reconnect,
}

/// By which way it speaks.
enum Voice {
    Hand(mpsc::Sender<Order>),
    Library(Arc<Resuming>),
}

pub(crate) struct HistoryClient {
    pub(crate) user: UserId,
    account: Arc<Mutex<ClientAccount>>,
    voice: Voice,
    _task: JoinSet<()>,
}

impl HistoryClient {
    /// Begins to connect; `first` is the place of its first gateway.
    pub(crate) fn start(user: &User, profile: Profile, first: usize, gateways: usize) -> Self {
        let account = Arc::new(Mutex::new(ClientAccount::new(user.id.clone())));
        let (orders, asked) = mpsc::channel(64);
        let readers: Vec<Http> = (0..gateways).map(|number| user.http(number)).collect();
        let driver = Driver::new(user.token.clone(), profile, first, readers);
        let mut task = JoinSet::new();
        task.spawn(driver.run(Arc::clone(&account), asked));
        Self {
            user: user.id.clone(),
            account,
            voice: Voice::Hand(orders),
            _task: task,
        }
    }

    /// A client on the library that resumes by itself.
    pub(crate) async fn library(
        user: &User,
        profile: &Profile,
        first: usize,
        gateways: usize,
    ) -> Self {
        let account = Arc::new(Mutex::new(ClientAccount::new(user.id.clone())));
        let readers: Vec<Http> = (0..gateways).map(|number| user.http(number)).collect();
        let (resuming, changes) = library::open(user, profile, first).await;
        let resuming = Arc::new(resuming);
        let mut task = JoinSet::new();
        let (kept, noted) = (Arc::clone(&resuming), Arc::clone(&account));
        task.spawn(library::keep(kept, changes, readers, noted));
        Self {
            user: user.id.clone(),
            account,
            voice: Voice::Library(resuming),
            _task: task,
        }
    }

    /// Writes a frame and waits for its answer.
    pub(crate) async fn ask(&self, id: String, frame: ClientFrame) -> FrameAnswer {
        let (answer, answered) = oneshot::channel();
        let asked = async {
            match &self.voice {
                Voice::Hand(orders) => {
                    let order = Order::Ask(id, Box::new(frame), answer);
                    orders.send(order).await.ok()?;
                    answered.await.ok()
                }
                Voice::Library(resuming) => Some(library::ask(resuming, frame).await),
            }
        };
        timeout(CALL_TIMEOUT, asked)
            .await
            .ok()
            .flatten()
            .unwrap_or(FrameAnswer::Broken)
    }

    /// Says whether its user is there.
    pub(crate) async fn says(&self, status: PresenceStatus) {
        let saying = Saying { status, at: now() };
        self.account().said.push(saying);
        match &self.voice {
            Voice::Hand(orders) => {
                let _gone = orders.send(Order::Presence(status)).await.is_err();
            }
            Voice::Library(resuming) => resuming.presence(status).await,
        }
    }

    /// Whether it is connected to this gateway.
    pub(crate) fn is_at(&self, url: &str) -> bool {
        let account = self.account();
        let last = account.generations.last();
        last.is_some_and(|generation| generation.ended.is_none() && generation.url == url)
    }

    /// Whether it is one that can be told to leave.
    pub(crate) const fn can_leave(&self) -> bool {
        matches!(self.voice, Voice::Hand(_))
    }

    /// Leaves for good.
    pub(crate) async fn leave(&self, farewell: Farewell) {
        let Voice::Hand(orders) = &self.voice else {
            panic!("{} does not leave", self.user)
        };
        self.account().has_left = true;
        let _gone = orders.send(Order::Leave(farewell)).await.is_err();
        // Its driver takes no more when it has let the connection go.
        orders.closed().await;
    }

    /// Drops the connection and comes again; whether it is a client that can be told so.
    pub(crate) async fn reconnects(&self) -> bool {
        match &self.voice {
            Voice::Hand(orders) => orders.send(Order::Reconnect).await.is_ok(),
            Voice::Library(_) => false,
        }
    }

    /// What it has heard by now.
    pub(crate) fn account(&self) -> MutexGuard<'_, ClientAccount> {
        self.account.lock().unwrap()
    }

    /// How many welcomes it had.
    pub(crate) fn generations(&self) -> usize {
        self.account().generations.len()
    }

    /// How many events it heard.
    pub(crate) fn heard(&self) -> usize {
        self.account()
            .generations
            .iter()
            .map(|generation| generation.heard.len())
            .sum()
    }

    /// Why sessions did not go on, by how often: with what they said, or how the connection before ended.
    pub(crate) fn afresh(&self) -> BTreeMap<String, usize> {
        let account = self.account();
        let pairs = account.generations.windows(2);
        let afresh = pairs.filter(|pair| !pair[1].resumed).map(why);
        let mut counts = BTreeMap::new();
        for reason in afresh {
            *counts.entry(reason).or_default() += 1;
        }
        counts
    }
}

fn why(pair: &[Generation]) -> String {
    let ended = pair[0].ended.clone().unwrap_or_default();
    let reason = pair[1].reason.as_deref().unwrap_or("no token");
    format!("{reason} behind {ended}")
}
