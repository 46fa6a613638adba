//! Files that are uploaded, over both transports: what becomes of them in the collection.

mod bucket;
mod refusals;
mod removal;

use chroma_sync::{
    domain::document::sha256_hex,
    proto::{self, add_file_request::Content, invocation::State},
};
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use tonic::Status;

use crate::harness::{
    corpus::document,
    form::Form,
    rest::RestClient,
    scenario::Scenario,
    service::{Service, reason},
    stores::{Backend, on_both},
};

const TEXT: &str = "# Rivers\n\nThe Danube flows into the Black Sea.\n";

/// The metadata of an upload with nothing but what is required.
fn metadata(scenario: &Scenario, collection: &str, name: &str, content: &[u8]) -> proto::FileMetadata {
    proto::FileMetadata {
        database_name: scenario.database(),
        collection_name: collection.to_owned(),
        file_name: name.to_owned(),
        size_bytes: i64::try_from(content.len()).unwrap(),
        ..proto::FileMetadata::default()
    }
}

fn message(content: Content) -> proto::AddFileRequest {
    proto::AddFileRequest {
        content: Some(content),
    }
}

/// Uploads with gRPC, in messages of `chunk` bytes.
async fn add_file(
    service: &Service,
    token: &str,
    metadata: proto::FileMetadata,
    content: &[u8],
    chunk: usize,
) -> Result<proto::Invocation, Status> {
    let chunks: Vec<Content> = content
        .chunks(chunk)
        .map(|chunk| Content::Chunk(chunk.to_vec()))
        .collect();
    let messages = stream::iter([Content::Metadata(metadata)]).chain(stream::iter(chunks));
    let answer = service.files(token).add_file(messages.map(message)).await?;
    Ok(answer.into_inner())
}

/// The id of the invocation that an answer of REST names.
#[track_caller]
fn created(answer: &crate::harness::rest::Answer) -> String {
    assert_eq!(answer.status, 201, "{}", answer.text);
    answer.json()["invocation_id"].as_str().unwrap().to_owned()
}

/// What an invocation ended as.
async fn ended(scenario: &Scenario, service: &Service, id: &str) -> proto::Invocation {
    let messages = scenario.watch(service, id).await;
    messages.last().unwrap().invocation.clone().unwrap()
}

async fn completed(scenario: &Scenario, service: &Service, id: &str) -> proto::Invocation {
    let invocation = ended(scenario, service, id).await;
    assert_eq!(invocation.state(), State::Complete, "{invocation:?}");
    invocation
}

on_both!(a_file_of_either_transport_becomes_records, either_transport_on);
async fn either_transport_on(backend: Backend) {
    let scenario = Scenario::new(backend).await;
    let service = scenario.deployment.start();
    // A member may upload.
    let member = scenario.deployment.create_key(&[]);

    let form = Form::to(&scenario.database(), "files").file("rivers.md", TEXT.as_bytes());
    let by_rest = created(&form.send(&service, &member).await);
    let metadata = metadata(&scenario, "files", "lakes.txt", b"The lake is deep.\n");
    let by_grpc = add_file(&service, &member, metadata, b"The lake is deep.\n", 5).await;
    let by_grpc = by_grpc.unwrap();
    assert_eq!(by_grpc.state(), State::Pending);

    let invocation = completed(&scenario, &service, &by_rest).await;
    completed(&scenario, &service, &by_grpc.id).await;
    let Some(proto::invocation::Input::FileUpload(file)) = &invocation.input else {
        panic!("{invocation:?}")
    };
    assert_eq!((file.file_name.as_str(), file.size_bytes), ("rivers.md", 47));

    let records = scenario.chroma.records("files").await;
    let ids: Vec<String> = ["lakes.txt", "rivers.md"]
        .map(|name| format!("{}-0", sha256_hex(name)))
        .into();
    let mut expected = ids.clone();
    expected.sort();
    assert_eq!(records.keys().cloned().collect::<Vec<_>>(), expected);
    let rivers = &records[&ids[1]];
    assert_eq!(rivers.document.as_deref(), Some(TEXT));
    assert_eq!(rivers.metadata["document_key"], "rivers.md");
    assert_eq!(rivers.metadata["version_key"], json!(sha256_hex(TEXT)));
    // Others may add to the collection, so it is never called finished.
    let collection = scenario.chroma.collection_metadata("files").await;
    assert_eq!(collection.get("finished_ingest"), None);

    // Both belong to the one source of the database.
    let rest = RestClient::new(&service, &member);
    let (_, sources) = rest.get("/api/v1/sources").await;
    assert_eq!(sources.as_array().unwrap().len(), 1, "{sources}");
    assert_eq!(sources[0]["source_type"], json!({"file_upload": {}}));
    let source = sources[0]["id"].as_str().unwrap();
    let path = format!("/api/v1/sources/{source}/invocations/latest-by-keys");
    let keys = json!({"object_keys": ["rivers.md", "unknown.md"]});
    let (_, latest) = rest.post(&path, &keys).await;
    assert_eq!(latest["rivers.md"]["id"], json!(by_rest));
    assert_eq!(latest.as_object().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_are_converted_by_name_or_by_what_they_are_said_to_be() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start();
    let docx = std::fs::read(document("garden.docx")).unwrap();
    let pdf = std::fs::read(document("report.pdf")).unwrap();
    let to = || Form::to(&scenario.database(), "documents");

    let by_name = to().file("garden.docx", &docx);
    let by_field = to().field("content_type", "application/pdf").file("report", &pdf);
    // What a browser says for lack of a better type says nothing.
    let mut by_part = to().part(
        "name=\"file\"; filename=\"again.pdf\"",
        Some("application/octet-stream"),
        &pdf,
    );
    for form in [by_name, by_field] {
        let id = created(&form.send(&service, &scenario.admin).await);
        completed(&scenario, &service, &id).await;
    }
    by_part = by_part.field("custom_id", "again");
    let headers = [("x-upload-content-length", pdf.len().to_string())];
    let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
    let answer = by_part.send_with(&service, &scenario.admin, &headers).await;
    completed(&scenario, &service, &created(&answer)).await;

    let records = scenario.chroma.records("documents").await;
    let has = |key: &str| {
        records.values().any(|record| {
            record.metadata["document_key"] == key && !record.document.as_ref().unwrap().is_empty()
        })
    };
    assert!(has("garden.docx") && has("report") && has("again.pdf"));
    assert!(records.contains_key("again-0"), "{:?}", records.keys());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_caller_says_of_a_file_is_on_its_records() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start();
    let lines = "one\ntwo\nthree\n";
    // The other fields may come before the file and after it.
    let form = Form::to(&scenario.database(), "labelled")
        .field(
            "metadata",
            r#"{"team": "maps", "year": 2026, "tags": ["a", "b"]}"#,
        )
        .file("list.txt", lines.as_bytes())
        .field("custom_id", "rivers")
        .field("chunking", r#"{"type": "lines", "max_lines": 1}"#)
        .field(
            "embedding",
            r#"{"dense": {"model": "sentence-transformers/all-MiniLM-L6-v2"}}"#,
        );
    let id = created(&form.send(&service, &scenario.admin).await);
    completed(&scenario, &service, &id).await;

    let records = scenario.chroma.records("labelled").await;
    let found: Vec<(&str, &str)> = records
        .iter()
        .map(|(id, record)| (id.as_str(), record.document.as_deref().unwrap()))
        .collect();
    assert_eq!(
        found,
        [("rivers-0", "one"), ("rivers-1", "two"), ("rivers-2", "three\n")]
    );
    for record in records.values() {
        assert_eq!(record.metadata["team"], "maps");
        assert_eq!(record.metadata["year"], 2026);
        assert_eq!(record.metadata["tags"], json!(["a", "b"]));
        assert_eq!(record.metadata["custom_id"], "rivers");
    }
    let rest = RestClient::new(&service, &scenario.admin);
    let (_, invocation) = rest.get(&format!("/api/v1/invocations/{id}")).await;
    let file = &invocation["metadata"]["file_upload"];
    assert_eq!(file["custom_id"], "rivers", "{invocation}");
    // The source keeps its own chunking.
    let (_, sources) = rest.get("/api/v1/sources").await;
    assert_eq!(sources[0]["chunking"]["type"], "tree_sitter");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_the_same_name_replaces_the_one_before() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start();
    let by_lines = |content: &str| {
        Form::to(&scenario.database(), "replaced")
            .field("chunking", r#"{"type": "lines", "max_lines": 1}"#)
            .file("list.txt", content.as_bytes())
    };
    for content in ["one\ntwo\nthree\n", "four\n"] {
        let id = created(&by_lines(content).send(&service, &scenario.admin).await);
        completed(&scenario, &service, &id).await;
    }
    let records = scenario.chroma.records("replaced").await;
    let texts: Vec<&str> = records
        .values()
        .map(|record| record.document.as_deref().unwrap())
        .collect();
    assert_eq!(texts, ["four\n"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_no_text_fails_with_the_reason() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start();
    let form = Form::to(&scenario.database(), "files").file("data.bin", b"\x00\x01\x02\xff");
    let id = created(&form.send(&service, &scenario.admin).await);
    let invocation = ended(&scenario, &service, &id).await;
    let failure = invocation.failure.unwrap();
    assert_eq!(failure.reason, "DOCUMENT_FAILED");
    assert!(failure.message.contains("not UTF-8 text"), "{}", failure.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_that_come_first_at_once_share_one_source() {
    let scenario = Scenario::new(Backend::Postgres).await;
    let services = [
        scenario.deployment.start_role("api"),
        scenario.deployment.start_role("api"),
    ];
    let uploads = (0..6).map(|n| {
        let metadata = metadata(&scenario, "files", &format!("{n}.txt"), b"text");
        add_file(&services[n % 2], &scenario.admin, metadata, b"text", 4)
    });
    let created = futures::future::try_join_all(uploads).await.unwrap();
    let source = &created[0].source_id;
    assert!(source.is_some());
    assert!(created.iter().all(|invocation| invocation.source_id == *source));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_answers_with_the_first_invocation() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let send = async |content: &str, lines: u32| {
        let chunking = json!({"type": "lines", "max_lines": lines}).to_string();
        let form = Form::to(&scenario.database(), "files").field("chunking", &chunking);
        let size = content.len().to_string();
        let headers = [
            ("x-upload-content-length", size.as_str()),
            ("Idempotency-Key", "the-same"),
        ];
        let form = form.file("a.txt", content.as_bytes());
        form.send_with(&service, &scenario.admin, &headers).await
    };
    let first = created(&send("text", 5).await);
    assert_eq!(created(&send("text", 5).await), first);
    for other in [send("else", 5).await, send("text", 6).await] {
        let (status, body) = other.parts();
        assert_eq!((status, &body["reason"]), (409, &json!("REQUEST_ID_REUSED")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_uploads_files_and_follows_them() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start();
    let directory = tempfile::tempdir().unwrap();
    let paths = ["a.md", "b.md"].map(|name| directory.path().join(name));
    for path in &paths {
        std::fs::write(path, TEXT).unwrap();
    }
    let database = scenario.database();
    let [a, b] = paths.each_ref().map(|path| path.to_str().unwrap());
    let arguments = [
        "upload",
        a,
        b,
        "--database",
        &database,
        "--collection",
        "command",
        "--metadata",
        r#"{"team": "maps"}"#,
    ];
    let (code, printed) = scenario
        .deployment
        .run_against(&service, &scenario.admin, &arguments);
    assert_eq!(code, Some(0), "{printed}");
    assert_eq!(printed.matches("invocation ").count(), 2, "{printed}");
    let records = scenario.chroma.records("command").await;
    assert_eq!(records.len(), 2);
    assert!(records.values().all(|record| record.metadata["team"] == "maps"));

    let missing = directory.path().join("missing.md");
    let arguments = ["upload", missing.to_str().unwrap(), "--collection", "command"];
    let (code, _) = scenario
        .deployment
        .run_against(&service, &scenario.admin, &arguments);
    assert_eq!(code, Some(1));
}

/// The reason of an error over gRPC, with the field that it names.
fn refusal(status: &Status) -> (String, String) {
    use tonic_types::StatusExt;

    let field = status
        .get_details_bad_request()
        .and_then(|details| Some(details.field_violations.first()?.field.clone()));
    (reason(status), field.unwrap_or_default())
}

/// The same over REST.
fn rest_refusal(body: &Value) -> (String, String) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (text(&body["reason"]), text(&body["violations"][0]["field"]))
}
