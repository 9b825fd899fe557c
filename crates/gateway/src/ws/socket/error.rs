//! Why no further message can be read, and the close code that says so to the client.

use std::io;

use confab_protocol::error::Code;

/// What ends reading.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The client broke the protocol or a bound; it is told, and what it sends further is not looked at.
    #[error("the client's frames are not acceptable")]
    Violation(#[from] Violation),
    /// The connection is lost.
    #[error("the connection is lost")]
    Io(#[from] io::Error),
    /// The client's stream has ended, or its close frame was read before.
    #[error("the connection has ended")]
    Ended,
}

impl ReadError {
    /// The close code to answer with; 1006, which is never sent, when nobody is there to hear it.
    pub(crate) const fn close_code(&self) -> u16 {
        match self {
            Self::Violation(violation) => violation.close_code(),
            Self::Io(_) | Self::Ended => 1006,
        }
    }

    /// The code that is the close frame's reason (docs/protocol/websocket.md, "Close codes").
    pub(crate) const fn code(&self) -> Code {
        match self {
            Self::Violation(Violation::TooLarge | Violation::TooManyFragments) => {
                Code::PayloadTooLarge
            }
            Self::Violation(_) => Code::Validation,
            Self::Io(_) | Self::Ended => Code::Unavailable,
        }
    }
}

/// What a client's frames may not be (RFC 6455).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Violation {
    /// A reserved bit is set, though no extension was negotiated (section 5.2).
    #[error("a reserved bit is set")]
    ReservedBits,
    /// An opcode that has no meaning (section 5.2).
    #[error("an opcode is reserved")]
    ReservedOpcode,
    /// A client must mask every frame (section 5.1).
    #[error("a frame is not masked")]
    Unmasked,
    /// A control frame without FIN (section 5.5).
    #[error("a control frame is fragmented")]
    FragmentedControl,
    /// A control frame of more than 125 bytes (section 5.5).
    #[error("a control frame is longer than 125 bytes")]
    LongControl,
    /// A length not in its shortest form, or with its highest bit set (section 5.2).
    #[error("a length is not in its shortest form")]
    LengthForm,
    /// A continuation frame where no message was begun (section 5.4).
    #[error("a continuation continues nothing")]
    StrayContinuation,
    /// A new message before the last fragment of the one before (section 5.4).
    #[error("a message begins inside another")]
    NestedMessage,
    /// A close frame whose payload is one byte, or whose code may not be sent (sections 5.5.1, 7.4).
    #[error("a close frame has no valid code")]
    CloseCode,
    /// A text message or a close frame's reason that is not UTF-8 (section 8.1).
    #[error("text is not UTF-8")]
    Utf8,
    /// A message above the limit of bytes.
    #[error("a message is too large")]
    TooLarge,
    /// A message in more fragments than the limit.
    #[error("a message has too many fragments")]
    TooManyFragments,
}

impl Violation {
    /// The close code of RFC 6455 section 7.4.1.
    pub(crate) const fn close_code(self) -> u16 {
        match self {
            Self::ReservedBits
            | Self::ReservedOpcode
            | Self::Unmasked
            | Self::FragmentedControl
            | Self::LongControl
            | Self::LengthForm
            | Self::StrayContinuation
            | Self::NestedMessage
            | Self::CloseCode => 1002,
            Self::Utf8 => 1007,
            Self::TooLarge | Self::TooManyFragments => 1009,
        }
    }
}
