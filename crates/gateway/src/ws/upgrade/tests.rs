use axum::http::Request;

use super::*;

/// The handshake of RFC 6455 section 1.3.
const SAMPLE_HEADERS: [(&str, &str); 4] = [
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("Sec-WebSocket-Version", "13"),
];

/// The sample without the headers named in `instead`, and with those.
fn parts(instead: &[(&str, &str)]) -> Parts {
    let kept = SAMPLE_HEADERS
        .iter()
        .filter(|(name, _)| instead.iter().all(|(other, _)| name != other));
    let mut request = Request::get("/v1/ws");
    for (name, value) in kept.chain(instead.iter().filter(|(_, value)| !value.is_empty())) {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn refusal(instead: &[(&str, &str)]) -> Rejection {
    Handshake::from_parts(&parts(instead)).expect_err("a refusal")
}

#[test]
fn the_sample_of_the_rfc_gets_its_answer() {
    let handshake = Handshake::from_parts(&parts(&[])).unwrap();
    assert_eq!(handshake.encoding, Encoding::Json);
    let response = handshake.response();
    assert_eq!(response.status(), 101);
    let headers = response.headers();
    assert_eq!(
        headers[SEC_WEBSOCKET_ACCEPT],
        "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    );
    assert_eq!(headers[UPGRADE], "websocket");
    assert_eq!(headers[CONNECTION], "upgrade");
    assert!(!headers.contains_key(SEC_WEBSOCKET_PROTOCOL));
    assert!(!headers.contains_key("sec-websocket-extensions"));
}

#[test]
fn header_tokens_are_case_insensitive() {
    let listed = [
        ("Connection", "keep-alive"),
        ("Connection", "foo, UPGRADE"),
        ("Upgrade", "WebSocket"),
    ];
    Handshake::from_parts(&parts(&listed)).unwrap();
}

#[test]
fn the_client_chooses_among_the_subprotocols_we_know() {
    let json = "confab.v1.json";
    let msgpack = "confab.v1.msgpack";
    let cases: [(&[&str], Encoding); 5] = [
        (&[json], Encoding::Json),
        (&[msgpack], Encoding::MsgPack),
        (&["confab.v1.msgpack, confab.v1.json"], Encoding::MsgPack),
        (&["chat,confab.v2.json", json, msgpack], Encoding::Json),
        (&["chat", " confab.v1.msgpack ,x"], Encoding::MsgPack),
    ];
    for (offered, encoding) in cases {
        let offered: Vec<_> = offered
            .iter()
            .map(|names| ("Sec-WebSocket-Protocol", *names))
            .collect();
        let handshake = Handshake::from_parts(&parts(&offered)).unwrap();
        assert_eq!(handshake.encoding, encoding);
        let response = handshake.response();
        assert_eq!(
            response.headers()[SEC_WEBSOCKET_PROTOCOL],
            encoding.subprotocol()
        );
    }
}

#[test]
fn unknown_subprotocols_are_refused() {
    for offered in ["chat", "CONFAB.V1.JSON", "confab.v1.json2", "confab.v1"] {
        let rejection = refusal(&[("Sec-WebSocket-Protocol", offered)]);
        assert_eq!(rejection.failure().code, Code::Validation);
    }
}

#[test]
fn another_version_is_told_the_one_spoken_here() {
    for version in ["", "8", "14", "013", "13, 8"] {
        let rejection = refusal(&[("Sec-WebSocket-Version", version)]);
        assert_eq!(rejection.failure().code, Code::UpgradeRequired);
        assert_eq!(rejection.headers()[SEC_WEBSOCKET_VERSION], "13");
        assert_eq!(rejection.headers()[UPGRADE], "websocket");
    }
    let twice = [
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Version", "13"),
    ];
    assert_eq!(refusal(&twice).failure().code, Code::UpgradeRequired);
}

#[test]
fn bad_handshake_is_refused_naming_header() {
    let cases = [
        ("Connection", ""),
        ("Connection", "keep-alive, upgraded"),
        ("Upgrade", ""),
        ("Upgrade", "h2c"),
        ("Sec-WebSocket-Key", ""),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ"),
        ("Sec-WebSocket-Key", "c2hvcnQ="),
        ("Sec-WebSocket-Key", "?"),
    ];
    for (name, value) in cases {
        let rejection = refusal(&[(name, value)]);
        assert_eq!(rejection.failure().code, Code::Validation);
        assert_eq!(rejection.failure().extension.errors[0].pointer, name);
    }
}

#[test]
fn a_key_with_stray_bits_is_a_key() {
    let key = [("Sec-WebSocket-Key", "AQIDBAUGBwgJCgsMDQ4PEC==")];
    Handshake::from_parts(&parts(&key)).unwrap();
}

#[test]
fn only_get_on_http_1_1_is_upgraded() {
    let mut post = parts(&[]);
    post.method = Method::POST;
    let rejection = Handshake::from_parts(&post).unwrap_err();
    assert_eq!(rejection.failure().code, Code::MethodNotAllowed);
    assert_eq!(rejection.headers()[ALLOW], "GET");

    let mut old = parts(&[]);
    old.version = Version::HTTP_10;
    assert_eq!(
        Handshake::from_parts(&old).unwrap_err().failure().code,
        Code::Validation
    );
}
