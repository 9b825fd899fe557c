//! Tests of the architecture: only the edges between crates that the table lists (docs/architecture.md) may exist.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

/// A crate, and the crates of ours that it may import.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("confab-protocol", &[]),
    ("confab-auth", &["confab-protocol"]),
    ("confab-bus", &["confab-protocol"]),
    (
        "confab-gateway",
        &["confab-protocol", "confab-auth", "confab-bus"],
    ),
    ("confab-worker", &["confab-protocol", "confab-bus"]),
    ("confab-client", &["confab-protocol"]),
    ("confab-stack", &[]),
    (
        "confab-bench",
        &[
            "confab-protocol",
            "confab-auth",
            "confab-bus",
            "confab-gateway",
            "confab-worker",
            "confab-client",
            "confab-stack",
        ],
    ),
    (
        "confab",
        &[
            "confab-protocol",
            "confab-auth",
            "confab-bus",
            "confab-gateway",
            "confab-worker",
            "confab-client",
            "confab-stack",
            "confab-bench",
        ],
    ),
];

/// A crate of others, and the only crates of ours that may know it. The bench measures the parts alone.
const ALONE_IMPORTS: &[(&str, &[&str])] = &[
    ("rmp-serde", &["confab-protocol"]),
    ("rmpv", &["confab-protocol"]),
    ("jsonwebtoken", &["confab-auth"]),
    ("async-nats", &["confab-bus", "confab-bench"]),
    ("axum", &["confab-gateway", "confab"]),
    ("fastwebsockets", &["confab-gateway", "confab-bench"]),
    ("sqlx", &["confab-worker", "confab-bench"]),
];

/// What the tests of any crate may use beside what it may import.
const FOR_TESTS: &[&str] = &["confab-stack", "confab-client", "confab-protocol"];

/// What the tests from outside must not know, so that they survive a rewrite.
const INTERNAL_NAMES: &[&str] = &[
    "confab_auth",
    "confab_bus",
    "confab_gateway",
    "confab_worker",
    "confab_bench",
];

#[test]
fn every_crate_edge_is_in_table() {
    let metadata = metadata().unwrap();
    for package in metadata.workspace_packages() {
        let row = MAY_IMPORT
            .iter()
            .find(|(name, _)| *name == package.name.as_str());
        let (_, allowed) = row.unwrap_or_else(|| panic!("{} is not in the table", package.name));
        let more: &[&str] = &[];
        assert_edges(package, DependencyKind::Normal, &[allowed, more]);
        assert_edges(package, DependencyKind::Build, &[allowed, more]);
        assert_edges(package, DependencyKind::Development, &[allowed, FOR_TESTS]);
    }
}

fn assert_edges(package: &Package, kind: DependencyKind, allowed: &[&[&str]]) {
    let ours = |name: &str| name == "confab" || name.starts_with("confab-");
    let found: BTreeSet<&str> = imports(package, kind).filter(|name| ours(name)).collect();
    let allowed: BTreeSet<&str> = allowed.iter().copied().flatten().copied().collect();
    let extra: Vec<_> = found.difference(&allowed).collect();
    assert!(
        extra.is_empty(),
        "{} imports {extra:?} ({kind})",
        package.name
    );
}

#[test]
fn what_one_crate_owns_no_other_imports() {
    let metadata = metadata().unwrap();
    for package in metadata.workspace_packages() {
        for (theirs, owners) in ALONE_IMPORTS {
            let known = imports(package, DependencyKind::Normal).any(|name| name == *theirs);
            assert!(
                !known || owners.contains(&package.name.as_str()),
                "{} imports {theirs}, which is for {owners:?}",
                package.name
            );
        }
    }
}

#[test]
fn protocol_has_no_async_and_no_io() {
    let metadata = metadata().unwrap();
    let packages = metadata.workspace_packages();
    let is_protocol = |package: &&&Package| package.name.as_str() == "confab-protocol";
    let protocol = packages.iter().find(is_protocol).unwrap();
    let found: Vec<_> = imports(protocol, DependencyKind::Normal)
        .filter(|name| ["tokio", "futures-util", "hyper", "reqwest"].contains(name))
        .collect();
    assert!(found.is_empty(), "protocol imports {found:?}");
}

/// An error that is logged by its `Display` is logged without what caused it: `chain` has both.
#[test]
fn errors_are_logged_with_their_causes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let crates = ["auth", "bus", "gateway", "worker"].map(|name| format!("crates/{name}/src"));
    for of in crates.into_iter().chain(["cmd/confab/src".to_owned()]) {
        for file in sources(&root.join(of)).unwrap() {
            let source = std::fs::read_to_string(&file).unwrap();
            let alone = source.lines().find(|line| line.contains("%error"));
            assert_eq!(alone, None, "in {}", file.display());
        }
    }
}

#[test]
fn e2e_tests_import_no_product_internals() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests");
    let folders = ["e2e", "docs"].map(|name| sources(&tests.join(name)).unwrap());
    for file in folders.concat() {
        let source = std::fs::read_to_string(&file).unwrap();
        for inside in INTERNAL_NAMES {
            let used = source.contains(&format!("{inside}::"));
            assert!(!used, "{} uses {inside}", file.display());
        }
    }
}

fn imports(package: &Package, kind: DependencyKind) -> impl Iterator<Item = &str> {
    let of_kind = package
        .dependencies
        .iter()
        .filter(move |found| found.kind == kind);
    of_kind.map(|dependency| dependency.name.as_str())
}

fn metadata() -> Result<Metadata, cargo_metadata::Error> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let mut command = MetadataCommand::new();
    command.manifest_path(manifest).no_deps();
    command.exec()
}

/// All Rust files in a folder.
fn sources(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(sources(&path)?);
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
    Ok(found)
}

/// The layers of the gateway, from the top: a module imports those below it and none above (docs/architecture.md).
const GATEWAY_LAYERS: &[&str] = &[
    "http",
    "ws",
    "api_docs",
    "auth",
    "sessions",
    "hub",
    "workers",
    "cluster",
    "delivery",
    "limits",
    "origins",
    "public_url",
    "metrics",
    "conditions",
    "headings",
    "keys",
    "trace",
    "tasks",
    "account",
];

/// What puts the layers together, and what benchmarks run alone.
const ABOVE_LAYERS: &[&str] = &["lib", "settings", "measured", "echo"];

#[test]
fn gateway_modules_import_only_lower_layers() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crates/gateway/src");
    let layer = |module: &str| GATEWAY_LAYERS.iter().position(|name| *name == module);
    let mut upward = Vec::new();
    for file in sources(&root).unwrap() {
        let place = file.strip_prefix(&root).unwrap().to_string_lossy();
        let module = place.split(['/', '.']).next().unwrap_or_default();
        let of_tests = ["tests", "testing"].iter().any(|name| place.contains(name));
        if of_tests || ABOVE_LAYERS.contains(&module) {
            continue;
        }
        let Some(own) = layer(module) else {
            panic!("{module} is no layer of the gateway");
        };
        let source = std::fs::read_to_string(&file).unwrap();
        for imported in imported_modules(&source) {
            match layer(&imported) {
                Some(other) if other >= own => {}
                _ => upward.push(format!("{place} imports {imported}")),
            }
        }
    }
    assert_eq!(upward, Vec::<String>::new());
}

/// The modules of its own crate that a source file names, without those of its inline tests.
fn imported_modules(source: &str) -> BTreeSet<String> {
    // A declaration of a test module, with a file of its own, may stand amid the code.
    let inline_tests = "#[cfg(test)]\nmod tests {";
    let source = source.split(inline_tests).next().unwrap_or_default();
    let code = source
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default());
    let code = code.collect::<Vec<_>>().join("\n");
    let name = |text: &str| {
        let is_part = |letter: &char| letter.is_ascii_alphanumeric() || *letter == '_';
        text.trim_start()
            .chars()
            .take_while(is_part)
            .collect::<String>()
    };
    let mut modules = BTreeSet::new();
    for imported in code.split("crate::").skip(1) {
        let Some(group) = imported.strip_prefix('{') else {
            let is_item = name(imported).starts_with(|first: char| first.is_ascii_uppercase());
            modules.extend((!is_item).then(|| name(imported)));
            continue;
        };
        let group = group.split(';').next().unwrap_or_default();
        modules.extend(group.split(',').map(name).filter(|name| !name.is_empty()));
    }
    modules
}

/// Crates whose constants are not all named yet.
const BARE_NAMES_LEFT: &[&str] = &["worker"];

/// A constant of one bare word says neither what it is nor its unit.
#[test]
fn constants_have_names_of_two_words() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let crates = std::fs::read_dir(root.join("crates")).unwrap();
    let crates = crates.map(|entry| entry.unwrap().path());
    let named = |path: &PathBuf| !BARE_NAMES_LEFT.iter().any(|name| path.ends_with(name));
    let folders = crates.filter(named).map(|path| path.join("src"));
    let mut bare = Vec::new();
    for folder in folders.chain([root.join("cmd/confab/src")]) {
        for file in sources(&folder).unwrap() {
            let source = std::fs::read_to_string(&file).unwrap();
            let found = source.lines().filter_map(bare_constant);
            bare.extend(found.map(|name| format!("{name} in {}", file.display())));
        }
    }
    assert_eq!(bare, Vec::<String>::new());
}

/// The name of a constant of a module that a line declares, where it is one word. What a list of the module's own is called
/// (`CONDITIONS`), and constants of types, are read with the name before them.
fn bare_constant(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("pub(crate) ").unwrap_or(line);
    let rest = rest.strip_prefix("pub(super) ").unwrap_or(rest);
    let (name, _) = rest.strip_prefix("const ")?.split_once(':')?;
    let is_bare = name.chars().all(|letter| letter.is_ascii_uppercase());
    is_bare.then_some(name)
}
