//! The WebSocket's description as a page for people: HTML made from the AsyncAPI document, without a script.

#![expect(
    clippy::indexing_slicing,
    reason = "a JSON value read by a name that is not there is null"
)]

use std::fmt::Write as _;

use pulldown_cmark::{CowStr, Event, Options, Parser, Tag, html};
use serde_json::Value;

/// The page around the description.
const PAGE_TEMPLATE: &str = include_str!("websocket.html");
const DESCRIPTION_MARK: &str = "<!-- the description -->";

/// A part of the page: its title, and which messages stand in it.
struct Part {
    title: &'static str,
    holds: fn(&str) -> bool,
}

/// Events are the messages of the gateway whose types have a dot.
const PAGE_PARTS: [Part; 3] = [
    Part {
        title: "Frames from a client",
        holds: |key| key.starts_with("client."),
    },
    Part {
        title: "Frames from the gateway",
        holds: |key| key.starts_with("server.") && !is_event(key),
    },
    Part {
        title: "Events",
        holds: is_event,
    },
];

fn is_event(key: &str) -> bool {
    key.strip_prefix("server.")
        .is_some_and(|name| name.contains('.'))
}

/// The page of a description.
pub(super) fn page(document: &Value) -> String {
    let text = markdown(document);
    let options = Options::ENABLE_TABLES | Options::ENABLE_HEADING_ATTRIBUTES;
    let mut body = String::new();
    html::push_html(&mut body, Parser::new_ext(&text, options).map(to_page));
    PAGE_TEMPLATE.replacen(DESCRIPTION_MARK, &body, 1)
}

/// The description links to what stands beside `/asyncapi.json`, which is one level above this page. Its text makes no elements.
fn to_page(event: Event<'_>) -> Event<'_> {
    match event {
        Event::Start(Tag::Link {
            link_type,
            dest_url,
            title,
            id,
        }) if !dest_url.starts_with('#') => Event::Start(Tag::Link {
            link_type,
            dest_url: CowStr::from(format!("../{dest_url}")),
            title,
            id,
        }),
        Event::Html(text) | Event::InlineHtml(text) => Event::Text(text),
        other => other,
    }
}

/// The description as one Markdown text.
fn markdown(document: &Value) -> String {
    let (info, parts) = (&document["info"], &document["components"]);
    let messages = members(&parts["messages"]);
    let mut out = format!(
        "# {} {}: the WebSocket\n\n",
        text(&info["title"]),
        text(&info["version"])
    );
    push(&mut out, text(&info["description"]));
    for part in &PAGE_PARTS {
        push(&mut out, &format!("## {}", part.title));
        let held = messages.clone().filter(|(key, _)| (part.holds)(key));
        push_contents(&mut out, held.clone());
        for (key, message) in held {
            push_message(&mut out, key, message, document);
        }
    }
    push(&mut out, "## Types");
    for (name, schema) in members(&parts["schemas"]) {
        push(&mut out, &format!("### {name} {{#{name}}}"));
        push(&mut out, text(&schema["description"]));
        push_values(&mut out, schema);
        push_fields(&mut out, schema);
    }
    out
}

fn push_contents<'a>(out: &mut String, messages: impl Iterator<Item = (&'a String, &'a Value)>) {
    let rows = messages.map(|(key, message)| {
        let (name, summary) = (text(&message["name"]), text(&message["summary"]));
        [format!("[`{name}`](#{key})"), summary.to_owned()]
    });
    push_table(out, ["type", "says"], rows);
}

fn push_message(out: &mut String, key: &str, message: &Value, document: &Value) {
    let (name, payload) = (text(&message["name"]), &message["payload"]);
    push(out, &format!("### {name} {{#{key}}}"));
    push(out, &format!("**{}**", text(&message["summary"])));
    push(out, text(&message["description"]));
    push_answers(out, &document["operations"][format!("receive.{name}")]);
    match payload["oneOf"].as_array() {
        Some(variants) => {
            for variant in variants {
                push(out, &format!("*{}*", text(&variant["title"])));
                push_fields(out, variant);
            }
        }
        None => push_fields(out, payload),
    }
    let example = &message["examples"][0]["payload"];
    push(out, &format!("```json\n{example:#}\n```"));
}

/// The frames that may answer one of a client's.
fn push_answers(out: &mut String, operation: &Value) {
    let answers = operation["reply"]["messages"].as_array();
    let links = answers.into_iter().flatten().filter_map(|answer| {
        let key = answer["$ref"].as_str()?.rsplit('/').next()?;
        let name = key.strip_prefix("server.")?;
        Some(format!("[`{name}`](#{key})"))
    });
    let links: Vec<_> = links.collect();
    if !links.is_empty() {
        push(out, &format!("Answered by {}.", links.join(" or ")));
    }
}

/// The values that a text may have.
fn push_values(out: &mut String, schema: &Value) {
    let values = schema["enum"].as_array().into_iter().flatten();
    let values: Vec<_> = values.map(|value| format!("`{}`", text(value))).collect();
    push(out, &values.join(", "));
}

/// A table of the fields of an object, and of the objects in it that have no name.
fn push_fields(out: &mut String, schema: &Value) {
    let mut rows = Vec::new();
    collect_fields(&mut rows, "", schema);
    if !rows.is_empty() {
        push_table(out, ["field", "value", "required", "meaning"], rows);
    }
}

fn collect_fields(rows: &mut Vec<[String; 4]>, prefix: &str, schema: &Value) {
    let required = schema["required"].as_array();
    for (name, field) in members(&schema["properties"]) {
        let is_required = required.is_some_and(|all| all.iter().any(|one| one == name));
        rows.push([
            format!("`{prefix}{name}`"),
            value_of(field),
            if is_required { "yes" } else { "" }.to_owned(),
            meaning(field).to_owned(),
        ]);
        collect_fields(rows, &format!("{prefix}{name}."), field);
    }
}

/// What a field may hold.
fn value_of(schema: &Value) -> String {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.rsplit('/').next().unwrap_or_default();
        return format!("[{name}](#{name})");
    }
    if let Some(constant) = schema.get("const") {
        return format!("`{constant}`");
    }
    if let Some(options) = schema["oneOf"].as_array() {
        return any_of(options.iter().map(value_of));
    }
    match &schema["type"] {
        Value::String(name) => named(name, schema),
        Value::Array(names) => any_of(names.iter().map(|name| named(text(name), schema))),
        _ => "any JSON".to_owned(),
    }
}

/// A value of a type of JSON Schema.
fn named(name: &str, schema: &Value) -> String {
    match name {
        "array" => format!("array of {}", value_of(&schema["items"])),
        "object" if schema["propertyNames"].is_object() => {
            format!(
                "object of {} by id",
                value_of(&schema["additionalProperties"])
            )
        }
        "string" if schema["format"] == "uuid" => "UUID".to_owned(),
        other => other.to_owned(),
    }
}

fn any_of(options: impl Iterator<Item = String>) -> String {
    options.collect::<Vec<_>>().join(" or ")
}

/// What a field says of itself; a reference that may be null has it inside.
fn meaning(schema: &Value) -> &str {
    let own = schema["description"].as_str();
    let inner = || schema["oneOf"][0]["description"].as_str();
    own.or_else(inner).unwrap_or_default()
}

fn push_table<const N: usize>(
    out: &mut String,
    head: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) {
    let mut table = format!("| {} |\n|{}", head.join(" | "), "---|".repeat(N));
    for row in rows {
        let cells = row.map(|cell| cell.replace('|', "\\|").replace('\n', " "));
        let _infallible = write!(table, "\n| {} |", cells.join(" | "));
    }
    push(out, &table);
}

/// A block of its own.
fn push(out: &mut String, block: &str) {
    out.push_str(block);
    out.push_str("\n\n");
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> + Clone {
    value.as_object().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_is_on_the_page_in_full() {
        let document = crate::api_docs::asyncapi::document(None);
        let page = page(&document);
        let messages: Vec<_> = members(&document["components"]["messages"]).collect();
        assert_eq!(messages.len(), 32);
        for (key, message) in messages {
            let (_, from_its_title) = page
                .split_once(&format!("<h3 id=\"{key}\">{}</h3>", text(&message["name"])))
                .unwrap_or_else(|| panic!("{key} has no title"));
            let own = from_its_title.split("<h3 ").next().unwrap();
            let in_parts = PAGE_PARTS.iter().filter(|part| (part.holds)(key)).count();
            assert_eq!(in_parts, 1, "{key}");
            let example = &message["examples"][0]["payload"];
            for (field, _) in members(example) {
                let (in_table, in_example) =
                    (format!("<code>{field}</code>"), format!("{field:?}:"));
                assert!(own.contains(&in_table), "{key} {field}");
                assert!(
                    own.replace("&quot;", "\"").contains(&in_example),
                    "{key} {field}"
                );
            }
        }
    }

    #[test]
    fn every_link_within_the_page_leads_somewhere() {
        let page = page(&crate::api_docs::asyncapi::document(None));
        let targets: Vec<_> = page.split("href=\"#").skip(1).collect();
        assert!(targets.len() > 100);
        for target in targets {
            let id = target.split('"').next().unwrap();
            assert!(page.contains(&format!(" id=\"{id}\"")), "{id}");
        }
        assert!(page.contains("href=\"../openapi.json\""));
    }

    #[test]
    fn close_codes_are_a_table_on_the_page() {
        let document = crate::api_docs::asyncapi::document(None);
        let page = page(&document);
        for close in document["x-close-codes"].as_array().unwrap() {
            let cell = format!("<td>{}</td>", close["code"]);
            assert!(page.contains(&cell), "{cell}");
        }
    }

    #[test]
    fn text_of_a_description_makes_no_element() {
        let document = serde_json::json!({
            "info": { "title": "<script>a</script>", "description": "b <img src=x> c" },
        });
        let page = page(&document);
        assert!(
            !page.contains("<script") && !page.contains("<img"),
            "{page}"
        );
    }
}
