//! Where the files of a model lie.
//!
//! A model is first looked for in the configured directory, as `{directory}/{owner}/{name}/`, then in the
//! Hugging Face cache that other tools on the machine fill (`models--{owner}--{name}/refs/main` names the
//! snapshot, unless another revision is configured). A place counts only if it has all [`REQUIRED`] files; the weights
//! may be in several parts that `model.safetensors.index.json` lists. Absent on purpose: downloading, which is
//! [`hub`](super::hub)'s.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    io::Read,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::LoadError;

/// Files without which a model cannot be loaded, named as on the hub.
pub(crate) const REQUIRED: [&str; 3] = ["config.json", "tokenizer.json", "model.safetensors"];

pub(super) const WEIGHTS: &str = "model.safetensors";
/// Lists the parts of weights that are in several files.
pub(super) const WEIGHTS_INDEX: &str = "model.safetensors.index.json";
/// The largest such list, in bytes.
const MAX_INDEX_BYTES: u64 = 64 << 20;
/// The longest header of a weights file that is looked at, in bytes; the format allows 100 MB.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// The longest revision a `refs/main` may name: a SHA-256 in hexadecimal.
const MAX_REVISION_BYTES: u64 = 64;

/// The places that are searched for models, in order.
#[derive(Debug, Clone, Default)]
pub struct ModelDirectories {
    configured: Option<PathBuf>,
    hub_cache: Option<PathBuf>,
    /// Revisions other than main, by the names of models.
    revisions: BTreeMap<String, String>,
}

impl ModelDirectories {
    /// `configured` holds `{owner}/{name}/`; `hub_cache` is laid out as the Hugging Face cache.
    pub fn new(configured: Option<PathBuf>, hub_cache: Option<PathBuf>) -> Self {
        Self {
            configured,
            hub_cache,
            revisions: BTreeMap::new(),
        }
    }

    /// As these, but the Hugging Face cache is searched for these revisions of these models: a commit, or a branch or
    /// tag that `refs/` knows.
    pub fn with_revisions(mut self, revisions: BTreeMap<String, String>) -> Self {
        self.revisions = revisions;
        self
    }

    /// The revision that the Hugging Face cache is searched for.
    pub fn revision(&self, name: &str) -> &str {
        self.revisions.get(name).map_or(MAIN, String::as_str)
    }

    /// As [`new`](Self::new), with the Hugging Face cache that this process' environment points to:
    /// `$HF_HUB_CACHE`, `$HF_HOME/hub`, `$XDG_CACHE_HOME/huggingface/hub` or `~/.cache/huggingface/hub`.
    ///
    /// Source: the environment variables of the `huggingface_hub` package.
    pub fn from_environment(configured: Option<PathBuf>) -> Self {
        Self::new(configured, hub_cache())
    }

    /// The files of the model `name`, which is `owner/name`.
    ///
    /// # Errors
    /// [`LoadError::Name`], or [`LoadError::Missing`] with every place and the file it lacks.
    pub fn find(&self, name: &str) -> Result<ModelFiles, LoadError> {
        let (owner, model) = parse_name(name).ok_or_else(|| LoadError::Name(name.to_owned()))?;
        let configured = self
            .configured
            .iter()
            .map(|directory| Ok(directory.join(owner).join(model)));
        let cached = {
            let revision = self.revision(name);
            let caches = self.hub_cache.iter();
            caches.map(move |cache| snapshot(cache, owner, model, revision))
        };
        let mut missing = Vec::new();
        for place in configured.chain(cached) {
            match place.and_then(complete) {
                Ok(directory) => {
                    return Ok(ModelFiles {
                        name: name.to_owned(),
                        directory,
                    });
                }
                Err(lack) => missing.push(lack),
            }
        }
        if missing.is_empty() {
            missing.push("no directory is configured".to_owned());
        }
        Err(LoadError::Missing {
            model: name.to_owned(),
            missing,
        })
    }
}

/// A directory with all files of a model that is supported.
#[derive(Debug, Clone)]
pub struct ModelFiles {
    name: String,
    directory: PathBuf,
}

impl ModelFiles {
    /// Name of the model as `owner/name`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the files lie.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The commit of the files, where they lie in a Hugging Face cache.
    pub fn commit(&self) -> Option<&str> {
        let commit = self.directory.file_name()?.to_str()?;
        let is_snapshot = self.directory.parent()?.file_name()? == "snapshots";
        is_snapshot.then_some(commit)
    }

    /// The files with the weights: one, or the parts of which they consist.
    ///
    /// # Errors
    /// When the list of parts cannot be read.
    pub fn weights(&self) -> Result<Vec<PathBuf>, LoadError> {
        let whole = self.path(WEIGHTS);
        if whole.is_file() {
            return Ok(vec![whole]);
        }
        let parts = parts(&self.read(WEIGHTS_INDEX, MAX_INDEX_BYTES)?);
        let parts = parts.ok_or_else(|| LoadError::Damaged {
            path: self.path(WEIGHTS_INDEX),
            source: "it does not map tensors to files beside it".into(),
        })?;
        Ok(parts.iter().map(|part| self.path(part)).collect())
    }

    /// Bytes of the weights.
    ///
    /// # Errors
    /// When a file cannot be looked at.
    pub fn weights_bytes(&self) -> Result<u64, LoadError> {
        let mut total = 0;
        for path in self.weights()? {
            let found = fs::metadata(&path).map_err(|source| LoadError::Read { path, source })?;
            total += found.len();
        }
        Ok(total)
    }

    /// The type of most of the weights, as the file names it (`F32`, `BF16`, ...); none when it cannot be read.
    pub fn stored_precision(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Tensor {
            dtype: String,
            data_offsets: (u64, u64),
        }
        let path = self.weights().ok()?.into_iter().next()?;
        let mut file = fs::File::open(path).ok()?;
        let mut length = [0; 8];
        file.read_exact(&mut length).ok()?;
        let length = u64::from_le_bytes(length);
        if length > MAX_HEADER_BYTES {
            return None;
        }
        let mut header = Vec::new();
        file.take(length).read_to_end(&mut header).ok()?;
        let header: BTreeMap<String, serde_json::Value> = serde_json::from_slice(&header).ok()?;
        let mut bytes: BTreeMap<String, u64> = BTreeMap::new();
        for tensor in header.into_values() {
            // The entry with remarks is no tensor.
            if let Ok(Tensor { dtype, data_offsets }) = serde_json::from_value(tensor) {
                *bytes.entry(dtype).or_default() += data_offsets.1.saturating_sub(data_offsets.0);
            }
        }
        bytes
            .into_iter()
            .max_by_key(|(_, bytes)| *bytes)
            .map(|(dtype, _)| dtype)
    }

    /// Path of one of the files.
    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.directory.join(file)
    }

    /// The bytes of one of the files, at most `limit`.
    pub(crate) fn read(&self, file: &str, limit: u64) -> Result<Vec<u8>, LoadError> {
        let path = self.path(file);
        let mut bytes = Vec::new();
        let read = fs::File::open(&path).and_then(|open| open.take(limit + 1).read_to_end(&mut bytes));
        match read {
            Ok(count) if count as u64 > limit => Err(LoadError::TooLarge { path, limit }),
            Ok(_) => Ok(bytes),
            Err(source) => Err(LoadError::Read { path, source }),
        }
    }

    /// As [`read`](Self::read), for a file that a model may lack.
    pub(crate) fn read_optional(&self, file: &str, limit: u64) -> Result<Option<Vec<u8>>, LoadError> {
        match self.read(file, limit) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(LoadError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The branch that is meant where none is named.
pub(super) const MAIN: &str = "main";

/// `$HF_HOME`, `$XDG_CACHE_HOME/huggingface` or `~/.cache/huggingface`.
pub(super) fn hub_home() -> Option<PathBuf> {
    directory_of("HF_HOME")
        .or_else(|| directory_of("XDG_CACHE_HOME").map(|cache| cache.join("huggingface")))
        .or_else(|| env::home_dir().map(|home| home.join(".cache").join("huggingface")))
}

/// `$HF_HUB_CACHE`, or `hub` in [`hub_home`].
pub(super) fn hub_cache() -> Option<PathBuf> {
    directory_of("HF_HUB_CACHE").or_else(|| hub_home().map(|home| home.join("hub")))
}

fn directory_of(variable: &str) -> Option<PathBuf> {
    env::var_os(variable)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

/// Whether a text can be a commit, a branch or a tag, and is safe as a path below `refs/`.
pub(super) fn is_revision(text: &str) -> bool {
    let is_plain = |part: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        !part.is_empty() && !part.starts_with('.') && part.bytes().all(allowed)
    };
    text.len() <= 255 && text.split('/').all(is_plain)
}

/// The files that an index of weights names.
pub(super) fn parts(index: &[u8]) -> Option<Vec<String>> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let index: Index = serde_json::from_slice(index).ok()?;
    let parts: BTreeSet<String> = index.weight_map.into_values().collect();
    let is_plain = |part: &String| is_revision(part) && !part.contains('/') && part.ends_with(".safetensors");
    (!parts.is_empty() && parts.iter().all(is_plain)).then(|| parts.into_iter().collect())
}

/// Splits `owner/name`; each part must be safe as one component of a path.
pub(super) fn parse_name(name: &str) -> Option<(&str, &str)> {
    let is_plain = |part: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        !part.is_empty() && part.len() <= 96 && !part.starts_with('.') && part.bytes().all(allowed)
    };
    name.split_once('/')
        .filter(|(owner, model)| is_plain(owner) && is_plain(model))
}

/// The snapshot of `revision`, or what is missing.
fn snapshot(cache: &Path, owner: &str, model: &str, revision: &str) -> Result<PathBuf, String> {
    let repository = cache.join(format!("models--{owner}--{model}"));
    if !is_revision(revision) {
        return Err(format!(
            "models.revisions names {revision:?}, which is no revision"
        ));
    }
    let snapshots = repository.join("snapshots");
    let reference = repository.join("refs").join(revision);
    let is_commit = revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_commit && !reference.is_file() {
        return Ok(snapshots.join(revision));
    }
    let lack = || format!("{} does not exist", reference.display());
    let mut commit = String::new();
    let open = fs::File::open(&reference).map_err(|_| lack())?;
    open.take(MAX_REVISION_BYTES)
        .read_to_string(&mut commit)
        .map_err(|_| lack())?;
    let commit = commit.trim();
    if commit.is_empty() || !commit.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(format!("{} does not name a revision", reference.display()));
    }
    Ok(snapshots.join(commit))
}

/// `directory` itself if it has all files, or what is missing.
fn complete(directory: PathBuf) -> Result<PathBuf, String> {
    let lacks = |file: &str| !directory.join(file).is_file();
    let missing = match REQUIRED.into_iter().find(|file| lacks(file)) {
        Some(WEIGHTS) => missing_part(&directory),
        Some(file) => Some(file.to_owned()),
        None => None,
    };
    match missing {
        Some(file) => Err(format!("{} has no {file}", directory.display())),
        None => Ok(directory),
    }
}

/// What is missing of weights that are not in one file.
fn missing_part(directory: &Path) -> Option<String> {
    let read = |file: fs::File| {
        let mut index = Vec::new();
        file.take(MAX_INDEX_BYTES).read_to_end(&mut index).ok()?;
        parts(&index)
    };
    let index = fs::File::open(directory.join(WEIGHTS_INDEX)).ok().and_then(read);
    match index {
        Some(parts) => parts.into_iter().find(|part| !directory.join(part).is_file()),
        None => Some(WEIGHTS.to_owned()),
    }
}

#[cfg(test)]
mod tests;
