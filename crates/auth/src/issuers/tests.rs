mod providers;
mod replaced;

use std::io::Write as _;

use serde_json::{Value, json};
use tempfile::NamedTempFile;

use super::*;
use crate::mint::{Claims, Key};
use crate::testing::{TEST_NOW, claims, settings};
use crate::{AuthError, Caller, Part, Right, Verifier};

/// A file of issuers; `KEY` and `OTHER` behind an equals sign stand for two public keys.
struct File {
    file: NamedTempFile,
    key: Key,
    other: Key,
}

impl File {
    fn of(text: &str) -> Self {
        let (key, other) = (Key::generate().unwrap(), Key::generate().unwrap());
        let pem = |key: &Key| format!("= '''{}'''", key.public_pem().unwrap());
        let text = text
            .replace("= OTHER", &pem(&other))
            .replace("= KEY", &pem(&key));
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        Self { file, key, other }
    }

    fn verifier(&self, more: &[&str]) -> Result<Verifier, SettingsError> {
        let path = self.file.path().to_str().unwrap();
        Verifier::new(&settings(&[&["--jwt-issuers", path], more].concat()).unwrap())
    }
}

fn refused(text: &str) -> SettingsError {
    File::of(text).verifier(&[]).unwrap_err()
}

/// The same with a cause behind each colon.
fn told(error: &SettingsError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

/// Two issuers, each with a tenant of its own.
const TWO_ISSUERS: &str = "
    [[issuer]]
    issuer = 'https://one'
    public-key = KEY
    audience = ['confab', 'chat']
    tenant = 'one'

    [[issuer]]
    issuer = ['https://two', 'https://zwei']
    public-key = OTHER
    any-audience = true
    tenants = ['two', 'three']
    tenant-claim = '/org/name'
    grants = ['read', 'admin']
    user-claim = 'oid'
";

fn of(iss: &str, more: Value) -> Claims {
    let mut claims = claims();
    claims.issuer = Some(iss.to_owned());
    claims.extra = more.as_object().unwrap().clone();
    claims
}

#[tokio::test]
async fn each_issuer_has_its_own_keys_and_rules() {
    let file = File::of(TWO_ISSUERS);
    let verifier = file.verifier(&[]).unwrap();
    let judged = async |key: &Key, claims: Claims| {
        let token = key.mint(&claims).unwrap();
        verifier.verify(&token, TEST_NOW).await
    };
    let named = |caller: Caller| {
        (
            caller.tenant.as_str().to_owned(),
            caller.user.as_str().to_owned(),
        )
    };
    let name = |tenant: &str, user: &str| (tenant.to_owned(), user.to_owned());

    let one = judged(&file.key, of("https://one", json!({}))).await;
    assert_eq!(named(one.unwrap()), name("one", "alice"));
    let org = json!({"org": {"name": "three"}, "oid": "u", "scope": "confab:admin"});
    let two = judged(&file.other, of("https://zwei", org.clone())).await;
    assert_eq!(named(two.unwrap()), name("three", "u"));

    let crossed = judged(&file.other, of("https://one", json!({}))).await;
    assert_eq!(
        crossed,
        Err(Defect::Signature.into()),
        "another issuer's key"
    );
    let unknown = judged(&file.key, of("https://three", json!({}))).await;
    assert_eq!(unknown, Err(Defect::Issuer.into()));
    let nameless = judged(&file.key, of("https://one", json!({"iss": null}))).await;
    let missing = Defect::MissingClaim(Part::Issuer, "iss".to_owned());
    assert_eq!(nameless, Err(missing.into()));
    let foreign = json!({"org": {"name": "one"}, "oid": "u"});
    let foreign = judged(&file.other, of("https://two", foreign)).await;
    assert_eq!(
        foreign,
        Err(Defect::Tenant.into()),
        "another issuer's tenant"
    );
    let admin = judged(
        &file.key,
        of("https://one", json!({"scope": "confab:admin"})),
    )
    .await;
    assert_eq!(admin, Err(Defect::Scope(Right::Admin).into()));
}

#[tokio::test]
async fn flags_make_one_issuer_beside_the_file() {
    let file = File::of(TWO_ISSUERS);
    let pem = file.other.public_pem().unwrap();
    let flags = [
        "--jwt-public-key",
        &pem,
        "--jwt-issuer",
        "https://backend",
        "--jwt-any-audience",
    ];
    let shared = file.verifier(&flags).unwrap_err();
    assert!(
        matches!(&shared, SettingsError::SharedTenant { tenant, .. } if tenant == "one"),
        "{shared}"
    );
    let own = [&flags[..], &["--jwt-tenant", "backend"]].concat();
    let verifier = file.verifier(&own).unwrap();
    for (key, iss, good) in [
        (&file.other, "https://backend", true),
        (&file.key, "https://backend", false),
        (&file.key, "https://one", true),
    ] {
        let token = key.mint(&of(iss, json!({}))).unwrap();
        assert_eq!(
            verifier.verify(&token, TEST_NOW).await.is_ok(),
            good,
            "{iss}"
        );
    }
    let lonely = file.verifier(&["--jwt-tenant", "backend"]).unwrap_err();
    assert!(matches!(
        lonely,
        SettingsError::Issuer {
            error: IssuerError::KeySource,
            ..
        }
    ));
}

#[tokio::test]
async fn tenants_are_shared_only_where_both_say_so() {
    let two = |first: bool, second: bool, more: &str| {
        File::of(&format!(
            "
            [[issuer]]
            issuer = 'https://users'
            public-key = KEY
            audience = 'confab'
            tenants = ['acme', 'globex']
            share-tenants = {first}

            [[issuer]]
            issuer = 'https://backend'
            public-key = OTHER
            audience = 'confab'
            {more}
            share-tenants = {second}
            "
        ))
    };
    for (first, second) in [(false, false), (true, false), (false, true)] {
        for more in [
            "tenant = 'acme'",
            "tenants = ['x', 'globex']",
            "tenant-prefix = 'ac'",
            "tenant-prefix = ''",
        ] {
            let error = two(first, second, more).verifier(&[]).unwrap_err();
            assert!(
                matches!(error, SettingsError::SharedTenant { .. }),
                "{more}"
            );
        }
        assert!(
            two(first, second, "tenant-prefix = 'b'")
                .verifier(&[])
                .is_ok()
        );
    }
    let file = two(true, true, "tenant-prefix = ''\ngrants = 'admin'");
    let verifier = file.verifier(&[]).unwrap();
    for (key, iss, tenant, good) in [
        (&file.key, "https://users", "acme", true),
        (&file.key, "https://users", "initech", false),
        (&file.other, "https://backend", "acme", true),
        (&file.other, "https://backend", "initech", true),
    ] {
        let token = key.mint(&of(iss, json!({ "tenant": tenant }))).unwrap();
        assert_eq!(
            verifier.verify(&token, TEST_NOW).await.is_ok(),
            good,
            "{iss} {tenant}"
        );
    }
}

#[test]
fn unusable_file_is_refused_with_reason() {
    let entry = |more: &str| {
        format!("[[issuer]]\nissuer = 'i'\npublic-key = KEY\naudience = 'a'\n{more}\n")
    };
    for (text, reason) in [
        (String::new(), "has no [[issuer]]"),
        ("[[issuer]".to_owned(), "not a list"),
        (entry("tenannt = 'a'"), "unknown field `tenannt`"),
        (
            entry("single-tenant = true"),
            "unknown field `single-tenant`",
        ),
        (entry("tenant-claim = '/a~b'\ntenant-prefix = ''"), "~0"),
        (entry("tenant-claim = 'org'"), "set tenant"),
        (entry(""), "set tenant"),
        (
            entry("grants = ['root']\ntenant = 'a'"),
            "read, write or admin",
        ),
        (
            entry("tenant = 'a'\nany-issuer = true"),
            "either issuer or any-issuer",
        ),
        (
            entry("tenant = 'a'") + &entry("tenant = 'b'"),
            "both have the issuer \"i\"",
        ),
    ] {
        let told = told(&refused(&text));
        assert!(told.contains(reason), "{text}\n{told}");
        assert!(
            told.contains(".tmp") || told.contains("file of --jwt-issuers"),
            "{told}"
        );
    }
    let any = entry("tenant = 'a'")
        + "[[issuer]]\nany-issuer = true\npublic-key = KEY\naudience = 'a'\ntenant = 'b'";
    assert!(told(&refused(&any)).contains("any-issuer is for an installation of one issuer"));
    let settings = settings(&["--jwt-issuers", "/no/such/file"]).unwrap();
    let error = Verifier::new(&settings).unwrap_err();
    assert!(matches!(error, SettingsError::File(..)));
}

#[tokio::test]
async fn unavailable_key_set_does_not_affect_other_issuers() {
    use crate::mint::jwks;
    use crate::testing::server::{KeyServer, ServerAnswer};
    let (here, away) = (Key::generate().unwrap(), Key::generate().unwrap());
    let (one, two) = (
        KeyServer::start(ServerAnswer::Body(jwks([&here]))).await,
        KeyServer::start(ServerAnswer::Raw(String::new())).await,
    );
    let entry = |iss: &str, url: &str| {
        format!(
            "[[issuer]]\nissuer = '{iss}'\njwks-url = '{url}'\naudience = 'confab'\ntenant = '{iss}'\n"
        )
    };
    let file = File::of(&(entry("one", &one.url) + &entry("two", &two.url)));
    let verifier = file.verifier(&[]).unwrap();
    assert!(!verifier.has_keys());
    verifier.fetch().await;
    assert!(verifier.has_keys());
    let judged = async |key: &Key, iss: &str| {
        let token = key.mint(&of(iss, json!({}))).unwrap();
        verifier
            .verify(&token, TEST_NOW)
            .await
            .map(|caller| caller.tenant.as_str().to_owned())
    };
    assert_eq!(judged(&here, "one").await, Ok("one".into()));
    assert_eq!(judged(&away, "two").await, Err(AuthError::Unavailable));
    two.answer(ServerAnswer::Body(jwks([&away])));
    verifier.fetch().await;
    assert_eq!(judged(&away, "two").await, Ok("two".into()));
}
