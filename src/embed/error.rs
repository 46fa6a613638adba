//! What can go wrong with embedding, while loading a model and while using it.

use std::{io, path::PathBuf};

/// Why texts could not be embedded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmbedError {
    /// One call had more texts than [`MAX_TEXTS`](super::MAX_TEXTS).
    #[error("{count} texts in one call are more than {limit}, send them in several")]
    TooManyTexts {
        /// Texts in the call.
        count: usize,
        /// Texts allowed.
        limit: usize,
    },
    /// The tokenizer refused a text.
    #[error("the tokenizer failed on a text")]
    Tokenizer(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The model gave a vector that has no direction.
    #[error("the model gave a vector that is not finite")]
    NotFinite,
    /// The thread that computed the vectors panicked; the panic is on standard error.
    #[error("the embedding thread panicked")]
    Panicked,
    /// The embedder is being dropped.
    #[error("the embedder was stopped")]
    Stopped,
}

impl EmbedError {
    /// Whether the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Stopped => true,
            Self::TooManyTexts { .. } | Self::Tokenizer(_) | Self::NotFinite | Self::Panicked => false,
        }
    }
}

/// Why a model could not be found or loaded. All of these need the operator.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The name is not `owner/name`.
    #[error("model name {0:?} is not of the form owner/name with letters, digits, '.', '_' and '-'")]
    Name(String),
    /// No place has all files of the model.
    #[error(
        "model {model} was not found: {}; run `chroma-sync models pull {model}`, or put its files there, or set \
         models.dir to the directory that holds {model}/",
        missing.join("; ")
    )]
    Missing {
        /// The model.
        model: String,
        /// For each place looked at, in order: the place and the file that is not there.
        missing: Vec<String>,
    },
    /// A file cannot be read.
    #[error("{} cannot be read, check that it exists and its permissions", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is larger than any file of its kind.
    #[error("{} has more than {limit} bytes, which no such file needs, fetch the model again", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Bytes allowed.
        limit: u64,
    },
    /// A file is damaged.
    #[error("{} is damaged, fetch the model again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the parser found.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The files are sound, but the model is none that runs here.
    #[error("{} describes a model that is not supported: {problem}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What is not supported, and what is.
        problem: String,
    },
    /// The weights file cannot be used.
    #[error("{} cannot be used", path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// Which tensor, and why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The weights give vectors that are not finite.
    #[error("{} gives vectors that are not finite, fetch the model again", path.display())]
    NotFinite {
        /// The file.
        path: PathBuf,
    },
    /// The operating system gave no thread to compute on.
    #[error("no thread could be started for model {model}")]
    Thread {
        /// The model.
        model: String,
        /// Why.
        source: io::Error,
    },
}
