//! Objects of a bucket become records, through the documented REST paths, with a server of S3 written by others.

use std::fs;

use serde_json::{Value, json};

use crate::harness::{
    moto::{Moto, REGION},
    rest::RestClient,
    scenario::Scenario,
    service::{Service, project_file},
    stores::{Backend, on_both},
};

const SECRET: &str = "only-the-bucket-may-see-this";

/// A bucket, and a service that reads it.
struct Bucket {
    moto: Moto,
    scenario: Scenario,
    service: Service,
    rest: RestClient,
}

impl Bucket {
    async fn new(backend: Backend) -> Self {
        let moto = Moto::start().await;
        moto.create_bucket("docs").await;
        let mut scenario = Scenario::new(backend).await;
        scenario.deployment = scenario
            .deployment
            .with("s3.endpoint_url", moto.url.as_str())
            .with("sqs.endpoint_url", moto.url.as_str());
        let service = scenario.deployment.start();
        let rest = RestClient::new(&service, &scenario.admin);
        Self {
            moto,
            scenario,
            service,
            rest,
        }
    }

    fn settings(&self) -> Value {
        json!({
            "bucket_name": "s3://docs", "region": REGION, "collection_name": "objects",
            "path_prefix": "in/", "aws_access_key_id": "AKIATEST", "aws_secret_access_key": SECRET,
        })
    }

    async fn source(&self) -> String {
        let body = json!({"database_name": self.scenario.database(), "s3": self.settings()});
        let (status, created) = self.rest.post("/api/v1/sources", &body).await;
        assert_eq!(status, 201, "{created}");
        created["source_id"].as_str().unwrap().to_owned()
    }

    async fn try_run(&self, source: &str, body: &Value) -> (u16, Value) {
        let path = format!("/api/v1/sources/{source}/invocations");
        self.rest.post(&path, body).await
    }

    /// Creates an invocation and returns what it ended as, with its progress.
    async fn run(&self, source: &str, body: &Value) -> (Value, chroma_sync::proto::Invocation) {
        let (status, created) = self.try_run(source, body).await;
        assert_eq!(status, 201, "{created}");
        let id = created["invocation_id"].as_str().unwrap();
        let messages = self.scenario.watch(&self.service, id).await;
        let (_, shown) = self.rest.get(&format!("/api/v1/invocations/{id}")).await;
        (shown, messages.last().unwrap().invocation.clone().unwrap())
    }

    /// Id and text of each record of an object, in the order of their ids.
    async fn records(&self, collection: &str, key: &str) -> Vec<(String, String, Value)> {
        let records = self.scenario.chroma.records(collection).await;
        records
            .into_iter()
            .filter(|(_, record)| record.metadata["document_key"] == json!(key))
            .map(|(id, record)| {
                let text = record.document.map(|text| text.to_string()).unwrap_or_default();
                (id, text, Value::Object(record.metadata))
            })
            .collect()
    }
}

on_both!(
    an_object_becomes_records_and_is_replaced,
    an_object_becomes_records_on
);
async fn an_object_becomes_records_on(backend: Backend) {
    let bucket = Bucket::new(backend).await;
    let source = bucket.source().await;
    bucket
        .moto
        .put("docs", "in/notes.md", "# Notes\n\nThe first version.\n")
        .await;

    let body = json!({
        "object_key": "in/notes.md", "custom_id": "notes-1",
        "metadata": {"team": "search", "tags": ["a", "b"], "year": 2026},
    });
    let (shown, ended) = bucket.run(&source, &body).await;
    assert!(shown["status"]["complete"].is_object(), "{shown}: {ended:?}");
    assert_eq!(
        shown["metadata"],
        json!({
            "s3": {
                "bucket_name": "docs", "object_key": "in/notes.md", "custom_id": "notes-1",
                "additional_metadata": {"team": "search", "tags": ["a", "b"], "year": 2026},
            },
            "database_name": bucket.scenario.database(), "collection_name": "objects",
        })
    );
    let records = bucket.records("objects", "in/notes.md").await;
    assert_eq!(records.len(), 1);
    let (id, text, metadata) = &records[0];
    assert_eq!(
        (id.as_str(), text.as_str()),
        ("notes-1-0", "# Notes\n\nThe first version.")
    );
    assert_eq!(
        (
            &metadata["custom_id"],
            &metadata["team"],
            &metadata["tags"],
            &metadata["year"]
        ),
        (
            &json!("notes-1"),
            &json!("search"),
            &json!(["a", "b"]),
            &json!(2026)
        )
    );
    let finished = &bucket.scenario.chroma.collection_metadata("objects").await;
    assert!(!finished.contains_key("finished_ingest"), "{finished:?}");

    bucket
        .moto
        .put("docs", "in/notes.md", "# Notes\n\nThe second.\n")
        .await;
    let (_, ended) = bucket.run(&source, &json!({"object_key": "in/notes.md"})).await;
    assert_eq!(ended.statistics.unwrap().documents_indexed, 1);
    let records = bucket.records("objects", "in/notes.md").await;
    assert_eq!(records.len(), 1, "{records:?}");
    let (id, text, metadata) = &records[0];
    assert!(id.len() == 66 && id.ends_with("-0"), "{id}");
    assert_eq!(text, "# Notes\n\nThe second.");
    assert!(
        metadata.get("team").is_none() && metadata.get("custom_id").is_none(),
        "{metadata}"
    );

    let latest = format!("/api/v1/sources/{source}/invocations/latest-by-keys");
    let (_, found) = bucket
        .rest
        .post(&latest, &json!({"object_keys": ["in/notes.md", "in/other.md"]}))
        .await;
    assert_eq!(found.as_object().unwrap().len(), 1);
    assert_eq!(found["in/notes.md"]["id"], json!(ended.id));
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_are_converted_and_what_is_no_text_fails_with_its_reason() {
    let bucket = Bucket::new(Backend::Sqlite).await;
    let source = bucket.source().await;
    let corpus = |name: &str| fs::read(project_file(&format!("tests/corpus/{name}"))).unwrap();
    for name in ["report.docx", "report.pdf", "picture.png", "encrypted.pdf"] {
        bucket.moto.put("docs", &format!("in/{name}"), corpus(name)).await;
    }
    bucket
        .moto
        .put("docs", "in/data.bin", vec![0_u8, 159, 146, 150])
        .await;

    for name in ["report.docx", "report.pdf"] {
        let key = format!("in/{name}");
        let body = json!({"object_key": key, "target_collection_name": "documents"});
        let (shown, ended) = bucket.run(&source, &body).await;
        assert!(shown["status"]["complete"].is_object(), "{name}: {ended:?}");
        let records = bucket.records("documents", &key).await;
        assert!(!records.is_empty(), "{name}");
        assert!(
            records.iter().any(|(_, text, _)| text.contains("# ")),
            "{records:?}"
        );
        assert_eq!(records[0].2["chunk_strategy"], json!("markdown"));
    }
    let (shown, ended) = bucket
        .run(&source, &json!({"object_key": "in/picture.png"}))
        .await;
    assert!(shown["status"]["complete"].is_object(), "{ended:?}");
    assert_eq!(ended.statistics.unwrap().documents_skipped, 1);
    for (name, reason, hint) in [
        ("data.bin", "DOCUMENT_FAILED", "not UTF-8 text"),
        ("encrypted.pdf", "DOCUMENT_FAILED", "encrypted"),
        ("missing.md", "OBJECT_NOT_FOUND", "does not exist"),
    ] {
        let (_, ended) = bucket
            .run(&source, &json!({"object_key": format!("in/{name}")}))
            .await;
        let failure = ended.failure.unwrap();
        assert_eq!(failure.reason, reason, "{failure:?}");
        assert!(failure.message.contains(hint), "{failure:?}");
    }
}

on_both!(
    a_prefix_is_synced_by_what_changed,
    a_prefix_is_synced_by_what_changed_on
);
async fn a_prefix_is_synced_by_what_changed_on(backend: Backend) {
    let bucket = Bucket::new(backend).await;
    let source = bucket.source().await;
    for (key, text) in [("in/a.txt", "alpha"), ("in/b.txt", "beta"), ("in/c.txt", "gamma")] {
        bucket.moto.put("docs", key, text).await;
    }
    bucket.moto.put("docs", "out/d.txt", "outside").await;
    let prefix = json!({"sync_prefix": true});

    let (shown, ended) = bucket.run(&source, &prefix).await;
    assert_eq!(shown["metadata"]["s3"]["sync_prefix"], json!(true));
    let counts = ended.statistics.unwrap();
    assert_eq!((counts.documents_discovered, counts.documents_indexed), (3, 3));

    bucket.moto.put("docs", "in/b.txt", "beta, changed").await;
    bucket.moto.delete("docs", "in/c.txt").await;
    let (_, ended) = bucket.run(&source, &prefix).await;
    let counts = ended.statistics.unwrap();
    assert_eq!(
        (
            counts.documents_indexed,
            counts.documents_unchanged,
            counts.documents_removed
        ),
        (1, 1, 1)
    );
    let records = bucket.scenario.chroma.records("objects").await;
    let mut texts: Vec<String> = records
        .into_values()
        .filter_map(|record| record.document.map(|text| text.to_string()))
        .collect();
    texts.sort();
    assert_eq!(texts, ["alpha", "beta, changed"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_input_has_to_fit_the_source_and_keys_are_stored_once() {
    let bucket = Bucket::new(Backend::Sqlite).await;
    let source = bucket.source().await;
    for (field, body) in [
        ("object_key", json!({})),
        ("object_key", json!({"object_key": "out/d.txt"})),
        ("object_key", json!({"object_key": ""})),
        (
            "object_key",
            json!({"object_key": format!("in/{}", "k".repeat(1_022))}),
        ),
        (
            "sync_prefix",
            json!({"object_key": "in/a.txt", "sync_prefix": true}),
        ),
        (
            "custom_id",
            json!({"object_key": "in/a.txt", "custom_id": "x".repeat(121)}),
        ),
        ("custom_id", json!({"sync_prefix": true, "custom_id": "x"})),
        (
            "metadata",
            json!({"object_key": "in/a.txt", "metadata": {"chroma_x": 1}}),
        ),
        (
            "metadata",
            json!({"object_key": "in/a.txt", "metadata": {"document_key": "x"}}),
        ),
        (
            "metadata.k",
            json!({"object_key": "in/a.txt", "metadata": {"k": {"nested": 1}}}),
        ),
        (
            "metadata.k",
            json!({"object_key": "in/a.txt", "metadata": {"k": [1, "a"]}}),
        ),
        (
            "metadata",
            json!({"object_key": "in/a.txt", "metadata": {"k": "x".repeat(17_000)}}),
        ),
        ("ref_identifier", json!({"ref_identifier": {"branch": "main"}})),
    ] {
        let (status, answer) = bucket.try_run(&source, &body).await;
        assert_eq!(status, 400, "{body}: {answer}");
        let message = answer["message"].as_str().unwrap();
        assert!(message.starts_with(field), "{body}: {answer}");
    }
    let (_, listed) = bucket.rest.get("/api/v1/invocations").await;
    assert_eq!(listed, json!([]));

    let (_, first) = bucket.rest.get(&format!("/api/v1/sources/{source}")).await;
    assert!(!first.to_string().contains(SECRET), "{first}");
    let same = json!({"database_name": bucket.scenario.database(), "s3": bucket.settings()});
    let (status, answer) = bucket.rest.post("/api/v1/sources", &same).await;
    assert_eq!(
        (status, &answer["details"]["source_id"]),
        (409, &json!(source)),
        "{answer}"
    );
    let mut other = bucket.settings();
    other["collection_name"] = json!("elsewhere");
    let other = json!({"database_name": bucket.scenario.database(), "s3": other});
    let (_, created) = bucket.rest.post("/api/v1/sources", &other).await;
    let id = created["source_id"].as_str().unwrap();
    let (_, second) = bucket.rest.get(&format!("/api/v1/sources/{id}")).await;
    assert_eq!(
        first["s3"]["aws_credential_id"],
        second["s3"]["aws_credential_id"]
    );
    assert!(first["s3"]["aws_credential_id"].is_u64(), "{first}");
}
