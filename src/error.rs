//! The one error type that use cases return and both transports translate.
//!
//! An [`Error`] says who has to do what next: its [`ErrorCode`] picks the gRPC code and the HTTP
//! status, its [`Reason`] is the stable, public identifier listed in `docs/errors.md`, and its
//! message is written for the caller. The cause is kept apart, reaches the log alone and is never
//! printed by `Display`. Absent on purpose: any status code. Only `grpc/` and `rest/` know those.

use std::{borrow::Cow, collections::BTreeMap, fmt, time::Duration};

/// The longest message, and the longest description of a violation, in bytes.
///
/// An error travels twice in the headers of a gRPC answer, in ASCII, and some clients take no more than 8 KiB
/// of headers: they would see a broken connection in place of what is wrong.
const MAX_TEXT_BYTES: usize = 1_024;
/// The longest path of a field, in bytes.
const MAX_FIELD_BYTES: usize = 256;

/// The result of a use case.
pub type Result<T> = std::result::Result<T, Error>;

/// What kind of answer an error is; a restricted subset of the gRPC codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The request itself is wrong, whatever the state of the system.
    InvalidArgument,
    /// No token, or one that is not valid.
    Unauthenticated,
    /// The token is valid but may not do this.
    PermissionDenied,
    /// The thing does not exist, or is hidden from this token.
    NotFound,
    /// The thing to be created exists already.
    AlreadyExists,
    /// The system is not in a state in which this can be done.
    FailedPrecondition,
    /// A limit was reached; try again later.
    ResourceExhausted,
    /// A part the service needs is away, or the service drains; try again.
    Unavailable,
    /// The work did not end in the time allowed.
    DeadlineExceeded,
    /// The server does not serve this method.
    Unimplemented,
    /// A fault of ours. The message is fixed, the cause is in the log.
    Internal,
}

/// Declares [`Reason`] with its wire names and the list the documentation test compares.
macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal => $code:ident,)+) => {
        /// Stable identifier of one kind of error, sent as `ErrorInfo.reason` and as `reason` in JSON.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[$doc])* $variant,)+ }

        impl Reason {
            /// Every reason, in the order of `docs/errors.md`.
            pub const ALL: &'static [Reason] = &[$(Reason::$variant,)+];

            /// The name on the wire, UPPER_SNAKE_CASE.
            pub const fn as_str(self) -> &'static str {
                match self { $(Reason::$variant => $name,)+ }
            }

            /// The code every error with this reason has.
            pub const fn code(self) -> ErrorCode {
                match self { $(Reason::$variant => ErrorCode::$code,)+ }
            }
        }
    };
}

reasons! {
    /// A field of the request has a value that is not allowed; the violations name it.
    InvalidField = "INVALID_FIELD" => InvalidArgument,
    /// The body could not be read as the expected message.
    MalformedRequest = "MALFORMED_REQUEST" => InvalidArgument,
    /// A page token is damaged, or belongs to another listing.
    InvalidPageToken = "INVALID_PAGE_TOKEN" => InvalidArgument,
    /// The request names an embedding model that this server does not serve.
    UnknownModel = "UNKNOWN_MODEL" => InvalidArgument,
    /// `after_revision` lies ahead of the invocation's revision.
    RevisionAhead = "REVISION_AHEAD" => InvalidArgument,
    /// A resume token is damaged, or lies ahead of everything that has happened.
    InvalidResumeToken = "INVALID_RESUME_TOKEN" => InvalidArgument,
    /// The request carries no token.
    TokenMissing = "TOKEN_MISSING" => Unauthenticated,
    /// The token is unknown, revoked or expired.
    TokenInvalid = "TOKEN_INVALID" => Unauthenticated,
    /// The token's role may not do this.
    RoleInsufficient = "ROLE_INSUFFICIENT" => PermissionDenied,
    /// The token is bound to other databases.
    DatabaseForbidden = "DATABASE_FORBIDDEN" => PermissionDenied,
    /// The Chroma server does not allow what was asked with the caller's token (mode `chroma`).
    ChromaForbidden = "CHROMA_FORBIDDEN" => PermissionDenied,
    /// No source with this id is visible to the token.
    SourceNotFound = "SOURCE_NOT_FOUND" => NotFound,
    /// No invocation with this id is visible to the token.
    InvocationNotFound = "INVOCATION_NOT_FOUND" => NotFound,
    /// The Chroma server has no such collection in the database.
    CollectionNotFound = "COLLECTION_NOT_FOUND" => NotFound,
    /// The Chroma server has no such database.
    DatabaseNotFound = "DATABASE_NOT_FOUND" => NotFound,
    /// The GitHub App named by `app_id` is not registered with this server.
    GithubAppNotFound = "GITHUB_APP_NOT_FOUND" => NotFound,
    /// No access key with this id is visible to the token.
    AwsCredentialNotFound = "AWS_CREDENTIAL_NOT_FOUND" => NotFound,
    /// The path or method is not served.
    RouteNotFound = "ROUTE_NOT_FOUND" => NotFound,
    /// A source with exactly these settings exists; the metadata carries its id.
    SourceExists = "SOURCE_EXISTS" => AlreadyExists,
    /// The GitHub App is registered already.
    GithubAppExists = "GITHUB_APP_EXISTS" => AlreadyExists,
    /// The target collection holds a finished sync (`finished_ingest` is true).
    CollectionFinished = "COLLECTION_FINISHED" => AlreadyExists,
    /// Another live invocation writes to the target collection; the metadata carries its id.
    CollectionBusy = "COLLECTION_BUSY" => AlreadyExists,
    /// The `request_id` was used before with another request.
    RequestIdReused = "REQUEST_ID_REUSED" => AlreadyExists,
    /// The invocation is no longer pending, so it cannot be cancelled.
    InvocationNotCancelable = "INVOCATION_NOT_CANCELABLE" => FailedPrecondition,
    /// Sources name the credential; the metadata carries how many.
    CredentialInUse = "CREDENTIAL_IN_USE" => FailedPrecondition,
    /// This server does not serve the model that a collection or a source has; the metadata names it.
    ModelNotServed = "MODEL_NOT_SERVED" => FailedPrecondition,
    /// Nothing says which model a collection was built with.
    ModelUnknown = "MODEL_UNKNOWN" => FailedPrecondition,
    /// The vectors of a collection have another length than those of its model.
    DimensionMismatch = "DIMENSION_MISMATCH" => FailedPrecondition,
    /// A collection has no sparse index that this server embeds for, or the Chroma server has no Search API.
    HybridUnavailable = "HYBRID_UNAVAILABLE" => FailedPrecondition,
    /// Too many requests or streams at once; retry after the time given.
    TooManyRequests = "TOO_MANY_REQUESTS" => ResourceExhausted,
    /// The Chroma server does not answer.
    ChromaUnavailable = "CHROMA_UNAVAILABLE" => Unavailable,
    /// A model does not answer.
    EmbeddingUnavailable = "EMBEDDING_UNAVAILABLE" => Unavailable,
    /// Uploaded files cannot be stored.
    UploadsUnavailable = "UPLOADS_UNAVAILABLE" => Unavailable,
    /// The database of the service does not answer.
    StoreUnavailable = "STORE_UNAVAILABLE" => Unavailable,
    /// The server is shutting down; connect again, elsewhere or later.
    Draining = "DRAINING" => Unavailable,
    /// The caller's deadline passed, or the server's own bound did.
    DeadlineExceeded = "DEADLINE_EXCEEDED" => DeadlineExceeded,
    /// The RPC method is not served.
    MethodNotServed = "METHOD_NOT_SERVED" => Unimplemented,
    /// A fault of the service.
    Internal = "INTERNAL" => Internal,
}

/// One field of a request that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldViolation {
    /// Path of the field as the caller wrote it, such as `github.repository`.
    pub field: String,
    /// What is wrong and what is allowed.
    pub description: String,
}

impl FieldViolation {
    /// Names `field` and says what is wrong with it and what is allowed. Where either echoes too much of
    /// what the caller wrote, the middle of it is left out.
    pub fn new(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self {
            field: bounded(field.into(), MAX_FIELD_BYTES),
            description: bounded(description.into(), MAX_TEXT_BYTES),
        }
    }
}

/// A text of at most `most` bytes: where it is longer, its beginning and its end.
fn bounded(text: String, most: usize) -> String {
    const CUT: &str = " ... ";
    if text.len() <= most {
        return text;
    }
    let half = most.saturating_sub(CUT.len()) / 2;
    let head = &text[..text.floor_char_boundary(half)];
    let tail = &text[text.ceil_char_boundary(text.len() - half)..];
    format!("{head}{CUT}{tail}")
}

impl From<FieldViolation> for Error {
    fn from(violation: FieldViolation) -> Self {
        Error::invalid_fields(vec![violation])
    }
}

/// The thing a NOT_FOUND or ALREADY_EXISTS is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// `source`, `invocation`, `database`, `collection`, `github_app` or `aws_credential`.
    pub kind: &'static str,
    /// Its id or name, as the caller gave it.
    pub name: String,
}

/// An error with everything a caller may know, and its cause for the log.
pub struct Error(Box<Inner>);

struct Inner {
    reason: Reason,
    message: Cow<'static, str>,
    violations: Vec<FieldViolation>,
    resource: Option<Resource>,
    retry_after: Option<Duration>,
    metadata: BTreeMap<&'static str, String>,
    cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error whose message is meant for the caller: a sentence fragment, lowercase, no full stop. The
    /// middle of a message of more than 1,024 bytes is left out.
    pub fn new(reason: Reason, message: impl Into<Cow<'static, str>>) -> Self {
        let message = match message.into() {
            Cow::Owned(text) => Cow::Owned(bounded(text, MAX_TEXT_BYTES)),
            fixed @ Cow::Borrowed(_) => fixed,
        };
        Self(Box::new(Inner {
            reason,
            message,
            violations: Vec::new(),
            resource: None,
            retry_after: None,
            metadata: BTreeMap::new(),
            cause: None,
        }))
    }

    /// One or more fields are wrong.
    pub fn invalid_fields(violations: Vec<FieldViolation>) -> Self {
        let message = match violations.as_slice() {
            [] => "the request is not valid".to_owned(),
            [only] => format!("{}: {}", only.field, only.description),
            [first, rest @ ..] => {
                format!("{}: {} (and {} more)", first.field, first.description, rest.len())
            }
        };
        let mut error = Self::new(Reason::InvalidField, message);
        error.0.violations = violations;
        error
    }

    /// A single field is wrong.
    pub fn invalid_field(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self::invalid_fields(vec![FieldViolation::new(field, description)])
    }

    /// A fault of ours: the caller reads a fixed text with a trace id, the log gets the cause beside it.
    pub fn internal(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        let trace_id = uuid::Uuid::now_v7().simple().to_string();
        Self::new(
            Reason::Internal,
            format!("an internal error occurred; the log has it under trace id {trace_id}"),
        )
        .with_metadata("trace_id", trace_id)
        .with_cause(cause)
    }

    /// `kind` named `name` does not exist or is hidden from the caller.
    pub fn not_found(reason: Reason, kind: &'static str, name: impl fmt::Display) -> Self {
        let name = name.to_string();
        let words = kind.replace('_', " ");
        let mut error = Self::new(reason, format!("{words} {name} does not exist"));
        error.0.resource = Some(Resource { kind, name });
        error
    }

    /// Adds the violated fields.
    pub fn with_violations(mut self, violations: Vec<FieldViolation>) -> Self {
        self.0.violations = violations;
        self
    }

    /// Adds the thing the error is about.
    pub fn with_resource(mut self, kind: &'static str, name: impl fmt::Display) -> Self {
        self.0.resource = Some(Resource {
            kind,
            name: name.to_string(),
        });
        self
    }

    /// Adds how long to wait before the next try.
    pub fn with_retry_after(mut self, delay: Duration) -> Self {
        self.0.retry_after = Some(delay);
        self
    }

    /// Adds one machine-readable detail; each value in the message belongs here too.
    pub fn with_metadata(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        self.0.metadata.insert(key, value.to_string());
        self
    }

    /// Keeps the cause for the log.
    pub fn with_cause(mut self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.cause = Some(cause.into());
        self
    }

    /// The stable identifier.
    pub fn reason(&self) -> Reason {
        self.0.reason
    }

    /// The kind of answer.
    pub fn code(&self) -> ErrorCode {
        self.0.reason.code()
    }

    /// The text for the caller.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The fields that are wrong.
    pub fn violations(&self) -> &[FieldViolation] {
        &self.0.violations
    }

    /// The thing the error is about.
    pub fn resource(&self) -> Option<&Resource> {
        self.0.resource.as_ref()
    }

    /// Writes the error with its causes to the log when the caller can do nothing about it. The edge
    /// that answers calls this, once.
    pub fn log_fault(&self) {
        match self.code() {
            ErrorCode::Internal | ErrorCode::Unavailable => {
                let trace_id = self.0.metadata.get("trace_id").map(String::as_str);
                tracing::error!(error = %chain(self), reason = self.reason().as_str(), trace_id, "call failed");
            }
            ErrorCode::InvalidArgument
            | ErrorCode::Unauthenticated
            | ErrorCode::PermissionDenied
            | ErrorCode::NotFound
            | ErrorCode::AlreadyExists
            | ErrorCode::FailedPrecondition
            | ErrorCode::ResourceExhausted
            | ErrorCode::DeadlineExceeded
            | ErrorCode::Unimplemented => {}
        }
    }

    /// How long to wait before the next try.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Machine-readable details.
    pub fn metadata(&self) -> &BTreeMap<&'static str, String> {
        &self.0.metadata
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Error")
            .field("reason", &self.0.reason)
            .field("message", &self.0.message)
            .field("cause", &self.0.cause)
            .finish_non_exhaustive()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.cause.as_deref().map(|cause| cause as _)
    }
}

/// Writes an error and all its causes on one line, for the log.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
