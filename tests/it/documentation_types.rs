//! The bodies and commands of docs/api.md for buckets, sites and files, sent and run as they stand.

use std::fs;

use serde_json::{Value, json};

use crate::{
    documentation::{blocks, output, shell},
    harness::{
        corpus::document,
        examples::{python, python_stubs},
        git_server::{Change, Repository},
        rest::RestClient,
        scenario::Scenario,
        stores::Backend,
    },
};

/// Types of sources that a body creates.
const KINDS: [&str; 3] = ["github", "s3", "web_scrape"];

/// The bodies of the page that create a source, for `database`.
fn source_bodies(database: &str) -> Vec<Value> {
    blocks("docs/api.md", "json")
        .iter()
        .filter_map(|block| serde_json::from_str::<Value>(block).ok())
        .filter(|body| body.get("id").is_none() && KINDS.iter().any(|kind| body.get(kind).is_some()))
        .map(|mut body| {
            body["database_name"] = json!(database);
            body
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bodies_of_the_api_page_are_taken() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    Repository::create(&scenario.repositories(), "chroma-core/chroma")
        .commit("main", &[Change::file("README.md", "# Chroma\n")]);
    let service = scenario.deployment.start_role("api");
    let rest = RestClient::new(&service, &scenario.admin);

    let mut sources = Vec::new();
    for body in source_bodies(&scenario.database()) {
        let (status, created) = rest.post("/api/v1/sources", &body).await;
        assert_eq!(status, 201, "{body}: {created}");
        let id = created["source_id"].as_str().unwrap();
        let (_, source) = rest.get(&format!("/api/v1/sources/{id}")).await;
        for kind in KINDS {
            let Some(asked) = body.get(kind) else { continue };
            for (name, value) in asked.as_object().unwrap() {
                if !name.starts_with("aws_") {
                    assert_eq!(&source[kind][name], value, "{source}");
                }
            }
            sources.push((kind, id.to_owned()));
        }
    }
    let kinds: Vec<&str> = sources.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, KINDS);

    let bodies = blocks("docs/api.md", "json")
        .into_iter()
        .find(|block| block.contains("\"sync_prefix\": true}\n"))
        .unwrap();
    let kinds = ["github", "s3", "s3", "web_scrape"];
    let bodies: Vec<&str> = bodies.lines().collect();
    assert_eq!(bodies.len(), kinds.len());
    for (kind, body) in kinds.into_iter().zip(bodies) {
        let (_, id) = sources.iter().find(|(of, _)| *of == kind).unwrap();
        let path = format!("/api/v1/sources/{id}/invocations");
        let (status, created) = rest.post(&path, &serde_json::from_str(body).unwrap()).await;
        assert_eq!(status, 201, "{body}: {created}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_uploads_of_the_api_page_become_records() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start();
    let directory = tempfile::tempdir().unwrap();
    fs::copy(document("report.pdf"), directory.path().join("report.pdf")).unwrap();
    let inside = |script: &str| format!("cd {}\n{script}", directory.path().display());
    let [by_curl, by_command] = &blocks("docs/api.md", "bash")[..] else {
        panic!("docs/api.md has two blocks of bash")
    };
    let printed = shell(&scenario, &service, &inside(by_curl)).await;
    let created: Value = serde_json::from_str(&printed).unwrap();
    let id = created["invocation_id"].as_str().unwrap();
    let messages = scenario.watch(&service, id).await;
    let ended = messages.last().unwrap().invocation.clone().unwrap();
    assert_eq!(
        ended.state(),
        chroma_sync::proto::invocation::State::Complete,
        "{ended:?}"
    );

    let printed = shell(&scenario, &service, &inside(by_command)).await;
    assert!(printed.contains("complete"), "{printed}");

    let [function] = &blocks("docs/api.md", "text")[..] else {
        panic!("docs/api.md has one block of text")
    };
    let address = service.url.replace("http://", "");
    let script = format!(
        r#"
import os, pathlib, grpc
from chromasync.v1.file_service_pb2 import AddFileRequest, FileMetadata
from chromasync.v1.file_service_pb2_grpc import FileServiceStub

{function}

stub = FileServiceStub(grpc.insecure_channel("{address}"))
metadata = [("x-chroma-token", os.environ["CHROMA_SYNC_TOKEN"])]
print(upload(stub, pathlib.Path("report.pdf"), "default_database", "reports", metadata).id)
"#
    );
    let mut command = python();
    command
        .args(["-c", &script])
        .current_dir(directory.path())
        .env("PYTHONPATH", python_stubs());
    let id = output(command, &scenario.admin).await;
    let messages = scenario.watch(&service, id.trim()).await;
    let ended = messages.last().unwrap().invocation.clone().unwrap();
    assert_eq!(
        ended.state(),
        chroma_sync::proto::invocation::State::Complete,
        "{ended:?}"
    );
    assert_eq!(
        (ended.database_name.as_str(), ended.collection_name.as_str()),
        ("default_database", "reports")
    );
}
