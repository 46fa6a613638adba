//! What is refused, by the name of its field, and that nothing is kept of it.

use chroma_sync::proto::{self, add_file_request::Content};
use futures::stream;
use serde_json::json;

use super::{add_file, message, metadata, refusal, removal::assert_nothing_is_left, rest_refusal};
use crate::harness::{
    form::Form,
    rest::{Answer, RestClient},
    scenario::Scenario,
    service::Service,
    stores::Backend,
};

/// Sends a form with a declared size.
async fn sent(service: &Service, scenario: &Scenario, form: Form, declared: &str) -> Answer {
    let headers = [("x-upload-content-length", declared)];
    form.send_with(service, &scenario.admin, &headers).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_form_is_refused_by_its_field() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let database = scenario.database();
    let to = || Form::to(&database, "files");
    let complete = || to().file("a.txt", b"text");
    let cases = [
        (
            Form::default()
                .file("a.txt", b"text")
                .field("database_name", &database),
            "database_name",
        ),
        (
            Form::default()
                .field("database_name", &database)
                .file("a.txt", b"text"),
            "collection_name",
        ),
        (to(), "file"),
        (to().field("database_name", &database), "database_name"),
        (complete().file("b.txt", b"text"), "file"),
        (to().part("name=\"file\"", None, b"text"), "file"),
        (to().part("name=\"file\"; filename=\"\"", None, b"text"), "file"),
        (complete().field("nonsense", "1"), "nonsense"),
        (complete().field("", "1"), "form"),
        (
            Form::to(&database, "no").file("a.txt", b"text"),
            "collection_name",
        ),
        (Form::to("a/b", "files").file("a.txt", b"text"), "database_name"),
        (complete().field("custom_id", &"i".repeat(121)), "custom_id"),
        (complete().field("custom_id", ""), "custom_id"),
        (complete().field("metadata", "[]"), "metadata"),
        (complete().field("metadata", r#"{"chroma_a": 1}"#), "metadata"),
        (
            complete().field("metadata", &format!("{{\"a\": \"{}\"}}", "m".repeat(17_000))),
            "metadata",
        ),
        (complete().field("content_type", &"c".repeat(513)), "content_type"),
        (complete().field("chunking", "lines"), "chunking"),
        (
            complete().field("chunking", r#"{"type": "lines", "max_lines": 0}"#),
            "chunking.max_lines",
        ),
        (
            complete().field("embedding", r#"{"dense": {"model": "a/b"}}"#),
            "embedding.dense.model",
        ),
        (
            complete().field("embedding", r#"{"sparse": {}}"#),
            "embedding.sparse",
        ),
    ];
    for (form, field) in cases {
        let shown = String::from_utf8_lossy(&form.clone().unfinished()).into_owned();
        let (status, body) = sent(&service, &scenario, form, "4").await.parts();
        assert_eq!(status, 400, "{shown}: {body}");
        assert_eq!(rest_refusal(&body).1, field, "{shown}: {body}");
    }
    for declared in [
        "0",
        "-4",
        "+4",
        "4.0",
        "x",
        "",
        "209715201",
        "99999999999999999999",
    ] {
        let (status, body) = sent(&service, &scenario, complete(), declared).await.parts();
        assert_eq!(status, 400, "{declared}: {body}");
        assert_eq!(rest_refusal(&body).1, "x-upload-content-length", "{declared}");
    }
    let undeclared = complete().send_with(&service, &scenario.admin, &[]).await;
    assert_eq!(rest_refusal(&undeclared.json()).1, "x-upload-content-length");
    // The declared size is enforced both ways.
    for declared in ["3", "5"] {
        let (status, body) = sent(&service, &scenario, complete(), declared).await.parts();
        assert_eq!(
            (status, &*rest_refusal(&body).1),
            (400, "x-upload-content-length")
        );
    }
    let rest = RestClient::new(&service, &scenario.admin);
    let other = rest
        .send(
            reqwest::Method::POST,
            "/api/v1/add-file",
            "application/json",
            "{}",
        )
        .await;
    // The header is looked at first.
    assert_eq!(other.status, 400);
    let (status, sources) = rest.get("/api/v1/sources").await;
    assert_eq!((status, sources), (200, json!([])), "nothing was made");
    assert_nothing_is_left(&scenario).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_upload_over_grpc_is_refused_by_its_field() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    type Change = fn(&mut proto::FileMetadata);
    let cases: [(Change, &str); 9] = [
        (|m| m.database_name.clear(), "metadata.database_name"),
        (|m| m.collection_name.clear(), "metadata.collection_name"),
        (|m| m.file_name.clear(), "metadata.file_name"),
        (|m| m.size_bytes = 0, "metadata.size_bytes"),
        (|m| m.size_bytes = -1, "metadata.size_bytes"),
        (|m| m.size_bytes = 3, "metadata.size_bytes"),
        (|m| m.size_bytes = 5, "metadata.size_bytes"),
        (|m| m.custom_id = "i".repeat(121), "metadata.custom_id"),
        (|m| m.content_type = "a\nb".to_owned(), "metadata.content_type"),
    ];
    for (change, field) in cases {
        let mut metadata = metadata(&scenario, "files", "a.txt", b"text");
        change(&mut metadata);
        let status = add_file(&service, &scenario.admin, metadata, b"text", 2)
            .await
            .unwrap_err();
        assert_eq!(
            refusal(&status),
            ("INVALID_FIELD".to_owned(), field.to_owned()),
            "{status:?}"
        );
    }
    let metadata = || Content::Metadata(metadata(&scenario, "files", "a.txt", b"text"));
    let chunk = || Content::Chunk(b"text".to_vec());
    for contents in [
        vec![],
        vec![chunk()],
        vec![metadata(), metadata()],
        vec![metadata(), chunk(), metadata()],
    ] {
        let messages = stream::iter(contents.into_iter().map(message));
        let status = service
            .files(&scenario.admin)
            .add_file(messages)
            .await
            .unwrap_err();
        assert_eq!(refusal(&status).0, "MALFORMED_REQUEST", "{status:?}");
    }
    assert_nothing_is_left(&scenario).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_does_not_reach_the_database_stores_no_byte() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let foreign = scenario
        .deployment
        .create_key(&["--role", "owner", "--tenant", "another_tenant"]);
    let bound = scenario.deployment.create_key(&["--database", "third"]);
    for (token, status, code, reason) in [
        ("", 401, tonic::Code::Unauthenticated, "TOKEN_MISSING"),
        ("cs-wrong", 401, tonic::Code::Unauthenticated, "TOKEN_INVALID"),
        (&foreign, 404, tonic::Code::NotFound, "DATABASE_NOT_FOUND"),
        (&bound, 403, tonic::Code::PermissionDenied, "DATABASE_FORBIDDEN"),
    ] {
        let form = Form::to(&scenario.database(), "files").file("a.txt", b"text");
        let answer = form.send(&service, token).await;
        assert_eq!(
            (answer.status, answer.json()["reason"].as_str()),
            (status, Some(reason))
        );
        let metadata = metadata(&scenario, "files", "a.txt", b"text");
        let refused = add_file(&service, token, metadata, b"text", 4).await.unwrap_err();
        assert_eq!(
            (refused.code(), refusal(&refused).0.as_str()),
            (code, reason),
            "{refused:?}"
        );
    }
    assert_nothing_is_left(&scenario).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_collection_takes_no_upload() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start();
    let form = || Form::to(&scenario.database(), "finished").file("a.txt", b"text");
    let id = super::created(&form().send(&service, &scenario.admin).await);
    super::completed(&scenario, &service, &id).await;
    let finished = json!({"finished_ingest": true});
    scenario
        .chroma
        .set_collection_metadata("finished", finished)
        .await;
    let (status, body) = form().send(&service, &scenario.admin).await.parts();
    assert_eq!((status, &body["reason"]), (409, &json!("COLLECTION_FINISHED")));
}
