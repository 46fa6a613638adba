//! What can go wrong with embedding, while loading a model and while using it.

use std::{io, path::PathBuf, time::Duration};

use super::remote::RemoteError;

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
    /// The device that computes the vectors failed, or has too little memory left.
    #[error("the device that computes embeddings failed")]
    Device(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The embedder is being dropped.
    #[error("the embedder was stopped")]
    Stopped,
    /// The weights can no longer be read, to tell which model computes the vectors.
    #[error("the weights of the model can no longer be read, check the disk and start the service again")]
    Weights(#[source] io::Error),
    /// A server that computes the model failed.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// Texts that can never be embedded; the others of the call can.
    #[error("{}", describe(texts))]
    TextsRefused {
        /// At least one, in order.
        texts: Vec<RefusedText>,
    },
}

/// A text that a model refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedText {
    /// Its place in the call, from 0.
    pub index: usize,
    /// Why.
    pub problem: String,
}

fn describe(texts: &[RefusedText]) -> String {
    let Some(first) = texts.first() else {
        return "texts were refused".to_owned();
    };
    let RefusedText { index, problem } = first;
    match texts.len() - 1 {
        0 => format!("text {index} was refused: {problem}"),
        more => format!("text {index} was refused, and {more} more: {problem}"),
    }
}

impl EmbedError {
    /// Whether the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Stopped | Self::Device(_) => true,
            Self::Remote(error) => error.is_transient(),
            Self::TooManyTexts { .. }
            | Self::Tokenizer(_)
            | Self::NotFinite
            | Self::Panicked
            | Self::Weights(_)
            | Self::TextsRefused { .. } => false,
        }
    }

    /// How long to wait before another try, where that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Remote(error) => error.retry_after(),
            Self::TooManyTexts { .. }
            | Self::Tokenizer(_)
            | Self::NotFinite
            | Self::Panicked
            | Self::Stopped
            | Self::Weights(_)
            | Self::Device(_)
            | Self::TextsRefused { .. } => None,
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
        "model {model} was not found: {}; run `chroma-sync models pull {model}` where a Hugging Face hub can be \
         reached, or put its files there, or set models.dir to the directory that holds {model}/; nothing is \
         downloaded by itself",
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
    /// A GPU is asked for of a build without CUDA.
    #[error(
        "embedding.device is a CUDA device, and this binary was built without CUDA: build it with `--features cuda`, \
         or set embedding.device to cpu"
    )]
    WithoutCuda,
    /// A precision that no GPU computes in.
    #[error(
        "embedding.precision is int8, which runs on the CPU alone: set it to auto, bf16 or f32, or set \
         embedding.device to cpu"
    )]
    PrecisionOnDevice,
    /// A GPU cannot be opened.
    #[error(
        "CUDA device {ordinal} cannot be used: see with nvidia-smi which devices the driver has, and set \
         embedding.device to one of them, or to cpu"
    )]
    DeviceUnavailable {
        /// Its number, from 0.
        ordinal: usize,
        /// What the driver says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A GPU does not hold a model, or does not compute it.
    #[error(
        "the device cannot run {}: see with nvidia-smi how much memory it has left, set embedding.precision to f32 \
         if it has no bf16 (before Ampere), or set embedding.device to cpu",
        path.display()
    )]
    Device {
        /// The weights of the model.
        path: PathBuf,
        /// What failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The operating system gave no thread to compute on.
    #[error("no thread could be started for model {model}")]
    Thread {
        /// The model.
        model: String,
        /// Why.
        source: io::Error,
    },
    /// The key or the name of a remote model cannot be sent.
    #[error(
        "embedding.providers.api_key or remote_model of model {model} has characters that no header can carry"
    )]
    RemoteHeader {
        /// The model.
        model: String,
    },
    /// The client of a remote model cannot start.
    #[error("the HTTP client of model {model} cannot start")]
    RemoteClient {
        /// The model.
        model: String,
        /// Why.
        source: reqwest::Error,
    },
}
