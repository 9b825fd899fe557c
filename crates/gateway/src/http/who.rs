//! Who makes a request, as its token says.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::Extensions;
use axum::http::header::ACCEPT;
use axum::http::request::Parts;
use confab_protocol::command::{Caller, Command, Request};
use confab_protocol::error::{Code, Failure};
use confab_protocol::fair::Owner;

use super::problem::{Problem, accepts_json};
use super::{App, RequestId};
use crate::auth::Transport;
use crate::keys;
use crate::limits::permits::FairPermit;
use crate::limits::{ASK_ALL_PRICE, PLAIN_PRICE, RequestShare, RequestUsage};
use crate::trace::traceparent;

/// The caller of a request whose token was verified.
#[derive(Debug)]
pub(super) struct Who {
    caller: confab_auth::Caller,
    /// Where it is noted what it has paid.
    tallied: Extensions,
    /// The request's id.
    pub(super) request_id: String,
    /// The W3C trace context that came with it.
    pub(super) traceparent: Option<String>,
}

impl Who {
    /// The caller, when its scope lets it read.
    pub(super) fn reads(&self) -> Result<Caller, Problem> {
        self.allowed(self.caller.scope.can_read())
    }

    /// The caller, when its scope lets it write.
    pub(super) fn writes(&self) -> Result<Caller, Problem> {
        self.allowed(self.caller.scope.can_write())
    }

    /// The caller, when it is the product's own backend.
    pub(super) fn administers(&self) -> Result<Caller, Problem> {
        self.allowed(self.caller.scope.is_admin())
    }

    fn allowed(&self, is_allowed: bool) -> Result<Caller, Problem> {
        if !is_allowed {
            return Err(Failure::of(Code::InsufficientScope).into());
        }
        let confab_auth::Caller {
            tenant,
            user,
            scope,
            ..
        } = &self.caller;
        Ok(Caller {
            tenant: tenant.clone(),
            user: user.clone(),
            admin: scope.is_admin(),
        })
    }

    /// Pays for what every gateway is asked, and waits for its turn, which lasts until what is given is dropped.
    pub(super) async fn asks_all(&self, app: &App) -> Result<FairPermit, Problem> {
        let price = ASK_ALL_PRICE - PLAIN_PRICE;
        app.limits
            .charge_caller(&self.caller, price, &self.tallied)?;
        Ok(app.asking.turn(&self.owner()).await?)
    }

    /// Whose share a request counts in.
    pub(super) fn owner(&self) -> Owner {
        self.caller.owner()
    }

    /// A command of the caller's.
    pub(super) fn request(self, caller: Caller, command: Command) -> Request {
        Request {
            request_id: self.request_id,
            traceparent: self.traceparent,
            caller,
            event: keys::event_of(&command),
            command,
        }
    }
}

impl FromRequestParts<Arc<App>> for Who {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        if !accepts_json(parts.headers.get_all(ACCEPT)) {
            return Err(Failure::of(Code::NotAcceptable).into());
        }
        let admitting = app.authenticator.admit_header(parts, Transport::Http);
        let caller = admitting.await?;
        app.limits
            .charge_caller(&caller, PLAIN_PRICE, &parts.extensions)?;
        if let Some(share) = parts.extensions.get::<RequestShare>() {
            app.requests.begin(caller.owner(), share)?;
        }
        let request_id = parts
            .extensions
            .get::<RequestId>()
            .map(|id| id.0.clone())
            .unwrap_or_default();
        let traceparent = traceparent(&parts.headers).map(str::to_owned);
        let mut tallied = Extensions::new();
        if let Some(tally) = parts.extensions.get::<RequestUsage>() {
            tallied.insert(tally.clone());
        }
        Ok(Self {
            caller,
            tallied,
            request_id,
            traceparent,
        })
    }
}
