//! What one invocation syncs, by the type of its source.

use super::{
    ids::UploadId,
    names::FileName,
    s3::{BucketName, CustomId, ObjectKey},
    source::SourceType,
    user_metadata::UserMetadata,
};
use crate::error::FieldViolation;

/// Git's name for the tip of the default branch.
pub const DEFAULT_BRANCH: &str = "HEAD";

/// Which commit of a repository an invocation syncs.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GitReference {
    /// The tip of a branch (or a tag of that name, when no branch has it).
    Branch(String),
    /// This very commit.
    Sha(String),
}

impl GitReference {
    /// A branch name as git allows it, 1 to 255 bytes; the violation names `field`.
    pub fn branch(field: &str, name: &str) -> Result<Self, FieldViolation> {
        let forbidden =
            |c: char| c.is_control() || matches!(c, ' ' | '~' | '^' | ':' | '?' | '*' | '[' | '\\');
        let bad_part = |part: &str| part.is_empty() || part.starts_with('.') || part.ends_with(".lock");
        let wrong = name.is_empty()
            || name.len() > 255
            || name.chars().any(forbidden)
            || name.contains("..")
            || name.contains("@{")
            || name == "@"
            || name.starts_with('-')
            || name.ends_with('.')
            || name.split('/').any(bad_part);
        if wrong {
            return Err(FieldViolation::new(
                field,
                "must be a branch name as git allows it (git check-ref-format), 1 to 255 bytes",
            ));
        }
        Ok(Self::Branch(name.to_owned()))
    }

    /// A branch name, or `HEAD`, git's own name for the tip of the default branch, which is `None`.
    pub fn branch_or_default(field: &str, name: &str) -> Result<Option<Self>, FieldViolation> {
        if name == DEFAULT_BRANCH {
            return Ok(None);
        }
        Self::branch(field, name).map(Some)
    }

    /// A full commit id: 40 hexadecimal digits; the violation names `field`.
    pub fn sha(field: &str, sha: &str) -> Result<Self, FieldViolation> {
        if sha.len() == 40 && sha.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Ok(Self::Sha(sha.to_ascii_lowercase()));
        }
        Err(FieldViolation::new(
            field,
            "must be a full commit id of 40 hexadecimal digits",
        ))
    }
}

/// Which objects of a bucket an invocation syncs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum S3Objects {
    /// One object.
    Object {
        /// Its key.
        key: ObjectKey,
        /// What its records are named after instead of its key.
        custom_id: Option<CustomId>,
        /// What its records say beside what all records say.
        metadata: UserMetadata,
    },
    /// One object that was removed: its records are removed as well.
    Removed {
        /// Its key.
        key: ObjectKey,
    },
    /// Every object under the source's prefix.
    Prefix,
}

/// An uploaded file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadedFile {
    /// Where its bytes lie.
    pub upload_id: UploadId,
    /// Its name.
    pub file_name: FileName,
    /// What its records are named after instead of its name.
    pub custom_id: Option<CustomId>,
    /// What its records say beside what all records say.
    pub metadata: UserMetadata,
    /// What it was said to be; none when its name says it.
    pub content_type: Option<String>,
    /// SHA-256 of its content, 64 lowercase hexadecimal digits.
    pub content_sha256: String,
    /// Its size.
    pub size_bytes: u64,
}

/// What one invocation syncs, by the type of its source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InvocationInput {
    /// A git repository.
    Github {
        /// Which commit; none means the default branch.
        reference: Option<GitReference>,
    },
    /// Objects of a bucket.
    S3 {
        /// Name of the bucket.
        bucket: BucketName,
        /// Which objects.
        objects: S3Objects,
    },
    /// A web site.
    WebScrape,
    /// An uploaded file.
    FileUpload(UploadedFile),
}

impl InvocationInput {
    /// The type of the source this belongs to.
    pub fn source_type(&self) -> SourceType {
        match self {
            Self::Github { .. } => SourceType::Github,
            Self::S3 { .. } => SourceType::S3,
            Self::WebScrape => SourceType::WebScrape,
            Self::FileUpload(_) => SourceType::FileUpload,
        }
    }

    /// The object or file that callers look it up by; none where it has no such one.
    pub fn object_key(&self) -> Option<&str> {
        match self {
            Self::S3 { objects, .. } => match objects {
                S3Objects::Object { key, .. } | S3Objects::Removed { key } => Some(key.as_str()),
                S3Objects::Prefix => None,
            },
            Self::FileUpload(file) => Some(file.file_name.as_str()),
            Self::Github { .. } | Self::WebScrape => None,
        }
    }

    /// Whether no other live invocation may write to the collection meanwhile: those that make a collection
    /// show their source as a whole. Objects and uploads add to collections that they share.
    pub fn is_exclusive(&self) -> bool {
        match self {
            Self::Github { .. } | Self::WebScrape => true,
            Self::S3 { .. } | Self::FileUpload(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branch_names_follow_git() {
        for good in ["main", "feature/x", "release-1.2", "ünïcode"] {
            assert!(GitReference::branch("branch", good).is_ok(), "{good}");
        }
        for bad in [
            "", "a..b", "-x", "a b", "a~1", "a:b", "x.lock", "a//b", "/a", "a/", ".a", "a@{1}", "a\u{0}",
        ] {
            assert!(GitReference::branch("branch", bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_sha_is_forty_hexadecimal_digits() {
        let sha = "ABCDEF0123456789abcdef0123456789abcdef01";
        assert_eq!(
            GitReference::sha("sha", sha),
            Ok(GitReference::Sha(sha.to_ascii_lowercase()))
        );
        for bad in ["", "abc", &"g".repeat(40), &"a".repeat(41)] {
            assert!(GitReference::sha("sha", bad).is_err(), "{bad}");
        }
    }
}
