//! Whether a session is known: live or resumable at any gateway.

use confab_bus::BusError;
use confab_bus::records::{Entry, Found, Record};
use confab_bus::sessions::SessionsOf;
use confab_protocol::chain::chain;
use confab_protocol::command::Caller;
use confab_protocol::ids::SessionId;
use tracing::debug;

use super::Records;

/// What is known of a session of a user.
#[derive(Debug, Clone)]
pub(crate) enum KnownSession {
    /// It is the user's, live or resumable; with what the bucket has of it.
    Yes(Option<Stored>),
    /// There is none of this user's: nothing is to be revoked.
    No,
    /// Not all who may know could be asked.
    Maybe,
}

/// What the bucket has of a session.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    revision: u64,
    /// What it is to be written over with when it is revoked.
    ended: Entry,
}

impl Records {
    /// Whether the caller has this session. Asked in turn: what this gateway holds, the bucket's leader, the other gateways; whoever may
    /// know and cannot be asked leaves it open.
    pub(crate) async fn knows(&self, session: SessionId, caller: &Caller) -> KnownSession {
        let is_held = self
            .lock()
            .entry(session)
            .is_some_and(|own| is_of(&own, caller));
        match self.0.bucket.get_from_leader(session).await {
            Ok(Found::Entry { entry, revision }) => match entry {
                Entry::Live(record) if is_its(&record, caller) => KnownSession::Yes(Some(Stored {
                    revision,
                    ended: record.to_ended(),
                })),
                // A session never becomes another user's, and never begins again.
                Entry::Live(_) | Entry::Ended { .. } => KnownSession::No,
            },
            // What it says of its user is all that is asked here.
            Ok(Found::Baseless { record, revision }) if is_its(&record, caller) => {
                let ended = record.to_ended();
                KnownSession::Yes(Some(Stored { revision, ended }))
            }
            Ok(Found::Baseless { .. }) => KnownSession::No,
            _ if is_held => KnownSession::Yes(None),
            Ok(Found::Absent | Found::Unreadable { .. }) => self.others_know(session, caller).await,
            Err(error) => {
                debug!(error = %chain(&error), "it is not known whether there is a session");
                KnownSession::Maybe
            }
        }
    }

    /// A session whose record does not stand yet, or was lost with the bucket.
    async fn others_know(&self, session: SessionId, caller: &Caller) -> KnownSession {
        let (bus, gateways) = (&self.0.bus, &self.0.gateways);
        let Some(alive) = gateways.all_alive() else {
            return KnownSession::Maybe;
        };
        let own = gateways.id();
        let others: Vec<_> = alive.iter().copied().filter(|id| *id != own).collect();
        let of = SessionsOf::new(caller.tenant.clone(), caller.user.clone());
        let asked = async {
            // Among the open ones it stands a moment before its record begins.
            let open = bus.sessions_of(&of, &alive).await?;
            let held = bus.held_record(session, &others).await?;
            Ok::<_, BusError>((open, held))
        };
        let (open, held) = match asked.await {
            Ok(asked) => asked,
            Err(error) => {
                debug!(error = %chain(&error), "gateways cannot be asked for a session");
                return KnownSession::Maybe;
            }
        };
        let is_open = open.iter().any(|one| one.id == session);
        if is_open || held.entry.is_some_and(|entry| is_of(&entry, caller)) {
            KnownSession::Yes(None)
        } else if held.is_all && !gateways.lost_within(self.0.window) {
            KnownSession::No
        } else {
            KnownSession::Maybe
        }
    }

    /// Writes that a revoked session has ended over its record, so that it cannot be resumed however long the bucket keeps records. Its
    /// gateway does the same where it is live; what fails is left to the revocation.
    pub(crate) async fn end_stored(&self, session: SessionId, stored: Stored) {
        let Stored { revision, ended } = stored;
        let put = self.0.bucket.put(session, &ended, revision).await;
        debug!(?put, session.id = %session, "a revoked session's record was written over");
    }
}

/// Whether it is a session of the caller's that may go on.
fn is_of(entry: &Entry, caller: &Caller) -> bool {
    match entry {
        Entry::Live(record) => is_its(record, caller),
        Entry::Ended { .. } => false,
    }
}

fn is_its(record: &Record, caller: &Caller) -> bool {
    (&record.tenant, &record.user) == (&caller.tenant, &caller.user)
}
