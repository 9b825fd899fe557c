//! A resume token: the session's id and a secret. It is told to the client and never kept, printed or logged.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use confab_bus::records::TokenHash;
use confab_protocol::ids::SessionId;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use uuid::Uuid;

/// Bytes of a token: 16 of the session's id, 32 of the secret.
const TOKEN_BYTES: usize = 48;
/// Characters of a token.
const TOKEN_CHARACTERS: usize = 64;

/// What resumes a session, once. Nothing prints it.
pub(crate) struct Token {
    session: SessionId,
    secret: [u8; 32],
}

impl Token {
    /// A fresh one.
    pub(crate) fn new(session: SessionId) -> Self {
        let secret = rand::random();
        Self { session, secret }
    }

    /// None when the text is no token.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.len() != TOKEN_CHARACTERS {
            return None;
        }
        let bytes: [u8; TOKEN_BYTES] = URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
        let (id, secret) = bytes.split_first_chunk::<16>()?;
        Some(Self {
            session: SessionId(Uuid::from_bytes(*id)),
            secret: secret.try_into().ok()?,
        })
    }

    /// What the client is told.
    pub(crate) fn text(&self) -> String {
        let mut bytes = self.session.0.as_bytes().to_vec();
        bytes.extend_from_slice(&self.secret);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Whose it is, as it says.
    pub(crate) const fn session(&self) -> SessionId {
        self.session
    }

    /// What is kept of it.
    pub(crate) fn hash(&self) -> TokenHash {
        TokenHash(Sha256::digest(self.secret).into())
    }
}

/// Whether two hashes are of one token, in a time that does not tell where they differ.
pub(crate) fn is_same(one: &TokenHash, other: &TokenHash) -> bool {
    one.0.ct_eq(&other.0).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_round_trips_and_secret_is_hashed() {
        let session = SessionId(Uuid::now_v7());
        let token = Token::new(session);
        let text = token.text();
        assert_eq!(text.len(), TOKEN_CHARACTERS);
        let read = Token::parse(&text).unwrap();
        assert_eq!(read.session(), session);
        assert!(is_same(&read.hash(), &token.hash()));
        assert!(!is_same(&Token::new(session).hash(), &token.hash()));
        assert_ne!(token.hash().0, token.secret);
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let good = Token::new(SessionId(Uuid::now_v7())).text();
        let mut short = good.clone();
        let _last = short.pop();
        let long = format!("{good}A");
        let padded = format!("{short}=");
        let other = format!("{short}+");
        for junk in ["", "x", &short, &long, &padded, &other, &"ü".repeat(32)] {
            assert!(Token::parse(junk).is_none(), "{junk}");
        }
    }
}
