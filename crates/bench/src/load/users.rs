//! The users and conversations of a load.

use std::sync::Arc;

use confab_client::{Http, NewConversation};
use confab_protocol::error::Code;
use confab_protocol::frame::Hello;
use confab_protocol::ids::{ConversationId, UserId};
use confab_protocol::resource::ConversationType;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, sleep};
use uuid::Uuid;

use super::{Connection, Hearing};
use crate::Error;
use crate::tokens::Tokens;

/// Calls that are made at once while a load is prepared.
const AT_ONCE: usize = 32;
/// How long a conversation may be refused for the moment, and how often it is begun again.
const CREATE_TIMEOUT: Duration = Duration::from_secs(30);
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// A user of the load.
#[derive(Debug, Clone)]
pub(crate) struct LoadUser {
    pub(crate) id: UserId,
    pub(crate) token: String,
    /// The gateway that serves it.
    pub(crate) url: String,
}

/// Users, spread over the gateways in turn.
#[derive(Debug, Clone)]
pub(crate) struct LoadUsers(pub(crate) Vec<LoadUser>);

impl LoadUsers {
    /// `count` users whose ids begin with `prefix`.
    pub(crate) fn new(
        tokens: &Tokens,
        urls: &[String],
        prefix: &str,
        count: usize,
    ) -> Result<Self, Error> {
        let urls = urls.iter().cycle().cloned();
        let users = (0..count).zip(urls).map(|(number, url)| {
            let name = format!("{prefix}-{number}");
            let token = tokens.mint(&name)?;
            let id = name.parse();
            let id = id.map_err(|_invalid| Error::Failed(format!("{name:?} is no user id")))?;
            Ok(LoadUser { id, token, url })
        });
        users.collect::<Result<_, _>>().map(Self)
    }

    /// Begins a group of each list of members, given by their places here; the first of each begins it.
    pub(crate) async fn begin(
        &self,
        groups: Vec<Vec<usize>>,
    ) -> Result<Vec<ConversationId>, Error> {
        let room = Arc::new(Semaphore::new(AT_ONCE));
        let http = Http::new("http://127.0.0.1", "")?;
        let mut beginning = JoinSet::new();
        for (place, members) in groups.into_iter().enumerate() {
            let members: Vec<&LoadUser> = members.iter().filter_map(|n| self.0.get(*n)).collect();
            let Some(first) = members.first() else {
                return Err(Error::Failed("a conversation needs a member".to_owned()));
            };
            let http = http.with(&first.url, &first.token)?;
            let new = NewConversation {
                r#type: ConversationType::Group,
                participants: members.iter().map(|user| user.id.clone()).collect(),
                metadata: None,
            };
            let room = Arc::clone(&room);
            beginning.spawn(async move {
                let _room = room.acquire_owned().await;
                Ok::<_, Error>((place, begin(&http, &new).await?))
            });
        }
        let begun: Result<Vec<_>, _> = beginning.join_all().await.into_iter().collect();
        let mut begun = begun?;
        begun.sort_by_key(|(place, _)| *place);
        Ok(begun.into_iter().map(|(_, id)| id).collect())
    }
}

/// Begins a conversation, again while the service says that it cannot now: on a busy machine its store may be away for a moment, before
/// anything is measured.
pub(crate) async fn begin(http: &Http, new: &NewConversation) -> Result<ConversationId, Error> {
    let (key, until) = (Uuid::now_v7().to_string(), Instant::now() + CREATE_TIMEOUT);
    loop {
        match http.create_conversation(new, Some(&key)).await {
            Err(error)
                if matches!(
                    error.code(),
                    Some(Code::Unavailable | Code::Timeout | Code::Overloaded)
                ) && Instant::now() < until =>
            {
                sleep(RETRY_DELAY).await;
            }
            begun => return Ok(begun?.answer.conversation.id),
        }
    }
}

/// Opens a session of each, at the gateway that serves it, with what it does with what it hears.
pub(crate) async fn connect_all(
    users: &LoadUsers,
    hello: Hello,
    hearings: impl IntoIterator<Item = Hearing>,
) -> Result<Vec<Connection>, Error> {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut opening = JoinSet::new();
    for ((place, user), hearing) in users.0.iter().cloned().enumerate().zip(hearings) {
        let (room, hello) = (Arc::clone(&room), hello.clone());
        opening.spawn(async move {
            let _room = room.acquire_owned().await;
            let opened = Connection::open(&user.url, &user.token, hello, hearing);
            Ok::<_, Error>((place, Box::pin(opened).await?.1))
        });
    }
    let opened: Result<Vec<_>, _> = opening.join_all().await.into_iter().collect();
    let mut opened = opened?;
    opened.sort_by_key(|(place, _)| *place);
    Ok(opened
        .into_iter()
        .map(|(_, connection)| connection)
        .collect())
}
