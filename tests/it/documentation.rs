//! The commands of README.md and docs/api.md, run as they stand against the running service.
//!
//! Only what differs from machine to machine is put in: the address and the token.

use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{
    examples::{Ended, Program, path_with_peers, python, python_stubs, web_bundle},
    git_server::{Change, Repository},
    scenario::Scenario,
    service::{Service, project_file},
    stores::Backend,
};

/// Has Python's `print` write JSON, so that the values can be compared.
const PRINT_JSON: &str = r#"
import builtins, json
from google.protobuf import json_format

def print(value):
    if hasattr(value, "DESCRIPTOR"):
        value = json_format.MessageToDict(value, preserving_proto_field_name=True)
    builtins.print(json.dumps(value))
"#;

/// The content of the fenced blocks of this language, in order.
pub fn blocks(page: &str, language: &str) -> Vec<String> {
    let text = std::fs::read_to_string(project_file(page)).unwrap();
    let opening = format!("```{language}\n");
    text.split(&opening)
        .skip(1)
        .map(|rest| rest.split_once("\n```").unwrap().0.to_owned())
        .collect()
}

/// A scenario with the repository that the documentation syncs.
async fn scenario() -> Scenario {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let files = [
        Change::file("README.md", "# Chroma\n\nA search engine.\n"),
        Change::file(
            "docs/wal.md",
            "# Write-ahead log\n\nThe write-ahead log is compacted here.\n",
        ),
        Change::file("src/lib.rs", "pub fn one() -> u32 {\n    1\n}\n"),
    ];
    Repository::create(&scenario.repositories(), "chroma-core/chroma").commit("main", &files);
    scenario
}

/// Puts this machine's address and token into a script.
pub fn fit(script: &str, service: &Service, token: &str) -> String {
    let address = service.url.replace("http://", "");
    script
        .replace("127.0.0.1:50051", &address)
        .replace("localhost:50051", &address)
        .replace("=cs-...", &format!("={token}"))
}

/// Runs a script with the programs of the peers and of the project; it must succeed.
pub async fn shell(scenario: &Scenario, service: &Service, script: &str) -> String {
    let mut command = Command::new("bash");
    command
        .args(["-euo", "pipefail", "-c"])
        .arg(fit(script, service, &scenario.admin))
        .env("PATH", path_with_peers())
        .envs(scenario.deployment.environment())
        .env("CHROMA_SYNC_SERVER", &service.url);
    output(command, &scenario.admin).await
}

pub async fn output(command: Command, token: &str) -> String {
    let Ended { code, lines, errors } = Program::start(command, token).end().await;
    assert_eq!(code, Some(0), "{errors}\n{lines:#?}");
    lines.join("\n")
}

/// The JSON values that a script printed, one after the other.
pub fn values(output: &str) -> Vec<Value> {
    let values = serde_json::Deserializer::from_str(output).into_iter();
    values
        .map(|value| value.unwrap_or_else(|error| panic!("{error}: {output}")))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_the_readme_do_what_it_says() {
    let scenario = scenario().await;
    let service = scenario.deployment.start();
    let script = |word: &str| {
        let found: Vec<String> = blocks("README.md", "sh")
            .into_iter()
            .filter(|block| block.contains(word))
            .collect();
        assert!(!found.is_empty(), "{word}");
        found.join("\n")
    };
    let lines = shell(&scenario, &service, &script("chroma-sync sync ")).await;
    assert!(lines.contains("complete"), "{lines}");
    assert!(lines.contains("docs/wal.md:1-3"), "{lines}");

    // The REST calls, and the watch by gRPC of what they made.
    let printed = values(&shell(&scenario, &service, &script("curl")).await);
    let (got, messages) = printed.split_first().unwrap();
    assert_eq!(got["metadata"]["database_name"], "default_database");
    assert_eq!(got["metadata"]["collection_name"], "chroma-docs");
    assert_eq!(
        got["metadata"]["github"]["git_ref_identifier"],
        json!({"branch": "main"})
    );
    let last = &messages.last().unwrap()["invocation"];
    assert_eq!(
        (&last["id"], &last["state"]),
        (&got["id"], &json!("STATE_COMPLETE"))
    );
    assert_eq!(last["statistics"]["documentsIndexed"], "2");

    let [script] = &blocks("README.md", "python")[..] else {
        panic!("README.md has one block of Python")
    };
    let port = scenario.chroma.url().rsplit(':').next().unwrap();
    let script = script.replace("HttpClient()", &format!("HttpClient(port={port})"));
    let mut command = python();
    command
        .args(["-c", &format!("{PRINT_JSON}\n{script}")])
        .env("ANONYMIZED_TELEMETRY", "False");
    let found = &values(&output(command, &scenario.admin).await)[0];
    assert_eq!(found["documents"], json!(["# Chroma\n\nA search engine.\n"]));
    assert_eq!(found["metadatas"][0]["document_key"], "README.md");
}

/// What the REST calls of docs/api.md print, up to the cancellation, whatever the language.
fn check_rest(printed: &[Value], database: &str) {
    let [source, sources, invocation, invocations, latest, cancelled] = &printed[..6] else {
        panic!("{printed:#?}")
    };
    assert_eq!(source["database_name"], database);
    assert_eq!(source["github"]["repository"], "chroma-core/chroma");
    assert_eq!(*sources, json!([source]));
    assert_eq!(invocation["source_id"], source["id"]);
    assert_eq!(invocation["status"], "pending");
    assert_eq!(invocation["metadata"]["collection_name"], "chroma-main");
    assert_eq!(*invocations, json!([invocation]));
    assert_eq!((latest, cancelled), (&json!({}), &json!({})));
}

/// What the RPCs of docs/api.md print, with field names as `name` writes them.
fn check_rpcs(printed: &[Value], database: &str, name: impl Fn(&str) -> String) {
    let [
        source,
        sources,
        invocation,
        invocations,
        latest,
        cancelled,
        message,
        documents,
        deleted,
    ] = printed
    else {
        panic!("{printed:#?}")
    };
    assert_eq!(source[name("database_name")], database);
    assert_eq!(*sources, json!({"sources": [source]}));
    assert_eq!(invocation[name("source_id")], source["id"]);
    assert_eq!(invocation["state"], "STATE_PENDING");
    assert_eq!(invocation["github"], json!({"branch": "main"}));
    assert_eq!(*invocations, json!({"invocations": [invocation]}));
    assert_eq!(
        (&cancelled["id"], &cancelled["state"]),
        (&invocation["id"], &json!("STATE_CANCELLED"))
    );
    assert_eq!(
        (&message["kind"], &message["revision"]),
        (&json!("KIND_SNAPSHOT"), &json!("2"))
    );
    assert_eq!(message["invocation"], *cancelled);
    assert_eq!((latest, documents, deleted), (&json!({}), &json!({}), &json!({})));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_calls_of_the_api_page_answer_as_it_says() {
    let scenario = scenario().await;
    // No worker runs, so what is created stays pending and can be cancelled.
    let service = scenario.deployment.start_role("api");
    let database = scenario.database();
    let script = blocks("docs/api.md", "sh").join("\n");
    let script = script.replace("default_database", &database);
    let printed = values(&shell(&scenario, &service, &script).await);
    check_rest(&printed[..6], &database);
    assert_eq!(
        printed[6],
        json!({"status": "ok"}),
        "health, after an empty answer"
    );
    let camel_case = |name: &str| name.replace("_n", "N").replace("_i", "I");
    check_rpcs(&printed[7..], &database, camel_case);

    let script = blocks("docs/api.md", "python").join("\n\n");
    let script = fit(&script, &service, &scenario.admin).replace("default_database", &database);
    let mut command = python();
    command
        .args(["-c", &format!("{PRINT_JSON}\n{script}")])
        .env("PYTHONPATH", python_stubs());
    let printed = values(&output(command, &scenario.admin).await);
    check_rest(&printed[..6], &database);
    assert_eq!(printed[6], Value::Null, "a deletion has no body");
    check_rpcs(&printed[7..], &database, str::to_owned);
}

/// Takes the values of `id` and `state` that a program prints on each line.
async fn next_line(program: &mut Program) -> (u64, String) {
    loop {
        let line = program.line().await;
        if line.is_empty() {
            continue;
        }
        let value: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        return (
            value["revision"].as_u64().unwrap(),
            value["status"].as_str().unwrap().to_ascii_lowercase(),
        );
    }
}

/// The loop of the page in Python, printing one line a state.
fn python_loop(service: &Service, call: &str) -> Command {
    let functions = &blocks("docs/api.md", "python")[..2].join("\n\n");
    let address = service.url.replace("http://", "");
    let script = format!(
        r#"{functions}
import json, os
from chromasync.v1.invocation_service_pb2_grpc import InvocationServiceStub

stub = InvocationServiceStub(grpc.insecure_channel("{address}"))
metadata = [("x-chroma-token", os.environ["CHROMA_SYNC_TOKEN"])]
for message in {call}:
    state = Invocation.State.Name(message.invocation.state).removeprefix("STATE_")
    print(json.dumps({{"revision": message.invocation.revision, "status": state}}), flush=True)
"#
    );
    let mut command = python();
    command.args(["-c", &script]).env("PYTHONPATH", python_stubs());
    command
}

/// The loop of the page in TypeScript, the same.
fn typescript_loop(service: &Service, id: &str) -> Command {
    let dist = web_bundle();
    let [function] = &blocks("docs/api.md", "ts")[..] else {
        panic!("docs/api.md has one block of TypeScript")
    };
    let function = function.replace("./generated/", "../src/generated/");
    let program = format!(
        r#"{function}
import {{ connect }} from "../src/client";
import {{ Invocation_State }} from "../src/generated/chromasync/v1/invocation_pb";

const {{ invocations }} = connect("{}", process.env["CHROMA_SYNC_TOKEN"] ?? "");
for await (const {{ revision, invocation }} of watch(invocations, "{id}")) {{
  const status = Invocation_State[invocation!.state];
  console.log(JSON.stringify({{ revision: Number(revision), status }}));
}}
"#,
        service.url
    );
    let (source, bundle) = (dist.join("documented.ts"), dist.join("documented.mjs"));
    std::fs::write(&source, program).unwrap();
    let bundled = Command::new(dist.join("../node_modules/.bin/esbuild"))
        .arg(&source)
        .args([
            "--bundle",
            "--platform=node",
            "--format=esm",
            "--log-level=warning",
        ])
        .arg(format!("--outfile={}", bundle.display()))
        .status()
        .unwrap();
    assert!(bundled.success());
    let mut command = Command::new("node");
    command.arg(bundle);
    command
}

/// The loop of the page in a shell; it prints what the events have.
fn shell_loop(service: &Service, id: &str) -> Command {
    let blocks = blocks("docs/api.md", "sh");
    let function = blocks
        .iter()
        .find(|block| block.contains("watch_events()"))
        .unwrap();
    let flat = "import json, sys\nfor line in sys.stdin:\n    event = json.loads(line)\n    \
        status = event['invocation']['status']\n    \
        print(json.dumps({'revision': event['revision'], 'status': status}), flush=True)";
    let mut command = Command::new("bash");
    command
        .args(["-euo", "pipefail", "-c"])
        .arg(format!(
            "{}\nwatch_events {id} | python3 -c \"$0\"",
            fit(function, service, "")
        ))
        .arg(flat);
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn the_loops_of_the_api_page_follow_over_a_restart() {
    let mut scenario = scenario().await;
    scenario.deployment = scenario.deployment.on_one_port();
    let service = scenario.deployment.start_role("api");
    let source = scenario.create_source(&service, "chroma-core/chroma").await;
    let created = scenario
        .create_invocation(&service, &source, "target")
        .await
        .unwrap();
    let python_watch = python_loop(&service, &format!("watch(stub, {:?}, metadata)", created.id));
    let commands = [
        python_watch,
        typescript_loop(&service, &created.id),
        shell_loop(&service, &created.id),
    ];
    let mut programs = commands.map(|command| Program::start(command, &scenario.admin));
    for program in &mut programs {
        assert_eq!(next_line(program).await, (1, "pending".to_owned()));
    }
    let all = python_loop(&service, "watch_all(stub, metadata, include_live=True)");
    let mut all = Program::start(all, &scenario.admin);
    assert_eq!(next_line(&mut all).await, (1, "pending".to_owned()));

    service.terminate();
    service.wait();
    let service = scenario.deployment.start_role("api");
    scenario.cancel(&service, &created.id).await;
    for mut program in programs {
        assert_eq!(next_line(&mut program).await, (2, "cancelled".to_owned()));
        let Ended { code, lines, errors } = program.end().await;
        assert_eq!((code, lines), (Some(0), Vec::new()), "{errors}");
    }
    assert_eq!(next_line(&mut all).await, (2, "cancelled".to_owned()));
}
