//! Bad fields of a request: the first of them are named, the others counted, so that an answer is small whatever it answers.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Bad fields that are named in one answer.
const MAX_NAMED: usize = 20;
/// Characters of a pointer.
const POINTER_CHARS: usize = 256;
/// Characters of a message.
const MESSAGE_CHARS: usize = 256;

/// One bad field of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FieldError {
    /// Where in the body it stands: a JSON pointer (RFC 6901), or the name of a query parameter or header.
    pub pointer: String,
    /// What is wrong with it, never with the value itself.
    pub message: String,
}

impl FieldError {
    /// A bad field at `pointer`.
    #[must_use]
    pub fn new(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            pointer: cut(pointer.into(), POINTER_CHARS),
            message: cut(message.into(), MESSAGE_CHARS),
        }
    }
}

fn cut(mut text: String, chars: usize) -> String {
    if let Some((end, _)) = text.char_indices().nth(chars) {
        text.truncate(end);
    }
    text
}

/// Bad fields, the first of them by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldErrors {
    named: Vec<FieldError>,
    more: u64,
}

impl FieldErrors {
    /// Notes one.
    pub fn push(&mut self, error: FieldError) {
        if self.named.len() < MAX_NAMED {
            self.named.push(error);
        } else {
            self.more += 1;
        }
    }

    /// Notes some that are only counted.
    pub const fn count(&mut self, more: u64) {
        self.more += more;
    }

    /// Notes what was found further inside.
    pub fn absorb(&mut self, named: Vec<FieldError>, more: u64) {
        for error in named {
            self.push(error);
        }
        self.more += more;
    }

    /// Returns true if there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.total() == 0
    }

    /// Returns the number of bad fields, named or not.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.named.len() as u64 + self.more
    }

    /// Those that are named, and how many more there are.
    #[must_use]
    pub fn into_parts(self) -> (Vec<FieldError>, u64) {
        (self.named, self.more)
    }

    /// Returns what is wrong in one sentence.
    #[must_use]
    pub fn detail(&self) -> String {
        match (self.named.as_slice(), self.more) {
            ([one], 0) if one.pointer.is_empty() => format!("the body {}", one.message),
            ([one], 0) => format!("{}: {}", one.pointer, one.message),
            _ => format!("{} fields are not valid", self.total()),
        }
    }
}

impl From<Vec<FieldError>> for FieldErrors {
    fn from(all: Vec<FieldError>) -> Self {
        let mut errors = Self::default();
        errors.absorb(all, 0);
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_named_fields_are_counted() {
        let all: Vec<_> = (0..100)
            .map(|n| FieldError::new(format!("/{n}"), "is bad"))
            .collect();
        let errors = FieldErrors::from(all);
        assert_eq!(errors.detail(), "100 fields are not valid");
        let (named, more) = errors.into_parts();
        assert_eq!((named.len(), more), (MAX_NAMED, 80));
        assert_eq!(named[0].pointer, "/0");
    }

    #[test]
    fn long_texts_are_cut() {
        let error = FieldError::new("ü".repeat(1000), "x".repeat(1_000_000));
        assert_eq!(error.pointer, "ü".repeat(POINTER_CHARS));
        assert_eq!(error.message.len(), MESSAGE_CHARS);
    }
}
