//! One public key: from a PEM or a JWK, checked when it is read, used with one algorithm only (RFC 8725 section 3.1).

use std::fmt;

use aws_lc_rs::rsa::PublicKey as RsaPublicKey;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    RsaPublicKeyComponents, VerificationAlgorithm,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::algorithm::Algorithm;
use crate::pem;
use crate::token::ParsedToken;

/// What stands before the point of a P-256 key in its `SubjectPublicKeyInfo` (RFC 5480): named curve, uncompressed.
const P256_INFO: &[u8] = b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00";

/// The same for Ed25519 (RFC 8410).
const ED25519_INFO: &[u8] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";

/// The sizes of RSA keys that are used, in bits (RFC 7518 section 3.3 for the lower end; the upper bounds the work).
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// Why a key is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyRefused {
    /// Not one PEM block that can be read.
    #[error("not a PEM block")]
    NotPem,
    /// A private key, a certificate, or something else than a public key.
    #[error("not a public key but a {0:?}")]
    NotPublic(String),
    /// A key of a kind that we do not verify with.
    #[error("neither RSA, P-256 nor Ed25519")]
    Kind,
    /// A key that is meant for something else than verifying signatures.
    #[error("not for verifying signatures")]
    Use,
    /// A key whose declared algorithm is not the one that we use it with.
    #[error("declared for another algorithm")]
    Algorithm,
    /// A symmetric key: whoever can read it can sign with it.
    #[error("a symmetric key")]
    Symmetric,
    /// The set holds the private part as well, so that anybody can sign.
    #[error("the private part is published")]
    PrivatePart,
    /// A member that is missing, or not what it should be.
    #[error("broken")]
    Broken,
    /// Too small to be safe, or too large to be cheap.
    #[error("an RSA key of {0} bits")]
    Size(usize),
}

/// A key that signatures are verified with.
pub(crate) struct VerificationKey {
    key_id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

impl fmt::Debug for VerificationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            key_id,
            algorithm,
            key: _,
        } = self;
        f.debug_struct("VerificationKey")
            .field("key_id", key_id)
            .field("algorithm", algorithm)
            .finish_non_exhaustive()
    }
}

/// The members of a JWK (RFC 7517) that matter here. A known member that comes twice is an error.
#[derive(Deserialize)]
pub(crate) struct Jwk {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    d: Option<IgnoredAny>,
}

impl VerificationKey {
    /// A key from a PEM: `PUBLIC KEY` (`SubjectPublicKeyInfo`) or `RSA PUBLIC KEY`. It has no id, and is tried for any.
    pub(crate) fn from_pem(text: &str) -> Result<Self, KeyRefused> {
        let (label, der) = pem::decode(text).ok_or(KeyRefused::NotPem)?;
        if !matches!(label, "PUBLIC KEY" | "RSA PUBLIC KEY") {
            return Err(KeyRefused::NotPublic(label.to_owned()));
        }
        if let Some(point) = der.strip_prefix(P256_INFO) {
            return Self::p256(point);
        }
        if let Some(point) = der.strip_prefix(ED25519_INFO) {
            return Self::ed25519(point);
        }
        let key = RsaPublicKey::from_der(&der).map_err(|_rejected| KeyRefused::Kind)?;
        let RsaPublicKeyComponents { n, e } = RsaPublicKeyComponents::<Vec<u8>>::from(&key);
        Self::rsa(&n, &e)
    }

    /// A key from a member of a set.
    pub(crate) fn from_jwk(jwk: Jwk) -> Result<Self, KeyRefused> {
        if jwk.kty == "oct" {
            return Err(KeyRefused::Symmetric);
        }
        if jwk.d.is_some() {
            return Err(KeyRefused::PrivatePart);
        }
        jwk.check_use()?;
        let key = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("RSA", _) => Self::rsa(&bytes(jwk.n.as_deref())?, &bytes(jwk.e.as_deref())?),
            ("EC", Some("P-256")) => Self::p256(&jwk.point()?),
            ("OKP", Some("Ed25519")) => Self::ed25519(&bytes(jwk.x.as_deref())?),
            _ => Err(KeyRefused::Kind),
        }?;
        if jwk.alg.is_some_and(|alg| alg != key.algorithm.name()) {
            return Err(KeyRefused::Algorithm);
        }
        Ok(Self {
            key_id: jwk.kid,
            ..key
        })
    }

    fn rsa(n: &[u8], e: &[u8]) -> Result<Self, KeyRefused> {
        let (n, e) = (significant(n), significant(e));
        let bits = n
            .first()
            .map_or(0, |first| n.len() * 8 - first.leading_zeros() as usize);
        if !RSA_BITS.contains(&bits) {
            return Err(KeyRefused::Size(bits));
        }
        check_exponent(e)?;
        RsaPublicKeyComponents { n, e }
            .to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256)
            .map_err(|_rejected| KeyRefused::Broken)?;
        let key = DecodingKey::from_rsa_raw_components(n, e);
        Ok(Self {
            key_id: None,
            algorithm: Algorithm::Rs256,
            key,
        })
    }

    fn p256(point: &[u8]) -> Result<Self, KeyRefused> {
        check_point(&ECDSA_P256_SHA256_FIXED, point, 65)?;
        let key = DecodingKey::from_ec_der(point);
        Ok(Self {
            key_id: None,
            algorithm: Algorithm::Es256,
            key,
        })
    }

    fn ed25519(point: &[u8]) -> Result<Self, KeyRefused> {
        check_point(&ED25519, point, 32)?;
        let key = DecodingKey::from_ed_der(point);
        Ok(Self {
            key_id: None,
            algorithm: Algorithm::EdDsa,
            key,
        })
    }

    /// The key's id in its set.
    pub(crate) fn key_id(&self) -> Option<&str> {
        self.key_id.as_deref()
    }

    /// The one algorithm that the key is used with.
    pub(crate) const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Returns true if the token was signed with the other half of this key.
    pub(crate) fn verifies(&self, token: &ParsedToken<'_>) -> bool {
        let algorithm = self.algorithm.of_library();
        let signed = token.signed.as_bytes();
        token.algorithm == self.algorithm
            && jsonwebtoken::crypto::verify(token.signature, signed, &self.key, algorithm)
                .unwrap_or(false)
    }
}

impl Jwk {
    fn check_use(&self) -> Result<(), KeyRefused> {
        let usage = self.usage.as_deref().is_none_or(|usage| usage == "sig");
        let operations = self.key_ops.as_ref();
        let verifies = operations.is_none_or(|all| all.iter().any(|one| one == "verify"));
        if usage && verifies {
            Ok(())
        } else {
            Err(KeyRefused::Use)
        }
    }

    /// The point in its uncompressed form (SEC 1, section 2.3.3).
    fn point(&self) -> Result<Vec<u8>, KeyRefused> {
        let (x, y) = (bytes(self.x.as_deref())?, bytes(self.y.as_deref())?);
        if x.len() != 32 || y.len() != 32 {
            return Err(KeyRefused::Broken);
        }
        Ok([&[4], x.as_slice(), y.as_slice()].concat())
    }
}

fn bytes(member: Option<&str>) -> Result<Vec<u8>, KeyRefused> {
    let text = member.ok_or(KeyRefused::Broken)?;
    URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_bytes| KeyRefused::Broken)
}

/// A number without the zeros that some issuers put before it: they make no key larger.
fn significant(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

/// Checks that the exponent is odd, of at most 32 bits, and not 1, with which a signature is anybody's to make.
fn check_exponent(e: &[u8]) -> Result<(), KeyRefused> {
    let odd = e.last().is_some_and(|last| last % 2 == 1);
    if odd && e != [1] && e.len() <= 4 {
        return Ok(());
    }
    Err(KeyRefused::Broken)
}

/// Checks that `point` lies on the curve and has the length of its plain form.
fn check_point(
    curve: &'static dyn VerificationAlgorithm,
    point: &[u8],
    length: usize,
) -> Result<(), KeyRefused> {
    if point.len() != length || ParsedPublicKey::new(curve, point).is_err() {
        return Err(KeyRefused::Broken);
    }
    Ok(())
}
