//! The embedding wire of Chroma's stock clients: what they ask Chroma Cloud for, they get from the service.

use std::time::{Duration, Instant};

use chroma_sync::{
    domain::embedding::{MINILM, QWEN3},
    proto::{self, EmbeddingPurpose, embed_request::Settings},
};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::harness::{
    git_server::{Change, Repository},
    rest::Answer,
    scenario::Scenario,
    service::Service,
    stock_clients::{client, embedding_with, output, place, with_qwen3},
    stores::Backend,
    wait_for,
};

const BRIDGES: &str = "# Bridges\n\nA suspension bridge hangs its deck from cables.\n";
const BREAD: &str = "# Bread\n\nSourdough rises slowly, without yeast from a packet.\n";

/// A client of the wire itself.
#[derive(Clone)]
struct Wire {
    http: reqwest::Client,
    url: String,
    token: String,
    model: String,
}

impl Wire {
    fn new(service: &Service, token: &str, model: &str) -> Self {
        Self {
            http: reqwest::Client::new(),
            url: service.url.clone(),
            token: token.to_owned(),
            model: model.to_owned(),
        }
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        let mut request = self.http.post(format!("{}{path}", self.url)).json(body);
        for (name, value) in [
            ("x-chroma-token", &self.token),
            ("x-chroma-embedding-model", &self.model),
        ] {
            if !value.is_empty() {
                request = request.header(name, value);
            }
        }
        let response = request.send().await.unwrap();
        Answer {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            text: response.text().await.unwrap(),
        }
    }

    async fn embed(&self, texts: &[&str]) -> Answer {
        self.post("/embed", &json!({"instructions": "", "texts": texts}))
            .await
    }
}

fn vectors(answer: &Answer) -> Vec<Vec<f32>> {
    assert_eq!(answer.status, 200, "{}", answer.text);
    serde_json::from_value(answer.json()["embeddings"].clone()).unwrap()
}

/// The vector that the service itself makes of a text.
async fn embedded(service: &Service, token: &str, model: &str, text: &str) -> Vec<f32> {
    let request = proto::EmbedRequest {
        texts: vec![text.to_owned()],
        purpose: EmbeddingPurpose::Query.into(),
        settings: Some(Settings::Model(model.to_owned())),
    };
    let answer = service.embeddings(token).embed(request).await.unwrap();
    answer.into_inner().embeddings.remove(0).vector
}

fn assert_near(one: &[f32], other: &[f32]) {
    assert_eq!(one.len(), other.len());
    let distance = one
        .iter()
        .zip(other)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max);
    assert!(distance < 1e-5, "{distance}");
}

/// Syncs a repository with Qwen3, as anybody does who knows nothing of the queries to come.
async fn synced(scenario: &Scenario, service: &Service) {
    let files = [
        Change::file("bread.md", BREAD),
        Change::file("bridges.md", BRIDGES),
    ];
    Repository::create(&scenario.repositories(), "owner/name").commit("main", &files);
    let mut request = scenario.source_request("owner/name");
    request.embedding = Some(proto::Embedding {
        dense: Some(proto::DenseEmbedding {
            model: QWEN3.to_owned(),
            task: None,
        }),
        sparse: None,
    });
    let mut sources = service.sources(&scenario.admin);
    let source = sources.create_source(request).await.unwrap().into_inner();
    let ended = scenario.run(service, &source.id, "target", None).await;
    assert_eq!(ended.state(), proto::invocation::State::Complete, "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_clients_query_a_synced_collection_by_text_with_two_variables_and_nothing_else() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let directory = tempfile::tempdir().unwrap();
    let service = with_qwen3(&scenario.deployment, directory.path()).start();
    synced(&scenario, &service).await;
    for script in ["query_collection.py", "javascript/query_collection.mjs"] {
        let mut command = client(script);
        command
            .args(place(&scenario.chroma))
            .args(["target", "how does a bridge carry its road?"]);
        let found = output(embedding_with(&mut command, &service, &scenario.admin));
        assert_eq!(found["function"], "chroma-cloud-qwen", "{script}");
        assert_eq!(found["keys"], json!(["bridges.md", "bread.md"]), "{script}");
        assert_eq!(found["documents"][0], BRIDGES, "{script}");
        let distance = found["distances"][0].as_f64().unwrap();
        assert!((0.0..0.7).contains(&distance), "{script}: {distance}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn chromas_own_embedding_function_gets_the_vectors_of_the_service_and_shows_its_errors() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let directory = tempfile::tempdir().unwrap();
    let service = with_qwen3(&scenario.deployment, directory.path()).start_role("api");
    let mut command = client("embed_texts.py");
    command.args(["a bridge", "bread"]);
    let found = output(embedding_with(&mut command, &service, &scenario.admin));
    for (index, text) in ["a bridge", "bread"].into_iter().enumerate() {
        let expected = embedded(&service, &scenario.admin, MINILM, text).await;
        for purpose in ["documents", "queries"] {
            let vector: Vec<f32> = serde_json::from_value(found[purpose][index].clone()).unwrap();
            assert_near(&vector, &expected);
        }
    }

    let mut command = client("embed_texts.py");
    command.arg("a");
    let found = output(embedding_with(&mut command, &service, "cs-unknown"));
    assert_eq!(
        found,
        json!({"error": "the token is unknown, revoked or expired"})
    );
    drop(service);

    // A server that has another model only says which ones it has.
    let service = scenario.deployment.start_role("api");
    let found = output(embedding_with(&mut command, &service, &scenario.admin));
    let message = found["error"].as_str().unwrap();
    assert!(message.contains(QWEN3) && message.contains(MINILM), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wire_answers_with_and_without_a_slash_and_counts_tokens() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let wire = Wire::new(&service, &scenario.admin, MINILM);
    let long = "word ".repeat(400);
    let expected = embedded(&service, &scenario.admin, MINILM, "hello world").await;
    for path in ["/embed", "/embed/"] {
        let answer = wire
            .post(
                path,
                &json!({"instructions": "", "texts": ["hello world", &long]}),
            )
            .await;
        let found = vectors(&answer);
        assert_near(&found[0], &expected);
        let length: f32 = found[1].iter().map(|value| value * value).sum();
        assert!((length - 1.0).abs() < 1e-4, "{length}");
        // Two words and two tokens of the model's own; the long text fills the model's window.
        assert_eq!(answer.json()["num_tokens"], 4 + 256);
        assert_eq!(answer.json()["num_truncated"], 1);
    }
    // A client to come may send more than this one.
    let body = json!({"texts": ["hello world"], "dimensions": null, "task": "x"});
    assert_near(&vectors(&wire.post("/embed", &body).await)[0], &expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_wire_refuses_it_refuses_with_the_limit() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let deployment = scenario
        .deployment
        .clone()
        .with("embedding.max_texts_per_call", "3");
    let service = deployment.start_role("api");
    let refused = async |wire: Wire, path: &str, body: Value| {
        let answer = wire.post(path, &body).await;
        let error = answer.json();
        let text = |name: &str| error[name].as_str().unwrap().to_owned();
        (answer.status, text("reason"), text("error"))
    };
    let wire = |token: &str, model: &str| Wire::new(&service, token, model);
    let one = json!({"texts": ["a"]});

    let (status, reason, _) = refused(wire("", MINILM), "/embed", one.clone()).await;
    assert_eq!((status, reason.as_str()), (401, "TOKEN_MISSING"));
    let (status, reason, message) = refused(wire(&scenario.admin, ""), "/embed", one.clone()).await;
    assert_eq!((status, reason.as_str()), (400, "INVALID_FIELD"));
    assert_eq!(message, "x-chroma-embedding-model: is required");
    let (status, reason, message) = refused(wire(&scenario.admin, "a/b"), "/embed", one.clone()).await;
    assert_eq!((status, reason.as_str()), (400, "UNKNOWN_MODEL"));
    assert!(message.contains(MINILM), "{message}");
    let sparse = "/embed/embed_sparse";
    let (status, reason, message) = refused(wire(&scenario.admin, "a/b"), sparse, one).await;
    assert_eq!((status, reason.as_str()), (400, "UNKNOWN_MODEL"));
    assert!(
        message.starts_with("x-chroma-embedding-model: model \"a/b\""),
        "{message}"
    );

    for (body, expected) in [
        (json!({}), "texts: is required"),
        (json!({"texts": []}), "texts: must have at least one text"),
        (
            json!({"texts": ["a", "b", "c", "d"]}),
            "texts: must have at most 3 texts, has 4; send them in several calls",
        ),
        (
            json!({"texts": ["a", "b".repeat(131_073)]}),
            "texts[1]: must have at most 131072 bytes, has 131073",
        ),
        (
            json!({"texts": ["a"], "instructions": "i".repeat(4_097)}),
            "instructions: must have at most 4096 bytes, has 4097",
        ),
    ] {
        let (status, reason, message) = refused(wire(&scenario.admin, MINILM), "/embed", body).await;
        assert_eq!(
            (status, reason.as_str(), message.as_str()),
            (400, "INVALID_FIELD", expected)
        );
    }
    let large = json!({"texts": vec!["a".repeat(100_000); 50]});
    let (status, _, message) = refused(wire(&scenario.admin, MINILM), "/embed", large).await;
    assert_eq!(status, 413);
    assert!(message.contains("at most 4194304 bytes"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_authentication_any_key_is_good_enough() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let directory = tempfile::tempdir().unwrap();
    let service = with_qwen3(&scenario.deployment, directory.path())
        .with("auth.mode", "none")
        .start_role("api");
    let mut command = client("embed_texts.py");
    command.arg("a bridge");
    let found = output(embedding_with(&mut command, &service, "anything"));
    assert_eq!(found["queries"][0].as_array().unwrap().len(), 384);
}

/// Texts of which each fills the model's window.
fn long_texts(count: usize) -> Vec<String> {
    (0..count)
        .map(|n| format!("{n} {}", "bridge ".repeat(300)))
        .collect()
}

/// Sends a batch of documents, again while there is no room for it.
fn start_batch(wire: &Wire, count: usize) -> JoinHandle<Answer> {
    let wire = wire.clone();
    let body = json!({"instructions": "", "texts": long_texts(count)});
    tokio::spawn(async move {
        let mut pause = tokio::time::interval(Duration::from_millis(20));
        loop {
            pause.tick().await;
            let answer = wire.post("/embed", &body).await;
            if answer.status != 429 {
                return answer;
            }
        }
    })
}

/// Waits until documents are being embedded: one more call with documents is told to come back.
async fn wait_until_busy(wire: &Wire) {
    wait_for("the batch to be embedded", async || {
        let answer = wire.embed(&["short"; 17]).await;
        match answer.status {
            429 => Ok(answer),
            status => Err(status),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_is_answered_while_a_large_batch_of_documents_is_embedded() {
    const BATCH: usize = 64;
    let scenario = Scenario::new(Backend::Sqlite).await;
    let deployment = scenario
        .deployment
        .clone()
        .with("embedding.max_waiting_calls", "1")
        // However busy the machine is, the batch comes to its end.
        .with("server.request_timeout_seconds", "600");
    let service = deployment.start_role("api");
    let wire = Wire::new(&service, &scenario.admin, MINILM);
    let expected = vectors(&wire.embed(&["a question"]).await);
    let batch = start_batch(&wire, BATCH);
    wait_until_busy(&wire).await;
    for _ in 0..3 {
        assert_near(&vectors(&wire.embed(&["a question"]).await)[0], &expected[0]);
    }
    // The documents are still being embedded, and say when to come back.
    let refused = wire.embed(&["short"; 17]).await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, "1"));
    assert_eq!(refused.json()["reason"], "TOO_MANY_REQUESTS");
    assert_eq!(vectors(&batch.await.unwrap()).len(), BATCH);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_whose_caller_is_gone_is_given_up() {
    const PART: usize = 8;
    const WHOLE: usize = 40 * PART;
    let scenario = Scenario::new(Backend::Sqlite).await;
    let deployment = scenario
        .deployment
        .clone()
        .with("embedding.max_waiting_calls", "1");
    let service = deployment.start_role("api");
    let wire = Wire::new(&service, &scenario.admin, MINILM);
    let start = Instant::now();
    vectors(&start_batch(&wire, PART).await.unwrap());
    let of_the_whole = start.elapsed() * (WHOLE / PART) as u32;

    let batch = start_batch(&wire, WHOLE);
    wait_until_busy(&wire).await;
    batch.abort();
    let gone = Instant::now();
    wait_for("room for documents", async || {
        match wire.embed(&["short"; 17]).await.status {
            200 => Ok(()),
            status => Err(status),
        }
    })
    .await;
    let waited = gone.elapsed();
    assert!(
        waited < (of_the_whole / 4).max(Duration::from_secs(1)),
        "{waited:?} of {of_the_whole:?}"
    );
}
