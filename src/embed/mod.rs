//! Texts in, vectors out: the models that turn chunks and queries into dense embeddings, and those that turn
//! them into sparse ones ([`sparse`]).
//!
//! Everything above sees the [`Embedder`] trait alone, so a model may run in this process
//! ([`LocalEmbedder`]) or on other servers ([`remote`]). [`Embedders`] holds one for each model the server serves,
//! and its catalog is what sources are checked against. [`hub`] fetches the files of models, when it is asked to.
//!
//! Invariants: vectors come in the order of their texts and have length 1; a text's vector depends on the
//! text, the model and the instruction only, not on what else was in the call; an embedder never computes on
//! a runtime thread and never queues without bound. Absent on purpose: caching (the worker's `embedding_cache`) and
//! retries of whole calls, which are the pipeline's, and downloading of models by a server that starts.

mod directories;
mod error;
mod fingerprint;
pub mod hub;
mod local;
mod registry;
pub mod remote;
pub mod sparse;

use std::sync::Arc;

use futures::future::BoxFuture;

use crate::domain::embedding::ModelDescription;

pub use chroma_sync_encoder::Precision;
pub use directories::{ModelDirectories, ModelFiles};
pub use error::{EmbedError, LoadError, RefusedText};
pub use local::{Device, LocalEmbedder, LocalModel, LocalOptions, LocalSparseEmbedder, Tokens};
pub use registry::Embedders;
pub use sparse::{Bm25, SparseEmbedder, SparseVector};

/// The most texts of one call; it bounds the memory that a call can ask for.
pub const MAX_TEXTS: usize = 8192;

/// Refuses a call with more than [`MAX_TEXTS`].
fn check_count(texts: &[Arc<str>]) -> Result<(), EmbedError> {
    match texts.len() {
        count if count > MAX_TEXTS => Err(EmbedError::TooManyTexts {
            count,
            limit: MAX_TEXTS,
        }),
        _ => Ok(()),
    }
}

/// What stands before a text for a model that takes instructions; the text follows without a space.
///
/// Source: the model card of `Qwen/Qwen3-Embedding-0.6B`.
fn before_text(instruction: &str) -> String {
    format!("Instruct: {instruction}\nQuery:")
}

/// Why texts are embedded, which decides who waits for whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// To be found.
    Document,
    /// To find documents. Someone waits for the answer, so queries overtake documents.
    Query,
}

/// A text as a model sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct EmbeddedText {
    /// As many floats as the model has dimensions; the sum of their squares is 1. (A text of no tokens has
    /// zeros, but models that are known add tokens of their own to each text.)
    pub vector: Vec<f32>,
    /// Tokens that the model read, those it adds by itself included.
    pub tokens: u32,
    /// Whether the text was longer than the model reads, and its end went unread.
    pub truncated: bool,
}

/// A model that is ready to embed.
pub trait Embedder: Send + Sync + 'static {
    /// Name and sizes of the model.
    fn model(&self) -> &ModelDescription;

    /// What tells its vectors from those of another embedder of the same name: two with equal fingerprints give a
    /// text vectors that may stand in one collection. Embeddings are cached, and records copied from collection to
    /// collection, under it. Must be the same in every process and after every restart.
    ///
    /// The default is the name, for a model that someone else serves and whose weights are not seen. The first call
    /// may take seconds.
    ///
    /// # Errors
    /// [`EmbedError::Weights`].
    fn fingerprint(&self) -> BoxFuture<'_, Result<String, EmbedError>> {
        let name = self.model().name.clone();
        Box::pin(async move { Ok(name) })
    }

    /// Embeds `texts`, at most [`MAX_TEXTS`]: one result for each, in order.
    ///
    /// `instruction` says what the vectors are for, as one of a [`Task`]'s prompts does. Empty means that the
    /// texts are embedded as they are. A model that takes no instructions
    /// ([`ModelDescription::takes_instructions`]) does not read it.
    ///
    /// [`Task`]: crate::domain::embedding::Task
    ///
    /// Waits while the embedder is busy. Dropping the future gives up the work that has not begun.
    ///
    /// # Errors
    /// If any text fails, all do; [`EmbedError::is_transient`] says whether to try again.
    fn embed(
        &self,
        texts: Vec<Arc<str>>,
        purpose: Purpose,
        instruction: &str,
    ) -> BoxFuture<'_, Result<Vec<EmbeddedText>, EmbedError>>;
}
