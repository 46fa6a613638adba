//! Texts in, sparse vectors out: for each text, a few weighted indices of a space of 2^32.
//!
//! A sparse vector finds documents by the words they share with a query, beside the dense vector, which finds
//! them by meaning. Chroma keeps it in a record's metadata, under the key of the source's settings.
//!
//! Invariants: vectors come in the order of their texts; a text's vector depends on the text and the model
//! only; a text without anything to weigh has the empty vector, which is no error. Absent on purpose: where
//! vectors are kept, which is `index`'s, and how they are compared, which is Chroma's.

mod bm25;
mod murmur3;
mod stop_words;

use std::sync::Arc;

use futures::future::BoxFuture;

use super::{EmbedError, Purpose};

pub use bm25::Bm25;

pub use crate::domain::embedding::SparseVector;

/// A sparse model that is ready to embed.
pub trait SparseEmbedder: Send + Sync + 'static {
    /// Name of the model, as `owner/name`.
    fn model(&self) -> &str;

    /// What tells its vectors from those of another embedder of the same name, as
    /// [`Embedder::fingerprint`](super::Embedder::fingerprint); they are cached under it. None for a model that
    /// computes a vector in less time than it takes to look one up. The first call may take seconds.
    ///
    /// # Errors
    /// [`EmbedError::Weights`].
    fn fingerprint(&self) -> BoxFuture<'_, Result<Option<String>, EmbedError>> {
        Box::pin(async { Ok(None) })
    }

    /// Embeds `texts`, at most [`MAX_TEXTS`](super::MAX_TEXTS): one vector for each, in order.
    ///
    /// Waits while the embedder is busy. Dropping the future gives up the work that has not begun.
    ///
    /// # Errors
    /// If any text fails, all do; [`EmbedError::is_transient`] says whether to try again.
    fn embed(
        &self,
        texts: Vec<Arc<str>>,
        purpose: Purpose,
    ) -> BoxFuture<'_, Result<Vec<SparseVector>, EmbedError>>;
}
