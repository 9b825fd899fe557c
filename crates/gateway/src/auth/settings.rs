//! What callers are told of a refused token.

use clap::builder::BoolishValueParser;

use crate::headings;

/// What callers are told of a refused token.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub struct RefusalSettings {
    /// Tell callers what is wrong with a token that is refused, and which setting would mend it.
    ///
    /// For development: it tells whoever asks about settings.
    #[arg(
        long,
        env = "CONFAB_EXPLAIN_REFUSALS",
        value_parser = BoolishValueParser::new(),
        help_heading = headings::DEVELOPMENT_HEADING
    )]
    pub explain_refusals: bool,
}
