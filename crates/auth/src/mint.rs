//! Keys and tokens for development and tests: made here, never by a service that runs.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::error::{KeyRejected, Unspecified};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
    RsaPublicKeyComponents,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::algorithm::Algorithm;
use crate::pem;

/// A private key that tokens are signed with.
pub struct Key {
    pair: Pair,
    key_id: String,
}

enum Pair {
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// Why a key could not be made, read, written or signed with.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The text is not a `PRIVATE KEY` block.
    #[error("not the PEM of a private key")]
    NotPem,
    /// The content is no RSA, P-256 or Ed25519 key.
    #[error("neither RSA, P-256 nor Ed25519")]
    Kind(#[source] KeyRejected),
    /// The library failed.
    #[error("the cryptographic library failed")]
    Library(#[source] Unspecified),
}

impl From<Unspecified> for KeyError {
    fn from(error: Unspecified) -> Self {
        Self::Library(error)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("algorithm", &self.algorithm())
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

impl Key {
    /// A new key for ES256.
    ///
    /// # Errors
    /// When the library fails.
    pub fn generate() -> Result<Self, KeyError> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?;
        Ok(Self::of(Pair::P256(pair)))
    }

    /// A new key of 2,048 bits for RS256.
    ///
    /// # Errors
    /// When the library fails.
    pub fn generate_rsa() -> Result<Self, KeyError> {
        Ok(Self::of(Pair::Rsa(RsaKeyPair::generate(KeySize::Rsa2048)?)))
    }

    /// A new key for `EdDSA`.
    ///
    /// # Errors
    /// When the library fails.
    pub fn generate_ed25519() -> Result<Self, KeyError> {
        Ok(Self::of(Pair::Ed25519(Ed25519KeyPair::generate()?)))
    }

    /// The key in a `PRIVATE KEY` block (PKCS #8).
    ///
    /// # Errors
    /// When there is none that we can sign with.
    pub fn from_private_pem(text: &str) -> Result<Self, KeyError> {
        let Some(("PRIVATE KEY", der)) = pem::decode(text) else {
            return Err(KeyError::NotPem);
        };
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der)
            .map(Pair::P256)
            .or_else(|_| Ed25519KeyPair::from_pkcs8(&der).map(Pair::Ed25519))
            .or_else(|_| RsaKeyPair::from_pkcs8(&der).map(Pair::Rsa))
            .map(Self::of)
            .map_err(KeyError::Kind)
    }

    fn of(pair: Pair) -> Self {
        let mut members = String::new();
        // RFC 7638: the required members in the order of their names, without white space
        let public = pair.public();
        for name in ["crv", "e", "kty", "n", "x", "y"] {
            if let Some(value) = public.get(name) {
                let comma = if members.is_empty() { "" } else { "," };
                members.push_str(&format!("{comma}\"{name}\":{value}"));
            }
        }
        let thumbprint = digest(&SHA256, format!("{{{members}}}").as_bytes());
        Self {
            pair,
            key_id: URL_SAFE_NO_PAD.encode(thumbprint),
        }
    }

    /// The algorithm that the key signs with.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        match self.pair {
            Pair::Rsa(_) => Algorithm::Rs256,
            Pair::P256(_) => Algorithm::Es256,
            Pair::Ed25519(_) => Algorithm::EdDsa,
        }
    }

    /// The key's id: its thumbprint (RFC 7638), so that the same key always has the same.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.key_id
    }

    /// The private key as a `PRIVATE KEY` block (PKCS #8).
    ///
    /// # Errors
    /// When the library fails.
    pub fn private_pem(&self) -> Result<String, KeyError> {
        let der: Pkcs8V1Der<'_> = match &self.pair {
            Pair::Rsa(pair) => pair.as_der()?,
            Pair::P256(pair) => return Ok(pem::encode("PRIVATE KEY", pair.to_pkcs8v1()?.as_ref())),
            Pair::Ed25519(pair) => pair.as_der()?,
        };
        Ok(pem::encode("PRIVATE KEY", der.as_ref()))
    }

    /// The public key as a `PUBLIC KEY` block (`SubjectPublicKeyInfo`).
    ///
    /// # Errors
    /// When the library fails.
    pub fn public_pem(&self) -> Result<String, KeyError> {
        let der: PublicKeyX509Der<'_> = match &self.pair {
            Pair::Rsa(pair) => pair.public_key().as_der()?,
            Pair::P256(pair) => pair.public_key().as_der()?,
            Pair::Ed25519(pair) => pair.public_key().as_der()?,
        };
        Ok(pem::encode("PUBLIC KEY", der.as_ref()))
    }

    /// The public key as a member of a key set (RFC 7517).
    #[must_use]
    pub fn jwk(&self) -> Value {
        let mut jwk = self.pair.public();
        jwk.insert("kid".into(), self.key_id.clone().into());
        jwk.insert("use".into(), "sig".into());
        jwk.insert("alg".into(), self.algorithm().name().into());
        Value::Object(jwk)
    }

    /// A token of these claims.
    ///
    /// # Errors
    /// When the library fails.
    pub fn mint(&self, claims: &Claims) -> Result<String, KeyError> {
        let header = json!({"alg": self.algorithm().name(), "typ": "JWT", "kid": self.key_id});
        self.sign(&header, &claims.to_json())
    }

    /// A token of this header and these claims, whatever they are.
    ///
    /// # Errors
    /// When the library fails.
    pub fn sign(&self, header: &Value, claims: &Value) -> Result<String, KeyError> {
        let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
        self.sign_text(&format!("{}.{}", part(header), part(claims)))
    }

    /// `message`, which is to be the first two parts of a token, with the signature as the third.
    pub(crate) fn sign_text(&self, message: &str) -> Result<String, KeyError> {
        let signature = self.pair.sign(message.as_bytes())?;
        Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// The key set of `keys`, as a URL would serve it.
#[must_use]
pub fn jwks<'a>(keys: impl IntoIterator<Item = &'a Key>) -> String {
    let keys: Vec<Value> = keys.into_iter().map(Key::jwk).collect();
    json!({ "keys": keys }).to_string()
}

impl Pair {
    /// The members of a JWK that make the key (RFC 7518 section 6, RFC 8037).
    fn public(&self) -> Map<String, Value> {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let jwk = match self {
            Self::Rsa(pair) => {
                let public = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public_key());
                json!({"kty": "RSA", "n": text(&public.n), "e": text(&public.e)})
            }
            Self::P256(pair) => {
                // uncompressed: one byte 4, then the two coordinates
                let point = pair.public_key().as_ref().get(1..).unwrap_or_default();
                let (x, y) = point.split_at(point.len() / 2);
                json!({"kty": "EC", "crv": "P-256", "x": text(x), "y": text(y)})
            }
            Self::Ed25519(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": text(pair.public_key().as_ref())})
            }
        };
        match jwk {
            Value::Object(members) => members,
            _ => Map::new(),
        }
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Unspecified> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)?;
                Ok(signature)
            }
            Self::P256(pair) => Ok(pair.sign(&random, message)?.as_ref().to_vec()),
            Self::Ed25519(pair) => Ok(pair.try_sign(message)?.as_ref().to_vec()),
        }
    }
}

/// The claims of a token to mint.
#[derive(Debug, Clone)]
pub struct Claims {
    /// `sub`, the user.
    pub subject: String,
    /// `deviceId`.
    pub device_id: String,
    /// `sessionId`, the login.
    pub session_id: String,
    /// `iss`.
    pub issuer: Option<String>,
    /// `aud`.
    pub audience: Option<String>,
    /// `tenant`.
    pub tenant: Option<String>,
    /// `scope`.
    pub scope: Option<String>,
    /// `iat`.
    pub issued_at: OffsetDateTime,
    /// `exp`.
    pub expires_at: OffsetDateTime,
    /// `nbf`.
    pub not_before: Option<OffsetDateTime>,
    /// Further claims, laid over the others; null takes the claim of that name away.
    pub extra: Map<String, Value>,
}

impl Claims {
    /// The least that a token says, of a new login on one device: good from `issued_at` for `lifetime`.
    #[must_use]
    pub fn new(subject: impl Into<String>, issued_at: OffsetDateTime, lifetime: Duration) -> Self {
        Self {
            subject: subject.into(),
            device_id: "device".into(),
            session_id: Uuid::new_v4().to_string(),
            issuer: None,
            audience: None,
            tenant: None,
            scope: None,
            issued_at,
            expires_at: issued_at.saturating_add(lifetime),
            not_before: None,
            extra: Map::new(),
        }
    }

    /// The payload of the token.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut claims = json!({
            "sub": self.subject,
            "deviceId": self.device_id,
            "sessionId": self.session_id,
            "iss": self.issuer,
            "aud": self.audience,
            "tenant": self.tenant,
            "scope": self.scope,
            "iat": self.issued_at.unix_timestamp(),
            "exp": self.expires_at.unix_timestamp(),
            "nbf": self.not_before.map(OffsetDateTime::unix_timestamp),
        });
        if let Some(members) = claims.as_object_mut() {
            members.extend(self.extra.clone());
            members.retain(|_, value| !value.is_null());
        }
        claims
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_survives_pem_round_trip() {
        for key in [
            Key::generate(),
            Key::generate_rsa(),
            Key::generate_ed25519(),
        ] {
            let key = key.unwrap();
            let read = Key::from_private_pem(&key.private_pem().unwrap()).unwrap();
            assert_eq!(read.kid(), key.kid());
            assert_eq!(read.public_pem().unwrap(), key.public_pem().unwrap());
            assert!(matches!(
                Key::from_private_pem(&key.public_pem().unwrap()),
                Err(KeyError::NotPem)
            ));
        }
    }

    #[test]
    fn nothing_secret_is_shown_by_debug() {
        let key = Key::generate().unwrap();
        let shown = format!("Key {{ algorithm: Es256, key_id: {:?}, .. }}", key.kid());
        assert_eq!(format!("{key:?}"), shown);
    }
}
