//! `chroma-sync models`: the files of models, fetched from a Hugging Face hub when they are asked for here.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::IsTerminal,
    process::ExitCode,
    sync::{Mutex, PoisonError},
};

use anyhow::Context;
use clap::{Args, Subcommand};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use serde_json::json;

use super::output;
use crate::{
    config::{Config, ProviderConfig, ProviderKind},
    domain::embedding::{MINILM, QWEN3},
    embed::{
        LoadError, ModelFiles,
        hub::{Hub, HubOptions, PullProgress, Pulled},
    },
    service,
};

/// A bar of one file.
const BAR: &str = "{prefix} [{bar:30}] {bytes}/{total_bytes}, {binary_bytes_per_sec}, {eta} left";
/// Bytes after which a line tells how far a file is, where no person looks.
const BYTES_PER_LINE: u64 = 256 << 20;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Fetch the files of models into the Hugging Face cache, and go on where an earlier run ended. HF_ENDPOINT,
    /// HF_HUB_CACHE, HF_HOME, HF_TOKEN and HF_HUB_OFFLINE mean what they mean to the huggingface_hub package.
    Pull {
        /// Models, as owner/name.
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        /// Commit, branch or tag; without it the one in models.revisions, else main.
        #[arg(long)]
        revision: Option<String>,
        /// Print one JSON object a model.
        #[arg(long)]
        json: bool,
    },
    /// List the models that are served, and those known whose files are or are not there.
    List {
        /// Print one JSON object a model.
        #[arg(long)]
        json: bool,
    },
}

pub(super) async fn run(arguments: Arguments, config: &Config) -> anyhow::Result<ExitCode> {
    match arguments.action {
        Action::Pull {
            names,
            revision,
            json,
        } => pull(config, &names, revision.as_deref(), json).await,
        Action::List { json } => list(config, json),
    }
}

async fn pull(
    config: &Config,
    names: &[String],
    revision: Option<&str>,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let hub = Hub::new(HubOptions::from_environment()?)?;
    let directories = service::model_directories(config);
    let view = PullView::new();
    for name in names {
        let served = directories.revision(name);
        let revision = revision.unwrap_or(served);
        let pulled = hub
            .pull(name, revision, &view)
            .await
            .with_context(|| format!("cannot fetch {name}"))?;
        if json {
            let Pulled {
                commit,
                directory,
                files,
                bytes,
                fetched_bytes,
            } = &pulled;
            let object = json!({"model": name, "revision": revision, "commit": commit, "directory": directory,
                                "files": files, "bytes": bytes, "fetched_bytes": fetched_bytes});
            output::line(&object.to_string());
        } else {
            let (bytes, directory) = (HumanBytes(pulled.bytes), pulled.directory.display());
            output::line(&format!("{name} {} {bytes} {directory}", pulled.commit));
        }
        if revision != served && revision != pulled.commit {
            output::error(&format!(
                "serve uses revision {served} of {name}; set {name:?} = {:?} in [models.revisions] to serve this one",
                pulled.commit
            ));
        } else if revision != served {
            output::error(&format!(
                "serve uses revision {served} of {name}; set {name:?} = {revision:?} in [models.revisions] to serve \
                 this one"
            ));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What is known of one model.
struct Listed {
    name: String,
    served: bool,
    state: State,
}

enum State {
    /// Other servers compute it.
    Remote(ProviderConfig),
    /// Its files are there.
    Local(ModelFiles),
    /// They are not; why.
    Missing(LoadError),
}

fn list(config: &Config, json: bool) -> anyhow::Result<ExitCode> {
    let directories = service::model_directories(config);
    let embedding = &config.embedding;
    let served: BTreeSet<&str> = embedding
        .models
        .iter()
        .map(String::as_str)
        .chain(embedding.providers.iter().map(|provider| provider.model.as_str()))
        .collect();
    let names: BTreeSet<&str> = served.iter().copied().chain([MINILM, QWEN3]).collect();
    let mut providers: BTreeMap<&str, &ProviderConfig> = BTreeMap::new();
    for provider in &embedding.providers {
        if provider.provider != ProviderKind::Local {
            providers.insert(&provider.model, provider);
        }
    }
    for name in names {
        let state = match providers.get(name) {
            Some(provider) => State::Remote((*provider).clone()),
            None => match directories.find(name) {
                Ok(files) => State::Local(files),
                Err(error) => State::Missing(error),
            },
        };
        let listed = Listed {
            name: name.to_owned(),
            served: served.contains(name),
            state,
        };
        output::line(&if json { listed.json() } else { listed.line() });
    }
    Ok(ExitCode::SUCCESS)
}

impl Listed {
    /// `name  served  provider  where, size, revision`.
    fn line(&self) -> String {
        let served = if self.served { "served" } else { "known" };
        let rest = match &self.state {
            State::Remote(provider) => {
                let endpoints = addresses(provider).join(", ");
                format!(
                    "{}  {endpoints}  as {}",
                    provider.provider.as_str(),
                    provider.remote_name()
                )
            }
            State::Local(files) => {
                let bytes = files.weights_bytes().unwrap_or_default();
                format!(
                    "local  {}  {}  {}  {}",
                    files.stored_precision().as_deref().unwrap_or("?"),
                    HumanBytes(bytes),
                    files.commit().unwrap_or("-"),
                    files.directory().display()
                )
            }
            State::Missing(error) => format!("missing  {error}"),
        };
        format!("{}  {served}  {rest}", self.name)
    }

    fn json(&self) -> String {
        let mut object = json!({"model": self.name, "served": self.served});
        let more = match &self.state {
            State::Remote(provider) => json!({
                "provider": provider.provider.as_str(),
                "sparse": provider.sparse,
                "endpoints": addresses(provider),
                "remote_model": provider.remote_name(),
                "dimensions": (!provider.sparse).then_some(provider.dimensions),
                "max_tokens": provider.max_tokens,
            }),
            State::Local(files) => json!({
                "provider": "local",
                "directory": files.directory(),
                "commit": files.commit(),
                "weights_bytes": files.weights_bytes().ok(),
                "stored_precision": files.stored_precision(),
            }),
            State::Missing(error) => json!({"provider": "local", "missing": error.to_string()}),
        };
        if let (Some(object), serde_json::Value::Object(more)) = (object.as_object_mut(), more) {
            object.extend(more);
        }
        object.to_string()
    }
}

/// Without the passwords that they may hold.
fn addresses(provider: &ProviderConfig) -> Vec<String> {
    let address = |url: &url::Url| format!("{}{}", url.origin().ascii_serialization(), url.path());
    provider.endpoints.iter().map(address).collect()
}

/// A bar where a person looks, lines elsewhere; both on standard error.
struct PullView {
    bar: Option<ProgressBar>,
    /// Until where the current file was told.
    told: Mutex<u64>,
}

impl PullView {
    fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(0);
            if let Ok(style) = ProgressStyle::with_template(BAR) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar
        });
        Self {
            bar,
            told: Mutex::new(0),
        }
    }
}

impl PullProgress for PullView {
    fn begin(&self, file: &str, size: u64, position: u64) {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = position;
        match &self.bar {
            Some(bar) => {
                bar.reset();
                bar.set_prefix(file.to_owned());
                bar.set_length(size);
                bar.set_position(position);
                bar.reset_eta();
            }
            None if position > 0 => self.note(&format!(
                "{file}: {} of {} were there already",
                HumanBytes(position),
                HumanBytes(size)
            )),
            None => self.note(&format!("{file}: {}", HumanBytes(size))),
        }
    }

    fn position(&self, file: &str, position: u64) {
        if let Some(bar) = &self.bar {
            return bar.set_position(position);
        }
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if position >= *told + BYTES_PER_LINE {
            *told = position;
            output::error(&format!("{file}: {} so far", HumanBytes(position)));
        }
    }

    fn end(&self, file: &str, fetched: bool) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let state = if fetched { "fetched" } else { "is there" };
        self.note(&format!("{file}: {state}"));
    }

    fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| output::error(text)),
            None => output::error(text),
        }
    }
}
