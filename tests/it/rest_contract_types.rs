//! The documented shapes of every source type: what is created, shown, listed, and refused, held against the
//! published description and, where it knows the type, the older page.

use chroma_sync::proto;
use serde_json::{Value, json};

use crate::harness::{
    documented::Documented, form::Form, keys::app_key, rest::RestClient, scenario::Scenario,
    service::Service, stores::Backend,
};

const SOURCES: &str = "/api/v1/sources";
const INVOCATIONS: &str = "/api/v1/invocations";
const APP_ID: &str = "12345";

/// A service without a worker, so that what was asked for stays pending, and the documentation.
struct Contract {
    documented: Documented,
    scenario: Scenario,
    service: Service,
    rest: RestClient,
}

impl Contract {
    async fn new() -> Self {
        let scenario = Scenario::new(Backend::Sqlite).await;
        let service = scenario.deployment.start_role("api");
        let rest = RestClient::new(&service, &scenario.admin);
        let documented = Documented::read();
        Self {
            documented,
            scenario,
            service,
            rest,
        }
    }

    /// Sends a request and holds its answer against what is documented for `path`.
    async fn post(&self, path: &str, to: &str, body: &Value) -> (u16, Value) {
        let (status, answer) = self.rest.post(to, body).await;
        self.documented
            .check(&("POST".to_owned(), path.to_owned(), status), &answer);
        (status, answer)
    }

    /// Creates a source of `settings` and checks it, alone and in the list. Returns its id.
    async fn source(&self, settings: &Value) -> String {
        let mut body = settings.clone();
        body["database_name"] = json!(self.scenario.database());
        let (status, created) = self.post(SOURCES, SOURCES, &body).await;
        assert_eq!(status, 201, "{created}");
        let id = created["source_id"].as_str().unwrap().to_owned();
        let (kind, asked) = settings.as_object().unwrap().iter().next().unwrap();
        let source = self.shown_source(&id, kind).await;
        for (field, value) in asked.as_object().unwrap() {
            let shown = &source[kind][field];
            let secret = matches!(field.as_str(), "aws_access_key_id" | "aws_secret_access_key");
            assert_eq!(shown, if secret { &Value::Null } else { value }, "{kind}.{field}");
        }
        id
    }

    /// The source as it is shown, the same alone and in the list of its type.
    async fn shown_source(&self, id: &str, kind: &str) -> Value {
        let (status, source) = self.rest.get(&format!("{SOURCES}/{id}")).await;
        assert_eq!(status, 200, "{source}");
        self.documented.check_published("Source", &source);
        let (status, list) = self.rest.get(&format!("{SOURCES}?source_type={kind}")).await;
        let answered = ("GET".to_owned(), SOURCES.to_owned(), status);
        self.documented.check(&answered, &list);
        let listed = list.as_array().unwrap().iter().find(|listed| listed["id"] == id);
        assert_eq!(listed, Some(&source));
        source
    }

    /// Creates an invocation and returns its metadata as it is shown.
    async fn invocation(&self, source: &str, body: &Value) -> Value {
        let to = format!("{SOURCES}/{source}/invocations");
        let (status, created) = self
            .post(&format!("{SOURCES}/{{source_id}}/invocations"), &to, body)
            .await;
        assert_eq!(status, 201, "{created}");
        self.shown_invocation(created["invocation_id"].as_str().unwrap())
            .await
    }

    /// The metadata of an invocation, the same alone and in the list.
    async fn shown_invocation(&self, id: &str) -> Value {
        let (status, invocation) = self.rest.get(&format!("{INVOCATIONS}/{id}")).await;
        assert_eq!(
            (status, &invocation["status"]),
            (200, &json!("pending")),
            "{invocation}"
        );
        assert_eq!(invocation["invocation_id"], id);
        self.documented.check_published("Job", &invocation);
        let (status, list) = self.rest.get(INVOCATIONS).await;
        let answered = ("GET".to_owned(), INVOCATIONS.to_owned(), status);
        self.documented.check(&answered, &list);
        let listed = list.as_array().unwrap().iter().find(|listed| listed["id"] == id);
        assert_eq!(listed, Some(&invocation));
        invocation["metadata"].clone()
    }

    /// Asserts that a body is refused by the name of its field, as documented.
    async fn refuses(&self, source: &str, field: &str, body: &Value) {
        let to = format!("{SOURCES}/{source}/invocations");
        let (status, answer) = self
            .post(&format!("{SOURCES}/{{source_id}}/invocations"), &to, body)
            .await;
        assert_eq!(
            (status, &answer["error"]),
            (400, &json!("InvalidArgumentError")),
            "{body}"
        );
        assert!(
            answer["message"].as_str().unwrap().starts_with(field),
            "{body}: {answer}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn private_repositories_have_the_documented_shapes() {
    let contract = Contract::new().await;
    let unknown = json!({
        "database_name": contract.scenario.database(),
        "github": {"repository": "owner/private", "app_id": APP_ID},
    });
    let (status, answer) = contract.post(SOURCES, SOURCES, &unknown).await;
    assert_eq!(
        (status, &answer["error"]),
        (404, &json!("NotFoundError")),
        "{answer}"
    );

    let app = proto::CreateGithubAppRequest {
        app_id: APP_ID.to_owned(),
        private_key: app_key().to_owned(),
        ..proto::CreateGithubAppRequest::default()
    };
    let mut credentials = contract.service.credentials(&contract.scenario.admin);
    credentials.create_github_app(app).await.unwrap();
    let settings =
        json!({"github": {"repository": "owner/private", "app_id": APP_ID, "include_globs": ["*.md"]}});
    let source = contract.source(&settings).await;
    let commit = "0123456789abcdef0123456789abcdef01234567";
    for reference in [json!({"branch": "main"}), json!({"sha": commit})] {
        let collection = format!(
            "private-{}",
            reference.as_object().unwrap().keys().next().unwrap()
        );
        let body = json!({"target_collection_name": collection, "ref_identifier": reference});
        let expected = json!({
            "github": {"git_ref_identifier": reference},
            "database_name": contract.scenario.database(), "collection_name": collection,
        });
        assert_eq!(contract.invocation(&source, &body).await, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn buckets_have_the_documented_shapes() {
    let contract = Contract::new().await;
    let inline = json!({"s3": {
        "bucket_name": "docs", "region": "eu-west-1", "collection_name": "objects", "path_prefix": "in/",
        "auto_sync": "none", "aws_access_key_id": "AKIATEST", "aws_secret_access_key": "never-shown",
    }});
    let source = contract.source(&inline).await;
    let shown = contract.shown_source(&source, "s3").await;
    let credential = shown["s3"]["aws_credential_id"].as_i64().unwrap();
    assert!(!shown.to_string().contains("never-shown"), "{shown}");
    for (name, auto_sync) in [("direct", "direct"), ("described", "metadata")] {
        contract
            .source(&json!({"s3": {
                "bucket_name": name, "region": "eu-west-1", "collection_name": "objects",
                "auto_sync": auto_sync, "aws_credential_id": credential,
            }}))
            .await;
    }

    let body = json!({
        "object_key": "in/a.txt", "custom_id": "mine", "target_collection_name": "elsewhere",
        "metadata": {"team": "search", "tags": ["a", "b"], "stars": 3},
    });
    let expected = json!({
        "s3": {
            "bucket_name": "docs", "object_key": "in/a.txt", "custom_id": "mine",
            "additional_metadata": {"team": "search", "tags": ["a", "b"], "stars": 3},
        },
        "database_name": contract.scenario.database(), "collection_name": "elsewhere",
    });
    assert_eq!(contract.invocation(&source, &body).await, expected);
    let metadata = contract
        .invocation(&source, &json!({"object_key": "in/b.txt"}))
        .await;
    assert_eq!(
        metadata["collection_name"], "objects",
        "the source's own collection"
    );

    let to = format!("{SOURCES}/{source}/invocations/latest-by-keys");
    let path = format!("{SOURCES}/{{source_id}}/invocations/latest-by-keys");
    let keys = json!({"object_keys": ["in/a.txt", "in/absent.txt"]});
    let (status, latest) = contract.post(&path, &to, &keys).await;
    let found: Vec<&str> = latest.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!((status, found), (200, vec!["in/a.txt"]), "{latest}");

    for (field, body) in [
        ("object_key", json!({})),
        ("object_key", json!({"object_key": "out/a.txt"})),
        ("object_key", json!({"object_key": ""})),
        (
            "custom_id",
            json!({"object_key": "in/a", "custom_id": "i".repeat(121)}),
        ),
        (
            "metadata",
            json!({"object_key": "in/a", "metadata": {"chroma_a": 1}}),
        ),
        (
            "metadata",
            json!({"object_key": "in/a", "metadata": {"document_key": "x"}}),
        ),
        (
            "metadata",
            json!({"object_key": "in/a", "metadata": {"mixed": [1, "a"]}}),
        ),
        (
            "metadata",
            json!({"object_key": "in/a", "metadata": {"long": "m".repeat(17_000)}}),
        ),
        (
            "ref_identifier",
            json!({"object_key": "in/a", "ref_identifier": {"branch": "main"}}),
        ),
    ] {
        contract.refuses(&source, field, &body).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sites_have_the_documented_shapes() {
    let contract = Contract::new().await;
    let source = contract
        .source(&json!({"web_scrape": {
            "starting_url": "https://docs.example.com/start", "page_limit": 20, "max_depth": 0,
            "include_path_regexes": ["^/docs"], "exclude_path_regexes": null,
        }}))
        .await;
    let metadata = contract
        .invocation(&source, &json!({"target_collection_name": "pages"}))
        .await;
    let expected = json!({
        "web_scrape": null, "database_name": contract.scenario.database(), "collection_name": "pages",
    });
    assert_eq!(metadata, expected);
    contract
        .refuses(&source, "target_collection_name", &json!({}))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_have_the_documented_shapes() {
    let contract = Contract::new().await;
    let database = contract.scenario.database();
    let add = |status: u16| ("POST".to_owned(), "/api/v1/add-file".to_owned(), status);
    let (status, answer) = contract
        .post(
            SOURCES,
            SOURCES,
            &json!({"database_name": database, "file_upload": {}}),
        )
        .await;
    assert_eq!(
        (status, &answer["error"]),
        (400, &json!("InvalidArgumentError")),
        "{answer}"
    );

    let form = Form::to(&database, "files")
        .field("custom_id", "mine")
        .field("metadata", r#"{"team": "search"}"#)
        .field("chunking", r#"{"type": "lines", "max_lines": 5}"#)
        .field("content_type", "text/plain");
    let token = &contract.scenario.admin;
    let created = form
        .file("a.txt", b"some text")
        .send(&contract.service, token)
        .await;
    assert_eq!(created.status, 201, "{}", created.text);
    contract.documented.check(&add(201), &created.json());
    let id = created.json()["invocation_id"].as_str().unwrap().to_owned();
    let metadata = contract.shown_invocation(&id).await;
    assert_eq!(
        (&metadata["database_name"], &metadata["collection_name"]),
        (&json!(database), &json!("files"))
    );
    assert_eq!(metadata["file_upload"]["file_name"], "a.txt", "{metadata}");
    let (_, invocation) = contract.rest.get(&format!("{INVOCATIONS}/{id}")).await;
    let source = contract
        .shown_source(invocation["source_id"].as_str().unwrap(), "file_upload")
        .await;
    assert_eq!(source["file_upload"], json!({}));

    let bound = contract
        .scenario
        .deployment
        .create_key(&["--database", "another"]);
    for (token, database, status) in [
        (token.as_str(), "no/name", 400),
        ("", database.as_str(), 401),
        (bound.as_str(), database.as_str(), 403),
        (token.as_str(), "no-such-database", 404),
    ] {
        let form = Form::to(database, "files").file("a.txt", b"some text");
        let answer = form.send(&contract.service, token).await;
        assert_eq!(answer.status, status, "{}", answer.text);
        contract.documented.check(&add(status), &answer.json());
    }
}
