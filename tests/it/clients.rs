//! The programs of `examples/` against the running service: other languages, other libraries.

use std::process::Command;

use chroma_sync::proto::{self, invocation::State};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{
    browser::{Page, serve_files},
    examples::{Ended, Program, python_grpc, python_rest, web_bundle, web_command},
    gate::Gate,
    git_server::{Change, Repository},
    scenario::Scenario,
    service::Service,
    stores::Backend,
    wait_for,
};

/// A scenario with the repository `owner/name`: two documents, and one that is left out.
async fn scenario() -> Scenario {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let files = [
        Change::file("README.md", "# Title\n\nA few words.\n"),
        Change::file("binary.bin", b"a\0b"),
        Change::file("src/lib.rs", "pub fn one() -> u32 {\n    1\n}\n"),
    ];
    Repository::create(&scenario.repositories(), "owner/name").commit("main", &files);
    scenario
}

/// Runs a program to its end.
async fn run(command: Command, token: &str) -> Ended {
    Program::start(command, token).end().await
}

/// What follows `word` in a line such as `source 0199...`.
fn after<'a>(word: &str, line: &'a str) -> &'a str {
    line.strip_prefix(word)
        .unwrap_or_else(|| panic!("not {word}: {line}"))
        .trim()
}

async fn wait_for_end(scenario: &Scenario, service: &Service, id: &str) {
    let mut client = service.invocations(&scenario.admin);
    wait_for("the invocation's end", async || {
        let request = proto::GetInvocationRequest {
            invocation_id: id.to_owned(),
        };
        let state = client.get_invocation(request).await.unwrap().into_inner().state();
        if state == State::Complete {
            Ok(())
        } else {
            Err(state)
        }
    })
    .await;
}

/// Kind, revision and state of the lines that are no progress and no heartbeat.
fn changes(lines: &[String]) -> Vec<String> {
    lines
        .iter()
        .filter(|line| line.starts_with("snapshot ") || line.starts_with("state_changed "))
        .map(|line| line.splitn(4, ' ').take(3).collect::<Vec<_>>().join(" "))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_client_resumes_its_watch_and_misses_no_state() {
    let scenario = scenario().await;
    let service = scenario.deployment.start_role("api");
    let gate = Gate::start(&service.url).await;
    let (server, database) = (gate.url().replace("http://", ""), scenario.database());
    let request_id = Uuid::now_v7().to_string();
    let command = || {
        let place = ["owner/name", "--server", &server, "--database", &database];
        let request = ["--collection", "target", "--request-id", &request_id];
        python_grpc(&[&place[..], &request[..]].concat())
    };
    let mut client = Program::start(command(), &scenario.admin);
    let source_line = client.line().await;
    let invocation_line = client.line().await;
    let id = after("invocation", &invocation_line).to_owned();
    assert_eq!(client.line().await, "snapshot 1 pending queued 0/0 documents");

    // Everything happens while the client is cut off.
    gate.close();
    let worker = scenario.deployment.start_role("worker");
    wait_for_end(&scenario, &service, &id).await;
    gate.open();
    let ended = client.end().await;
    assert_eq!(ended.code, Some(0), "{}", ended.errors);
    assert!(
        ended.errors.starts_with("connection lost after revision 1;"),
        "{}",
        ended.errors
    );
    let expected = ["state_changed 2 processing", "state_changed 3 complete"];
    assert_eq!(changes(&ended.lines), expected);
    let documents = [
        "indexed README.md",
        "skipped binary.bin binary",
        "indexed src/lib.rs",
    ];
    let (messages, listed) = ended.lines.split_at(ended.lines.len() - documents.len());
    assert_eq!(listed, documents);
    assert_eq!(
        messages.last().unwrap(),
        "state_changed 3 complete done 3/3 documents"
    );

    // The same request again: the source that exists, and the invocation that the request made.
    drop(worker);
    let again = run(command(), &scenario.admin).await;
    assert_eq!(again.code, Some(0), "{}", again.errors);
    assert_eq!(again.lines[..2], [source_line, invocation_line]);
    assert_eq!(changes(&again.lines), ["snapshot 3 complete"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_client_shows_the_reason_and_the_field() {
    let scenario = scenario().await;
    let service = scenario.deployment.start_role("api");
    let (server, database) = (service.url.replace("http://", ""), scenario.database());
    let place = ["owner/name", "--server", &server, "--database", &database];
    let command = |collection| python_grpc(&[&place[..], &["--collection", collection]].concat());

    let refused = run(command("a"), &scenario.admin).await;
    assert_eq!(refused.code, Some(3));
    let lines: Vec<&str> = refused.errors.lines().collect();
    assert!(
        lines[0].starts_with("INVALID_ARGUMENT INVALID_FIELD: "),
        "{lines:?}"
    );
    assert!(lines[1].starts_with("  target_collection_name: "), "{lines:?}");
    assert_eq!(lines.len(), 2);

    let refused = run(command("target"), "cs-unknown").await;
    assert_eq!(refused.code, Some(3));
    assert!(
        refused.errors.starts_with("UNAUTHENTICATED TOKEN_INVALID: "),
        "{}",
        refused.errors
    );
}

/// The example caller of the REST API.
struct RestCaller<'a> {
    service: &'a Service,
    token: &'a str,
}

impl RestCaller<'_> {
    fn command(&self, arguments: &[&str]) -> Command {
        python_rest(&[&["--server", &self.service.url], arguments].concat())
    }

    /// The lines it prints; it must succeed.
    async fn lines(&self, arguments: &[&str]) -> Vec<String> {
        let ended = run(self.command(arguments), self.token).await;
        assert_eq!(
            (ended.code, ended.errors.as_str()),
            (Some(0), ""),
            "{arguments:?}"
        );
        ended.lines
    }

    /// The start of its message; the server must refuse.
    async fn refused(&self, arguments: &[&str]) -> String {
        let ended = run(self.command(arguments), self.token).await;
        assert_eq!(ended.code, Some(3), "{arguments:?}: {}", ended.errors);
        let start = ended.errors.split(':').next();
        start.unwrap().to_owned()
    }
}

const MODEL: &str = "sentence-transformers/all-MiniLM-L6-v2";

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_knows_the_documentation_alone_syncs_and_polls() {
    let scenario = scenario().await;
    let service = scenario.deployment.start_role("api");
    let (token, database) = (scenario.admin.as_str(), scenario.database());
    let caller = RestCaller {
        service: &service,
        token,
    };
    let place = [
        "--database",
        &database,
        "--model",
        MODEL,
        "--collection",
        "target",
    ];
    let sync = |repository| caller.command(&[&["sync", repository], &place[..]].concat());
    let mut program = Program::start(sync("owner/name"), token);
    let (source, invocation) = (program.line().await, program.line().await);
    let (source, id) = (after("source", &source), after("invocation", &invocation));
    assert_eq!(program.line().await, "pending");
    let pending = ["invocations", "--source", source, "--status", "pending"];
    assert_eq!(caller.lines(&pending).await, [format!("{id} target pending")]);
    let _worker = scenario.deployment.start_role("worker");
    let ended = program.end().await;
    assert_eq!(ended.code, Some(0), "{}", ended.errors);
    let last = ended.lines.last().unwrap();
    let (duration, finished_at) = after("complete duration_ms=", last)
        .split_once(" finished_at=20")
        .unwrap();
    assert!(
        duration.parse::<u64>().unwrap() > 0 && finished_at.ends_with('Z'),
        "{last}"
    );
    // Polling may miss the short state, and sees nothing else.
    let between = &ended.lines[..ended.lines.len() - 1];
    assert!(between.is_empty() || between == ["processing"], "{between:?}");
    assert_eq!(caller.lines(&pending).await, [""; 0]);

    // The collection is finished now.
    let refused = run(sync("owner/missing"), token).await;
    assert_eq!(refused.code, Some(3));
    assert!(
        refused.errors.starts_with("409 AlreadyExistsError: "),
        "{}",
        refused.errors
    );
    let listed = caller.lines(&["sources", "--database", &database]).await;
    let missing = listed[0].split(' ').next().unwrap();
    assert_eq!(
        listed,
        [
            format!("{missing} {database} owner/missing"),
            format!("{source} {database} owner/name"),
        ]
    );
    // A status that is an object with the failure.
    let other = run(
        caller.command(&[&["sync", "owner/other"], &place[..4], &["--collection", "other"]].concat()),
        token,
    )
    .await;
    assert_eq!(other.code, Some(1), "{}", other.errors);
    let last = other.lines.last().unwrap();
    assert!(
        last.starts_with("failed error=") && last.contains("owner/other"),
        "{last}"
    );

    let of_repository = ["sources", "--database", &database, "--repository", "owner/name"];
    assert_eq!(
        caller.lines(&of_repository).await,
        [format!("{source} {database} owner/name")]
    );
    let oldest = ["sources", "--database", &database, "--order-by", "ASC"];
    let repositories = async |page: &[&str]| -> Vec<String> {
        let lines = caller.lines(&[&oldest[..], page].concat()).await;
        let last = |line: &String| line.rsplit(' ').next().unwrap().to_owned();
        lines.iter().map(last).collect()
    };
    assert_eq!(
        repositories(&[]).await,
        ["owner/name", "owner/missing", "owner/other"]
    );
    assert_eq!(
        repositories(&["--limit", "1", "--offset", "1"]).await,
        ["owner/missing"]
    );
    let latest = ["latest", source, "README.md", "b"];
    assert_eq!(
        caller.lines(&latest).await,
        ["README.md never synced", "b never synced"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_knows_the_documentation_alone_meets_each_status() {
    let scenario = scenario().await;
    // No worker runs, so what is created stays pending.
    let service = scenario.deployment.start_role("api");
    let source = scenario.create_source(&service, "owner/name").await;
    let caller = |token| RestCaller {
        service: &service,
        token,
    };
    let admin = caller(&scenario.admin);
    let database = scenario.database();
    let create = ["start", &source, "--collection", "target"];

    let id = admin.lines(&create).await.remove(0);
    assert_eq!(admin.refused(&create).await, "409 AlreadyExistsError");
    assert_eq!(admin.lines(&["cancel", &id]).await, ["cancelled"]);
    let cancelled = ["invocations", "--source", &source, "--status", "cancelled"];
    assert_eq!(admin.lines(&cancelled).await, [format!("{id} target cancelled")]);
    assert_eq!(
        admin.refused(&["cancel", &id]).await,
        "412 FailedPreconditionError"
    );

    let short = ["start", &source, "--collection", "a"];
    assert_eq!(admin.refused(&short).await, "400 InvalidArgumentError");
    let twice = [
        "sync",
        "owner/name",
        "--database",
        &database,
        "--model",
        MODEL,
        "--collection",
        "b12",
    ];
    assert_eq!(admin.refused(&twice).await, "409 AlreadyExistsError");
    assert_eq!(
        caller("cs-unknown").refused(&cancelled).await,
        "401 UnauthenticatedError"
    );
    let member = scenario.deployment.create_key(&["--role", "member"]);
    let delete = ["delete", source.as_str()];
    assert_eq!(
        caller(&member).refused(&delete).await,
        "403 PermissionDeniedError"
    );
    assert_eq!(admin.lines(&delete).await, ["deleted"]);
    assert_eq!(admin.refused(&delete).await, "404 NotFoundError");
    assert_eq!(admin.refused(&create).await, "404 NotFoundError");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_web_client_in_node_resumes_its_watch_and_decodes_errors() {
    let scenario = scenario().await;
    let service = scenario.deployment.start_role("api");
    let source = scenario.create_source(&service, "owner/name").await;
    let gate = Gate::start(&service.url).await;
    let command = |collection| web_command(&[&gate.url(), &source, collection]);
    let refused = run(command("a"), &scenario.admin).await;
    assert_eq!(refused.code, Some(3));
    let problem: Value = serde_json::from_str(&refused.errors).unwrap();
    assert_eq!(
        (&problem["code"], &problem["reason"]),
        (&json!("InvalidArgument"), &json!("INVALID_FIELD"))
    );
    assert_eq!(problem["violations"][0]["field"], "target_collection_name");
    assert_eq!(problem["violations"].as_array().unwrap().len(), 1);

    let mut client = Program::start(command("target"), &scenario.admin);
    let first: Value = serde_json::from_str(&client.line().await).unwrap();
    assert_eq!(
        first,
        json!({
            "kind": "snapshot", "revision": 1, "state": "pending", "phase": "queued", "documents": 0, "settled": 0
        })
    );
    gate.close();
    let _worker = scenario.deployment.start_role("worker");
    let request = proto::ListInvocationsRequest::default();
    let mut invocations = service.invocations(&scenario.admin);
    let listed = invocations.list_invocations(request).await.unwrap().into_inner();
    assert_eq!(listed.invocations.len(), 1);
    wait_for_end(&scenario, &service, &listed.invocations[0].id).await;
    gate.open();
    let ended = client.end().await;
    assert_eq!((ended.code, ended.errors.as_str()), (Some(0), ""));
    let messages: Vec<Value> = ended
        .lines
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let seen: Vec<_> = messages
        .iter()
        .filter(|message| message["kind"] == "state_changed")
        .map(|message| (message["revision"].as_i64(), message["state"].as_str()))
        .collect();
    assert_eq!(seen, [(Some(2), Some("processing")), (Some(3), Some("complete"))]);
    let last = messages.last().unwrap();
    assert_eq!(
        (&last["phase"], &last["documents"], &last["settled"]),
        (&json!("done"), &json!(3), &json!(3))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_lists_sources_and_follows_an_invocation_live() {
    let scenario = scenario().await;
    let service = scenario.deployment.start_role("api");
    let source = scenario.create_source(&service, "owner/name").await;
    let files = serve_files(web_bundle()).await;
    let mut page = Page::open(&format!("{files}/index.html")).await;

    page.fill("[name=address]", &service.url).await;
    page.fill("[name=token]", "cs-unknown").await;
    page.click("#server button").await;
    page.wait_until("document.querySelector('#problem').hidden", &json!(false))
        .await;
    assert_eq!(
        page.texts("#problem h2 > *").await,
        ["TOKEN_INVALID", "Unauthenticated"]
    );

    page.fill("[name=token]", &scenario.admin).await;
    page.click("#server button").await;
    page.wait_until("document.querySelector('#sources').hidden", &json!(false))
        .await;
    assert_eq!(page.texts("#problem[hidden]").await.len(), 1);
    let row = page.texts("#source-rows td").await;
    assert_eq!(row[..4], ["", "owner/name", &scenario.database(), MODEL]);
    let chosen = page.evaluate("new FormData(document.querySelector('#create')).get('source')");
    assert_eq!(chosen.await, json!(source));

    page.fill("[name=collection]", "a").await;
    page.click("#create button").await;
    page.wait_until("document.querySelector('#problem').hidden", &json!(false))
        .await;
    assert_eq!(
        page.texts("#problem h2 > *").await,
        ["INVALID_FIELD", "InvalidArgument"]
    );
    assert_eq!(
        page.texts("#problem-violations code").await,
        ["target_collection_name"]
    );

    page.fill("[name=collection]", "target").await;
    page.fill("[name=branch]", "main").await;
    page.click("#create button").await;
    let history =
        "[...document.querySelectorAll('#history li')].map((item) => item.firstChild.data).join(' ')";
    page.wait_until(history, &json!("pending")).await;
    assert_eq!(page.texts("#state, #phase").await, ["pending", "queued"]);
    assert_eq!(page.texts("#problem[hidden]").await.len(), 1);

    // The stream is open: what happens from now on is shown without another request.
    let _worker = scenario.deployment.start_role("worker");
    page.wait_until(history, &json!("pending processing complete"))
        .await;
    assert_eq!(page.texts("#state, #phase").await, ["complete", "done"]);
    let revisions = "[...document.querySelectorAll('#history li')].map((item) => item.dataset.revision)";
    assert_eq!(page.evaluate(revisions).await, json!(["1", "2", "3"]));
    let counts =
        "Object.fromEntries([...document.querySelectorAll('dd')].map((e) => [e.dataset.count, e.innerText]))";
    assert_eq!(
        page.evaluate(counts).await,
        json!({"discovered": "3", "indexed": "2", "unchanged": "0", "skipped": "1", "failed": "0", "chunks": "2"})
    );
    let progress = "document.querySelector('progress').value / document.querySelector('progress').max";
    assert_eq!(page.evaluate(progress).await, json!(1));
    assert_eq!(page.texts("#failure[hidden]").await.len(), 1);
    assert_eq!(scenario.chroma.records("target").await.len(), 2);
}
