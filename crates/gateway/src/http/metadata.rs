//! A conversation's metadata: name, description, avatar, custom.

use confab_protocol::error::{Code, Failure};
use confab_protocol::json::{Fields, JsonText};
use confab_protocol::limits;
use serde::Serialize;
use url::Url;

/// What becomes of a member.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Change<T> {
    /// It goes: null in a merge patch (RFC 7396).
    Remove,
    /// It becomes this.
    Set(T),
}

/// The members that were given, in one order.
#[derive(Debug, Default, Serialize)]
struct Metadata {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<Change<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<Change<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    avatar: Option<Change<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    custom: Option<Change<JsonText>>,
}

/// Takes `metadata` out of a body; what is wrong is noted in `fields`.
pub(super) fn take(fields: &mut Fields<'_>) -> JsonText {
    let Some(raw) = fields.raw("metadata") else {
        return JsonText::empty_object();
    };
    let given = read(raw.get().as_bytes()).map(|metadata| Metadata {
        name: set(metadata.name),
        description: set(metadata.description),
        avatar: set(metadata.avatar),
        custom: set(metadata.custom),
    });
    noted(fields, given)
}

/// Reads a change of metadata: its JSON merge patch, whose nulls stay.
pub(super) fn read_patch(body: &[u8]) -> Result<JsonText, Failure> {
    let mut fields = Fields::parse(body)?;
    let Some(raw) = fields.raw("metadata") else {
        fields.reject("metadata", "must be given");
        fields.finish()?;
        return Err(Failure::of(Code::Validation));
    };
    let patch = noted(&mut fields, read(raw.get().as_bytes()));
    fields.finish()?;
    Ok(patch)
}

fn noted(fields: &mut Fields<'_>, read: Result<Metadata, Failure>) -> JsonText {
    let text = match read {
        Ok(metadata) => JsonText::of(&metadata).ok(),
        Err(failure) => {
            fields.absorb(failure);
            None
        }
    };
    text.unwrap_or_else(JsonText::empty_object)
}

/// A null says nothing where there is nothing yet.
fn set<T>(change: Option<Change<T>>) -> Option<Change<T>> {
    change.filter(|change| matches!(change, Change::Set(_)))
}

fn read(json: &[u8]) -> Result<Metadata, Failure> {
    let mut fields = Fields::parse_at(json, "/metadata")?;
    let metadata = Metadata {
        name: text(&mut fields, "name", limits::NAME_CHARS),
        description: text(&mut fields, "description", limits::DESCRIPTION_CHARS),
        avatar: text(&mut fields, "avatar", limits::AVATAR_CHARS),
        custom: change(&mut fields, "custom", |fields| {
            fields.object("custom", limits::MAX_CUSTOM_BYTES)
        }),
    };
    if let Some(Change::Set(name)) = &metadata.name
        && name.chars().all(is_blank)
    {
        fields.reject("name", "must not be blank: null removes it");
    }
    if let Some(Change::Set(url)) = &metadata.avatar
        && !is_web_address(url)
    {
        fields.reject("avatar", "must be an http or https URL");
    }
    fields.finish()?;
    Ok(metadata)
}

/// Takes a member out: a null is a change too.
fn change<T>(
    fields: &mut Fields<'_>,
    name: &str,
    take: impl FnOnce(&mut Fields<'_>) -> Option<T>,
) -> Option<Change<T>> {
    let removes = fields.peek(name).is_some_and(|raw| raw.get() == "null");
    let given = take(fields).map(Change::Set);
    given.or_else(|| removes.then_some(Change::Remove))
}

fn text(fields: &mut Fields<'_>, name: &str, chars: usize) -> Option<Change<String>> {
    let given = change(fields, name, |fields| fields.take::<String>(name))?;
    let Change::Set(text) = &given else {
        return Some(given);
    };
    if text.chars().nth(chars).is_some() {
        fields.reject(name, format!("must be at most {chars} characters"));
    }
    if text.contains('\0') {
        fields.reject(name, "must not contain U+0000");
    }
    Some(given)
}

fn is_blank(c: char) -> bool {
    c.is_whitespace() || c.is_control()
}

/// Whether a browser opens it as a page of the web (WHATWG URL, internationalised host names included). What that would mend in silence, a white
/// space or a backslash, is refused.
fn is_web_address(url: &str) -> bool {
    let has_scheme = url.split_once("://").is_some_and(|(scheme, _)| {
        scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
    });
    let is_mended = url.contains(|c: char| is_blank(c) || c == '\\');
    has_scheme && !is_mended && Url::parse(url).is_ok_and(|url| url.has_host())
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
    fn given_fields_are_kept_and_bad_named() {
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

    #[test]
    fn patch_is_object_and_keeps_nulls() {
        let read = |json: &str| {
            let pointers = |f: Failure| -> Vec<_> {
                f.extension.errors.into_iter().map(|e| e.pointer).collect()
            };
            read_patch(json.as_bytes())
                .map(JsonText::into_string)
                .map_err(pointers)
        };
        assert_eq!(read(r#"{"metadata":{}}"#).unwrap(), "{}");
        assert_eq!(
            read(r#"{"metadata":{"custom":{"a":null,"b": {"c":null}},"avatar":null,"name":"x"}}"#)
                .unwrap(),
            r#"{"name":"x","avatar":null,"custom":{"a":null,"b": {"c":null}}}"#
        );
        assert_eq!(
            read(r#"{"metadata":{"custom":null}}"#).unwrap(),
            r#"{"custom":null}"#
        );
        for bad in [
            "{}",
            r#"{"metadata":null}"#,
            r#"{"metadata":[]}"#,
            r#"{"metadata":1}"#,
        ] {
            assert_eq!(read(bad).unwrap_err(), ["/metadata"], "{bad}");
        }
        assert_eq!(
            read(r#"{"metadata":{"name":1,"typo":null},"name":"x"}"#).unwrap_err(),
            ["/metadata/name", "/metadata/typo", "/name"]
        );
        assert_eq!(
            taken(r#"{"name":null,"custom":{"a":null}}"#).unwrap(),
            r#"{"custom":{"a":null}}"#
        );
    }

    #[test]
    fn blank_name_and_unusable_avatar_are_refused() {
        for blank in ["", " ", "\\t\\n", "\u{3000}\u{a0}"] {
            let metadata = format!(r#"{{"name":"{blank}"}}"#);
            assert_eq!(
                taken(&metadata).unwrap_err(),
                ["/metadata/name"],
                "{blank:?}"
            );
        }
        let avatar = |url: &str| taken(&format!(r#"{{"avatar":"{url}"}}"#));
        for good in [
            "https://münchen.de/",
            "HTTP://例え.テスト/絵?q=ü#f",
            "https://xn--mnchen-3ya.de:8443/a",
        ] {
            assert!(avatar(good).unwrap().contains(good), "{good}");
        }
        for bad in [
            "https:münchen.de",
            "https://",
            "https://a b/",
            "https://a/\\t",
            "https://a\\\\b",
            "//münchen.de/",
            "ftp://münchen.de/",
            "https://a:port/",
        ] {
            assert_eq!(avatar(bad).unwrap_err(), ["/metadata/avatar"], "{bad}");
        }
    }
}
