//! The main job: a repository becomes a collection.

use std::collections::BTreeMap;

use chroma_sync::{
    domain::document::sha256_hex,
    proto::{self, document::Outcome, github_input::Reference, invocation::State},
};
use serde_json::{Value, json};
use tonic::Code;

use crate::harness::{
    chroma::assert_same_records,
    git_server::{Change, Repository},
    scenario::{Scenario, states},
    stores::{Backend, on_both},
};

const README: &str = "# Title\n\nA few words.\n\n## Section\n\nMore words.\n";
const CODE: &str = "/// Adds.\npub fn add(a: u32, b: u32) -> u32 {\n    a + b\n}\n";

/// Files of every kind: text, and one for each rule.
fn mixed_files() -> Vec<Change> {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n";
    vec![
        Change::file("README.md", README),
        Change::file("src/lib.rs", CODE),
        Change::file("src/ünï.txt", "grüße\n"),
        Change::file("binary.bin", b"a\0b"),
        Change::file("latin1.txt", b"caf\xe9\n"),
        Change::file("large.txt", "x".repeat((1 << 20) + 1)),
        Change::file("empty.txt", " \n\n"),
        Change::file("asset.psd", pointer),
        Change::Link("link".into(), "README.md".into()),
        Change::Submodule("vendor".into(), "0123456789abcdef0123456789abcdef01234567".into()),
    ]
}

on_both!(
    a_repository_becomes_a_collection,
    a_repository_becomes_a_collection_on
);
async fn a_repository_becomes_a_collection_on(backend: Backend) {
    let scenario = Scenario::new(backend).await;
    let repository = Repository::create(&scenario.repositories(), "owner/name");
    let commit = repository.commit("main", &mixed_files());
    let service = scenario.deployment.start();
    let (_, created) = scenario.pending_invocation(&service).await;
    assert_eq!((created.state(), created.revision), (State::Pending, 1));

    let messages = scenario.watch(&service, &created.id).await;
    let seen = states(&messages);
    let path = [(1, State::Pending), (2, State::Processing), (3, State::Complete)];
    assert!(
        path.ends_with(&seen),
        "a watch starts somewhere on the path and misses nothing: {seen:?}"
    );
    let ended = messages.last().unwrap().invocation.clone().unwrap();
    assert_eq!(ended.resolved_commit, commit);
    assert_eq!(ended.attempt, 1);
    let counts = ended.statistics.unwrap();
    assert_eq!(counts.documents_discovered, 10);
    assert_eq!((counts.documents_indexed, counts.documents_skipped), (3, 7));
    assert_eq!(
        (
            counts.documents_unchanged,
            counts.documents_removed,
            counts.documents_failed
        ),
        (0, 0, 0)
    );

    let skipped = |rule: &str| (Outcome::Skipped, rule.to_owned());
    let indexed = (Outcome::Indexed, String::new());
    let expected = BTreeMap::from([
        ("README.md".to_owned(), indexed.clone()),
        ("src/lib.rs".to_owned(), indexed.clone()),
        ("src/ünï.txt".to_owned(), indexed),
        ("binary.bin".to_owned(), skipped("binary")),
        ("latin1.txt".to_owned(), skipped("not_utf8")),
        ("large.txt".to_owned(), skipped("too_large")),
        ("empty.txt".to_owned(), skipped("empty")),
        ("asset.psd".to_owned(), skipped("lfs_pointer")),
        ("link".to_owned(), skipped("symlink")),
        ("vendor".to_owned(), skipped("submodule")),
    ]);
    assert_eq!(scenario.documents(&service, &created.id).await, expected);

    let records = scenario.chroma.records("target").await;
    assert_eq!(records.len(), usize::try_from(counts.chunks_indexed).unwrap());
    let code = &records[&format!("{}-0", sha256_hex("src/lib.rs"))];
    let blob = repository.id("main:src/lib.rs");
    assert_eq!(code.document.as_deref(), Some(CODE));
    assert_eq!(
        Value::Object(code.metadata.clone()),
        json!({
            "document_key": "src/lib.rs",
            "document_key_sha256": sha256_hex("src/lib.rs"),
            "version_key": blob,
            "version_key_sha256": sha256_hex(&blob),
            "chunk_strategy": "tree_sitter",
            "language": "rust",
            "start_line": 1,
            "end_line": 4,
            "start_col": 0,
            "end_col": 2,
        })
    );
    assert_eq!(scenario.chroma.text_of("target", "README.md").await, README);
    assert_eq!(
        scenario.chroma.collection_metadata("target").await["finished_ingest"],
        json!(true)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_collection_takes_no_more_and_a_second_one_gets_the_same_records() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let repository = Repository::create(&scenario.repositories(), "owner/name");
    repository.commit("main", &mixed_files());
    let service = scenario.deployment.start();
    let source = scenario.create_source(&service, "owner/name").await;
    let first = scenario.run(&service, &source, "first", None).await;
    assert_eq!(first.state(), State::Complete);

    let refused = scenario
        .create_invocation(&service, &source, "first")
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::AlreadyExists, "{refused:?}");
    assert!(refused.message().contains("finished_ingest"), "{refused:?}");

    let second = scenario.run(&service, &source, "second", None).await;
    assert_eq!(second.state(), State::Complete);
    assert_same_records(
        &scenario.chroma.records("first").await,
        &scenario.chroma.records("second").await,
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn branches_tags_and_commits_are_synced_as_asked() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let repository = Repository::create(&scenario.repositories(), "owner/name");
    let old = repository.commit("main", &[Change::file("a.txt", "old\n")]);
    repository.annotated_tag("v1", &old);
    let new = repository.commit("main", &[Change::file("a.txt", "new\n")]);
    let side = repository.commit("feature/x", &[Change::file("a.txt", "side\n")]);
    let service = scenario.deployment.start();
    let source = scenario.create_source(&service, "owner/name").await;
    let cases = [
        ("default", None, &new, "new\n"),
        (
            "branch",
            Some(Reference::Branch("feature/x".to_owned())),
            &side,
            "side\n",
        ),
        ("tag", Some(Reference::Branch("v1".to_owned())), &old, "old\n"),
        ("commit", Some(Reference::Sha(old.clone())), &old, "old\n"),
    ];
    for (collection, reference, commit, text) in cases {
        let ended = scenario.run(&service, &source, collection, reference).await;
        assert_eq!(
            ended.state(),
            State::Complete,
            "{collection}: {:?}",
            ended.failure
        );
        assert_eq!(&ended.resolved_commit, commit, "{collection}");
        assert_eq!(
            scenario.chroma.text_of(collection, "a.txt").await,
            text,
            "{collection}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_exist_fails_at_once_and_is_named() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let repository = Repository::create(&scenario.repositories(), "owner/name");
    repository.commit("main", &[Change::file("a.txt", "a\n")]);
    let service = scenario.deployment.start();
    let known = scenario.create_source(&service, "owner/name").await;
    let unknown = scenario.create_source(&service, "owner/missing").await;
    let sha = "0123456789abcdef0123456789abcdef01234567".to_owned();
    let cases = [
        (&unknown, None, "REPOSITORY_NOT_FOUND", "owner/missing"),
        (
            &known,
            Some(Reference::Branch("gone".to_owned())),
            "REFERENCE_NOT_FOUND",
            "gone",
        ),
        (
            &known,
            Some(Reference::Sha(sha.clone())),
            "REFERENCE_NOT_FOUND",
            sha.as_str(),
        ),
    ];
    for (source, reference, reason, name) in cases {
        let ended = scenario.run(&service, source, "target", reference).await;
        assert_eq!((ended.state(), ended.attempt), (State::Failed, 1), "{reason}");
        let failure = ended.failure.unwrap();
        assert_eq!(failure.reason, reason);
        assert!(failure.message.contains(name), "{}", failure.message);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_in_a_database_that_does_not_exist_is_refused() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let mut request = scenario.source_request("owner/name");
    request.database_name = "nowhere".to_owned();
    let refused = service
        .sources(&scenario.admin)
        .create_source(request)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    assert_eq!(refused.message(), "database nowhere does not exist");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_live_invocation_into_a_collection_is_refused() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    // No worker runs, so the first invocation stays pending.
    let service = scenario.deployment.start_role("api");
    let source = scenario.create_source(&service, "owner/name").await;
    let first = scenario
        .create_invocation(&service, &source, "target")
        .await
        .unwrap();
    let refused = scenario
        .create_invocation(&service, &source, "target")
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::AlreadyExists);
    assert!(refused.message().contains(&first.id), "{refused:?}");

    let cancelled = scenario.cancel(&service, &first.id).await;
    assert_eq!((cancelled.state(), cancelled.revision), (State::Cancelled, 2));
    scenario
        .create_invocation(&service, &source, "target")
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn globs_decide_which_files_are_discovered() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let repository = Repository::create(&scenario.repositories(), "owner/name");
    repository.commit("main", &mixed_files());
    let service = scenario.deployment.start();
    let mut request = scenario.source_request("owner/name");
    if let Some(proto::create_source_request::Settings::Github(github)) = &mut request.settings {
        github.include_globs = vec!["src/*".to_owned(), "*.md".to_owned()];
    }
    let source = service
        .sources(&scenario.admin)
        .create_source(request)
        .await
        .unwrap()
        .into_inner();
    let ended = scenario.run(&service, &source.id, "target", None).await;
    let found: Vec<String> = scenario
        .documents(&service, &ended.id)
        .await
        .into_keys()
        .collect();
    assert_eq!(found, ["README.md", "src/lib.rs", "src/ünï.txt"]);
}

/// A long text whose lines tell where they are.
fn lines(word: &str, count: usize) -> String {
    (0..count)
        .map(|n| format!("{word} line {n} of a text that is long enough to be cut\n"))
        .collect()
}

on_both!(
    a_run_into_a_collection_with_older_documents_replaces_them,
    replaces_on
);
async fn replaces_on(backend: Backend) {
    let scenario = Scenario::new(backend).await;
    let repository = Repository::create(&scenario.repositories(), "owner/name");
    repository.commit(
        "main",
        &[
            Change::file("shrinks.txt", lines("old", 60)),
            Change::file("vanishes.txt", lines("gone", 30)),
            Change::file("turns-binary.txt", lines("text", 5)),
            Change::file("stays.txt", "the same\n"),
        ],
    );
    let service = scenario.deployment.start();
    let source = scenario.create_source(&service, "owner/name").await;
    let first = scenario.run(&service, &source, "target", None).await;
    assert_eq!(first.state(), State::Complete, "{:?}", first.failure);
    scenario.chroma.add_foreign_record("target", "not-ours").await;
    // As if the first run had not come to its end: the collection is open for another one.
    scenario
        .chroma
        .set_collection_metadata("target", json!({"finished_ingest": false, "owner": "me"}))
        .await;

    repository.commit(
        "main",
        &[
            Change::file("shrinks.txt", lines("new", 3)),
            Change::Removal("vanishes.txt".into()),
            Change::file("turns-binary.txt", b"\0\0"),
            Change::file("comes.txt", "new here\n"),
        ],
    );
    let second = scenario.run(&service, &source, "target", None).await;
    assert_eq!(second.state(), State::Complete, "{:?}", second.failure);
    let counts = second.statistics.unwrap();
    assert_eq!(counts.documents_discovered, 5);
    assert_eq!(
        (
            counts.documents_indexed,
            counts.documents_unchanged,
            counts.documents_skipped,
            counts.documents_removed
        ),
        (2, 1, 1, 1)
    );

    let records = scenario.chroma.records("target").await;
    let mut keys: Vec<&str> = records
        .values()
        .filter_map(|record| record.metadata.get("document_key")?.as_str())
        .collect();
    keys.dedup();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys, ["comes.txt", "shrinks.txt", "stays.txt"]);
    assert!(records.contains_key("not-ours"), "records of others stay");
    assert_eq!(
        scenario.chroma.text_of("target", "shrinks.txt").await,
        lines("new", 3)
    );
    let metadata = scenario.chroma.collection_metadata("target").await;
    assert_eq!(
        (&metadata["finished_ingest"], &metadata["owner"]),
        (&json!(true), &json!("me"))
    );
}
