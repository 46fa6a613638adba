//! Whether a Chroma server takes sparse vectors, and whether a collection has an index for them.

use std::sync::atomic::Ordering;

use serde_json::json;
use uuid::Uuid;

use super::{
    batch::to_json, client::ChromaClient, error::IndexError, function::SparseIndex, transport::Call,
    types::Collection,
};
use crate::domain::names::TenantName;

/// Whether sparse vectors are sent to a Chroma server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SparseVectors {
    /// If the server takes them; it is asked.
    #[default]
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

impl ChromaClient {
    /// Whether the server takes sparse vectors; [`ChromaOptions::sparse_vectors`] decides where it is not `Auto`.
    ///
    /// A server says so nowhere. So it is asked to create a collection with a sparse index in a database of
    /// `tenant` that does not exist: a single-node server (1.5) refuses the index before it looks for the
    /// database. Nothing is created either way. A yes is kept; a no is asked again, since the server may be
    /// another one by then.
    ///
    /// A server that refuses the database before it looks at the index, as one may that checks tokens, is taken to
    /// take them: then the first invocation fails and says why.
    ///
    /// [`ChromaOptions::sparse_vectors`]: super::ChromaOptions::sparse_vectors
    ///
    /// # Errors
    /// [`IndexError::Unavailable`] and the like, when the server does not answer.
    pub async fn takes_sparse_vectors(&self, tenant: &TenantName) -> Result<bool, IndexError> {
        match self.transport.sparse_vectors() {
            SparseVectors::On => return Ok(true),
            SparseVectors::Off => return Ok(false),
            SparseVectors::Auto => {}
        }
        if self.sparse_taken.load(Ordering::Relaxed) {
            return Ok(true);
        }
        let nowhere = format!("chroma-sync-probe-{}", Uuid::now_v7().simple());
        let url =
            self.transport
                .endpoint(&["tenants", tenant.as_str(), "databases", &nowhere, "collections"]);
        let body = to_json(&json!({
            "name": "probe",
            "schema": {
                "defaults": {},
                "keys": {"sparse": {"sparse_vector": {"sparse_vector_index": {"enabled": true, "config": {}}}}},
            },
        }))?;
        let taken = match self
            .transport
            .call_unit(Call::post("sparse probe", url, body))
            .await
        {
            Err(IndexError::Unsupported { .. }) => false,
            Err(IndexError::Rejected { message, .. }) => !is_about_sparse(&message),
            Ok(()) => true,
            Err(IndexError::Unauthorized { .. }) => return Ok(true),
            Err(error) => return Err(error),
        };
        self.sparse_taken.store(taken, Ordering::Relaxed);
        Ok(taken)
    }

    /// Whether the server was found to take sparse vectors, or is said to.
    pub fn is_known_to_take_sparse_vectors(&self) -> bool {
        match self.transport.sparse_vectors() {
            SparseVectors::On => true,
            SparseVectors::Off => false,
            SparseVectors::Auto => self.sparse_taken.load(Ordering::Relaxed),
        }
    }
}

/// Whether a refusal is about sparse vectors.
pub(super) fn is_about_sparse(message: &str) -> bool {
    message.to_ascii_lowercase().contains("sparse")
}

impl Collection {
    /// Refuses sparse vectors that no index of the collection would find.
    pub(super) fn check_sparse(&self, wanted: Option<&SparseIndex>) -> Result<(), IndexError> {
        let (Some(wanted), Some(indexes)) = (wanted, &self.sparse_indexes) else {
            return Ok(());
        };
        let problem = match indexes.get(&wanted.key) {
            None => "has no sparse index".to_owned(),
            Some(Some(found)) if found.name != wanted.embedding_function.name => {
                format!("has a sparse index for {:?}", found.name)
            }
            Some(_) => return Ok(()),
        };
        Err(IndexError::SparseIndexMismatch {
            collection: self.name.clone(),
            key: wanted.key.clone(),
            problem,
        })
    }
}
