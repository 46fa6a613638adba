//! `chroma-sync watch` and `sync`, as a person and as a script run them.

use std::process::Stdio;

use chroma_sync::proto::WatchInvocationsRequest;
use serde_json::{Value, json};
use tokio::{
    io::AsyncReadExt,
    process::{Child, ChildStdout, Command},
};

use crate::harness::{
    git_server::{Change, Repository},
    scenario::Scenario,
    service::Service,
    stores::Backend,
};

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_follows_to_the_end_and_its_exit_code_says_which() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let repository = Repository::create(&scenario.repositories(), "owner/name");
    repository.commit("main", &[Change::file("a.txt", "a\n")]);
    let service = scenario.deployment.start();
    let database = scenario.database();
    let sync = |collection: &str, repository: &str| {
        let arguments = [
            "sync",
            repository,
            "--collection",
            collection,
            "--database",
            &database,
        ];
        scenario
            .deployment
            .run_against(&service, &scenario.admin, &arguments)
    };
    let (code, output) = sync("target", "owner/name");
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains("documents 1/1 (indexed 1,"), "{output}");
    let id = output
        .lines()
        .find_map(|line| line.strip_prefix("invocation "))
        .unwrap();
    let watch = ["watch", id, "--json"];
    let (code, output) = scenario.deployment.run_against(&service, &scenario.admin, &watch);
    let message: serde_json::Value = serde_json::from_str(&output).unwrap();
    assert_eq!(
        (code, &message["state"]),
        (Some(0), &serde_json::json!("complete"))
    );
    let (code, output) = sync("other", "owner/missing");
    assert_eq!(code, Some(2), "{output}");
    assert!(output.contains("REPOSITORY_NOT_FOUND"), "{output}");
}

/// A command line that runs beside the test.
struct Running {
    process: Child,
    output: ChildStdout,
    text: String,
}

impl Running {
    fn start(mut command: std::process::Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = Command::from(command).kill_on_drop(true).spawn().unwrap();
        Self {
            output: process.stdout.take().unwrap(),
            process,
            text: String::new(),
        }
    }

    fn watch(scenario: &Scenario, service: &Service, arguments: &[&str]) -> Self {
        let arguments = [&["watch"], arguments].concat();
        Self::start(
            scenario
                .deployment
                .client_command(&service.url, &scenario.admin, &arguments),
        )
    }

    /// Waits until it has printed `text`.
    async fn prints(&mut self, text: &str) {
        let mut bytes = [0; 4_096];
        while !self.text.contains(text) {
            let read = self.output.read(&mut bytes).await.unwrap();
            assert!(read > 0, "ended without {text:?}: {:?}", self.text);
            self.text.push_str(&String::from_utf8_lossy(&bytes[..read]));
        }
    }

    /// Waits for its end; returns exit code and standard output.
    async fn ends(mut self) -> (Option<i32>, String) {
        self.output.read_to_string(&mut self.text).await.unwrap();
        (self.process.wait().await.unwrap().code(), self.text)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_invocations_of_a_source_are_followed_until_none_is_live() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let service = scenario.deployment.start_role("api");
    let source = scenario.create_source(&service, "owner/name").await;
    let arguments = ["--source", &source, "--until-idle"];
    let quiet = Running::watch(&scenario, &service, &arguments).ends().await;
    assert_eq!(quiet, (Some(0), String::new()), "nothing is live");

    let one = scenario
        .create_invocation(&service, &source, "one")
        .await
        .unwrap()
        .id;
    let two = scenario
        .create_invocation(&service, &source, "two")
        .await
        .unwrap()
        .id;
    let with_json = [&arguments[..], &["--json"]].concat();
    let mut lines = Running::watch(&scenario, &service, &arguments);
    let mut objects = Running::watch(&scenario, &service, &with_json);
    lines.prints(&two).await;
    objects.prints(&two).await;
    scenario.cancel(&service, &one).await;
    scenario.cancel(&service, &two).await;
    let (lines, objects) = (lines.ends().await, objects.ends().await);
    assert_eq!((lines.0, objects.0), (Some(3), Some(3)));
    let first_words: Vec<Vec<&str>> = lines
        .1
        .lines()
        .map(|line| line.split_whitespace().take(5).collect())
        .collect();
    assert_eq!(
        first_words,
        [
            [one.as_str(), "snapshot", "rev", "1", "pending"],
            [two.as_str(), "snapshot", "rev", "1", "pending"],
            [one.as_str(), "state", "rev", "2", "cancelled"],
            [two.as_str(), "state", "rev", "2", "cancelled"],
        ]
    );
    let objects: Vec<Value> = objects
        .1
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let told: Vec<Value> = objects
        .iter()
        .map(|object| {
            json!([
                object["invocation_id"],
                object["kind"],
                object["state"],
                object["revision"]
            ])
        })
        .collect();
    assert_eq!(
        told,
        [
            json!([one, "snapshot", "pending", 1]),
            json!([two, "snapshot", "pending", 1]),
            json!([one, "state_changed", "cancelled", 2]),
            json!([two, "state_changed", "cancelled", 2]),
        ]
    );
    let resume_token = objects[2]["resume_token"].as_str().unwrap().to_owned();
    let request = WatchInvocationsRequest {
        resume_token,
        ..Default::default()
    };
    let mut resumed = scenario.watch_many(&service, request).await.unwrap();
    let mut next = async || {
        resumed
            .message()
            .await
            .unwrap()
            .unwrap()
            .invocation
            .map(|it| it.id)
    };
    assert_eq!((next().await, next().await), (None, Some(two)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_goes_on_over_a_restart_of_the_server() {
    let mut scenario = Scenario::new(Backend::Sqlite).await;
    scenario.deployment = scenario.deployment.on_one_port();
    let service = scenario.deployment.start_role("api");
    let (_, created) = scenario.pending_invocation(&service).await;
    let mut watching = Running::watch(&scenario, &service, &[&created.id]);
    watching.prints("snapshot").await;
    service.terminate();
    let restarted = scenario.deployment.start_role("api");
    scenario.cancel(&restarted, &created.id).await;
    let (code, output) = watching.ends().await;
    assert_eq!(code, Some(3), "{output}");
    let states: Vec<&str> = output
        .lines()
        .map(|line| line.split_whitespace().nth(3).unwrap())
        .collect();
    assert_eq!(states, ["pending", "cancelled"], "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_shows_a_bar_and_then_the_end() {
    let scenario = Scenario::new(Backend::Sqlite).await;
    let repository = Repository::create(&scenario.repositories(), "owner/name");
    repository.commit("main", &[Change::file("a.txt", "a\n")]);
    let service = scenario.deployment.start_role("api");
    let (source, created) = scenario.pending_invocation(&service).await;
    let by_id = format!("watch {}", created.id);
    let by_source = format!("watch --source {source} --until-idle");
    let mut shown = [by_id, by_source].map(|arguments| {
        // util-linux' `script` runs a command in a terminal of its own.
        let mut command = std::process::Command::new("script");
        command
            .args(["--quiet", "--return", "--command"])
            .arg(format!("{} {arguments}", env!("CARGO_BIN_EXE_chroma-sync")))
            .arg("/dev/null")
            .env("CHROMA_SYNC_SERVER", &service.url)
            .env("CHROMA_SYNC_TOKEN", &scenario.admin);
        Running::start(command)
    });
    for shown in &mut shown {
        shown.prints("0/0 documents").await;
    }
    let _worker = scenario.deployment.start_role("worker");
    for shown in shown {
        let (code, text) = shown.ends().await;
        assert_eq!(code, Some(0), "{text:?}");
        let end = format!("{} ended     rev 3 complete", created.id);
        assert!(text.contains(&end), "{text:?}");
    }
}
