//! Who and what: tenants, users, conversations, events. Checked where they enter, opaque from then on.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A number in a conversation's log: 1, 2, 3 … without gaps. 0 stands before the first event.
pub type Seq = u64;

/// A defect of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// A user id of another length, or with control characters.
    #[error("must be 1 to 128 characters without control characters")]
    User,
    /// A tenant with other characters than a subject token may carry.
    #[error("must be 1 to 64 of A-Z a-z 0-9 _ -")]
    Tenant,
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $error:expr, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                let check: fn(&str) -> bool = $check;
                if check(&text) { Ok(Self(text.into())) } else { Err($error) }
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::try_from(text.to_owned())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    };
}

text_id! {
    /// A user of a tenant: the token's `sub`, opaque.
    UserId, IdError::User, |text| {
        !text.is_empty() && text.chars().nth(128).is_none() && !text.chars().any(char::is_control)
    }
}

text_id! {
    /// One product on the installation: the token's tenant claim. It is a token of NATS subjects.
    TenantId, IdError::Tenant, |text| {
        (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    }
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, uuid::Error> {
                text.parse().map(Self)
            }
        }
    };
}

uuid_id! {
    /// A conversation (`UUIDv7`).
    ConversationId
}
uuid_id! {
    /// An event of a log (`UUIDv7`); of a `message.created` it is the message's id.
    EventId
}
uuid_id! {
    /// What makes a command idempotent: unique by conversation and actor, for good.
    ClientId
}
uuid_id! {
    /// A connection's life across resumes.
    SessionId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_ids_are_opaque_but_bounded_and_printable() {
        for good in [
            "a",
            "auth0|5f",
            "ä@ö",
            &"x".repeat(128),
            &"ü".repeat(128),
            " ",
        ] {
            assert!(good.parse::<UserId>().is_ok(), "{good}");
        }
        for bad in ["", "a\0", "a\n", &"x".repeat(129), "\u{7f}"] {
            assert_eq!(bad.parse::<UserId>(), Err(IdError::User));
        }
    }

    #[test]
    fn a_tenant_is_one_token_of_a_subject() {
        assert!("acme_Prod-1".parse::<TenantId>().is_ok());
        for bad in ["", "a.b", "*", ">", "a b", &"x".repeat(65), "é"] {
            assert_eq!(bad.parse::<TenantId>(), Err(IdError::Tenant));
        }
    }
}
