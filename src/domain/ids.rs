//! Typed identifiers, so that a source's id can never be passed where an invocation's is meant.
//!
//! Ids are UUIDv7: their order is the order of creation, to the millisecond.

use std::{fmt, str::FromStr};

use uuid::Uuid;

use crate::error::FieldViolation;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $field:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new id, later in order than every id made before it on this machine.
            pub fn generate() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(formatter)
            }
        }

        impl FromStr for $name {
            type Err = FieldViolation;

            fn from_str(text: &str) -> Result<Self, FieldViolation> {
                parse_uuid($field, text).map(Self)
            }
        }
    };
}

id!(
    /// Names a source.
    SourceId, "source_id"
);
id!(
    /// Names an invocation.
    InvocationId, "invocation_id"
);
id!(
    /// Names an API key; not the token itself.
    ApiKeyId, "api_key_id"
);
id!(
    /// Names an uploaded file.
    UploadId, "upload_id"
);
id!(
    /// Names one worker process, for the time it runs.
    WorkerId, "worker_id"
);

/// Reads a hyphenated UUID (36 characters, any case).
///
/// # Errors
/// The violation names `field`.
pub fn parse_uuid(field: &str, text: &str) -> Result<Uuid, FieldViolation> {
    let hyphenated = text.len() == uuid::fmt::Hyphenated::LENGTH;
    match Uuid::try_parse(text) {
        Ok(id) if hyphenated => Ok(id),
        Ok(_) | Err(_) => Err(FieldViolation::new(
            field,
            "must be a UUID such as 0192e4a0-7f1c-7c3e-9a55-6a1d3c1b2f00",
        )),
    }
}
