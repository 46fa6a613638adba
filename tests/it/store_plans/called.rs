//! That every function of the store is among the calls whose plans are looked at.

use crate::harness::service::project_file;

/// Functions without statements of their own on our tables.
const NOT_CALLED: [&str; 9] = [
    "listen",
    "tell",
    "connect",
    "ping",
    "now",
    "close",
    "migrate",
    "revert_migrations",
    "migration_states",
];

#[test]
fn every_function_of_the_store_is_called_here() {
    let read =
        |file| std::fs::read_to_string(project_file(&format!("tests/it/store_plans{file}.rs"))).unwrap();
    let here = [
        "",
        "/deliveries",
        "/credentials",
        "/uploads",
        "/auto_sync",
        "/embeddings",
    ]
    .map(read)
    .concat();
    let mut directories = vec![project_file("src/store")];
    let mut missing = Vec::new();
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let names = text.split("pub async fn ").skip(1);
            let names = names.map(|rest| rest.split(['(', '<']).next().unwrap().to_owned());
            missing.extend(
                names.filter(|name| {
                    !here.contains(&format!(".{name}(")) && !NOT_CALLED.contains(&name.as_str())
                }),
            );
        }
    }
    assert!(missing.is_empty(), "{missing:?}");
}
