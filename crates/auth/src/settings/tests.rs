use super::*;
use crate::Verifier;
use crate::mint::Key;
use crate::testing::settings;

const KNOWN_FLAGS: &[&str] = &["--jwt-issuer", "i", "--jwt-audience", "a"];

fn refused(arguments: &[&str]) -> IssuerError {
    match Verifier::new(&settings(arguments).unwrap()) {
        Err(SettingsError::Issuer { error, .. }) => error,
        other => panic!("{other:?}"),
    }
}

fn with(arguments: &[&str]) -> IssuerError {
    refused(&[KNOWN_FLAGS, arguments].concat())
}

#[test]
fn exactly_one_source_of_keys_must_be_set() {
    assert!(matches!(with(&[]), IssuerError::KeySource));
    let both = [
        "--jwt-jwks-url",
        "https://id/keys",
        "--jwt-public-key",
        "key.pem",
    ];
    assert!(matches!(with(&both), IssuerError::KeySource));
}

#[test]
fn issuer_and_audience_must_be_set_or_waived() {
    let url = ["--jwt-jwks-url", "http://127.0.0.1/keys"];
    let of = |more: &[&str]| refused(&[&url, more].concat());
    assert!(matches!(
        of(&["--jwt-audience", "a"]),
        IssuerError::Waiver("issuer")
    ));
    assert!(matches!(
        of(&["--jwt-issuer", "i"]),
        IssuerError::Waiver("audience")
    ));
    let contradiction = [
        "--jwt-issuer",
        "i",
        "--jwt-any-issuer",
        "--jwt-audience",
        "a",
    ];
    assert!(matches!(of(&contradiction), IssuerError::Waiver("issuer")));
    let empty = ["--jwt-issuer", "i,", "--jwt-audience", "a"];
    assert!(matches!(of(&empty), IssuerError::Empty("issuer")));
    for good in [
        ["--jwt-any-issuer", "--jwt-audience=a"],
        ["--jwt-any-issuer", "--jwt-any-audience"],
    ] {
        let settings = settings(&[&url[..], &good].concat()).unwrap();
        assert!(Verifier::new(&settings).is_ok());
    }
}

#[test]
fn keys_are_fetched_over_https_or_loopback() {
    for url in [
        "http://id/keys",
        "http://10.0.0.1/keys",
        "ftp://id/keys",
        "https://u:p@id/keys",
    ] {
        assert!(
            matches!(with(&["--jwt-jwks-url", url]), IssuerError::Url),
            "{url}"
        );
    }
    let known = |arguments: &[&str]| settings(&[KNOWN_FLAGS, arguments].concat()).unwrap();
    for url in [
        "https://id/keys",
        "http://localhost:1/keys",
        "http://[::1]/keys",
        "http://127.0.0.2/",
    ] {
        assert!(
            known(&["--jwt-jwks-url", url]).flags.source().is_ok(),
            "{url}"
        );
    }
    assert!(
        known(&["--jwt-jwks-url", "http://id/keys", "--jwt-jwks-insecure"])
            .flags
            .source()
            .is_ok()
    );
}

#[test]
fn unsafe_or_unknown_algorithms_are_refused_at_start() {
    for name in ["HS256", "none", "es256", "RS512", "", "RS256,HS256"] {
        assert!(settings(&["--jwt-algorithms", name]).is_err(), "{name}");
    }
    let all = settings(&["--jwt-algorithms", "EdDSA,ES256"]).unwrap();
    assert_eq!(all.flags.algorithms, [Algorithm::EdDsa, Algorithm::Es256]);
}

#[test]
fn public_key_is_pem_or_path() {
    let pem = Key::generate_rsa().unwrap().public_pem().unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &pem).unwrap();
    for key in [pem.as_str(), file.path().to_str().unwrap()] {
        let settings = settings(&[KNOWN_FLAGS, &["--jwt-public-key", key]].concat()).unwrap();
        assert!(Verifier::new(&settings).unwrap().has_keys());
    }
}

#[test]
fn unusable_public_key_is_refused_at_start() {
    let key = Key::generate_ed25519().unwrap();
    let of = |key: &str| with(&["--jwt-public-key", key]);
    assert!(matches!(of("no-such-file.pem"), IssuerError::KeyFile(_)));
    assert!(matches!(
        of("-----BEGIN"),
        IssuerError::Key(KeyRefused::NotPem)
    ));
    let private = of(&key.private_pem().unwrap());
    assert!(matches!(
        private,
        IssuerError::Key(KeyRefused::NotPublic(_))
    ));
    let other = of(&key.public_pem().unwrap());
    assert!(matches!(other, IssuerError::KeyAlgorithm(Algorithm::EdDsa)));
}

#[test]
fn out_of_range_numbers_are_refused_at_start() {
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

#[test]
fn settings_that_need_or_exclude_each_other() {
    let url = ["--jwt-jwks-url", "https://id/keys"];
    let of = |more: &[&str]| with(&[&url, more].concat());
    assert!(matches!(
        of(&["--jwt-client-claim", "azp"]),
        IssuerError::Needs("client-claim", "clients")
    ));
    assert!(matches!(
        of(&["--jwt-clients", "web"]),
        IssuerError::Needs("clients", "client-claim")
    ));
    assert!(matches!(
        of(&["--jwt-scope-optional"]),
        IssuerError::Needs("scope-optional", "scope-claim")
    ));
    for more in [
        &["--single-tenant", "--jwt-tenant", "a"][..],
        &["--single-tenant", "--jwt-tenant-claim", "org"],
        &["--single-tenant", "--jwt-tenant-optional"],
        &["--jwt-tenant", "a", "--jwt-tenants", "a,b"],
        &["--jwt-tenant-prefix", "a", "--jwt-tenants", "a,b"],
    ] {
        assert!(matches!(of(more), IssuerError::Excludes(..)), "{more:?}");
    }
    assert!(matches!(
        of(&["--jwt-tenant-optional", "--jwt-tenants", "a"]),
        IssuerError::OptionalTenant
    ));
}

#[test]
fn claims_that_are_none_are_refused_at_start() {
    for (flag, value) in [
        ("--jwt-user-claim", ""),
        ("--jwt-tenant-claim", "/a~2"),
        ("--jwt-tenant", "a.b"),
        ("--jwt-tenants", "a,b.c"),
        ("--jwt-grants", "read,everything"),
    ] {
        assert!(settings(&[flag, value]).is_err(), "{flag} {value}");
    }
}
