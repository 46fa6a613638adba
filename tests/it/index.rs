//! The Chroma client against a real server.

mod faults;
mod functions;

use chroma_sync::{
    domain::{
        document::{record_id, sha256_hex},
        embedding::{MINILM, QWEN3},
        names::{CollectionName, DatabaseName},
    },
    error::Reason,
    index::{
        Collection, CollectionSettings, DOCUMENT_KEY, DocumentRecords, EmbeddingFunction, IndexError,
        Metadata, PageFields, Record, RecordMetadata, Space,
    },
};
use serde_json::{Value, json};

use crate::harness::chroma::ChromaDatabase;

fn settings(model: &str, dimensions: u32) -> CollectionSettings {
    CollectionSettings {
        embedding_function: EmbeddingFunction::for_model(model, None),
        dimensions,
        sparse: None,
        metadata: map(json!({"finished_ingest": false})),
    }
}

fn map(value: Value) -> Metadata {
    value.as_object().unwrap().clone()
}

fn name(text: &str) -> CollectionName {
    CollectionName::parse("name", text).unwrap()
}

async fn create(database: &ChromaDatabase, collection: &str, dimensions: u32) -> Collection {
    let settings = settings(MINILM, dimensions);
    let (client, name) = (&database.client, name(collection));
    client
        .get_or_create_collection(&database.tenant, database.name(), &name, &settings)
        .await
        .unwrap()
}

/// Chunk `n` of the document `key`.
fn record(key: &str, n: u32, vector: Vec<f32>, text: &str, language: Option<&str>) -> Record {
    let hash = sha256_hex(key);
    let metadata = RecordMetadata {
        document_key: key,
        document_key_sha256: &hash,
        version_key: "v1",
        version_key_sha256: &sha256_hex("v1"),
        chunk_strategy: "lines",
        language,
        start_line: n * 10 + 1,
        end_line: n * 10 + 10,
        start_col: 0,
        end_col: 5,
        custom_id: None,
    };
    Record {
        id: record_id(&hash, n),
        vector,
        document: text.into(),
        metadata: metadata.into_map(),
        sparse: None,
    }
}

/// A document of `count` chunks with vectors of two dimensions.
fn document(key: &str, count: u32) -> Vec<Record> {
    (0..count)
        .map(|n| record(key, n, vec![1.0, n as f32], &format!("{key} {n}"), None))
        .collect()
}

#[tokio::test]
async fn a_stock_python_client_rebuilds_the_embedding_function_and_queries_the_collection() {
    let database = ChromaDatabase::create().await;
    let collection = create(&database, "stock", 2).await;
    assert_eq!((collection.space, collection.dimension), (Space::Cosine, None));
    let records = [
        record("a.rs", 0, vec![1.0, 0.0], "fn a() {}", Some("rust")),
        record("b.rs", 0, vec![0.0, 1.0], "fn b() {}", Some("rust")),
    ];
    database.client.upsert(&collection, &records).await.unwrap();

    let seen = database.python(
        r#"
import chromadb, json, sys
host, port, tenant, database = sys.argv[1:]
client = chromadb.HttpClient(host=host, port=int(port), tenant=tenant, database=database)
collection = client.get_collection("stock")
configuration = collection.configuration
answer = collection.query(query_embeddings=[[0.1, 0.9]], n_results=1, where={"language": "rust"})
print(json.dumps({
    "function": configuration["embedding_function"].name(),
    "space": configuration["hnsw"]["space"],
    "metadata": collection.metadata,
    "documents": answer["documents"],
    "keys": [row["document_key"] for row in answer["metadatas"][0]],
}))
"#,
    );
    let expected = json!({
        "function": "default", "space": "cosine", "metadata": {"finished_ingest": false},
        "documents": [["fn b() {}"]], "keys": ["b.rs"],
    });
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn a_missing_database_is_told_from_a_missing_collection() {
    let database = ChromaDatabase::create().await;
    let (client, tenant) = (&database.client, &database.tenant);
    let missing = DatabaseName::parse("name", "no-such-database").unwrap();
    assert!(client.database_exists(tenant, database.name()).await.unwrap());
    assert!(!client.database_exists(tenant, &missing).await.unwrap());
    assert_eq!(
        client
            .find_collection(tenant, database.name(), &name("abc"))
            .await
            .unwrap(),
        None
    );
    for database in [database.name(), &missing] {
        let finished = client
            .is_collection_finished(tenant, database, &name("abc"))
            .await;
        assert!(!finished.unwrap(), "{database}");
    }

    let found = client
        .find_collection(tenant, &missing, &name("abc"))
        .await
        .unwrap_err();
    let settings = settings(MINILM, 2);
    let made = client
        .get_or_create_collection(tenant, &missing, &name("abc"), &settings)
        .await
        .unwrap_err();
    for error in [found, made] {
        assert!(
            matches!(&error, IndexError::DatabaseNotFound { database } if *database == missing),
            "{error}"
        );
        assert_eq!(error.failure().reason, "DATABASE_NOT_FOUND");
        let shown = chroma_sync::error::Error::from(error);
        assert_eq!(shown.reason(), Reason::DatabaseNotFound);
        assert_eq!(shown.message(), "database no-such-database does not exist");
    }
}

#[tokio::test]
async fn a_name_is_never_read_as_another_one() {
    let database = ChromaDatabase::create().await;
    let real = database.name();
    for odd in [
        "db".to_owned(),
        format!("{real}?x"),
        format!("{real}#"),
        format!("{real}%20"),
        format!("{real} "),
    ] {
        let odd = DatabaseName::parse("name", &odd).unwrap();
        assert!(
            !database
                .client
                .database_exists(&database.tenant, &odd)
                .await
                .unwrap(),
            "{odd:?}"
        );
    }
}

#[tokio::test]
async fn merging_metadata_keeps_the_other_keys_and_null_removes_one() {
    let database = ChromaDatabase::create().await;
    let client = &database.client;
    let collection = create(&database, "merge", 2).await;
    let merged = client
        .merge_collection_metadata(&collection, map(json!({"owner": "me", "n": 1})))
        .await
        .unwrap();
    assert_eq!(
        merged.metadata,
        map(json!({"finished_ingest": false, "owner": "me", "n": 1}))
    );
    assert!(!merged.is_finished());

    let changes = map(json!({"finished_ingest": true, "n": null, "absent": null}));
    let merged = client
        .merge_collection_metadata(&collection, changes)
        .await
        .unwrap();
    let stored = database.collection("merge").await;
    assert_eq!(stored, merged);
    assert_eq!(
        stored.metadata,
        map(json!({"finished_ingest": true, "owner": "me"}))
    );
    assert!(stored.is_finished());
    // Getting it again with other settings leaves the metadata alone.
    assert_eq!(create(&database, "merge", 2).await.metadata, stored.metadata);

    let none = map(json!({"finished_ingest": null, "owner": null}));
    client.merge_collection_metadata(&collection, none).await.unwrap();
    assert_eq!(database.collection_metadata("merge").await, Metadata::new());
}

#[tokio::test]
async fn metadata_that_would_break_the_server_is_refused_and_a_foreign_collection_is_left_alone() {
    let database = ChromaDatabase::create().await;
    let collection = create(&database, "strict", 2).await;
    let array = map(json!({"tags": ["a"]}));
    let error = database
        .client
        .merge_collection_metadata(&collection, array)
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("collection metadata key tags"),
        "{error}"
    );

    let other = Collection {
        id: uuid::Uuid::now_v7(),
        ..collection
    };
    let error = database
        .client
        .merge_collection_metadata(&other, map(json!({"x": 1})))
        .await
        .unwrap_err();
    assert_eq!(error.failure().reason, "COLLECTION_NOT_FOUND");
    let error = database
        .client
        .upsert(&other, &document("a", 1))
        .await
        .unwrap_err();
    assert_eq!(error.failure().reason, "COLLECTION_NOT_FOUND");
    assert_eq!(
        database.collection_metadata("strict").await,
        map(json!({"finished_ingest": false}))
    );
}

#[tokio::test]
async fn the_same_upsert_twice_changes_nothing_and_every_text_comes_back_as_it_was() {
    let database = ChromaDatabase::create().await;
    let collection = create(&database, "twice", 3).await;
    let texts = [
        "",
        "a\0b\u{1}",
        "\"quoted\" \\ back",
        "日本語 🦀 é",
        "line\r\nline\u{2028}",
    ];
    let records: Vec<Record> = (0..5)
        .map(|n| {
            record(
                "odd/ключ",
                n,
                vec![0.1, -1e-20, n as f32],
                texts[n as usize],
                Some("text"),
            )
        })
        .collect();
    database.client.upsert(&collection, &records).await.unwrap();
    let first = database.records("twice").await;
    assert_eq!(first.len(), 5);
    for record in &records {
        let stored = &first[&record.id];
        assert_eq!(stored.document.as_deref(), Some(&*record.document));
        // In cosine space Chroma keeps a vector as direction and length, so the last bit may change.
        for (back, sent) in stored.vector.as_ref().unwrap().iter().zip(&record.vector) {
            assert!((back - sent).abs() <= 1e-6, "{back} is not {sent}");
        }
        assert_eq!(stored.metadata, record.metadata);
    }
    database.client.upsert(&collection, &records).await.unwrap();
    assert_eq!(database.records("twice").await, first);
    assert_eq!(database.client.count(&collection).await.unwrap(), 5);
}

#[tokio::test]
async fn a_language_that_is_no_longer_known_does_not_stay_in_the_metadata() {
    let database = ChromaDatabase::create().await;
    let collection = create(&database, "languages", 2).await;
    for (language, stored) in [(Some("rust"), Some(json!("rust"))), (None, None)] {
        let record = record("a", 0, vec![1.0, 0.0], "x", language);
        database
            .client
            .upsert(&collection, std::slice::from_ref(&record))
            .await
            .unwrap();
        assert_eq!(
            database.records("languages").await[&record.id]
                .metadata
                .get("language"),
            stored.as_ref()
        );
    }
}

#[tokio::test]
async fn the_tail_of_a_longer_version_is_found_beyond_one_page_and_deleted() {
    const OLD: u32 = 1_205;
    let database = ChromaDatabase::create().await;
    let client = &database.client;
    let collection = create(&database, "tails", 2).await;
    client.upsert(&collection, &document("long", OLD)).await.unwrap();
    client.upsert(&collection, &document("other", 3)).await.unwrap();

    let (long, other, none) = (sha256_hex("long"), sha256_hex("other"), sha256_hex("none"));
    let mut ids = client
        .records_of_documents(&collection, &[long.clone(), none])
        .await
        .unwrap();
    assert_eq!(ids.len(), 1);
    let DocumentRecords {
        ids: mut old,
        metadata_keys,
        versions,
    } = ids.remove(&long).unwrap();
    assert_eq!(versions.len(), 1, "{versions:?}");
    assert!(metadata_keys.contains("document_key_sha256"), "{metadata_keys:?}");
    old.sort();
    let mut expected: Vec<String> = (0..OLD).map(|n| record_id(&long, n)).collect();
    expected.sort();
    assert_eq!(old, expected);

    let kept: Vec<String> = (0..2).map(|n| record_id(&long, n)).collect();
    old.retain(|id| !kept.contains(id));
    client.delete_records(&collection, &old).await.unwrap();
    assert_eq!(client.count(&collection).await.unwrap(), 5);
    assert_eq!(database.text_of("tails", "long").await, "long 0\nlong 1");

    assert_eq!(client.delete_documents(&collection, &[long]).await.unwrap(), 2);
    let left: Vec<String> = database.records("tails").await.into_keys().collect();
    assert_eq!(left, (0..3).map(|n| record_id(&other, n)).collect::<Vec<_>>());
}

#[tokio::test]
async fn vectors_of_another_length_are_refused_for_good_with_both_lengths() {
    let database = ChromaDatabase::create().await;
    let client = &database.client;
    let fresh = create(&database, "lengths", 2).await;
    client.upsert(&fresh, &document("a", 1)).await.unwrap();
    let known = database.collection("lengths").await;
    assert_eq!((fresh.dimension, known.dimension), (None, Some(2)));
    let longer = [record("b", 0, vec![1.0, 2.0, 3.0], "b", None)];

    // Only the server knows in the first and third case; in the others nothing is sent.
    let by_server = client.upsert(&fresh, &longer).await.unwrap_err();
    let by_client = client.upsert(&known, &longer).await.unwrap_err();
    let by_query = client
        .query(&fresh, vec![1.0, 2.0, 3.0], 1, None)
        .await
        .unwrap_err();
    let three = settings(MINILM, 3);
    let (tenant, lengths) = (&database.tenant, name("lengths"));
    let by_opening = client
        .get_or_create_collection(tenant, database.name(), &lengths, &three)
        .await
        .unwrap_err();
    for error in [by_server, by_client, by_query, by_opening] {
        let expected = "collection lengths holds vectors of 2 dimensions, but the source's model makes 3; \
                        take another collection or a source with the model of this one";
        assert_eq!(error.to_string(), expected);
        assert!(!error.is_transient());
        assert_eq!(error.failure().reason, "DIMENSION_MISMATCH");
    }
    assert_eq!(client.count(&fresh).await.unwrap(), 1);
}

#[tokio::test]
async fn a_collection_of_another_embedding_function_is_refused() {
    let database = ChromaDatabase::create().await;
    create(&database, "functions", 2).await;
    let qwen = settings(QWEN3, 2);
    let (client, functions) = (&database.client, name("functions"));
    let opened = client
        .get_or_create_collection(&database.tenant, database.name(), &functions, &qwen)
        .await;
    let error = opened.unwrap_err();
    assert_eq!(error.failure().reason, "EMBEDDING_FUNCTION_MISMATCH");
    assert!(error.to_string().contains("\"default\"") && error.to_string().contains("\"chroma-cloud-qwen\""));
}

#[tokio::test]
async fn a_query_returns_the_nearest_first_with_their_distances() {
    let database = ChromaDatabase::create().await;
    let collection = create(&database, "query", 2).await;
    let records = [
        record("east", 0, vec![2.0, 0.0], "east", None),
        record("north", 0, vec![0.0, 3.0], "north", None),
        record("north-east", 0, vec![1.0, 1.0], "north-east", None),
    ];
    database.client.upsert(&collection, &records).await.unwrap();
    let hits = database
        .client
        .query(&collection, vec![5.0, 0.0], 2, None)
        .await
        .unwrap();
    let texts: Vec<&str> = hits.iter().map(|hit| hit.document.as_deref().unwrap()).collect();
    assert_eq!(texts, ["east", "north-east"]);
    assert!(hits[0].distance.abs() < 1e-5, "{}", hits[0].distance);
    assert!(
        (hits[1].distance - (1.0 - 0.5_f32.sqrt())).abs() < 1e-5,
        "{}",
        hits[1].distance
    );
    assert_eq!(hits[1].id, records[2].id);

    let filter = json!({DOCUMENT_KEY: "north"});
    let hits = database
        .client
        .query(&collection, vec![5.0, 0.0], 10, Some(&filter))
        .await
        .unwrap();
    assert_eq!(hits.len(), 1);
    assert_eq!(
        hits[0].metadata,
        records[1]
            .metadata
            .clone()
            .into_iter()
            .filter(|(_, v)| !v.is_null())
            .collect()
    );

    let error = database
        .client
        .query(&collection, vec![f32::NAN, 0.0], 1, None)
        .await
        .unwrap_err();
    assert_eq!(error.failure().reason, "INVALID_RECORD");
}

#[tokio::test]
async fn a_page_has_only_what_was_asked_for() {
    let database = ChromaDatabase::create().await;
    let collection = create(&database, "pages", 2).await;
    database
        .client
        .upsert(&collection, &document("a", 3))
        .await
        .unwrap();
    let fields = PageFields {
        document: true,
        ..PageFields::default()
    };
    let page = database
        .client
        .get_page(&collection, None, fields, 2, 1)
        .await
        .unwrap();
    let texts: Vec<Option<&str>> = page.iter().map(|record| record.document.as_deref()).collect();
    assert_eq!(texts, [Some("a 1"), Some("a 2")]);
    assert!(
        page.iter()
            .all(|record| record.metadata.is_empty() && record.vector.is_none())
    );
}

#[tokio::test]
async fn a_single_node_server_is_known_by_its_answers() {
    let database = ChromaDatabase::create().await;
    database.client.heartbeat().await.unwrap();
    let capabilities = database.client.capabilities().await.unwrap();
    assert_eq!(
        (capabilities.max_batch_size, capabilities.base64_vectors),
        (5_461, true)
    );
    let collection = create(&database, "node", 2).await;
    assert!(!database.client.is_distributed(&collection).await.unwrap());
}
