//! Tokens shaped like eight providers' pass one gateway with the settings of docs/operations/identity-providers.md.

use confab_client::{TokenIn, Ws};
use confab_protocol::error::Code;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{assert_accepted, assert_refused, now, options, small};
use crate::support::{Cluster, Folder, Jwks, Key, jwks};

const PROVIDERS_PAGE: &str = include_str!("../../../docs/operations/identity-providers.md");
const PROVIDER_SHAPES: &str = include_str!("../../identity_providers.json");

/// A provider's token, and changes that make it another's.
#[derive(Deserialize)]
struct ProviderShape {
    provider: String,
    algorithm: String,
    typ: Option<String>,
    claims: Value,
    /// Tenant, user, and what else it says.
    caller: Vec<String>,
    refused: Vec<(Value, String)>,
}

/// A provider whose key set is served.
struct Provider {
    shape: ProviderShape,
    key: Key,
    _server: Jwks,
    /// Its entry of the page, with the URL of that key set.
    entry: String,
}

impl Provider {
    async fn start(shape: ProviderShape) -> Self {
        let key = match shape.algorithm.as_str() {
            "RS256" => Key::rs256("key-1"),
            "ES256" => Key::es256("key-1"),
            other => panic!("{other}"),
        };
        // Another key of the same id, which only its algorithm tells apart.
        let other = match shape.algorithm.as_str() {
            "RS256" => Key::es256("key-1"),
            _ => Key::rs256("key-1"),
        };
        let server = Jwks::start(jwks([&key, &other])).await;
        let entry = entry(&shape.provider, &server.url);
        Self {
            shape,
            key,
            _server: server,
            entry,
        }
    }

    /// A token with a change, signed by `key`; null takes a claim away.
    fn token(&self, change: &Value, key: &Key) -> String {
        let mut claims = self.shape.claims.as_object().unwrap().clone();
        claims.extend([
            ("iat".to_owned(), now().into()),
            ("exp".to_owned(), (now() + 3600).into()),
        ]);
        claims.extend(change.as_object().unwrap().clone());
        claims.retain(|_, value| !value.is_null());
        let mut header = json!({"alg": key.algorithm(), "kid": key.id});
        if let Some(typ) = &self.shape.typ {
            header["typ"] = typ.as_str().into();
        }
        key.token_with(&header, &claims.into())
    }
}

/// The block below a heading of the page, with another key set.
fn entry(provider: &str, url: &str) -> String {
    let heading = format!("\n## {provider}\n");
    let (_, section) = PROVIDERS_PAGE
        .split_once(&heading)
        .unwrap_or_else(|| panic!("{provider}"));
    let (_, block) = section.split_once("```toml\n").unwrap();
    let (block, _) = block.split_once("```").unwrap();
    let lines = block
        .lines()
        .map(|line| match line.starts_with("jwks-url = ") {
            true => format!("jwks-url = {url:?}\n"),
            false => format!("{line}\n"),
        });
    lines.collect()
}

async fn providers() -> Vec<Provider> {
    let shapes: Vec<ProviderShape> = serde_json::from_str(PROVIDER_SHAPES).unwrap();
    let starting = shapes.into_iter().map(Provider::start);
    futures_util::future::join_all(starting).await
}

/// A gateway whose only issuers are these.
async fn cluster(providers: &[Provider], folder: &Folder) -> Cluster {
    let path = folder.path().join("issuers.toml");
    let text: String = providers
        .iter()
        .map(|provider| provider.entry.as_str())
        .collect();
    std::fs::write(&path, text).unwrap();
    let mut env = vec![("CONFAB_JWT_ISSUERS", Some(path.display().to_string()))];
    let of_tests = [
        "PUBLIC_KEY",
        "ISSUER",
        "AUDIENCE",
        "TENANT_OPTIONAL",
        "GRANTS",
    ];
    env.extend(of_tests.map(|name| match name {
        "PUBLIC_KEY" => ("CONFAB_JWT_PUBLIC_KEY", None),
        "ISSUER" => ("CONFAB_JWT_ISSUER", None),
        "AUDIENCE" => ("CONFAB_JWT_AUDIENCE", None),
        "TENANT_OPTIONAL" => ("CONFAB_JWT_TENANT_OPTIONAL", None),
        _ => ("CONFAB_JWT_GRANTS", None),
    }));
    Cluster::start(small(env)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_of_eight_providers_are_judged_together() {
    let folder = Folder::of_test();
    let providers = providers().await;
    assert_eq!(providers.len(), 8);
    let cluster = cluster(&providers, &folder).await;
    let url = cluster.gateways[0].url();
    for provider in &providers {
        let good = provider.token(&json!({}), &provider.key);
        assert_accepted(&url, &good).await;
        let (welcome, _ws) = Ws::connect(&url, options(TokenIn::Hello(good)))
            .await
            .unwrap();
        assert_eq!(welcome.user_id.as_str(), provider.shape.caller[1]);
        for (change, defect) in &provider.shape.refused {
            let what = format!("{}: {change}: {defect}", provider.shape.provider);
            let token = provider.token(change, &provider.key);
            assert_refused(&url, &what, &token, Code::InvalidToken).await;
        }
        let expired = provider.token(&json!({"exp": now() - 60}), &provider.key);
        assert_refused(&url, "expired", &expired, Code::TokenExpired).await;
    }
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_provider_speaks_for_another() {
    let folder = Folder::of_test();
    let providers = providers().await;
    let cluster = cluster(&providers, &folder).await;
    let url = cluster.gateways[0].url();
    for one in &providers {
        for other in &providers {
            let (name, by) = (&one.shape.provider, &other.shape.provider);
            if name == by {
                continue;
            }
            let signed = one.token(&json!({}), &other.key);
            assert_refused(
                &url,
                &format!("{name}, signed by {by}"),
                &signed,
                Code::InvalidToken,
            )
            .await;
            let iss = json!({"iss": other.shape.claims["iss"]});
            let from = one.token(&iss, &other.key);
            assert_refused(
                &url,
                &format!("{name}, from {by}"),
                &from,
                Code::InvalidToken,
            )
            .await;
        }
    }
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_token_is_taken_on_every_way_in() {
    let folder = Folder::of_test();
    let providers = providers().await;
    let cluster = cluster(&providers, &folder).await;
    let url = cluster.gateways[0].url();
    let entra = providers
        .iter()
        .find(|provider| provider.shape.provider == "Microsoft Entra ID")
        .unwrap();
    let with_groups = |count: usize| {
        let group = "11111111-2222-3333-4444-555555555555";
        entra.token(&json!({ "groups": vec![group; count] }), &entra.key)
    };
    let (usual, largest, too_large) = (with_groups(190), with_groups(280), with_groups(320));
    assert!(usual.len() > 8 * 1024 && largest.len() > 15 * 1024 && largest.len() <= 16 * 1024);
    for token in [usual, largest] {
        assert_accepted(&url, &token).await;
    }
    assert!(too_large.len() > 16 * 1024 && too_large.len() < 24 * 1024);
    assert_refused(&url, "more than 16 KiB", &too_large, Code::InvalidToken).await;
    cluster.end().await;
}
