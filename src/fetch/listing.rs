//! What is known of a document before it is loaded.

use crate::domain::document::SkipRule;

/// What becomes of a listed document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listed {
    /// It is to be loaded.
    Load,
    /// Its source says that it did not change since it was indexed last.
    Unchanged,
    /// A rule leaves it out already.
    Skip(SkipRule),
    /// It is there but cannot be had; the text says why, to the owner of the invocation.
    Failed(String),
}

/// One document of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name within the source; unique within the listing.
    pub document_key: String,
    /// What identifies its content: a blob id for a file of a repository (for a submodule the id of its
    /// commit), an ETag for an object, the SHA-256 of the content for a page or an upload.
    pub version_key: String,
    /// Size of the content in bytes, where the listing knows it.
    pub size_bytes: Option<u64>,
    /// What becomes of it.
    pub decision: Listed,
    /// What the fetcher wants to be told of it by the next invocation, in words of its own.
    pub memo: Option<String>,
}
