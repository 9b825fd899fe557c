use std::collections::BTreeSet;

use confab_protocol::error::{Code, Failure};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::*;
use crate::api_docs::openapi::problems;

/// All operations, each with its path and method.
fn operations(document: &Value) -> Vec<(String, String, &Value)> {
    let paths = document["paths"].as_object().unwrap();
    let mut all = Vec::new();
    for (path, item) in paths {
        for (method, operation) in item.as_object().unwrap() {
            all.push((path.clone(), method.clone(), operation));
        }
    }
    all
}

#[test]
fn the_description_of_http() {
    insta::assert_snapshot!(format!("{:#}", openapi(None)));
}

#[test]
fn every_operation_has_name_description_and_example() {
    let document = openapi(None);
    for (path, method, operation) in operations(&document) {
        let at = format!("{method} {path}");
        for text in ["operationId", "summary", "description"] {
            let said = operation[text].as_str().unwrap_or_default();
            assert!(!said.is_empty(), "{at} has no {text}");
        }
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let said = parameter["description"].is_string() || parameter["$ref"].is_string();
            assert!(said, "{at}: {}", parameter["name"]);
        }
        for body in operation["requestBody"]["content"]
            .as_object()
            .into_iter()
            .flatten()
        {
            assert!(
                body.1["examples"].is_object(),
                "{at} has no example of its body"
            );
        }
        for (status, response) in operation["responses"].as_object().unwrap() {
            for media in response["content"].as_object().into_iter().flatten() {
                assert!(
                    media.1["examples"].is_object(),
                    "{at} has no example of {status}"
                );
            }
        }
    }
}

#[test]
fn every_operation_lists_its_own_codes() {
    let document = openapi(None);
    let described: BTreeSet<_> = operations(&document)
        .into_iter()
        .filter(|(path, ..)| path.starts_with("/v1/"))
        .map(|(_, _, operation)| operation["operationId"].as_str().unwrap())
        .collect();
    assert_eq!(described, problems::operations().collect());
}

#[test]
fn every_code_over_http_is_described() {
    let text = problems::responses().to_string();
    // What only ends a socket, and what answers no operation of ours.
    let elsewhere = [
        Code::SlowConsumer,
        Code::SessionReplaced,
        Code::HelloTimeout,
        Code::BadFrames,
        Code::MethodNotAllowed,
    ];
    for code in Code::ALL.iter().filter(|code| !elsewhere.contains(code)) {
        assert!(text.contains(&format!("`{code}`")), "{code}");
    }
}

#[test]
fn every_link_leads_to_operation_with_its_parameters() {
    let document = openapi(None);
    let all = operations(&document);
    for (_, _, operation) in &all {
        for (_, response) in operation["responses"].as_object().unwrap() {
            for (name, link) in response["links"].as_object().into_iter().flatten() {
                let to = all
                    .iter()
                    .find(|(_, _, other)| other["operationId"] == link["operationId"]);
                let (_, _, to) = to.unwrap_or_else(|| panic!("{name} leads nowhere"));
                let taken: Vec<_> = to["parameters"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|p| &p["name"])
                    .collect();
                for parameter in link["parameters"].as_object().into_iter().flatten() {
                    assert!(
                        taken.contains(&&json!(parameter.0)),
                        "{name}: {}",
                        parameter.0
                    );
                }
            }
        }
    }
}

#[test]
fn every_reference_leads_somewhere() {
    let document = openapi(None);
    let text = document.to_string();
    for part in text.split("\"$ref\":\"#").skip(1) {
        let pointer = part.split('"').next().unwrap();
        assert!(document.pointer(pointer).is_some(), "{pointer}");
    }
}

type Parser = fn(&[u8]) -> Result<(), Failure>;

/// A body's schema, and what reads it.
const BODY_PARSERS: [(&str, Parser); 8] = [
    ("CreateConversation", |body| {
        conversations::read_creation(body, "k".into()).map(drop)
    }),
    ("UpdateConversation", |body| {
        metadata::read_patch(body).map(drop)
    }),
    ("AddParticipants", |body| {
        participants::read_additions(body).map(drop)
    }),
    ("UpdateParticipant", |body| {
        participants::read_role(body).map(drop)
    }),
    ("SendMessage", |body| {
        messages::read_message(body, None).map(drop)
    }),
    ("EditMessage", |body| messages::read_edit(body).map(drop)),
    ("MarkRead", |body| reads::read_mark(body).map(drop)),
    ("Revoke", |body| {
        revocations::read_target(body, OffsetDateTime::UNIX_EPOCH).map(drop)
    }),
];

/// The names of a schema's properties, of all its variants.
fn properties(schemas: &Value, schema: &Value) -> BTreeSet<String> {
    if let Some(name) = schema["$ref"].as_str() {
        return properties(schemas, &schemas[name.rsplit('/').next().unwrap()]);
    }
    let own = schema["properties"].as_object().into_iter().flatten();
    let variants = schema["oneOf"].as_array().into_iter().flatten();
    own.map(|(name, _)| name.clone())
        .chain(variants.flat_map(|variant| properties(schemas, variant)))
        .collect()
}

fn is_known(parse: Parser, body: &str, pointer: &str) -> bool {
    let errors = match parse(body.as_bytes()) {
        Ok(()) => return true,
        Err(failure) => failure.extension.errors,
    };
    !errors
        .iter()
        .any(|error| error.pointer == pointer && error.message == "is not a known field")
}

#[test]
fn body_takes_exactly_fields_of_its_schema() {
    let document = openapi(None);
    let schemas = &document["components"]["schemas"];
    let names = |name: &str| properties(schemas, &schemas[name]);
    let mut all: BTreeSet<_> = BODY_PARSERS
        .iter()
        .flat_map(|(name, _)| names(name))
        .collect();
    all.insert("typo".to_owned());
    for (name, parse) in BODY_PARSERS {
        let taken = names(name);
        assert!(!taken.is_empty(), "{name}");
        for field in &all {
            let known = is_known(parse, &format!("{{\"{field}\":0}}"), &format!("/{field}"));
            assert_eq!(known, taken.contains(field), "{name}: {field}");
        }
    }
    let (_, create) = BODY_PARSERS[0];
    for (name, parse) in [
        ("NewMetadata", create),
        ("MetadataPatch", BODY_PARSERS[1].1),
    ] {
        let mut fields = names(name);
        assert_eq!(fields.len(), 4);
        fields.insert("typo".to_owned());
        for field in fields {
            let body = format!("{{\"metadata\":{{\"{field}\":0}}}}");
            let known = is_known(parse, &body, &format!("/metadata/{field}"));
            assert_eq!(known, field != "typo", "{name}: {field}");
        }
    }
}

#[test]
fn body_bounds_are_wire_limits() {
    let document = openapi(None);
    let schemas = &document["components"]["schemas"];
    let users = &schemas["CreateConversation"]["properties"]["participants"];
    assert_eq!(
        users["maxItems"],
        confab_protocol::limits::PARTICIPANTS_PER_REQUEST
    );
    let closed = |name: &str| schemas[name]["additionalProperties"] == false;
    for name in [
        "CreateConversation",
        "NewMetadata",
        "UpdateConversation",
        "MetadataPatch",
        "Addition",
    ] {
        assert!(closed(name), "{name}");
    }
}

#[test]
fn what_is_tried_out_first_is_plain() {
    let api = openapi(None);
    let examples = &api["paths"]["/v1/messages"]["post"]["requestBody"]["content"]["application/json"]
        ["examples"];
    let (_, first) = examples.as_object().unwrap().iter().next().unwrap();
    assert!(first["value"]["content"].is_object(), "{first}");
    // What has an example is sent with each request that is tried.
    let id = &api["components"]["parameters"]["RequestId"];
    assert!(id.get("example").is_none() && id["schema"].get("default").is_none());
}
