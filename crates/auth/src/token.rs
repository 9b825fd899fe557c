//! The outer form of a token: JWS compact serialization (RFC 7515 section 7.1), parsed by ourselves, strictly.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use crate::algorithm::Algorithm;
use crate::error::Defect;
use crate::json::Object;

/// The longest token that is looked at, in bytes.
pub(crate) const MAX_BYTES: usize = 16 * 1024;

/// The longest `kid`, in bytes.
const MAX_KEY_ID: usize = 256;

/// A token in its parts. Nothing of it is believed yet: the signature was not checked.
#[derive(Debug)]
pub(crate) struct ParsedToken<'a> {
    /// `alg`.
    pub(crate) algorithm: Algorithm,
    /// `kid`.
    pub(crate) key_id: Option<String>,
    /// What the signature is over: the first two parts and the dot.
    pub(crate) signed: &'a str,
    /// The signature, still in base64url.
    pub(crate) signature: &'a str,
    payload: &'a str,
}

impl<'a> ParsedToken<'a> {
    /// Takes a token apart. `jku`, `x5u`, `jwk` and `x5c` are not looked at: keys come from the settings alone.
    ///
    /// # Errors
    /// Where the form or the header is not one that we accept.
    pub(crate) fn parse(text: &'a str) -> Result<Self, Defect> {
        if text.len() > MAX_BYTES {
            return Err(Defect::TooLong);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(Defect::NotCompact)?;
        let (header, payload) = signed.split_once('.').ok_or(Defect::NotCompact)?;
        if payload.contains('.') {
            return Err(Defect::NotCompact);
        }
        URL_SAFE_NO_PAD
            .decode(signature)
            .map_err(|_bytes| Defect::Encoding("signature"))?;
        let header = object(header, "header")?;
        check_header(&header)?;
        let algorithm = algorithm(&header)?;
        Ok(Self {
            algorithm,
            key_id: key_id(&header)?,
            signed,
            signature,
            payload,
        })
    }

    /// The claims, to be read once the signature was found good.
    pub(crate) fn claims(&self) -> Result<Map<String, Value>, Defect> {
        object(self.payload, "payload")
    }
}

fn object(part: &str, name: &'static str) -> Result<Map<String, Value>, Defect> {
    let bytes = URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_bytes| Defect::Encoding(name))?;
    serde_json::from_slice::<Object>(&bytes)
        .map(|object| object.0)
        .map_err(|_text| Defect::Json(name))
}

fn check_header(header: &Map<String, Value>) -> Result<(), Defect> {
    if header.contains_key("crit") {
        return Err(Defect::Critical);
    }
    match header.get("typ") {
        None => Ok(()),
        Some(Value::String(typ)) if is_access_token(typ) => Ok(()),
        Some(_) => Err(Defect::Type),
    }
}

/// Returns true if `typ` is that of a plain or an access token (RFC 7519 section 5.1, RFC 9068): media types, so without regard
/// to case and with or without `application/`. Other types are kept apart (RFC 8725 section 3.11): a logout token or a
/// proof of possession of the same issuer is none.
fn is_access_token(typ: &str) -> bool {
    let typ = typ.to_ascii_lowercase();
    matches!(
        typ.strip_prefix("application/").unwrap_or(&typ),
        "jwt" | "at+jwt"
    )
}

fn algorithm(header: &Map<String, Value>) -> Result<Algorithm, Defect> {
    let name = header.get("alg").and_then(Value::as_str);
    name.and_then(|name| name.parse().ok())
        .ok_or(Defect::Algorithm)
}

fn key_id(header: &Map<String, Value>) -> Result<Option<String>, Defect> {
    match header.get("kid") {
        None => Ok(None),
        Some(Value::String(key_id)) if key_id.len() <= MAX_KEY_ID => Ok(Some(key_id.clone())),
        Some(_) => Err(Defect::KeyId),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(header: &str) -> Result<Algorithm, Defect> {
        let text = format!("{}.e30.AAAA", URL_SAFE_NO_PAD.encode(header));
        ParsedToken::parse(&text).map(|token| token.algorithm)
    }

    #[test]
    fn algorithms_are_case_sensitive_without_none_and_hmac() {
        assert_eq!(parsed(r#"{"alg":"ES256"}"#), Ok(Algorithm::Es256));
        for alg in [
            "es256", "Es256", "ES256 ", "none", "None", "HS256", "RS512", "PS256", "ES384", "",
        ] {
            assert_eq!(
                parsed(&format!(r#"{{"alg":"{alg}"}}"#)),
                Err(Defect::Algorithm),
                "{alg}"
            );
        }
        for header in ["{}", r#"{"alg":null}"#, r#"{"alg":["ES256"]}"#] {
            assert_eq!(parsed(header), Err(Defect::Algorithm), "{header}");
        }
    }

    #[test]
    fn critical_extensions_are_refused_even_empty_ones() {
        for crit in [r#"["b64"]"#, "[]", "null"] {
            let header = format!(r#"{{"alg":"ES256","crit":{crit}}}"#);
            assert_eq!(parsed(&header), Err(Defect::Critical));
        }
    }

    #[test]
    fn only_the_types_of_access_tokens_are_taken() {
        for typ in ["JWT", "jwt", "at+jwt", "application/at+JWT"] {
            assert!(
                parsed(&format!(r#"{{"alg":"ES256","typ":"{typ}"}}"#)).is_ok(),
                "{typ}"
            );
        }
        for typ in [r#""logout+jwt""#, r#""dpop+jwt""#, r#""""#, "null", "1"] {
            assert_eq!(
                parsed(&format!(r#"{{"alg":"ES256","typ":{typ}}}"#)),
                Err(Defect::Type),
                "{typ}"
            );
        }
    }

    #[test]
    fn a_header_member_may_not_come_twice() {
        assert_eq!(
            parsed(r#"{"alg":"ES256","alg":"ES256"}"#),
            Err(Defect::Json("header"))
        );
    }

    #[test]
    fn a_key_id_is_a_short_text() {
        assert!(parsed(r#"{"alg":"ES256","kid":"k"}"#).is_ok());
        for kid in ["1", "null", &format!("{:?}", "k".repeat(257))] {
            assert_eq!(
                parsed(&format!(r#"{{"alg":"ES256","kid":{kid}}}"#)),
                Err(Defect::KeyId)
            );
        }
    }

    #[test]
    fn only_strict_base64url_compact_form_is_read() {
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256"}"#);
        let of = |text: String| ParsedToken::parse(&text).map(|_| ()).unwrap_err();
        for text in ["", ".", "a", "a.b", r#"{"payload":""}"#] {
            assert_eq!(of(text.into()), Defect::NotCompact, "{text}");
        }
        assert_eq!(of(format!("{header}.a.b.c")), Defect::NotCompact);
        assert_eq!(of(format!("{header}.a.b.c.d")), Defect::NotCompact);
        assert_eq!(
            of(format!("{header}=.e30.AAAA")),
            Defect::Encoding("header")
        );
        assert_eq!(
            of(format!("{header}.e30.AA==")),
            Defect::Encoding("signature")
        );
        assert_eq!(
            of(format!("{header}.e30.AB")),
            Defect::Encoding("signature")
        );
        assert_eq!(
            of(format!("{header}.e30.A+/A")),
            Defect::Encoding("signature")
        );
        assert_eq!(of("a".repeat(MAX_BYTES + 1)), Defect::TooLong);
    }
}
