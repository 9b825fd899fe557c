use std::collections::BTreeSet;

use confab_protocol::frame::ClientFrame;

use super::*;

#[test]
fn the_description_of_the_websocket() {
    insta::assert_snapshot!(format!("{:#}", document(None)));
}

#[test]
fn every_reference_leads_somewhere() {
    let document = document(None);
    let text = document.to_string();
    for part in text.split("\"$ref\":\"#").skip(1) {
        let pointer = part.split('"').next().unwrap();
        assert!(document.pointer(pointer).is_some(), "{pointer}");
    }
}

#[test]
fn every_message_has_a_name_of_its_own_and_an_example_of_its_type() {
    let mut names = BTreeSet::new();
    for (side, described) in [("client", client::frames()), ("server", server_messages())] {
        for one in described {
            assert_eq!(one.example["type"], one.name.as_str());
            assert!(
                names.insert(format!("{side} {}", one.name)),
                "{side} {}",
                one.name
            );
        }
    }
    assert_eq!(names.len(), 11 + 12 + 9);
}

/// The names of a schema's properties, of all its variants.
fn properties(schema: &Value) -> BTreeSet<String> {
    let own = schema["properties"].as_object().into_iter().flatten();
    let variants = schema["oneOf"].as_array().into_iter().flatten();
    own.map(|(name, _)| name.clone())
        .chain(variants.flat_map(properties))
        .collect()
}

#[test]
fn frame_takes_exactly_fields_of_its_schema() {
    let frames = client::frames();
    let mut all: BTreeSet<_> = frames
        .iter()
        .flat_map(|frame| properties(&frame.payload))
        .collect();
    all.insert("typo".to_owned());
    all.remove("type");
    for frame in &frames {
        let taken = properties(&frame.payload);
        for field in &all {
            let json = format!("{{\"type\":\"{}\",\"{field}\":0}}", frame.name);
            let errors = match ClientFrame::decode(json.as_bytes()) {
                Ok(_) => Vec::new(),
                Err(bad) => bad.failure.extension.errors,
            };
            let known = !errors
                .iter()
                .any(|error| error.message == "is not a known field");
            assert_eq!(known, taken.contains(field), "{}: {field}", frame.name);
        }
    }
}
