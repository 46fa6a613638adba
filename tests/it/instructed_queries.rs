//! Documents are embedded plain and queries with the instruction of their task, from the repository to the answer of a
//! stock client: vectors and distances are those of the Python reference (`scripts/tiny_models.py`).

use std::{collections::BTreeMap, fs};

use base64::Engine;
use chroma_sync::{
    domain::embedding::QWEN3,
    proto::{self, EmbeddingPurpose, embed_request::Settings, invocation::State},
};
use serde_json::Value;

use crate::harness::{
    git_server::{Change, Repository},
    scenario::Scenario,
    service::{Service, project_file},
    stock_clients::{client, embedding_with, output, place, with_tiny_qwen3},
    stores::Backend,
};

/// How far the service may be from the reference in a number of a vector, and in a distance.
const TOLERANCE: f32 = 2e-5;
/// More documents than a vector has dimensions, so that the distances to all of them tell which vector was asked with.
const DOCUMENTS: usize = 66;
/// Which texts are asked for: one of Markdown, one of few words, one with words that others have.
const QUESTIONS: [usize; 3] = [3, 12, 15];

/// What the reference makes of a text.
struct Reference {
    text: String,
    document: Vec<f32>,
    /// With the instruction of the default task; of the first texts alone.
    query: Option<Vec<f32>>,
}

fn golden(name: &str) -> Value {
    let path = project_file("tests/golden").join(name);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap()
}

fn vector(golden: &Value) -> Vec<f32> {
    let base64 = golden["vector"].as_str().unwrap();
    let bytes = base64::engine::general_purpose::STANDARD.decode(base64).unwrap();
    let numbers = bytes.as_chunks::<4>().0;
    numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

/// The documents by their keys. Each is one chunk: a text of few lines.
fn references() -> BTreeMap<String, Reference> {
    let (texts, vectors) = (golden("texts.json"), golden("qwen3.json"));
    (0..DOCUMENTS)
        .map(|n| {
            let reference = Reference {
                text: texts[n].as_str().unwrap().to_owned(),
                document: vector(&vectors["texts"][n]),
                query: vectors["queries"].get(n).map(vector),
            };
            (key(n), reference)
        })
        .collect()
}

fn key(n: usize) -> String {
    format!("{n:02}.txt")
}

fn distance(left: &[f32], right: &[f32]) -> f32 {
    1.0 - left
        .iter()
        .zip(right)
        .map(|(left, right)| left * right)
        .sum::<f32>()
}

#[track_caller]
fn assert_near(found: &[f32], wanted: &[f32]) {
    assert_eq!(found.len(), wanted.len());
    let apart = found
        .iter()
        .zip(wanted)
        .map(|(found, wanted)| (found - wanted).abs());
    let furthest = apart.fold(0.0, f32::max);
    assert!(furthest <= TOLERANCE, "{furthest}");
}

async fn embedded(service: &Service, token: &str, text: &str, purpose: EmbeddingPurpose) -> Vec<f32> {
    let request = proto::EmbedRequest {
        texts: vec![text.to_owned()],
        purpose: purpose.into(),
        settings: Some(Settings::Model(QWEN3.to_owned())),
    };
    let answer = service.embeddings(token).embed(request).await.unwrap();
    answer.into_inner().embeddings.remove(0).vector
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_clients_ask_with_the_instruction_what_was_embedded_without_it() {
    let references = references();
    let scenario = Scenario::new(Backend::Sqlite).await;
    let directory = tempfile::tempdir().unwrap();
    let service = with_tiny_qwen3(&scenario.deployment, directory.path()).start();
    let files: Vec<Change> = references
        .iter()
        .map(|(key, reference)| Change::file(key, &reference.text))
        .collect();
    Repository::create(&scenario.repositories(), "owner/name").commit("main", &files);
    let source = scenario.create_source(&service, "owner/name").await;
    let ended = scenario.run(&service, &source, "target", None).await;
    assert_eq!(ended.state(), State::Complete, "{ended:?}");

    let records = scenario.chroma.records("target").await;
    assert_eq!(records.len(), DOCUMENTS);
    for record in records.values() {
        let reference = &references[record.metadata["document_key"].as_str().unwrap()];
        assert_eq!(record.document.as_ref(), Some(&reference.text));
        assert_near(record.vector.as_ref().unwrap(), &reference.document);
    }

    for n in QUESTIONS {
        let asked = &references[&key(n)];
        let (plain, instructed) = (&asked.document, asked.query.as_ref().unwrap());
        let token = &scenario.admin;
        let query = embedded(&service, token, &asked.text, EmbeddingPurpose::Query).await;
        assert_near(&query, instructed);
        let document = embedded(&service, token, &asked.text, EmbeddingPurpose::Document).await;
        assert_near(&document, plain);

        let mut expected: Vec<(f32, &str)> = references
            .iter()
            .map(|(key, reference)| (distance(instructed, &reference.document), key.as_str()))
            .collect();
        expected.sort_by(|left, right| left.0.total_cmp(&right.0));
        let expected_of: BTreeMap<&str, f32> =
            expected.iter().map(|(distance, key)| (*key, *distance)).collect();
        let without = |key: &str| distance(plain, &references[key].document);
        let told_apart = expected_of
            .iter()
            .filter(|(key, distance)| (without(key) - **distance).abs() > 0.01);
        assert!(
            told_apart.count() > DOCUMENTS / 2,
            "the instruction changes nothing"
        );

        for script in ["query_collection.py", "javascript/query_collection.mjs"] {
            let mut command = client(script);
            command
                .args(place(&scenario.chroma))
                .args(["target", &asked.text, &DOCUMENTS.to_string()]);
            let found = output(embedding_with(&mut command, &service, token));
            assert_eq!(found["function"], "chroma-cloud-qwen", "{script}");
            let keys: Vec<String> = serde_json::from_value(found["keys"].clone()).unwrap();
            let distances: Vec<f32> = serde_json::from_value(found["distances"].clone()).unwrap();
            assert_eq!(keys.len(), DOCUMENTS, "{script}");
            assert_eq!(keys[0], expected[0].1, "{script}");
            for (key, found) in keys.iter().zip(distances) {
                let wanted = expected_of[key.as_str()];
                assert!(
                    (found - wanted).abs() <= TOLERANCE,
                    "{script}: {key} is at {found}, not at {wanted}; without the instruction at {}",
                    without(key)
                );
            }
        }
    }
}
