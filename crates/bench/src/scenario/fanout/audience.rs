//! Those who hear: the members of one conversation, or all sockets of bare servers.

use std::sync::Arc;

use bytes::Bytes;
use confab_client::{Http, NewConversation, NewMembers};
use confab_protocol::event::Member;
use confab_protocol::frame::Hello;
use confab_protocol::ids::{ConversationId, UserId};
use confab_protocol::limits::PARTICIPANTS_PER_REQUEST;
use confab_protocol::resource::{ConversationType, Role};
use memchr::memmem;
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, sleep, sleep_until};
use uuid::Uuid;

use super::FanoutLoad;
use crate::Error;
use crate::limits::baseline::Baseline;
use crate::load::{Arrivals, Connection, Isolated, LoadUsers, Pace, connect_all, send_frame};
use crate::output::Progress;
use crate::target::Target;

/// How long it may take until all hear.
const AUDIENCE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a first message may take until it is said again.
const REPEAT_DELAY: Duration = Duration::from_secs(2);
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Those who hear what is said.
#[derive(Debug)]
pub(crate) struct Audience {
    connections: Arc<[Connection]>,
    arrivals: Arc<Arrivals>,
    voice: Voice,
    /// Where the connections are read.
    _isolated: Isolated,
}

/// How something is said to all.
#[derive(Debug, Clone)]
enum Voice {
    /// By the first connection, to a conversation.
    Conversation(ConversationId, Arc<str>),
    /// As an event, in two parts around its client id, by the first connection to each of so many bare servers.
    Event(Bytes, Bytes, usize),
}

impl Audience {
    /// The members of a new conversation, connected.
    pub(crate) async fn of_confab(
        target: &Target,
        load: &FanoutLoad,
        progress: &Progress,
    ) -> Result<Self, Error> {
        progress.say("making users and a conversation");
        // Users of their own: an installation that runs may know those of an earlier run, with their conversations.
        let prefix = format!("member-{:08x}", rand::random::<u32>());
        let users = LoadUsers::new(target.tokens(), &target.urls(), &prefix, load.members)?;
        let conversation = begin(&users).await?;
        progress.say("connecting");
        let arrivals = arrivals(load)?;
        let hearings: Vec<_> = (0..load.members).map(|_| arrivals.hearing()).collect();
        let isolated = Isolated::new()?;
        let connecting = async move { connect_all(&users, Hello::default(), hearings).await };
        let connections = isolated.run(connecting).await?;
        let audience = Self {
            connections: connections.into(),
            arrivals,
            voice: Voice::Conversation(conversation, "x".repeat(load.text).into()),
            _isolated: isolated,
        };
        audience.settle(load).await?;
        Ok(audience)
    }

    /// Sockets of bare servers in turn, to which this event is written.
    pub(crate) async fn of_baseline(
        baselines: &[Baseline],
        load: &FanoutLoad,
        event: &Bytes,
        progress: &Progress,
    ) -> Result<Self, Error> {
        progress.say("connecting to bare servers");
        let arrivals = arrivals(load)?;
        let urls: Vec<_> = baselines.iter().map(Baseline::url).collect();
        let to = (0..load.members).zip(urls.into_iter().cycle());
        let to: Vec<_> = to.map(|(_, url)| (url, arrivals.hearing())).collect();
        let isolated = Isolated::new()?;
        let connecting = async move {
            let mut connections = Vec::new();
            for (url, hearing) in to {
                connections.push(Connection::unwelcomed(&url, "", hearing).await?);
            }
            Ok(connections)
        };
        let connections = isolated.run(connecting).await?;
        let (before, behind) = around_client_id(event)?;
        let audience = Self {
            connections: connections.into(),
            arrivals,
            voice: Voice::Event(before, behind, baselines.len()),
            _isolated: isolated,
        };
        audience.settle(load).await?;
        Ok(audience)
    }

    /// What they hear.
    pub(crate) fn arrivals(&self) -> &Arrivals {
        &self.arrivals
    }

    /// An event as they heard it.
    pub(crate) fn sample(&self) -> Result<Bytes, Error> {
        let sample = self.arrivals.sample();
        sample.ok_or_else(|| Error::Failed("nothing was heard".to_owned()))
    }

    /// That every connection still stands.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.connections.iter().all(Connection::is_open) {
            Ok(())
        } else {
            let what = "a connection broke under the load";
            Err(Error::Failed(what.to_owned()))
        }
    }

    /// Says something at the load's times, or as often as there is room, until it is ended.
    pub(crate) fn speak(&self, load: &FanoutLoad) -> JoinSet<Result<(), Error>> {
        let mut speaking = JoinSet::new();
        let pace = Pace::new(Instant::now(), load.rate, 0, 1);
        let (connections, arrivals) = (Arc::clone(&self.connections), Arc::clone(&self.arrivals));
        let (voice, max) = (self.voice.clone(), load.max);
        speaking.spawn(async move {
            for number in 0.. {
                let intended = if max {
                    arrivals.room().await?;
                    Instant::now()
                } else {
                    let intended = pace.at(number);
                    sleep_until(intended).await;
                    intended
                };
                voice.say(&connections, arrivals.next(intended)).await?;
            }
            Ok(())
        });
        speaking
    }

    /// Says something until all hear it: a socket may be open a moment before its server writes to it.
    async fn settle(&self, load: &FanoutLoad) -> Result<(), Error> {
        let everyone = u32::try_from(load.members).unwrap_or(u32::MAX);
        let began = Instant::now();
        while began.elapsed() < AUDIENCE_TIMEOUT {
            let said = Instant::now();
            let id = self.arrivals.next(said);
            self.voice.say(&self.connections, id).await?;
            while said.elapsed() < REPEAT_DELAY {
                if self.arrivals.arrived(id) == everyone {
                    self.arrivals.restart();
                    return Ok(());
                }
                sleep(POLL_INTERVAL).await;
            }
        }
        Err(Error::Timeout {
            what: "a message at every socket".to_owned(),
            within: AUDIENCE_TIMEOUT,
        })
    }
}

impl Voice {
    async fn say(&self, connections: &[Connection], id: Uuid) -> Result<(), Error> {
        let (frame, to) = match self {
            Self::Conversation(conversation, text) => (send_frame(id, *conversation, text), 1),
            Self::Event(before, behind, servers) => {
                let mut id_text = Uuid::encode_buffer();
                let id_text: &str = id.hyphenated().encode_lower(&mut id_text);
                let event = [before, id_text.as_bytes(), behind].concat();
                (Bytes::from(event), *servers)
            }
        };
        for connection in connections.iter().take(to) {
            connection.send(frame.clone()).await?;
        }
        Ok(())
    }
}

fn arrivals(load: &FanoutLoad) -> Result<Arc<Arrivals>, Error> {
    let sockets = u32::try_from(load.members).unwrap_or_default();
    if sockets == 0 || load.in_flight == 0 {
        let what = "a fan-out needs a member, and a message that may be on the way";
        return Err(Error::Failed(what.to_owned()));
    }
    Ok(Arc::new(Arrivals::new(sockets, load.in_flight)))
}

/// Begins a channel of all of them; the first begins it.
async fn begin(users: &LoadUsers) -> Result<ConversationId, Error> {
    let ids: Vec<UserId> = users.0.iter().map(|user| user.id.clone()).collect();
    let (Some(first), mut requests) = (users.0.first(), ids.chunks(PARTICIPANTS_PER_REQUEST - 1))
    else {
        return Err(Error::Failed("a fan-out needs a member".to_owned()));
    };
    let http = Http::new(&first.url, &first.token)?;
    let new = NewConversation {
        r#type: ConversationType::Channel,
        participants: requests.next().unwrap_or_default().to_vec(),
        metadata: None,
    };
    let begun = http.create_conversation(&new, None).await?;
    let conversation = begun.answer.conversation.id;
    for users in requests {
        let member = |user: &UserId| Member {
            user_id: user.clone(),
            role: Role::Member,
        };
        let participants = users.iter().map(member).collect();
        http.add_participants(conversation, &NewMembers { participants })
            .await?;
    }
    Ok(conversation)
}

/// What stands before and behind an event's client id.
fn around_client_id(event: &Bytes) -> Result<(Bytes, Bytes), Error> {
    let field = br#""clientId":""#;
    let Some(at) = memmem::find(event, field) else {
        return Err(Error::Failed("an event has no client id".to_owned()));
    };
    let start = at + field.len();
    let end = (start + uuid::fmt::Hyphenated::LENGTH).min(event.len());
    Ok((event.slice(..start), event.slice(end..)))
}
