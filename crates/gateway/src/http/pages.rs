//! Pages: a worker's answer fits one NATS message and may be short, so that workers are asked on until the page is full.

use axum::response::Response;
use confab_protocol::error::{Code, Failure};
use confab_protocol::ids::Seq;
use confab_protocol::json::JsonText;
use confab_protocol::query::{Answer, Log, Query};

use super::problem::Problem;
use super::who::Who;
use super::{App, answer};

/// A page that holds so many bytes is full, whatever its limit: with the answer that filled it, it has less than 2 MiB.
const FULL_PAGE_BYTES: usize = 1024 * 1024;
/// Workers are asked so often for one page, however little they find: the rest has the page's cursor.
const MAX_PAGE_QUERIES: u32 = 8;

/// The items of a page, ready to be sent, and where the next page begins.
#[derive(Debug)]
pub(super) struct Page {
    items: Vec<JsonText>,
    next_cursor: Option<String>,
}

impl Page {
    /// The answer that tells the page under the name of what it holds.
    pub(super) fn under(self, name: &str) -> Response {
        let next = self.next_cursor;
        let next = next.map_or_else(|| "null".to_owned(), |cursor| format!("\"{cursor}\""));
        answer::list(name, &self.items, ("nextCursor", &next))
    }
}

/// Gathers a page of at most `limit` items from `cursor` on; `question` asks for so many from a cursor.
pub(super) async fn gather(
    app: &App,
    who: &Who,
    limit: u32,
    cursor: Option<String>,
    question: impl Fn(u32, Option<String>) -> Query,
) -> Result<Page, Problem> {
    let mut page = Page {
        items: Vec::new(),
        next_cursor: cursor,
    };
    let mut bytes = 0;
    for _ in 0..MAX_PAGE_QUERIES {
        let wanted = left(limit, page.items.len());
        let query = question(wanted, page.next_cursor.take());
        let Answer::Page { items, next_cursor } = app.ask(who, query).await? else {
            return Err(Failure::of(Code::Internal).into());
        };
        bytes += size(&items);
        page.items.extend(items);
        page.next_cursor = next_cursor;
        if page.next_cursor.is_none()
            || left(limit, page.items.len()) == 0
            || bytes >= FULL_PAGE_BYTES
        {
            break;
        }
    }
    Ok(page)
}

/// Gathers a part of a log, and the conversation's last seq.
pub(super) async fn gather_log(
    app: &App,
    who: &Who,
    log: Log,
) -> Result<(Vec<JsonText>, Seq), Problem> {
    let mut gathered: Vec<JsonText> = Vec::new();
    let mut bytes = 0;
    loop {
        let read = gathered.len() as u64;
        let query = Query::Log(Log {
            // A log has no gaps: what was read tells how far.
            after: log.after.saturating_add(read),
            limit: left(log.limit, gathered.len()),
            ..log.clone()
        });
        let Answer::Log { events, head } = app.ask(who, query).await? else {
            return Err(Failure::of(Code::Internal).into());
        };
        let ended = events.is_empty();
        bytes += size(&events);
        gathered.extend(events);
        let last = log.after.saturating_add(gathered.len() as u64);
        if ended || last >= head || left(log.limit, gathered.len()) == 0 || bytes >= FULL_PAGE_BYTES
        {
            return Ok((gathered, head));
        }
    }
}

fn left(limit: u32, count: usize) -> u32 {
    limit.saturating_sub(u32::try_from(count).unwrap_or(u32::MAX))
}

fn size(items: &[JsonText]) -> usize {
    items.iter().map(|item| item.as_str().len()).sum()
}
