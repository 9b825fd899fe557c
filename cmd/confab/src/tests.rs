//! The command line: consistent, explained, and its examples true.

use clap::error::ErrorKind;
use clap::{Command, CommandFactory as _};

use super::*;

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_role_setting_has_flag_variable_and_help() {
    let cli = Cli::command();
    for role in ["gateway", "worker", "migrate"] {
        let command = cli.find_subcommand(role).unwrap();
        assert!(command.get_about().is_some(), "{role}");
        for setting in command.get_arguments() {
            let id = setting.get_id();
            assert!(setting.get_long().is_some(), "{role}: {id} has no flag");
            assert!(setting.get_help().is_some(), "{role}: {id} has no help");
            let env = setting.get_env().map(|name| name.to_string_lossy());
            assert!(
                env.is_some_and(|name| name.starts_with("CONFAB_")),
                "{role}: {id} has no variable"
            );
        }
    }
}

/// Letters of a flag's line in `-h`.
const MAX_LINE_LETTERS: usize = 100;

/// The commands, their own commands behind them, each with its words from the second on.
fn commands(command: &Command, words: &[&str]) -> Vec<(String, Command)> {
    let mut all = vec![(words.join(" "), command.clone())];
    for below in command.get_subcommands() {
        all.extend(commands(below, &[words, &[below.get_name()]].concat()));
    }
    all
}

#[test]
fn each_flag_has_a_heading_and_one_line() {
    for (name, command) in commands(&Cli::command(), &[]) {
        let shown = |arg: &&clap::Arg| !arg.is_positional() && !arg.is_hide_set();
        for flag in command.get_arguments().filter(shown) {
            let id = flag.get_id();
            let heading = flag.get_help_heading();
            assert!(heading.is_some(), "{name}: {id} has no heading");
            let line = flag.get_help().map(ToString::to_string);
            let line = line.unwrap_or_default();
            let is_short =
                (1..=MAX_LINE_LETTERS).contains(&line.chars().count()) && !line.contains('\n');
            // What measures is for those who know the code.
            assert!(
                is_short || name.starts_with("bench"),
                "{name}: {id}: {line}"
            );
        }
    }
}

/// The help, as it is printed.
fn help(words: &str) -> String {
    let line = format!("confab {words} --help");
    let error = Cli::try_parse_from(line.split_whitespace()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DisplayHelp);
    error.to_string()
}

#[test]
fn headings_of_help_are_these() {
    let mut told = String::new();
    let names = [
        "gateway", "worker", "dev", "migrate", "token", "send", "listen",
    ];
    for name in ["", "session ls", "session show"].iter().chain(&names) {
        let help = help(name);
        let is_heading = |line: &&str| line.ends_with(':') && !line.starts_with(' ');
        let headings: Vec<_> = help.lines().filter(is_heading).collect();
        told.push_str(&format!("confab {name}\n  {}\n", headings.join(" ")));
    }
    insta::assert_snapshot!(told);
}

#[test]
fn required_flags_come_first() {
    for (name, flags) in [
        (
            "gateway",
            &[
                "--nats-url",
                "--jwt-jwks-url",
                "--jwt-public-key",
                "--jwt-issuer",
                "--jwt-audience",
            ][..],
        ),
        ("worker", &["--database-url", "--nats-url"]),
        ("token", &["--sub"]),
        ("listen", &["--token"]),
    ] {
        let help = help(name);
        let (_, options) = help.split_once("Required:\n").unwrap();
        assert!(!help.contains("\nOptions:"), "{help}");
        let named = |line: &&str| line.trim_start().starts_with("--");
        let first: Vec<_> = options.lines().filter(named).take(flags.len()).collect();
        for (line, flag) in first.iter().zip(flags) {
            let line = line.trim_start();
            assert!(line.starts_with(&format!("{flag} ")), "{name}: {line}");
        }
        let marked = options.matches("Required").count();
        assert!(marked >= flags.len(), "{name}: {marked} are marked");
    }
}

/// The words of a line as a shell has them, without what it redirects. Variables of `confab dev` stand for something.
fn words(line: &str) -> Vec<String> {
    let line = line.replace("$ID", "01890a5d-ac96-774b-bcce-b302099a8057");
    let mut words = vec![String::new()];
    let mut quote = None;
    for letter in line.chars() {
        match (quote, letter) {
            (Some(open), _) if open == letter => quote = None,
            (None, '\'' | '"') => quote = Some(letter),
            (None, ' ') => words.push(String::new()),
            _ => words.last_mut().unwrap().push(letter),
        }
    }
    words.retain(|word| !word.is_empty());
    let redirects = words
        .iter()
        .position(|word| ["<", "|", ">"].contains(&word.as_str()));
    words.truncate(redirects.unwrap_or(words.len()));
    words
}

/// Parses a line that begins with `confab`; to ask for help is right as well.
fn assert_parses(line: &str) {
    match Cli::try_parse_from(words(line)) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::DisplayHelp => {}
        Err(error) => panic!("{line}\n{error}"),
    }
}

#[test]
fn examples_of_help_parse() {
    let mut parsed = 0;
    for (name, command) in commands(&Cli::command(), &[]) {
        let Some(text) = command.get_after_help() else {
            continue;
        };
        let text = text.to_string();
        let is_whole = |line: &str| line.chars().count() <= MAX_LINE_LETTERS;
        assert!(
            text.lines().all(is_whole),
            "{name} has lines that are broken"
        );
        let text = text.replace("\\\n", " ");
        let examples = text.lines().filter(|line| line.starts_with("  confab "));
        assert!(examples.clone().count() > 0, "{name} has no example");
        for line in examples {
            assert_parses(line);
            parsed += 1;
        }
    }
    assert!(parsed >= 12, "{parsed}");
}

#[test]
fn lines_of_the_readme_parse() {
    let readme = include_str!("../../../README.md");
    let lines: Vec<_> = readme
        .lines()
        .filter_map(|line| line.strip_prefix("    "))
        .filter(|line| line.starts_with("confab "))
        .collect();
    assert!(lines.len() >= 5, "{lines:?}");
    for line in lines {
        assert_parses(line.split(" #").next().unwrap());
    }
}

#[test]
fn make_dev_says_how_long_before_it_builds() {
    let makefile = include_str!("../../../Makefile");
    let (_, recipe) = makefile.split_once("\ndev:").unwrap();
    let says = recipe.find("about five minutes").unwrap();
    assert!(says < recipe.find("cargo build").unwrap());
}
