//! A whole sync beside the script that a user would otherwise write (`benches/python_script/sync.py`): the same
//! repository, weights and Chroma server, one after the other in one run; a first sync and one after 1 % of the files
//! changed, which the script can only do anew.
//!
//! `make bench-whole` provides the Python packages and runs it; `WHOLE_SYNC_FILES` sets how many files the repository
//! has (1,000), `WHOLE_SYNC_REPOSITORY` names a bare repository with a branch `main` instead, and then there is no
//! second commit. Figures are in `benches/README.md`.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)]

#[path = "../../tests/it/harness/mod.rs"]
#[allow(dead_code, unused_imports, unused_macros)]
mod harness;
mod measure;
mod repository;

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use chroma_sync::proto::{github_input::Reference, invocation::State};
use harness::{
    git_server::Repository,
    models_directory,
    scenario::{Scenario, invocation_request},
    service::project_file,
    stores::Backend,
};
use measure::{Cost, Meter};

/// Files of the repository, unless `WHOLE_SYNC_FILES` says otherwise.
const FILES: usize = 1_000;

fn main() {
    tokio::runtime::Runtime::new().unwrap().block_on(run());
}

async fn run() {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap();
    println!("load of the machine before: {}", load.trim());
    let mut scenario = Scenario::new(Backend::Sqlite).await;
    scenario.deployment = scenario
        .deployment
        .with("embedding.threads", "0")
        .with("log.filter", "warn");
    let branches = prepare(&scenario.repositories());
    let script = Script::prepare(&scenario);
    let service = scenario.deployment.start();
    let source = scenario.create_source(&service, "owner/name").await;
    println!(
        "\n{:<30} {:>8} {:>9} {:>9} {:>8} {:>8}  stages",
        "", "wall s", "CPU s", "Chroma s", "peak MB", "records"
    );
    for branch in &branches {
        let reference = Some(Reference::Branch((*branch).to_owned()));
        let request = invocation_request(&source, &format!("service-{branch}"), reference);
        let meter = Meter::start(Some(service.process_id()));
        let mut invocations = service.invocations(&scenario.admin);
        let created = invocations.create_invocation(request).await.unwrap().into_inner();
        let messages = scenario.watch(&service, &created.id).await;
        let cost = meter.stop();
        let ended = messages.last().unwrap().invocation.clone().unwrap();
        assert_eq!(ended.state(), State::Complete, "{:?}", ended.failure);
        let counts = ended.statistics.unwrap();
        let stages = measure::profile(&counts);
        let ours = print(
            &format!("chroma-sync, {branch}"),
            cost,
            counts.chunks_indexed,
            &stages,
        );

        let meter = Meter::start(None);
        let answer = script.run(branch);
        let cost = Cost {
            peak_megabytes: answer["peak_megabytes"].as_f64().unwrap(),
            ..meter.stop()
        };
        let stages = ["load", "fetch", "split", "embed", "store"]
            .map(|stage| format!("{stage} {:.1} s", answer["seconds"][stage].as_f64().unwrap()))
            .join(", ");
        let records = answer["records"].as_i64().unwrap();
        let theirs = print(&format!("the script, {branch}"), cost, records, &stages);
        println!(
            "{:<30} {:>8.2} {:>9.2} {:>9.2} {:>8.2}",
            "  the script's of ours",
            theirs.seconds / ours.seconds,
            theirs.program / ours.program,
            theirs.chroma / ours.chroma,
            theirs.peak_megabytes / ours.peak_megabytes,
        );
    }
}

fn print(name: &str, cost: Cost, records: i64, stages: &str) -> Cost {
    println!(
        "{name:<30} {:>8.2} {:>9.2} {:>9.2} {:>8.0} {records:>8}  {stages}",
        cost.seconds, cost.program, cost.chroma, cost.peak_megabytes,
    );
    cost
}

/// Makes the repository `owner/name`, or links the one that is named; returns the branches to sync.
fn prepare(repositories: &Path) -> Vec<&'static str> {
    if let Some(named) = std::env::var_os("WHOLE_SYNC_REPOSITORY") {
        std::fs::create_dir(repositories.join("owner")).unwrap();
        std::os::unix::fs::symlink(named, repositories.join("owner/name.git")).unwrap();
        return vec!["main"];
    }
    let count = std::env::var("WHOLE_SYNC_FILES").map_or(FILES, |count| count.parse().unwrap());
    let files = repository::files(count);
    let repository = Repository::create(repositories, "owner/name");
    repository::commit(&repository, "main", &files, 0);
    repository::commit(&repository, "changed-1", &files, 1);
    let bytes: usize = files.iter().map(|(_, text)| text.len()).sum();
    println!("{count} files, {:.1} MB", bytes as f64 / 1e6);
    vec!["main", "changed-1"]
}

/// The script with all it needs.
struct Script {
    python: PathBuf,
    repository: String,
    port: String,
    model: PathBuf,
    onnx: PathBuf,
}

impl Script {
    /// Exports the model's graph, which is no part of what is measured.
    fn prepare(scenario: &Scenario) -> Self {
        let python = std::env::var_os("WHOLE_SYNC_PYTHON")
            .map_or_else(|| project_file(".peers/script/bin/python3"), PathBuf::from);
        assert!(
            python.exists(),
            "{} is missing; run `make bench-whole`",
            python.display()
        );
        let model = models_directory().join("sentence-transformers/all-MiniLM-L6-v2");
        let onnx = scenario.repositories().join("model.onnx");
        let export = Command::new(&python)
            .arg(project_file("benches/python_script/export_minilm.py"))
            .args([&model, &onnx])
            .status()
            .unwrap();
        assert!(export.success(), "the model was not exported");
        let url = url::Url::parse(scenario.chroma.url()).unwrap();
        Self {
            python,
            repository: format!("file://{}/owner/name.git", scenario.repositories().display()),
            port: url.port().unwrap().to_string(),
            model,
            onnx,
        }
    }

    /// Runs it to its end; returns what it printed.
    fn run(&self, branch: &str) -> serde_json::Value {
        let output = Command::new(&self.python)
            .arg(project_file("benches/python_script/sync.py"))
            .args(["--repository", &self.repository, "--branch", branch])
            .args(["--collection", &format!("script-{}-{branch}", std::process::id())])
            .args(["--port", &self.port])
            .arg("--model")
            .arg(&self.model)
            .arg("--onnx")
            .arg(&self.onnx)
            .env("ANONYMIZED_TELEMETRY", "False")
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        assert!(output.status.success(), "the script failed");
        serde_json::from_slice(&output.stdout).unwrap()
    }
}
