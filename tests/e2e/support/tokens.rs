//! Signs valid and forged tokens without the service's code.

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{self, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

/// Who the tokens of tests are from.
pub(crate) const TOKEN_ISSUER: &str = "confab-tests";
/// Whom they are for.
pub(crate) const TOKEN_AUDIENCE: &str = "confab";

/// A private key with its id.
pub(crate) struct Key {
    pair: KeyMaterial,
    pub(crate) id: String,
}

enum KeyMaterial {
    Es256(EcdsaKeyPair),
    Rs256(rsa::KeyPair),
    EdDsa(Ed25519KeyPair),
}

fn pem(label: &str, der: &[u8]) -> String {
    let letters: Vec<char> = STANDARD.encode(der).chars().collect();
    let lines: Vec<String> = letters.chunks(64).map(String::from_iter).collect();
    let lines = lines.join("\n");
    format!("-----BEGIN {label}-----\n{lines}\n-----END {label}-----\n")
}

impl Key {
    pub(crate) fn es256(id: &str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        Self::of(KeyMaterial::Es256(pair), id)
    }

    pub(crate) fn rs256(id: &str) -> Self {
        let pair = rsa::KeyPair::generate(KeySize::Rsa2048).unwrap();
        Self::of(KeyMaterial::Rs256(pair), id)
    }

    pub(crate) fn eddsa(id: &str) -> Self {
        Self::of(KeyMaterial::EdDsa(Ed25519KeyPair::generate().unwrap()), id)
    }

    fn of(pair: KeyMaterial, id: &str) -> Self {
        let id = id.to_owned();
        Self { pair, id }
    }

    pub(crate) const fn algorithm(&self) -> &'static str {
        match self.pair {
            KeyMaterial::Es256(_) => "ES256",
            KeyMaterial::Rs256(_) => "RS256",
            KeyMaterial::EdDsa(_) => "EdDSA",
        }
    }

    /// The public key as a PEM block (RFC 7468, `PUBLIC KEY`).
    pub(crate) fn public_pem(&self) -> String {
        let der: PublicKeyX509Der<'_> = match &self.pair {
            KeyMaterial::Es256(pair) => pair.public_key().as_der().unwrap(),
            KeyMaterial::Rs256(pair) => pair.public_key().as_der().unwrap(),
            KeyMaterial::EdDsa(pair) => pair.public_key().as_der().unwrap(),
        };
        pem("PUBLIC KEY", der.as_ref())
    }

    /// The private key as a PEM block (RFC 7468, `PRIVATE KEY`).
    pub(crate) fn private_pem(&self) -> String {
        match &self.pair {
            KeyMaterial::Es256(pair) => pem("PRIVATE KEY", pair.to_pkcs8v1().unwrap().as_ref()),
            KeyMaterial::Rs256(_) | KeyMaterial::EdDsa(_) => panic!("no test gives this key away"),
        }
    }

    /// The public key as a JWK (RFC 7517) for signatures.
    pub(crate) fn jwk(&self) -> Value {
        let mut jwk = match &self.pair {
            KeyMaterial::Es256(pair) => {
                // An uncompressed point: 4, then both coordinates.
                let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
                json!({"kty": "EC", "crv": "P-256", "x": encode(x), "y": encode(y)})
            }
            KeyMaterial::Rs256(pair) => {
                let n = pair
                    .public_key()
                    .modulus()
                    .big_endian_without_leading_zero();
                let e = pair
                    .public_key()
                    .exponent()
                    .big_endian_without_leading_zero();
                json!({"kty": "RSA", "n": encode(n), "e": encode(e)})
            }
            KeyMaterial::EdDsa(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": encode(pair.public_key().as_ref())})
            }
        };
        jwk["kid"] = self.id.clone().into();
        jwk["use"] = "sig".into();
        jwk["alg"] = self.algorithm().into();
        jwk
    }

    /// A token with these claims, as an honest provider makes it.
    pub(crate) fn token(&self, claims: &Value) -> String {
        let header = json!({"typ": "JWT", "alg": self.algorithm(), "kid": self.id});
        self.token_with(&header, claims)
    }

    /// A token whose header says what the test wants, signed with this key all the same.
    pub(crate) fn token_with(&self, header: &Value, claims: &Value) -> String {
        join(header, claims, |text| self.sign(text))
    }

    fn sign(&self, text: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.pair {
            KeyMaterial::Es256(pair) => pair.sign(&random, text).unwrap().as_ref().to_vec(),
            KeyMaterial::Rs256(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, text, &mut signature)
                    .unwrap();
                signature
            }
            KeyMaterial::EdDsa(pair) => pair.sign(text).as_ref().to_vec(),
        }
    }
}

/// A token signed with HMAC: what an attacker makes of a public key.
pub(crate) fn hs256(secret: &[u8], kid: &str, claims: &Value) -> String {
    let header = json!({"typ": "JWT", "alg": "HS256", "kid": kid});
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    join(&header, claims, |text| {
        hmac::sign(&key, text).as_ref().to_vec()
    })
}

/// A token without a signature.
pub(crate) fn unsigned(claims: &Value) -> String {
    join(&json!({"typ": "JWT", "alg": "none"}), claims, |_| {
        Vec::new()
    })
}

/// A key set (RFC 7517 section 5).
pub(crate) fn jwks<'a>(keys: impl IntoIterator<Item = &'a Key>) -> String {
    let keys: Vec<Value> = keys.into_iter().map(Key::jwk).collect();
    json!({ "keys": keys }).to_string()
}

/// The claims of a good token of `user`, an hour long, on a device and in a login of its own. Tests change what they are about.
pub(crate) fn claims(user: &str) -> Value {
    let now = time::OffsetDateTime::now_utc().unix_timestamp();
    json!({
        "iss": TOKEN_ISSUER,
        "aud": TOKEN_AUDIENCE,
        "sub": user,
        "deviceId": format!("device-of-{user}"),
        "sessionId": format!("login-of-{user}"),
        "iat": now,
        "exp": now + 3600,
    })
}

fn join(header: &Value, claims: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let header = encode(header.to_string().as_bytes());
    let text = format!("{header}.{}", encode(claims.to_string().as_bytes()));
    let signature = sign(text.as_bytes());
    format!("{text}.{}", encode(&signature))
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
