//! A conversation's metadata: name, description, avatar, custom.

use confab_protocol::error::Failure;
use confab_protocol::json::{Fields, JsonText};
use confab_protocol::limits;
use serde::Serialize;

/// The members that were given, in one order.
#[derive(Debug, Default, Serialize)]
struct Metadata {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    avatar: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    custom: Option<JsonText>,
}

/// Takes `metadata` out of a body; what is wrong is noted in `fields`.
pub(super) fn take(fields: &mut Fields<'_>) -> JsonText {
    let Some(raw) = fields.raw("metadata") else {
        return JsonText::empty_object();
    };
    match read(raw.get().as_bytes()) {
        Ok(metadata) => metadata,
        Err(failure) => {
            fields.absorb(failure);
            JsonText::empty_object()
        }
    }
}

fn read(json: &[u8]) -> Result<JsonText, Failure> {
    let mut fields = Fields::parse_at(json, "/metadata")?;
    let metadata = Metadata {
        name: text(&mut fields, "name", limits::NAME_CHARS),
        description: text(&mut fields, "description", limits::DESCRIPTION_CHARS),
        avatar: text(&mut fields, "avatar", limits::AVATAR_CHARS),
        custom: fields.object("custom", limits::CUSTOM),
    };
    if metadata
        .avatar
        .as_deref()
        .is_some_and(|url| !is_web_address(url))
    {
        fields.reject("avatar", "must be an http or https URL");
    }
    fields.finish()?;
    Ok(JsonText::of(&metadata).unwrap_or_else(|_unprintable| JsonText::empty_object()))
}

fn text(fields: &mut Fields<'_>, name: &str, chars: usize) -> Option<String> {
    let text = fields.take::<String>(name)?;
    if text.chars().nth(chars).is_some() {
        fields.reject(name, format!("must be at most {chars} characters"));
    }
    if text.contains('\0') {
        fields.reject(name, "must not contain U+0000");
    }
    Some(text)
}

fn is_web_address(url: &str) -> bool {
    let uri: Result<axum::http::Uri, _> = url.parse();
    uri.is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|h| !h.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(json: &str) -> Result<String, Vec<String>> {
        let body = format!(r#"{{"metadata":{json}}}"#);
        let mut fields = Fields::parse(body.as_bytes()).unwrap();
        let metadata = take(&mut fields);
        let pointers = |f: Failure| f.extension.errors.into_iter().map(|e| e.pointer).collect();
        fields
            .finish()
            .map_err(pointers)
            .map(|()| metadata.into_string())
    }

    #[test]
    fn only_what_was_given_is_kept_and_what_is_bad_is_named() {
        assert_eq!(taken("null").unwrap(), "{}");
        assert_eq!(
            taken(r#"{"custom":{"b": 1},"name":"x"}"#).unwrap(),
            r#"{"name":"x","custom":{"b": 1}}"#
        );
        assert_eq!(taken("[]").unwrap_err(), ["/metadata"]);
        let bad = format!(
            r#"{{"name":"{}","avatar":"ftp://x","custom":[],"typo":1}}"#,
            "x".repeat(201)
        );
        let mut pointers = taken(&bad).unwrap_err();
        pointers.sort();
        assert_eq!(
            pointers,
            [
                "/metadata/avatar",
                "/metadata/custom",
                "/metadata/name",
                "/metadata/typo"
            ]
        );
        assert_eq!(
            taken(r#"{"name":"a\u0000"}"#).unwrap_err(),
            ["/metadata/name"]
        );
    }
}
