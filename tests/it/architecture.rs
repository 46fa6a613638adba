//! Rules that the compiler does not check: layers, sizes of files, and that the documentation is whole.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use chroma_sync::error::Reason;

use crate::harness::service::project_file;

/// What each module may use of the others (docs/ARCHITECTURE.md).
const LAYERS: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("domain", &["error", "secret"]),
    ("secret", &[]),
    ("config", &["error", "secret"]),
    ("wake", &["domain"]),
    ("seal", &["secret"]),
    ("store", &["domain", "error", "seal", "secret"]),
    ("json", &["domain"]),
    ("outbound", &["secret"]),
    ("index", &["domain", "error", "outbound", "secret"]),
    ("embed", &["domain", "error", "outbound", "secret"]),
    ("chunk", &["domain", "error"]),
    ("aws", &["secret"]),
    ("parse", &["domain", "secret"]),
    ("fetch", &["aws", "domain", "error", "parse", "secret", "uploads"]),
    ("uploads", &["domain", "error", "secret"]),
    (
        "worker",
        &[
            "aws", "chunk", "domain", "embed", "error", "fetch", "index", "parse", "seal", "secret", "store",
            "uploads", "wake",
        ],
    ),
    (
        "app",
        &[
            "domain", "embed", "error", "index", "seal", "secret", "store", "uploads", "wake",
        ],
    ),
    ("relay", &["error", "store", "wake"]),
    (
        "webhook",
        &[
            "domain", "error", "fetch", "json", "seal", "secret", "store", "wake",
        ],
    ),
    (
        "auto_sync",
        &[
            "aws", "domain", "error", "fetch", "seal", "secret", "store", "wake",
        ],
    ),
    ("codec", &[]),
    ("proto", &["codec"]),
    ("openapi", &["domain"]),
    ("token", &[]),
    ("grpc", &["app", "domain", "error", "proto", "store", "token"]),
    ("rest", &["app", "domain", "error", "json", "openapi", "token"]),
    ("server", &["app", "error", "grpc", "rest"]),
    (
        "service",
        &[
            "app",
            "auto_sync",
            "aws",
            "config",
            "domain",
            "embed",
            "error",
            "fetch",
            "index",
            "parse",
            "relay",
            "seal",
            "server",
            "store",
            "uploads",
            "wake",
            "webhook",
            "worker",
        ],
    ),
    ("telemetry", &["config"]),
    (
        "cli",
        &[
            "app",
            "config",
            "domain",
            "embed",
            "error",
            "index",
            "json",
            "openapi",
            "parse",
            "proto",
            "secret",
            "service",
            "store",
            "telemetry",
            "token",
        ],
    ),
];

const MAX_LINES: usize = 500;

fn rust_files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn sources() -> Vec<(String, PathBuf)> {
    let root = project_file("src");
    let mut files = Vec::new();
    rust_files(&root, &mut files);
    files
        .into_iter()
        .map(|path| {
            let first = path.strip_prefix(&root).unwrap().components().next().unwrap();
            let module = first
                .as_os_str()
                .to_str()
                .unwrap()
                .trim_end_matches(".rs")
                .to_owned();
            (module, path)
        })
        .filter(|(module, _)| module != "lib" && module != "main")
        .collect()
}

/// Every `crate::module` and every first name inside `use crate::{...}`.
fn uses(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        if let Some(list) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut name = String::new();
            for c in list.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => {
                        found.insert(std::mem::take(&mut name));
                    }
                    c if depth == 0 => name.push(c),
                    _ => {}
                }
            }
            found.insert(name);
        } else {
            found.insert(rest.to_owned());
        }
    }
    found
        .into_iter()
        .map(|name| {
            name.trim()
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                .collect::<String>()
        })
        .filter(|name| !name.is_empty())
        .collect()
}

#[test]
fn layers_point_one_way() {
    let known: BTreeSet<&str> = LAYERS.iter().map(|(module, _)| *module).collect();
    let mut wrong = Vec::new();
    for (module, path) in sources() {
        let allowed = LAYERS
            .iter()
            .find(|(name, _)| *name == module)
            .map(|(_, allowed)| *allowed);
        let allowed = allowed.unwrap_or_else(|| panic!("module {module} is not in LAYERS"));
        for used in uses(&fs::read_to_string(&path).unwrap()) {
            if used != module && known.contains(used.as_str()) && !allowed.contains(&used.as_str()) {
                wrong.push(format!("{}: uses {used}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_the_store_knows_sql_and_only_the_command_line_uses_anyhow_and_prints() {
    let mut wrong = Vec::new();
    for (module, path) in sources() {
        let text = fs::read_to_string(&path).unwrap();
        for (word, home) in [("sea_orm", "store"), ("anyhow", "cli"), ("println!(", "cli")] {
            if module != home && text.contains(word) {
                wrong.push(format!("{}: {word} belongs to {home}", path.display()));
            }
        }
        if !matches!(module.as_str(), "grpc" | "cli") && text.contains("tonic::Code") {
            wrong.push(format!("{}: gRPC codes belong to grpc", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_file_stays_under_five_hundred_lines() {
    let mut files = Vec::new();
    for directory in ["src", "tests", "migrations/src", "benches"] {
        rust_files(&project_file(directory), &mut files);
    }
    let long: Vec<String> = files
        .iter()
        .map(|path| (path, fs::read_to_string(path).unwrap().lines().count()))
        .filter(|(_, lines)| *lines > MAX_LINES)
        .map(|(path, lines)| format!("{}: {lines} lines", path.display()))
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}

/// Names in the first column of the tables below a heading.
fn documented(heading: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(project_file("docs/errors.md")).unwrap();
    let section = text
        .split("\n## ")
        .find(|section| section.starts_with(heading))
        .unwrap();
    section
        .lines()
        .filter_map(|line| {
            line.strip_prefix("| `")?
                .split_once('`')
                .map(|(name, _)| name.to_owned())
        })
        .collect()
}

#[test]
fn every_reason_of_a_call_is_documented_and_nothing_else() {
    let reasons: BTreeSet<String> = Reason::ALL
        .iter()
        .map(|reason| reason.as_str().to_owned())
        .collect();
    assert_eq!(documented("Reasons of a call"), reasons);
}

#[test]
fn every_option_of_the_default_configuration_has_a_comment() {
    let text = fs::read_to_string(project_file("config/default.toml")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let bare: Vec<&&str> = lines
        .iter()
        .zip(lines.iter().skip(1))
        .filter(|(before, line)| {
            line.contains(" = ")
                && !line.starts_with('#')
                && !before.starts_with('#')
                && !before.contains(" = ")
        })
        .map(|(_, line)| line)
        .collect();
    assert!(bare.is_empty(), "{bare:?}");
}

/// Every UPPER_SNAKE_CASE literal of a file: the reasons that it gives.
fn reasons_in(path: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(project_file(path)).unwrap();
    let is_reason = |word: &&str| {
        word.len() > 3
            && word
                .chars()
                .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
            && word.starts_with(|c: char| c.is_ascii_uppercase())
    };
    text.split('"')
        .skip(1)
        .step_by(2)
        .filter(is_reason)
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_reason_of_a_failed_invocation_is_documented_and_nothing_else() {
    let mut reasons = BTreeSet::new();
    for path in [
        "src/fetch/error.rs",
        "src/fetch/s3/error.rs",
        "src/fetch/web/error.rs",
        "src/uploads/error.rs",
        "src/index/error.rs",
        "src/worker/failure.rs",
        "src/worker/pipeline/prepare.rs",
        "src/store/lease/reap.rs",
    ] {
        reasons.extend(reasons_in(path));
    }
    assert_eq!(documented("Reasons of a failed invocation"), reasons);
}

/// Dependencies of the tests turn this on for the tests alone, so no test of values could see that the binary reads
/// `123456789012345680000.0` as another number. `fuzz/seeds/rest_bodies/invocation_float.json` can: its build has no such
/// dependencies.
#[test]
fn numbers_are_read_to_the_last_digit_without_the_help_of_a_dependency_of_the_tests() {
    let manifest = fs::read_to_string(project_file("Cargo.toml")).unwrap();
    let dependencies = manifest.split("\n[dependencies]\n").nth(1).unwrap();
    let dependencies = dependencies.split("\n[").next().unwrap();
    let line = dependencies
        .lines()
        .find(|line| line.starts_with("serde_json = "))
        .unwrap();
    assert!(line.contains("\"float_roundtrip\""), "{line}");
}
