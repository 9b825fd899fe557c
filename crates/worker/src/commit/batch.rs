//! Group commit: a batch of messages is one call of `append_messages`, which locks first and decides then; a message that goes alone is
//! one of `append_message`, which does the same for less.

use std::time::Instant;

use confab_protocol::error::{Code, Failure};
use confab_protocol::ids::EventId;
use confab_protocol::timestamp::Timestamp;
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use time::OffsetDateTime;
use tracing::{debug, error};
use uuid::Uuid;

use super::{AGAIN, CommandOutcome, Committer, gives_up};
use crate::database::bounded;
use crate::error::{CommandError, Meaning, meaning, poisons_connection};
use crate::messages::{Append, Appended, Decision, Stored};
use crate::outbox::Committed;

const BATCH: &str = "select item, outcome, seq, id, created_at, payload, edited_at, deleted_at, outbox_id \
    from append_messages($1, $2, $3, $4, $5, $6, $7, $8)";
const ONE: &str = "select item, outcome, seq, id, created_at, payload, edited_at, deleted_at, outbox_id \
    from append_message($1, $2, $3, $4, $5, $6, $7, $8)";

/// A message of a batch, with the end of its budget.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) append: Append,
    pub(crate) deadline: Instant,
}

/// What became of a batch: an outcome for each item, and what is to be published.
pub(crate) struct BatchEnd {
    pub(crate) outcomes: Vec<CommandOutcome>,
    pub(crate) committed: Vec<Committed>,
}

impl Committer {
    /// Commits a batch. It is never given up while it runs: it ends, or Postgres ends it, or the connection is lost; then
    /// the same batch is run again, under the lock, where what it stored is found.
    pub(crate) async fn batch(&self, items: &[Item]) -> BatchEnd {
        let mut open: Vec<usize> = (0..items.len()).collect();
        let mut outcomes: Vec<Option<CommandOutcome>> = items.iter().map(|_| None).collect();
        let mut committed = Vec::new();
        let mut unknown = false;
        let mut is_late: fn(Instant, Instant) -> bool = |deadline, now| deadline <= now;
        while !open.is_empty() {
            let now = Instant::now();
            let (late, due): (Vec<_>, Vec<_>) = open
                .into_iter()
                .partition(|n| items.get(*n).is_none_or(|item| is_late(item.deadline, now)));
            for n in late {
                set(&mut outcomes, n, Err(given_up(unknown)));
            }
            open = due;
            let batch: Vec<&Append> = open
                .iter()
                .filter_map(|n| items.get(*n))
                .map(|item| &item.append)
                .collect();
            if batch.is_empty() {
                break;
            }
            match self.append(&batch).await {
                Ok(appended) => {
                    committed.extend(self.committed(&batch, &appended));
                    for (n, (append, appended)) in open.iter().zip(batch.iter().zip(&appended)) {
                        set(&mut outcomes, *n, append.answer(appended));
                    }
                    break;
                }
                Err(error) => match meaning(&error) {
                    Meaning::Data | Meaning::Defect if open.len() > 1 => {
                        debug!(%error, events = open.len(), "a batch was refused and is run one by one");
                        for n in std::mem::take(&mut open) {
                            let (outcome, one) = self.single(items.get(n)).await;
                            set(&mut outcomes, n, outcome);
                            committed.extend(one);
                        }
                    }
                    Meaning::Data | Meaning::Defect => {
                        error!(%error, "Postgres refused a message");
                        let failure = CommandError::from(error).failure(false);
                        for n in std::mem::take(&mut open) {
                            set(&mut outcomes, n, Err(failure.clone()));
                        }
                    }
                    meaning => {
                        debug!(%error, ?meaning, "a batch is run again");
                        unknown |= meaning == Meaning::Unknown;
                        is_late = gives_up;
                        tokio::time::sleep(AGAIN).await;
                    }
                },
            }
        }
        let lost = || Err(Failure::of(Code::Internal));
        BatchEnd {
            outcomes: outcomes
                .into_iter()
                .map(|outcome| outcome.unwrap_or_else(lost))
                .collect(),
            committed,
        }
    }

    /// One message of a batch that was refused as a whole.
    async fn single(&self, item: Option<&Item>) -> (CommandOutcome, Vec<Committed>) {
        let Some(item) = item else {
            return (Err(Failure::of(Code::Internal)), Vec::new());
        };
        let alone = std::slice::from_ref(item);
        let mut end = Box::pin(self.batch(alone)).await;
        (
            end.outcomes
                .pop()
                .unwrap_or_else(|| Err(Failure::of(Code::Internal))),
            end.committed,
        )
    }

    async fn append(&self, batch: &[&Append]) -> Result<Vec<Appended>, sqlx::Error> {
        let began = Instant::now();
        let mut connection = self.batches.acquire().await?;
        let result = bounded(bind(batch).fetch_all(&mut *connection)).await;
        if !result.as_ref().err().is_some_and(poisons_connection) {
            connection.release();
        }
        let rows = result?;
        self.metrics.batch(batch.len(), began.elapsed());
        let mut appended: Vec<_> = rows.iter().map(read).collect::<Result<_, _>>()?;
        appended.sort_by_key(|(place, _)| *place);
        if appended.len() != batch.len() {
            return Err(sqlx::Error::Protocol(
                "the batch has another number of outcomes".into(),
            ));
        }
        Ok(appended.into_iter().map(|(_, appended)| appended).collect())
    }

    /// What is to be published of a batch: the outbox row is found again by the relay should this process die.
    fn committed(&self, batch: &[&Append], appended: &[Appended]) -> Option<Committed> {
        let stored = batch
            .iter()
            .zip(appended)
            .filter(|(_, appended)| appended.decision == Decision::Stored);
        let events: Vec<_> = stored
            .map(|(append, appended)| {
                crate::outbox::outgoing(&append.caller.tenant, &append.entry(appended))
            })
            .collect();
        let row = appended.iter().find_map(|appended| appended.outbox)?;
        (!events.is_empty()).then_some(Committed { row, events })
    }
}

fn set(outcomes: &mut [Option<CommandOutcome>], n: usize, outcome: CommandOutcome) {
    if let Some(slot) = outcomes.get_mut(n) {
        *slot = Some(outcome);
    }
}

/// What a message is answered with whose budget ended: unknown when an earlier run may have stored it.
fn given_up(unknown: bool) -> Failure {
    if unknown {
        Failure::of(Code::Timeout)
    } else {
        Failure::new(Code::Unavailable, "Postgres did not take it in time").retry_after(1000)
    }
}

type Call<'q> = sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;

/// The call that appends a batch.
pub(crate) fn bind<'q>(batch: &[&'q Append]) -> Call<'q> {
    match batch {
        [one] => bind_one(one),
        batch => bind_all(batch),
    }
}

fn bind_one(append: &Append) -> Call<'_> {
    let message = &append.message;
    sqlx::query(ONE)
        .bind(message.conversation.0)
        .bind(append.caller.tenant.as_str())
        .bind(append.caller.user.as_str())
        .bind(append.caller.admin)
        .bind(message.client_id.0)
        .bind(append.id.0)
        .bind(message.payload.as_str())
        .bind(message.reply_to.map(|id| id.0))
}

fn bind_all<'q>(batch: &[&'q Append]) -> Call<'q> {
    let each = |get: &dyn Fn(&'q Append) -> Uuid| {
        batch.iter().map(|append| get(append)).collect::<Vec<_>>()
    };
    let text = |get: &dyn Fn(&'q Append) -> &'q str| {
        batch.iter().map(|append| get(append)).collect::<Vec<_>>()
    };
    sqlx::query(BATCH)
        .bind(each(&|append| append.message.conversation.0))
        .bind(text(&|append| append.caller.tenant.as_str()))
        .bind(text(&|append| append.caller.user.as_str()))
        .bind(
            batch
                .iter()
                .map(|append| append.caller.admin)
                .collect::<Vec<_>>(),
        )
        .bind(each(&|append| append.message.client_id.0))
        .bind(each(&|append| append.id.0))
        .bind(text(&|append| append.message.payload.as_str()))
        .bind(
            batch
                .iter()
                .map(|append| append.message.reply_to.map(|id| id.0))
                .collect::<Vec<Option<Uuid>>>(),
        )
}

fn read(row: &PgRow) -> Result<(i64, Appended), sqlx::Error> {
    let decision: &str = row.try_get("outcome")?;
    let decision = decision
        .parse()
        .map_err(|()| sqlx::Error::Protocol("an outcome has no meaning".into()))?;
    let time = |name: &str| {
        Ok::<_, sqlx::Error>(
            row.try_get::<Option<OffsetDateTime>, _>(name)?
                .map(Timestamp::new),
        )
    };
    let (edited_at, deleted_at) = (time("edited_at")?, time("deleted_at")?);
    let stored = row
        .try_get::<Option<String>, _>("payload")?
        .map(|payload| Stored {
            payload,
            edited_at,
            deleted_at,
        });
    let appended = Appended {
        decision,
        seq: row.try_get::<Option<i64>, _>("seq")?.unwrap_or_default(),
        id: EventId(row.try_get::<Option<Uuid>, _>("id")?.unwrap_or_default()),
        created_at: time("created_at")?.unwrap_or(Timestamp::new(OffsetDateTime::UNIX_EPOCH)),
        stored,
        outbox: row.try_get("outbox_id")?,
    };
    Ok((row.try_get("item")?, appended))
}
