//! `chroma-sync models`, against a stand-in that serves the hub's documented routes. What it fetches is read by the
//! `huggingface_hub` package.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Mutex,
};

use chroma_sync::{
    embed::{
        ModelDirectories,
        hub::{Hub, HubError, HubOptions, PullProgress, Pulled},
    },
    secret::Secret,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use url::Url;

use crate::harness::{
    examples::{Ended, Program, python},
    hub::{COMMIT, Fault, MODEL, Manners, StandInHub, TOKEN},
    service::binary,
};

/// More than one piece of a body.
const WEIGHTS_BYTES: usize = 300_000;

fn weights() -> Vec<u8> {
    (0..WEIGHTS_BYTES as u32).map(|n| (n * 7 % 251) as u8).collect()
}

fn files() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("config.json", b"{\"model_type\":\"bert\"}".to_vec()),
        ("tokenizer.json", b"{}".to_vec()),
        (
            "1_Pooling/config.json",
            b"{\"pooling_mode_mean_tokens\":true}".to_vec(),
        ),
        ("model.safetensors", weights()),
        ("onnx/model.safetensors", b"not needed".to_vec()),
        ("pytorch_model.bin", b"not needed".to_vec()),
    ]
}

/// A cache of a test's own.
struct Cache {
    home: TempDir,
}

impl Cache {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        Self { home }
    }

    fn hub(&self) -> PathBuf {
        self.home.path().join("hub")
    }

    fn model(&self) -> PathBuf {
        self.hub().join("models--owner--model")
    }

    fn options(&self, endpoint: &str) -> HubOptions {
        HubOptions {
            endpoint: Url::parse(endpoint).unwrap(),
            cache: self.hub(),
            token: None,
            offline: false,
        }
    }

    /// Pulls the model with the client of the service.
    async fn pull(&self, hub: &StandInHub) -> Result<Pulled, HubError> {
        let hub = Hub::new(self.options(&hub.url())).unwrap();
        hub.pull(MODEL, "main", &Told::default()).await
    }

    /// A subcommand with this cache and hub.
    fn command(&self, endpoint: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        for name in [
            "HF_HUB_CACHE",
            "HF_TOKEN",
            "HF_TOKEN_PATH",
            "HF_HUB_OFFLINE",
            "TRANSFORMERS_OFFLINE",
        ] {
            command.env_remove(name);
        }
        command
            .args(arguments)
            .env("HF_HOME", self.home.path())
            .env("HF_ENDPOINT", endpoint);
        command
    }

    /// Runs it off the runtime's threads, which serve the hub.
    async fn run(&self, endpoint: &str, arguments: &[&str], more: &[(&str, &str)]) -> Output {
        let mut command = self.command(endpoint, arguments);
        command.envs(more.iter().copied());
        tokio::task::spawn_blocking(move || command.output().unwrap())
            .await
            .unwrap()
    }

    /// What the package finds in this cache, without any network.
    async fn seen_by_python(&self, revision: &str) -> Value {
        let script = format!(
            r#"
import json, os
from huggingface_hub import snapshot_download, scan_cache_dir
path = snapshot_download("{MODEL}", revision="{revision}", local_files_only=True)
files = {{os.path.relpath(os.path.join(d, f), path): os.path.getsize(os.path.join(d, f)) for d, _, fs in os.walk(path) for f in fs}}
info = scan_cache_dir()
print(json.dumps({{"commit": os.path.basename(path), "files": files, "warnings": [str(w) for w in info.warnings],
    "repositories": [[r.repo_id, r.size_on_disk, sorted(r.refs)] for r in info.repos]}}))
"#
        );
        let mut command = python();
        command
            .args(["-c", &script])
            .env_remove("HF_HUB_CACHE")
            .env("HF_HOME", self.home.path())
            .env("HF_HUB_OFFLINE", "1");
        let Ended { code, lines, errors } = Program::start(command, "").end().await;
        assert_eq!(code, Some(0), "{errors}");
        serde_json::from_str(&lines.join("")).unwrap()
    }
}

#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl PullProgress for Told {
    fn begin(&self, file: &str, size: u64, position: u64) {
        self.0.lock().unwrap().push(format!("{file} {position}/{size}"));
    }

    fn position(&self, _file: &str, _position: u64) {}

    fn end(&self, file: &str, fetched: bool) {
        self.0.lock().unwrap().push(format!("{file} {fetched}"));
    }

    fn note(&self, _text: &str) {}
}

#[tokio::test]
async fn a_pulled_model_is_what_the_package_of_the_hub_finds() {
    let hub = StandInHub::start(&files(), Manners::default()).await;
    let cache = Cache::new();
    let output = cache
        .run(&hub.url(), &["models", "pull", MODEL, "--json"], &[])
        .await;
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert!(errors.contains("model.safetensors: fetched"), "{errors}");
    let pulled: Value = serde_json::from_slice(&output.stdout).unwrap();
    let small: usize = files()[..3].iter().map(|(_, content)| content.len()).sum();
    let directory = cache.model().join("snapshots").join(COMMIT);
    let expected = json!({"model": MODEL, "revision": "main", "commit": COMMIT, "directory": directory, "files": 4,
                          "bytes": WEIGHTS_BYTES + small, "fetched_bytes": WEIGHTS_BYTES + small});
    assert_eq!(pulled, expected);

    let seen = cache.seen_by_python("main").await;
    assert_eq!(seen["commit"], COMMIT);
    assert_eq!(seen["warnings"], json!([]));
    assert_eq!(
        seen["repositories"],
        json!([[MODEL, WEIGHTS_BYTES + small, ["main"]]])
    );
    let sizes = json!({"config.json": 21, "tokenizer.json": 2, "1_Pooling/config.json": 33,
                       "model.safetensors": WEIGHTS_BYTES});
    assert_eq!(seen["files"], sizes);
    let found = ModelDirectories::new(None, Some(cache.hub()))
        .find(MODEL)
        .unwrap();
    assert_eq!(
        (found.directory(), found.commit()),
        (directory.as_path(), Some(COMMIT))
    );
    assert_eq!(
        std::fs::read(found.weights().unwrap().remove(0)).unwrap(),
        weights()
    );
    let link = std::fs::read_link(directory.join("1_Pooling/config.json")).unwrap();
    assert!(link.starts_with("../../../blobs"), "{link:?}");
}

#[tokio::test]
async fn what_is_there_is_not_fetched_again() {
    let hub = StandInHub::start(&files(), Manners::default()).await;
    let cache = Cache::new();
    cache.pull(&hub).await.unwrap();
    hub.take_requests();
    let pulled = cache.pull(&hub).await.unwrap();
    assert_eq!((pulled.files, pulled.fetched_bytes), (4, 0));
    assert_eq!(hub.take_requests(), ["GET /api/models/owner/model/revision/main"]);
}

#[tokio::test]
async fn a_cut_is_made_good_from_where_it_was() {
    let hub = StandInHub::start(&files(), Manners::default()).await;
    hub.fail_next([
        Fault::CutAfter(100_000),
        Fault::Status(503),
        Fault::CutAfter(50_000),
    ]);
    let cache = Cache::new();
    let pulled = cache.pull(&hub).await.unwrap();
    let weights_of_cdn = |requests: Vec<String>| -> Vec<String> {
        requests
            .into_iter()
            .filter(|line| line.starts_with("GET /model.safetensors"))
            .collect()
    };
    assert_eq!(
        weights_of_cdn(hub.take_requests()),
        [
            "GET /model.safetensors",
            "GET /model.safetensors bytes=100000-",
            "GET /model.safetensors bytes=100000-",
            "GET /model.safetensors bytes=150000-",
        ]
    );
    assert_eq!(
        std::fs::read(pulled.directory.join("model.safetensors")).unwrap(),
        weights()
    );
}

#[tokio::test]
async fn a_run_that_ended_early_is_gone_on_with_by_the_next() {
    let hub = StandInHub::start(&files(), Manners::default()).await;
    hub.fail_next([Fault::CutAfter(120_000)]);
    hub.fail_next([Fault::Status(500); 5]);
    let cache = Cache::new();
    let error = cache.pull(&hub).await.unwrap_err();
    assert!(error.to_string().contains("goes on where it ended"), "{error}");
    assert!(
        !cache.model().join("refs/main").exists(),
        "the model is not whole"
    );
    let missing = ModelDirectories::new(None, Some(cache.hub()))
        .find(MODEL)
        .unwrap_err();
    assert!(
        missing
            .to_string()
            .contains("chroma-sync models pull owner/model"),
        "{missing}"
    );
    let told = Told::default();
    let client = Hub::new(cache.options(&hub.url())).unwrap();
    let pulled = client.pull(MODEL, "main", &told).await.unwrap();
    assert_eq!(pulled.fetched_bytes as usize, WEIGHTS_BYTES - 120_000);
    let told = told.0.into_inner().unwrap();
    assert!(
        told.contains(&format!("model.safetensors 120000/{WEIGHTS_BYTES}")),
        "{told:?}"
    );
    assert_eq!(
        std::fs::read(pulled.directory.join("model.safetensors")).unwrap(),
        weights()
    );
}

#[tokio::test]
async fn bytes_that_are_not_those_of_the_checksum_are_refused_and_removed() {
    let hub = StandInHub::start(&files(), Manners::default()).await;
    hub.fail_next([Fault::OtherBytes]);
    let cache = Cache::new();
    let error = cache.pull(&hub).await.unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("model.safetensors came damaged: its SHA-256 is not "),
        "{error}"
    );
    let blobs = std::fs::read_dir(cache.model().join("blobs")).unwrap();
    let names: Vec<String> = blobs
        .map(|blob| blob.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(
        !names.iter().any(|name| name.ends_with(".incomplete")),
        "{names:?}"
    );
    assert_eq!(names.len(), 3, "{names:?}");
    cache.pull(&hub).await.unwrap();
    assert_eq!(cache.seen_by_python("main").await["commit"], COMMIT);
}

#[tokio::test]
async fn a_hub_whose_listing_names_no_checksums_is_asked_for_each_file() {
    let manners = Manners {
        names_blobs: false,
        ..Manners::default()
    };
    let hub = StandInHub::start(&files(), manners).await;
    let cache = Cache::new();
    let pulled = cache.pull(&hub).await.unwrap();
    assert_eq!(
        std::fs::read(pulled.directory.join("model.safetensors")).unwrap(),
        weights()
    );
    let heads = hub
        .take_requests()
        .iter()
        .filter(|line| line.starts_with("HEAD /owner"))
        .count();
    assert_eq!(heads, 4);
}

#[tokio::test]
async fn weights_in_parts_are_fetched_by_their_index() {
    let index =
        br#"{"weight_map":{"a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors"}}"#;
    let mut files = files();
    files.retain(|(path, _)| *path != "model.safetensors");
    files.extend([
        ("model.safetensors.index.json", index.to_vec()),
        ("model-00001-of-00002.safetensors", b"first".to_vec()),
        ("model-00002-of-00002.safetensors", b"second".to_vec()),
    ]);
    let hub = StandInHub::start(&files, Manners::default()).await;
    let cache = Cache::new();
    assert_eq!(cache.pull(&hub).await.unwrap().files, 6);
    let found = ModelDirectories::new(None, Some(cache.hub()))
        .find(MODEL)
        .unwrap();
    assert_eq!(
        (found.weights().unwrap().len(), found.weights_bytes().unwrap()),
        (2, 11)
    );
}

#[tokio::test]
async fn a_token_opens_a_model_and_goes_to_the_hub_alone() {
    let manners = Manners {
        private: true,
        ..Manners::default()
    };
    let hub = StandInHub::start(&files(), manners).await;
    let cache = Cache::new();
    let pull = ["models", "pull", MODEL];
    let refused = cache.run(&hub.url(), &pull, &[]).await;
    let errors = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && errors.contains("HF_TOKEN"),
        "{errors}"
    );
    assert!(errors.contains("answers 401 for owner/model"), "{errors}");
    // As `hf auth login` leaves it.
    std::fs::write(cache.home.path().join("token"), format!("{TOKEN}\n")).unwrap();
    let output = cache.run(&hub.url(), &pull, &[]).await;
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(!String::from_utf8_lossy(&output.stderr).contains(TOKEN));
    // The variable comes before the file.
    let wrong = cache.run(&hub.url(), &pull, &[("HF_TOKEN", "hf_other")]).await;
    assert!(!wrong.status.success());
    let options = HubOptions {
        token: Some(Secret::new(TOKEN)),
        ..cache.options(&hub.url())
    };
    assert!(!format!("{options:?} {:?}", Hub::new(options.clone()).unwrap()).contains(TOKEN));
}

#[tokio::test]
async fn what_cannot_be_had_is_an_error_that_says_what_to_do() {
    let hub = StandInHub::start(&files(), Manners::default()).await;
    let cache = Cache::new();
    for (arguments, more, said) in [
        (
            vec![MODEL],
            vec![("HF_HUB_OFFLINE", "yes")],
            "HF_HUB_OFFLINE is set",
        ),
        (
            vec!["owner/other"],
            vec![],
            "has no model owner/other with revision main",
        ),
        (vec![MODEL, "--revision", "v9"], vec![], "with revision v9"),
        (
            vec![MODEL, "--revision", "../v9"],
            vec![],
            "is not the name of a commit, branch or tag",
        ),
        (vec!["model"], vec![], "not of the form owner/name"),
        (
            vec![MODEL],
            vec![("HF_ENDPOINT", "ftp://hub")],
            "HF_ENDPOINT is \"ftp://hub\"",
        ),
    ] {
        let arguments = [vec!["models", "pull"], arguments].concat();
        let output = cache.run(&hub.url(), &arguments, &more).await;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && errors.contains(said),
            "{arguments:?}: {errors}"
        );
    }
    let mut files = files();
    files.retain(|(path, _)| !path.ends_with("model.safetensors"));
    let hub = StandInHub::start(&files, Manners::default()).await;
    let error = cache.pull(&hub).await.unwrap_err();
    assert!(
        error.to_string().contains("has no model.safetensors on the hub"),
        "{error}"
    );
    assert!(!cache.model().exists(), "nothing was fetched");
}

#[tokio::test]
async fn a_revision_that_is_pulled_and_configured_is_the_one_that_is_listed() {
    let hub = StandInHub::start(&files(), Manners::default()).await;
    let cache = Cache::new();
    let output = cache
        .run(&hub.url(), &["models", "pull", MODEL, "--revision", COMMIT], &[])
        .await;
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert!(
        errors.contains("set \"owner/model\" = ") && errors.contains("[models.revisions]"),
        "{errors}"
    );
    assert!(
        !cache.model().join("refs").exists(),
        "a commit needs no reference"
    );
    assert_eq!(cache.seen_by_python(COMMIT).await["commit"], COMMIT);
    let config = cache.home.path().join("config.toml");
    let text = format!(
        "[embedding]\nmodels = [{MODEL:?}]\ndefault_model = {MODEL:?}\n[models.revisions]\n{MODEL:?} = {COMMIT:?}\n"
    );
    std::fs::write(&config, text).unwrap();
    let listed = |config: &Path| {
        let arguments = ["--config", config.to_str().unwrap(), "models", "list", "--json"];
        let output = cache.command(&hub.url(), &arguments).output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let text = String::from_utf8(output.stdout).unwrap();
        let lines = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.collect::<Vec<_>>()
    };
    let models = listed(&config);
    let names: Vec<&str> = models
        .iter()
        .map(|model| model["model"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "Qwen/Qwen3-Embedding-0.6B",
            MODEL,
            "sentence-transformers/all-MiniLM-L6-v2"
        ]
    );
    let expected = json!({"model": MODEL, "served": true, "provider": "local", "commit": COMMIT,
                          "directory": cache.model().join("snapshots").join(COMMIT),
                          "weights_bytes": WEIGHTS_BYTES, "stored_precision": null});
    assert_eq!(models[1], expected);
    assert_eq!(models[0]["served"], json!(false));
    let missing = models[0]["missing"].as_str().unwrap();
    assert!(
        missing.contains("chroma-sync models pull Qwen/Qwen3-Embedding-0.6B"),
        "{missing}"
    );
}

#[tokio::test]
async fn two_pulls_at_once_fetch_each_file_once() {
    let hub = StandInHub::start(&files(), Manners::default()).await;
    let cache = Cache::new();
    let (first, second) = tokio::join!(cache.pull(&hub), cache.pull(&hub));
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!(first.fetched_bytes + second.fetched_bytes, first.bytes);
    let requests = hub.take_requests();
    let weights = requests
        .iter()
        .filter(|line| *line == "GET /model.safetensors")
        .count();
    assert_eq!(weights, 1, "{requests:?}");
}
