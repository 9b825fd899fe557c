//! The settings of docs/operations/identity-providers.md, as they stand there, on tokens of each provider's shape.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::{Table, Value as Toml};

use super::*;
use crate::Settings;

const PROVIDERS_PAGE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../docs/operations/identity-providers.md"
);
const PROVIDERS_FILE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../tests/identity_providers.json"
);

/// A provider's token, who it says is calling, and changes that make it another's.
#[derive(Deserialize)]
struct Shape {
    provider: String,
    algorithm: String,
    typ: Option<String>,
    claims: Value,
    /// Tenant, user, device, login, scope.
    caller: [String; 5],
    /// A change, and the scope that it leaves.
    narrower: (Value, String),
    /// Changes, each with the defect that it makes.
    refused: Vec<(Value, String)>,
    #[serde(skip, default = "no_key")]
    key: Option<Key>,
}

fn no_key() -> Option<Key> {
    None
}

impl Shape {
    fn key(&self) -> &Key {
        self.key.as_ref().unwrap()
    }

    fn iss(&self) -> &str {
        self.claims["iss"].as_str().unwrap()
    }

    /// The token with a change; null takes a claim away.
    fn token(&self, change: &Value, key: &Key) -> String {
        let mut claims = self.claims.as_object().unwrap().clone();
        claims.insert("iat".into(), TEST_NOW.unix_timestamp().into());
        claims.insert("exp".into(), (TEST_NOW.unix_timestamp() + 3600).into());
        claims.extend(change.as_object().unwrap().clone());
        claims.retain(|_, value| !value.is_null());
        let mut header = json!({"alg": key.algorithm().name(), "kid": "from the provider"});
        if let Some(typ) = &self.typ {
            header["typ"] = typ.as_str().into();
        }
        key.sign(&header, &claims.into()).unwrap()
    }
}

fn shapes() -> Vec<Shape> {
    let text = std::fs::read_to_string(PROVIDERS_FILE).unwrap();
    let mut shapes: Vec<Shape> = serde_json::from_str(&text).unwrap();
    for shape in &mut shapes {
        let key = match shape.algorithm.as_str() {
            "RS256" => Key::generate_rsa(),
            "ES256" => Key::generate(),
            other => panic!("{other}"),
        };
        shape.key = Some(key.unwrap());
    }
    shapes
}

/// The TOML blocks of the page, by the heading that they stand under.
fn blocks() -> BTreeMap<String, String> {
    let page = std::fs::read_to_string(PROVIDERS_PAGE).unwrap();
    let sections = page.split("\n## ").skip(1);
    let block = |section: &str| {
        let (heading, rest) = section.split_once('\n').unwrap();
        let (_, rest) = rest
            .split_once("```toml\n")
            .unwrap_or_else(|| panic!("{heading}"));
        let (block, _) = rest.split_once("```").unwrap();
        (heading.to_owned(), block.to_owned())
    };
    sections.map(block).collect()
}

/// A block, and the keys of the test that stand in for those of its issuers.
type ProviderBlock<'a> = (&'a str, Vec<&'a Key>);

/// Each provider's block with the key of its tokens.
fn entries<'a>(
    shapes: &'a [Shape],
    blocks: &'a BTreeMap<String, String>,
) -> Vec<ProviderBlock<'a>> {
    let entry = |shape: &'a Shape| (blocks[&shape.provider].as_str(), vec![shape.key()]);
    shapes.iter().map(entry).collect()
}

/// The settings of blocks, in which the keys are those of the test.
fn verifier(blocks: &[ProviderBlock<'_>]) -> Verifier {
    let mut file = NamedTempFile::new().unwrap();
    for (block, keys) in blocks {
        let mut table: Table = toml::from_str(block).unwrap();
        let entries = table["issuer"].as_array_mut().unwrap();
        assert_eq!(entries.len(), keys.len());
        for (entry, key) in entries.iter_mut().zip(keys) {
            let entry = entry.as_table_mut().unwrap();
            entry.remove("jwks-url");
            entry.insert("public-key".into(), Toml::String(key.public_pem().unwrap()));
        }
        // By hand, since a document is written nowhere else.
        for entry in table["issuer"].as_array().unwrap() {
            writeln!(file, "[[issuer]]").unwrap();
            for (name, value) in entry.as_table().unwrap() {
                let value = serde_json::to_string(value).unwrap();
                writeln!(file, "{name} = {value}").unwrap();
            }
        }
    }
    let path = file.path().to_str().unwrap();
    Verifier::new(&settings(&["--jwt-issuers", path]).unwrap()).unwrap()
}

fn shown(caller: &Caller) -> [String; 5] {
    [
        caller.tenant.as_str().to_owned(),
        caller.user.as_str().to_owned(),
        caller.device.clone(),
        caller.login_session.clone(),
        caller.scope.to_string(),
    ]
}

#[test]
fn every_block_of_page_is_usable() {
    let blocks = blocks();
    let common: Settings = settings(&[]).unwrap();
    for (heading, block) in &blocks {
        let document: Document = toml::from_str(block).unwrap();
        for entry in &document.issuer {
            assert!(
                entry.source().is_ok() && entry.rules(&common).is_ok(),
                "{heading}"
            );
        }
    }
    for shape in shapes() {
        assert!(blocks.contains_key(&shape.provider), "{}", shape.provider);
    }
    assert_eq!(blocks.len(), 9);
}

#[tokio::test]
async fn provider_tokens_are_verified_by_own_block() {
    let (shapes, blocks) = (shapes(), blocks());
    let all = entries(&shapes, &blocks);
    let together = verifier(&all);
    for (shape, block) in shapes.iter().zip(&all) {
        let alone = verifier(std::slice::from_ref(block));
        for verifier in [&alone, &together] {
            let judged = async |change: &Value| {
                let token = shape.token(change, shape.key());
                verifier.verify(&token, TEST_NOW).await
            };
            let provider = &shape.provider;
            let caller = judged(&json!({})).await;
            let caller = caller.unwrap_or_else(|error| panic!("{provider}: {error}"));
            assert_eq!(shown(&caller), shape.caller, "{provider}");
            let (change, scope) = &shape.narrower;
            assert_eq!(
                judged(change).await.unwrap().scope.to_string(),
                *scope,
                "{provider}"
            );
            for (change, defect) in &shape.refused {
                let refused = judged(change)
                    .await
                    .expect_err(&format!("{provider}: {change}"));
                assert_eq!(refused.label(), defect, "{provider}: {change}");
            }
            assert_eq!(judged(&json!({"exp": 1})).await, Err(AuthError::Expired));
        }
    }
}

#[tokio::test]
async fn no_issuer_speaks_for_another() {
    let (shapes, blocks) = (shapes(), blocks());
    let verifier = verifier(&entries(&shapes, &blocks));
    for one in &shapes {
        for other in shapes.iter().filter(|other| other.provider != one.provider) {
            let (name, by) = (&one.provider, &other.provider);
            let foreign_key = one.token(&json!({}), other.key());
            assert!(
                verifier.verify(&foreign_key, TEST_NOW).await.is_err(),
                "{name} signed by {by}"
            );
            let foreign_issuer = one.token(&json!({"iss": other.iss()}), other.key());
            assert!(
                verifier.verify(&foreign_issuer, TEST_NOW).await.is_err(),
                "{name} from {by}"
            );
            let own_key = one.token(&json!({"iss": other.iss()}), one.key());
            assert!(
                verifier.verify(&own_key, TEST_NOW).await.is_err(),
                "{name} as {by}"
            );
        }
    }
}

#[tokio::test]
async fn backend_shares_the_tenants_of_its_users() {
    let (users, backend) = (Key::generate().unwrap(), Key::generate().unwrap());
    let block = blocks().remove("Your backend beside the provider").unwrap();
    let verifier = verifier(&[(block.as_str(), vec![&users, &backend])]);
    let judged = async |key: &Key, iss: &str, tenant: &str, scope: &str| {
        let token = key
            .mint(&of(iss, json!({"tenant": tenant, "scope": scope})))
            .unwrap();
        verifier
            .verify(&token, TEST_NOW)
            .await
            .map(|caller| caller.scope.is_admin())
    };
    let (from_users, from_backend) = ("https://users.example", "https://backend.example");
    assert_eq!(judged(&users, from_users, "acme", "").await, Ok(false));
    assert_eq!(
        judged(&backend, from_backend, "acme", "confab:admin").await,
        Ok(true)
    );
    let refused = judged(&users, from_users, "acme", "confab:admin").await;
    assert_eq!(refused, Err(Defect::Scope(Right::Admin).into()));
    let refused = judged(&users, from_backend, "acme", "confab:admin").await;
    assert_eq!(refused, Err(Defect::Signature.into()));
    let refused = judged(&backend, from_backend, "initech", "confab:admin").await;
    assert_eq!(refused, Err(Defect::Tenant.into()));
}
