//! The rules of the house as a test: who may import whom, a first line in every file that says what it is,
//! names without versions, and a list of files that have grown long.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What each module of `src/` may import of ours, besides itself and the leaves.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("storage", &[]),
    ("registry", &["storage"]),
    ("apiserver", &["registry", "storage"]),
    ("client", &[]),
    ("controllers", &["client"]),
    ("scheduler", &["client"]),
    ("runtime", &[]),
    ("network", &["client"]),
    ("kubelet", &["client", "runtime"]),
    (
        "app",
        &[
            "apiserver",
            "client",
            "controllers",
            "kubelet",
            "network",
            "registry",
            "runtime",
            "scheduler",
            "storage",
        ],
    ),
    ("cli", &["app", "client"]),
];

/// Open to all; they import nothing of ours but one another.
const LEAVES: &[&str] = &[
    "config",
    "declared_features",
    "managed_by",
    "netfilter",
    "quantity",
    "schedule",
    "telemetry",
    "transport",
    "usage",
];

const LINES_MAX: usize = 500;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Every Rust file of ours, relative to the root, with its text.
fn sources() -> BTreeMap<PathBuf, String> {
    let mut files = Vec::new();
    for dir in ["src", "tests", "benches"] {
        if root().join(dir).is_dir() {
            rust_files(&root().join(dir), &mut files);
        }
    }
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        (path.strip_prefix(root()).unwrap().to_owned(), text)
    };
    let sources: BTreeMap<_, _> = files.into_iter().map(read).collect();
    assert!(sources.len() > 50, "the walk found only {} files", sources.len());
    sources
}

/// The module of `src/` a file belongs to; None for lib.rs, main.rs and files outside `src/`.
fn module_of(path: &Path) -> Option<String> {
    let below = path.strip_prefix("src").ok()?;
    let first = below.components().next()?.as_os_str().to_str()?;
    let name = first.strip_suffix(".rs").unwrap_or(first);
    (!matches!(name, "lib" | "main")).then(|| name.to_owned())
}

/// Our modules that a source names by `crate::…`, comments left out, one level of braces understood.
fn imports(text: &str) -> Vec<String> {
    let code: String = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n");
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        let names: Vec<&str> = match rest.strip_prefix('{') {
            Some(group) => group.split('}').next().unwrap_or("").split(',').collect(),
            None => vec![rest],
        };
        for name in names {
            let name = name.trim_start();
            let end = name
                .find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(name.len());
            found.push(name[..end].to_owned());
        }
    }
    found
}

#[test]
fn modules_import_only_what_they_may() {
    let known: Vec<&str> = MAY_IMPORT
        .iter()
        .map(|(module, _)| *module)
        .chain(LEAVES.iter().copied())
        .collect();
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let Some(module) = module_of(&path) else { continue };
        assert!(
            known.contains(&module.as_str()),
            "{} belongs to no module of the table",
            path.display()
        );
        let allowed = MAY_IMPORT
            .iter()
            .find(|(name, _)| *name == module)
            .map_or(&[][..], |(_, allowed)| allowed);
        for import in imports(&text) {
            let ours = known.contains(&import.as_str());
            if ours && import != module && !LEAVES.contains(&import.as_str()) && !allowed.contains(&import.as_str()) {
                wrong.push(format!("{}: {module} may not import {import}", path.display()));
            }
        }
    }
    wrong.sort();
    wrong.dedup();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_says_what_it_is() {
    let silent = |text: &String| {
        !text
            .lines()
            .next()
            .is_some_and(|line| line.starts_with("//! ") && line.len() > 12)
    };
    let wrong: Vec<_> = sources()
        .into_iter()
        .filter(|(_, text)| silent(text))
        .map(|(path, _)| path)
        .collect();
    assert!(
        wrong.is_empty(),
        "these files do not begin with a `//!` line: {wrong:?}"
    );
}

#[test]
fn no_name_carries_a_version() {
    let marks = [
        "v2", "v3", "new", "old", "final", "copy", "backup", "tmp", "fixed", "improved", "simple",
    ];
    let marked = |path: &Path| {
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or("").to_owned();
        // `v2.rs` in a folder of API versions is a name; `thing_v2.rs` is a variant beside another.
        stem.contains('_') && stem.rsplit('_').next().is_some_and(|last| marks.contains(&last))
    };
    let wrong: Vec<_> = sources().into_keys().filter(|path| marked(path)).collect();
    assert!(
        wrong.is_empty(),
        "replace the file instead of adding a variant beside it: {wrong:?}"
    );
}

#[test]
fn long_files_are_listed() {
    let long: Vec<_> = sources()
        .into_iter()
        .filter(|(path, _)| path.starts_with("src"))
        .map(|(path, text)| (text.lines().count(), path))
        .filter(|(lines, _)| *lines > LINES_MAX)
        .collect();
    for (lines, path) in &long {
        println!("{lines} lines: {}", path.display());
    }
    // A list, not a ban; but nothing may grow to where it can not be read any more.
    let unreadable: Vec<_> = long.iter().filter(|(lines, _)| *lines > 2 * LINES_MAX).collect();
    assert!(unreadable.is_empty(), "split these: {unreadable:?}");
}

#[test]
fn the_import_reader_reads() {
    let text = "use crate::storage::Key;\nuse crate::{registry::Kind, client};\n// use crate::cli;\nlet x = crate::app::run();";
    assert_eq!(imports(text), ["storage", "registry", "client", "app"]);
    assert_eq!(module_of(Path::new("src/app.rs")).as_deref(), Some("app"));
    assert_eq!(module_of(Path::new("src/storage/mod.rs")).as_deref(), Some("storage"));
    assert_eq!(module_of(Path::new("src/lib.rs")), None);
}
