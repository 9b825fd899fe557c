//! Read marks: many in one statement, each carried out whole or not at all.

use std::time::Instant;

use confab_protocol::command::{Caller, MarkRead, Outcome, ReadMark};
use confab_protocol::error::{Code, Failure};
use confab_protocol::ids::ConversationId;
use tracing::debug;
use uuid::Uuid;

use super::{AGAIN, CommandOutcome, Committer, gives_up, report};
use crate::database::bounded;
use crate::error::{CommandError, Meaning, meaning, poisons_connection};

const CALL: &str = "select command, outcome, conversation, up_to, moved, members from mark_read($1, $2, $3, $4, $5, $6)";

/// Marks of one command, with the end of its budget.
#[derive(Debug)]
pub(crate) struct Mark {
    pub(crate) caller: Caller,
    pub(crate) read: MarkRead,
    pub(crate) deadline: Instant,
}

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
    /// Carries out marks together; gives an outcome for each. What fails for a passing reason is run again: a mark that is moved twice
    /// stands where it stood.
    pub(crate) async fn mark(&self, marks: &[Mark]) -> Vec<CommandOutcome> {
        let mut unknown = false;
        loop {
            let error = match self.run(marks).await {
                Ok(rows) => return answers(marks, &rows),
                Err(error) => error,
            };
            let meaning = meaning(&error);
            debug!(%error, ?meaning, marks = marks.len(), "marks are run again");
            unknown |= meaning == Meaning::Unknown;
            let last = marks.iter().map(|mark| mark.deadline).max();
            let is_over = last.is_none_or(|last| gives_up(last, Instant::now() + AGAIN));
            if is_over || matches!(meaning, Meaning::Data | Meaning::Defect) {
                let error = CommandError::from(error);
                report(&error);
                return vec![Err(error.failure(unknown)); marks.len()];
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn run(&self, marks: &[Mark]) -> Result<Vec<Marked>, sqlx::Error> {
        let items = Items::of(marks);
        let mut connection = self.pool.acquire().await?;
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
        result
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
    fn of(marks: &'a [Mark]) -> Self {
        let mut items = Self::default();
        for (n, mark) in (0..).zip(marks) {
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

fn answers(marks: &[Mark], rows: &[Marked]) -> Vec<CommandOutcome> {
    let mut answers: Vec<Result<Vec<ReadMark>, Failure>> =
        marks.iter().map(|_| Ok(Vec::new())).collect();
    for row in rows {
        let place = usize::try_from(row.command).unwrap_or(usize::MAX);
        let (Some(answer), Some(mark)) = (answers.get_mut(place), marks.get(place)) else {
            continue;
        };
        match (row.outcome.as_str(), read_mark(row)) {
            ("marked", Some(read)) => {
                if let Ok(reads) = answer {
                    reads.push(read);
                }
            }
            ("deleted", _) => *answer = Err(Failure::of(Code::ConversationDeleted)),
            _ => *answer = Err(not_found(&mark.read)),
        }
    }
    answers
        .into_iter()
        .map(|answer| answer.map(Outcome::Read))
        .collect()
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
