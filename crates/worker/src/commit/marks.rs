//! Read marks: many in one statement, each carried out whole or not at all.

use std::collections::VecDeque;
use std::time::Instant;

use confab_protocol::chain::chain;
use confab_protocol::command::{Caller, MarkRead, Outcome, ReadMark};
use confab_protocol::error::{Code, Failure};
use confab_protocol::ids::ConversationId;
use tracing::debug;
use uuid::Uuid;

use super::{AGAIN, Committer, Fate, given_up, gives_up};
use crate::database::bounded;
use crate::error::{CommandError, Meaning, locked, meaning, poisons_connection};
use crate::origin::Origin;
use crate::planner::Open;

const CALL: &str = "select command, outcome, conversation, up_to, moved, members from mark_read($1, $2, $3, $4, $5, $6)";

/// Marks of one command, with the end of its budget.
#[derive(Debug)]
pub(crate) struct Mark {
    pub(crate) caller: Caller,
    pub(crate) read: MarkRead,
    pub(crate) deadline: Instant,
    /// The request that it came with.
    pub(crate) origin: Origin,
}

/// Marks of one statement, with their places among all.
type Part<'a> = Vec<(usize, &'a Mark)>;

#[derive(Debug, sqlx::FromRow)]
struct Marked {
    command: i32,
    outcome: String,
    conversation: Option<Uuid>,
    up_to: Option<i64>,
    moved: Option<bool>,
    members: Option<i32>,
}

impl Committer {
    /// Carries out marks together; gives a fate for each. What fails for a passing reason is run again: a mark that is moved twice
    /// stands where it stood. What Postgres refuses as a whole is run in halves, so that no mark fails for another's data.
    pub(crate) async fn mark(&self, marks: &[Mark]) -> Vec<Fate> {
        let mut fates: Vec<Option<Fate>> = marks.iter().map(|_| None).collect();
        let mut set = |place: usize, fate| {
            if let Some(of) = fates.get_mut(place) {
                *of = Some(fate);
            }
        };
        let all: Part<'_> = marks.iter().enumerate().collect();
        let mut parts = VecDeque::from([(all, false)]);
        while let Some((mut part, is_unknown)) = parts.pop_front() {
            let (late, ran) = self.run(&mut part).await;
            for (place, _) in late {
                set(place, Fate::Decided(Err(given_up(is_unknown))));
            }
            let error = match ran {
                Ok(rows) => {
                    self.commits.succeeded();
                    for ((place, _), fate) in part.iter().zip(answers(&part, &rows)) {
                        set(*place, fate);
                    }
                    continue;
                }
                Err(error) => error,
            };
            let meaning = meaning(&error);
            debug!(error = %chain(&error), ?meaning, marks = part.len(), "marks are run again");
            let is_unknown = is_unknown || meaning == Meaning::Unknown;
            match meaning {
                Meaning::Data | Meaning::Defect | Meaning::Locked if part.len() > 1 => {
                    let (one, other) = part.split_at(part.len() / 2);
                    parts.push_front((other.to_vec(), is_unknown));
                    parts.push_front((one.to_vec(), is_unknown));
                }
                Meaning::Locked => {
                    part.iter()
                        .for_each(|(place, _)| set(*place, Fate::Locked(skipped())));
                }
                _ => {
                    let is_refused = matches!(meaning, Meaning::Data | Meaning::Defect);
                    let next = Instant::now() + AGAIN;
                    let (over, again): (Part<'_>, Part<'_>) = part
                        .into_iter()
                        .partition(|(_, mark)| is_refused || gives_up(mark.deadline, next));
                    if let Some((_, first)) = over.first() {
                        let error = CommandError::from(error);
                        // Of several that end with it, the log names one.
                        let span = first.origin.span("mark_read");
                        span.in_scope(|| self.report(&error));
                        let failure = error.failure(is_unknown);
                        for (place, _) in over {
                            set(place, Fate::Decided(Err(failure.clone())));
                        }
                    }
                    if !again.is_empty() {
                        parts.push_front((again, is_unknown));
                        tokio::time::sleep(AGAIN).await;
                    }
                }
            }
        }
        let lost = || Fate::Decided(Err(Failure::of(Code::Internal)));
        let fates = fates.into_iter();
        fates.map(|fate| fate.unwrap_or_else(lost)).collect()
    }

    /// Runs marks in one statement. Those whose budget has ended once there is a connection are taken out of the part and given back: their
    /// gateways have given them up.
    async fn run<'a>(&self, part: &mut Part<'a>) -> (Part<'a>, Result<Vec<Marked>, sqlx::Error>) {
        let mut connection = match self.pool.acquire().await {
            Ok(connection) => connection,
            Err(error) => return (Vec::new(), Err(error)),
        };
        let now = Instant::now();
        let late = part.extract_if(.., |(_, mark)| mark.deadline <= now);
        let late = late.collect();
        if part.is_empty() {
            connection.release();
            return (late, Ok(Vec::new()));
        }
        let items = Items::of(part);
        let call = sqlx::query_as(CALL)
            .bind(items.commands)
            .bind(items.tenants)
            .bind(items.users)
            .bind(items.conversations)
            .bind(items.seqs)
            .bind(items.messages)
            .fetch_all(&mut *connection);
        let result = bounded(call).await;
        if !result.as_ref().err().is_some_and(poisons_connection) {
            connection.release();
        }
        (late, result)
    }
}

/// What the function is called with: an entry in each for every seq and message id.
#[derive(Debug, Default)]
struct Items<'a> {
    commands: Vec<i32>,
    tenants: Vec<&'a str>,
    users: Vec<&'a str>,
    conversations: Vec<Option<Uuid>>,
    seqs: Vec<Option<i64>>,
    messages: Vec<Option<Uuid>>,
}

impl<'a> Items<'a> {
    fn of(part: &[(usize, &'a Mark)]) -> Self {
        let mut items = Self::default();
        for (n, (_, mark)) in (0..).zip(part) {
            match &mark.read {
                MarkRead::UpTo { conversation, seq } => {
                    let seq = i64::try_from(*seq).unwrap_or(i64::MAX);
                    items.push(n, mark, Some((conversation.0, seq)), None);
                }
                MarkRead::Messages(messages) => {
                    for message in messages {
                        items.push(n, mark, None, Some(message.0));
                    }
                }
            }
        }
        items
    }

    fn push(&mut self, n: i32, mark: &'a Mark, up_to: Option<(Uuid, i64)>, message: Option<Uuid>) {
        self.commands.push(n);
        self.tenants.push(mark.caller.tenant.as_str());
        self.users.push(mark.caller.user.as_str());
        self.conversations
            .push(up_to.map(|(conversation, _)| conversation));
        self.seqs.push(up_to.map(|(_, seq)| seq));
        self.messages.push(message);
    }
}

/// Another holds a membership that it moves; nothing of it is in doubt, for a mark that is moved twice stands where it stood.
fn skipped() -> Open {
    Open {
        is_unknown: false,
        skipped: Some(locked()),
    }
}

fn answers(part: &[(usize, &Mark)], rows: &[Marked]) -> Vec<Fate> {
    enum Answer {
        Reads(Vec<ReadMark>),
        Refused(Failure),
        Locked,
    }
    let mut answers: Vec<_> = part.iter().map(|_| Answer::Reads(Vec::new())).collect();
    for row in rows {
        let place = usize::try_from(row.command).unwrap_or(usize::MAX);
        let (Some(answer), Some((_, mark))) = (answers.get_mut(place), part.get(place)) else {
            continue;
        };
        match (row.outcome.as_str(), read_mark(row)) {
            ("marked", Some(read)) => {
                if let Answer::Reads(reads) = answer {
                    reads.push(read);
                }
            }
            ("locked", _) => *answer = Answer::Locked,
            ("deleted", _) => *answer = Answer::Refused(Failure::of(Code::ConversationDeleted)),
            _ => *answer = Answer::Refused(not_found(&mark.read)),
        }
    }
    let fate = |answer| match answer {
        Answer::Reads(reads) => Fate::Decided(Ok(Outcome::Read(reads))),
        Answer::Refused(failure) => Fate::Decided(Err(failure)),
        Answer::Locked => Fate::Locked(skipped()),
    };
    answers.into_iter().map(fate).collect()
}

fn read_mark(row: &Marked) -> Option<ReadMark> {
    Some(ReadMark {
        conversation: ConversationId(row.conversation?),
        up_to: row.up_to?.cast_unsigned(),
        moved: row.moved?,
        members: u64::try_from(row.members?).unwrap_or_default(),
    })
}

/// What is not the caller's is not there, under the name by which it was asked for.
fn not_found(read: &MarkRead) -> Failure {
    Failure::of(match read {
        MarkRead::UpTo { .. } => Code::ConversationNotFound,
        MarkRead::Messages(_) => Code::MessageNotFound,
    })
}
