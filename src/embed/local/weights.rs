//! The weights files of a model: one, or the several that an index lists.

use std::{collections::BTreeMap, fs::File, path::PathBuf};

use chroma_sync_encoder::TensorFiles;
use serde::Deserialize;

use super::description::read_json;
use crate::embed::{
    LoadError, ModelFiles,
    directories::{WEIGHTS, WEIGHTS_INDEX},
};

/// The most files that a model may be split into; the largest that runs here has a handful.
const MAX_SHARDS: usize = 64;

/// `model.safetensors.index.json`: the file that each tensor is in.
#[derive(Debug, Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Opens the weights of the model in `files`; the path is that of the file to name when they cannot be used.
///
/// # Errors
/// If a file is missing or damaged, or the index names something that is no file beside it.
pub(super) fn open(files: &ModelFiles) -> Result<(PathBuf, TensorFiles), LoadError> {
    let single = files.path(WEIGHTS);
    let (named, names) = if single.is_file() {
        (single, vec![WEIGHTS.to_owned()])
    } else {
        (files.path(WEIGHTS_INDEX), shards(files)?)
    };
    let mut opened = Vec::with_capacity(names.len());
    for name in names {
        let path = files.path(&name);
        let file = File::open(&path).map_err(|source| LoadError::Read { path, source })?;
        opened.push(file);
    }
    let tensors = TensorFiles::open(opened).map_err(|source| LoadError::Weights {
        path: named.clone(),
        source: source.into(),
    })?;
    Ok((named, tensors))
}

/// The files that the index names, each once.
fn shards(files: &ModelFiles) -> Result<Vec<String>, LoadError> {
    let unsupported = |problem: String| LoadError::Unsupported {
        path: files.path(WEIGHTS_INDEX),
        problem,
    };
    let index: Index = read_json(files, WEIGHTS_INDEX)?.ok_or_else(|| LoadError::Read {
        path: files.path(WEIGHTS),
        source: std::io::ErrorKind::NotFound.into(),
    })?;
    let mut names: Vec<String> = index.weight_map.into_values().collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() || names.len() > MAX_SHARDS {
        let count = names.len();
        return Err(unsupported(format!(
            "it names {count} files, not 1 to {MAX_SHARDS}"
        )));
    }
    if let Some(name) = names
        .iter()
        .find(|name| name.contains(['/', '\\']) || name.starts_with('.'))
    {
        return Err(unsupported(format!(
            "{name:?} is not the name of a file beside it"
        )));
    }
    Ok(names)
}
