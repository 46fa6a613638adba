//! Sparse vectors: what they are, where they go, and where there are none.
//!
//! No Chroma server that runs locally takes them. So requests are held against those that the stock Python client
//! sends for the same collection and the same records.

use std::{collections::BTreeMap, path::Path, process::Command};

use chroma_sync::{
    domain::{
        embedding::{BM25, MINILM, QWEN3, SPLADE, SparseSettings, SparseVector, Task},
        names::CollectionName,
    },
    embed::Bm25,
    index::{
        ChromaClient, ChromaOptions, CollectionSettings, EmbeddingFunction, HybridQuery, IndexError,
        SparseIndex, SparseVectors,
    },
    proto::{self, invocation::State},
};
use serde_json::{Value, json};
use url::Url;

use crate::harness::{
    chroma::{ChromaDatabase, options, peer},
    git_server::{Change, Repository},
    rest::RestClient,
    scenario::Scenario,
    service::project_file,
    sparse_chroma::SparseChroma,
    stores::Backend,
};

/// Runs a script of the Python client and reads the JSON value that it prints.
fn python(script: &Path, arguments: &[&str]) -> Value {
    let output = Command::new(peer("python3"))
        .arg(script)
        .args(arguments)
        .env("ANONYMIZED_TELEMETRY", "False")
        .env("CHROMA_API_KEY", "a key")
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} failed: {errors}", script.display());
    serde_json::from_slice(&output.stdout).unwrap()
}

fn script(name: &str) -> std::path::PathBuf {
    project_file("tests/it/sparse").join(name)
}

#[test]
fn bm25_vectors_are_those_of_the_official_implementation_for_texts_of_many_languages() {
    let sentences = project_file("tests/corpus/languages.txt");
    let rows = python(&script("bm25.py"), &[sentences.to_str().unwrap()]);
    let rows = rows.as_array().unwrap();
    assert!(rows.len() > 1_000);
    for row in rows {
        let text = row["text"].as_str().unwrap();
        let SparseVector { indices, values } = Bm25::vector(text);
        assert_eq!(json!(indices), row["indices"], "{text:?}");
        for (value, expected) in values.iter().zip(row["values"].as_array().unwrap()) {
            let expected = expected.as_f64().unwrap();
            assert!(
                (f64::from(*value) - expected).abs() < 1e-6,
                "{value} for {expected} in {text:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_single_node_server_is_found_to_take_no_sparse_vectors_and_keeps_no_trace_of_the_question() {
    let database = ChromaDatabase::create().await;
    let databases = async || {
        let url = format!("{}/api/v2/tenants/{}/databases", database.url(), database.tenant);
        let listed: Vec<Value> = reqwest::get(url).await.unwrap().json().await.unwrap();
        listed
            .iter()
            .filter(|found| found["name"].as_str().unwrap().contains("probe"))
            .count()
    };
    assert!(
        !database
            .client
            .takes_sparse_vectors(&database.tenant)
            .await
            .unwrap()
    );
    assert_eq!(databases().await, 0);

    let told = |sparse_vectors: SparseVectors| {
        ChromaClient::new(ChromaOptions {
            sparse_vectors,
            ..options()
        })
        .unwrap()
    };
    assert!(
        told(SparseVectors::On)
            .takes_sparse_vectors(&database.tenant)
            .await
            .unwrap()
    );
    assert!(
        !told(SparseVectors::Off)
            .takes_sparse_vectors(&database.tenant)
            .await
            .unwrap()
    );

    let taking = SparseChroma::before(database.url()).await;
    let client = ChromaClient::new(ChromaOptions::new(Url::parse(&taking.url()).unwrap())).unwrap();
    for _ in 0..2 {
        assert!(client.takes_sparse_vectors(&database.tenant).await.unwrap());
    }
    // A yes is not asked for again.
    assert_eq!(taking.take("collections").len(), 1);
    assert_eq!(databases().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_schema_of_a_collection_is_the_one_that_the_stock_client_sends() {
    let database = ChromaDatabase::create().await;
    let taking = SparseChroma::before(database.url()).await;
    let client = ChromaClient::new(ChromaOptions::new(Url::parse(&taking.url()).unwrap())).unwrap();
    let name = |text: &str| CollectionName::parse("name", text).unwrap();
    // The one task whose function the client's own schema takes.
    let task = Task {
        name: "nl_to_code".to_owned(),
        document_prompt: String::new(),
        query_prompt:
            "Given a question about coding, retrieval code or passage that can solve user's question"
                .to_owned(),
    };
    for (n, (dense, sparse)) in [(MINILM, BM25), (MINILM, SPLADE), (QWEN3, BM25), (QWEN3, SPLADE)]
        .into_iter()
        .enumerate()
    {
        let settings = SparseSettings {
            model: sparse.to_owned(),
            key: "sparse_embedding".to_owned(),
        };
        let settings = CollectionSettings {
            embedding_function: EmbeddingFunction::for_model(dense, Some(&task)),
            dimensions: 384,
            sparse: SparseIndex::for_settings(&settings),
            metadata: json!({"finished_ingest": false}).as_object().unwrap().clone(),
        };
        let made = client
            .get_or_create_collection(
                &database.tenant,
                database.name(),
                &name(&format!("ours-{n}")),
                &settings,
            )
            .await
            .unwrap();
        let indexes = made.sparse_indexes.unwrap();
        assert_eq!(indexes.keys().collect::<Vec<_>>(), ["sparse_embedding"]);

        let port = taking.port().to_string();
        let theirs = format!("theirs-{n}");
        let arguments = [
            port.as_str(),
            database.tenant.as_str(),
            database.name().as_str(),
            &theirs,
            dense,
            sparse,
        ];
        python(&script("stock_client.py"), &arguments);
        let requests = taking.take("collections");
        let [ours, theirs] = requests.as_slice() else {
            panic!("{requests:?}")
        };
        for field in ["schema", "metadata", "get_or_create"] {
            assert_eq!(
                ours.body[field], theirs.body[field],
                "{field} of {dense} and {sparse}"
            );
        }
        // The client sends the defaults beside a schema; a server refuses anything else there.
        assert_eq!(ours.body.get("configuration"), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_node_server_does_not_have_hybrid_search() {
    let database = ChromaDatabase::create().await;
    let settings = CollectionSettings {
        embedding_function: EmbeddingFunction::for_model(MINILM, None),
        dimensions: 2,
        sparse: None,
        metadata: serde_json::Map::new(),
    };
    let name = CollectionName::parse("name", "searched").unwrap();
    let client = ChromaClient::new(ChromaOptions::new(Url::parse(database.url()).unwrap())).unwrap();
    let collection = client
        .get_or_create_collection(&database.tenant, database.name(), &name, &settings)
        .await
        .unwrap();
    let query = HybridQuery {
        vector: vec![0.25, 0.5],
        sparse_key: "sparse_embedding",
        sparse: SparseVector {
            indices: vec![1, 7],
            values: vec![0.5, 1.5],
        },
        filter: None,
        document_filter: None,
        limit: 10,
        offset: 0,
    };
    let unsupported = client.hybrid_query(&collection, &query).await.unwrap_err();
    assert!(
        matches!(unsupported, IndexError::Unsupported { .. }),
        "{unsupported}"
    );
}

const README: &str =
    "# Rivers\n\nThe Rhine flows through Basel, Straßburg and Köln.\n\n# Foxes\n\nQuick foxes jumped.\n";
const HINDI: &str = "नदियाँ बहती हैं।\n";

fn sparse_source(scenario: &Scenario, repository: &str, key: &str) -> proto::CreateSourceRequest {
    proto::CreateSourceRequest {
        embedding: Some(proto::Embedding {
            dense: None,
            sparse: Some(proto::SparseEmbedding {
                model: BM25.to_owned(),
                key: key.to_owned(),
            }),
        }),
        ..scenario.source_request(repository)
    }
}

/// Records of upserts by their ids: vector, text and metadata.
fn records(requests: &[Value]) -> BTreeMap<String, Value> {
    let mut records = BTreeMap::new();
    for body in requests {
        for (n, id) in body["ids"].as_array().unwrap().iter().enumerate() {
            let mut metadata = body["metadatas"][n].clone();
            let values = metadata["sparse_embedding"]["values"].as_array_mut().unwrap();
            for value in values {
                // Chroma keeps floats of 32 bits, and the client sends those of 64 bits that it computed.
                *value = json!(value.as_f64().unwrap() as f32);
            }
            let record = json!([body["embeddings"][n], body["documents"][n], metadata]);
            records.insert(id.as_str().unwrap().to_owned(), record);
        }
    }
    records
}

#[tokio::test(flavor = "multi_thread")]
async fn records_have_the_sparse_vectors_that_the_stock_client_gives_to_the_same_texts() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let taking = SparseChroma::before(scenario.chroma.url()).await;
    let service = scenario
        .deployment
        .clone()
        .with("chroma.url", &taking.url())
        .start();
    let repository = Repository::create(&scenario.repositories(), "owner/name");
    let files = [
        Change::file("README.md", README),
        Change::file("hindi.txt", HINDI),
        Change::file("dots.txt", "...\n"),
    ];
    repository.commit("main", &files);
    let created = service
        .sources(&scenario.admin)
        .create_source(sparse_source(&scenario, "owner/name", ""))
        .await
        .unwrap()
        .into_inner();
    let sparse = created.embedding.clone().unwrap().sparse.unwrap();
    assert_eq!(
        (sparse.model.as_str(), sparse.key.as_str()),
        (BM25, "sparse_embedding")
    );
    let rest = RestClient::new(&service, &scenario.admin);
    let (_, shown) = rest.get(&format!("/api/v1/sources/{}", created.id)).await;
    assert_eq!(
        shown["embedding"],
        json!({"dense": {"model": MINILM}, "sparse": {"model": BM25, "key": "sparse_embedding"}})
    );

    let ended = scenario.run(&service, &created.id, "target", None).await;
    assert_eq!(ended.state(), State::Complete, "{ended:?}");
    let made = taking.take("collections");
    let made: Vec<&Value> = made
        .iter()
        .map(|seen| &seen.body)
        .filter(|body| body["name"] == "target")
        .collect();
    let keys = &made[0]["schema"]["keys"];
    assert_eq!(
        keys["sparse_embedding"]["sparse_vector"]["sparse_vector_index"]["config"]["embedding_function"]["name"],
        "chroma_bm25"
    );
    let ours: Vec<Value> = taking.take("upsert").into_iter().map(|seen| seen.body).collect();

    // The same records, whose sparse vectors the client makes by itself.
    let mut bare = ours.clone();
    for body in &mut bare {
        for metadata in body["metadatas"].as_array_mut().unwrap() {
            let metadata = metadata.as_object_mut().unwrap();
            metadata.retain(|key, value| key != "sparse_embedding" && !value.is_null());
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("upserts.json");
    std::fs::write(&file, json!(bare).to_string()).unwrap();
    let port = taking.port().to_string();
    let (tenant, database) = (scenario.chroma.tenant.as_str(), scenario.database());
    let arguments = [
        &port,
        tenant,
        &database,
        "theirs",
        MINILM,
        BM25,
        file.to_str().unwrap(),
    ];
    python(&script("stock_client.py"), &arguments);
    let theirs: Vec<Value> = taking.take("upsert").into_iter().map(|seen| seen.body).collect();

    let (mut ours, theirs) = (records(&ours), records(&theirs));
    // The client takes no null in an upsert's metadata; the service says with it that a key is not there.
    for record in ours.values_mut() {
        record[2]
            .as_object_mut()
            .unwrap()
            .retain(|_, value| !value.is_null());
    }
    assert!(ours.len() >= 3);
    assert_eq!(ours, theirs);
    let empty = ours
        .values()
        .filter(|record| record[2]["sparse_embedding"]["indices"] == json!([]));
    // The dots alone; each Hindi word leaves letters when its marks are taken out.
    assert_eq!(empty.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_with_sparse_vectors_is_refused_where_the_server_takes_none() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let refused = service
        .sources(&scenario.admin)
        .create_source(sparse_source(&scenario, "owner/name", ""))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    assert!(refused.message().starts_with("embedding.sparse: "), "{refused:?}");
    assert!(
        refused.message().contains("takes no sparse vectors"),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invocation_into_a_collection_without_the_index_fails_and_says_so() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let repository = Repository::create(&scenario.repositories(), "owner/name");
    repository.commit("main", &[Change::file("a.txt", "one\n")]);
    let run = async |url: &str, sparse_vectors: &str, key: &str, collection: &str| {
        let deployment = scenario.deployment.clone();
        let deployment = deployment
            .with("chroma.url", url)
            .with("chroma.sparse_vectors", sparse_vectors);
        let service = deployment.start();
        let request = sparse_source(&scenario, "owner/name", key);
        let source = service
            .sources(&scenario.admin)
            .create_source(request)
            .await
            .unwrap();
        let ended = scenario
            .run(&service, &source.into_inner().id, collection, None)
            .await;
        assert_eq!(ended.state(), State::Failed, "{ended:?}");
        ended.failure.unwrap()
    };
    // The operator says that the server takes them, and is wrong.
    let failed = run(scenario.chroma.url(), "on", "one", "none").await;
    assert_eq!(failed.reason, "SPARSE_VECTORS_UNSUPPORTED");
    assert!(failed.message.contains("embedding.sparse"), "{failed:?}");

    let taking = SparseChroma::before(scenario.chroma.url()).await;
    let settings = CollectionSettings {
        embedding_function: EmbeddingFunction::for_model(MINILM, None),
        dimensions: 384,
        sparse: None,
        metadata: serde_json::Map::new(),
    };
    let (chroma, name) = (&scenario.chroma, CollectionName::parse("name", "dense").unwrap());
    chroma
        .client
        .get_or_create_collection(&chroma.tenant, chroma.name(), &name, &settings)
        .await
        .unwrap();
    let failed = run(&taking.url(), "auto", "two", "dense").await;
    assert_eq!(failed.reason, "SPARSE_INDEX_MISMATCH");
    assert!(
        failed
            .message
            .contains("has no sparse index under the key \"two\""),
        "{failed:?}"
    );
}
