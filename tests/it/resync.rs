//! A re-sync costs what changed: records are copied from a collection of the same source, embeddings come from the
//! cache, and both give the very records that a sync of their own would have made.

use std::{collections::BTreeMap, fs};

use chroma_sync::{
    domain::{document::sha256_hex, embedding::MINILM},
    index::StoredRecord,
    proto::{self, Statistics, github_input::Reference, invocation::State},
};
use serde_json::json;

use crate::harness::{
    chroma::assert_same_records,
    git_server::{Change, Repository},
    models_directory,
    scenario::Scenario,
    service::Service,
    stores::{Backend, on_both},
    wait_for,
};

/// A text of many different lines, ten of which make a chunk.
fn lines(word: &str, count: usize) -> String {
    (0..count).map(|n| format!("{word} line {n}\n")).collect()
}

/// Files that are cut in different ways.
fn files() -> Vec<Change> {
    vec![
        Change::file(
            "README.md",
            "# Title\n\nA few words.\n\n## Section\n\nMore words.\n",
        ),
        Change::file(
            "src/lib.rs",
            "/// Adds.\npub fn add(a: u32, b: u32) -> u32 {\n    a + b\n}\n",
        ),
        Change::file("docs/long.txt", lines("long", 65)),
        Change::file("docs/short.txt", lines("short", 3)),
        Change::file("binary.bin", b"a\0b"),
    ]
}

/// Another source of the same repository, with settings that pick the same files: no collection of the first one is
/// a donor for it.
async fn another_source(scenario: &Scenario, service: &Service, token: &str) -> String {
    let mut request = scenario.source_request("owner/name");
    if let Some(proto::create_source_request::Settings::Github(github)) = &mut request.settings {
        github.include_globs = vec!["**".to_owned(), "*".to_owned()];
    }
    let created = service.sources(token).create_source(request).await.unwrap();
    created.into_inner().id
}

async fn run(
    scenario: &Scenario,
    service: &Service,
    source: &str,
    collection: &str,
    reference: Option<Reference>,
) -> Statistics {
    let ended = scenario.run(service, source, collection, reference).await;
    assert_eq!(ended.state(), State::Complete, "{:?}", ended.failure);
    ended.statistics.unwrap()
}

/// Documents indexed, of them copied; embeddings computed, and from the cache.
fn work(counts: &Statistics) -> (i64, i64, i64, i64) {
    (
        counts.documents_indexed,
        counts.documents_copied,
        counts.embeddings_computed,
        counts.embeddings_cached,
    )
}

/// What the service makes of a commit with neither cache nor donor.
async fn made_anew(scenario: &Scenario, reference: Option<Reference>) -> BTreeMap<String, StoredRecord> {
    let service = scenario
        .deployment
        .clone()
        .with("embedding.cache_max_bytes", "0")
        .start();
    let source = another_source(scenario, &service, &scenario.admin).await;
    let counts = run(scenario, &service, &source, "anew", reference).await;
    assert_eq!((counts.documents_copied, counts.embeddings_cached), (0, 0));
    assert_eq!(counts.embeddings_computed, counts.chunks_indexed);
    scenario.chroma.records("anew").await
}

on_both!(
    an_unchanged_repository_is_copied_into_a_new_collection_without_one_embedding,
    unchanged_on
);
async fn unchanged_on(backend: Backend) {
    let mut scenario = Scenario::new(backend).await;
    // Copying alone has to do it.
    scenario.deployment = scenario.deployment.with("embedding.cache_max_bytes", "0");
    let repository = Repository::create(&scenario.repositories(), "owner/name");
    repository.commit("main", &files());
    let service = scenario.deployment.start();
    let source = scenario.create_source(&service, "owner/name").await;
    let first = run(&scenario, &service, &source, "first", None).await;
    let chunks = first.chunks_indexed;
    assert_eq!(work(&first), (4, 0, chunks, 0));

    let second = run(&scenario, &service, &source, "second", None).await;
    assert_eq!(work(&second), (4, 4, 0, 0));
    assert_eq!((second.documents_discovered, second.documents_skipped), (5, 1));
    assert_eq!(
        (second.chunks_indexed, second.bytes_indexed),
        (chunks, first.bytes_indexed)
    );
    let records = scenario.chroma.records("first").await;
    assert_eq!(records.len(), usize::try_from(chunks).unwrap());
    assert_same_records(&scenario.chroma.records("second").await, &records);
    let metadata = scenario.chroma.collection_metadata("second").await;
    assert_eq!(metadata["finished_ingest"], json!(true));

    // What was copied gives in its turn.
    scenario
        .chroma
        .set_collection_metadata("first", json!({"finished_ingest": false}))
        .await;
    let third = run(&scenario, &service, &source, "third", None).await;
    assert_eq!(work(&third), (4, 4, 0, 0));
    assert_same_records(&scenario.chroma.records("third").await, &records);
}

on_both!(
    another_commit_in_a_new_collection_costs_what_changed_and_equals_a_sync_of_its_own,
    another_commit_on
);
async fn another_commit_on(backend: Backend) {
    let scenario = Scenario::new(backend).await;
    let repository = Repository::create(&scenario.repositories(), "owner/name");
    repository.commit("main", &files());
    let service = scenario.deployment.start();
    let source = scenario.create_source(&service, "owner/name").await;
    run(&scenario, &service, &source, "main", None).await;

    let mut changed = lines("long", 65);
    changed.insert_str(0, "a line before all others\n");
    let branch = repository.commit(
        "feature",
        &[
            Change::file("README.md", "# Title\n\nOther words.\n"),
            Change::file(
                "src/lib.rs",
                "/// Adds.\npub fn add(a: u32, b: u32) -> u32 {\n    a + b\n}\n",
            ),
            Change::file("docs/long.txt", changed),
            Change::file("moved/short.txt", lines("short", 3)),
            Change::Removal("docs/short.txt".into()),
        ],
    );
    let reference = || Some(Reference::Sha(branch.clone()));
    let counts = run(&scenario, &service, &source, "feature", reference()).await;
    // src/lib.rs is as it was; the text of the file that moved was embedded before, under another name.
    assert_eq!((counts.documents_indexed, counts.documents_copied), (4, 1));
    assert_eq!(counts.embeddings_cached, 1);
    assert_eq!(counts.embeddings_computed, counts.chunks_indexed - 2);
    let records = scenario.chroma.records("feature").await;
    let moved = &records[&format!("{}-0", sha256_hex("moved/short.txt"))];
    assert_eq!(moved.metadata["document_key"], json!("moved/short.txt"));
    drop(service);
    assert_same_records(&records, &made_anew(&scenario, reference()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_the_donor_lost_or_that_were_changed_there_are_made_anew() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let repository = Repository::create(&scenario.repositories(), "owner/name");
    repository.commit("main", &files());
    let service = scenario.deployment.start();
    let source = scenario.create_source(&service, "owner/name").await;
    let first = run(&scenario, &service, &source, "first", None).await;
    let records = scenario.chroma.records("first").await;

    let lost = format!("{}-3", sha256_hex("docs/long.txt"));
    scenario.chroma.delete_record("first", &lost).await;
    let second = run(&scenario, &service, &source, "second", None).await;
    let long = 7;
    assert_eq!(work(&second), (4, 3, 0, long));
    assert_same_records(&scenario.chroma.records("second").await, &records);

    // Both are gone, and nothing but the cache is left.
    scenario.chroma.delete_collection("first").await;
    scenario.chroma.delete_collection("second").await;
    let third = run(&scenario, &service, &source, "third", None).await;
    assert_eq!(work(&third), (4, 0, 0, first.chunks_indexed));
    assert_same_records(&scenario.chroma.records("third").await, &records);
}

on_both!(
    the_cache_serves_another_source_and_a_restarted_service,
    the_cache_serves_on
);
async fn the_cache_serves_on(backend: Backend) {
    let scenario = Scenario::new(backend).await;
    let repository = Repository::create(&scenario.repositories(), "owner/name");
    repository.commit("main", &files());
    let service = scenario.deployment.start();
    let source = scenario.create_source(&service, "owner/name").await;
    let first = run(&scenario, &service, &source, "first", None).await;
    service.terminate();
    let (status, log) = service.wait();
    assert!(status.success(), "{log}");

    let service = scenario.deployment.start();
    let other = another_source(&scenario, &service, &scenario.admin).await;
    let second = run(&scenario, &service, &other, "second", None).await;
    assert_eq!(work(&second), (4, 0, 0, first.chunks_indexed));
    assert_eq!(
        (second.tokens_embedded, second.chunks_truncated),
        (first.tokens_embedded, first.chunks_truncated)
    );
    assert!(first.tokens_embedded > 0);
    // What the cache gives is the very vector, so these are equal to the last digit.
    let equal = scenario.chroma.records("second").await == scenario.chroma.records("first").await;
    assert!(equal);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_that_cannot_be_opened_or_read_fails_no_sync() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let repository = Repository::create(&scenario.repositories(), "owner/name");
    repository.commit("main", &files());
    let path = scenario.store_url.strip_prefix("sqlite://").unwrap();
    let path = format!("{path}-embeddings");
    std::fs::write(&path, "this is no database ".repeat(1_000)).unwrap();
    let service = scenario.deployment.start();
    let source = scenario.create_source(&service, "owner/name").await;
    let first = run(&scenario, &service, &source, "first", None).await;
    assert_eq!(work(&first), (4, 0, first.chunks_indexed, 0));
    service.terminate();
    let (_, log) = service.wait();
    assert!(log.contains("the embedding cache cannot be opened"), "{log}");

    // One that opens, and then has none of the tables.
    std::fs::remove_file(&path).unwrap();
    let service = scenario.deployment.start();
    let raw = sea_orm::Database::connect(format!("sqlite://{path}"))
        .await
        .unwrap();
    sea_orm::ConnectionTrait::execute_unprepared(&raw, "DROP TABLE embedding_cache")
        .await
        .unwrap();
    raw.close().await.unwrap();
    let other = another_source(&scenario, &service, &scenario.admin).await;
    let second = run(&scenario, &service, &other, "second", None).await;
    assert_eq!(work(&second), (4, 0, first.chunks_indexed, 0));
    service.terminate();
    let (_, log) = service.wait();
    assert!(log.contains("the embedding cache failed"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_cache_stays_small() {
    let mut scenario = Scenario::new(Backend::Sqlite).await;
    scenario.deployment = scenario.deployment.with("embedding.cache_max_bytes", "20000");
    let repository = Repository::create(&scenario.repositories(), "owner/name");
    repository.commit("main", &[Change::file("long.txt", lines("long", 400))]);
    let service = scenario.deployment.start();
    let source = scenario.create_source(&service, "owner/name").await;
    let first = run(&scenario, &service, &source, "first", None).await;
    assert_eq!(first.embeddings_computed, 40);
    service.terminate();
    let (status, log) = service.wait();
    assert!(status.success(), "{log}");
    let raw = sea_orm::Database::connect(format!("{}-embeddings", scenario.store_url))
        .await
        .unwrap();
    let sql = "SELECT COUNT(*), COALESCE(SUM(length(payload) + 192), 0), (SELECT bytes FROM embedding_cache_size) \
               FROM embedding_cache";
    let count = sea_orm::Statement::from_string(sea_orm::DbBackend::Sqlite, sql);
    let row = sea_orm::ConnectionTrait::query_one_raw(&raw, count)
        .await
        .unwrap()
        .unwrap();
    let [rows, taken, counted] = [0, 1, 2].map(|column| row.try_get_by_index::<i64>(column).unwrap());
    raw.close().await.unwrap();
    assert!(rows <= 11 && taken <= 20_000, "{rows} rows of {taken} bytes");
    assert_eq!(taken, counted);
}

/// A key of another tenant that has a database of the same name.
async fn second_tenant(scenario: &Scenario) -> (String, proto::CreateSourceRequest) {
    let tenant = scenario.chroma.create_tenant().await;
    let arguments = ["--role", "admin", "--tenant", &tenant];
    let token = scenario.deployment.create_key(&arguments);
    (token, scenario.source_request("owner/name"))
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_share_embeddings_only_where_the_configuration_says_so() {
    for (shared, expected_cached) in [("false", false), ("true", true)] {
        let mut scenario = Scenario::new(Backend::Sqlite).await;
        scenario.deployment = scenario.deployment.with("embedding.cache_shared", shared);
        let repository = Repository::create(&scenario.repositories(), "owner/name");
        repository.commit("main", &files());
        let service = scenario.deployment.start();
        let source = scenario.create_source(&service, "owner/name").await;
        let first = run(&scenario, &service, &source, "first", None).await;

        let (token, request) = second_tenant(&scenario).await;
        let source = service.sources(&token).create_source(request).await.unwrap();
        scenario.admin = token;
        let second = run(&scenario, &service, &source.into_inner().id, "first", None).await;
        let chunks = first.chunks_indexed;
        let expected = match expected_cached {
            true => (4, 0, 0, chunks),
            false => (4, 0, chunks, 0),
        };
        assert_eq!(work(&second), expected, "embedding.cache_shared = {shared}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_after_a_crash_computes_nothing_that_was_computed_before() {
    let mut scenario = Scenario::new(Backend::Sqlite).await;
    scenario.deployment = scenario
        .deployment
        .with("worker.lease_seconds", "6")
        .with("worker.max_failed_attempts", "20");
    let repository = Repository::create(&scenario.repositories(), "owner/name");
    // A document is settled as a whole, so the one that is in work starts anew, all of its windows.
    let chunks = 700;
    repository.commit("main", &[Change::file("large.txt", lines("large", 10 * chunks))]);
    let api = scenario.deployment.start_role("api");
    let source = scenario.create_source(&api, "owner/name").await;
    let created = scenario.create_invocation(&api, &source, "target").await.unwrap();
    let watching = scenario.start_watch(&api, &created.id).await;

    let first = scenario.deployment.start_role("worker");
    let mut client = api.invocations(&scenario.admin);
    let computed = wait_for("two windows of embeddings", async || {
        let request = proto::GetInvocationRequest {
            invocation_id: created.id.clone(),
        };
        let invocation = client.get_invocation(request).await.unwrap().into_inner();
        let counts = invocation.statistics.unwrap_or_default();
        match counts.embeddings_computed >= 256 {
            true => Ok(counts.embeddings_computed),
            false => Err(counts),
        }
    })
    .await;
    first.kill();
    let second = scenario.deployment.start_role("worker");
    let messages = watching.await.unwrap();
    let ended = messages.last().unwrap().invocation.clone().unwrap();
    assert_eq!(ended.state(), State::Complete, "{:?}", ended.failure);
    assert!(ended.attempt >= 2);
    let counts = ended.statistics.unwrap();
    let chunks = i64::try_from(chunks).unwrap();
    assert_eq!((counts.documents_indexed, counts.chunks_indexed), (1, chunks));
    // The last window may not have been written yet when the process was killed.
    assert!(
        counts.embeddings_cached >= computed - 128,
        "{computed} were computed before the crash: {counts:?}"
    );
    assert!(counts.embeddings_computed < chunks + 2 * 128, "{counts:?}");
    drop(second);
}

/// Bytes that the process read so far, of files and of whatever else; what is mapped does not count.
fn bytes_read(service: &Service) -> u64 {
    let counts = fs::read_to_string(format!("/proc/{}/io", service.process_id())).unwrap();
    let read = counts.lines().find_map(|line| line.strip_prefix("rchar: "));
    read.unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_are_read_through_once_and_not_before_the_first_sync() {
    let weights = models_directory().join(MINILM).join("model.safetensors");
    let weights = fs::metadata(weights).unwrap().len();
    let scenario = Scenario::new(Backend::Sqlite).await;
    let repository = Repository::create(&scenario.repositories(), "owner/name");
    repository.commit("main", &[Change::file("a.txt", "text\n")]);
    let service = scenario.deployment.start();
    let request = proto::EmbedRequest {
        texts: vec!["a question".to_owned()],
        purpose: proto::EmbeddingPurpose::Query.into(),
        settings: None,
    };
    let mut embeddings = service.embeddings(&scenario.admin);
    embeddings.embed(request).await.unwrap();
    let before = bytes_read(&service);
    assert!(before < weights / 2, "{before} of {weights}");

    let source = scenario.create_source(&service, "owner/name").await;
    run(&scenario, &service, &source, "first", None).await;
    let first = bytes_read(&service) - before;
    assert!(first >= weights, "{first} of {weights}");
    run(&scenario, &service, &source, "second", None).await;
    let second = bytes_read(&service) - before - first;
    assert!(second < weights / 2, "{second} of {weights}");
}
