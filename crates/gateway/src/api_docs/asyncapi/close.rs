//! How connections end, and whether to come back: from the table of codes.

use confab_protocol::error::Code;
use serde_json::{Value, json};

/// A close code, what it means, whether to reconnect, and whether the session can be resumed.
const CLOSE_CODES: [(u16, &str, &str, bool); 16] = [
    (1000, "The answer to bye", "no", false),
    (1001, "This gateway ends", "after goaway's delay", true),
    (
        1002,
        "Not the WebSocket protocol",
        "no: mend the client",
        true,
    ),
    (
        1003,
        "A frame of the wrong kind",
        "no: mend the client",
        true,
    ),
    (
        1007,
        "A text that is not UTF-8",
        "no: mend the client",
        true,
    ),
    (
        1009,
        "A frame that is too large",
        "no: mend the client",
        true,
    ),
    (1011, "Something failed inside", "with backoff", true),
    (
        1013,
        "More to do than can be done in time",
        "with backoff",
        true,
    ),
    (
        4400,
        "A hello that is not valid, or too many bad frames",
        "no: mend the client",
        true,
    ),
    (
        4401,
        "No valid token, or no longer",
        "with a new token",
        true,
    ),
    (4403, "Forbidden, or revoked", "no", false),
    (4408, "No hello in time", "yes", true),
    (4409, "The session was resumed elsewhere", "no", false),
    (4429, "Too many requests", "after the delay", true),
    (4440, "The client took its events too slowly", "yes", true),
    (1006, "Never sent: the connection was lost", "yes", true),
];

/// The close codes, with the error codes that are their reasons.
pub(super) fn codes() -> Value {
    let all = CLOSE_CODES
        .iter()
        .map(|(code, meaning, reconnect, resume)| {
            json!({
                "code": code,
                "meaning": meaning,
                "reasons": reasons(*code),
                "reconnect": reconnect,
                "resume": resume,
            })
        });
    all.collect::<Vec<_>>().into()
}

/// The same for people.
pub(super) fn table() -> String {
    let mut table = String::from(
        "**Close codes.** The reason is the error code.\n\n| code | meaning | reasons | reconnect | resume |\n|---|---|---|---|---|\n",
    );
    for (code, meaning, reconnect, resume) in CLOSE_CODES {
        let reasons = reasons(code).join(", ");
        let resume = if resume { "yes" } else { "no" };
        table.push_str(&format!(
            "| {code} | {meaning} | {reasons} | {reconnect} | {resume} |\n"
        ));
    }
    table
}

fn reasons(close: u16) -> Vec<&'static str> {
    // What only answers a request never ends a connection.
    let ends = |code: &&Code| match close {
        1011 => **code == Code::Internal,
        _ => code.close_code() == close,
    };
    let codes = Code::ALL.iter().filter(ends);
    codes.map(|code| code.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_close_code_is_described() {
        for code in Code::ALL {
            let close = code.close_code();
            assert!(
                CLOSE_CODES.iter().any(|(known, ..)| *known == close),
                "{code}: {close}"
            );
        }
    }
}
