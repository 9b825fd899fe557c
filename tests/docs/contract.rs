//! Compares docs/protocol.md and its pages with the service's API descriptions.

use std::collections::BTreeSet;
use std::process::Command;

use confab_protocol::error::Code;
use serde_json::{Deserializer, Value};

use crate::markdown::{blocks, page};
use crate::tables::{quoted, rows, section};

const HTTP_METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

/// What `confab openapi` or `confab asyncapi` prints.
fn description(name: &str) -> Value {
    let confab = Command::new(env!("CARGO_BIN_EXE_confab"))
        .arg(name)
        .output();
    serde_json::from_slice(&confab.unwrap().stdout).unwrap()
}

/// The schema that a schema refers to, or itself.
fn resolved<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(reference) => document.pointer(reference.trim_start_matches('#')).unwrap(),
        None => schema,
    }
}

/// The variants of a schema: itself where it has none.
fn variants<'a>(document: &'a Value, schema: &'a Value) -> Vec<&'a Value> {
    let schema = resolved(document, schema);
    match schema["oneOf"].as_array() {
        Some(all) => all.iter().map(|one| resolved(document, one)).collect(),
        None => vec![schema],
    }
}

/// The names of the properties of all variants, without the type.
fn properties<'a>(document: &'a Value, schema: &'a Value) -> BTreeSet<&'a str> {
    let all = variants(document, schema).into_iter();
    let named = all.filter_map(|one| one["properties"].as_object());
    let names = named.flat_map(|object| object.keys().map(String::as_str));
    names.collect()
}

/// The names of the properties that every variant demands.
fn required<'a>(document: &'a Value, schema: &'a Value) -> BTreeSet<&'a str> {
    let all = variants(document, schema).into_iter().map(|one| {
        let names = one["required"].as_array().into_iter().flatten();
        names.filter_map(Value::as_str).collect::<BTreeSet<_>>()
    });
    all.reduce(|one, other| &one & &other).unwrap_or_default()
}

fn without_type(mut names: BTreeSet<&str>) -> BTreeSet<&str> {
    names.remove("type");
    names
}

#[test]
fn routes_are_those_of_the_description() {
    let (page, document) = (page("protocol/http.md"), description("openapi"));
    let mut shown = BTreeSet::new();
    for row in rows(&page, "method") {
        let [method, path, scope, key, answer, _does] = row[..] else {
            panic!("{row:?}");
        };
        let (method, path) = (method.trim_matches('`'), path.trim_matches('`'));
        let at = format!("{method} {path}");
        let operation = &document["paths"][path][method.to_lowercase()];
        assert!(operation.is_object(), "{at} is no route");
        assert!(shown.insert(at.clone()), "{at} is there twice");

        let needs_no_token = operation["security"] == Value::Array(Vec::new());
        assert_eq!(scope == "none", needs_no_token, "{at}");
        let parameters = operation["parameters"].to_string();
        let takes_key = ["\"Idempotency-Key\"", "parameters/IdempotencyKey\""];
        let takes_key = takes_key.iter().any(|name| parameters.contains(name));
        assert_eq!(key == "yes", takes_key, "{at}");
        assert_answer(&document, operation, answer, &at);
    }
    let all = document["paths"].as_object().unwrap().iter();
    let all = all.flat_map(|(path, item)| {
        let methods = HTTP_METHODS
            .iter()
            .filter(|method| item.get(**method).is_some());
        methods.map(move |method| format!("{} {path}", method.to_uppercase()))
    });
    assert_eq!(shown, all.collect());
}

/// Whether an operation answers with these statuses, and with the fields in braces.
fn assert_answer(document: &Value, operation: &Value, answer: &str, at: &str) {
    let responses = operation["responses"].as_object().unwrap();
    let words = answer.split_whitespace();
    let statuses: Vec<_> = words.filter(|word| word.parse::<u16>().is_ok()).collect();
    let good = responses
        .keys()
        .find(|status| status.starts_with(['1', '2']));
    assert_eq!(statuses.first().copied(), good.map(String::as_str), "{at}");
    assert!(
        statuses
            .iter()
            .all(|status| responses.contains_key(*status)),
        "{at}"
    );
    let fields: BTreeSet<_> = quoted(answer)
        .into_iter()
        .flat_map(|shown| shown.trim_matches(['{', '}']).split(", "))
        .collect();
    let schema = &responses[good.unwrap()]["content"]["application/json"]["schema"];
    assert_eq!(fields, properties(document, schema), "{at}");
}

#[test]
fn resources_have_the_fields_of_the_description() {
    let (page, document) = (page("protocol/http.md"), description("openapi"));
    for (head, name) in [
        ("conversation", "Conversation"),
        ("participant", "Participant"),
        ("message", "Message"),
        ("event", "Event"),
        ("session", "Session"),
    ] {
        let rows = rows(&page, head);
        let shown: BTreeSet<_> = rows.iter().flat_map(|row| quoted(row[0])).collect();
        let schema = &document["components"]["schemas"][name];
        assert_eq!(shown, properties(&document, schema), "{head}");
    }
}

#[test]
fn error_codes_are_those_of_the_service() {
    let page = page("protocol/errors.md");
    let rows = rows(section(&page, "Codes"), "code");
    let shown: BTreeSet<_> = rows
        .iter()
        .map(|row| (row[0].trim_matches('`'), row[1].to_owned(), row[2]))
        .collect();
    assert_eq!(shown.len(), rows.len(), "a code is there twice");
    let all = Code::ALL.iter().map(|code| {
        let retry = if code.retryable() { "yes" } else { "no" };
        (code.as_str(), code.status().to_string(), retry)
    });
    assert_eq!(shown, all.collect());
}

/// The messages of one side, with their names.
fn messages<'a>(document: &'a Value, side: &str) -> Vec<(&'a str, &'a Value)> {
    let all = document["components"]["messages"].as_object().unwrap();
    let of_side = all.iter().filter_map(|(key, message)| {
        let name = key.strip_prefix(side)?;
        Some((name, &message["payload"]))
    });
    of_side.collect()
}

fn is_event(name: &str) -> bool {
    name.contains('.')
}

#[test]
fn frames_have_the_fields_of_the_description() {
    let (page, document) = (page("protocol/websocket.md"), description("asyncapi"));
    for (title, side) in [
        ("Frames from a client", "client."),
        ("Frames from the gateway", "server."),
    ] {
        let rows = rows(section(&page, title), "type");
        let frames = messages(&document, side);
        let frames: Vec<_> = frames.iter().filter(|(name, _)| !is_event(name)).collect();
        assert_eq!(rows.len(), frames.len(), "{title}");
        for (name, schema) in frames {
            let row = rows.iter().find(|row| row[0].trim_matches('`') == *name);
            let row = row.unwrap_or_else(|| panic!("{name} is not in the table"));
            let (demanded, possible) = (quoted(row[1]), quoted(row[2]));
            assert_eq!(
                demanded,
                without_type(required(&document, schema)),
                "{name}"
            );
            let all = without_type(properties(&document, schema));
            assert_eq!(possible, &all - &demanded, "{name}");
        }
    }
}

#[test]
fn events_have_the_data_of_the_description() {
    let (page, document) = (page("protocol/websocket.md"), description("asyncapi"));
    let rows = rows(section(&page, "Events"), "type");
    let events = messages(&document, "server.");
    let events: Vec<_> = events.iter().filter(|(name, _)| is_event(name)).collect();
    assert_eq!(rows.len(), events.len());
    for (name, schema) in events {
        let row = rows.iter().find(|row| row[0].trim_matches('`') == *name);
        let row = row.unwrap_or_else(|| panic!("{name} is not in the table"));
        let data = &schema["properties"]["data"];
        if row[1] == "the message" {
            assert_eq!(data["$ref"], "#/components/schemas/Message", "{name}");
        } else {
            assert_eq!(quoted(row[1]), properties(&document, data), "{name}");
        }
    }
}

#[test]
fn close_codes_are_those_of_the_description() {
    let (page, document) = (page("protocol/websocket.md"), description("asyncapi"));
    let rows = rows(section(&page, "Close codes"), "code");
    let shown: BTreeSet<_> = rows
        .iter()
        .map(|row| (row[0], quoted(row[2]), row[4]))
        .collect();
    let codes = document["x-close-codes"].as_array().unwrap();
    let codes: Vec<_> = codes
        .iter()
        .map(|close| {
            let reasons = close["reasons"].as_array().unwrap().iter();
            let reasons = reasons.filter_map(Value::as_str).collect::<BTreeSet<_>>();
            let resume = if close["resume"] == true { "yes" } else { "no" };
            (close["code"].to_string(), reasons, resume)
        })
        .collect();
    let all = codes
        .iter()
        .map(|(code, reasons, resume)| (code.as_str(), reasons.clone(), *resume));
    assert_eq!(shown, all.collect());
}

#[test]
fn every_frame_has_an_example_with_known_fields() {
    let (page, document) = (page("protocol/websocket.md"), description("asyncapi"));
    for (title, side) in [
        ("Frames from a client", "client."),
        ("Frames from the gateway", "server."),
        ("Events", "server."),
    ] {
        let messages = messages(&document, side);
        let mut shown = BTreeSet::new();
        for block in blocks(section(&page, title)) {
            for frame in Deserializer::from_str(&block.text).into_iter::<Value>() {
                let frame = frame.unwrap();
                let kind = frame["type"].as_str().unwrap();
                let message = messages.iter().find(|(name, _)| *name == kind);
                let (name, schema) = message.unwrap_or_else(|| panic!("no {kind}"));
                let fields = frame.as_object().unwrap().keys().map(String::as_str);
                let fields: BTreeSet<_> = fields.collect();
                assert!(fields.is_subset(&properties(&document, schema)), "{frame}");
                assert!(fields.is_superset(&required(&document, schema)), "{frame}");
                shown.insert(*name);
            }
        }
        let frames = messages.iter().map(|(name, _)| *name);
        let frames: BTreeSet<_> = frames.filter(|name| !is_event(name)).collect();
        assert!(title == "Events" || shown == frames, "{title}: {shown:?}");
    }
}
