//! Stock clients of Chroma and of OpenAI that embed with the service, and the models it does that with.

use std::{
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use chroma_sync::domain::embedding::{MINILM, QWEN3};
use serde_json::Value;
use url::Url;

use super::{
    chroma::ChromaDatabase,
    examples::python,
    models_directory,
    service::{Deployment, Service, project_file},
};

/// Both documented models in `directory`. Qwen3 has the weights of MiniLM: what is tested with it is the way
/// that texts and vectors take, and that begins with the name in the collection.
pub fn with_qwen3(deployment: &Deployment, directory: &Path) -> Deployment {
    let minilm = models_directory().join(MINILM);
    let models = directory.join("models");
    for name in [MINILM, QWEN3] {
        let link = models.join(name);
        std::fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(&minilm, link).unwrap();
    }
    deployment
        .clone()
        .with("models.dir", models.to_str().unwrap())
        .with("embedding.models", &format!("{MINILM},{QWEN3}"))
}

/// Qwen3 alone, with the architecture of the real one, and golden vectors (`tests/golden/qwen3.json`).
pub fn with_tiny_qwen3(deployment: &Deployment, directory: &Path) -> Deployment {
    let models = directory.join("models");
    let link = models.join(QWEN3);
    std::fs::create_dir_all(link.parent().unwrap()).unwrap();
    symlink(project_file("tests/golden/models/tiny/qwen3"), link).unwrap();
    deployment
        .clone()
        .with("models.dir", models.to_str().unwrap())
        .with("embedding.models", QWEN3)
        .with("embedding.default_model", QWEN3)
        .with("embedding.precision", "f32")
}

/// A script of `tests/clients`, in Python or JavaScript.
pub fn client(script: &str) -> Command {
    let path = project_file("tests/clients").join(script);
    if script.ends_with(".py") {
        let mut command = python();
        command.arg(path).env("ANONYMIZED_TELEMETRY", "False");
        return command;
    }
    let packages: PathBuf = path.parent().unwrap().join("node_modules/.digest");
    assert!(
        packages.exists(),
        "{} is missing; run `make peers`",
        packages.display()
    );
    let mut command = Command::new("node");
    command.arg(path);
    command
}

/// Sets the two variables with which a stock client embeds with the service.
pub fn embedding_with<'a>(command: &'a mut Command, service: &Service, key: &str) -> &'a mut Command {
    command
        .env("CHROMA_EMBED_URL", format!("{}/embed", service.url))
        .env("CHROMA_API_KEY", key)
}

/// Runs a client to its end and returns the JSON that it prints.
pub fn output(command: &mut Command) -> Value {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; run `make peers`"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed: {errors}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {errors}"))
}

/// Host and port of the Chroma server, and the database.
pub fn place(database: &ChromaDatabase) -> [String; 3] {
    let url = Url::parse(database.url()).unwrap();
    [
        url.host_str().unwrap().to_owned(),
        url.port().unwrap().to_string(),
        database.name().to_string(),
    ]
}
