//! The documented REST paths: status codes and JSON, to the letter.

use chroma_sync::{
    domain::{embedding::MINILM, time::Timestamp},
    proto,
};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::harness::{
    chroma::ChromaDatabase,
    documented::Documented,
    git_server::{Change, Repository},
    rest::RestClient,
    scenario::Scenario,
    service::Service,
    stores::{Backend, on_both},
    wait_for,
};

const SHA: &str = "0123456789abcdef0123456789abcdef01234567";

/// A time of the contract as JSON has it.
fn rfc3339(time: Option<prost_types::Timestamp>) -> String {
    let time = time.unwrap();
    Timestamp(time.seconds * 1_000 + i64::from(time.nanos) / 1_000_000).to_rfc3339()
}

/// The source as gRPC has it, for what only the server knows.
async fn source(scenario: &Scenario, service: &Service, id: &str) -> proto::Source {
    let request = proto::GetSourceRequest {
        source_id: id.to_owned(),
    };
    let answer = service.sources(&scenario.admin).get_source(request).await;
    answer.unwrap().into_inner()
}

async fn invocation(scenario: &Scenario, service: &Service, id: &str) -> proto::Invocation {
    let request = proto::GetInvocationRequest {
        invocation_id: id.to_owned(),
    };
    let answer = service.invocations(&scenario.admin).get_invocation(request).await;
    answer.unwrap().into_inner()
}

/// Creates a source from a body without its database; returns its id.
async fn create_source(scenario: &Scenario, rest: &RestClient, mut body: Value) -> String {
    body["database_name"] = json!(scenario.database());
    let (status, answer) = rest.post("/api/v1/sources", &body).await;
    let id = answer["source_id"].as_str().unwrap_or_default().to_owned();
    assert_eq!((status, answer), (201, json!({"source_id": id})), "{body}");
    id
}

/// Creates an invocation; returns its id.
async fn invoke(rest: &RestClient, source_id: &str, body: &Value) -> String {
    let path = format!("/api/v1/sources/{source_id}/invocations");
    let (status, answer) = rest.post(&path, body).await;
    let id = answer["invocation_id"].as_str().unwrap_or_default().to_owned();
    assert_eq!((status, answer), (201, json!({"invocation_id": id})), "{body}");
    id
}

on_both!(
    a_source_has_the_documented_form_of_both_generations,
    source_form_on
);
async fn source_form_on(backend: Backend) {
    let scenario = Scenario::new(backend).await;
    let service = scenario.deployment.start_role("api");
    let rest = RestClient::new(&service, &scenario.admin);
    let globs = ["*.rs", "docs/*"];
    let body = json!({
        "github": {"repository": "owner/name", "include_globs": globs},
        "embedding_model": MINILM,
        "chunking": {"type": "lines", "max_lines": 20},
    });
    let id = create_source(&scenario, &rest, body.clone()).await;
    let github = json!({"repository": "owner/name", "app_id": null, "include_globs": globs});
    let expected = json!({
        "id": id,
        "database_name": scenario.database(),
        "github": github,
        "source_type": {"github": github},
        "embedding_model": MINILM,
        "embedding": {"dense": {"model": MINILM}},
        "chunking": {"type": "lines", "max_lines": 20, "max_size_bytes": 1024},
        "created_at": rfc3339(source(&scenario, &service, &id).await.create_time),
    });
    let path = format!("/api/v1/sources/{id}");
    assert_eq!(rest.get(&path).await, (200, expected.clone()));
    assert_eq!(rest.get("/api/v1/sources").await, (200, json!([expected])));

    let mut again = body;
    again["database_name"] = json!(scenario.database());
    let exists = json!({
        "error": "AlreadyExistsError",
        "message": format!("source {id} has exactly these settings; use it, or change a setting"),
        "reason": "SOURCE_EXISTS",
        "details": {"source_id": id},
    });
    assert_eq!(rest.post("/api/v1/sources", &again).await, (409, exists));

    assert_eq!(rest.delete(&path).await, (204, Value::Null));
    let gone = json!({
        "error": "NotFoundError",
        "message": format!("source {id} does not exist"),
        "reason": "SOURCE_NOT_FOUND",
        "details": {"source_id": id},
    });
    assert_eq!(rest.get(&path).await, (404, gone.clone()));
    assert_eq!(rest.delete(&path).await, (404, gone));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_may_be_a_url_and_is_returned_as_owner_and_name() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let rest = RestClient::new(&service, &scenario.admin);
    for (n, form) in [
        "{}",
        "https://github.com/{}",
        "https://github.com/{}.git",
        "https://www.github.com/{}/",
        "HTTP://GitHub.com/{}",
        "git@github.com:{}.git",
        " {} ",
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("Owner-1/name_{n}.rs");
        let given = form.replace("{}", &name);
        let body = json!({"github": {"repository": given, "app_id": null, "include_globs": null}});
        let id = create_source(&scenario, &rest, body).await;
        let (_, found) = rest.get(&format!("/api/v1/sources/{id}")).await;
        let expected = json!({"repository": name, "app_id": null, "include_globs": ["*"]});
        assert_eq!(found["github"], expected, "{given}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn model_and_chunking_are_echoed_with_the_defaults_filled_in() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let rest = RestClient::new(&service, &scenario.admin);
    let (string, object) = (json!(MINILM), json!({"model": MINILM}));
    let tree_sitter = json!({"type": "tree_sitter", "max_size_bytes": 1024});
    let cases = [
        (json!({}), &object, tree_sitter.clone()),
        (
            json!({"embedding_model": null, "embedding": null, "chunking": null}),
            &object,
            tree_sitter.clone(),
        ),
        (json!({"embedding_model": MINILM}), &string, tree_sitter.clone()),
        (
            json!({"embedding_model": {"model": MINILM, "task": null}}),
            &object,
            tree_sitter.clone(),
        ),
        (
            json!({"embedding": {"dense": {"model": MINILM}, "sparse": null}}),
            &object,
            tree_sitter.clone(),
        ),
        (
            json!({"embedding_model": MINILM, "embedding": {"dense": {"model": MINILM}}}),
            &string,
            tree_sitter,
        ),
        (
            json!({"chunking": {"type": "tree_sitter", "max_size_bytes": 64}}),
            &object,
            json!({"type": "tree_sitter", "max_size_bytes": 64}),
        ),
        (
            json!({"chunking": {"type": "lines", "max_size_bytes": 16_384}}),
            &object,
            json!({"type": "lines", "max_lines": 10, "max_size_bytes": 16_384}),
        ),
    ];
    for (n, (mut body, model, chunking)) in cases.into_iter().enumerate() {
        body["github"] = json!({"repository": format!("owner/name-{n}")});
        let id = create_source(&scenario, &rest, body.clone()).await;
        let (_, found) = rest.get(&format!("/api/v1/sources/{id}")).await;
        assert_eq!(&found["embedding_model"], model, "{body}");
        assert_eq!(found["embedding"], json!({"dense": {"model": MINILM}}), "{body}");
        assert_eq!(found["chunking"], chunking, "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invocation_shows_every_state_in_the_documented_form() {
    let mut scenario = Scenario::new(Backend::Sqlite).await;
    scenario.deployment = scenario.deployment.with("worker.lease_seconds", "2");
    let repository = Repository::create(&scenario.repositories(), "owner/name");
    repository.commit("main", &[Change::file("a.txt", "a\n")]);
    let service = scenario.deployment.start_role("api");
    let rest = RestClient::new(&service, &scenario.admin);
    let good = create_source(&scenario, &rest, json!({"github": {"repository": "owner/name"}})).await;
    let missing = create_source(
        &scenario,
        &rest,
        json!({"github": {"repository": "owner/missing"}}),
    )
    .await;
    let form = async |id: &str, source_id: &str, collection: &str, status: Value| {
        let invocation = invocation(&scenario, &service, id).await;
        json!({
            "id": id,
            "invocation_id": id,
            "source_id": source_id,
            "status": status,
            "metadata": {
                "database_name": scenario.database(),
                "collection_name": collection,
                "github": {"git_ref_identifier": {"branch": "main"}},
            },
            "created_at": rfc3339(invocation.create_time),
        })
    };
    let body = |collection: &str| json!({"target_collection_name": collection, "ref_identifier": {"branch": "main"}});
    let path = |id: &str| format!("/api/v1/invocations/{id}");

    let cancelled = invoke(&rest, &good, &body("first")).await;
    let documented = Documented::read();
    let assert_shown = async |id: &str, expected: Value| {
        documented.check_published("Job", &expected);
        documented.check_older("Invocation", &expected);
        assert_eq!(rest.get(&path(id)).await, (200, expected));
    };
    let expected = form(&cancelled, &good, "first", json!("pending")).await;
    assert_shown(&cancelled, expected).await;
    let (status, busy) = rest
        .post(&format!("/api/v1/sources/{good}/invocations"), &body("first"))
        .await;
    assert_eq!((status, &busy["error"]), (409, &json!("AlreadyExistsError")));
    assert_eq!(
        (&busy["reason"], &busy["details"]),
        (&json!("COLLECTION_BUSY"), &json!({"invocation_id": cancelled}))
    );
    assert_eq!(rest.put(&path(&cancelled)).await, (202, json!({})));
    let expected = form(&cancelled, &good, "first", json!("cancelled")).await;
    assert_shown(&cancelled, expected).await;
    let refused = json!({
        "error": "FailedPreconditionError",
        "message": format!("invocation {cancelled} is cancelled; only a pending invocation can be cancelled"),
        "reason": "INVOCATION_NOT_CANCELABLE",
        "details": {"state": "cancelled"},
    });
    assert_eq!(rest.put(&path(&cancelled)).await, (412, refused));

    // A git host that takes connections and never answers holds the invocation where it is.
    let host = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", host.local_addr().unwrap());
    let stuck = scenario.deployment.clone().with("github.git_url", &url);
    let stuck = stuck.start_role("worker");
    let complete = invoke(&rest, &good, &body("second")).await;
    let expected = form(&complete, &good, "second", json!("processing")).await;
    wait_for("a processing invocation", async || {
        let found = rest.get(&path(&complete)).await;
        if found.1["status"] == "pending" {
            Err(found)
        } else {
            Ok(found)
        }
    })
    .await;
    assert_shown(&complete, expected).await;
    stuck.kill();

    let worker = scenario.deployment.start_role("worker");
    let failed = invoke(&rest, &missing, &body("third")).await;
    for id in [&complete, &failed] {
        scenario.watch(&service, id).await;
    }
    drop(worker);
    let ended = invocation(&scenario, &service, &complete).await;
    let took = ended.duration.unwrap();
    let status = json!({"complete": {
        "finished_at": rfc3339(ended.finish_time),
        "duration_ms": took.seconds * 1_000 + i64::from(took.nanos) / 1_000_000,
    }});
    let expected = form(&complete, &good, "second", status).await;
    assert_shown(&complete, expected).await;
    let failure = invocation(&scenario, &service, &failed).await.failure.unwrap();
    assert!(failure.message.contains("owner/missing"), "{failure:?}");
    let status = json!({"failed": {"error": failure.message}});
    let expected = form(&failed, &missing, "third", status).await;
    assert_shown(&failed, expected).await;

    for (status, id) in [
        ("cancelled", cancelled),
        ("complete", complete),
        ("failed", failed),
    ] {
        let (code, found) = rest.get(&format!("/api/v1/invocations?status={status}")).await;
        let ids: Vec<&Value> = found
            .as_array()
            .unwrap()
            .iter()
            .map(|found| &found["id"])
            .collect();
        assert_eq!((code, ids), (200, vec![&json!(id)]), "{status}");
    }
    assert_eq!(
        rest.get("/api/v1/invocations?status=pending").await,
        (200, json!([]))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reference_is_echoed_and_an_absent_one_is_the_default_branch() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let rest = RestClient::new(&service, &scenario.admin);
    let source = create_source(&scenario, &rest, json!({"github": {"repository": "owner/name"}})).await;
    let head = json!({"branch": "HEAD"});
    let cases = [
        (json!({}), head.clone()),
        (
            json!({"ref_identifier": null, "object_key": null, "custom_id": null, "metadata": null}),
            head.clone(),
        ),
        (json!({"ref_identifier": head}), head.clone()),
        (
            json!({"ref_identifier": {"branch": "feature/ü"}}),
            json!({"branch": "feature/ü"}),
        ),
        (
            json!({"ref_identifier": {"sha": SHA.to_uppercase()}}),
            json!({"sha": SHA}),
        ),
        (
            json!({"ref_identifier": {"sha": SHA, "branch": null}}),
            json!({"sha": SHA}),
        ),
    ];
    for (n, (mut body, expected)) in cases.into_iter().enumerate() {
        body["target_collection_name"] = json!(format!("target-{n}"));
        let id = invoke(&rest, &source, &body).await;
        let (_, found) = rest.get(&format!("/api/v1/invocations/{id}")).await;
        assert_eq!(
            found["metadata"]["github"],
            json!({"git_ref_identifier": expected}),
            "{body}"
        );
    }
}

/// The ids of a list, which is a bare array.
async fn ids(rest: &RestClient, path: &str) -> Vec<String> {
    let (status, found) = rest.get(path).await;
    assert_eq!(status, 200, "{path}: {found}");
    let found = found.as_array().unwrap();
    found
        .iter()
        .map(|found| found["id"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_bare_arrays_with_limit_offset_order_and_filters() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let other = ChromaDatabase::create().await;
    let service = scenario.deployment.start_role("api");
    let rest = RestClient::new(&service, &scenario.admin);
    let mut sources = Vec::new();
    for n in 0..4 {
        let body = json!({"github": {"repository": format!("owner/name-{n}")}});
        sources.push(create_source(&scenario, &rest, body).await);
    }
    let elsewhere = json!({"database_name": other.name(), "github": {"repository": "owner/name-0"}});
    let (_, elsewhere) = rest.post("/api/v1/sources", &elsewhere).await;
    let elsewhere = elsewhere["source_id"].as_str().unwrap().to_owned();
    let mut newest = sources.clone();
    newest.push(elsewhere.clone());
    newest.reverse();
    let here = format!("/api/v1/sources?database_name={}", scenario.database());
    let both_zero = [elsewhere.clone(), sources[0].clone()];
    let cases: [(String, &[String]); 10] = [
        ("/api/v1/sources".into(), &newest),
        ("/api/v1/sources?limit=1000&order_by=DESC".into(), &newest),
        ("/api/v1/sources?limit=0".into(), &[]),
        ("/api/v1/sources?offset=5".into(), &[]),
        ("/api/v1/sources?limit=2&offset=1".into(), &newest[1..3]),
        (format!("{here}&order_by=ASC"), &sources),
        (
            format!("{here}&order_by=ASC&offset=3&source_type=github"),
            &sources[3..],
        ),
        (
            "/api/v1/sources?source_type=github&github.repository=Owner/name-0".into(),
            &both_zero,
        ),
        (
            "/api/v1/sources?source_type=github&github.repository=https%3A%2F%2Fgithub.com%2Fowner%2Fname-3"
                .into(),
            &sources[3..],
        ),
        (
            "/api/v1/sources?source_type=github&github.app_id=1234".into(),
            &[],
        ),
    ];
    for (path, expected) in cases {
        assert_eq!(ids(&rest, &path).await, expected, "{path}");
    }

    let mut runs = Vec::new();
    for (n, source) in [&sources[0], &sources[0], &elsewhere].into_iter().enumerate() {
        let body = json!({"target_collection_name": format!("target-{n}")});
        runs.push(invoke(&rest, source, &body).await);
    }
    let newest: Vec<String> = runs.iter().rev().cloned().collect();
    let database = other.name();
    let cases: [(String, &[String]); 6] = [
        ("/api/v1/invocations".into(), &newest),
        ("/api/v1/invocations?limit=0".into(), &[]),
        (
            "/api/v1/invocations?limit=1&offset=1&status=pending".into(),
            &newest[1..2],
        ),
        (
            format!("/api/v1/invocations?source_id={}&order_by=ASC", sources[0]),
            &runs[..2],
        ),
        (
            format!("/api/v1/invocations?database_name={database}&source_type=github"),
            &runs[2..],
        ),
        (format!("/api/v1/invocations?source_id={}", sources[1]), &[]),
    ];
    for (path, expected) in cases {
        assert_eq!(ids(&rest, &path).await, expected, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_latest_invocations_of_a_repository_by_keys_are_an_empty_object() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let rest = RestClient::new(&service, &scenario.admin);
    let source = create_source(&scenario, &rest, json!({"github": {"repository": "owner/name"}})).await;
    invoke(&rest, &source, &json!({"target_collection_name": "target"})).await;
    let path = format!("/api/v1/sources/{source}/invocations/latest-by-keys");
    let answer = rest.post(&path, &json!({"object_keys": ["a", "b/c"]})).await;
    assert_eq!(answer, (200, json!({})));
}

#[tokio::test(flavor = "multi_thread")]
async fn health_needs_no_token_and_every_answer_is_json() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let rest = RestClient::new(&service, "");
    let health = rest.send(Method::GET, "/health", "", "").await;
    assert_eq!(health.parts(), (200, json!({"status": "ok"})));
    assert_eq!(health.header("content-type"), "application/json");
    let refused = rest.send(Method::GET, "/api/v1/sources", "", "").await;
    assert_eq!(
        (refused.status, refused.header("content-type")),
        (401, "application/json")
    );
}
