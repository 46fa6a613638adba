//! Servers that fail.

use std::{sync::Arc, time::Duration};

use chroma_sync::embed::{EmbedError, Embedder, Purpose, RefusedText, remote::RemoteError};
use tokio::time::Instant;

use super::{KEY, assert_vectors, embed, embedder, embedder_with, options};
use crate::harness::{
    embedding_server::{EmbeddingServer, Fault, Rules},
    proxy::{self, FaultProxy},
};
use chroma_sync::embed::remote::DenseWire;

const TEXTS: [&str; 5] = ["one", "two words", "three of them", "four", "five is the last"];

fn remote(error: EmbedError) -> RemoteError {
    match error {
        EmbedError::Remote(error) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_batch_survives_busy_answers_timeouts_and_connections_that_break() {
    let server = EmbeddingServer::start(Rules::default()).await;
    let embedder = embedder(&[&server]);
    assert_vectors(&embed(&embedder, &TEXTS).await.unwrap(), &TEXTS);
    for fault in [
        Fault::Status(503, "", None),
        Fault::Status(500, "{\"error\":\"out of memory\"}", None),
        Fault::Status(429, "slow down", Some(0)),
        Fault::BreakOff,
        Fault::Hang,
    ] {
        server.fail_next([fault.clone()]);
        let embedded = embed(&embedder, &["again"]).await;
        assert_vectors(
            &embedded.unwrap_or_else(|error| panic!("{fault:?}: {error}")),
            &["again"],
        );
    }
    let batches = server.batches();
    assert_eq!(batches.iter().filter(|texts| *texts == &["again"]).count(), 10);
}

#[tokio::test]
async fn a_connection_that_is_reset_or_loses_its_answer_is_tried_again() {
    let server = EmbeddingServer::start(Rules::default()).await;
    let faults = [
        proxy::Fault::Reset,
        proxy::Fault::LoseAnswer,
        proxy::Fault::PassOnce,
    ];
    let proxy = FaultProxy::start(&server.address(), &faults).await;
    let embedder = embedder_with(DenseWire::Openai, options(&[format!("{}/v1", proxy.url())]));
    assert_vectors(&embed(&embedder, &TEXTS).await.unwrap(), &TEXTS);
    assert!(proxy.connections() >= 4, "{}", proxy.connections());
}

#[tokio::test]
async fn retry_after_is_kept_and_left_to_the_caller_when_it_is_long() {
    let server = EmbeddingServer::start(Rules::default()).await;
    let embedder = embedder(&[&server]);
    embed(&embedder, &["first"]).await.unwrap();
    server.fail_next([Fault::Status(429, "", Some(1))]);
    let begun = Instant::now();
    embed(&embedder, &["again"]).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());

    server.fail_next([Fault::Status(503, "", Some(3_600))]);
    let begun = Instant::now();
    let error = embed(&embedder, &["again"]).await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert!(error.is_transient());
    let wait = error.retry_after().unwrap().as_secs();
    assert!((3_590..=3_600).contains(&wait), "{wait}");
    let before = server.received().len();
    let error = embed(&embedder, &["again"]).await.unwrap_err();
    assert!(error.is_transient() && error.retry_after().is_some(), "{error}");
    assert_eq!(server.received().len(), before, "the server is left alone");
}

#[tokio::test]
async fn one_text_that_is_refused_is_found_and_named_alone() {
    let rules = Rules {
        poison: Some("poison"),
        ..Rules::default()
    };
    let server = EmbeddingServer::start(rules).await;
    let embedder = embedder(&[&server]);
    let mut texts = TEXTS.to_vec();
    texts[3] = "poison";
    let error = embed(&embedder, &texts).await.unwrap_err();
    let EmbedError::TextsRefused { texts: refused } = &error else {
        panic!("{error:?}");
    };
    let problem =
        "the embedding server answers 400: the input has a word that cannot be tokenized".to_owned();
    assert_eq!(refused, &[RefusedText { index: 3, problem }]);
    assert!(!error.is_transient());
    assert!(error.to_string().starts_with("text 3 was refused"), "{error}");
    for good in [0, 1, 2, 4] {
        let accepted = |batch: &Vec<String>| {
            batch.contains(&texts[good].to_owned()) && !batch.contains(&"poison".to_owned())
        };
        assert!(server.batches().iter().any(accepted), "{good} was embedded");
    }
}

#[tokio::test]
async fn a_batch_that_is_too_large_goes_through_in_halves() {
    let rules = Rules {
        max_texts: Some(1),
        ..Rules::default()
    };
    let server = EmbeddingServer::start(rules).await;
    assert_vectors(&embed(&embedder(&[&server]), &TEXTS).await.unwrap(), &TEXTS);
    let mut sizes: Vec<usize> = server.batches().iter().map(Vec::len).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [1, 1, 1, 1, 1, 2, 2, 4]);
}

#[tokio::test]
async fn a_text_beyond_the_physical_batch_of_llama_cpp_is_refused_for_good() {
    let rules = Rules {
        max_bytes: Some(100),
        ..Rules::default()
    };
    let server = EmbeddingServer::start(rules).await;
    let embedder = embedder(&[&server]);
    let long = "long ".repeat(50);
    let error = embed(&embedder, &["short", &long, "also short"])
        .await
        .unwrap_err();
    let EmbedError::TextsRefused { texts } = error else {
        panic!("{error:?}");
    };
    assert_eq!(texts.len(), 1);
    assert_eq!(texts[0].index, 1);
    assert!(
        texts[0].problem.contains("increase the physical batch size"),
        "{texts:?}"
    );
}

#[tokio::test]
async fn vectors_are_put_in_order_and_read_as_base64_too() {
    let server = EmbeddingServer::start(Rules::default()).await;
    let embedder = embedder(&[&server]);
    for fault in [Fault::Backwards, Fault::Base64] {
        embed(&embedder, &["warm"]).await.unwrap();
        server.fail_next([fault]);
        let texts = &TEXTS[..4];
        assert_vectors(&embed(&embedder, texts).await.unwrap(), texts);
    }
}

#[tokio::test]
async fn a_vector_that_is_not_finite_is_a_fault_of_its_text() {
    let server = EmbeddingServer::start(Rules::default()).await;
    let embedder = embedder(&[&server]);
    embed(&embedder, &["warm"]).await.unwrap();
    // Both texts, then the longer one, which is sent first.
    server.fail_next([Fault::NotFinite, Fault::NotFinite]);
    let error = embed(&embedder, &["a", "longer text"]).await.unwrap_err();
    let EmbedError::TextsRefused { texts } = error else {
        panic!("{error:?}");
    };
    let problem = "the model gave a vector that is not finite".to_owned();
    assert_eq!(texts, [RefusedText { index: 1, problem }]);
}

#[tokio::test]
async fn the_first_request_shows_that_the_server_has_other_dimensions() {
    let server = EmbeddingServer::start(Rules::default()).await;
    server.fail_next([Fault::Dimension]);
    let error = remote(embed(&embedder(&[&server]), &["text"]).await.unwrap_err());
    let message = error.to_string();
    assert!(!error.is_transient());
    assert!(
        message.contains("5 dimensions, and 4 are configured"),
        "{message}"
    );
    assert!(message.contains("embedding.providers.dimensions"), "{message}");
    assert_eq!(
        server.batches(),
        Vec::<Vec<String>>::new(),
        "only the canary was sent"
    );
}

#[tokio::test]
async fn a_key_or_address_that_is_wrong_is_an_error_that_names_the_option() {
    let server = EmbeddingServer::start(Rules::default()).await;
    let planted = "{\"error\":{\"message\":\"Incorrect API key provided: planted-key\"}}";
    server.fail_next([Fault::Status(401, planted, None)]);
    let error = embed(&embedder(&[&server]), &["text"]).await.unwrap_err();
    assert!(
        error.to_string().contains("embedding.providers.api_key"),
        "{error}"
    );
    assert!(!error.is_transient());
    assert!(!format!("{error:?} {error}").contains(KEY), "{error:?}");
    let wrong = embedder_with(DenseWire::Openai, options(&[format!("{}/v2", server.chroma())]));
    let error = embed(&wrong, &["text"]).await.unwrap_err();
    assert!(
        error.to_string().contains("embedding.providers.endpoints"),
        "{error}"
    );
}

#[tokio::test]
async fn a_key_that_a_server_repeats_is_taken_out_of_its_message() {
    let server = EmbeddingServer::start(Rules::default()).await;
    let embedder = embedder(&[&server]);
    embed(&embedder, &["warm"]).await.unwrap();
    server.fail_next([Fault::Status(
        400,
        "{\"detail\":\"planted-key\\n cannot do this\"}",
        None,
    )]);
    let error = embed(&embedder, &["text"]).await.unwrap_err();
    assert!(error.to_string().ends_with("*** cannot do this"), "{error}");
}

#[tokio::test]
async fn another_endpoint_takes_over_at_once_and_requests_are_spread() {
    let (first, second) = (
        EmbeddingServer::start(Rules::default()).await,
        EmbeddingServer::start(Rules::default()).await,
    );
    let embedder = embedder(&[&first, &second]);
    embedder.check().await;
    assert_eq!((first.received().len(), second.received().len()), (1, 1));
    let held = (first.hold(), second.hold());
    let texts: Vec<String> = (0..16).map(|n| format!("text {n}")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let released = async {
        first.wait_for_under_way(2).await;
        second.wait_for_under_way(2).await;
        drop(held);
    };
    let (embedded, ()) = tokio::join!(embed(&embedder, &texts), released);
    assert_vectors(&embedded.unwrap(), &texts);

    first.fail_next([Fault::Status(503, "", Some(3_600))]);
    let begun = Instant::now();
    for _ in 0..4 {
        assert_vectors(&embed(&embedder, &["again"]).await.unwrap(), &["again"]);
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let asked = |server: &EmbeddingServer| {
        let batches = server.batches();
        batches.iter().filter(|texts| *texts == &["again"]).count()
    };
    assert_eq!(
        (asked(&first), asked(&second)),
        (1, 4),
        "it is left alone afterwards"
    );
}

#[tokio::test]
async fn an_endpoint_that_runs_another_model_is_never_used() {
    let (first, other) = (
        EmbeddingServer::start(Rules::default()).await,
        EmbeddingServer::start(Rules {
            turned: true,
            ..Rules::default()
        })
        .await,
    );
    let embedder = embedder(&[&first, &other]);
    embed(&embedder, &["warm"]).await.unwrap();
    let texts: Vec<String> = (0..24).map(|n| format!("text {n}")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    assert_vectors(&embed(&embedder, &texts).await.unwrap(), &texts);
    assert_eq!(other.batches(), Vec::<Vec<String>>::new());
}

#[tokio::test]
async fn a_query_does_not_wait_behind_documents() {
    let server = EmbeddingServer::start(Rules::default()).await;
    let embedder = Arc::new(embedder(&[&server]));
    embed(&embedder, &["warm"]).await.unwrap();
    let held = server.hold();
    let texts: Vec<Arc<str>> = (0..40).map(|n| format!("document {n}").into()).collect();
    let documents = Arc::clone(&embedder);
    let documents = tokio::spawn(async move { documents.embed(texts, Purpose::Document, "").await });
    server.wait_for_under_way(2).await;
    let queries = Arc::clone(&embedder);
    let query = tokio::spawn(async move { queries.embed(vec!["?".into()], Purpose::Query, "find").await });
    server.wait_for_under_way(3).await;
    drop(held);
    assert_eq!(query.await.unwrap().unwrap().len(), 1);
    assert_eq!(documents.await.unwrap().unwrap().len(), 40);
    let batches = server.batches();
    // The one to warm up and two of documents were sent before.
    assert_eq!(batches[3], ["Instruct: find\nQuery:?"], "{batches:?}");
}

#[tokio::test]
async fn batches_keep_to_the_configured_texts_and_bytes() {
    let server = EmbeddingServer::start(Rules::default()).await;
    let mut options = options(&[server.openai()]);
    options.max_batch_bytes = 60;
    let embedder = embedder_with(DenseWire::Openai, options);
    let long = "x".repeat(50);
    let texts = ["a", &long, "b", "c", &long, "d", "e", "f"];
    assert_vectors(&embed(&embedder, &texts).await.unwrap(), &texts);
    for batch in server.batches() {
        let bytes: usize = batch.iter().map(String::len).sum();
        assert!(batch.len() <= 4 && bytes <= 60, "{batch:?}");
    }
}
