//! The use case of uploading a file.
//!
//! [`App::begin_upload`] checks what can be checked before the first byte, [`Upload::write`] takes the bytes as
//! they come, [`Upload::finish`] makes the invocation. Whatever happens in between leaves nothing: an upload
//! that is dropped removes what it has written, and the lease on its row lets a worker do so when this process
//! cannot.

use std::time::Duration;

use tokio::{runtime::Handle, time::Instant};
use uuid::Uuid;

use super::{App, Auth, refused_for};
use crate::{
    domain::{
        chunking::{Chunking, ChunkingRequest},
        embedding::{DEFAULT_SPARSE_KEY, Embedding, ModelDescription, SPLADE, SparseSettings},
        ids::UploadId,
        invocation::{Invocation, InvocationInput, NewInvocation, UploadedFile},
        names::{CollectionName, DatabaseName, FileName},
        page::{Order, PageRequest},
        s3::CustomId,
        source::{NewSource, Source, SourceFilter, SourceSettings, SourceType},
        user_metadata::UserMetadata,
        webhook::Webhook,
    },
    error::{Error, ErrorCode, FieldViolation, Reason, Result, chain},
    store::{CreateInvocation, CreateSource, Held, Store},
    uploads::{StoredUpload, UploadWriter},
};

/// The longest content type, in bytes.
pub const MAX_CONTENT_TYPE_BYTES: usize = 512;
/// What a caller over the limit is told to wait.
const LIMIT_DELAY: Duration = Duration::from_secs(5);
/// A lease holds this many times as long as an upload may be idle, and is renewed within half of that.
const LEASE_FACTOR: u32 = 3;

/// How much may be uploaded; meanings in `config/default.toml`.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub struct UploadLimits {
    pub max_file_bytes: u64,
    pub max_per_tenant: u32,
    pub idle: Duration,
}

/// What must be known before the first byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewUpload {
    /// Database of the collection.
    pub database: DatabaseName,
    /// Where the records go.
    pub collection: CollectionName,
    /// How many bytes the file has.
    pub size_bytes: u64,
    /// How the caller calls that field.
    pub size_field: &'static str,
}

/// What is known of the file at the latest after its last byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileDetails {
    /// Its name.
    pub file_name: FileName,
    /// What its records are named after instead.
    pub custom_id: Option<CustomId>,
    /// What its records say.
    pub metadata: UserMetadata,
    /// What it is; none where its name says it.
    pub content_type: Option<String>,
    /// The models; none for those of the source.
    pub embedding: Option<Embedding>,
    /// The sparse model alone, beside the dense one of `embedding` or of the source.
    pub sparse: Option<SparseSettings>,
    /// The chunking; none for that of the source.
    pub chunking: Option<Chunking>,
    /// Where the state changes of the invocation are sent to.
    pub webhook: Option<Webhook>,
    /// Names the request, so that a repeated one makes nothing new.
    pub request_id: Option<Uuid>,
}

/// A content type of at most 512 bytes without control characters; the violation names `field`. One that says
/// nothing is none.
///
/// # Errors
/// INVALID_FIELD.
pub fn parse_content_type(field: &str, text: &str) -> std::result::Result<Option<String>, FieldViolation> {
    if text.len() > MAX_CONTENT_TYPE_BYTES {
        let problem = format!(
            "must have at most {MAX_CONTENT_TYPE_BYTES} bytes, has {}",
            text.len()
        );
        return Err(FieldViolation::new(field, problem));
    }
    if text.chars().any(char::is_control) {
        return Err(FieldViolation::new(field, "must not contain control characters"));
    }
    let text = text.trim();
    let says_nothing = text.is_empty() || text.eq_ignore_ascii_case("application/octet-stream");
    Ok((!says_nothing).then(|| text.to_owned()))
}

impl App {
    /// Begins an upload. Nothing of the file needs to have come yet.
    ///
    /// # Errors
    /// DATABASE_FORBIDDEN, DATABASE_NOT_FOUND, COLLECTION_FINISHED, INVALID_FIELD for a size that is not allowed,
    /// TOO_MANY_REQUESTS, CHROMA_FORBIDDEN, CHROMA_UNAVAILABLE.
    pub async fn begin_upload(&self, auth: &Auth, new: NewUpload) -> Result<Upload> {
        let limits = self.0.upload_limits;
        auth.require_database(&new.database)?;
        if !(1..=limits.max_file_bytes).contains(&new.size_bytes) {
            let problem = format!(
                "must be 1 to {} bytes, is {}",
                limits.max_file_bytes, new.size_bytes
            );
            return Err(FieldViolation::new(new.size_field, problem).into());
        }
        self.require_database_exists(auth, &new.database).await?;
        self.require_collection_open(auth, &new.database, &new.collection)
            .await?;
        let id = UploadId::generate();
        let lease = limits.idle.saturating_mul(LEASE_FACTOR);
        let begun = self
            .0
            .store
            .begin_upload(id, auth.tenant(), lease, limits.max_per_tenant);
        if !begun.await? {
            let problem = format!(
                "{} files of this tenant are being uploaded, which is the limit; wait for one of them",
                limits.max_per_tenant
            );
            return Err(Error::new(Reason::TooManyRequests, problem).with_retry_after(LIMIT_DELAY));
        }
        Ok(Upload {
            app: self.clone(),
            auth: auth.clone(),
            new,
            id,
            lease,
            renewed: Instant::now(),
            guard: Guard {
                id,
                store: self.0.store.clone(),
                writer: Some(self.0.uploads.writer(id)),
            },
        })
    }

    /// Waits for the next part of an upload, as long as it may be idle.
    ///
    /// # Errors
    /// DEADLINE_EXCEEDED.
    pub async fn within_idle<T>(&self, next: impl Future<Output = T>) -> Result<T> {
        let idle = self.0.upload_limits.idle;
        tokio::time::timeout(idle, next).await.map_err(|_| {
            let problem = format!("nothing of the upload came for {} seconds", idle.as_secs());
            Error::new(Reason::DeadlineExceeded, problem)
        })
    }

    /// Checks what the operator allows of a webhook before the upload.
    ///
    /// # Errors
    /// INVALID_FIELD.
    pub fn require_upload_webhook(&self, webhook: Option<&Webhook>) -> Result<()> {
        webhook.map_or(Ok(()), |webhook| self.require_webhook_allowed(webhook))
    }

    /// The documented models of uploads, as far as this server has them: the default one, and Splade beside it
    /// where the Chroma server takes sparse vectors.
    async fn upload_embedding(&self, auth: &Auth, model: &ModelDescription) -> Result<Embedding> {
        let mut embedding = Embedding::of_model(model);
        if !self.0.catalog.serves_sparse(SPLADE) {
            return Ok(embedding);
        }
        let chroma = self.chroma_of(auth)?;
        let taken = chroma.takes_sparse_vectors(auth.tenant()).await;
        // Nobody asked for them, so a server that only might take them gets none.
        if taken.map_err(|error| refused_for(auth, error))? && chroma.is_known_to_take_sparse_vectors() {
            embedding.sparse = Some(SparseSettings {
                model: SPLADE.to_owned(),
                key: DEFAULT_SPARSE_KEY.to_owned(),
            });
        }
        Ok(embedding)
    }

    /// The source of a database's uploads, made where there is none.
    async fn upload_source(&self, auth: &Auth, database: &DatabaseName) -> Result<Source> {
        let store = &self.0.store;
        let filter = SourceFilter {
            database: Some(database.clone()),
            source_type: Some(SourceType::FileUpload),
            ..SourceFilter::default()
        };
        let first = PageRequest {
            size: 1,
            order: Order::Ascending,
            ..PageRequest::default()
        };
        let mut found = store.list_sources(&auth.scope(), &filter, &first).await?;
        if let Some(source) = found.items.pop() {
            return Ok(source);
        }
        let model = self.0.catalog.resolve("embedding", None)?;
        let new = NewSource {
            database: database.clone(),
            settings: SourceSettings::FileUpload,
            embedding: self.upload_embedding(auth, model).await?,
            chunking: Chunking::resolve(ChunkingRequest::default(), model.max_tokens)?,
            webhook: None,
        };
        match store.create_source(auth.tenant(), new, None).await? {
            CreateSource::Created(source) | CreateSource::Repeated(source) => Ok(source),
            // Another first upload was faster.
            CreateSource::Exists(id) => self.get_source(auth, id).await,
            CreateSource::RequestIdReused => Err(Error::internal("a source without a request id")),
        }
    }
}

/// A file that is being uploaded. What it has stored is removed when it is dropped before its end.
#[derive(Debug)]
pub struct Upload {
    app: App,
    auth: Auth,
    new: NewUpload,
    id: UploadId,
    lease: Duration,
    renewed: Instant,
    guard: Guard,
}

impl Upload {
    /// Takes the next bytes of the file.
    ///
    /// # Errors
    /// INVALID_FIELD when the file has more bytes than declared, UPLOADS_UNAVAILABLE, STORE_UNAVAILABLE.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let writer = self.guard.writer()?;
        let size = writer.size_bytes().saturating_add(bytes.len() as u64);
        if size > self.new.size_bytes {
            return Err(self.wrong_size("more"));
        }
        writer.write(bytes).await?;
        if self.renewed.elapsed() > self.lease / (2 * LEASE_FACTOR) {
            self.renew().await?;
        }
        Ok(())
    }

    /// Ends the upload and makes the invocation that syncs the file. With a `request_id` that was used before
    /// for the same file, returns the invocation it made then.
    ///
    /// # Errors
    /// INVALID_FIELD when the file has fewer bytes than declared, UPLOADS_UNAVAILABLE, and the errors of
    /// [`App::create_invocation`].
    pub async fn finish(mut self, details: FileDetails) -> Result<Invocation> {
        let writer = self.guard.writer()?;
        if writer.size_bytes() < self.new.size_bytes {
            return Err(self.wrong_size("fewer"));
        }
        let stored = writer.finish().await?;
        self.renew().await?;
        // Whether this ends well is not known any more when it is broken off; the lease decides then.
        let writer = self.guard.writer.take();
        let created = self.create(stored, details).await;
        let taken_over = match &created {
            Ok((_, taken_over)) => *taken_over,
            Err(error) => may_have_happened(error.code()),
        };
        if !taken_over {
            self.guard.writer = writer;
        }
        created.map(|(invocation, _)| invocation)
    }

    /// The invocation, and whether it took over the upload.
    async fn create(&self, stored: StoredUpload, details: FileDetails) -> Result<(Invocation, bool)> {
        let FileDetails {
            file_name,
            custom_id,
            metadata,
            content_type,
            embedding,
            sparse,
            chunking,
            webhook,
            request_id,
        } = details;
        let StoredUpload { sha256, size_bytes } = stored;
        let (app, auth) = (&self.app, &self.auth);
        // What is refused makes no source.
        app.require_sparse_taken(auth, sparse.as_ref()).await?;
        let mut source = app.upload_source(auth, &self.new.database).await?;
        if let Some(embedding) = embedding {
            source.embedding = embedding;
        }
        if sparse.is_some() {
            source.embedding.sparse = sparse;
        }
        metadata.require_free("metadata", source.embedding.sparse_key())?;
        if let Some(chunking) = chunking {
            source.chunking = chunking;
        }
        let new = NewInvocation {
            collection: self.new.collection.clone(),
            input: InvocationInput::FileUpload(UploadedFile {
                upload_id: self.id,
                file_name,
                custom_id,
                metadata,
                content_type,
                content_sha256: sha256,
                size_bytes,
            }),
            webhook,
            update_collection: false,
        };
        let outcome = app.create_checked(auth, &source, new, request_id).await?;
        let taken_over = matches!(outcome, CreateInvocation::Created(_));
        Ok((app.created(source.id, outcome)?, taken_over))
    }

    async fn renew(&mut self) -> Result<()> {
        match self.app.0.store.renew_upload(self.id, self.lease).await? {
            Held::Held => {
                self.renewed = Instant::now();
                Ok(())
            }
            Held::Lost => Err(Error::new(
                Reason::DeadlineExceeded,
                "the upload stood still for so long that it was given up; upload the file again",
            )),
        }
    }

    fn wrong_size(&self, how: &str) -> Error {
        let problem = format!(
            "declares {} bytes, but the file has {how}; declare its exact size",
            self.new.size_bytes
        );
        FieldViolation::new(self.new.size_field, problem).into()
    }
}

/// Whether a request that ended so may have been carried out.
fn may_have_happened(code: ErrorCode) -> bool {
    match code {
        ErrorCode::Unavailable | ErrorCode::DeadlineExceeded | ErrorCode::Internal => true,
        ErrorCode::InvalidArgument
        | ErrorCode::Unauthenticated
        | ErrorCode::PermissionDenied
        | ErrorCode::NotFound
        | ErrorCode::AlreadyExists
        | ErrorCode::FailedPrecondition
        | ErrorCode::ResourceExhausted
        | ErrorCode::Unimplemented => false,
    }
}

/// Removes an upload unless its writer was taken out.
#[derive(Debug)]
struct Guard {
    id: UploadId,
    store: Store,
    writer: Option<UploadWriter>,
}

impl Guard {
    fn writer(&mut self) -> Result<&mut UploadWriter> {
        let ended = || Error::internal("an upload that has ended");
        self.writer.as_mut().ok_or_else(ended)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let (Some(writer), Ok(runtime)) = (self.writer.take(), Handle::try_current()) else {
            return;
        };
        let (id, store) = (self.id, self.store.clone());
        runtime.spawn(async move {
            // What fails here is made good by a worker when the lease has run out.
            let removed = match writer.discard().await {
                Ok(()) => store.delete_upload(id).await.map_err(Error::from),
                Err(error) => Err(error.into()),
            };
            if let Err(error) = removed {
                tracing::warn!(upload.id = %id, error = %chain(&error), "an upload that was broken off is left to a worker");
            }
        });
    }
}
