//! Forged tokens that must be refused.

use confab_protocol::error::Code;
use serde_json::json;

use super::{changed, merged, now};
use crate::support::{Key, claims, hs256, unsigned};

/// A token that must be refused: what is wrong with it, the token, and the code.
pub(super) type Case = (String, String, Code);

/// All of them, of a service whose tokens are signed with `key`.
pub(super) fn cases(key: &Key) -> Vec<Case> {
    let mut cases = bad_claims(key);
    cases.extend(bad_times(key));
    cases.extend(bad_signatures(key));
    cases.extend(bad_headers(key));
    cases
}

fn bad_claims(key: &Key) -> Vec<Case> {
    let mut cases = Vec::new();
    for name in ["sub", "exp", "iat", "iss", "aud"] {
        let mut without = claims("eve");
        without.as_object_mut().unwrap().remove(name);
        cases.push((
            format!("no {name}"),
            key.token(&without),
            Code::InvalidToken,
        ));
    }
    let long = "x".repeat(129);
    let changes = [
        json!({"iss": "another"}),
        json!({"aud": "another"}),
        json!({"aud": ["another", "others"]}),
        json!({"aud": []}),
        json!({"sub": ""}),
        json!({"sub": long}),
        json!({"sub": "a\u{0}"}),
        json!({"sub": "a\nb"}),
        json!({"sub": 7}),
        json!({"deviceId": ""}),
        json!({"sessionId": ["x"]}),
        json!({"exp": "soon"}),
        json!({"exp": now() + 400 * 24 * 3600}),
        json!({"exp": -1}),
        json!({"iat": null}),
        json!({"nbf": "now"}),
        json!({"tenant": "no spaces"}),
        json!({"tenant": null}),
        json!({"scope": {"confab:admin": true}}),
        json!({"scope": ["confab:read", 7]}),
    ];
    cases.extend(changes.map(|change| {
        let token = key.token(&changed(&change));
        (change.to_string(), token, Code::InvalidToken)
    }));
    cases
}

/// Each is beyond the leeway of 30 s, far enough for a slow machine.
fn bad_times(key: &Key) -> Vec<Case> {
    let changes = [
        (json!({"exp": now() - 31}), Code::TokenExpired),
        (json!({"exp": 0}), Code::TokenExpired),
        (json!({"nbf": now() + 300}), Code::TokenNotYetValid),
        (json!({"iat": now() + 300}), Code::TokenNotYetValid),
    ];
    changes
        .map(|(change, code)| (change.to_string(), key.token(&changed(&change)), code))
        .into()
}

fn bad_signatures(key: &Key) -> Vec<Case> {
    let pem = key.public_pem();
    let claims = claims("eve");
    let good = key.token(&claims);
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let other = Key::es256("other").token(&changed(&json!({"sub": "mallory"})));
    let tokens = [
        ("none", unsigned(&claims)),
        ("no signature", format!("{signed}.")),
        (
            "a foreign signature",
            format!("{signed}.{}", other.rsplit_once('.').unwrap().1),
        ),
        (
            "other claims",
            format!("{}.{signature}", other.rsplit_once('.').unwrap().0),
        ),
        ("a foreign key", Key::es256(&key.id).token(&claims)),
        ("a key of another kind", Key::rs256(&key.id).token(&claims)),
        (
            "EdDSA, not allowed here",
            Key::eddsa(&key.id).token(&claims),
        ),
        ("HS256 by the PEM", hs256(pem.as_bytes(), &key.id, &claims)),
        (
            "HS256 by the PEM, trimmed",
            hs256(pem.trim().as_bytes(), &key.id, &claims),
        ),
        ("HS256 by nothing", hs256(b"", &key.id, &claims)),
        ("two parts", signed.to_owned()),
        ("four parts", format!("{good}.{signature}")),
        ("padding", format!("{good}==")),
        ("no token at all", "x".to_owned()),
        (
            "JSON serialization",
            json!({"payload": signed, "signature": signature}).to_string(),
        ),
    ];
    tokens
        .map(|(what, token)| (what.to_owned(), token, Code::InvalidToken))
        .into()
}

/// Signed with the right key, but for the last.
fn bad_headers(key: &Key) -> Vec<Case> {
    let base = json!({"typ": "JWT", "alg": "ES256", "kid": key.id});
    let changes = [
        json!({"alg": "es256"}),
        json!({"alg": "none"}),
        json!({"alg": "None"}),
        json!({"alg": "HS256"}),
        json!({"alg": "RS256"}),
        json!({"alg": "PS256"}),
        json!({"alg": null}),
        json!({"alg": ["ES256"]}),
        json!({"crit": ["b64"], "b64": false}),
        json!({"crit": []}),
        json!({"typ": "dpop+jwt"}),
        json!({"kid": 7}),
    ];
    let mut cases: Vec<Case> = changes
        .map(|change| {
            let token = key.token_with(&merged(&base, &change), &claims("eve"));
            (change.to_string(), token, Code::InvalidToken)
        })
        .into();
    let own = Key::es256(&key.id);
    let brought = merged(
        &base,
        &json!({"jwk": own.jwk(), "jku": "http://127.0.0.1:1/", "x5u": "http://127.0.0.1:1/"}),
    );
    let token = own.token_with(&brought, &claims("eve"));
    cases.push(("a key of its own".to_owned(), token, Code::InvalidToken));
    cases
}
