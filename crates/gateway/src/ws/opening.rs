//! How a session opens: afresh, or where another connection left it.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use confab_auth::Caller;
use confab_protocol::error::{Code, Failure};
use confab_protocol::frame::{ResumeToken, ServerFrame, Welcome, WelcomeLimits};
use confab_protocol::ids::{ConversationId, Seq, SessionId};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::{debug, info};
use uuid::Uuid;

use super::Sockets;
use super::connection::{Connection, End};
use super::hello::HelloAccepted;
use super::session::Session;
use crate::account::{Account, SessionKey};
use crate::delivery::send_queue::SendQueue;
use crate::hub::{Opened, Start};
use crate::limits::UserConnection;
use crate::sessions::Registered;
use crate::sessions::records::{Begun, Resumed, SessionLease, TakenOver, Token};

/// How long a welcome waits for its session's record to stand.
const RECORD_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the answer to `bye` waits until the session cannot be resumed.
const BYE_TIMEOUT: Duration = Duration::from_secs(1);

/// A token that is good once its session's record stands.
pub(super) struct LaterToken {
    token: Token,
    stands: oneshot::Receiver<()>,
}

/// Opens the session of a client that said hello, and welcomes it.
///
/// # Errors
/// How the connection ends when it cannot be opened.
pub(super) async fn open<'a>(
    sockets: &'a Sockets,
    connection: &Connection,
    greeted: HelloAccepted,
    user_connection: UserConnection,
) -> Result<Session<'a>, End> {
    let HelloAccepted {
        caller,
        mut hello,
        seen,
    } = greeted;
    let id = hello.id.take();
    let refuse = |failure| refused(connection, id.clone(), failure);
    let taken = match hello.resume_token.take() {
        Some(token) => {
            let taking = take_over(sockets, connection, &caller, &token);
            Some(taking.await.map_err(refuse)?)
        }
        None => None,
    };
    let (resumed, reason) = match taken {
        Some(TakenOver::Resumed(resumed)) => (Some(resumed), None),
        Some(TakenOver::Afresh(reason)) => {
            user_connection.check_bound().map_err(refuse)?;
            (None, Some(reason.to_owned()))
        }
        None => (None, None),
    };
    let entering = enter(sockets, connection, &caller, resumed, seen);
    let entered = entering.await.map_err(refuse)?;
    info!(
        session.id = %entered.lease.session(),
        tenant = %caller.tenant,
        user.id = %caller.user,
        resumed = entered.resumed,
        "a session opened"
    );
    let opened = entered.opened;
    connection.welcome(Welcome {
        id,
        session_id: entered.lease.session(),
        user_id: caller.user.clone(),
        resumed: entered.resumed,
        reason,
        replayed: opened.replayed,
        truncated: opened.truncated,
        heads: (hello.heads == Some(true)).then(|| opened.heads.into_iter().collect()),
        resume_token: entered.token.map(|token| token.text()),
        resume_window_seconds: sockets.records.window().as_secs(),
        heartbeat_seconds: sockets.limits.heartbeat.as_secs(),
        limits: WelcomeLimits::default(),
    });
    if hello.presence == Some(true) {
        let account = Account {
            tenant: caller.tenant.clone(),
            user: caller.user.clone(),
        };
        let send_queue = Arc::clone(&connection.send_queue);
        sockets.hub.presence_snapshot(account, send_queue).await;
    }
    Ok(Session::new(
        sockets,
        entered.key,
        caller,
        (entered.place, user_connection),
        (entered.lease, entered.later),
    ))
}

/// Takes over the session that a resume token names. Tokens that resume nothing are bounded, for each asks much of others.
async fn take_over(
    sockets: &Sockets,
    connection: &Connection,
    caller: &Caller,
    token: &str,
) -> Result<TakenOver, Failure> {
    sockets.users.may_resume(caller)?;
    let taking = sockets
        .records
        .take_over(token, caller, &connection.send_queue);
    let taken = taking.await;
    if !matches!(taken, Ok(TakenOver::Resumed(_))) {
        sockets.users.resume_failed(caller);
    }
    taken
}

/// An open session.
struct Entered {
    key: SessionKey,
    place: Registered,
    lease: SessionLease,
    /// Whether it goes on from another connection.
    resumed: bool,
    opened: Opened,
    /// What resumes it, where that is good already.
    token: Option<Token>,
    later: Option<LaterToken>,
}

/// Gives the session its place in the hub and among the open ones, and one that begins its record.
async fn enter(
    sockets: &Sockets,
    connection: &Connection,
    caller: &Caller,
    resumed: Option<Resumed>,
    seen: BTreeMap<ConversationId, Seq>,
) -> Result<Entered, Failure> {
    let account = Account {
        tenant: caller.tenant.clone(),
        user: caller.user.clone(),
    };
    let (session, positions) = match &resumed {
        Some(resumed) => (resumed.lease.session(), resumed.positions.clone()),
        None => (SessionId(Uuid::now_v7()), Vec::new()),
    };
    let start = Start {
        resumed: resumed.is_some(),
        positions,
        seen,
        presence: resumed.as_ref().map(|resumed| resumed.presence),
    };
    let send_queue = || Arc::clone(&connection.send_queue);
    let opening = sockets
        .hub
        .open(account, send_queue(), start, sockets.limits.open);
    let (key, opened) = opening.await?;
    let place = match sockets.authenticator.open(session, caller, send_queue()) {
        Ok(place) => place,
        Err(revoked) => {
            let _positions = sockets.hub.close(key).await;
            if let Some(resumed) = resumed {
                finish(resumed.lease).await;
            }
            return Err(revoked);
        }
    };
    let is_resumed = resumed.is_some();
    let (lease, token, later) = match resumed {
        Some(resumed) => {
            resumed.lease.opened(key);
            (resumed.lease, Some(resumed.token), None)
        }
        None => {
            let Some(begun) = begin(sockets, session, caller, (send_queue(), key)).await else {
                let _positions = sockets.hub.close(key).await;
                let late = Failure::new(Code::Unavailable, "the hub does not answer in time");
                return Err(late.retry_after(1000));
            };
            begun
        }
    };
    Ok(Entered {
        key,
        place,
        lease,
        resumed: is_resumed,
        opened,
        token,
        later,
    })
}

/// Begins a record, and waits for it to stand, for a moment; none where the hub does not say in time what the client has: without that a
/// resume would not know what it missed.
async fn begin(
    sockets: &Sockets,
    session: SessionId,
    caller: &Caller,
    live: (Arc<SendQueue>, SessionKey),
) -> Option<(SessionLease, Option<Token>, Option<LaterToken>)> {
    let positions = sockets.hub.positions(live.1).await?;
    let begun = sockets.records.begin(session, caller, positions, live);
    let Begun {
        lease,
        token,
        mut stands,
    } = begun;
    Some(match timeout(RECORD_TIMEOUT, &mut stands).await {
        Ok(Ok(())) => (lease, Some(token), None),
        // It was fenced at once, and ends.
        Ok(Err(_gone)) => (lease, None, None),
        Err(_late) => (lease, None, Some(LaterToken { token, stands })),
    })
}

/// Ends a session for good, and waits until it cannot be resumed, for a moment.
pub(super) async fn finish(lease: SessionLease) {
    let session = lease.session();
    if timeout(BYE_TIMEOUT, lease.finished()).await.is_err() {
        debug!(session.id = %session, "the end of a session is written later");
    }
}

/// The frame with a token that was not good when its session was welcomed, once it is. Cancel-safe.
pub(super) async fn token_that_stands(later: &mut Option<LaterToken>) -> Option<ServerFrame> {
    let stands = match later {
        Some(later) => (&mut later.stands).await,
        None => pending().await,
    };
    let LaterToken { token, .. } = later.take()?;
    let resume_token = token.text();
    stands
        .ok()
        .map(|()| ServerFrame::ResumeToken(ResumeToken { resume_token }))
}

/// The connection ends with an error frame before the close frame.
fn refused(connection: &Connection, id: Option<String>, failure: Failure) -> End {
    let code = failure.code;
    connection.answer_error(id, failure);
    End::of(code)
}
