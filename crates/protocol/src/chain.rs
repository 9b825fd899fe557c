//! An error with everything that caused it, as one text for a log line.

use std::error::Error;
use std::fmt;

/// Causes told at most: a chain may be a circle.
pub(crate) const MAX_CAUSES: usize = 16;

/// The text of an error and of its causes, see [`chain`].
#[derive(Debug, Clone, Copy)]
pub struct Chain<'a>(&'a (dyn Error + 'static));

/// The text of an error with the texts of its causes behind it, separated by `: `.
///
/// A cause whose text already ends what stands before it is left out: some libraries repeat their cause in their own text.
#[must_use]
pub const fn chain<'a>(error: &'a (dyn Error + 'static)) -> Chain<'a> {
    Chain(error)
}

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut whole = self.0.to_string();
        let causes = std::iter::successors(self.0.source(), |cause| (*cause).source());
        for cause in causes.take(MAX_CAUSES) {
            let text = cause.to_string();
            if !whole.ends_with(&text) {
                whole.push_str(": ");
                whole.push_str(&text);
            }
        }
        f.write_str(&whole)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] Middle);

    #[derive(Debug, thiserror::Error)]
    #[error("middle: {0}")]
    struct Middle(#[source] io::Error);

    #[test]
    fn causes_follow_and_none_is_repeated() {
        let error = Outer(Middle(io::Error::other("refused")));
        assert_eq!(chain(&error).to_string(), "outer: middle: refused");
        assert_eq!(chain(&io::Error::other("alone")).to_string(), "alone");
    }
}
