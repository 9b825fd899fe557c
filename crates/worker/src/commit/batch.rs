//! Group commit: a batch of messages is one call of `append_messages`, which locks first and decides then; a message that goes alone is
//! one of `append_message`, which does the same for less.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use confab_protocol::chain::chain;
use confab_protocol::error::{Code, Failure};
use confab_protocol::ids::{ConversationId, EventId};
use confab_protocol::timestamp::Timestamp;
use rustc_hash::FxHashSet;
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use time::OffsetDateTime;
use tracing::{debug, error};
use uuid::Uuid;

use super::lock::wait_for_lock;
use super::{AGAIN, Committer, Fate, given_up, gives_up};
use crate::database::{READ_COMMITTED, bounded};
use crate::error::{CommandError, Meaning, locked, meaning, poisons_connection};
use crate::messages::{Append, Appended, Decision, Stored};
use crate::origin::Origin;
use crate::outbox::Committed;
use crate::planner::{Locking, Open};
use crate::reads::version;

/// After how long a batch that met a lock beside its conversations' is run again as it is.
const LOCKED_RETRY_DELAY: Duration = Duration::from_millis(10);

const BATCH: &str = "select item, outcome, seq, id, created_at, payload, edited_at, deleted_at, version, outbox_id \
    from append_messages($1, $2, $3, $4, $5, $6, $7, $8)";
const ONE: &str = "select item, outcome, seq, id, created_at, payload, edited_at, deleted_at, version, outbox_id \
    from append_message($1, $2, $3, $4, $5, $6, $7, $8)";

/// A message of a batch, with the end of its budget.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) append: Append,
    pub(crate) deadline: Instant,
    /// What earlier runs have left open.
    pub(crate) open: Open,
    /// The request that it came with.
    pub(crate) origin: Origin,
}

/// What became of a batch: of each item, and what is to be published.
pub(crate) struct BatchEnd {
    pub(crate) fates: Vec<Fate>,
    pub(crate) committed: Vec<Committed>,
}

/// A batch that is carried out, in parts where Postgres refuses it as a whole.
struct Run<'a> {
    items: &'a [Item],
    fates: Vec<Option<Fate>>,
    /// Of items without a fate: whether a run may have stored them.
    is_unknown: Vec<bool>,
    committed: Vec<Committed>,
    /// Conversations that were locked: what comes behind it in them is left out, too, and keeps its place.
    locked: FxHashSet<ConversationId>,
    is_late: fn(Instant, Instant) -> bool,
}

impl Committer {
    /// Commits a batch; with [`Locking::Wait`] all of it is of one conversation. It is never given up while it runs: it ends, or Postgres
    /// ends it, or the connection is lost; then the same batch is run again, under the lock, where what it stored is found.
    pub(crate) async fn batch(&self, items: &[Item], locking: Locking) -> BatchEnd {
        let mut run = Run::new(items);
        let mut parts = VecDeque::from([((0..items.len()).collect::<Vec<_>>(), false)]);
        while let Some((part, was_locked)) = parts.pop_front() {
            let part = run.due(part, Instant::now());
            let batch: Vec<_> = part.iter().filter_map(|n| items.get(*n)).collect();
            if batch.is_empty() {
                continue;
            }
            let error = match self.append(&batch, locking).await {
                Ok(appended) => {
                    self.commits.succeeded();
                    run.committed.extend(self.committed(&batch, &appended));
                    run.decide(&part, &batch, &appended);
                    continue;
                }
                Err(error) => error,
            };
            let meaning = meaning(&error);
            match meaning {
                // In a place the one lock that is waited for is everybody's.
                Meaning::Locked if part.len() == 1 || locking == Locking::Wait => {
                    part.iter().for_each(|n| run.skip(*n));
                }
                Meaning::Data | Meaning::Defect if part.len() == 1 => {
                    run.report_refusal(&part, &error);
                    let failure = CommandError::from(error).failure(false);
                    part.iter().for_each(|n| run.refuse(*n, failure.clone()));
                }
                // Something passing, like a table that is being truncated, is the same for each half.
                Meaning::Locked if !was_locked => {
                    parts.push_front((part, true));
                    tokio::time::sleep(LOCKED_RETRY_DELAY).await;
                }
                Meaning::Data | Meaning::Defect | Meaning::Locked => {
                    debug!(error = %chain(&error), events = part.len(), "a batch was refused and is run in halves");
                    let (one, other) = part.split_at(part.len() / 2);
                    parts.push_front((other.to_vec(), was_locked));
                    parts.push_front((one.to_vec(), was_locked));
                }
                Meaning::Again | Meaning::NotExecuted | Meaning::Unknown => {
                    self.passing(&error);
                    debug!(error = %chain(&error), ?meaning, "a batch is run again");
                    if meaning == Meaning::Unknown {
                        part.iter().for_each(|n| run.doubt(*n));
                    }
                    run.is_late = gives_up;
                    parts.push_front((part, was_locked));
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
        run.end()
    }

    /// Appends; gives for each what the store did, and nothing for one whose budget had ended before its statement began.
    async fn append(
        &self,
        batch: &[&Item],
        locking: Locking,
    ) -> Result<Vec<Option<Appended>>, sqlx::Error> {
        let began = Instant::now();
        let (places, rows) = match locking {
            Locking::Skip => self.append_free(batch).await?,
            Locking::Wait => bounded(self.append_by_waiting(batch)).await?,
        };
        if !places.is_empty() {
            self.metrics.batch(places.len(), began.elapsed());
        }
        let mut appended: Vec<_> = rows.iter().map(read).collect::<Result<_, _>>()?;
        appended.sort_by_key(|(item, _)| *item);
        if appended.len() != places.len() {
            return Err(sqlx::Error::Protocol(
                "the batch has another number of outcomes".into(),
            ));
        }
        let mut ends: Vec<_> = batch.iter().map(|_| None).collect();
        for (place, (_, appended)) in places.into_iter().zip(appended) {
            if let Some(end) = ends.get_mut(place) {
                *end = Some(appended);
            }
        }
        Ok(ends)
    }

    async fn append_free(&self, batch: &[&Item]) -> Result<(Vec<usize>, Vec<PgRow>), sqlx::Error> {
        let mut connection = self.batches.acquire().await?;
        let (places, due) = still_in_time(batch);
        if due.is_empty() {
            connection.release();
            return Ok((places, Vec::new()));
        }
        let result = bounded(bind(&due).fetch_all(&mut *connection)).await;
        if !result.as_ref().err().is_some_and(poisons_connection) {
            connection.release();
        }
        Ok((places, result?))
    }

    /// Appends in the transaction that has waited for the lock: as long as the last of them has time, and without those that had none left.
    async fn append_by_waiting(
        &self,
        batch: &[&Item],
    ) -> Result<(Vec<usize>, Vec<PgRow>), sqlx::Error> {
        let mut tx = self.places.begin(READ_COMMITTED).await?;
        let appended = async {
            let last = batch.iter().max_by_key(|item| item.deadline);
            if let Some(Item {
                append, deadline, ..
            }) = last
            {
                let conversation = Some(append.message.conversation);
                wait_for_lock(&mut tx, &append.caller, conversation, *deadline).await?;
            }
            let (places, due) = still_in_time(batch);
            let rows = match due.as_slice() {
                [] => Vec::new(),
                due => bind(due).fetch_all(&mut *tx).await?,
            };
            Ok((places, rows))
        };
        match appended.await {
            Ok(appended) => {
                tx.commit().await?;
                Ok(appended)
            }
            Err(error) => {
                if !poisons_connection(&error) {
                    tx.rollback().await?;
                }
                Err(error)
            }
        }
    }

    /// What is to be published of a batch: the outbox row is found again by the relay should this process die.
    fn committed(&self, batch: &[&Item], appended: &[Option<Appended>]) -> Option<Committed> {
        let stored = batch
            .iter()
            .zip(appended.iter())
            .filter_map(|(item, appended)| Some((&item.append, appended.as_ref()?)))
            .filter(|(_, appended)| appended.decision == Decision::Stored);
        let events: Vec<_> = stored
            .map(|(append, appended)| {
                crate::outbox::outgoing(&append.caller.tenant, &append.entry(appended))
            })
            .collect();
        let mut appended = appended.iter().flatten();
        let row = appended.find_map(|appended| appended.outbox)?;
        (!events.is_empty()).then_some(Committed { row, events })
    }
}

impl<'a> Run<'a> {
    fn new(items: &'a [Item]) -> Self {
        Self {
            items,
            fates: items.iter().map(|_| None).collect(),
            is_unknown: items.iter().map(|item| item.open.is_unknown).collect(),
            committed: Vec::new(),
            locked: FxHashSet::default(),
            is_late: |deadline, now| deadline <= now,
        }
    }

    /// What of a part is to be run now: neither what is late, nor what stands behind something that was locked.
    fn due(&mut self, part: Vec<usize>, now: Instant) -> Vec<usize> {
        let mut due = Vec::with_capacity(part.len());
        for n in part {
            let Some(item) = self.items.get(n) else {
                continue;
            };
            if self.locked.contains(&item.append.message.conversation) {
                self.skip(n);
            } else if (self.is_late)(item.deadline, now) {
                let failure = given_up(self.is_in_doubt(n));
                self.refuse(n, failure);
            } else {
                due.push(n);
            }
        }
        due
    }

    fn decide(&mut self, part: &[usize], batch: &[&Item], appended: &[Option<Appended>]) {
        for (n, (item, appended)) in part.iter().zip(batch.iter().zip(appended)) {
            match appended {
                Some(appended) if appended.decision == Decision::Locked => self.skip(*n),
                Some(appended) => self.set(*n, Fate::Decided(item.append.answer(appended))),
                None => self.refuse(*n, given_up(self.is_in_doubt(*n))),
            }
        }
    }

    /// Another holds the conversation's lock.
    fn skip(&mut self, n: usize) {
        if let Some(item) = self.items.get(n) {
            self.locked.insert(item.append.message.conversation);
        }
        let open = Open {
            is_unknown: self.is_in_doubt(n),
            skipped: Some(locked()),
        };
        self.set(n, Fate::Locked(open));
    }

    fn refuse(&mut self, n: usize, failure: Failure) {
        self.set(n, Fate::Decided(Err(failure)));
    }

    /// Logs why a message was refused that is alone in its part.
    fn report_refusal(&self, part: &[usize], error: &sqlx::Error) {
        for item in part.iter().filter_map(|n| self.items.get(*n)) {
            let span = item.origin.span("send_message");
            span.in_scope(|| error!(error = %chain(error), "Postgres refused a message"));
        }
    }

    /// A run may have stored it.
    fn doubt(&mut self, n: usize) {
        if let Some(is_unknown) = self.is_unknown.get_mut(n) {
            *is_unknown = true;
        }
    }

    fn is_in_doubt(&self, n: usize) -> bool {
        self.is_unknown.get(n).copied().unwrap_or_default()
    }

    fn set(&mut self, n: usize, fate: Fate) {
        if let Some(place) = self.fates.get_mut(n) {
            *place = Some(fate);
        }
    }

    fn end(self) -> BatchEnd {
        let lost = || Fate::Decided(Err(Failure::of(Code::Internal)));
        let fates = self.fates.into_iter();
        BatchEnd {
            fates: fates.map(|fate| fate.unwrap_or_else(lost)).collect(),
            committed: self.committed,
        }
    }
}

/// The messages of a batch whose budget has not ended while a connection or a lock was waited for, or this process stood still, with their
/// places: the gateways of the others have given them up, and their senders may have been told so, or been refused elsewhere.
fn still_in_time<'a>(batch: &[&'a Item]) -> (Vec<usize>, Vec<&'a Append>) {
    let now = Instant::now();
    let due = batch.iter().enumerate();
    let due = due.filter(|(_, item)| item.deadline > now);
    due.map(|(place, item)| (place, &item.append)).unzip()
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
    let stored_version = row.try_get("version")?;
    let stored = row
        .try_get::<Option<String>, _>("payload")?
        .map(|payload| Stored {
            payload,
            edited_at,
            deleted_at,
            version: version(stored_version),
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
