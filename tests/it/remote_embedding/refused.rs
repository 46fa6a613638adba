//! What is left in the collection of a document that fails because its model refuses one of its chunks: what was there
//! before, or nothing.

use std::collections::BTreeMap;

use chroma_sync::{
    domain::document::sha256_hex,
    index::StoredRecord,
    proto::{self, document::Outcome, invocation::State},
};

use super::sync::{computed_at, scenario};
use crate::harness::{
    chroma::assert_same_records,
    embedding_server::{DIMENSIONS, EmbeddingServer, Rules},
    git_server::{Change, Repository},
    scenario::{Scenario, invocation_request},
    service::Service,
    wait_for,
};

/// Chunks of a document that is embedded in several windows, of 128 chunks each.
const SEVERAL_WINDOWS: usize = 150;
/// Chunks of a document of which not all records wait for the last: 2,000 do.
const TOO_MANY_TO_WAIT: usize = 2_200;

/// A text of so many different chunks: ten lines each.
fn chunks(word: &str, count: usize) -> String {
    (0..10 * count).map(|n| format!("{word} line {n}\n")).collect()
}

/// Brings the collection up to date with the default branch.
async fn update(scenario: &Scenario, service: &Service, source: &str) -> proto::Invocation {
    let request = proto::CreateInvocationRequest {
        update_collection: true,
        ..invocation_request(source, "target", None)
    };
    let mut invocations = service.invocations(&scenario.admin);
    let created = invocations.create_invocation(request).await.unwrap().into_inner();
    let messages = scenario.watch(service, &created.id).await;
    messages.last().unwrap().invocation.clone().unwrap()
}

/// The records of each document.
async fn records_of(scenario: &Scenario, keys: [&str; 2]) -> [BTreeMap<String, StoredRecord>; 2] {
    let records = scenario.chroma.records("target").await;
    keys.map(|key| {
        let of_document = records.iter().filter(|(id, _)| id.starts_with(&sha256_hex(key)));
        of_document
            .map(|(id, record)| (id.clone(), record.clone()))
            .collect()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_is_refused_midway_keeps_its_former_records_or_loses_them_all() {
    const KEYS: [&str; 2] = ["long.txt", "middling.txt"];
    let rules = Rules {
        poison: Some("poison"),
        ..Rules::default()
    };
    let server = EmbeddingServer::start(rules).await;
    let scenario = scenario(&server.openai(), DIMENSIONS).await;
    let repository = Repository::create(&scenario.repositories(), "owner/name");
    let commit = |word: &str, end: &str| {
        let text = |count| format!("{}{end}", chunks(word, count));
        repository.commit(
            "main",
            &[
                Change::file("long.txt", text(TOO_MANY_TO_WAIT)),
                Change::file("middling.txt", text(SEVERAL_WINDOWS)),
            ],
        )
    };
    commit("former", "");
    let service = scenario.deployment.start();
    let source = scenario.create_source(&service, "owner/name").await;
    let ended = scenario.run(&service, &source, "target", None).await;
    assert_eq!(ended.state(), State::Complete, "{ended:?}");
    let former = records_of(&scenario, KEYS).await;
    assert_eq!(
        former.each_ref().map(BTreeMap::len),
        [TOO_MANY_TO_WAIT, SEVERAL_WINDOWS]
    );

    commit("later", "poison\n");
    let ended = update(&scenario, &service, &source).await;
    assert_eq!(ended.state(), State::Complete, "{ended:?}");
    let counts = ended.statistics.unwrap();
    assert_eq!(
        (
            counts.documents_failed,
            counts.documents_indexed,
            counts.chunks_indexed
        ),
        (2, 0, 0)
    );
    let documents = scenario.documents(&service, &ended.id).await;
    for (key, chunks) in KEYS.into_iter().zip([TOO_MANY_TO_WAIT, SEVERAL_WINDOWS]) {
        let (outcome, reason) = &documents[key];
        assert_eq!(*outcome, Outcome::Failed);
        let wanted = format!("chunk {chunks} cannot be embedded: ");
        assert!(reason.starts_with(&wanted), "{reason}");
    }
    let [long, middling] = records_of(&scenario, KEYS).await;
    assert_eq!(long.len(), 0);
    assert_same_records(&middling, &former[1]);

    // Both are whole again when they are as they were: the one is there still, the other is not taken for it.
    commit("former", "");
    let ended = update(&scenario, &service, &source).await;
    let counts = ended.statistics.unwrap();
    assert_eq!((counts.documents_indexed, counts.documents_unchanged), (1, 1));
    let again = records_of(&scenario, KEYS).await;
    for (again, former) in again.iter().zip(&former) {
        assert_same_records(again, former);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_attempt_wrote_of_a_document_goes_when_the_next_one_fails_it() {
    const KEYS: [&str; 2] = ["long.txt", "short.txt"];
    let stalling = EmbeddingServer::start(Rules {
        stall: Some("stall"),
        ..Rules::default()
    })
    .await;
    let refusing = EmbeddingServer::start(Rules {
        poison: Some("poison"),
        ..Rules::default()
    })
    .await;
    let mut scenario = scenario(&stalling.openai(), DIMENSIONS).await;
    scenario.deployment = scenario
        .deployment
        .with("worker.lease_seconds", "6")
        // What the first attempt embedded, the second one asks for again.
        .with("embedding.cache_max_bytes", "0");
    let repository = Repository::create(&scenario.repositories(), "owner/name");
    let long = format!("poison {}stall\n", chunks("a", TOO_MANY_TO_WAIT));
    repository.commit(
        "main",
        &[
            Change::file("long.txt", long),
            Change::file("short.txt", "short\n"),
        ],
    );
    let api = scenario.deployment.start_role("api");
    let source = scenario.create_source(&api, "owner/name").await;
    let created = scenario.create_invocation(&api, &source, "target").await.unwrap();
    let watching = scenario.start_watch(&api, &created.id).await;

    let first = scenario.deployment.start_role("worker");
    wait_for("records of the long document", async || {
        let mut collection = None;
        if !stalling.batches().is_empty() {
            collection = Some(scenario.chroma.records("target").await.len());
        }
        match collection {
            Some(count) if count >= 2_000 => Ok(()),
            seen => Err(seen),
        }
    })
    .await;
    first.kill();
    let second =
        computed_at(scenario.deployment.clone(), &refusing.openai(), DIMENSIONS).start_role("worker");

    let messages = watching.await.unwrap();
    let ended = messages.last().unwrap().invocation.clone().unwrap();
    assert_eq!((ended.state(), ended.attempt), (State::Complete, 2), "{ended:?}");
    let documents = scenario.documents(&api, &ended.id).await;
    let (outcome, reason) = &documents["long.txt"];
    assert_eq!(*outcome, Outcome::Failed);
    assert!(reason.starts_with("chunk 0 cannot be embedded: "), "{reason}");
    let found = records_of(&scenario, KEYS).await;
    assert_eq!(found.each_ref().map(BTreeMap::len), [0, 1]);
    drop(second);
}
