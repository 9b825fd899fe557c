mod spoiled;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use time::Duration;

use super::*;
use crate::mint::{Claims, Key, jwks};
use crate::testing::server::{KeyServer, ServerAnswer};
use crate::testing::{RunningVerifier, TEST_NOW, claims, verifier_of};
use crate::{Part, Scope};

const ALL_ALGORITHMS: &[&str] = &["--jwt-algorithms", "RS256,ES256,EdDSA"];

fn key() -> Key {
    Key::generate().unwrap()
}

/// A key of each kind.
fn three() -> [Key; 3] {
    [
        Key::generate(),
        Key::generate_rsa(),
        Key::generate_ed25519(),
    ]
    .map(Result::unwrap)
}

/// Returns what a verifier with `arguments` says to these claims at `TEST_NOW`, signed as they should be.
async fn judged_with(arguments: &[&str], claims: &Claims) -> Result<Caller, AuthError> {
    let key = key();
    verifier_of(&key, arguments)
        .verify(&key.mint(claims).unwrap(), TEST_NOW)
        .await
}

async fn judged(claims: &Claims) -> Result<Caller, AuthError> {
    judged_with(&[], claims).await
}

/// Good claims with one changed; null takes it away.
fn with(name: &str, value: impl Into<Value>) -> Claims {
    let mut claims = claims();
    claims.extra.insert(name.into(), value.into());
    claims
}

/// Returns what the claims of these names are read for where no setting says otherwise.
fn part(name: &str) -> Part {
    match name {
        "iss" => Part::Issuer,
        "aud" => Part::Audience,
        "sub" | "oid" => Part::User,
        "tenant" => Part::Tenant,
        "deviceId" | "did" => Part::Device,
        "sessionId" | "sid" => Part::Login,
        "scope" => Part::Scope,
        "iat" => Part::IssuedAt,
        "nbf" => Part::NotBefore,
        "exp" => Part::Expiry,
        other => panic!("{other} is read for nothing"),
    }
}

fn missing(name: &str) -> Result<Caller, AuthError> {
    Err(Defect::MissingClaim(part(name), name.into()).into())
}

fn bad(name: &str) -> Result<Caller, AuthError> {
    Err(Defect::BadClaim(part(name), name.into()).into())
}

#[tokio::test]
async fn a_good_token_says_who_is_calling() {
    let tenant = Some("acme".to_owned());
    let scope = Some("openid confab:read".to_owned());
    let caller = judged(&Claims {
        tenant,
        scope,
        ..claims()
    })
    .await
    .unwrap();
    assert_eq!(caller.tenant.as_str(), "acme");
    assert_eq!(caller.user.as_str(), "alice");
    assert_eq!(caller.device, "device");
    assert_eq!(caller.login_session, "login");
    assert_eq!(caller.issued_at, TEST_NOW);
    assert_eq!(caller.expires_at, TEST_NOW + Duration::HOUR);
    assert_eq!(caller.scope, Scope::parse("confab:read"));
}

#[tokio::test]
async fn each_key_kind_verifies_only_own_tokens() {
    let keys = three();
    let strangers = three();
    for (key, stranger) in keys.iter().zip(&strangers) {
        let verifier = verifier_of(key, ALL_ALGORITHMS);
        assert!(
            verifier
                .verify(&key.mint(&claims()).unwrap(), TEST_NOW)
                .await
                .is_ok()
        );
        for other in keys.iter().filter(|other| other.kid() != key.kid()) {
            let refused = verifier
                .verify(&other.mint(&claims()).unwrap(), TEST_NOW)
                .await;
            assert_eq!(refused, Err(Defect::NotTheKeysAlgorithm.into()));
        }
        let forged = stranger.mint(&claims()).unwrap();
        assert_eq!(
            verifier.verify(&forged, TEST_NOW).await,
            Err(Defect::Signature.into())
        );
    }
}

#[tokio::test]
async fn a_token_without_what_is_required_is_invalid() {
    for name in ["sub", "exp", "iat", "iss", "aud"] {
        assert_eq!(judged(&with(name, Value::Null)).await, missing(name));
    }
    let named = [
        "--jwt-device-claim",
        "deviceId",
        "--jwt-session-claim",
        "sessionId",
    ];
    for name in ["deviceId", "sessionId"] {
        assert_eq!(
            judged_with(&named, &with(name, Value::Null)).await,
            missing(name)
        );
    }
}

#[tokio::test]
async fn a_claim_of_another_form_is_invalid() {
    for name in ["sub", "deviceId", "sessionId", "tenant", "scope"] {
        assert_eq!(judged(&with(name, 1)).await, bad(name));
        assert_eq!(judged(&with(name, json!([["a"]]))).await, bad(name));
    }
    for name in ["sub", "deviceId", "sessionId"] {
        for text in ["", "a\n", "a\0", &"x".repeat(129)] {
            assert_eq!(
                judged(&with(name, text)).await,
                bad(name),
                "{name} {text:?}"
            );
        }
        assert!(judged(&with(name, "ü".repeat(128))).await.is_ok());
    }
    for name in ["exp", "iat", "nbf"] {
        assert_eq!(judged(&with(name, "1782900000")).await, bad(name));
        assert_eq!(judged(&with(name, -1)).await, bad(name));
    }
    assert_eq!(judged(&with("tenant", "a.b")).await, bad("tenant"));
    assert_eq!(judged(&with("aud", json!(["confab", 1]))).await, bad("aud"));
}

#[tokio::test]
async fn token_of_other_issuer_or_audience_is_invalid() {
    assert_eq!(
        judged(&with("iss", "https://evil")).await,
        Err(Defect::Issuer.into())
    );
    assert_eq!(
        judged(&with("iss", "https://id/")).await,
        Err(Defect::Issuer.into())
    );
    assert!(judged(&with("iss", "other")).await.is_ok());
    for audience in [json!("CONFAB"), json!([]), json!(["a", "b"])] {
        assert_eq!(
            judged(&with("aud", audience)).await,
            Err(Defect::Audience.into())
        );
    }
    assert!(judged(&with("aud", json!(["a", "confab"]))).await.is_ok());
}

#[tokio::test]
async fn a_token_expires_at_exp_and_the_leeway() {
    let ago = |seconds| Claims {
        expires_at: TEST_NOW - Duration::seconds(seconds),
        ..claims()
    };
    assert!(judged(&ago(29)).await.is_ok());
    assert_eq!(judged(&ago(30)).await, Err(AuthError::Expired));
    assert_eq!(
        judged_with(&["--jwt-leeway", "0"], &ago(0)).await,
        Err(AuthError::Expired)
    );
    assert!(judged_with(&["--jwt-leeway", "0"], &ago(-1)).await.is_ok());
}

#[tokio::test]
async fn token_outliving_its_revocation_is_invalid() {
    let lasting = |seconds| Claims {
        expires_at: TEST_NOW + Duration::seconds(seconds),
        ..claims()
    };
    let refused = Err(Defect::Lifetime.into());
    assert!(judged(&lasting(366 * 24 * 3600)).await.is_ok());
    assert_eq!(judged(&lasting(366 * 24 * 3600 + 1)).await, refused);
    let hour = ["--token-max-lifetime", "3600"];
    assert!(judged_with(&hour, &lasting(3600)).await.is_ok());
    assert_eq!(judged_with(&hour, &lasting(3601)).await, refused);
}

#[tokio::test]
async fn token_from_future_is_not_yet_valid() {
    let ahead = |seconds| Some(TEST_NOW + Duration::seconds(seconds));
    assert!(
        judged(&Claims {
            not_before: ahead(30),
            ..claims()
        })
        .await
        .is_ok()
    );
    let early = judged(&Claims {
        not_before: ahead(31),
        ..claims()
    })
    .await;
    assert_eq!(early, Err(AuthError::NotYetValid("nbf")));
    let issued = |seconds| Claims {
        issued_at: TEST_NOW + Duration::seconds(seconds),
        ..claims()
    };
    assert!(judged(&issued(30)).await.is_ok());
    assert_eq!(
        judged(&issued(31)).await,
        Err(AuthError::NotYetValid("iat"))
    );
}

#[tokio::test]
async fn nbf_can_be_demanded() {
    let demand = &["--jwt-require-nbf"];
    assert_eq!(judged_with(demand, &claims()).await, missing("nbf"));
    let there = Claims {
        not_before: Some(TEST_NOW),
        ..claims()
    };
    assert!(judged_with(demand, &there).await.is_ok());
}

#[tokio::test]
async fn optional_claims_have_defaults_and_are_checked() {
    let named = [
        "--jwt-device-claim",
        "deviceId",
        "--jwt-session-claim",
        "sessionId",
    ];
    let optional = ["--jwt-device-optional", "--jwt-session-optional"];
    let mut neither = with("deviceId", Value::Null);
    neither.extra.insert("sessionId".into(), Value::Null);
    for arguments in [&[][..], &[&named[..], &optional].concat()] {
        let caller = judged_with(arguments, &neither).await.unwrap();
        let texts = (
            caller.tenant.as_str(),
            caller.device.as_str(),
            caller.login_session.as_str(),
        );
        assert_eq!(texts, ("default", "default", ""));
        assert_eq!(
            judged_with(arguments, &with("sessionId", "")).await,
            bad("sessionId")
        );
    }
}

#[tokio::test]
async fn claims_can_have_other_names() {
    let names = [
        "--jwt-device-claim",
        "did",
        "--jwt-session-claim",
        "sid",
        "--jwt-tenant-claim",
        "org",
    ];
    let org = json!({"org": "o"}).as_object().unwrap().clone();
    let without = Claims {
        extra: org,
        ..claims()
    };
    assert_eq!(judged_with(&names, &without).await, missing("did"));
    let mut claims = claims();
    claims.extra = json!({"did": "d", "sid": "s", "org": "o"})
        .as_object()
        .unwrap()
        .clone();
    let caller = judged_with(&names, &claims).await.unwrap();
    assert_eq!(
        (caller.device, caller.login_session),
        ("d".into(), "s".into())
    );
    assert_eq!(caller.tenant.as_str(), "o");
}

#[tokio::test]
async fn claims_can_stand_deep_inside() {
    let paths = [
        "--jwt-user-claim",
        "/user/id",
        "--jwt-tenant-claim",
        "/app_metadata/tenant",
        "--jwt-scope-claim",
        "/resource_access/confab/roles",
        "--jwt-scope-prefix",
        "",
    ];
    let mut claims = claims();
    claims.extra = json!({
        "user": {"id": "u"},
        "app_metadata": {"tenant": "t"},
        "resource_access": {"confab": {"roles": ["read"]}},
    })
    .as_object()
    .unwrap()
    .clone();
    let caller = judged_with(&paths, &claims).await.unwrap();
    assert_eq!((caller.user.as_str(), caller.tenant.as_str()), ("u", "t"));
    assert_eq!(caller.scope.to_string(), "read");
}

#[tokio::test]
async fn client_must_be_let_in() {
    let clients = ["--jwt-client-claim", "azp", "--jwt-clients", "web,mobile"];
    assert!(judged_with(&clients, &with("azp", "mobile")).await.is_ok());
    let refused = judged_with(&clients, &with("azp", "other")).await;
    assert_eq!(refused, Err(Defect::Client.into()));
    let missing = judged_with(&clients, &claims()).await;
    let azp = "azp".to_owned();
    assert_eq!(missing, Err(Defect::MissingClaim(Part::Client, azp).into()));
}

#[tokio::test]
async fn tenant_is_required_unless_said_otherwise() {
    let key = key();
    let pem = key.public_pem().unwrap();
    let base = [
        "--jwt-public-key",
        &pem,
        "--jwt-any-issuer",
        "--jwt-any-audience",
    ];
    let judged = async |more: &[&str], claims: &Claims| {
        let settings = crate::testing::settings(&[&base, more].concat()).unwrap();
        let verifier = Verifier::new(&settings).unwrap();
        let token = key.mint(claims).unwrap();
        let caller = verifier.verify(&token, TEST_NOW).await?;
        Ok::<_, AuthError>(caller.tenant.as_str().to_owned())
    };
    let refused = judged(&[], &claims()).await.unwrap_err();
    assert_eq!(Err(refused), missing("tenant"));
    let acme = with("tenant", "acme");
    assert_eq!(judged(&[], &acme).await, Ok("acme".into()));
    for (more, plain, of_acme) in [
        (&["--jwt-tenant-optional"][..], "default", "acme"),
        (&["--single-tenant"], "default", "default"),
        (&["--jwt-tenant", "only"], "only", "only"),
    ] {
        assert_eq!(judged(more, &claims()).await, Ok(plain.into()));
        assert_eq!(judged(more, &acme).await, Ok(of_acme.into()));
    }
    let path = ["--jwt-tenant-claim", "/a/b"];
    assert!(judged(&path, &acme).await.is_err(), "a path never opens");
}

#[tokio::test]
async fn admin_must_be_granted_by_setting() {
    let admin = with("scope", "confab:admin");
    let refused = judged(&admin).await;
    assert_eq!(refused, Err(Defect::Scope(crate::Right::Admin).into()));
    let granted = judged_with(&["--jwt-grants", "admin"], &admin).await;
    assert!(granted.unwrap().scope.is_admin());
}

#[tokio::test]
async fn token_of_16_kib_is_taken() {
    let key = key();
    let verifier = verifier_of(&key, &[]);
    let token = |bytes: usize| key.mint(&with("groups", "g".repeat(bytes))).unwrap();
    let room = (crate::token::MAX_BYTES - token(0).len()) * 3 / 4;
    let (largest, larger) = (token(room - 3), token(room + 3));
    assert!(largest.len() > 16_000, "{}", largest.len());
    assert!(verifier.verify(&largest, TEST_NOW).await.is_ok());
    let refused = verifier.verify(&larger, TEST_NOW).await;
    assert_eq!(refused, Err(Defect::TooLong.into()));
}

/// A token of good claims with this header, signed with HMAC under `secret`.
fn hmac_token(header: &Value, secret: &[u8]) -> String {
    let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let message = format!("{}.{}", part(header), part(&claims().to_json()));
    let tag = hmac::sign(
        &hmac::Key::new(hmac::HMAC_SHA256, secret),
        message.as_bytes(),
    );
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag))
}

#[tokio::test]
async fn hmac_with_public_key_as_secret_is_invalid() {
    for key in [key(), Key::generate_rsa().unwrap()] {
        let verifier = verifier_of(&key, &[]);
        let pem = key.public_pem().unwrap();
        let (_, der) = crate::pem::decode(&pem).unwrap();
        for secret in [pem.as_bytes(), pem.trim().as_bytes(), &der] {
            let token = hmac_token(&json!({"alg": "HS256", "kid": key.kid()}), secret);
            assert_eq!(
                verifier.verify(&token, TEST_NOW).await,
                Err(Defect::Algorithm.into())
            );
            let token = hmac_token(&json!({"alg": key.algorithm().name()}), secret);
            assert_eq!(
                verifier.verify(&token, TEST_NOW).await,
                Err(Defect::Signature.into())
            );
        }
    }
}

#[tokio::test]
async fn unsigned_tokens_are_invalid() {
    let key = key();
    let verifier = verifier_of(&key, &[]);
    let signed = key.mint(&claims()).unwrap();
    let (message, _) = signed.rsplit_once('.').unwrap();
    assert_eq!(
        verifier.verify(&format!("{message}."), TEST_NOW).await,
        Err(Defect::Signature.into())
    );
    for alg in ["none", "None", "NONE", ""] {
        let token = key.sign(&json!({"alg": alg}), &claims().to_json()).unwrap();
        let (message, _) = token.rsplit_once('.').unwrap();
        for token in [&token, &format!("{message}.")] {
            assert_eq!(
                verifier.verify(token, TEST_NOW).await,
                Err(Defect::Algorithm.into())
            );
        }
    }
}

#[tokio::test]
async fn keys_named_in_token_header_are_ignored() {
    let (good, evil) = (key(), key());
    let lure = KeyServer::start(ServerAnswer::Body(jwks([&evil]))).await;
    let header = json!({
        "alg": "ES256", "kid": good.kid(), "jwk": evil.jwk(), "jku": lure.url, "x5u": lure.url, "x5c": ["AAAA"],
    });
    let server = KeyServer::start(ServerAnswer::Body(jwks([&good]))).await;
    let verifier = RunningVerifier::ready(&server.url, &[]).await;
    let forged = evil.sign(&header, &claims().to_json()).unwrap();
    assert_eq!(
        verifier.verify(&forged, TEST_NOW).await,
        Err(Defect::Signature.into())
    );
    assert_eq!(lure.requests(), 0);
}

#[tokio::test]
async fn a_claim_that_comes_twice_is_invalid() {
    let key = key();
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let payload = claims()
        .to_json()
        .to_string()
        .replacen('{', r#"{"sub":"bob","#, 1);
    let header = part(r#"{"alg":"ES256"}"#);
    let token = key
        .sign_text(&format!("{header}.{}", part(&payload)))
        .unwrap();
    let refused = verifier_of(&key, &[]).verify(&token, TEST_NOW).await;
    assert_eq!(refused, Err(Defect::Json("payload").into()));
}

#[tokio::test]
async fn a_refusal_never_shows_the_token() {
    let key = key();
    let token = key.mint(&with("exp", 1)).unwrap();
    let verifier = verifier_of(&key, &[]);
    let error = verifier.verify(&token, TEST_NOW).await.unwrap_err();
    for part in token.split('.') {
        assert!(!format!("{error} {error:?} {verifier:?}").contains(part));
    }
}
