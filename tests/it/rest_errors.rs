//! REST requests that are wrong: each gets the documented body, and none a status of 500 or more.

use chroma_sync::domain::embedding::MINILM;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{rest::RestClient, scenario::Scenario, stores::Backend};

const UNKNOWN: &str = "0192e4a0-7f1c-7c3e-9a55-6a1d3c1b2f00";

/// Asserts the whole body of a 400 that is about this field.
#[track_caller]
fn assert_names((status, body): (u16, Value), field: &str, context: &str) {
    assert_eq!(status, 400, "{context}: {body}");
    let problem = body["violations"][0]["description"].as_str().unwrap_or_default();
    let reason = body["reason"].as_str().unwrap_or_default();
    assert!(
        ["INVALID_FIELD", "UNKNOWN_MODEL"].contains(&reason),
        "{context}: {body}"
    );
    let expected = json!({
        "error": "InvalidArgumentError",
        "message": format!("{field}: {problem}"),
        "reason": reason,
        "violations": [{"field": field, "description": problem}],
    });
    assert_eq!(body, expected, "{context}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_field_of_a_source_is_named() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let rest = RestClient::new(&service, &scenario.admin);
    let cases = [
        ("database_name", json!({"database_name": null})),
        ("database_name", json!({"database_name": ""})),
        ("database_name", json!({"database_name": "a/b"})),
        ("database_name", json!({"database_name": "a\0b"})),
        ("database_name", json!({"database_name": 7})),
        ("github", json!({"github": "owner/name"})),
        // The fields of an object in an array are none.
        ("github", json!({"github": ["owner/name", null, null]})),
        ("github.repository", json!({"github": {}})),
        ("github.repository", json!({"github": {"repository": "name"}})),
        (
            "github.repository",
            json!({"github": {"repository": "https://gitlab.com/a/b"}}),
        ),
        ("github.repository", json!({"github": {"repository": "a/b\0"}})),
        ("github.repository", json!({"github": {"repository": ["a/b"]}})),
        (
            "github.app_id",
            json!({"github": {"repository": "a/b", "app_id": "a b"}}),
        ),
        (
            "github.include_globs[1]",
            json!({"github": {"repository": "a/b", "include_globs": ["*", "a["]}}),
        ),
        (
            "github.include_globs[0]",
            json!({"github": {"repository": "a/b", "include_globs": ["a\0"]}}),
        ),
        (
            "github.include_globs[1]",
            json!({"github": {"repository": "a/b", "include_globs": ["*", 1]}}),
        ),
        ("embedding_model", json!({"embedding_model": "nobody/nothing"})),
        ("embedding_model", json!({"embedding_model": "a\0"})),
        ("embedding_model", json!({"embedding_model": 1})),
        ("embedding_model", json!({"embedding_model": {"name": MINILM}})),
        (
            "embedding_model",
            json!({"embedding_model": MINILM, "embedding": {"dense": {"model": "other/model"}}}),
        ),
        (
            "embedding.dense.model",
            json!({"embedding": {"dense": {"model": "nobody/nothing"}}}),
        ),
        (
            "embedding_model.task",
            json!({"embedding_model": {"model": MINILM, "task": {"task_name": "code"}}}),
        ),
        (
            "embedding.dense.task",
            json!({"embedding": {"dense": {"model": MINILM, "task": {"task_name": "code"}}}}),
        ),
        (
            "embedding.sparse",
            json!({"embedding": {"sparse": {"model": "Chroma/BM25"}}}),
        ),
        (
            "chunking.max_size_bytes",
            json!({"chunking": {"type": "tree_sitter", "max_size_bytes": 63}}),
        ),
        (
            "chunking.max_size_bytes",
            json!({"chunking": {"type": "lines", "max_size_bytes": 16_385}}),
        ),
        (
            "chunking.max_lines",
            json!({"chunking": {"type": "lines", "max_lines": 0}}),
        ),
        ("chunking.type", json!({"chunking": {"type": "words"}})),
        ("chunking", json!({"chunking": {}})),
        ("chunking", json!({"chunking": ["lines", 10, 1_024]})),
        (
            "chunking",
            json!({"chunking": {"type": "lines", "max_lines": -1}}),
        ),
        ("file_upload", json!({"github": null, "file_upload": {}})),
        ("source_type", json!({"github": null})),
        (
            "source_type",
            json!({"web_scrape": {"starting_url": "https://example.com"}}),
        ),
        ("nonsense", json!({"nonsense": 1})),
        (
            "github.nonsense",
            json!({"github": {"repository": "a/b", "nonsense": null}}),
        ),
        ("embedding.nonsense", json!({"embedding": {"nonsense": 1}})),
    ];
    for (field, change) in cases {
        let mut body = json!({"database_name": scenario.database(), "github": {"repository": "owner/name"}});
        body.as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        let answer = rest.post("/api/v1/sources", &body).await;
        assert_names(answer, field, &body.to_string());
    }
    let app =
        json!({"database_name": scenario.database(), "github": {"repository": "a/b", "app_id": "1234"}});
    let expected = json!({
        "error": "NotFoundError",
        "message": "github app 1234 does not exist",
        "reason": "GITHUB_APP_NOT_FOUND",
        "details": {"app_id": "1234"},
    });
    assert_eq!(rest.post("/api/v1/sources", &app).await, (404, expected));
    assert_eq!(
        rest.get("/api/v1/sources").await,
        (200, json!([])),
        "no refused request left anything"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_field_of_an_invocation_is_named() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let rest = RestClient::new(&service, &scenario.admin);
    let source = scenario.create_source(&service, "owner/name").await;
    let cases = [
        ("target_collection_name", json!({"target_collection_name": null})),
        ("target_collection_name", json!({"target_collection_name": "ab"})),
        (
            "target_collection_name",
            json!({"target_collection_name": "a\0b"}),
        ),
        (
            "target_collection_name",
            json!({"target_collection_name": "grüße"}),
        ),
        ("ref_identifier", json!({"ref_identifier": {}})),
        (
            "ref_identifier",
            json!({"ref_identifier": {"branch": "main", "sha": "a".repeat(40)}}),
        ),
        ("ref_identifier", json!({"ref_identifier": "main"})),
        ("ref_identifier", json!({"ref_identifier": ["main", null]})),
        (
            "ref_identifier.branch",
            json!({"ref_identifier": {"branch": "a..b"}}),
        ),
        (
            "ref_identifier.branch",
            json!({"ref_identifier": {"branch": "a\0"}}),
        ),
        ("ref_identifier.sha", json!({"ref_identifier": {"sha": "abc"}})),
        ("ref_identifier.tag", json!({"ref_identifier": {"tag": "v1"}})),
        ("object_key", json!({"object_key": "a.txt"})),
        ("custom_id", json!({"custom_id": "mine"})),
        ("metadata", json!({"metadata": {}})),
        ("nonsense", json!({"nonsense": 1})),
    ];
    let path = format!("/api/v1/sources/{source}/invocations");
    for (field, change) in cases {
        let mut body = json!({"target_collection_name": "target"});
        body.as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        assert_names(rest.post(&path, &body).await, field, &body.to_string());
    }
    let latest = format!("{path}/latest-by-keys");
    let cases = [
        ("object_keys", json!({"object_keys": vec!["key"; 1_001]})),
        ("object_keys[0]", json!({"object_keys": ["k".repeat(1_025)]})),
        ("object_keys[1]", json!({"object_keys": ["key", "a\0"]})),
        ("object_keys[0]", json!({"object_keys": [null]})),
    ];
    for (field, body) in cases {
        assert_names(rest.post(&latest, &body).await, field, field);
    }
    assert_eq!(
        rest.get("/api/v1/invocations").await,
        (200, json!([])),
        "no refused request left anything"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_parameter_or_id_is_named() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let rest = RestClient::new(&service, &scenario.admin);
    let cases = [
        ("limit", "sources?limit=1001"),
        ("limit", "sources?limit=-1"),
        ("limit", "sources?limit="),
        ("limit", "invocations?limit=1e2"),
        ("limit", "invocations?limit=99999999999999999999"),
        ("offset", "sources?offset=-1"),
        ("offset", "invocations?offset=9223372036854775808"),
        ("order_by", "sources?order_by=asc"),
        ("limit", "sources?limit=1&limit=1"),
        ("nonsense", "sources?nonsense=1"),
        ("page_token", "invocations?page_token=x"),
        ("source_type", "sources?source_type=nonsense"),
        ("status", "invocations?status=PENDING"),
        ("status", "invocations?status=%00"),
        ("database_name", "sources?database_name="),
        ("database_name", "sources?database_name=a%2Fb"),
        ("database_name", "sources?database_name=a%00"),
        ("github.app_id", "sources?github.app_id=1"),
        ("github.repository", "sources?github.repository=a%2Fb"),
        (
            "github.repository",
            "sources?source_type=github&github.repository=name",
        ),
        ("github.app_id", "invocations?github.app_id=1"),
        (
            "github.app_id",
            "invocations?source_type=github&github.app_id=a%20b",
        ),
        ("github.repository", "invocations?github.repository=a%2Fb"),
        ("source_id", "invocations?source_id=not-a-uuid"),
        (
            "database_name",
            "invocations?database_name=one&source_id=0192e4a0-7f1c-7c3e-9a55-6a1d3c1b2f00",
        ),
        ("source_id", "sources/not-a-uuid"),
        ("source_id", "sources/0192e4a07f1c7c3e9a556a1d3c1b2f00"),
        ("source_id", "sources/%00"),
        ("source_id", "sources/%ff%fe"),
        ("invocation_id", "invocations/not-a-uuid"),
    ];
    for (field, rest_of_path) in cases {
        assert_names(
            rest.get(&format!("/api/v1/{rest_of_path}")).await,
            field,
            rest_of_path,
        );
    }
    assert_names(
        rest.delete("/api/v1/sources/not-a-uuid").await,
        "source_id",
        "DELETE",
    );
    assert_names(
        rest.put("/api/v1/invocations/not-a-uuid").await,
        "invocation_id",
        "PUT",
    );
    let body = json!({"target_collection_name": "target"});
    let posted = rest.post("/api/v1/sources/not-a-uuid/invocations", &body).await;
    assert_names(posted, "source_id", "POST");

    for (method, path, reason) in [
        (
            Method::GET,
            format!("/api/v1/sources/{UNKNOWN}"),
            "SOURCE_NOT_FOUND",
        ),
        (
            Method::DELETE,
            format!("/api/v1/sources/{UNKNOWN}"),
            "SOURCE_NOT_FOUND",
        ),
        (
            Method::GET,
            format!("/api/v1/invocations?source_id={UNKNOWN}"),
            "SOURCE_NOT_FOUND",
        ),
        (
            Method::GET,
            format!("/api/v1/invocations/{UNKNOWN}"),
            "INVOCATION_NOT_FOUND",
        ),
        (
            Method::PUT,
            format!("/api/v1/invocations/{UNKNOWN}"),
            "INVOCATION_NOT_FOUND",
        ),
    ] {
        let (status, body) = rest.send(method, &path, "", "").await.parts();
        assert_eq!(
            (status, &body["error"], &body["reason"]),
            (404, &json!("NotFoundError"), &json!(reason)),
            "{path}"
        );
    }
    let posted = rest
        .post(&format!("/api/v1/sources/{UNKNOWN}/invocations"), &body)
        .await;
    assert_eq!((posted.0, &posted.1["reason"]), (404, &json!("SOURCE_NOT_FOUND")));
    let keys = json!({"object_keys": []});
    let posted = rest
        .post(
            &format!("/api/v1/sources/{UNKNOWN}/invocations/latest-by-keys"),
            &keys,
        )
        .await;
    assert_eq!((posted.0, &posted.1["reason"]), (404, &json!("SOURCE_NOT_FOUND")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_no_such_json_is_refused_whatever_it_holds() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let rest = RestClient::new(&service, &scenario.admin);
    let database = scenario.database();
    let source = |rest: &str| {
        format!(r#"{{"database_name": "{database}", "github": {{"repository": "a/b"}}, {rest}}}"#)
    };
    let bomb = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let bodies: [Vec<u8>; 13] = [
        "".into(),
        "{".into(),
        "nonsense".into(),
        "[]".into(),
        "null".into(),
        "{} {}".into(),
        r#"{"database_name": "a", "database_name": "b"}"#.into(),
        b"{\"database_name\": \"\xff\"}".to_vec(),
        // Half of a surrogate pair is no character.
        r#"{"database_name": "\ud800"}"#.into(),
        r#"{"database_name": "\udc00\ud800"}"#.into(),
        bomb(1_000_000).into_bytes(),
        source(&format!(r#""embedding_model": {}"#, bomb(100_000))).into_bytes(),
        source(&format!(r#""chunking": {{"deep": {}}}"#, bomb(100_000))).into_bytes(),
    ];
    for body in bodies {
        let shown = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
        let (status, answer) = rest
            .send(Method::POST, "/api/v1/sources", "application/json", body)
            .await
            .parts();
        assert_eq!(
            (status, &answer["error"], &answer["reason"]),
            (400, &json!("InvalidArgumentError"), &json!("MALFORMED_REQUEST")),
            "{shown}: {answer}"
        );
        assert!(
            answer["message"]
                .as_str()
                .unwrap()
                .starts_with("the body is not "),
            "{answer}"
        );
    }
    let escaped = source(r#""chunking": {"type": "lines", "max_lines": 1e400}"#);
    let answer = rest
        .send(Method::POST, "/api/v1/sources", "application/json", escaped)
        .await;
    assert_eq!(answer.status, 400, "{}", answer.text);
    assert_eq!(rest.get("/api/v1/sources").await, (200, json!([])));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_http_itself_refuses_has_the_documented_body() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let deployment = scenario
        .deployment
        .clone()
        .with("server.max_request_bytes", "4096");
    let service = deployment.start_role("api");
    let rest = RestClient::new(&service, &scenario.admin);
    let source =
        json!({"database_name": scenario.database(), "github": {"repository": "owner/name"}}).to_string();

    for content_type in [
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/jsonl",
    ] {
        let answer = rest
            .send(Method::POST, "/api/v1/sources", content_type, source.clone())
            .await;
        let expected = json!({
            "error": "UnsupportedMediaTypeError",
            "message": "content-type must be application/json",
            "reason": "MALFORMED_REQUEST",
        });
        assert_eq!(answer.parts(), (415, expected), "{content_type}");
    }
    let accepted = "Application/JSON; charset=utf-8";
    let answer = rest
        .send(Method::POST, "/api/v1/sources", accepted, source.clone())
        .await;
    assert_eq!(answer.status, 201, "{}", answer.text);

    let padded = |length: usize| format!("{source}{}", " ".repeat(length - source.len()));
    let answer = rest
        .send(Method::POST, "/api/v1/sources", "application/json", padded(4_096))
        .await;
    assert_eq!(answer.status, 409, "{}", answer.text);
    let answer = rest
        .send(Method::POST, "/api/v1/sources", "application/json", padded(4_097))
        .await;
    let expected = json!({
        "error": "PayloadTooLargeError",
        "message": "the body must have at most 4096 bytes and arrive whole",
        "reason": "MALFORMED_REQUEST",
    });
    assert_eq!(answer.parts(), (413, expected));

    for path in [
        "/",
        "/api/v1",
        "/api/v1/sources/",
        "/api/v2/sources",
        "/api/v1/add-files",
    ] {
        let expected = json!({
            "error": "NotFoundError",
            "message": format!("no such path: {path}"),
            "reason": "ROUTE_NOT_FOUND",
        });
        assert_eq!(rest.get(path).await, (404, expected), "{path}");
    }
    for (method, path, allowed) in [
        (Method::PATCH, "/api/v1/sources", "GET,HEAD,POST"),
        (Method::POST, "/api/v1/sources/x", "GET,HEAD,DELETE"),
        (Method::DELETE, "/api/v1/invocations/x", "GET,HEAD,PUT"),
        (Method::GET, "/api/v1/sources/x/invocations", "POST"),
        (
            Method::GET,
            "/api/v1/sources/x/invocations/latest-by-keys",
            "POST",
        ),
        (Method::PUT, "/api/v1/invocations", "GET,HEAD"),
        (Method::POST, "/health", "GET,HEAD"),
    ] {
        let answer = rest.send(method.clone(), path, "", "").await;
        let expected = json!({
            "error": "MethodNotAllowedError",
            "message": format!("{path} does not take {method}"),
            "reason": "MALFORMED_REQUEST",
        });
        assert_eq!(answer.parts(), (405, expected));
        assert_eq!(answer.header("allow"), allowed, "{method} {path}");
    }
}
