//! The embedding cache, as configured.

use super::store_options;
use crate::{
    config::Config,
    error::chain,
    store::Store,
    worker::{EmbeddingCache, EmbeddingCacheOptions},
};

/// Opens the cache; none where it is turned off. One that cannot be opened is no reason not to serve.
pub(super) async fn embedding_cache(config: &Config, store: &Store) -> Option<EmbeddingCache> {
    let options = EmbeddingCacheOptions {
        max_bytes: config.embedding.cache_max_bytes,
        shared: config.embedding.cache_shared,
    };
    if options.max_bytes == 0 {
        return None;
    }
    match store.embeddings(&store_options(config)).await {
        Ok(table) => Some(EmbeddingCache::start(table, options)),
        Err(error) => {
            tracing::warn!(
                error = %chain(&error),
                "the embedding cache cannot be opened and is not used; on SQLite it is the file beside the database \
                 whose name ends in -embeddings, which may be deleted while no process runs"
            );
            None
        }
    }
}
