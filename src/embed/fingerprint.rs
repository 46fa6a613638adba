//! What tells the vectors of one model from those of another that has the same name.

use std::{fs, io::Read, path::PathBuf};

use ring::digest::{Context, SHA256};

use super::{LoadError, ModelFiles};

/// Suffixes of the files that decide about vectors: weights, tokenizer and configuration.
const SUFFIXES: [&str; 3] = ["safetensors", "json", "txt"];
/// The most files of a model, which keeps a mistaken directory from being read whole.
const MAX_FILES: usize = 256;
/// Bytes read at once.
const BUFFER: usize = 1 << 20;

/// A digest of the weights, the tokenizer and the configuration in `files`, as 64 hexadecimal digits. `precision`
/// stands for how they are computed with, where that changes more than the last digits of a vector.
///
/// Reads all of these files, a second for each 1.5 GB that the system has in memory.
///
/// # Errors
/// [`LoadError::Read`].
pub(super) fn of_files(files: &ModelFiles, precision: &str) -> Result<String, LoadError> {
    let mut context = Context::new(&SHA256);
    part(&mut context, precision.as_bytes());
    let mut buffer = vec![0; BUFFER];
    for name in names(files)? {
        part(&mut context, name.as_bytes());
        let path = files.path(&name);
        let failed = |source| LoadError::Read {
            path: path.clone(),
            source,
        };
        let mut file = fs::File::open(&path).map_err(failed)?;
        let mut length = 0_u64;
        loop {
            let read = file.read(&mut buffer).map_err(failed)?;
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

    #[test]
    fn a_fingerprint_changes_with_weights_tokenizer_configuration_and_precision_and_with_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("owner/model");
        fs::create_dir_all(directory.join("1_Pooling")).unwrap();
        let write = |name: &str, text: &str| fs::write(directory.join(name), text).unwrap();
        for name in [
            "config.json",
            "tokenizer.json",
            "model.safetensors",
            "1_Pooling/config.json",
        ] {
            write(name, name);
        }
        let directories = ModelDirectories::new(Some(root.path().to_owned()), None);
        let files = directories.find("owner/model").unwrap();
        let fingerprint = || of_files(&files, "f32").unwrap();
        let first = fingerprint();
        assert_eq!(first.len(), 64);
        write("README.md", "changed");
        assert_eq!(fingerprint(), first);
        assert_ne!(of_files(&files, "bf16").unwrap(), first);
        let mut seen = vec![first];
        for name in [
            "config.json",
            "tokenizer.json",
            "model.safetensors",
            "1_Pooling/config.json",
        ] {
            write(name, "changed");
            let changed = fingerprint();
            assert!(!seen.contains(&changed), "{name}");
            seen.push(changed);
        }
    }
}
