//! Documents and what becomes of them.
//!
//! A document is one file, object, page or upload, named by its `document_key`. Every document that
//! an invocation discovers ends in exactly one [`DocumentOutcome`], so the counts add up.

use sha2::{Digest, Sha256};

/// Name of a document within its source: a repository path, object key, URL or file name.
pub type DocumentKey = String;

/// Lowercase hex SHA-256 of a document key or version key (64 characters).
pub fn sha256_hex(text: &str) -> String {
    hex::encode(Sha256::digest(text.as_bytes()))
}

/// Id of chunk `n` (from 0) of a document: `{base}-{n}`, where `base` is the caller's custom id or else the
/// digest of the document's key.
///
/// Source: Chroma Sync documents this form for S3 objects and uploads; we use it for all types.
pub fn record_id(base: &str, n: u32) -> String {
    format!("{base}-{n}")
}

/// The rule by which a document was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SkipRule {
    /// Larger than the configured limit.
    TooLarge,
    /// Holds binary data.
    Binary,
    /// Is not UTF-8 text.
    NotUtf8,
    /// Is a symbolic link.
    Symlink,
    /// Is a submodule.
    Submodule,
    /// Is a Git LFS pointer, not the file itself.
    LfsPointer,
    /// Has no text, or white space alone.
    Empty,
    /// Has a name that is not UTF-8.
    InvalidKey,
    /// Is a picture, and nobody is configured who describes pictures.
    ImageNotDescribed,
    /// Has the content of a page that was found before.
    Duplicate,
    /// Is a page that robots.txt does not allow to be fetched.
    Robots,
    /// Is a page that asks to be in no index.
    NoIndex,
    /// Is of a media type that no text is made of.
    NotText,
    /// Redirects to another site.
    OffSite,
}

impl SkipRule {
    /// Every rule.
    pub const ALL: [Self; 14] = [
        Self::TooLarge,
        Self::Binary,
        Self::NotUtf8,
        Self::Symlink,
        Self::Submodule,
        Self::LfsPointer,
        Self::Empty,
        Self::InvalidKey,
        Self::ImageNotDescribed,
        Self::Duplicate,
        Self::Robots,
        Self::NoIndex,
        Self::NotText,
        Self::OffSite,
    ];

    /// The name in the ledger and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Binary => "binary",
            Self::NotUtf8 => "not_utf8",
            Self::Symlink => "symlink",
            Self::Submodule => "submodule",
            Self::LfsPointer => "lfs_pointer",
            Self::Empty => "empty",
            Self::InvalidKey => "invalid_key",
            Self::ImageNotDescribed => "image_not_described",
            Self::Duplicate => "duplicate",
            Self::Robots => "robots",
            Self::NoIndex => "noindex",
            Self::NotText => "not_text",
            Self::OffSite => "off_site",
        }
    }

    /// The rule with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rule| rule.as_str() == name)
    }
}

/// What became of a document in one invocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DocumentOutcome {
    /// Listed; nothing has been decided yet.
    Discovered,
    /// Its records are in the collection.
    Indexed,
    /// The collection already holds this version; nothing was computed.
    Unchanged,
    /// Gone from the source; its records were deleted.
    Removed,
    /// Left out by a rule.
    Skipped(SkipRule),
    /// Could not be processed; the text says why.
    Failed(String),
}

/// One row of the ledger: a document and what became of it in one invocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Position in the invocation's listing, from 0.
    pub ordinal: u32,
    /// Its name within the source.
    pub document_key: DocumentKey,
    /// What identifies its content: the git blob id for a repository file.
    pub version_key: String,
    /// Size of the content in bytes, where the listing knows it.
    pub size_bytes: Option<u64>,
    /// What became of it.
    pub outcome: DocumentOutcome,
    /// Number of records it has in the collection.
    pub chunks: u32,
    /// What the fetcher of its source wants to be told of it the next time; never shown.
    pub memo: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_ids_are_the_documented_form() {
        let hash = sha256_hex("abc");
        assert_eq!(
            hash,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(record_id(&hash, 7), format!("{hash}-7"));
    }

    #[test]
    fn every_skip_rule_is_found_by_its_name() {
        for rule in SkipRule::ALL {
            assert_eq!(SkipRule::from_name(rule.as_str()), Some(rule));
        }
    }
}
