//! What is to be announced: of each conversation the newest event, and who joined; bounded in bytes. No IO.

use confab_bus::Outgoing;
use confab_protocol::event::MembershipChange;
use confab_protocol::ids::{ConversationId, Seq, TenantId, UserId};
use confab_protocol::lingering::{Announced, Announcement, AnnouncementKind, Joined};
use rustc_hash::FxHashMap;

/// Bytes of all that is announced, about: of more the oldest is left out, and gateways are told so.
pub(super) const MAX_ANNOUNCED_BYTES: usize = 512 << 10;
/// Bytes of one message, about: below the smallest `max_payload` that NATS is run with.
const MAX_MESSAGE_BYTES: usize = 32 << 10;
/// Users in one entry: those of a large beginning stand in several.
const MAX_USERS: usize = 200;
/// About what a conversation takes in a message, and an entry of who joined beside its users.
const HEAD_BYTES: usize = 32;
const JOINED_BYTES: usize = 64;

/// An event that is committed and not in the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::outbox) struct Key {
    pub(in crate::outbox) tenant: TenantId,
    pub(in crate::outbox) conversation: ConversationId,
    pub(in crate::outbox) seq: Seq,
    /// Whose memberships begin with it.
    pub(in crate::outbox) joined: Vec<UserId>,
}

impl Key {
    /// The key of an event that was read. One that cannot be parsed names nobody.
    pub(in crate::outbox) fn of(event: &Outgoing) -> Self {
        let joined = match MembershipChange::parse(event.r#type, &event.json) {
            Ok(Some(MembershipChange::Joined(users))) => users,
            Ok(_) | Err(_) => Vec::new(),
        };
        Self {
            tenant: event.tenant.clone(),
            conversation: event.conversation,
            seq: event.seq,
            joined,
        }
    }
}

/// The keys of what lingers.
#[derive(Debug, Default)]
pub(super) struct Keys {
    heads: FxHashMap<ConversationId, Head>,
    joined: Vec<Joining>,
    bytes: usize,
    /// Of the rows up to this one something is left out.
    cut_up_to: Option<i64>,
}

#[derive(Debug)]
struct Head {
    tenant: TenantId,
    seq: Seq,
    /// The last row that has an event of the conversation.
    row: i64,
    is_told: bool,
}

#[derive(Debug)]
struct Joining {
    tenant: TenantId,
    joined: Joined,
    row: i64,
    is_told: bool,
}

/// What of the keys is announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Selection {
    All,
    /// What was not announced yet.
    New,
}

impl Keys {
    /// Takes the key of an event of a row.
    pub(super) fn take(&mut self, row: i64, key: Key) {
        let Key {
            tenant,
            conversation,
            seq,
            joined,
        } = key;
        for users in joined.chunks(MAX_USERS) {
            let joined = Joined {
                conversation,
                seq,
                users: users.to_vec(),
            };
            self.bytes += joined_bytes(&joined);
            self.joined.push(Joining {
                tenant: tenant.clone(),
                joined,
                row,
                is_told: false,
            });
        }
        let bytes = &mut self.bytes;
        let head = self.heads.entry(conversation).or_insert_with(|| {
            *bytes += HEAD_BYTES;
            Head {
                tenant,
                seq: 0,
                row,
                is_told: false,
            }
        });
        head.row = head.row.max(row);
        if seq > head.seq {
            head.seq = seq;
            head.is_told = false;
        }
        if self.bytes > MAX_ANNOUNCED_BYTES {
            self.cut();
        }
    }

    /// Leaves out what is of the oldest rows, a quarter at least: that was told for longest.
    fn cut(&mut self) {
        let heads = self.heads.values().map(|head| (head.row, HEAD_BYTES));
        let joined = self.joined.iter();
        let joined = joined.map(|one| (one.row, joined_bytes(&one.joined)));
        let mut sizes: Vec<(i64, usize)> = heads.chain(joined).collect();
        sizes.sort_unstable();
        let mut left = self.bytes;
        let mut last = None;
        for (row, bytes) in sizes {
            if left <= MAX_ANNOUNCED_BYTES / 4 * 3 {
                break;
            }
            left = left.saturating_sub(bytes);
            last = Some(row);
        }
        if let Some(row) = last {
            self.forget(|of| of <= row);
            self.cut_up_to = self.cut_up_to.max(Some(row));
        }
    }

    fn forget(&mut self, is_forgotten: impl Fn(i64) -> bool) {
        self.heads.retain(|_, head| !is_forgotten(head.row));
        self.joined.retain(|one| !is_forgotten(one.row));
        let joined = self.joined.iter().map(|one| joined_bytes(&one.joined));
        self.bytes = self.heads.len() * HEAD_BYTES + joined.sum::<usize>();
    }

    /// All below the row `oldest` is published; all that there is, where there is none.
    pub(super) fn published_below(&mut self, oldest: Option<i64>) {
        let is_published = |row: i64| oldest.is_none_or(|oldest| row < oldest);
        self.cut_up_to = self.cut_up_to.filter(|row| !is_published(*row));
        let is_any = self.heads.values().any(|head| is_published(head.row));
        if is_any || self.joined.iter().any(|one| is_published(one.row)) {
            self.forget(is_published);
        }
    }

    /// More lingers than can be read.
    pub(super) fn leave_out(&mut self, up_to: i64) {
        self.cut_up_to = self.cut_up_to.max(Some(up_to));
    }

    /// The announcements of a selection, each of a bounded size; one without keys where all that is to be said is that some are left out.
    pub(super) fn announce(&mut self, selection: Selection) -> Vec<Announcement> {
        let is_cut = self.cut_up_to.is_some();
        let mut pages = Pages::new(AnnouncementKind::Lingering, is_cut);
        for (id, head) in &mut self.heads {
            if selection == Selection::All || !head.is_told {
                head.is_told = true;
                pages.head(&head.tenant, *id, head.seq);
            }
        }
        for one in &mut self.joined {
            if selection == Selection::All || !one.is_told {
                one.is_told = true;
                pages.joined(&one.tenant, one.joined.clone());
            }
        }
        let mut announcements = pages.end();
        if announcements.is_empty() && is_cut && selection == Selection::All {
            announcements.push(Announcement {
                kind: AnnouncementKind::Lingering,
                is_cut,
                tenants: Vec::new(),
            });
        }
        announcements
    }
}

/// The announcements of rows that are stepped over: this once.
pub(super) fn stepped_over(keys: Vec<Key>) -> Vec<Announcement> {
    let mut all = Keys::default();
    for (key, row) in keys.into_iter().zip(0..) {
        all.take(row, key);
    }
    let mut announcements = all.announce(Selection::All);
    for announcement in &mut announcements {
        announcement.kind = AnnouncementKind::SteppedOver;
    }
    announcements
}

fn joined_bytes(joined: &Joined) -> usize {
    let users = joined.users.iter().map(|user| user.as_str().len() + 3);
    JOINED_BYTES + users.sum::<usize>()
}

/// Announcements that are being filled.
struct Pages {
    kind: AnnouncementKind,
    is_cut: bool,
    full: Vec<Announcement>,
    open: FxHashMap<TenantId, Announced>,
    bytes: usize,
}

impl Pages {
    fn new(kind: AnnouncementKind, is_cut: bool) -> Self {
        Self {
            kind,
            is_cut,
            full: Vec::new(),
            open: FxHashMap::default(),
            bytes: 0,
        }
    }

    fn head(&mut self, tenant: &TenantId, conversation: ConversationId, seq: Seq) {
        self.with(tenant, HEAD_BYTES)
            .heads
            .push((conversation, seq));
    }

    fn joined(&mut self, tenant: &TenantId, joined: Joined) {
        self.with(tenant, joined_bytes(&joined)).joined.push(joined);
    }

    /// What is open of a tenant, with room for so many bytes.
    fn with(&mut self, tenant: &TenantId, bytes: usize) -> &mut Announced {
        let is_new = !self.open.contains_key(tenant);
        let bytes = bytes
            + if is_new {
                JOINED_BYTES + tenant.as_str().len()
            } else {
                0
            };
        if self.bytes > 0 && self.bytes + bytes > MAX_MESSAGE_BYTES {
            self.close();
        }
        self.bytes += bytes;
        let open = self.open.entry(tenant.clone());
        open.or_insert_with(|| Announced::of(tenant.clone()))
    }

    fn close(&mut self) {
        self.bytes = 0;
        let tenants: Vec<_> = self.open.drain().map(|(_, announced)| announced).collect();
        if !tenants.is_empty() {
            self.full.push(Announcement {
                kind: self.kind,
                is_cut: self.is_cut,
                tenants,
            });
        }
    }

    fn end(mut self) -> Vec<Announcement> {
        self.close();
        self.full
    }
}

#[cfg(test)]
mod tests;
