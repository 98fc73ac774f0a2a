//! The house rules that a machine can see: which crate may import which, how long files are, how
//! they open, and what no room may be called. Function length is held by clippy (`clippy.toml`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Longest Rust file, lines.
const MAX_FILE_LINES: usize = 500;

/// Longest ARCHITECTURE.md, lines.
const MAX_ARCHITECTURE_LINES: usize = 300;

/// Longest spine, lines: a newcomer reads it first.
const MAX_SPINE_LINES: usize = 200;

/// Names that say nothing about what a room holds.
const BANNED_NAMES: [&str; 8] =
    ["util", "utils", "common", "core", "helper", "helpers", "misc", "shared"];

/// Every crate, its floor, and which of ours it may import (ARCHITECTURE.md, "Floors").
const EDGES: &[(&str, u8, &[&str])] = &[
    ("trace", 0, &[]),
    ("rules", 1, &["trace"]),
    ("redact", 1, &["trace"]),
    ("api", 1, &[]),
    ("llm", 1, &["trace"]),
    ("resilience", 1, &["trace"]),
    ("macros", 1, &[]),
    ("sdk", 2, &["trace", "llm", "resilience", "macros"]),
    ("ingest", 2, &["trace", "redact", "llm"]),
    ("store", 2, &["trace", "rules"]),
    ("govern", 2, &["trace", "rules"]),
    ("web", 3, &["trace", "api", "llm", "store", "govern"]),
    ("gateway", 3, &["trace", "rules", "llm", "resilience", "sdk"]),
    ("act", 3, &["trace", "api", "store"]),
    ("demo", 3, &["trace", "llm", "sdk"]),
    (
        "cli",
        4,
        &[
            "trace", "redact", "rules", "llm", "ingest", "store", "web", "demo", "sdk", "gateway",
            "govern", "act",
        ],
    ),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace root")
}

fn rust_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a readable directory") {
        let path = entry.expect("a readable entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') && name != "node_modules" {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            found.push(path);
        }
    }
}

fn all_rust_files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    rust_files(&root(), &mut found);
    assert!(found.len() > 40, "the walk found the tree: {} files", found.len());
    found
}

/// The crates of ours under `[section]` of a manifest.
fn imports(manifest: &str, section: &str) -> BTreeSet<String> {
    let mut inside = false;
    let mut found = BTreeSet::new();
    for line in manifest.lines() {
        if let Some(header) = line.trim().strip_prefix('[') {
            inside = header.trim_end_matches(']') == section;
        } else if inside && let Some((name, _)) = line.split_once(['.', ' ', '=']) {
            match name.trim() {
                "throughline" => found.insert("sdk".to_owned()),
                name => name
                    .strip_prefix("throughline-")
                    .is_some_and(|name| found.insert(name.to_owned())),
            };
        }
    }
    found
}

#[test]
fn crates_import_only_from_floors_below() {
    let floors: BTreeMap<&str, u8> = EDGES.iter().map(|(name, floor, _)| (*name, *floor)).collect();
    let mut seen = BTreeSet::new();
    for (name, floor, allowed) in EDGES {
        let path = root().join("crates").join(name).join("Cargo.toml");
        let manifest = fs::read_to_string(&path).expect("every listed crate has a manifest");
        for import in imports(&manifest, "dependencies") {
            assert!(
                allowed.contains(&import.as_str()),
                "{name} imports {import}; if that is right, add the edge here and in ARCHITECTURE.md"
            );
        }
        for import in *allowed {
            assert!(floors[import] < *floor, "{name} (floor {floor}) may not import {import}");
        }
        seen.insert((*name).to_owned());
    }
    for entry in fs::read_dir(root().join("crates")).expect("crates/") {
        let name = entry.expect("entry").file_name().to_string_lossy().into_owned();
        assert!(seen.contains(&name), "crates/{name} has no line in EDGES");
    }
}

#[test]
fn only_the_store_speaks_sql_and_the_lowest_floors_do_no_io() {
    for (name, forbidden) in [
        ("trace", &["tokio", "rusqlite", "tracing", "reqwest", "axum"][..]),
        ("rules", &["tokio", "rusqlite", "tracing", "reqwest", "axum", "cel"]),
        ("redact", &["tokio", "rusqlite", "tracing", "reqwest", "axum"]),
        ("llm", &["tokio", "rusqlite", "tracing", "reqwest", "axum"]),
        ("api", &["tokio", "rusqlite", "tracing", "reqwest"]),
        ("resilience", &["tokio", "rusqlite", "tracing", "reqwest", "axum"]),
        ("ingest", &["rusqlite"]),
        ("store", &["opentelemetry-proto", "axum", "tonic"]),
        ("web", &["rusqlite", "opentelemetry-proto"]),
        ("gateway", &["rusqlite", "opentelemetry-proto", "tracing-opentelemetry", "reqwest"]),
        ("sdk", &["rusqlite", "axum"]),
        ("govern", &["tokio", "rusqlite", "tracing", "reqwest", "axum"]),
        ("act", &["rusqlite"]),
    ] {
        let manifest = fs::read_to_string(root().join("crates").join(name).join("Cargo.toml"))
            .expect("manifest");
        let dependencies = manifest.split("[dev-dependencies]").next().unwrap_or_default();
        for banned in forbidden {
            let listed = dependencies.lines().any(|line| {
                line.split(['.', ' ', '=']).next().is_some_and(|found| found == *banned)
            });
            assert!(!listed, "{name} never depends on {banned}");
        }
    }
}

#[test]
fn files_are_short_and_say_what_they_are() {
    let mut wrong = Vec::new();
    for path in all_rust_files() {
        let text = fs::read_to_string(&path).expect("readable source");
        let shown = path.strip_prefix(root()).unwrap_or(&path).display();
        let lines = text.lines().count();
        if lines > MAX_FILE_LINES {
            wrong.push(format!("{shown} has {lines} lines, more than {MAX_FILE_LINES}"));
        }
        if !text.starts_with("//!") {
            wrong.push(format!("{shown} does not open with //!"));
        }
    }
    let spine = root().join("crates/cli/src/spine.rs");
    let lines = fs::read_to_string(&spine).expect("the spine").lines().count();
    if lines > MAX_SPINE_LINES {
        wrong.push(format!("the spine has {lines} lines, more than {MAX_SPINE_LINES}"));
    }
    let map = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    if map.lines().count() > MAX_ARCHITECTURE_LINES {
        wrong.push(format!("ARCHITECTURE.md is longer than {MAX_ARCHITECTURE_LINES} lines"));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_room_has_a_name_that_says_nothing() {
    for path in all_rust_files() {
        for part in path.strip_prefix(root()).unwrap_or(&path).components() {
            let part = part.as_os_str().to_string_lossy().into_owned();
            let stem = part.trim_end_matches(".rs");
            assert!(
                !BANNED_NAMES.contains(&stem),
                "{} is a name that says nothing",
                path.display()
            );
        }
    }
}

#[test]
fn nothing_is_left_unfinished() {
    // Spelt apart so that this file does not find itself.
    let marks = [concat!("todo", "!("), concat!("unimplemented", "!("), concat!("#[", "ignore")];
    for path in all_rust_files() {
        let text = fs::read_to_string(&path).expect("readable source");
        for mark in marks {
            assert!(!text.contains(mark), "{} has {mark}", path.display());
        }
    }
}

#[test]
fn nothing_goes_round_redaction() {
    // The spine alone holds the store's inbox, and gives it what `Submit` takes: a batch that a
    // redactor has made. The way round that is for made-up data, in tests and examples.
    let spine = root().join("crates/cli/src/spine.rs");
    let ways = [concat!(".inb", "ox("), concat!("Inb", "ox::"), concat!("Redactor::", "off(")];
    for path in all_rust_files().iter().filter(|path| **path != spine) {
        let is = |name: &str| path.components().any(|part| part.as_os_str() == name);
        if is("tests") || is("examples") || is("bench") || is("store") {
            continue;
        }
        let text = fs::read_to_string(path).expect("readable source");
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
            let way = ways.iter().find(|way| line.contains(**way));
            assert_eq!(way, None, "{} goes round redaction: {line}", path.display());
        }
    }
    let spine = fs::read_to_string(spine).expect("the spine");
    assert_eq!(spine.matches(ways[0]).count(), 1, "one door");
    assert!(spine.contains("|batch: Redacted|"), "and what goes through it");
}

#[test]
fn every_workspace_dependency_says_why_it_is_there() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("Cargo.toml");
    let table = manifest.split("[workspace.dependencies]").nth(1).expect("the table");
    let table = table.split("\n[").next().unwrap_or_default();
    for line in table.lines() {
        let ours = line.starts_with("throughline");
        if !line.trim().is_empty() && !line.starts_with('#') && !ours {
            assert!(line.contains("} # ") || line.contains("\" # "), "no reason given: {line}");
        }
    }
}
