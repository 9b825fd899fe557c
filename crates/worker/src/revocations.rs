//! Revocations: who may make them, how they are kept, and for how long.

use confab_protocol::command::Caller;
use confab_protocol::error::{Code, Failure};
use confab_protocol::ids::SessionId;
use confab_protocol::revocation::{Revocation, RevocationTarget};
use confab_protocol::timestamp::Timestamp;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::error::CommandError;

pub(crate) mod lifetimes;

/// What a revocation's row is found by, and a time where it has one.
///
/// A session whose user is named is another entry than the same session of another user: who names a foreign session neither
/// revokes it nor undoes its revocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    pub(crate) kind: &'static str,
    pub(crate) subject: String,
    pub(crate) user: &'a str,
    pub(crate) issued_before: Option<Timestamp>,
}

/// Decides whether the caller may revoke this: a user its own sessions, the product's backend everything of its tenant.
///
/// # Errors
/// `INSUFFICIENT_SCOPE`.
pub(crate) fn entry<'a>(
    caller: &Caller,
    target: &'a RevocationTarget,
) -> Result<Entry<'a>, Failure> {
    let is_own = matches!(target, RevocationTarget::Session { user: Some(user), .. } if *user == caller.user);
    if !caller.admin && !is_own {
        return Err(Failure::of(Code::InsufficientScope));
    }
    Ok(match target {
        RevocationTarget::Session { session, user } => Entry {
            kind: "session",
            subject: session.to_string(),
            user: user.as_ref().map_or("", |user| user.as_str()),
            issued_before: None,
        },
        RevocationTarget::Login(login) => Entry {
            kind: "login",
            subject: login.clone(),
            user: "",
            issued_before: None,
        },
        RevocationTarget::User {
            user,
            issued_before,
        } => Entry {
            kind: "user",
            subject: user.as_str().to_owned(),
            user: "",
            issued_before: *issued_before,
        },
    })
}

/// The columns of a [`RevocationRow`].
pub(crate) const COLUMNS: &str =
    "revision, tenant, kind, subject, user_id, issued_before, created_at, expires_at";

/// A revocation as it is stored.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct RevocationRow {
    revision: i64,
    tenant: String,
    kind: String,
    subject: String,
    user_id: String,
    issued_before: Option<OffsetDateTime>,
    created_at: OffsetDateTime,
    expires_at: OffsetDateTime,
}

/// The revocation of a row.
pub(crate) fn revocation(row: RevocationRow) -> Result<Revocation, CommandError> {
    let user = |id: String| {
        id.try_into()
            .map_err(|_bad| CommandError::Stored("a user id"))
    };
    let target = match row.kind.as_str() {
        "session" => RevocationTarget::Session {
            session: SessionId(
                Uuid::try_parse(&row.subject)
                    .map_err(|_bad| CommandError::Stored("a session id"))?,
            ),
            user: Some(row.user_id)
                .filter(|id| !id.is_empty())
                .map(user)
                .transpose()?,
        },
        "login" => RevocationTarget::Login(row.subject),
        "user" => RevocationTarget::User {
            user: user(row.subject)?,
            issued_before: row.issued_before.map(Timestamp::new),
        },
        _ => return Err(CommandError::Stored("a revocation's kind")),
    };
    Ok(Revocation {
        revision: row.revision.cast_unsigned(),
        tenant: row
            .tenant
            .try_into()
            .map_err(|_bad| CommandError::Stored("a tenant"))?,
        target,
        created_at: Timestamp::new(row.created_at),
        expires_at: Timestamp::new(row.expires_at),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_revokes_its_own_sessions_and_nothing_else() {
        let caller = |admin| Caller {
            tenant: "t".parse().unwrap(),
            user: "alice".parse().unwrap(),
            admin,
        };
        let session = |user: Option<&str>| RevocationTarget::Session {
            session: SessionId(Uuid::nil()),
            user: user.map(|user| user.parse().unwrap()),
        };
        let own = session(Some("alice"));
        assert_eq!(entry(&caller(false), &own).unwrap().user, "alice");
        let users = RevocationTarget::User {
            user: "alice".parse().unwrap(),
            issued_before: None,
        };
        let others = [
            session(None),
            session(Some("bob")),
            RevocationTarget::Login("l".into()),
            users,
        ];
        for target in &others {
            let refused = entry(&caller(false), target).unwrap_err();
            assert_eq!(refused.code, Code::InsufficientScope);
            entry(&caller(true), target).unwrap();
        }
    }
}
