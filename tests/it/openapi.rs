//! The OpenAPI document: valid, the same as what is served, and kept under thousands of requests.

use std::collections::{BTreeMap, BTreeSet};

use chroma_sync::{
    domain::names::{DatabaseName, TenantName},
    error::Reason,
    rest,
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{
    rest::{RestClient, run_client},
    scenario::Scenario,
    stores::Backend,
};

const METHODS: [&str; 9] = [
    "GET", "PUT", "POST", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE", "QUERY",
];
/// Reasons that only gRPC gives.
const NOT_OVER_REST: [Reason; 4] = [
    Reason::InvalidPageToken,
    Reason::MethodNotServed,
    Reason::GithubAppExists,
    Reason::CredentialInUse,
];
/// What schemathesis does not call: a form whose size is in a header, which `uploads` sends, and operations whose
/// answers have no end, which `watch_events` calls.
const NOT_CALLED: [&str; 3] = [
    rest::ADD_FILE,
    "/api/v1/events",
    "/api/v1/invocations/{invocation_id}/events",
];

async fn document(rest: &RestClient) -> Value {
    let (status, document) = rest.get("/openapi.json").await;
    assert_eq!(status, 200);
    document
}

/// Every path of the document with its methods in upper case.
fn operations(document: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let is_method = |key: &&String| METHODS.contains(&key.to_uppercase().as_str());
    let paths = document["paths"].as_object().unwrap().iter();
    paths
        .map(|(path, item)| {
            let methods = item.as_object().unwrap().keys().filter(is_method);
            (
                path.clone(),
                methods.map(|method| method.to_uppercase()).collect(),
            )
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_is_valid_and_its_examples_fit_its_schemas() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let found = run_client("openapi_document.py", &[&format!("{}/openapi.json", service.url)]);
    let ids: BTreeSet<&str> = found["operations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|id| id.as_str().unwrap())
        .collect();
    let documented = operations(&document(&RestClient::new(&service, "")).await);
    let count: usize = documented.values().map(BTreeSet::len).sum();
    assert_eq!(ids.len(), count, "every operation has an id of its own: {ids:?}");
    assert!(found["examples"].as_u64().unwrap() > 50, "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_needs_no_token_and_the_command_prints_the_same() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let rest = RestClient::new(&service, "");
    let served = rest.send(Method::GET, "/openapi.json", "", "").await;
    assert_eq!(
        (served.status, served.header("content-type")),
        (200, "application/json")
    );
    assert_eq!(served.json()["info"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(scenario.deployment.run(&["openapi"]), served.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_and_the_router_have_the_same_paths_and_methods() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    // Without a token, so that the streams have an end; what is not served is refused before that.
    let rest = RestClient::new(&service, "");
    let documented = operations(&document(&rest).await);
    let served: BTreeSet<String> = rest::paths().into_iter().map(str::to_owned).collect();
    assert_eq!(documented.keys().cloned().collect::<BTreeSet<_>>(), served);

    for (template, methods) in &documented {
        let path = template
            .replace("{source_id}", "x")
            .replace("{invocation_id}", "x");
        let mut taken = BTreeSet::new();
        for method in METHODS {
            let name = Method::from_bytes(method.as_bytes()).unwrap();
            let answer = rest.send(name, &path, "", "").await;
            assert_ne!(answer.status, 404, "{method} {path}: {}", answer.text);
            if answer.status == 405 {
                let allowed: BTreeSet<String> =
                    answer.header("allow").split(',').map(str::to_owned).collect();
                let mut expected = methods.clone();
                if methods.contains("GET") {
                    expected.insert("HEAD".to_owned());
                }
                assert_eq!(allowed, expected, "{method} {path}");
            } else {
                taken.insert(method.to_owned());
            }
        }
        // HEAD is answered wherever GET is, as the document says once for all.
        taken.remove("HEAD");
        assert_eq!(&taken, methods, "{template}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_has_every_reason_that_rest_gives_and_no_other() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let document = document(&RestClient::new(&service, "")).await;
    let mut documented = BTreeSet::new();
    for response in document["components"]["responses"].as_object().unwrap().values() {
        let schema = &response["content"]["application/json"]["schema"]["allOf"][1];
        let reasons = schema["properties"]["reason"]["enum"].as_array().unwrap();
        documented.extend(reasons.iter().map(|reason| reason.as_str().unwrap().to_owned()));
    }
    let given: BTreeSet<String> = Reason::ALL
        .iter()
        .filter(|reason| !NOT_OVER_REST.contains(reason))
        .map(|reason| reason.as_str().to_owned())
        .collect();
    assert_eq!(documented, given);
}

/// The names of all fields at any depth, as paths.
fn fields(value: &Value, at: &str, found: &mut BTreeSet<String>) {
    let Value::Object(value) = value else { return };
    for (name, inner) in value {
        let path = format!("{at}/{name}");
        fields(inner, &path, found);
        found.insert(path);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_have_the_fields_of_the_answers_and_no_others() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let rest = RestClient::new(&service, &scenario.admin);
    let document = document(&rest).await;
    let source = scenario.create_source(&service, "owner/name").await;
    let path = format!("/api/v1/sources/{source}/invocations");
    let body = json!({"target_collection_name": "target", "ref_identifier": {"branch": "main"}});
    let (_, created) = rest.post(&path, &body).await;
    let invocation = created["invocation_id"].as_str().unwrap();
    for (template, path, example) in [
        (
            "/api/v1/sources/{source_id}",
            format!("/api/v1/sources/{source}"),
            "github",
        ),
        (
            "/api/v1/invocations/{invocation_id}",
            format!("/api/v1/invocations/{invocation}"),
            "pending",
        ),
    ] {
        let content = &document["paths"][template]["get"]["responses"]["200"]["content"]["application/json"];
        let (mut documented, mut answered) = (BTreeSet::new(), BTreeSet::new());
        fields(&content["examples"][example]["value"], "", &mut documented);
        fields(&rest.get(&path).await.1, "", &mut answered);
        assert_eq!(documented, answered, "{template}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_loads_from_this_server_alone() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let rest = RestClient::new(&service, "");
    let page = rest.send(Method::GET, "/docs", "", "").await;
    assert_eq!(
        (page.status, page.header("content-type")),
        (200, "text/html; charset=utf-8")
    );
    assert!(
        page.header("content-security-policy")
            .starts_with("default-src 'none'; script-src 'self';"),
        "{:?}",
        page.headers
    );
    assert_eq!(page.header("x-content-type-options"), "nosniff");
    let addresses: Vec<&str> = page
        .text
        .split('"')
        .skip(1)
        .step_by(2)
        .filter(|attribute| attribute.starts_with("docs/") || attribute.contains("//"))
        .collect();
    assert_eq!(
        addresses,
        [
            "docs/swagger-ui.css",
            "docs/swagger-ui-bundle.js",
            "docs/start.js"
        ]
    );
    for (address, content_type, beginning) in [
        (addresses[0], "text/css; charset=utf-8", ".swagger-ui"),
        (addresses[1], "text/javascript; charset=utf-8", "/*! For license"),
        (
            addresses[2],
            "text/javascript; charset=utf-8",
            "// Addresses are relative",
        ),
    ] {
        let file = rest.send(Method::GET, &format!("/{address}"), "", "").await;
        assert_eq!((file.status, file.header("content-type")), (200, content_type));
        assert!(file.text.starts_with(beginning), "{address}: {:.80}", file.text);
    }
}

/// Creates a tenant of the Chroma server, which the service itself never does.
async fn create_tenant(chroma_url: &str, tenant: &TenantName) {
    let created = reqwest::Client::new()
        .post(format!("{chroma_url}/api/v2/tenants"))
        .json(&json!({"name": tenant.as_str()}))
        .send()
        .await
        .unwrap();
    assert_eq!(created.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn schemathesis_finds_no_answer_that_the_document_does_not_say() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let tenant = TenantName::parse("tenant", "openapi-other-tenant").unwrap();
    let database = DatabaseName::parse("database", "default_database").unwrap();
    create_tenant(scenario.chroma.url(), &tenant).await;
    let created = scenario.chroma.client.create_database(&tenant, &database);
    created.await.unwrap();
    let other = scenario
        .deployment
        .create_key(&["--role", "admin", "--tenant", tenant.as_str()]);
    let service = scenario.deployment.start_role("api");
    let found = run_client("openapi_calls.py", &[&service.url, &scenario.admin, &other]);

    // What was called is what the document has, and reached more than refusals.
    let documented = operations(&document(&RestClient::new(&service, "")).await);
    let not_called = |path: &String| NOT_CALLED.contains(&path.as_str());
    for (path, methods) in documented.into_iter().filter(|(path, _)| !not_called(path)) {
        for method in methods {
            let answers = &found["answers"][format!("{method} {path}")];
            let succeeded = ["200", "201", "202", "204"].map(|status| answers[status].as_u64().unwrap_or(0));
            assert!(succeeded.iter().sum::<u64>() > 0, "{method} {path}: {answers}");
        }
    }
    for check in [
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
        "negative_data_rejection",
        "positive_data_acceptance",
        "missing_required_header",
        "unsupported_method",
        "allow_header_conformance",
        "use_after_free",
        "ensure_resource_availability",
        "ignored_auth",
        "object_level_authorization",
    ] {
        assert!(
            found["checks"][check].as_u64().unwrap_or(0) > 500,
            "{check}: {}",
            found["checks"]
        );
    }
}
