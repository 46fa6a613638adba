//! Where the files of a model lie.
//!
//! A model is first looked for in the configured directory, as `{directory}/{owner}/{name}/`, then in the
//! Hugging Face cache that other tools on the machine fill (`models--{owner}--{name}/refs/main` names the
//! snapshot). A place counts only if it has all [`REQUIRED`] files. Absent on purpose: downloading.

use std::{
    env, fs,
    io::Read,
    path::{Path, PathBuf},
};

use super::LoadError;

/// The weights of a model, named as on the hub.
pub(crate) const WEIGHTS: &str = "model.safetensors";

/// Where the weights of a large model lie, which may take the place of [`WEIGHTS`].
pub(crate) const WEIGHTS_INDEX: &str = "model.safetensors.index.json";

/// Files without which a model cannot be loaded, named as on the hub.
pub(crate) const REQUIRED: [&str; 3] = ["config.json", "tokenizer.json", WEIGHTS];

/// The longest revision a `refs/main` may name: a SHA-256 in hexadecimal.
const MAX_REVISION_BYTES: u64 = 64;

/// The places that are searched for models, in order.
#[derive(Debug, Clone, Default)]
pub struct ModelDirectories {
    configured: Option<PathBuf>,
    hub_cache: Option<PathBuf>,
}

impl ModelDirectories {
    /// `configured` holds `{owner}/{name}/`; `hub_cache` is laid out as the Hugging Face cache.
    pub fn new(configured: Option<PathBuf>, hub_cache: Option<PathBuf>) -> Self {
        Self {
            configured,
            hub_cache,
        }
    }

    /// As [`new`](Self::new), with the Hugging Face cache that this process' environment points to:
    /// `$HF_HUB_CACHE`, `$HF_HOME/hub`, `$XDG_CACHE_HOME/huggingface/hub` or `~/.cache/huggingface/hub`.
    ///
    /// Source: the environment variables of the `huggingface_hub` package.
    pub fn from_environment(configured: Option<PathBuf>) -> Self {
        let set = |name: &str| {
            env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let hub_cache = set("HF_HUB_CACHE")
            .or_else(|| set("HF_HOME").map(|home| home.join("hub")))
            .or_else(|| set("XDG_CACHE_HOME").map(|cache| cache.join("huggingface").join("hub")))
            .or_else(|| env::home_dir().map(|home| home.join(".cache/huggingface/hub")));
        Self::new(configured, hub_cache)
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
        let cached = self.hub_cache.iter().map(|cache| snapshot(cache, owner, model));
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

/// Splits `owner/name`; each part must be safe as one component of a path.
fn parse_name(name: &str) -> Option<(&str, &str)> {
    let is_plain = |part: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        !part.is_empty() && part.len() <= 96 && !part.starts_with('.') && part.bytes().all(allowed)
    };
    name.split_once('/')
        .filter(|(owner, model)| is_plain(owner) && is_plain(model))
}

/// The snapshot that `refs/main` names, or what is missing.
fn snapshot(cache: &Path, owner: &str, model: &str) -> Result<PathBuf, String> {
    let repository = cache.join(format!("models--{owner}--{model}"));
    let reference = repository.join("refs").join("main");
    let lack = || format!("{} does not exist", reference.display());
    let mut revision = String::new();
    let open = fs::File::open(&reference).map_err(|_| lack())?;
    open.take(MAX_REVISION_BYTES)
        .read_to_string(&mut revision)
        .map_err(|_| lack())?;
    let revision = revision.trim();
    if revision.is_empty() || !revision.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(format!("{} does not name a revision", reference.display()));
    }
    Ok(repository.join("snapshots").join(revision))
}

/// `directory` itself if it has all files, or what is missing.
fn complete(directory: PathBuf) -> Result<PathBuf, String> {
    let has = |file: &str| directory.join(file).is_file();
    let is_missing = |file: &&&str| !has(file) && !(**file == WEIGHTS && has(WEIGHTS_INDEX));
    match REQUIRED.iter().find(is_missing) {
        Some(file) => Err(format!("{} has no {file}", directory.display())),
        None => Ok(directory),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    const REVISION: &str = "c9745ed1d9f207416be6d2e6f8de32d1f16199bf";

    fn fill(directory: &Path, files: &[&str]) {
        fs::create_dir_all(directory).unwrap();
        for file in files {
            fs::write(directory.join(file), "{}").unwrap();
        }
    }

    fn cached(cache: &Path) -> PathBuf {
        let repository = cache.join("models--owner--model");
        fs::create_dir_all(repository.join("refs")).unwrap();
        fs::write(repository.join("refs/main"), format!("{REVISION}\n")).unwrap();
        repository.join("snapshots").join(REVISION)
    }

    #[test]
    fn the_configured_directory_comes_before_the_cache() {
        let root = tempfile::tempdir().unwrap();
        let (models, cache) = (root.path().join("models"), root.path().join("cache"));
        fill(&models.join("owner/model"), &REQUIRED);
        fill(&cached(&cache), &REQUIRED);
        let found = ModelDirectories::new(Some(models.clone()), Some(cache))
            .find("owner/model")
            .unwrap();
        assert_eq!(found.directory(), models.join("owner/model"));
        assert_eq!(found.name(), "owner/model");
    }

    #[test]
    fn an_incomplete_directory_is_passed_over_for_a_complete_snapshot() {
        let root = tempfile::tempdir().unwrap();
        let (models, cache) = (root.path().join("models"), root.path().join("cache"));
        fill(&models.join("owner/model"), &REQUIRED[..2]);
        let snapshot = cached(&cache);
        fill(&snapshot, &REQUIRED);
        let found = ModelDirectories::new(Some(models), Some(cache))
            .find("owner/model")
            .unwrap();
        assert_eq!(found.directory(), snapshot);
    }

    #[test]
    fn a_missing_model_names_the_file_every_place_and_the_remedy() {
        let root = tempfile::tempdir().unwrap();
        let (models, cache) = (root.path().join("models"), root.path().join("cache"));
        fill(&models.join("owner/model"), &REQUIRED[..2]);
        let directories = ModelDirectories::new(Some(models.clone()), Some(cache.clone()));
        let message = directories.find("owner/model").unwrap_err().to_string();
        let place = models.join("owner/model").display().to_string();
        assert!(
            message.contains(&format!("{place} has no model.safetensors")),
            "{message}"
        );
        let reference = cache.join("models--owner--model/refs/main").display().to_string();
        assert!(
            message.contains(&format!("{reference} does not exist")),
            "{message}"
        );
        assert!(
            message.contains("models.dir") && message.contains("`chroma-sync models pull owner/model`"),
            "{message}"
        );
    }

    #[test]
    fn a_reference_that_is_no_revision_cannot_lead_out_of_the_cache() {
        let root = tempfile::tempdir().unwrap();
        cached(root.path());
        fs::write(
            root.path().join("models--owner--model/refs/main"),
            "../../../elsewhere",
        )
        .unwrap();
        let directories = ModelDirectories::new(None, Some(root.path().to_owned()));
        let message = directories.find("owner/model").unwrap_err().to_string();
        assert!(
            message.contains("refs/main does not name a revision"),
            "{message}"
        );
    }

    #[test]
    fn names_that_are_not_two_plain_components_are_refused() {
        for name in [
            "model",
            "a/b/c",
            "../b",
            "a/..",
            "/b",
            "a/",
            "a/b c",
            "a\\b/c",
            "a/.hidden",
            "ä/b",
        ] {
            let error = ModelDirectories::default().find(name).unwrap_err();
            assert!(matches!(error, LoadError::Name(_)), "{name:?}: {error}");
        }
        let error = ModelDirectories::default().find("owner/model").unwrap_err();
        assert!(
            error.to_string().contains("no directory is configured"),
            "{error}"
        );
    }

    #[test]
    fn a_file_over_its_limit_is_not_read() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("config.json"), "0123456789").unwrap();
        let files = ModelFiles {
            name: "a/b".to_owned(),
            directory: root.path().to_owned(),
        };
        assert_eq!(files.read("config.json", 10).unwrap(), b"0123456789");
        assert!(matches!(
            files.read("config.json", 9),
            Err(LoadError::TooLarge { limit: 9, .. })
        ));
        assert!(files.read_optional("absent.json", 9).unwrap().is_none());
    }
}
