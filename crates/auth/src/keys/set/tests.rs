use serde_json::json;

use super::*;
use crate::mint::{Key, jwks};

/// The modulus of an RSA key of 1,024 bits.
const SMALL_MODULUS: &str = "yJSrxxosCi1taMOQeE8ngLdz4X4rTKGDt_5WnNaL3_Q3OQAXHbFORaRV28-IxUhFVvSfkKrP16VeaWbDqV3wLWgfvpytTYOm73prov--wBlUj4wGw6Dmy7UhhKNy3zcc2TRK-fiPuWsZNLBxkqiocFuh8baA6TaaLtFzS6qn8UM";

fn key() -> Key {
    Key::generate().unwrap()
}

/// The public key of `key` with `changes` laid over its members; null takes one away.
fn jwk(key: &Key, changes: Value) -> Value {
    let mut jwk = key.jwk();
    let members = jwk.as_object_mut().unwrap();
    members.extend(changes.as_object().unwrap().clone());
    members.retain(|_, value| !value.is_null());
    jwk
}

fn parse(keys: &[Value]) -> Result<KeySet, SetRefused> {
    KeySet::parse(json!({ "keys": keys }).to_string().as_bytes())
}

fn why(jwk: Value) -> KeyRefused {
    VerificationKey::from_jwk(serde_json::from_value(jwk).unwrap()).unwrap_err()
}

#[test]
fn key_is_found_by_id_and_algorithm() {
    let keys = [
        key(),
        Key::generate_rsa().unwrap(),
        Key::generate_ed25519().unwrap(),
    ];
    let set = KeySet::parse(jwks(&keys).as_bytes()).unwrap();
    assert_eq!(set.len(), 3);
    for key in &keys {
        assert_eq!(
            set.find(Some(key.kid()), key.algorithm()).unwrap().key_id(),
            Some(key.kid())
        );
    }
    let other = set.find(Some(keys[0].kid()), Algorithm::Rs256);
    assert_eq!(other.unwrap_err(), Defect::NotTheKeysAlgorithm);
    assert_eq!(
        set.find(Some("x"), Algorithm::Es256).unwrap_err(),
        Defect::UnknownKey
    );
}

#[test]
fn missing_key_id_selects_only_key_of_algorithm() {
    let (one, two, rsa) = (key(), key(), Key::generate_rsa().unwrap());
    let set = KeySet::parse(jwks([&one, &two, &rsa]).as_bytes()).unwrap();
    assert_eq!(
        set.find(None, Algorithm::Rs256).unwrap().key_id(),
        Some(rsa.kid())
    );
    assert_eq!(
        set.find(None, Algorithm::Es256).unwrap_err(),
        Defect::AmbiguousKey
    );
    assert_eq!(
        set.find(None, Algorithm::EdDsa).unwrap_err(),
        Defect::NotTheKeysAlgorithm
    );
}

#[test]
fn an_ambiguous_set_is_refused() {
    let (one, two, rsa) = (key(), key(), Key::generate_rsa().unwrap());
    let same = json!({"kid": "k"});
    let alike = [jwk(&one, same.clone()), jwk(&two, same)];
    assert!(matches!(parse(&alike), Err(SetRefused::Ambiguous(_))));
    let nameless = |key| jwk(key, json!({"kid": null}));
    assert!(matches!(
        parse(&[nameless(&one), nameless(&two)]),
        Err(SetRefused::Ambiguous(_))
    ));
    assert!(parse(&[nameless(&one), nameless(&rsa)]).is_ok());
}

#[test]
fn keys_sharing_id_are_distinguished_by_algorithm() {
    let (ec, rsa) = (key(), Key::generate_rsa().unwrap());
    let same = json!({"kid": "k"});
    let no_alg = json!({"kid": "k", "alg": null});
    for (one, two) in [(&same, &same), (&no_alg, &no_alg), (&same, &no_alg)] {
        let set = parse(&[jwk(&ec, one.clone()), jwk(&rsa, two.clone())]).unwrap();
        for algorithm in [Algorithm::Es256, Algorithm::Rs256] {
            assert_eq!(
                set.find(Some("k"), algorithm).unwrap().algorithm(),
                algorithm
            );
        }
        let other = set.find(Some("k"), Algorithm::EdDsa);
        assert_eq!(other.unwrap_err(), Defect::NotTheKeysAlgorithm);
        let unknown = set.find(Some("x"), Algorithm::Es256);
        assert_eq!(unknown.unwrap_err(), Defect::UnknownKey);
    }
}

#[test]
fn encryption_key_may_share_id_with_signature_key() {
    let (one, two) = (key(), key());
    let set = parse(&[
        jwk(&one, json!({"kid": "k", "use": "enc"})),
        jwk(&two, json!({"kid": "k"})),
    ]);
    assert_eq!(set.unwrap().len(), 1);
}

#[test]
fn an_empty_or_broken_set_is_refused() {
    assert!(matches!(parse(&[]), Err(SetRefused::Empty(0))));
    for text in [
        "",
        "{}",
        "[]",
        r#"{"keys":{}}"#,
        r#"{"keys":[]"#,
        r#"{"keys":[],"keys":[]}"#,
        "<html>",
    ] {
        assert!(
            matches!(KeySet::parse(text.as_bytes()), Err(SetRefused::Broken(_))),
            "{text}"
        );
    }
}

#[test]
fn unusable_keys_are_skipped_and_others_used() {
    let bad = [
        json!({"kty": "oct", "k": "c2VjcmV0", "kid": "s"}),
        json!({}),
        json!(1),
    ];
    assert!(matches!(parse(&bad), Err(SetRefused::Empty(3))));
    let set = parse(&[&bad[..], &[key().jwk()]].concat()).unwrap();
    assert_eq!(set.len(), 1);
    assert_eq!(
        set.find(Some("s"), Algorithm::Es256).unwrap_err(),
        Defect::UnknownKey
    );
}

#[test]
fn symmetric_and_published_private_keys_are_refused() {
    assert_eq!(
        why(json!({"kty": "oct", "k": "c2VjcmV0"})),
        KeyRefused::Symmetric
    );
    assert_eq!(
        why(json!({"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"})),
        KeyRefused::Symmetric
    );
    assert_eq!(
        why(jwk(&key(), json!({"d": "AAAA"}))),
        KeyRefused::PrivatePart
    );
}

#[test]
fn small_and_huge_rsa_keys_are_refused() {
    let rsa = |n: &str| json!({"kty": "RSA", "n": n, "e": "AQAB"});
    assert_eq!(why(rsa(SMALL_MODULUS)), KeyRefused::Size(1024));
    let padded = format!("{}{SMALL_MODULUS}", "A".repeat(172));
    assert_eq!(
        why(rsa(&padded)),
        KeyRefused::Size(1024),
        "zeros make no key larger"
    );
    assert_eq!(why(rsa(&"_".repeat(2000))), KeyRefused::Size(12_000));
    assert_eq!(why(rsa("")), KeyRefused::Size(0));
}

#[test]
fn keys_for_other_uses_or_algorithms_are_refused() {
    let of = |changes| why(jwk(&key(), changes));
    assert_eq!(of(json!({"use": "enc"})), KeyRefused::Use);
    assert_eq!(of(json!({"key_ops": ["sign"]})), KeyRefused::Use);
    assert_eq!(of(json!({"alg": "ES384"})), KeyRefused::Algorithm);
    assert_eq!(of(json!({"alg": "es256"})), KeyRefused::Algorithm);
    assert_eq!(of(json!({"crv": "P-384"})), KeyRefused::Kind);
    assert_eq!(of(json!({"kty": "EC2"})), KeyRefused::Kind);
    let verify = jwk(
        &key(),
        json!({"key_ops": ["verify"], "use": null, "alg": null}),
    );
    assert!(parse(&[verify]).is_ok());
}

#[test]
fn keys_with_missing_or_wrong_members_are_refused() {
    let of = |changes| why(jwk(&key(), changes));
    assert_eq!(of(json!({"x": null})), KeyRefused::Broken);
    assert_eq!(of(json!({"x": "AAAA"})), KeyRefused::Broken);
    assert_eq!(of(json!({"x": "+/+/"})), KeyRefused::Broken);
    assert_eq!(
        of(json!({"y": "A".repeat(43)})),
        KeyRefused::Broken,
        "not on the curve"
    );
    let rsa = Key::generate_rsa().unwrap();
    for e in ["AQ", "AAAB", "AAAA", "BA", "AQAAAAE", ""] {
        assert_eq!(why(jwk(&rsa, json!({ "e": e }))), KeyRefused::Broken, "{e}");
    }
    let short = jwk(&Key::generate_ed25519().unwrap(), json!({"x": "AAAA"}));
    assert_eq!(why(short), KeyRefused::Broken);
}

#[test]
fn pem_must_hold_one_supported_public_key() {
    let why = |pem: &str| VerificationKey::from_pem(pem).unwrap_err();
    let (small, koblitz) = (include_str!("rsa_1024.pem"), include_str!("secp256k1.pem"));
    assert_eq!(why(small), KeyRefused::Size(1024));
    assert_eq!(why(koblitz), KeyRefused::Kind);
    assert_eq!(
        why(&crate::pem::encode("CERTIFICATE", b"")),
        KeyRefused::NotPublic("CERTIFICATE".into())
    );
    for key in [
        key(),
        Key::generate_rsa().unwrap(),
        Key::generate_ed25519().unwrap(),
    ] {
        let read = VerificationKey::from_pem(&key.public_pem().unwrap()).unwrap();
        assert_eq!(read.algorithm(), key.algorithm());
    }
}
