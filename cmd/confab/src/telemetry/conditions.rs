//! The table of conditions in docs/operations/logs.md, made of the declarations that the log lines are made from.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use confab_protocol::condition::Condition;

/// Whose conditions are listed.
const ROLE_CONDITIONS: [(&str, &[Condition]); 4] = [
    ("any", confab_bus::BUS_CONDITIONS),
    ("gateway", confab_auth::AUTH_CONDITIONS),
    ("gateway", confab_gateway::CONDITIONS),
    ("worker", confab_worker::CONDITIONS),
];

/// How the table begins.
const TABLE_HEAD: &str = "| `condition` | WARN | INFO | remedy | role |\n|---|---|---|---|---|\n";

fn rendered() -> String {
    let mut table = TABLE_HEAD.to_owned();
    for (role, conditions) in ROLE_CONDITIONS {
        for condition in conditions {
            let Condition {
                name,
                fails,
                holds,
                remedy,
                ..
            } = condition;
            writeln!(
                table,
                "| `{name}` | {fails} | {holds} | {remedy} | {role} |"
            )
            .unwrap();
        }
    }
    table
}

#[test]
fn logs_md_lists_what_is_declared() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/operations/logs.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let text = page.split("| `condition` |").next().unwrap_or_default();
    let wanted = format!("{text}{}", rendered());
    if std::env::var_os("CONFAB_UPDATE_DOCS").is_some_and(|value| value == "1") {
        std::fs::write(&path, &wanted).unwrap();
        return;
    }
    assert!(
        page == wanted,
        "docs/operations/logs.md is old: CONFAB_UPDATE_DOCS=1 makes its table anew"
    );
}

#[test]
fn conditions_have_names_of_their_own() {
    let names = ROLE_CONDITIONS
        .iter()
        .flat_map(|(_, conditions)| *conditions);
    let names: Vec<_> = names.map(|condition| condition.name).collect();
    let different: BTreeSet<_> = names.iter().collect();
    assert_eq!(different.len(), names.len(), "{names:?}");
}
