//! The part of the page that is written from measurements.

use std::fmt::Write as _;

use super::sections::Section;
use crate::Error;
use crate::output::number;
use crate::ratios::{RatioRow, Ratios};

const BEGIN_MARK: &str = "<!-- bench: begin -->";
const END_MARK: &str = "<!-- bench: end -->";

/// The page with this between its marks.
pub(super) fn splice(page: &str, part: &str) -> Result<String, Error> {
    let marks = || {
        Error::Failed(format!(
            "the page needs a line {BEGIN_MARK} and, below it, a line {END_MARK}"
        ))
    };
    let (before, rest) = page.split_once(BEGIN_MARK).ok_or_else(marks)?;
    let (_old, behind) = rest.split_once(END_MARK).ok_or_else(marks)?;
    Ok(format!(
        "{before}{BEGIN_MARK}\n\n{}\n\n{END_MARK}{behind}",
        part.trim()
    ))
}

/// What stands between the marks.
pub(super) fn write(ratios: Option<&Ratios>, sections: &[Section]) -> String {
    let mut text = String::new();
    if let Some(ratios) = ratios {
        push(&mut text, &of_ratios(ratios));
    }
    for section in sections {
        push(&mut text, &of_section(section));
    }
    text
}

fn push(text: &mut String, part: &str) {
    text.push_str(part.trim_end());
    text.push_str("\n\n");
}

fn of_ratios(ratios: &Ratios) -> String {
    let mut rows = vec![cells(["what", "ratio", "goal", "reached"])];
    rows.push(cells(["---"; 4]));
    for ratio in &ratios.ratios {
        let row = RatioRow::named(&ratio.name);
        let reached = if ratio.met { "yes" } else { "**no**" };
        rows.push(cells([
            row.map_or(ratio.name.as_str(), |row| row.what),
            &format!("{:.2}", ratio.value),
            &row.map_or_else(|| ratio.goal.text(), RatioRow::goal_text),
            reached,
        ]));
    }
    for missing in &ratios.missing {
        let what = RatioRow::named(&missing.name).map_or(missing.name.as_str(), |row| row.what);
        rows.push(cells([what, "not measured", "", "**no**"]));
    }
    let parts = ratios.ratios.iter().map(|ratio| {
        let each = ratio.parts.iter();
        let each = each.map(|(part, value)| format!("{part} {}", number(*value)));
        cells([ratio.name.as_str(), &each.collect::<Vec<_>>().join(", ")])
    });
    let mut of_parts = vec![cells(["ratio", "parts"]), cells(["---"; 2])];
    of_parts.extend(parts);
    format!(
        "### Ratios\n\nOne run of {:.0} s, {} build, {} processors.\n\n{}\n\nWhat they were formed from:\n\n{}\n",
        ratios.seconds,
        ratios.build,
        ratios.processors,
        rows.join("\n"),
        of_parts.join("\n")
    )
}

fn of_section(section: &Section) -> String {
    let mut text = format!("### {}\n\n", section.title);
    let head = section.columns.iter().copied();
    let mut rows = vec![cells(head.clone()), cells(head.map(|_| "---"))];
    let lines = section.lines.iter();
    rows.extend(lines.map(|line| cells(line.iter().map(String::as_str))));
    text.push_str(&rows.join("\n"));
    for plot in &section.plots {
        // Writing to a String cannot fail.
        let written = write!(text, "\n\n![{}](performance/{})", plot.title, plot.file);
        debug_assert!(written.is_ok());
    }
    text
}

fn cells<'a>(cells: impl IntoIterator<Item = &'a str>) -> String {
    let cells = cells.into_iter().collect::<Vec<_>>();
    format!("| {} |", cells.join(" | "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_between_the_marks_is_replaced() {
        let page = format!("a\n{BEGIN_MARK}\nold\n{END_MARK}\nb\n");
        let new = splice(&page, "new\n").unwrap();
        assert_eq!(new, format!("a\n{BEGIN_MARK}\n\nnew\n\n{END_MARK}\nb\n"));
        assert_eq!(splice(&new, "new").unwrap(), new);
        assert!(splice("a", "new").is_err());
    }
}
