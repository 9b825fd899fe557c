//! A message has exactly one of `content` and `encryptedContent`, and an edit may have neither: as one type it can only be said in words.

use serde_json::{Map, Value, json};

/// Bodies that carry a message's content.
const CONTENT_BODIES: [&str; 2] = ["SendMessage", "EditMessage"];

/// Says of the bodies with content that they are one of two.
pub(super) fn exactly_one(schemas: &mut Map<String, Value>) {
    schemas.remove("Content");
    for name in CONTENT_BODIES {
        if let Some(schema) = schemas.get_mut(name) {
            *schema = split(schema);
        }
    }
}

/// The body in clear, or encrypted.
pub(super) fn split(schema: &Value) -> Value {
    let parts = schema["allOf"].as_array().map(Vec::as_slice);
    let mut properties = Map::new();
    let mut required = Vec::new();
    for part in parts.unwrap_or_else(|| std::slice::from_ref(schema)) {
        properties.extend(part["properties"].as_object().cloned().unwrap_or_default());
        required.extend(part["required"].as_array().cloned().unwrap_or_default());
    }
    properties.extend(content());
    let mut variants = vec![
        variant(
            "In clear.",
            &properties,
            &required,
            ("content", &["encryptedContent", "payloadSizeBytes"]),
        ),
        variant(
            "Encrypted.",
            &properties,
            &required,
            ("encryptedContent", &["content"]),
        ),
    ];
    // Where nothing else is required, the content stays as it is.
    if required.is_empty() {
        let mut properties = properties;
        let metadata = properties.get("metadata").cloned().unwrap_or_default();
        properties.insert("metadata".to_owned(), without_null(metadata));
        let others = ["content", "encryptedContent", "payloadSizeBytes"];
        variants.push(variant(
            "Metadata alone.",
            &properties,
            &required,
            ("metadata", &others),
        ));
    }
    json!({ "description": schema["description"], "oneOf": variants })
}

fn without_null(mut schema: Value) -> Value {
    if let Some(types) = schema["type"].as_array() {
        let one = types.iter().find(|one| *one != "null").cloned();
        schema["type"] = one.unwrap_or_default();
    }
    schema
}

fn content() -> Map<String, Value> {
    let schema = <super::bodies::Content as utoipa::PartialSchema>::schema();
    let schema = serde_json::to_value(schema).unwrap_or_default();
    schema["properties"]
        .as_object()
        .cloned()
        .unwrap_or_default()
}

/// A body that has `one` content, and in place of the `others` nothing.
fn variant(
    title: &str,
    properties: &Map<String, Value>,
    required: &[Value],
    (one, others): (&str, &[&str]),
) -> Value {
    let mut properties = properties.clone();
    for other in others {
        properties.insert(
            (*other).to_owned(),
            json!({ "type": "null", "description": "Not given here." }),
        );
    }
    let mut required = required.to_vec();
    required.push(json!(one));
    json!({
        "type": "object",
        "title": title,
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}
