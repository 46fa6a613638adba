//! Models that other servers compute: the client against a server that is strict and fails, the wires as others speak
//! them, and whole syncs.

mod faults;
mod refused;
mod sync;
mod wires;

use std::{sync::Arc, time::Duration};

use chroma_sync::{
    domain::embedding::ModelDescription,
    embed::{
        EmbedError, EmbeddedText, Embedder, Purpose,
        remote::{DenseWire, RemoteEmbedder, RemoteOptions},
    },
    secret::Secret,
};
use url::Url;

use crate::harness::embedding_server::{DIMENSIONS, EmbeddingServer, vector_of};

const KEY: &str = "planted-key";

/// Options that do not wait long.
fn options(endpoints: &[String]) -> RemoteOptions {
    RemoteOptions {
        endpoints: endpoints.iter().map(|base| Url::parse(base).unwrap()).collect(),
        api_key: Secret::new(KEY),
        remote_model: "there".to_owned(),
        tokenizer: None,
        max_tokens: 100,
        max_batch_texts: 4,
        max_batch_tokens: 1_000,
        max_batch_bytes: 10_000,
        concurrency: 2,
        connect_timeout: Duration::from_secs(5),
        shortest_timeout: Duration::from_millis(300),
        longest_timeout: Duration::from_secs(20),
        deadline: Duration::from_secs(30),
    }
}

fn embedder_with(wire: DenseWire, options: RemoteOptions) -> RemoteEmbedder {
    let description = ModelDescription {
        name: "owner/model".to_owned(),
        dimensions: DIMENSIONS as u32,
        max_tokens: options.max_tokens,
        takes_instructions: true,
    };
    RemoteEmbedder::new(description, wire, options).unwrap()
}

/// Over OpenAI's wire, to these servers.
fn embedder(servers: &[&EmbeddingServer]) -> RemoteEmbedder {
    let endpoints: Vec<String> = servers.iter().map(|server| server.openai()).collect();
    embedder_with(DenseWire::Openai, options(&endpoints))
}

async fn embed(embedder: &RemoteEmbedder, texts: &[&str]) -> Result<Vec<EmbeddedText>, EmbedError> {
    let texts: Vec<Arc<str>> = texts.iter().map(|text| (*text).into()).collect();
    embedder.embed(texts, Purpose::Document, "").await
}

/// That each text became what the server makes of it.
fn assert_vectors(embedded: &[EmbeddedText], texts: &[&str]) {
    assert_eq!(embedded.len(), texts.len());
    for (embedded, text) in embedded.iter().zip(texts) {
        let expected = vector_of(text);
        let far = embedded.vector.iter().zip(expected).map(|(a, b)| (a - b).abs());
        let furthest = far.fold(0.0, f32::max);
        assert!(furthest < 1e-6, "{text}: {:?}, not {expected:?}", embedded.vector);
    }
}
