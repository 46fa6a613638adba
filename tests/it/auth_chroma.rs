//! Mode `chroma`: callers are who the Chroma server says, and their invocations write with their tokens.

use chroma_sync::proto::{self, invocation::State};
use sea_orm::{ConnectionTrait, Database, Statement};
use tonic::{Code, Status};

use crate::harness::{
    git_server::{Change, Repository},
    scenario::Scenario,
    service::{Deployment, Service, reason},
    stores::{Backend, on_both},
    token_gate::TokenGate,
    wait_for,
};

const ALICE: &str = "token-of-alice";
const BOB: &str = "token-of-bob";
const CAROL: &str = "token-of-carol";

/// Alice opens every database of the default tenant, Bob another one than the scenario's, Carol another
/// tenant.
async fn gate(scenario: &Scenario) -> TokenGate {
    let every: &[&str] = &["*"];
    let tokens = [
        (ALICE, "default_tenant", every),
        (BOB, "default_tenant", &["bobs_database"]),
        (CAROL, "another_tenant", every),
    ];
    TokenGate::start(scenario.chroma.url(), &tokens).await
}

fn deployment(scenario: &Scenario, gate: &TokenGate) -> Deployment {
    let key = scenario.repositories().with_file_name("encryption.key");
    scenario
        .deployment
        .clone()
        .with("auth.mode", "chroma")
        .with("chroma.url", gate.url())
        .with("encryption.key_file", key.to_str().unwrap())
}

/// Invocations that a token is kept with.
async fn tokens_kept(scenario: &Scenario) -> i64 {
    let database = Database::connect(&scenario.store_url).await.unwrap();
    let count = "SELECT COUNT(sealed_chroma_token) AS kept FROM invocations";
    let statement = Statement::from_string(database.get_database_backend(), count);
    let row = database.query_one_raw(statement).await.unwrap().unwrap();
    row.try_get("", "kept").unwrap()
}

/// Whether a file of the SQLite database holds the text.
fn database_files_contain(scenario: &Scenario, text: &str) -> bool {
    let path = scenario.store_url.trim_start_matches("sqlite://");
    let files = ["", "-wal"].map(|suffix| std::fs::read(format!("{path}{suffix}")).unwrap());
    files
        .iter()
        .any(|bytes| bytes.windows(text.len()).any(|window| window == text.as_bytes()))
}

async fn list(service: &Service, token: &str) -> Result<Vec<proto::Source>, Status> {
    let request = proto::ListSourcesRequest::default();
    let answer = service.sources(token).list_sources(request).await?;
    Ok(answer.into_inner().sources)
}

on_both!(
    a_callers_token_is_what_its_invocations_write_with,
    token_writes_on
);
async fn token_writes_on(backend: Backend) {
    let mut scenario = Scenario::new(backend).await;
    let repository = Repository::create(&scenario.repositories(), "owner/name");
    repository.commit("main", &[Change::file("a.txt", "one line\n")]);
    let gate = gate(&scenario).await;
    let deployment = deployment(&scenario, &gate);
    scenario.admin = ALICE.to_owned();
    let api = deployment.start_role("api");
    let (_, created) = scenario.pending_invocation(&api).await;
    assert_eq!(gate.wrote(), [""; 0], "the API writes nothing to Chroma");

    let worker = deployment.start_role("worker");
    let messages = scenario.watch(&api, &created.id).await;
    let ended = messages.last().unwrap().invocation.clone().unwrap();
    assert_eq!(ended.state(), State::Complete, "{ended:?}");
    assert_eq!(gate.wrote(), [ALICE]);
    assert_eq!(scenario.chroma.records("target").await.len(), 1);

    for process in [worker, api] {
        process.terminate();
        let (_, log) = process.wait();
        assert!(!log.contains(ALICE), "the log has the token: {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_token_is_sealed_until_its_invocation_ends() {
    let mut scenario = Scenario::new(Backend::Sqlite).await;
    let gate = gate(&scenario).await;
    let deployment = deployment(&scenario, &gate);
    scenario.admin = ALICE.to_owned();
    let api = deployment.start_role("api");
    let (_, created) = scenario.pending_invocation(&api).await;
    assert_eq!(tokens_kept(&scenario).await, 1);
    assert!(
        !database_files_contain(&scenario, ALICE),
        "the token lies in the open"
    );

    // There is no such repository, so the invocation ends before it writes.
    let _worker = deployment.start_role("worker");
    let messages = scenario.watch(&api, &created.id).await;
    let ended = messages.last().unwrap().invocation.clone().unwrap();
    assert_eq!(ended.failure.unwrap().reason, "REPOSITORY_NOT_FOUND");
    assert_eq!(tokens_kept(&scenario).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_with_another_key_says_that_the_keys_differ() {
    let mut scenario = Scenario::new(Backend::Sqlite).await;
    let repository = Repository::create(&scenario.repositories(), "owner/name");
    repository.commit("main", &[Change::file("a.txt", "one line\n")]);
    let gate = gate(&scenario).await;
    let deployment = deployment(&scenario, &gate);
    scenario.admin = ALICE.to_owned();
    let api = deployment.start_role("api");
    let source = scenario.create_source(&api, "owner/name").await;
    let _worker = deployment
        .clone()
        .with("encryption.key", &"ab".repeat(32))
        .start_role("worker");
    let ended = scenario.run(&api, &source, "target", None).await;
    let failure = ended.failure.unwrap();
    assert_eq!(failure.reason, "CHROMA_TOKEN_UNREADABLE");
    assert!(failure.message.contains("encryption.key"), "{}", failure.message);
    assert_eq!(gate.wrote(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_opens_what_the_chroma_server_says() {
    let mut scenario = Scenario::new(Backend::Sqlite).await;
    let gate = gate(&scenario).await;
    let deployment = deployment(&scenario, &gate);
    scenario.admin = ALICE.to_owned();
    let api = deployment.start_role("api");
    let source = scenario.create_source(&api, "owner/name").await;
    let get = async |token: &str| {
        let source_id = source.clone();
        let request = proto::GetSourceRequest { source_id };
        api.sources(token).get_source(request).await.map(drop)
    };
    get(ALICE).await.unwrap();
    let refused = get(BOB).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::PermissionDenied, "DATABASE_FORBIDDEN")
    );
    let refused = get(CAROL).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::NotFound, "SOURCE_NOT_FOUND")
    );
    for (token, expected) in [("token-of-nobody", "TOKEN_INVALID"), ("", "TOKEN_MISSING")] {
        let refused = get(token).await.unwrap_err();
        assert_eq!(
            (refused.code(), reason(&refused).as_str()),
            (Code::Unauthenticated, expected)
        );
    }
    // The role is the same for every caller, since the Chroma server knows none.
    let members = deployment.with("auth.chroma_role", "member").start_role("api");
    let refused = members
        .sources(ALICE)
        .create_source(scenario.source_request("owner/other"))
        .await
        .unwrap_err();
    assert_eq!(reason(&refused), "ROLE_INSUFFICIENT");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_the_chroma_server_revokes_stops_after_the_time_it_is_kept() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let gate = gate(&scenario).await;
    let deployment = deployment(&scenario, &gate).with("auth.cache_seconds", "1");
    let api = deployment.start_role("api");
    list(&api, ALICE).await.unwrap();
    gate.revoke(ALICE);
    let refused = wait_for("the refusal of a revoked token", async || {
        match list(&api, ALICE).await {
            Err(status) => Ok(status),
            Ok(sources) => Err(sources),
        }
    })
    .await;
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::Unauthenticated, "TOKEN_INVALID")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chroma_server_that_takes_any_token_lets_nobody_in() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let gate = gate(&scenario).await;
    let deployment = deployment(&scenario, &gate).with("chroma.url", scenario.chroma.url());
    let api = deployment.start_role("api");
    let refused = list(&api, ALICE).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::Unavailable, "CHROMA_UNAVAILABLE")
    );
    assert_eq!(
        refused.message(),
        "the chroma server does not check tokens, so nobody can be identified by one"
    );
}
