//! Why an upload cannot be stored or read.

use std::path::PathBuf;

use crate::{
    domain::{ids::UploadId, invocation::Failure},
    error::{Error, Reason},
};

/// What went wrong below.
type Cause = Box<dyn std::error::Error + Send + Sync>;

/// What can go wrong with the store of uploads.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The directory cannot be made, or is not writable.
    #[error("cannot write to the directory for uploads {path}; make it writable, or set uploads.directory")]
    Directory {
        /// Where it is to be.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The options of the bucket do not fit together.
    #[error("the bucket for uploads cannot be used; check uploads.s3_bucket and the options after it")]
    Bucket {
        /// Why.
        source: Cause,
    },
    /// The upload, or a part of it, is not there.
    #[error("upload {id} is no longer stored")]
    Missing {
        /// Which upload.
        id: UploadId,
    },
    /// Reading or writing failed.
    #[error("the uploads cannot be {action}")]
    Storage {
        /// What was tried: `written`, `read` or `removed`.
        action: &'static str,
        /// Why.
        source: Cause,
    },
}

impl UploadError {
    pub(super) fn storage(action: &'static str, source: impl Into<Cause>) -> Self {
        Self::Storage {
            action,
            source: source.into(),
        }
    }

    /// Whether the same may succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Storage { .. } => true,
            Self::Directory { .. } | Self::Bucket { .. } | Self::Missing { .. } => false,
        }
    }

    /// What the owner of an invocation is told.
    pub fn failure(&self) -> Failure {
        let (reason, message) = match self {
            Self::Missing { .. } => (
                "UPLOAD_NOT_FOUND",
                "the uploaded file is no longer stored; upload it again, and ask the operator whether all \
                 processes have the same [uploads]",
            ),
            Self::Directory { .. } | Self::Bucket { .. } | Self::Storage { .. } => (
                "UPLOAD_STORAGE_FAILED",
                "the uploaded file cannot be read from where uploads are stored ([uploads]); the worker's log has \
                 the cause",
            ),
        };
        Failure {
            reason: reason.to_owned(),
            message: message.to_owned(),
        }
    }
}

impl From<UploadError> for Error {
    fn from(error: UploadError) -> Self {
        Error::new(
            Reason::UploadsUnavailable,
            "the service cannot store uploads for now; try again",
        )
        .with_retry_after(std::time::Duration::from_secs(5))
        .with_cause(error)
    }
}
