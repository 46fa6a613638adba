//! The weights files of a model, mapped: one, or several.

use std::{fs::File, path::PathBuf};

use chroma_sync_encoder::{TensorError, TensorFiles};

use crate::embed::{LoadError, ModelFiles, directories::WEIGHTS_INDEX};

/// The weights of a model, open.
pub(super) struct WeightsFiles {
    /// The file to name when they cannot be used.
    pub(super) path: PathBuf,
    pub(super) tensors: TensorFiles,
}

impl WeightsFiles {
    /// Opens the weights of the model in `files`.
    ///
    /// # Errors
    /// If a file is missing or damaged, or the list of the files is.
    pub(super) fn open(files: &ModelFiles) -> Result<Self, LoadError> {
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
        match TensorFiles::open(opened) {
            Ok(tensors) => Ok(Self { path: named, tensors }),
            Err(source) => Err(damaged(named, source)),
        }
    }

    /// What is wrong with a tensor of them.
    pub(super) fn failed(&self, source: TensorError) -> LoadError {
        damaged(self.path.clone(), source)
    }
}

fn damaged(path: PathBuf, source: TensorError) -> LoadError {
    LoadError::Weights {
        path,
        source: source.into(),
    }
}
