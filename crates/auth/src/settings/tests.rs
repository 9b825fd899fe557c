use super::*;
use crate::Verifier;
use crate::mint::Key;
use crate::testing::settings;

const KNOWN: &[&str] = &["--jwt-issuer", "i", "--jwt-audience", "a"];

fn refused(arguments: &[&str]) -> SettingsError {
    Verifier::new(&settings(arguments).unwrap()).unwrap_err()
}

fn with(arguments: &[&str]) -> SettingsError {
    refused(&[KNOWN, arguments].concat())
}

#[test]
fn exactly_one_source_of_keys_must_be_set() {
    assert!(matches!(with(&[]), SettingsError::KeySource));
    let both = [
        "--jwt-jwks-url",
        "https://id/keys",
        "--jwt-public-key",
        "key.pem",
    ];
    assert!(matches!(with(&both), SettingsError::KeySource));
}

#[test]
fn issuer_and_audience_must_be_set_or_waived_each_by_its_own_flag() {
    let url = ["--jwt-jwks-url", "http://127.0.0.1/keys"];
    let of = |more: &[&str]| Verifier::new(&settings(&[&url, more].concat()).unwrap());
    assert!(matches!(
        of(&["--jwt-audience", "a"]),
        Err(SettingsError::Waiver("issuer"))
    ));
    assert!(matches!(
        of(&["--jwt-issuer", "i"]),
        Err(SettingsError::Waiver("audience"))
    ));
    let contradiction = [
        "--jwt-issuer",
        "i",
        "--jwt-any-issuer",
        "--jwt-audience",
        "a",
    ];
    assert!(matches!(
        of(&contradiction),
        Err(SettingsError::Waiver("issuer"))
    ));
    let empty = ["--jwt-issuer", "i,", "--jwt-audience", "a"];
    assert!(matches!(of(&empty), Err(SettingsError::Empty("issuer"))));
    assert!(of(&["--jwt-any-issuer", "--jwt-audience", "a"]).is_ok());
    assert!(of(&["--jwt-any-issuer", "--jwt-any-audience"]).is_ok());
}

#[test]
fn keys_are_fetched_by_https_or_from_this_host() {
    for url in [
        "http://id/keys",
        "http://10.0.0.1/keys",
        "ftp://id/keys",
        "https://u:p@id/keys",
    ] {
        assert!(
            matches!(with(&["--jwt-jwks-url", url]), SettingsError::Url),
            "{url}"
        );
    }
    let known = |arguments: &[&str]| settings(&[KNOWN, arguments].concat()).unwrap();
    for url in [
        "https://id/keys",
        "http://localhost:1/keys",
        "http://[::1]/keys",
        "http://127.0.0.2/",
    ] {
        assert!(known(&["--jwt-jwks-url", url]).source().is_ok(), "{url}");
    }
    assert!(
        known(&["--jwt-jwks-url", "http://id/keys", "--jwt-jwks-insecure"])
            .source()
            .is_ok()
    );
}

#[test]
fn hmac_none_and_unknown_algorithms_are_refused_at_start() {
    for name in ["HS256", "none", "es256", "RS512", "", "RS256,HS256"] {
        assert!(settings(&["--jwt-algorithms", name]).is_err(), "{name}");
    }
    let all = settings(&["--jwt-algorithms", "EdDSA,ES256"]).unwrap();
    assert_eq!(all.algorithms, [Algorithm::EdDsa, Algorithm::Es256]);
}

#[test]
fn the_public_key_is_a_pem_or_the_path_of_one() {
    let pem = Key::generate_rsa().unwrap().public_pem().unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &pem).unwrap();
    for key in [pem.as_str(), file.path().to_str().unwrap()] {
        let settings = settings(&[KNOWN, &["--jwt-public-key", key]].concat()).unwrap();
        assert!(Verifier::new(&settings).unwrap().has_keys());
    }
}

#[test]
fn a_public_key_that_cannot_be_used_is_refused_at_start() {
    let key = Key::generate_ed25519().unwrap();
    let of = |key: &str| with(&["--jwt-public-key", key]);
    assert!(matches!(of("no-such-file.pem"), SettingsError::KeyFile(_)));
    assert!(matches!(
        of("-----BEGIN"),
        SettingsError::Key(KeyRefused::NotPem)
    ));
    let private = of(&key.private_pem().unwrap());
    assert!(matches!(
        private,
        SettingsError::Key(KeyRefused::NotPublic(_))
    ));
    let other = of(&key.public_pem().unwrap());
    assert!(matches!(
        other,
        SettingsError::KeyAlgorithm(Algorithm::EdDsa)
    ));
}

#[test]
fn numbers_out_of_their_range_are_refused_at_start() {
    for (flag, value) in [
        ("--jwt-leeway", "3601"),
        ("--jwt-jwks-interval", "0"),
        ("--jwt-jwks-max-age", "0"),
        ("--jwt-jwks-timeout", "0"),
        ("--jwt-jwks-timeout", "61"),
    ] {
        assert!(settings(&[flag, value]).is_err(), "{flag} {value}");
    }
    assert_eq!(settings(&[]).unwrap().leeway, 30);
}
