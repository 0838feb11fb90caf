//! The house rules that a compiler does not check: reading order is import order, files stay small
//! and say what they are for, and nothing is called `utils`.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Lines of code a file may have, without its tests.
const FILE_LINES_MAX: usize = 400;
/// Crates whose `lib.rs` lists its modules from the request inwards.
const CRATES: [&str; 11] = [
    "catalogue",
    "checkpoint",
    "coordinator",
    "coordinator/scheduler",
    "forecast",
    "gate",
    "registry",
    "tls",
    "worker",
    "worker/opencl",
    "tests/fixture",
];
/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 7] = ["utils", "util", "common", "helpers", "helper", "misc", "types"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file under `folder`, build output left out, in order of path.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The text before the file's own tests.
fn without_tests(text: &str) -> &str {
    text.find("#[cfg(test)]\nmod tests {").map_or(text, |at| &text[..at])
}

/// Top-level modules of a `lib.rs`, in the order in which they are declared.
fn declared_modules(lib: &str) -> Vec<String> {
    lib.lines()
        .filter_map(|line| {
            let line = line.strip_prefix("pub ").unwrap_or(line);
            let line = line.strip_prefix("pub(crate) ").unwrap_or(line);
            line.strip_prefix("mod ")?.strip_suffix(';').map(str::to_owned)
        })
        .collect()
}

/// Modules of the own crate that a text names as `crate::module`.
fn used_modules(text: &str) -> Vec<String> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.flat_map(|line| {
        line.match_indices("crate::").map(|(at, found)| {
            let rest = &line[at + found.len()..];
            rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>()
        })
    })
    .collect()
}

#[test]
fn a_module_uses_only_what_is_declared_below_it() {
    let mut wrong = Vec::new();
    for name in CRATES {
        let source = root().join(name).join("src");
        let modules = declared_modules(&fs::read_to_string(source.join("lib.rs")).unwrap());
        let place: BTreeMap<&str, usize> =
            modules.iter().enumerate().map(|(at, module)| (module.as_str(), at)).collect();
        for file in rust_files(&source) {
            let inside = file.strip_prefix(&source).unwrap();
            let own = inside.components().next().unwrap().as_os_str().to_string_lossy();
            let Some(&here) = place.get(own.trim_end_matches(".rs")) else { continue };
            let text = fs::read_to_string(&file).unwrap();
            for used in used_modules(without_tests(&text)) {
                if place.get(used.as_str()).is_some_and(|&there| there < here) {
                    wrong.push(format!("{name}/src/{} uses crate::{used}", inside.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "reading order is import order:\n{}", wrong.join("\n"));
}

#[test]
fn files_are_small_and_open_with_what_they_are_for() {
    let mut wrong = Vec::new();
    for file in rust_files(root()) {
        let text = fs::read_to_string(&file).unwrap();
        let name = file.strip_prefix(root()).unwrap().display();
        let lines = without_tests(&text).lines().count();
        if lines > FILE_LINES_MAX {
            wrong.push(format!("{name} has {lines} lines of at most {FILE_LINES_MAX}"));
        }
        if !text.starts_with("//!") {
            wrong.push(format!("{name} does not open with `//!`"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn names_say_what_is_inside() {
    let files = rust_files(root());
    let empty: Vec<_> = files
        .iter()
        .filter(|file| {
            let inside = file.strip_prefix(root()).unwrap();
            inside
                .iter()
                .any(|part| EMPTY_NAMES.contains(&part.to_string_lossy().trim_end_matches(".rs")))
        })
        .collect();
    assert!(empty.is_empty(), "find the concept and name the file after it: {empty:?}");
}

#[test]
fn the_two_sides_meet_only_in_the_protocol() {
    for (name, other) in [("coordinator", "worker"), ("worker", "coordinator")] {
        let manifest = fs::read_to_string(root().join(name).join("Cargo.toml")).unwrap();
        let imports = manifest.lines().any(|line| line.starts_with(&format!("{other}.")));
        assert!(!imports, "{name} must not depend on {other}");
    }
}

#[test]
fn the_scheduler_depends_on_thiserror_alone() {
    let manifest = fs::read_to_string(root().join("coordinator/scheduler/Cargo.toml")).unwrap();
    let section = manifest.split("[dependencies]").nth(1).unwrap();
    let section = section.split("\n[").next().unwrap();
    let found: Vec<&str> = section.lines().filter(|line| !line.trim().is_empty()).collect();
    assert_eq!(found, ["thiserror.workspace = true"]);
}
