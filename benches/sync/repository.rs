//! A repository of many files, made of this project's own sources, so that they read like what is synced.

use crate::harness::{
    git_server::{Change, Repository},
    service::project_file,
};

/// Lines of one file.
const LINES: usize = 40;

/// The directories whose files are taken apart.
const DIRECTORIES: [&str; 4] = ["src", "encoder/src", "tests/it", "docs"];

/// `count` files of 40 lines, each different from all others.
pub fn files(count: usize) -> Vec<(String, String)> {
    let mut paths: Vec<_> = DIRECTORIES
        .iter()
        .map(|directory| project_file(directory))
        .collect();
    let mut pieces = Vec::new();
    while let Some(path) = paths.pop() {
        if path.is_dir() {
            let mut below: Vec<_> = std::fs::read_dir(&path)
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .collect();
            below.sort();
            paths.extend(below);
        } else if let Some(suffix @ ("rs" | "md")) = path.extension().and_then(|suffix| suffix.to_str()) {
            let text = std::fs::read_to_string(&path).unwrap();
            let lines: Vec<&str> = text.lines().collect();
            let whole = lines.chunks(LINES).filter(|lines| lines.len() == LINES);
            pieces.extend(whole.map(|lines| (suffix.to_owned(), lines.join("\n"))));
        }
    }
    (0..count)
        .map(|n| {
            let (suffix, text) = &pieces[n % pieces.len()];
            let path = format!("directory-{:02}/file-{n:05}.{suffix}", n % 40);
            // What repeats the same piece is another text all the same, in each of its chunks but for few.
            let round = n / pieces.len();
            let text = match round {
                0 => text.clone(),
                _ => text
                    .replace(" the ", &format!(" the {round} "))
                    .replace("let ", &format!("let r{round}_")),
            };
            (path, format!("// piece {n}\n{text}\n"))
        })
        .collect()
}

/// Commits all files to `branch`, of which every one whose number is below `percent` in each hundred is changed.
pub fn commit(repository: &Repository, branch: &str, files: &[(String, String)], percent: usize) {
    let changes: Vec<Change> = files
        .iter()
        .enumerate()
        .map(|(n, (path, text))| match n % 100 < percent {
            true => Change::file(path, format!("// changed for {branch}\n{text}")),
            false => Change::file(path, text),
        })
        .collect();
    repository.commit(branch, &changes);
}
