//! The one way in for tokens, over HTTP and WebSocket: verified, not revoked, counted.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::http::HeaderValue;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use confab_auth::{AuthError, Caller, Verifier};
use confab_protocol::error::Failure;
use confab_protocol::ids::SessionId;
use time::{Duration, OffsetDateTime};

use crate::delivery::send_queue::SendQueue;
use crate::limits::address_of;
use crate::limits::refusals::Refusals;
use crate::limits::turns::Turns;
use crate::metrics::AuthMetrics;
use crate::sessions::{Registered, Sessions};

pub(crate) mod revocations;
mod settings;

pub(crate) use settings::RefusalSettings;

use revocations::Revocations;

/// Over what a token came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    /// A request of HTTP.
    Http,
    /// A WebSocket: in its upgrade, its hello or later.
    WebSocket,
}

impl Transport {
    const fn label(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::WebSocket => "websocket",
        }
    }
}

/// The authenticator of tokens. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Authenticator {
    verifier: Arc<Verifier>,
    revocations: Revocations,
    refusals: Arc<Refusals>,
    metrics: AuthMetrics,
    turns: Turns,
    trusted_proxies: usize,
}

impl Authenticator {
    pub(crate) fn new(
        verifier: Arc<Verifier>,
        revocations: Revocations,
        refusals: Refusals,
        metrics: AuthMetrics,
        trusted_proxies: usize,
    ) -> Self {
        Self {
            verifier,
            revocations,
            refusals: Arc::new(refusals),
            metrics,
            turns: Turns::new(),
            trusted_proxies,
        }
    }

    /// How long after `exp` a token is still good.
    pub(crate) fn leeway(&self) -> Duration {
        self.verifier.leeway()
    }

    /// What is revoked.
    pub(crate) const fn revocations(&self) -> &Revocations {
        &self.revocations
    }

    /// Who calls with `token`, when it is good and not revoked.
    ///
    /// # Errors
    /// The code with which the caller is refused.
    pub(crate) async fn admit(&self, token: &str, transport: Transport) -> Result<Caller, Failure> {
        self.judge(Ok(token), None, transport).await
    }

    /// The same for the token of a request's `Authorization` header.
    ///
    /// # Errors
    /// The code with which the caller is refused.
    pub(crate) async fn admit_header(
        &self,
        request: &Parts,
        transport: Transport,
    ) -> Result<Caller, Failure> {
        let headers = &request.headers;
        let values = headers.get_all(AUTHORIZATION).iter();
        let token = confab_auth::bearer(values.map(HeaderValue::as_bytes));
        let address = address_of(&request.extensions, headers, self.trusted_proxies);
        self.judge(token, Some(address), transport).await
    }

    /// Gives a session, which closes by its `send_queue`, its place among the open ones. The revocations are looked at again
    /// once it is there, so that none slips between its check and its opening.
    ///
    /// # Errors
    /// `TOKEN_REVOKED`.
    pub(crate) fn open(
        &self,
        session: SessionId,
        caller: &Caller,
        send_queue: Arc<SendQueue>,
    ) -> Result<Registered, Failure> {
        let place = self
            .sessions()
            .register(session, caller.clone(), send_queue);
        self.revocations.check_session(caller, session)?;
        Ok(place)
    }

    /// Goes on with a session by a fresh token, which was admitted.
    ///
    /// # Errors
    /// `TOKEN_REVOKED`, when it was revoked since.
    pub(crate) fn renewed(&self, place: &Registered, caller: &Caller) -> Result<(), Failure> {
        place.renewed(caller);
        self.revocations.check_session(caller, place.id())
    }

    /// The sessions that are open here.
    pub(crate) const fn sessions(&self) -> &Sessions {
        self.revocations.sessions()
    }

    async fn judge(
        &self,
        token: Result<&str, AuthError>,
        address: Option<IpAddr>,
        transport: Transport,
    ) -> Result<Caller, Failure> {
        let began = Instant::now();
        let admitted = match token {
            Ok(token) => {
                self.turns.next(address, token).await;
                self.verify(token).await
            }
            Err(error) => Err(self.refused(&error, None)),
        };
        let code = admitted.as_ref().err().map(|failure| failure.code);
        self.metrics
            .observe(transport.label(), code, began.elapsed());
        admitted
    }

    async fn verify(&self, token: &str) -> Result<Caller, Failure> {
        let verified = self.verifier.verify(token, OffsetDateTime::now_utc());
        let caller = verified
            .await
            .map_err(|error| self.refused(&error, Some(token)))?;
        self.revocations.check(&caller)?;
        Ok(caller)
    }

    fn refused(&self, error: &AuthError, token: Option<&str>) -> Failure {
        self.metrics.refused(error);
        self.refusals.refused(error, token, Instant::now())
    }
}
