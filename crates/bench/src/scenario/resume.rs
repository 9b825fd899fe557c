//! `resume`: a storm. Many sessions lose their gateway at once, miss some events in each of their conversations, and go on
//! at another gateway.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use confab_client::{Http, NewMessage};
use confab_protocol::frame::Hello;
use confab_protocol::ids::{ConversationId, SessionId};
use confab_protocol::json::JsonText;
use confab_protocol::resource::MessageBody;
use serde::Serialize;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::Error;
use crate::load::{Connection, Hearing, LoadUser, LoadUsers, groups};
use crate::output::{Measured, Progress, row};
use crate::processes::Usage;
use crate::stack::{Places, Stack, StackShape};
use crate::target::OwnOnly;

mod cost;

use cost::{Cost, Counting};

/// Calls at once while the storm is prepared.
const AT_ONCE: usize = 64;
/// Clients between connecting and their welcome at once.
const IN_HANDSHAKE: usize = 256;
/// Characters of each message that is missed.
const TEXT_CHARS: usize = 200;
/// How long all may take to be back, and how often one that is refused comes again.
const STORM_TIMEOUT: Duration = Duration::from_secs(60);
const RETRY_DELAY: Duration = Duration::from_millis(100);
/// Before the storm nothing else goes on: the service used less than this share of a processor over [`SAMPLE_TIME`].
const MAX_IDLE_CPU: f64 = 0.1;
const SAMPLE_TIME: Duration = Duration::from_secs(1);
/// How long it may take to be calm. The dead gateway's users are gone, and the database has been tidied, by then.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Lets sessions lose their gateway, and resume at another.
#[derive(Debug, Clone, clap::Args, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ResumeArgs {
    #[command(flatten)]
    #[serde(skip)]
    pub(crate) places: Places,
    #[command(flatten)]
    #[serde(skip)]
    pub(crate) own_only: OwnOnly,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) load: ResumeLoad,
    /// Without the replay window as well, in comparison.
    #[arg(long, env = "CONFAB_BENCH_BOTH")]
    pub(crate) both: bool,
}

/// Who loses what.
#[derive(Debug, Clone, clap::Args, Serialize)]
#[serde(rename_all = "camelCase")]
#[group(id = "resume")]
pub(crate) struct ResumeLoad {
    /// Sessions, one a user.
    #[arg(long, env = "CONFAB_BENCH_SESSIONS", default_value_t = 3000)]
    pub(crate) sessions: usize,
    /// Conversations of each user.
    #[arg(long, env = "CONFAB_BENCH_CONVERSATIONS", default_value_t = 10)]
    pub(crate) conversations: usize,
    /// Members of each conversation: other users in each.
    #[arg(long, env = "CONFAB_BENCH_MEMBERS", default_value_t = 100)]
    pub(crate) members: usize,
    /// Messages that are missed in each conversation. A client that was away for some minutes missed 10 to 20 in one that
    /// is talked in.
    #[arg(long, env = "CONFAB_BENCH_MISSED", default_value_t = 15)]
    pub(crate) missed: usize,
    /// Bytes of the gateways' replay window; without it as the gateway has it by itself, 0 for none.
    #[arg(long, env = "CONFAB_BENCH_WINDOW_BYTES")]
    pub(crate) window_bytes: Option<u64>,
}

impl Default for ResumeLoad {
    fn default() -> Self {
        Self {
            sessions: 3000,
            conversations: 10,
            members: 100,
            missed: 15,
            window_bytes: None,
        }
    }
}

/// What became of a storm.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ResumeOutcome {
    pub(crate) load: ResumeLoad,
    /// Sessions welcomed a second, until the last one was.
    pub(crate) welcomed: f64,
    /// Sessions a second that have all they missed, until the last one had. A resume is done then.
    pub(crate) resumes: f64,
    /// Connections that were tried for each resume.
    pub(crate) tries: f64,
    /// What each resume cost.
    pub(crate) each: Cost,
    /// Processors' time of each resume, in microseconds by part.
    pub(crate) processor: Usage,
    /// What the second gateway holds of its own for each session that went on, in bytes.
    pub(crate) memory: f64,
}

/// A storm with the replay window, and one without it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Both {
    pub(crate) with_window: ResumeOutcome,
    pub(crate) without_window: ResumeOutcome,
    /// Postgres' processor time of a resume without the window : with it. Questions for memberships are in both.
    pub(crate) postgres: f64,
    /// The same of the time that its statements took.
    pub(crate) statements: Option<f64>,
    /// Resumes a second with the window : without it.
    pub(crate) resumes: f64,
}

pub(crate) async fn run(args: ResumeArgs, progress: &Progress) -> Result<Measured, Error> {
    args.own_only.check("resume")?;
    if args.both {
        let both = Box::pin(measure_both(&args.places, &args.load, progress)).await?;
        return Measured::new("resume", &args, &both, both.rows());
    }
    let outcome = Box::pin(measure(&args.places, &args.load, progress)).await?;
    Measured::new("resume", &args, &outcome, outcome.rows())
}

/// The same storm with the window as the gateway has it, and without any.
pub(crate) async fn measure_both(
    places: &Places,
    load: &ResumeLoad,
    progress: &Progress,
) -> Result<Both, Error> {
    let with = |window_bytes| ResumeLoad {
        window_bytes,
        ..load.clone()
    };
    let with_window = Box::pin(measure(places, &with(load.window_bytes), progress)).await?;
    let without_window = Box::pin(measure(places, &with(Some(0)), progress)).await?;
    let (without, with) = (without_window.each.statements, with_window.each.statements);
    Ok(Both {
        statements: without.zip(with).map(|(without, with)| without / with),
        postgres: without_window.processor.postgres / with_window.processor.postgres,
        resumes: with_window.resumes / without_window.resumes,
        with_window,
        without_window,
    })
}

impl Both {
    fn rows(&self) -> Vec<(String, String)> {
        let mut rows = vec![row("with the window", "")];
        rows.extend(self.with_window.rows());
        rows.push(row("without it", ""));
        rows.extend(self.without_window.rows());
        rows.push(row(
            "Postgres' processor time, without : with",
            format!("{:.2}", self.postgres),
        ));
        rows.extend(self.statements.map(|ratio| {
            row(
                "Postgres' statements, without : with",
                format!("{ratio:.2}"),
            )
        }));
        rows.push(row(
            "resumes/s, with : without",
            format!("{:.2}", self.resumes),
        ));
        rows
    }
}

impl ResumeOutcome {
    fn rows(&self) -> Vec<(String, String)> {
        let (load, used, each) = (&self.load, &self.processor, &self.each);
        let missed = format!(
            "{} in each of {} conversations of {} members",
            load.missed, load.conversations, load.members
        );
        let mut rows = vec![
            row("sessions", load.sessions.to_string()),
            row("events missed", missed),
            row(
                "welcomed, and have what they missed",
                format!("{:.0}, {:.0} a second", self.welcomed, self.resumes),
            ),
            row("tries for a resume", format!("{:.3}", self.tries)),
            row(
                "processors' time of a resume",
                format!(
                    "{:.0} us: gateways {:.0}, workers {:.0}, NATS {:.0}, Postgres {:.0}; the load {:.0} more",
                    used.service(),
                    used.gateways,
                    used.workers,
                    used.nats,
                    used.postgres,
                    used.load
                ),
            ),
        ];
        rows.extend(each.rows());
        let kib = self.memory / 1024.0;
        rows.push(row(
            "gateway memory of a session",
            format!("{kib:.1} KiB, right behind the storm"),
        ));
        rows
    }
}

/// One storm in a confab of its own.
pub(crate) async fn measure(
    places: &Places,
    load: &ResumeLoad,
    progress: &Progress,
) -> Result<ResumeOutcome, Error> {
    progress.say("starting a confab");
    let window = load.window_bytes.map(|bytes| bytes.to_string());
    let shape = StackShape {
        gateways: 2,
        gateway_env: window
            .map(|bytes| ("CONFAB_WINDOW_BYTES", bytes))
            .into_iter()
            .collect(),
        ..StackShape::default()
    };
    let mut stack = Stack::over(cost::observed(places).await?, &shape).await?;
    let urls = stack.urls();
    let [first, second] = urls.as_slice() else {
        return Err(Error::Failed("a storm needs two gateways".to_owned()));
    };
    let users = LoadUsers::new(
        &stack.tokens,
        std::slice::from_ref(first),
        "storm",
        load.sessions,
    )?;
    progress.say("making conversations");
    let groups = groups(load.sessions, load.members, load.conversations);
    let conversations = users.begin(groups.clone()).await?;
    progress.say("connecting");
    let (lost, connections) = connect(&users).await?;
    if let Some(gateway) = stack.gateways.first_mut() {
        gateway.process_mut().kill()?;
    }
    drop(connections);
    let senders = groups
        .iter()
        .filter_map(|group| users.0.get(*group.first()?));
    let senders: Vec<_> = senders.cloned().zip(conversations).collect();
    progress.say("saying what is missed");
    miss(senders, second, load.missed).await?;
    calm(&mut stack, progress).await?;
    let outcome = storm(&mut stack, load, lost, progress).await;
    stack.stop().await?;
    outcome
}

/// A session that lost its connection.
#[derive(Debug)]
struct Lost {
    user: LoadUser,
    session: SessionId,
    token: String,
}

/// Opens all sessions.
async fn connect(users: &LoadUsers) -> Result<(Vec<Lost>, Vec<Connection>), Error> {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut opening = JoinSet::new();
    for user in users.0.iter().cloned() {
        let room = Arc::clone(&room);
        opening.spawn(async move {
            let _room = room.acquire_owned().await;
            let (url, token) = (&user.url, &user.token);
            let opened = Connection::open(url, token, Hello::default(), Box::new(|_: &[u8]| {}));
            let (welcome, connection) = Box::pin(opened).await?;
            let Some(token) = welcome.resume_token else {
                return Err(Error::Failed(
                    "a session was welcomed without a token".to_owned(),
                ));
            };
            let session = welcome.session_id;
            Ok((
                Lost {
                    user,
                    session,
                    token,
                },
                connection,
            ))
        });
    }
    let opened: Result<Vec<_>, Error> = opening.join_all().await.into_iter().collect();
    Ok(opened?.into_iter().unzip())
}

/// Says what the sessions miss, at the gateway that lives.
async fn miss(
    senders: Vec<(LoadUser, ConversationId)>,
    url: &str,
    count: usize,
) -> Result<(), Error> {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let http = Http::new("http://127.0.0.1", "")?;
    let mut saying = JoinSet::new();
    for (user, conversation) in senders {
        let (room, http) = (Arc::clone(&room), http.with(url, &user.token)?);
        saying.spawn(async move {
            let _room = room.acquire_owned().await;
            for _ in 0..count {
                http.send_message(&message(conversation)).await?;
            }
            Ok::<_, Error>(())
        });
    }
    saying.join_all().await.into_iter().collect()
}

fn message(conversation: ConversationId) -> NewMessage {
    let text = "x".repeat(TEXT_CHARS);
    NewMessage {
        conversation_id: conversation,
        client_id: None,
        body: MessageBody {
            kind: "text".to_owned(),
            content: Some(JsonText::trusted(format!(r#"{{"text":"{text}"}}"#))),
            encrypted_content: None,
            payload_size_bytes: None,
            reply_to: None,
            metadata: JsonText::empty_object(),
        },
    }
}

/// Waits until what was said before costs nothing any more.
async fn calm(stack: &mut Stack, progress: &Progress) -> Result<(), Error> {
    progress.say("waiting for calm");
    let until = Instant::now() + IDLE_TIMEOUT;
    let mut before = stack.usage()?;
    while Instant::now() < until {
        sleep(SAMPLE_TIME).await;
        let now = stack.usage()?;
        if now.since(before).service() < MAX_IDLE_CPU * SAMPLE_TIME.as_secs_f64() {
            return Ok(());
        }
        before = now;
    }
    Err(Error::Timeout {
        what: "calm".to_owned(),
        within: IDLE_TIMEOUT,
    })
}

/// How far the sessions are.
#[derive(Debug, Default)]
struct ResumeProgress {
    tries: AtomicUsize,
    caught_up: AtomicUsize,
    all: Notify,
}

async fn storm(
    stack: &mut Stack,
    load: &ResumeLoad,
    lost: Vec<Lost>,
    progress: &Progress,
) -> Result<ResumeOutcome, Error> {
    let Some(url) = stack.urls().pop() else {
        return Err(Error::Failed("no gateway lives".to_owned()));
    };
    let counting = Counting::begin(stack).await?;
    let (before, held) = (stack.usage()?, cost::memory_of_last(stack));
    progress.say("the storm");
    let began = Instant::now();
    let way = Arc::new(ResumeProgress::default());
    let deadline = || Error::Timeout {
        what: "the end of the storm".to_owned(),
        within: STORM_TIMEOUT,
    };
    let resuming = timeout(STORM_TIMEOUT, resume_all(&lost, &url, load, &way));
    let connections = resuming.await.map_err(|_late| deadline())??;
    let welcomed = began.elapsed();
    let all = async {
        while way.caught_up.load(Ordering::Relaxed) < lost.len() {
            way.all.notified().await;
        }
    };
    timeout(STORM_TIMEOUT, all)
        .await
        .map_err(|_late| deadline())?;
    let caught_up = began.elapsed();
    let count = lost.len() as f64;
    let used = stack.usage()?.since(before).micros_each(count);
    let memory = (cost::memory_of_last(stack) - held) / count;
    let each = counting.end(stack, count).await?;
    drop(connections);
    Ok(ResumeOutcome {
        load: load.clone(),
        welcomed: count / welcomed.as_secs_f64(),
        resumes: count / caught_up.as_secs_f64(),
        tries: way.tries.load(Ordering::Relaxed) as f64 / count,
        each,
        processor: used,
        memory,
    })
}

async fn resume_all(
    lost: &[Lost],
    url: &str,
    load: &ResumeLoad,
    way: &Arc<ResumeProgress>,
) -> Result<Vec<Connection>, Error> {
    let room = Arc::new(Semaphore::new(IN_HANDSHAKE));
    let missing = load.missed * load.conversations;
    let mut resuming = JoinSet::new();
    for one in lost {
        let (room, way, url) = (Arc::clone(&room), Arc::clone(way), url.to_owned());
        let (token, session, count) = (one.user.token.clone(), one.session, lost.len());
        let resume_token = Some(one.token.clone());
        resuming.spawn(async move {
            let _room = room.acquire_owned().await;
            loop {
                way.tries.fetch_add(1, Ordering::Relaxed);
                let hello = Hello {
                    resume_token: resume_token.clone(),
                    ..Hello::default()
                };
                let hearing = hearing(Arc::clone(&way), missing, count);
                match Box::pin(Connection::open(&url, &token, hello, hearing)).await {
                    Ok((welcome, connection)) if welcome.session_id == session => {
                        return Ok(connection);
                    }
                    Ok(_other) => {
                        return Err(Error::Failed("a session did not go on".to_owned()));
                    }
                    // The gate sends some away; all have to be back in time.
                    Err(_refused) => sleep(RETRY_DELAY).await,
                }
            }
        });
    }
    resuming.join_all().await.into_iter().collect()
}

/// Counts the events of one session until it has what it missed.
fn hearing(way: Arc<ResumeProgress>, mut missing: usize, sessions: usize) -> Hearing {
    Box::new(move |payload| {
        if payload.starts_with(br#"{"type":"message.created""#) && missing > 0 {
            missing -= 1;
            if missing == 0 && way.caught_up.fetch_add(1, Ordering::Relaxed) + 1 == sessions {
                way.all.notify_one();
            }
        }
    })
}
