//! What tells the vectors of one model from those of another that has the same name.
//!
//! A digest of the weights, the tokenizer and the configuration. The weights take a second for each 1.5 GB and are of
//! use to those alone who keep vectors, so they are read when the fingerprint is first asked for: a process that only
//! answers queries never does. The files are opened when the model is loaded, so what is read later is what was
//! loaded, even if others took the places of those files meanwhile.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::Arc,
};

use ring::digest::{Context, SHA256};
use tokio::{sync::OnceCell, task};

use super::{EmbedError, LoadError, ModelFiles};

/// Suffixes of the files that decide about vectors: weights, tokenizer and configuration.
const SUFFIXES: [&str; 3] = [WEIGHTS_SUFFIX, "json", "txt"];
const WEIGHTS_SUFFIX: &str = "safetensors";
/// The most files of a model, which keeps a mistaken directory from being read whole.
const MAX_FILES: usize = 256;
/// Bytes read at once.
const BUFFER: usize = 1 << 20;

/// The fingerprint of a model that was loaded, as 64 hexadecimal digits.
pub(super) struct Fingerprint {
    unread: Arc<Unread>,
    read: OnceCell<String>,
}

/// What is known without the weights.
struct Unread {
    /// Has taken in everything else.
    context: Context,
    /// By their names, in order.
    weights: Vec<(String, File)>,
}

impl Fingerprint {
    /// That of the model in `files`; `computed` says how vectors are computed with them, where that changes more than
    /// the last digits. Reads tokenizer and configuration, and opens the weights.
    ///
    /// # Errors
    /// [`LoadError::Read`].
    pub(super) fn open(files: &ModelFiles, computed: &str) -> Result<Self, LoadError> {
        let mut context = Context::new(&SHA256);
        part(&mut context, computed.as_bytes());
        let mut weights = Vec::new();
        for name in names(files)? {
            let path = files.path(&name);
            let opened = File::open(&path).and_then(|mut file| {
                if name.ends_with(WEIGHTS_SUFFIX) {
                    weights.push((name, file));
                    return Ok(());
                }
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes)?;
                part(&mut context, name.as_bytes());
                part(&mut context, &bytes);
                Ok(())
            });
            opened.map_err(|source| LoadError::Read { path, source })?;
        }
        Ok(Self {
            unread: Arc::new(Unread { context, weights }),
            read: OnceCell::new(),
        })
    }

    /// The fingerprint. The first call reads the weights, on a blocking thread; later ones find what it found.
    ///
    /// # Errors
    /// [`EmbedError::Weights`].
    pub(super) async fn get(&self) -> Result<String, EmbedError> {
        let read = || async {
            let unread = Arc::clone(&self.unread);
            match task::spawn_blocking(move || unread.read()).await {
                Ok(read) => read.map_err(EmbedError::Weights),
                Err(ended) if ended.is_panic() => Err(EmbedError::Panicked),
                Err(_) => Err(EmbedError::Stopped),
            }
        };
        self.read.get_or_try_init(read).await.cloned()
    }
}

impl Unread {
    fn read(&self) -> io::Result<String> {
        let mut context = self.context.clone();
        let mut buffer = vec![0; BUFFER];
        for (name, file) in &self.weights {
            part(&mut context, name.as_bytes());
            // At offsets of its own, since a call that was given up may still be reading.
            let mut length = 0_u64;
            loop {
                let read = file.read_at(&mut buffer, length)?;
                let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else {
                    break;
                };
                context.update(bytes);
                length += read as u64;
            }
            context.update(&length.to_le_bytes());
        }
        Ok(hex::encode(context.finish()))
    }
}

/// A part whose length goes first, so that no two lists of parts run together into the same bytes.
fn part(context: &mut Context, bytes: &[u8]) {
    context.update(&(bytes.len() as u64).to_le_bytes());
    context.update(bytes);
}

/// The files that count, in the directory and those right below it, sorted.
fn names(files: &ModelFiles) -> Result<Vec<String>, LoadError> {
    let mut names = Vec::new();
    let mut directories = vec![String::new()];
    while let Some(directory) = directories.pop() {
        let path = match directory.is_empty() {
            true => files.directory().to_owned(),
            false => files.path(&directory),
        };
        let failed = |path: PathBuf| move |source| LoadError::Read { path, source };
        for entry in fs::read_dir(&path).map_err(failed(path.clone()))? {
            let entry = entry.map_err(failed(path.clone()))?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let name = match directory.is_empty() {
                true => name,
                false => format!("{directory}/{name}"),
            };
            // The Hugging Face cache holds links to files.
            let is_directory = fs::metadata(entry.path()).is_ok_and(|metadata| metadata.is_dir());
            let suffix = name.rsplit('.').next().unwrap_or_default();
            if is_directory && directory.is_empty() && !name.starts_with('.') {
                directories.push(name);
            } else if !is_directory && SUFFIXES.contains(&suffix) && names.len() < MAX_FILES {
                names.push(name);
            }
        }
    }
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use crate::embed::ModelDirectories;

    /// The files of a model, which is none.
    fn model(root: &std::path::Path) -> (PathBuf, ModelFiles) {
        let directory = root.join("owner/model");
        fs::create_dir_all(directory.join("1_Pooling")).unwrap();
        for name in FILES {
            fs::write(directory.join(name), name).unwrap();
        }
        let directories = ModelDirectories::new(Some(root.to_owned()), None);
        (directory, directories.find("owner/model").unwrap())
    }

    const FILES: [&str; 4] = [
        "config.json",
        "tokenizer.json",
        "model.safetensors",
        "1_Pooling/config.json",
    ];

    async fn of(files: &ModelFiles, computed: &str) -> String {
        Fingerprint::open(files, computed).unwrap().get().await.unwrap()
    }

    #[tokio::test]
    async fn a_fingerprint_changes_with_weights_tokenizer_configuration_and_precision_and_with_nothing_else()
    {
        let root = tempfile::tempdir().unwrap();
        let (directory, files) = model(root.path());
        let first = of(&files, "f32").await;
        assert_eq!(first.len(), 64);
        fs::write(directory.join("README.md"), "changed").unwrap();
        assert_eq!(of(&files, "f32").await, first);
        assert_ne!(of(&files, "bf16").await, first);
        let mut seen = vec![first];
        for name in FILES {
            fs::write(directory.join(name), "changed").unwrap();
            let changed = of(&files, "f32").await;
            assert!(!seen.contains(&changed), "{name}");
            seen.push(changed);
        }
    }

    #[tokio::test]
    async fn it_is_that_of_the_files_that_were_loaded_though_others_took_their_places() {
        let root = tempfile::tempdir().unwrap();
        let (directory, files) = model(root.path());
        let first = of(&files, "").await;
        let loaded = Fingerprint::open(&files, "").unwrap();
        for name in FILES {
            let new = directory.join("new");
            fs::write(&new, "changed").unwrap();
            fs::rename(new, directory.join(name)).unwrap();
        }
        assert_eq!(loaded.get().await.unwrap(), first);
        assert_ne!(of(&files, "").await, first);
    }

    #[tokio::test]
    async fn weights_are_read_when_it_is_first_asked_for_and_never_again() {
        let root = tempfile::tempdir().unwrap();
        let (directory, files) = model(root.path());
        let unread = of(&files, "").await;
        let loaded = Fingerprint::open(&files, "").unwrap();
        // In place, which nobody must do: it shows when the file is read.
        let weights = directory.join("model.safetensors");
        fs::write(&weights, "rewritten").unwrap();
        let read = loaded.get().await.unwrap();
        assert_ne!(read, unread);
        fs::write(&weights, "and again").unwrap();
        assert_eq!(loaded.get().await.unwrap(), read);
    }
}
