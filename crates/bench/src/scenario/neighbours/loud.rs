//! A user that does one thing as often as it can.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use confab_client::{Http, NewConversation, NewMembers};
use confab_protocol::event::Member;
use confab_protocol::frame::{ClientFrame, Hello, Plain, Seen, SetPresence, Typing};
use confab_protocol::ids::{ConversationId, UserId};
use confab_protocol::json::JsonText;
use confab_protocol::resource::{ConversationType, Role};
use confab_protocol::signal::PresenceStatus;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::sleep;
use uuid::Uuid;

use crate::Error;
use crate::load::{Connection, LoadUser, LoadUsers, begin};
use crate::target::Target;

/// Members added by one call.
const MEMBERS_PER_CALL: usize = 1_000;
/// Changes of one conversation's metadata on the way at once.
const CHANGES_AT_ONCE: usize = 15;
/// Calls at once while conversations are made.
const MADE_AT_ONCE: usize = 32;
/// Conversations that one `seen` names.
const CONVERSATIONS_PER_SEEN: usize = 1_000;
/// How long who was refused a connection waits.
const RECONNECT_DELAY: Duration = Duration::from_millis(100);

/// What a user may do at its worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "camelCase")]
pub(super) enum Worst {
    /// Adds 1,000 members to each of its conversations at once, again and again.
    Additions,
    /// Changes the metadata of its conversations, 15 changes of each at once.
    Changes,
    /// Says in turn that it is away and online, as a member of all its conversations.
    Presence,
    /// Types in conversations that are not its own.
    Typing,
    /// Claims to have seen 1,000 conversations that are not there.
    Seen,
    /// Asks for pongs.
    Ping,
}

impl Worst {
    pub(super) const ALL_KINDS: [Self; 6] = [
        Self::Additions,
        Self::Changes,
        Self::Presence,
        Self::Typing,
        Self::Seen,
        Self::Ping,
    ];
}

/// Does it until it is stopped.
#[derive(Debug)]
pub(super) struct Loud(JoinSet<()>);

/// A user that nobody else is.
pub(super) fn user(target: &Target) -> Result<LoadUser, Error> {
    let name = format!("loud-{:08x}", rand::random::<u32>());
    let users = LoadUsers::new(target.tokens(), &target.urls(), &name, 1)?;
    let user = users.0.into_iter().next();
    user.ok_or_else(|| Error::Failed("nobody is loud".to_owned()))
}

impl Loud {
    pub(super) async fn start(
        user: LoadUser,
        worst: Worst,
        sockets: usize,
        conversations: usize,
    ) -> Result<Self, Error> {
        let mut tasks = JoinSet::new();
        match worst {
            Worst::Additions => {
                let http = Http::new(&user.url, &user.token)?;
                for id in begin_all(&http, conversations).await? {
                    tasks.spawn(add(http.clone(), id));
                }
            }
            Worst::Changes => {
                let http = Http::new(&user.url, &user.token)?;
                for id in begin_all(&http, conversations).await? {
                    for _ in 0..CHANGES_AT_ONCE {
                        tasks.spawn(change(http.clone(), id));
                    }
                }
            }
            Worst::Presence => {
                let http = Http::new(&user.url, &user.token)?;
                begin_all(&http, conversations).await?;
            }
            Worst::Typing | Worst::Seen | Worst::Ping => {}
        }
        let frames = frames(worst)?;
        if !frames.is_empty() {
            for _ in 0..sockets {
                tasks.spawn(flood(user.clone(), frames.clone()));
            }
        }
        Ok(Self(tasks))
    }

    pub(super) async fn stop(mut self) {
        self.0.shutdown().await;
    }
}

async fn begin_all(http: &Http, count: usize) -> Result<Vec<ConversationId>, Error> {
    let other = "other".parse::<UserId>();
    let other = other.map_err(|error| Error::Failed(error.to_string()))?;
    let new = NewConversation {
        r#type: ConversationType::Channel,
        participants: vec![other],
        metadata: None,
    };
    let begun = (0..count).map(|_| begin(http, &new));
    let begun = stream::iter(begun).buffer_unordered(MADE_AT_ONCE);
    begun.try_collect().await
}

async fn add(http: Http, conversation: ConversationId) {
    let new = |_| -> Option<Member> {
        let user_id: UserId = format!("added-{}", Uuid::now_v7()).parse().ok()?;
        Some(Member {
            user_id,
            role: Role::Member,
        })
    };
    loop {
        let members = NewMembers {
            participants: (0..MEMBERS_PER_CALL).filter_map(new).collect(),
        };
        rest(http.add_participants(conversation, &members)).await;
    }
}

async fn change(http: Http, conversation: ConversationId) {
    loop {
        let metadata = JsonText::trusted(format!(r#"{{"name":"{}"}}"#, Uuid::now_v7()));
        rest(http.update_conversation(conversation, &metadata, None)).await;
    }
}

/// Refused, it asks again, but not without end.
async fn rest<T, E>(call: impl Future<Output = Result<T, E>>) {
    if call.await.is_err() {
        sleep(RECONNECT_DELAY).await;
    }
}

/// What is sent in turn.
fn frames(worst: Worst) -> Result<Vec<Bytes>, Error> {
    let presence = |status| ClientFrame::Presence(SetPresence { id: None, status });
    let foreign = || ConversationId(Uuid::now_v7());
    let frames = match worst {
        Worst::Additions | Worst::Changes => Vec::new(),
        Worst::Presence => vec![
            presence(PresenceStatus::Away),
            presence(PresenceStatus::Online),
        ],
        Worst::Typing => vec![ClientFrame::Typing(Typing {
            id: None,
            conversation_id: foreign(),
            on: true,
        })],
        Worst::Seen => vec![ClientFrame::Seen(Seen {
            id: None,
            positions: (0..CONVERSATIONS_PER_SEEN)
                .map(|_| (foreign(), 1))
                .collect(),
        })],
        Worst::Ping => vec![ClientFrame::Ping(Plain::default())],
    };
    let encoded = frames.iter().map(serde_json::to_vec);
    let encoded = encoded.map(|frame| Ok(Bytes::from(frame?)));
    encoded.collect()
}

/// Sends the frames, again and again; opens another socket where one was closed.
async fn flood(user: LoadUser, frames: Vec<Bytes>) {
    loop {
        let hearing = Box::new(|_: &[u8]| {});
        let opened = Connection::open(&user.url, &user.token, Hello::default(), hearing);
        if let Ok((_, connection)) = Box::pin(opened).await {
            for frame in frames.iter().cycle() {
                if connection.send(frame.clone()).await.is_err() {
                    break;
                }
            }
        }
        sleep(RECONNECT_DELAY).await;
    }
}
