use serde_json::{Value, json};

use super::*;
use crate::mint::Key;
use crate::testing::{TEST_NOW, claims, verifier_of};

fn explained(arguments: &[&str], change: Value) -> (String, String) {
    let key = Key::generate().unwrap();
    let mut claims = claims();
    claims.extra = change.as_object().unwrap().clone();
    let token = key.mint(&claims).unwrap();
    let text = verifier_of(&key, arguments)
        .explain(&token, TEST_NOW)
        .to_string();
    (text, token)
}

#[test]
fn every_part_is_named_with_its_claim() {
    let paths = ["--jwt-user-claim", "/user/id", "--jwt-tenant-claim", "org"];
    let change =
        json!({"user": {"id": "u1"}, "org": "acme", "scope": "openid confab:read", "email": "a@b"});
    let (text, token) = explained(&paths, change);
    for line in [
        "ok     issuer    https://id: the issuer of the flags --jwt-…",
        "ok     key       the signature is good",
        "ok     audience  confab, from aud",
        "ok     client    any is taken",
        "ok     user      u1, from /user/id",
        "ok     tenant    acme, from org",
        "ok     device    device, from deviceId",
        "ok     login     login, from sessionId",
        "ok     scope     may read, from scope, scp, roles, permissions",
        "ok     times     good for 1h more, of 1h",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    let last = text.lines().last().unwrap();
    assert_eq!(last, "ok     not used  the claims email, sub");
    assert!(
        !text.contains("a@b"),
        "of what is not used only the name is shown"
    );
    for part in token.split('.') {
        assert!(!text.contains(part));
    }
}

#[test]
fn what_stands_in_for_missing_claims_is_told() {
    let gone = json!({"deviceId": null, "sessionId": null});
    let (text, _) = explained(&[], gone);
    for line in [
        "tenant    default: there is no tenant, which is optional",
        "device    default: there is no deviceId, which is optional",
        "login     none: there is no sessionId, which is optional",
        "scope     may read, write",
        "not used  no other claims",
    ] {
        assert!(text.contains(&format!("ok     {line}")), "{line}\n{text}");
    }
}

#[test]
fn explanation_lists_every_defect_with_remedy() {
    let settings = [
        "--jwt-device-claim",
        "did",
        "--jwt-client-claim",
        "azp",
        "--jwt-clients",
        "web",
    ];
    let change =
        json!({"aud": "other", "azp": "bad", "tenant": "a b", "sub": null, "exp": 1782900000});
    let (text, _) = explained(&settings, change);
    for (about, remedy) in [
        ("audience  ", "--jwt-audience"),
        ("client    ", "--jwt-clients"),
        ("user      no claim \"sub\"", "--jwt-user-claim"),
        ("tenant    bad claim", "--jwt-tenant-claim"),
        ("device    no claim \"did\"", "--jwt-device-optional"),
        ("times     the token has expired", "clocks"),
    ] {
        let mut lines = text.lines().skip_while(|line| !line.contains(about));
        let line = lines.next().unwrap_or_else(|| panic!("{about}\n{text}"));
        assert!(line.starts_with("WRONG"), "{line}");
        assert!(lines.next().unwrap().contains(remedy), "{about}\n{text}");
    }
}

#[test]
fn what_cannot_be_read_is_told_too() {
    let key = Key::generate().unwrap();
    let verifier = verifier_of(&key, &[]);
    let text = |token: &str| verifier.explain(token, TEST_NOW).to_string();
    assert!(text("opaque").contains("WRONG  form      not three parts"));
    let none = key.sign(&json!({"alg": "none"}), &json!({})).unwrap();
    assert!(text(&none).contains("--jwt-algorithms"));
    let stranger = Key::generate().unwrap().mint(&claims()).unwrap();
    assert!(text(&stranger).contains("WRONG  key       bad signature"));
}

#[test]
fn outline_has_names_and_no_values() {
    let key = Key::generate().unwrap();
    let long = "x".repeat(300);
    let payload = json!({"iss": "i\n", "aud": ["a", 1, long], "sub": "secret", "n\u{1b}": 1});
    let token = key.sign(&json!({"alg": "ES256"}), &payload).unwrap();
    let outline = outline(&token).unwrap();
    assert_eq!(outline.issuer.as_deref(), Some("i\\n"));
    assert_eq!(
        outline.audience,
        ["a".to_owned(), format!("{}…", "x".repeat(200))]
    );
    assert_eq!(outline.claims, ["aud", "iss", "n\\u{1b}", "sub"]);
    assert_eq!(super::outline("a.b.c"), None);
}
