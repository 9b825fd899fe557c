//! A session's token: when it ends, and how a fresh one takes its place.

use std::time::Duration;

use confab_auth::Caller;
use confab_protocol::error::{Code, Failure};
use confab_protocol::frame::{Ack, Auth, ServerFrame, TokenExpiring};
use confab_protocol::timestamp::Timestamp;
use time::OffsetDateTime;
use tokio::time::Instant;

use super::commands::CommandDone;
use super::connection::Connection;
use super::session::Session;
use super::verify;

/// How long before its token ends a client is told so.
const EXPIRY_NOTICE: time::Duration = time::Duration::SECOND.saturating_mul(60);
/// No clock is set for later than this.
const MAX_TIMER: Duration = Duration::from_secs(365 * 24 * 3600);

/// When a connection whose token ends at `expires_at` is closed: with the clock skew that verification allows.
pub(super) fn expiry(expires_at: OffsetDateTime, leeway: time::Duration) -> Instant {
    until(expires_at.saturating_add(leeway), OffsetDateTime::now_utc())
}

/// When the client is told that its token ends: at once where less is left.
pub(super) fn warning(expires_at: OffsetDateTime) -> Instant {
    until(
        expires_at.saturating_sub(EXPIRY_NOTICE),
        OffsetDateTime::now_utc(),
    )
}

fn until(at: OffsetDateTime, now: OffsetDateTime) -> Instant {
    let left = Duration::try_from(at - now).unwrap_or_default();
    Instant::now() + left.min(MAX_TIMER)
}

impl Session<'_> {
    pub(super) fn warn_of_expiry(&self, connection: &Connection) {
        connection.answer(&ServerFrame::TokenExpiring(TokenExpiring {
            expires_at: Timestamp::new(self.caller.expires_at),
        }));
    }

    /// Looks at a fresh token. The socket is read no further meanwhile.
    pub(super) fn renew(&mut self, auth: Auth) {
        let sockets = self.sockets;
        self.renewing = true;
        self.on_the_way.push(Box::pin(async move {
            let verified = verify(sockets, &auth.token).await;
            CommandDone::Verified(auth.id, verified)
        }));
    }

    /// A fresh token was looked at. One that is refused changes nothing.
    pub(super) fn renewed(
        &mut self,
        connection: &Connection,
        id: Option<String>,
        verified: Result<Caller, Failure>,
    ) {
        self.renewing = false;
        match verified {
            Ok(caller) if is_same(&self.caller, &caller) => {
                match self.sockets.authenticator.renewed(&self.place, &caller) {
                    Ok(()) => {
                        self.caller = caller;
                        connection.answer(&ServerFrame::Ack(Ack {
                            id,
                            ..Ack::default()
                        }));
                    }
                    Err(failure) => {
                        connection.answer_error(id, failure);
                        self.go_on_as_before(connection);
                    }
                }
            }
            Ok(_other) => {
                let other = "the token must be of the same user and device";
                connection.answer_error(id, Failure::new(Code::InvalidToken, other));
            }
            Err(failure) => connection.answer_error(id, failure),
        }
    }

    /// The fresh token was revoked while it was looked at: the session has the old one, unless that was too.
    fn go_on_as_before(&self, connection: &Connection) {
        let authenticator = &self.sockets.authenticator;
        if let Err(failure) = authenticator.renewed(&self.place, &self.caller) {
            connection.send_queue.close(failure.code);
        }
    }
}

/// Whether two tokens are of one user on one device.
fn is_same(before: &Caller, now: &Caller) -> bool {
    (&before.tenant, &before.user, &before.device) == (&now.tenant, &now.user, &now.device)
}

#[cfg(test)]
mod tests {
    use confab_auth::Scope;

    use super::*;

    #[test]
    fn renewed_token_must_keep_its_user() {
        let caller = |tenant: &str, user: &str, device: &str, login: &str| Caller {
            tenant: tenant.parse().unwrap(),
            user: user.parse().unwrap(),
            device: device.to_owned(),
            login_session: login.to_owned(),
            issued_at: OffsetDateTime::UNIX_EPOCH,
            expires_at: OffsetDateTime::now_utc(),
            scope: Scope::parse(""),
        };
        let before = caller("t", "alice", "phone", "1");
        assert!(is_same(&before, &caller("t", "alice", "phone", "2")));
        assert!(!is_same(&before, &caller("u", "alice", "phone", "1")));
        assert!(!is_same(&before, &caller("t", "bob", "phone", "1")));
        assert!(!is_same(&before, &caller("t", "alice", "laptop", "1")));
    }

    #[tokio::test(start_paused = true)]
    async fn past_and_far_times_are_bounded() {
        let now = OffsetDateTime::now_utc();
        let start = Instant::now();
        assert_eq!(until(now - time::Duration::HOUR, now), start);
        assert_eq!(
            until(now + EXPIRY_NOTICE, now),
            start + Duration::from_secs(60)
        );
        assert_eq!(
            until(now + time::Duration::weeks(52_000), now),
            start + MAX_TIMER
        );
    }
}
