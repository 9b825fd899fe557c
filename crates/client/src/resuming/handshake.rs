//! Whether to come back, and how (docs/protocol/websocket.md, "Close codes").

use std::time::Duration;

use confab_protocol::frame::{ErrorFrame, Heard, ServerFrame};

use super::connect::ConnectError;
use crate::ws::{Closed, WsError};

/// The consequence of a failed handshake or a closed connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HandshakeResult {
    /// Try again, with backoff, and not before what was named.
    Again(Option<Duration>),
    /// Try again with another token.
    Token,
    /// Nothing that this client does would mend it.
    End,
}

impl HandshakeResult {
    /// Of a connection that ended, `named` being the wait that an error before it named.
    pub(super) const fn of_closed(closed: &Closed, named: Option<Duration>) -> Self {
        match closed.code {
            Some(1000 | 1002 | 1003 | 1007 | 1009 | 4400 | 4403 | 4409) => Self::End,
            Some(4401) => Self::Token,
            Some(_) | None => Self::Again(named),
        }
    }

    /// Of a try that came to nothing.
    pub(super) fn of_failure(error: &ConnectError) -> Self {
        let error = match error {
            ConnectError::Token(_) => return Self::Again(None),
            ConnectError::NoOther => return Self::End,
            ConnectError::Ws(error) => error,
        };
        match error {
            WsError::Refused(problem) => match problem.code.close_code() {
                4401 => Self::Token,
                _ if problem.code.retryable() => Self::Again(problem.retry_after),
                _ => Self::End,
            },
            WsError::Rejected { error, closed } => {
                Self::of_closed(&as_closed(error, closed), wait_of(error))
            }
            WsError::Closed(closed) => Self::of_closed(closed, None),
            WsError::NotAWelcome(heard) => Self::Again(match heard.as_ref() {
                Heard::Frame(ServerFrame::Goaway(goaway)) => {
                    Some(Duration::from_millis(goaway.reconnect_after_ms))
                }
                Heard::Frame(_) | Heard::Event(_) => None,
            }),
            WsError::Transport(_) | WsError::Timeout(_) => Self::Again(None),
            WsError::Invalid(..) | WsError::Encode(_) => Self::End,
        }
    }
}

/// The wait that an error names.
pub(super) fn wait_of(error: &ErrorFrame) -> Option<Duration> {
    error.retry_after_ms.map(Duration::from_millis)
}

/// Returns how a try that came to nothing is told.
pub(super) fn told(error: &ConnectError) -> Closed {
    match error {
        ConnectError::Token(source) => Closed {
            code: None,
            reason: format!("no token: {source}"),
        },
        ConnectError::NoOther => Closed {
            code: Some(4401),
            reason: error.to_string(),
        },
        ConnectError::Ws(WsError::Refused(problem)) => Closed {
            code: Some(problem.code.close_code()),
            reason: problem.code.as_str().to_owned(),
        },
        ConnectError::Ws(WsError::Rejected { error, closed }) => as_closed(error, closed),
        ConnectError::Ws(WsError::Closed(closed)) => closed.clone(),
        ConnectError::Ws(WsError::Transport(source)) => Closed {
            code: None,
            reason: source.to_string(),
        },
        ConnectError::Ws(other) => Closed {
            code: None,
            reason: other.to_string(),
        },
    }
}

/// Where the connection broke before its close frame, the error tells the code.
fn as_closed(error: &ErrorFrame, closed: &Closed) -> Closed {
    Closed {
        code: Some(closed.code.unwrap_or_else(|| error.code.close_code())),
        reason: error.code.as_str().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use confab_protocol::error::{Code, Failure};

    use super::*;

    fn closed(code: impl Into<Option<u16>>) -> Closed {
        Closed {
            code: code.into(),
            reason: String::new(),
        }
    }

    #[test]
    fn every_close_code_says_whether_to_come_back() {
        let soon = Some(Duration::from_millis(5));
        for code in [1001, 1006, 1011, 1013, 4408, 4429, 4440] {
            let handshake = HandshakeResult::of_closed(&closed(code), soon);
            assert_eq!(handshake, HandshakeResult::Again(soon), "{code}");
        }
        assert_eq!(
            HandshakeResult::of_closed(&closed(None), None),
            HandshakeResult::Again(None)
        );
        assert_eq!(
            HandshakeResult::of_closed(&closed(4401), None),
            HandshakeResult::Token
        );
        for code in [1000, 1002, 1003, 1007, 1009, 4400, 4403, 4409] {
            assert_eq!(
                HandshakeResult::of_closed(&closed(code), soon),
                HandshakeResult::End,
                "{code}"
            );
        }
    }

    #[test]
    fn refused_hello_maps_code_to_result_and_delay() {
        let rejected = |code, close: Option<u16>| {
            let failure = Failure::of(code).retry_after(70);
            let error = Box::new(ErrorFrame::new(None, failure, String::new()));
            let closed = closed(close);
            HandshakeResult::of_failure(&ConnectError::Ws(WsError::Rejected { error, closed }))
        };
        let again = HandshakeResult::Again(Some(Duration::from_millis(70)));
        assert_eq!(rejected(Code::Overloaded, Some(1013)), again);
        assert_eq!(rejected(Code::Unavailable, None), again);
        assert_eq!(rejected(Code::TokenExpired, None), HandshakeResult::Token);
        assert_eq!(
            rejected(Code::TokenRevoked, Some(4403)),
            HandshakeResult::End
        );
    }
}
