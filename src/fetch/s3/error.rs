//! Why objects could not be listed or loaded, in words for the owner of the invocation.
//!
//! Each kind says who has to act: a permanent one fails the invocation, or the object that it is about, at once;
//! a transient one is tried again. Of what S3 answers only its code is repeated, since its texts may carry what
//! was signed.

use std::time::Duration;

use crate::{
    domain::{
        invocation::Failure,
        s3::{BucketName, Region},
    },
    fetch::{Cause, EgressError},
};

/// Why objects could not be listed or loaded.
#[derive(Debug, thiserror::Error)]
pub enum S3Error {
    /// There is no such bucket.
    #[error("bucket {bucket} does not exist in region {region}; check the source's bucket_name and region")]
    BucketNotFound {
        /// Which bucket.
        bucket: BucketName,
        /// Where it was looked for.
        region: Region,
    },
    /// There is no such object.
    #[error("object {key:?} does not exist in bucket {bucket}")]
    ObjectNotFound {
        /// Which bucket.
        bucket: BucketName,
        /// Which object.
        key: String,
    },
    /// The access key is unknown, or its secret is wrong.
    #[error(
        "S3 refuses the credentials for bucket {bucket} ({code}); register a valid access key and create a source \
         with it"
    )]
    CredentialsRefused {
        /// Which bucket.
        bucket: BucketName,
        /// S3's own name for the cause.
        code: String,
    },
    /// The access key may not list the bucket.
    #[error(
        "the credentials may not list bucket {bucket} ({code}); allow them s3:ListBucket on it, and check that \
         bucket_name is right"
    )]
    ListingDenied {
        /// Which bucket.
        bucket: BucketName,
        /// S3's own name for the cause.
        code: String,
    },
    /// The access key may not read the object. S3 answers this way for one that does not exist, too, unless
    /// the bucket may be listed.
    #[error(
        "the credentials may not read object {key:?} of bucket {bucket} ({code}); check that it exists, and allow \
         them s3:GetObject on it (with s3:ListBucket a missing object is told apart)"
    )]
    ObjectDenied {
        /// Which bucket.
        bucket: BucketName,
        /// Which object.
        key: String,
        /// S3's own name for the cause.
        code: String,
    },
    /// The bucket is in another region.
    #[error("bucket {bucket} is not in region {region}{}; create a source with its region", in_words(.actual))]
    RegionMismatch {
        /// Which bucket.
        bucket: BucketName,
        /// Region of the source.
        region: Region,
        /// Region of the bucket, where S3 tells.
        actual: Option<Region>,
    },
    /// The object lies in an archive.
    #[error(
        "object {key:?} of bucket {bucket} is archived; restore it (aws s3api restore-object), then sync it again"
    )]
    ObjectArchived {
        /// Which bucket.
        bucket: BucketName,
        /// Which object.
        key: String,
    },
    /// The object exceeds the limit.
    #[error("object {key:?} has more than {limit} bytes (s3.max_object_bytes)")]
    ObjectTooLarge {
        /// Which object.
        key: String,
        /// The limit, in bytes.
        limit: u64,
    },
    /// The object was replaced between its listing and its loading, or while it was loaded.
    #[error("object {key:?} changed while it was read")]
    ObjectChanged {
        /// Which object.
        key: String,
    },
    /// The key cannot be sent in a request.
    #[error(
        "object {key:?} cannot be requested: its key has '.' or '..' between slashes; give it another key"
    )]
    KeyUnsupported {
        /// Which object.
        key: String,
    },
    /// More objects than an invocation takes.
    #[error(
        "bucket {bucket} has more than {limit} objects to sync; give the source a path_prefix that has fewer"
    )]
    TooManyObjects {
        /// Which bucket.
        bucket: BucketName,
        /// The limit.
        limit: usize,
    },
    /// The egress policy refuses the address of the bucket.
    #[error("reading bucket {bucket} is refused: {refusal}")]
    EgressForbidden {
        /// Which bucket.
        bucket: BucketName,
        /// What the policy refuses.
        refusal: EgressError,
    },
    /// No connection, or it broke.
    #[error("cannot read bucket {bucket}: {problem}")]
    Network {
        /// Which bucket.
        bucket: BucketName,
        /// What went wrong and with which host.
        problem: String,
        /// Why.
        source: Cause,
    },
    /// S3 asks to come back later.
    #[error("{host} cannot serve bucket {bucket} for now ({code})")]
    Unavailable {
        /// Which bucket.
        bucket: BucketName,
        /// Host that answered.
        host: String,
        /// S3's own name for the cause, or the status.
        code: String,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
    },
    /// What answered does not speak S3's protocol, or refuses what no kind above stands for.
    #[error("cannot read bucket {bucket}: {problem}")]
    UnexpectedAnswer {
        /// Which bucket.
        bucket: BucketName,
        /// What was unexpected and what to check.
        problem: String,
        /// Why, where there is a cause beside the answer itself.
        source: Option<Cause>,
    },
    /// The directory for downloads cannot be written.
    #[error("the server cannot write to its directory for downloads")]
    Storage {
        /// Why.
        source: Cause,
    },
    /// A fault of this service.
    #[error("reading the bucket ended unexpectedly")]
    Internal {
        /// Why.
        source: Cause,
    },
}

fn in_words(actual: &Option<Region>) -> String {
    actual
        .as_ref()
        .map_or_else(String::new, |actual| format!(" but in {actual}"))
}

impl S3Error {
    /// The stable identifier, UPPER_SNAKE_CASE.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::BucketNotFound { .. } => "BUCKET_NOT_FOUND",
            Self::ObjectNotFound { .. } => "OBJECT_NOT_FOUND",
            Self::CredentialsRefused { .. } => "BUCKET_CREDENTIALS_REFUSED",
            Self::ListingDenied { .. } | Self::ObjectDenied { .. } => "BUCKET_ACCESS_DENIED",
            Self::RegionMismatch { .. } => "BUCKET_REGION_MISMATCH",
            Self::ObjectArchived { .. } => "OBJECT_ARCHIVED",
            Self::ObjectTooLarge { .. } => "OBJECT_TOO_LARGE",
            Self::ObjectChanged { .. } => "OBJECT_CHANGED",
            Self::KeyUnsupported { .. } => "OBJECT_KEY_UNSUPPORTED",
            Self::TooManyObjects { .. } => "BUCKET_TOO_LARGE",
            Self::EgressForbidden { .. } => "EGRESS_FORBIDDEN",
            Self::Network { .. } => "NETWORK_ERROR",
            Self::Unavailable { .. } => "BUCKET_UNAVAILABLE",
            Self::UnexpectedAnswer { .. } => "UNEXPECTED_ANSWER",
            Self::Storage { .. } => "FETCH_STORAGE_FAILED",
            Self::Internal { .. } => "INTERNAL",
        }
    }

    /// What the invocation, or the document, shows when this ends it.
    pub fn failure(&self) -> Failure {
        Failure {
            reason: self.reason().to_owned(),
            message: self.to_string(),
        }
    }

    /// Whether the same may succeed later without anybody's doing.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::ObjectChanged { .. }
            | Self::Network { .. }
            | Self::Unavailable { .. }
            | Self::Storage { .. }
            | Self::Internal { .. } => true,
            Self::BucketNotFound { .. }
            | Self::ObjectNotFound { .. }
            | Self::CredentialsRefused { .. }
            | Self::ListingDenied { .. }
            | Self::ObjectDenied { .. }
            | Self::RegionMismatch { .. }
            | Self::ObjectArchived { .. }
            | Self::ObjectTooLarge { .. }
            | Self::KeyUnsupported { .. }
            | Self::TooManyObjects { .. }
            | Self::EgressForbidden { .. }
            | Self::UnexpectedAnswer { .. } => false,
        }
    }

    /// How long S3 asks to wait before the next try.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unavailable { retry_after, .. } => *retry_after,
            Self::BucketNotFound { .. }
            | Self::ObjectNotFound { .. }
            | Self::CredentialsRefused { .. }
            | Self::ListingDenied { .. }
            | Self::ObjectDenied { .. }
            | Self::RegionMismatch { .. }
            | Self::ObjectArchived { .. }
            | Self::ObjectTooLarge { .. }
            | Self::ObjectChanged { .. }
            | Self::KeyUnsupported { .. }
            | Self::TooManyObjects { .. }
            | Self::EgressForbidden { .. }
            | Self::Network { .. }
            | Self::UnexpectedAnswer { .. }
            | Self::Storage { .. }
            | Self::Internal { .. } => None,
        }
    }

    /// Whether this is about one object alone, so that the others of its bucket can go on without it.
    pub fn concerns_one_object(&self) -> bool {
        match self {
            Self::ObjectNotFound { .. }
            | Self::ObjectDenied { .. }
            | Self::ObjectArchived { .. }
            | Self::ObjectTooLarge { .. }
            | Self::ObjectChanged { .. }
            | Self::KeyUnsupported { .. } => true,
            Self::BucketNotFound { .. }
            | Self::CredentialsRefused { .. }
            | Self::ListingDenied { .. }
            | Self::RegionMismatch { .. }
            | Self::TooManyObjects { .. }
            | Self::EgressForbidden { .. }
            | Self::Network { .. }
            | Self::Unavailable { .. }
            | Self::UnexpectedAnswer { .. }
            | Self::Storage { .. }
            | Self::Internal { .. } => false,
        }
    }
}
