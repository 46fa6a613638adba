//! Every documented answer of the REST paths, produced by a real request and held against the documentation.

use std::collections::BTreeSet;

use chroma_sync::domain::embedding::MINILM;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{
    chroma::ChromaDatabase,
    documented::{Answered, Documented},
    gate::Gate,
    proxy::{Fault, FaultProxy},
    rest::{Answer, RestClient},
    scenario::Scenario,
    stores::Backend,
    wait_for,
};

const SOURCES: &str = "/api/v1/sources";
const SOURCE: &str = "/api/v1/sources/{source_id}";
const SOURCE_INVOCATIONS: &str = "/api/v1/sources/{source_id}/invocations";
const LATEST: &str = "/api/v1/sources/{source_id}/invocations/latest-by-keys";
const INVOCATIONS: &str = "/api/v1/invocations";
const INVOCATION: &str = "/api/v1/invocations/{invocation_id}";
const HEALTH: &str = "/health";
const UNKNOWN: &str = "0192e4a0-7f1c-7c3e-9a55-6a1d3c1b2f00";

/// Documented answers that no request produces.
const NEVER: &[(&str, &str, u16)] = &[
    // The parameters of this listing are filters: one that fits nothing leaves an empty list. The older page
    // does not have this answer.
    ("GET", SOURCES, 404),
];

/// Name of an error by its status, as documented.
fn error_name(status: u16) -> &'static str {
    match status {
        400 => "InvalidArgumentError",
        401 => "UnauthenticatedError",
        403 => "PermissionDeniedError",
        404 => "NotFoundError",
        409 => "AlreadyExistsError",
        412 => "FailedPreconditionError",
        429 => "ResourceExhaustedError",
        503 => "UnavailableError",
        other => panic!("{other} is not in the table"),
    }
}

/// Who sends a request.
#[derive(Clone, Copy)]
enum Caller {
    Admin,
    Member,
    /// An admin's key, bound to a database that nothing in this test is in.
    Bound,
    Nobody,
}

/// A request and the answer that it has to get.
struct Row {
    method: Method,
    path: &'static str,
    status: u16,
    caller: Caller,
    /// What stands for the id in the path, and the query.
    id: String,
    query: String,
    body: Option<Value>,
}

fn row(method: Method, path: &'static str, status: u16, caller: Caller) -> Row {
    Row {
        method,
        path,
        status,
        caller,
        id: String::new(),
        query: String::new(),
        body: None,
    }
}

impl Row {
    fn id(self, id: &str) -> Self {
        let id = id.to_owned();
        Self { id, ..self }
    }

    fn query(self, query: &str) -> Self {
        let query = query.to_owned();
        Self { query, ..self }
    }

    fn body(self, body: Value) -> Self {
        let body = Some(body);
        Self { body, ..self }
    }

    fn answered(&self) -> Answered {
        (self.method.to_string(), self.path.to_owned(), self.status)
    }

    async fn send(&self, client: &RestClient) -> Answer {
        let path = self
            .path
            .replace("{source_id}", &self.id)
            .replace("{invocation_id}", &self.id);
        let path = format!("{path}{}", self.query);
        let (kind, body) = match &self.body {
            Some(body) => ("application/json", body.to_string()),
            None => ("", String::new()),
        };
        client.send(self.method.clone(), &path, kind, body).await
    }
}

/// Asserts status, headers and body.
fn check(documented: &Documented, row: &Row, answer: &Answer) {
    let what = format!("{:?} {}", row.answered(), answer.text);
    assert_eq!(answer.status, row.status, "{what}");
    let retries = matches!(row.status, 429 | 503);
    assert_eq!(retries, !answer.header("retry-after").is_empty(), "{what}");
    let challenges = row.status == 401;
    assert_eq!(
        challenges,
        !answer.header("www-authenticate").is_empty(),
        "{what}"
    );
    if row.status == 204 {
        assert_eq!(
            (answer.text.as_str(), answer.header("content-type")),
            ("", ""),
            "{what}"
        );
        return;
    }
    assert_eq!(answer.header("content-type"), "application/json", "{what}");
    let body = answer.json();
    documented.check(&row.answered(), &body);
    if row.status >= 400 {
        assert_eq!(body["error"], error_name(row.status), "{what}");
        assert!(!body["message"].as_str().unwrap().is_empty(), "{what}");
        assert!(!body["reason"].as_str().unwrap().is_empty(), "{what}");
    }
}

/// What the table is about.
struct World {
    database: String,
    /// A source, with invocations pending in `target`, `mine` and `theirs`.
    source: String,
    doomed_source: String,
    pending: String,
    cancelled: String,
}

fn new_source(database: &str, repository: &str) -> Value {
    json!({"database_name": database, "github": {"repository": repository}})
}

fn target(collection: &str) -> Value {
    json!({"target_collection_name": collection, "ref_identifier": {"branch": "main"}})
}

/// The table: every documented answer but those of [`NEVER`] and the 503 of `/health`.
fn table(world: &World) -> Vec<Row> {
    use Caller::{Admin, Bound, Member, Nobody};
    let World {
        database,
        source,
        doomed_source,
        pending,
        cancelled,
    } = world;
    let named = format!("?database_name={database}");
    let keys = json!({"object_keys": ["a.txt"]});
    vec![
        row(Method::GET, HEALTH, 200, Nobody),
        row(Method::GET, SOURCES, 200, Member),
        row(Method::GET, SOURCES, 400, Member).query("?limit=1001"),
        row(Method::GET, SOURCES, 401, Nobody),
        row(Method::GET, SOURCES, 403, Bound).query(&named),
        row(Method::POST, SOURCES, 201, Admin).body(new_source(database, "owner/created")),
        row(Method::POST, SOURCES, 400, Admin).body(json!({"github": {"repository": "owner/name"}})),
        row(Method::POST, SOURCES, 401, Nobody).body(new_source(database, "owner/other")),
        row(Method::POST, SOURCES, 403, Member).body(new_source(database, "owner/other")),
        row(Method::POST, SOURCES, 404, Admin).body(new_source("no-such-database", "owner/other")),
        row(Method::POST, SOURCES, 409, Admin).body(new_source(database, "owner/created")),
        row(Method::GET, SOURCE, 200, Member).id(source),
        row(Method::GET, SOURCE, 400, Member).id("no-uuid"),
        row(Method::GET, SOURCE, 401, Nobody).id(source),
        row(Method::GET, SOURCE, 403, Bound).id(source),
        row(Method::GET, SOURCE, 404, Member).id(UNKNOWN),
        row(Method::DELETE, SOURCE, 400, Admin).id("no-uuid"),
        row(Method::DELETE, SOURCE, 401, Nobody).id(doomed_source),
        row(Method::DELETE, SOURCE, 403, Member).id(doomed_source),
        row(Method::DELETE, SOURCE, 204, Admin).id(doomed_source),
        row(Method::DELETE, SOURCE, 404, Admin).id(doomed_source),
        row(Method::POST, SOURCE_INVOCATIONS, 201, Member)
            .id(source)
            .body(target("created")),
        row(Method::POST, SOURCE_INVOCATIONS, 400, Member)
            .id(source)
            .body(json!({"ref_identifier": null})),
        row(Method::POST, SOURCE_INVOCATIONS, 401, Nobody)
            .id(source)
            .body(target("other")),
        row(Method::POST, SOURCE_INVOCATIONS, 403, Bound)
            .id(source)
            .body(target("other")),
        row(Method::POST, SOURCE_INVOCATIONS, 404, Member)
            .id(UNKNOWN)
            .body(target("other")),
        row(Method::POST, SOURCE_INVOCATIONS, 409, Member)
            .id(source)
            .body(target("created")),
        row(Method::POST, LATEST, 200, Member)
            .id(source)
            .body(keys.clone()),
        row(Method::POST, LATEST, 400, Member).id(source).body(json!({})),
        row(Method::POST, LATEST, 401, Nobody)
            .id(source)
            .body(keys.clone()),
        row(Method::POST, LATEST, 403, Bound)
            .id(source)
            .body(keys.clone()),
        row(Method::POST, LATEST, 404, Member).id(UNKNOWN).body(keys),
        row(Method::GET, INVOCATIONS, 200, Member).query(&named),
        row(Method::GET, INVOCATIONS, 400, Member).query("?status=done"),
        row(Method::GET, INVOCATIONS, 401, Nobody),
        row(Method::GET, INVOCATIONS, 403, Bound).query(&named),
        row(Method::GET, INVOCATIONS, 404, Member).query(&format!("?source_id={UNKNOWN}")),
        row(Method::GET, INVOCATION, 200, Member).id(pending),
        row(Method::GET, INVOCATION, 400, Member).id("no-uuid"),
        row(Method::GET, INVOCATION, 401, Nobody).id(pending),
        row(Method::GET, INVOCATION, 403, Bound).id(pending),
        row(Method::GET, INVOCATION, 404, Member).id(UNKNOWN),
        row(Method::PUT, INVOCATION, 400, Member).id("no-uuid"),
        row(Method::PUT, INVOCATION, 401, Nobody).id(pending),
        row(Method::PUT, INVOCATION, 403, Bound).id(pending),
        row(Method::PUT, INVOCATION, 404, Member).id(UNKNOWN),
        row(Method::PUT, INVOCATION, 412, Member).id(cancelled),
        row(Method::PUT, INVOCATION, 202, Member).id(pending),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_documented_answer_is_given_to_a_request_that_earns_it() {
    let documented = Documented::read();
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let other = ChromaDatabase::create().await;
    let bound = ["--role", "admin", "--database", &other.name().to_string()];
    let bound = RestClient::new(&service, &scenario.deployment.create_key(&bound));
    let member = RestClient::new(&service, &scenario.deployment.create_key(&["--role", "member"]));
    let admin = RestClient::new(&service, &scenario.admin);
    let nobody = RestClient::new(&service, "");

    let source = scenario.create_source(&service, "owner/name").await;
    let invoke = async |collection: &str| {
        let created = scenario.create_invocation(&service, &source, collection).await;
        created.unwrap().id
    };
    let (pending, cancelled) = (invoke("first").await, invoke("second").await);
    scenario.cancel(&service, &cancelled).await;
    let world = World {
        database: scenario.database(),
        doomed_source: scenario.create_source(&service, "owner/doomed").await,
        source,
        pending,
        cancelled,
    };

    let mut produced = BTreeSet::new();
    for row in table(&world) {
        let client = match row.caller {
            Caller::Admin => &admin,
            Caller::Member => &member,
            Caller::Bound => &bound,
            Caller::Nobody => &nobody,
        };
        check(&documented, &row, &row.send(client).await);
        assert!(
            produced.insert(row.answered()),
            "{:?} is there twice",
            row.answered()
        );
    }

    let mut wanted = documented.answers();
    // Its requests are forms; `uploads` sends them.
    wanted.retain(|(_, path, _)| path != "/api/v1/add-file");
    wanted.remove(&("GET".to_owned(), HEALTH.to_owned(), 503));
    for (method, path, status) in NEVER {
        assert!(wanted.remove(&((*method).to_owned(), (*path).to_owned(), *status)));
    }
    assert_eq!(produced, wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_unavailable_while_the_database_is_away() {
    let documented = Documented::read();
    let scenario = Scenario::new(Backend::Postgres).await;
    // The server listens on a socket in the directory that the URL names.
    let (server, directory) = scenario.store_url.split_once("?host=").unwrap();
    let socket = format!("{}/.s.PGSQL.5432", directory.replace("%2F", "/"));
    let gate = Gate::start(&socket).await;
    let address = gate.url().trim_start_matches("http://").to_owned();
    let behind = server.replace("@localhost/", &format!("@{address}/"));
    let service = scenario
        .deployment
        .clone()
        .with("store.url", &behind)
        .start_role("api");
    let client = RestClient::new(&service, "");
    for (status, closed) in [(200, false), (503, true)] {
        if closed {
            gate.close();
        }
        let health = row(Method::GET, HEALTH, status, Caller::Nobody);
        check(&documented, &health, &health.send(&client).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_path_sheds_what_is_beyond_the_limit() {
    let documented = Documented::read();
    let scenario = Scenario::new(Backend::Sqlite).await;
    let server = scenario.chroma.url().trim_start_matches("http://");
    let proxy = FaultProxy::start(server, &[Fault::Hang]).await;
    let service = scenario
        .deployment
        .clone()
        .with("chroma.url", &proxy.url())
        .with("server.max_concurrent_requests", "1")
        .start_role("api");
    let client = RestClient::new(&service, &scenario.admin);
    let occupant = RestClient::new(&service, &scenario.admin);
    let body = new_source(&scenario.database(), "owner/name");
    let occupying = tokio::spawn(async move { occupant.post(SOURCES, &body).await });
    wait_for("a request that waits for Chroma", async || {
        (proxy.connections() == 1)
            .then_some(())
            .ok_or(proxy.connections())
    })
    .await;
    for (method, path) in [
        (Method::GET, HEALTH),
        (Method::GET, SOURCES),
        (Method::POST, SOURCES),
        (Method::GET, SOURCE),
        (Method::DELETE, SOURCE),
        (Method::POST, SOURCE_INVOCATIONS),
        (Method::POST, LATEST),
        (Method::GET, INVOCATIONS),
        (Method::GET, INVOCATION),
        (Method::PUT, INVOCATION),
    ] {
        let shed = row(method, path, 429, Caller::Admin).id(UNKNOWN);
        check(&documented, &shed, &shed.send(&client).await);
    }
    occupying.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_fit_both_generations_of_the_documentation() {
    let documented = Documented::read();
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let client = RestClient::new(&service, &scenario.admin);
    let create = async |body: &Value| {
        let (status, created) = client.post(SOURCES, body).await;
        assert_eq!(status, 201, "{created}");
        let id = created["source_id"].as_str().unwrap();
        client.get(&format!("{SOURCES}/{id}")).await.1
    };
    // A caller of the older generation names the model as a string, and reads it so.
    let mut older = new_source(&scenario.database(), "owner/older");
    older["embedding_model"] = json!(MINILM);
    documented.check_older("Source", &create(&older).await);
    for (n, change) in [
        json!({}),
        json!({"embedding_model": null}),
        json!({"embedding_model": {"model": MINILM, "task": null}}),
        json!({"embedding": {"dense": {"model": MINILM}, "sparse": null}}),
        json!({"chunking": {"type": "lines"}}),
    ]
    .into_iter()
    .enumerate()
    {
        let mut newer = new_source(&scenario.database(), &format!("owner/newer-{n}"));
        newer
            .as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        documented.check_published("Source", &create(&newer).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_that_is_repeated_with_its_idempotency_key_answers_what_the_first_one_did() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let http = reqwest::Client::new();
    let post = async |path: &str, keys: &[&str], body: &Value| {
        let mut request = http
            .post(format!("{}{path}", service.url))
            .header("x-chroma-token", &scenario.admin)
            .json(body);
        for key in keys {
            request = request.header("Idempotency-Key", *key);
        }
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    let source = new_source(&scenario.database(), "owner/name");
    let first = post(SOURCES, &["one"], &source).await;
    assert_eq!(first.0, 201);
    assert_eq!(post(SOURCES, &["one"], &source).await, first);
    // As the draft has it, in quotes.
    assert_eq!(post(SOURCES, &["\"one\""], &source).await, first);
    let (status, exists) = post(SOURCES, &["two"], &source).await;
    assert_eq!((status, &exists["reason"]), (409, &json!("SOURCE_EXISTS")));
    assert_eq!(exists["details"]["source_id"], first.1["source_id"]);
    let other = new_source(&scenario.database(), "owner/other");
    let (status, reused) = post(SOURCES, &["one"], &other).await;
    assert_eq!((status, &reused["reason"]), (409, &json!("REQUEST_ID_REUSED")));

    let path = format!("{SOURCES}/{}/invocations", first.1["source_id"].as_str().unwrap());
    // A key that is a UUID is the request_id of gRPC.
    let uuid = "6f9619ff-8b86-4d11-b42d-00c04fc964ff";
    let created = post(&path, &[uuid], &target("first")).await;
    assert_eq!(created.0, 201);
    assert_eq!(post(&path, &[uuid], &target("first")).await, created);
    let request = chroma_sync::proto::CreateInvocationRequest {
        request_id: Some(uuid.to_owned()),
        ..crate::harness::scenario::invocation_request(
            first.1["source_id"].as_str().unwrap(),
            "first",
            Some(chroma_sync::proto::github_input::Reference::Branch(
                "main".to_owned(),
            )),
        )
    };
    let same = service
        .invocations(&scenario.admin)
        .create_invocation(request)
        .await
        .unwrap();
    assert_eq!(json!(same.into_inner().id), created.1["invocation_id"]);
    let (status, reused) = post(&path, &[uuid], &target("second")).await;
    assert_eq!((status, &reused["reason"]), (409, &json!("REQUEST_ID_REUSED")));

    let too_long = "k".repeat(256);
    for keys in [&["a b"][..], &[""], &["\"\""], &[&too_long], &["one", "two"]] {
        let (status, refused) = post(SOURCES, keys, &other).await;
        assert_eq!(status, 400, "{keys:?}: {refused}");
        assert_eq!(refused["violations"][0]["field"], "Idempotency-Key", "{keys:?}");
    }
}
