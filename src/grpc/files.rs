//! `FileService`.

use tonic::{Request, Response, Status, Streaming};

use super::{
    convert_source::user_metadata,
    requests::{
        chunking_request, dense_embedding, non_empty, resolve_chunking, sparse_settings, uuid_or_none,
        webhook,
    },
    status::from_error,
};
use crate::{
    app::{
        App,
        files::{FileDetails, NewUpload, parse_content_type},
    },
    domain::{
        embedding::ModelCatalog,
        names::{CollectionName, DatabaseName, FileName},
        s3::CustomId,
    },
    error::{Error, Reason},
    proto::{self, add_file_request::Content, file_service_server::FileService},
    token,
};

/// How this contract calls the size of a file.
const SIZE_FIELD: &str = "metadata.size_bytes";

/// Serves `FileService`.
#[derive(Debug)]
pub(super) struct Files {
    app: App,
}

impl Files {
    pub(super) fn new(app: App) -> Self {
        Self { app }
    }

    /// The next message, and the error of a caller that is too slow; none at the end.
    async fn next(&self, messages: &mut Streaming<proto::AddFileRequest>) -> Result<Option<Content>, Status> {
        let next = self.app.within_idle(messages.message()).await;
        let Some(proto::AddFileRequest { content }) = next.map_err(from_error)?? else {
            return Ok(None);
        };
        let empty = || malformed("a message has neither metadata nor a chunk");
        content.ok_or_else(empty).map(Some)
    }
}

#[tonic::async_trait]
impl FileService for Files {
    async fn add_file(
        &self,
        request: Request<Streaming<proto::AddFileRequest>>,
    ) -> Result<Response<proto::Invocation>, Status> {
        let (headers, _, mut messages) = request.into_parts();
        let token = token::from_headers(headers.as_ref());
        let auth = self.app.authenticate(token).await.map_err(from_error)?;
        let metadata = match self.next(&mut messages).await? {
            Some(Content::Metadata(metadata)) => metadata,
            Some(Content::Chunk(_)) | None => {
                return Err(malformed("the first message must have the metadata of the file"));
            }
        };
        let (new, details) = read(metadata, self.app.catalog()).map_err(from_error)?;
        self.app
            .require_upload_webhook(details.webhook.as_ref())
            .map_err(from_error)?;
        let mut upload = self.app.begin_upload(&auth, new).await.map_err(from_error)?;
        while let Some(content) = self.next(&mut messages).await? {
            match content {
                Content::Chunk(bytes) => upload.write(&bytes).await.map_err(from_error)?,
                Content::Metadata(_) => {
                    return Err(malformed("only the first message may have metadata"));
                }
            }
        }
        let invocation = upload.finish(details).await.map_err(from_error)?;
        Ok(Response::new(invocation.into()))
    }
}

fn malformed(problem: &'static str) -> Status {
    from_error(Error::new(Reason::MalformedRequest, problem))
}

/// The metadata, checked against the models served.
fn read(metadata: proto::FileMetadata, catalog: &ModelCatalog) -> Result<(NewUpload, FileDetails), Error> {
    let proto::FileMetadata {
        database_name,
        collection_name,
        file_name,
        size_bytes,
        custom_id,
        metadata,
        content_type,
        embedding,
        chunking,
        request_id,
        webhook: requested_webhook,
    } = metadata;
    let new = NewUpload {
        database: DatabaseName::parse("metadata.database_name", &database_name)?,
        collection: CollectionName::parse("metadata.collection_name", &collection_name)?,
        // A negative size is refused like no size.
        size_bytes: u64::try_from(size_bytes).unwrap_or_default(),
        size_field: SIZE_FIELD,
    };
    let proto::Embedding { dense, sparse } = embedding.unwrap_or_default();
    let names_model = dense.is_some();
    let (mut embedding, model) = dense_embedding("metadata.embedding.dense", dense, catalog)?;
    let sparse = sparse
        .map(|sparse| sparse_settings("metadata.embedding.sparse", sparse, catalog))
        .transpose()?;
    embedding.sparse.clone_from(&sparse);
    let chunking = match (chunking, names_model) {
        // What another model reads may be less than what the source's chunks have.
        (None, true) => Some(resolve_chunking(chunking_request(None)?, model.max_tokens)?),
        (None, false) => None,
        (given, _) => Some(resolve_chunking(chunking_request(given)?, model.max_tokens)?),
    };
    let details = FileDetails {
        file_name: FileName::parse("metadata.file_name", &file_name)?,
        custom_id: non_empty(custom_id)
            .map(|id| CustomId::parse("metadata.custom_id", &id))
            .transpose()?,
        metadata: user_metadata("metadata.metadata", metadata)?,
        content_type: parse_content_type("metadata.content_type", &content_type)?,
        embedding: names_model.then_some(embedding),
        sparse,
        chunking,
        webhook: requested_webhook.map(webhook).transpose()?,
        request_id: uuid_or_none(request_id)?,
    };
    Ok((new, details))
}
