//! The weights files of a model: one, or the several that an index lists.

use std::{fs::File, path::PathBuf};

use chroma_sync_encoder::TensorFiles;

use crate::embed::{LoadError, ModelFiles, directories::WEIGHTS_INDEX};

/// Opens the weights of the model in `files`; the path is that of the file to name when they cannot be used.
///
/// # Errors
/// If a file is missing or damaged.
pub(super) fn open(files: &ModelFiles) -> Result<(PathBuf, TensorFiles), LoadError> {
    let paths = files.weights()?;
    let named = match paths.as_slice() {
        [single] => single.clone(),
        _ => files.path(WEIGHTS_INDEX),
    };
    let mut opened = Vec::with_capacity(paths.len());
    for path in paths {
        let file = File::open(&path).map_err(|source| LoadError::Read { path, source })?;
        opened.push(file);
    }
    let tensors = TensorFiles::open(opened).map_err(|source| LoadError::Weights {
        path: named.clone(),
        source: source.into(),
    })?;
    Ok((named, tensors))
}
