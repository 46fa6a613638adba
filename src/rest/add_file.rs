//! `POST /api/v1/add-file`: a file with what goes with it, as a form.

use axum::{
    Json,
    extract::{FromRequestParts, Request, State},
};
use http::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;

use super::{
    RestState, embedding,
    error::{RestError, RestResult},
    extract::{Caller, Object, RequestId},
    form::{Form, Part},
    types::{ChunkingBody, CreateInvocationAnswer, CreatedWebhook, EmbeddingBody},
};
use crate::{
    app::files::{FileDetails, MAX_CONTENT_TYPE_BYTES, NewUpload, Upload, parse_content_type},
    domain::{
        chunking::{Chunking, ChunkingRequest},
        embedding::ModelCatalog,
        names::{CollectionName, DatabaseName, FileName, MAX_NAME_BYTES},
        s3::{CustomId, MAX_CUSTOM_ID_BYTES},
        user_metadata::{MAX_METADATA_BYTES, UserMetadata},
    },
    error::{Error, FieldViolation},
};

/// Declares the size of the file.
const SIZE_HEADER: &str = "x-upload-content-length";
/// The longest JSON of the settings, in bytes.
const MAX_SETTINGS_BYTES: usize = 16 * 1_024;

/// The fields of the form, as far as they have come.
#[derive(Debug, Default)]
struct Fields {
    database_name: Option<String>,
    collection_name: Option<String>,
    custom_id: Option<String>,
    metadata: Option<String>,
    embedding: Option<String>,
    chunking: Option<String>,
    content_type: Option<String>,
}

/// A file that has come whole.
struct ReceivedFile {
    upload: Upload,
    name: FileName,
    content_type: Option<String>,
}

pub(super) async fn add(
    State(state): State<RestState>,
    request: Request,
) -> RestResult<(StatusCode, Json<CreateInvocationAnswer>)> {
    let (mut parts, body) = request.into_parts();
    let caller = Caller::from_request_parts(&mut parts, &state).await?;
    let RequestId(request_id) = RequestId::from_request_parts(&mut parts, &state).await?;
    let size_bytes = declared_size(&parts.headers)?;
    let mut form = Form::read(&parts.headers, body)?;
    let mut fields = Fields::default();
    let mut file = None;
    while let Some(part) = state.app.within_idle(form.next()).await?? {
        if part.name() != Some("file") {
            fields.read(&state, part).await?;
        } else if file.is_some() {
            return Err(once("file").into());
        } else {
            let new = fields.new_upload(size_bytes)?;
            file = Some(receive(&state, &caller, new, part).await?);
        }
    }
    let Some(ReceivedFile {
        upload,
        name,
        content_type,
    }) = file
    else {
        return Err(FieldViolation::new("file", "is required").into());
    };
    let mut details = fields.details(name, content_type, state.app.catalog())?;
    details.request_id = request_id;
    let invocation = upload.finish(details).await?;
    let answer = CreateInvocationAnswer {
        invocation_id: invocation.id.to_string(),
        webhook: CreatedWebhook::of(invocation.webhook.as_ref()),
    };
    Ok((StatusCode::CREATED, Json(answer)))
}

fn declared_size(headers: &HeaderMap) -> Result<u64, FieldViolation> {
    let mut values = headers.get_all(SIZE_HEADER).iter();
    let problem = "must be given once, as the size of the file in bytes";
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(FieldViolation::new(SIZE_HEADER, problem));
    };
    let text = value.to_str().unwrap_or_default();
    match text.parse() {
        Ok(size) if text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(size),
        Ok(_) | Err(_) => Err(FieldViolation::new(SIZE_HEADER, problem)),
    }
}

/// Takes the file itself.
async fn receive(
    state: &RestState,
    Caller(auth): &Caller,
    new: NewUpload,
    mut part: Part,
) -> Result<ReceivedFile, RestError> {
    let Some(name) = part.file_name() else {
        let problem = "must have a filename in its Content-Disposition";
        return Err(FieldViolation::new("file", problem).into());
    };
    let name = FileName::parse("file", name)?;
    let content_type = parse_content_type("file", part.content_type().unwrap_or_default())?;
    let mut upload = state.app.begin_upload(auth, new).await?;
    while let Some(bytes) = state.app.within_idle(part.chunk()).await?? {
        upload.write(&bytes).await?;
    }
    Ok(ReceivedFile {
        upload,
        name,
        content_type,
    })
}

fn once(field: &str) -> FieldViolation {
    FieldViolation::new(field, "must be given once")
}

impl Fields {
    async fn read(&mut self, state: &RestState, part: Part) -> Result<(), Error> {
        let name = part.name().unwrap_or_default();
        let (field, slot, most) = match name {
            "database_name" => ("database_name", &mut self.database_name, MAX_NAME_BYTES),
            "collection_name" => ("collection_name", &mut self.collection_name, MAX_NAME_BYTES),
            "custom_id" => ("custom_id", &mut self.custom_id, MAX_CUSTOM_ID_BYTES),
            "metadata" => ("metadata", &mut self.metadata, MAX_METADATA_BYTES),
            "embedding" => ("embedding", &mut self.embedding, MAX_SETTINGS_BYTES),
            "chunking" => ("chunking", &mut self.chunking, MAX_SETTINGS_BYTES),
            "content_type" => ("content_type", &mut self.content_type, MAX_CONTENT_TYPE_BYTES),
            other => {
                let problem = "is not a field of this form: database_name, collection_name, file, custom_id, \
                               metadata, embedding, chunking and content_type are";
                let name = if other.is_empty() { "form" } else { other };
                return Err(FieldViolation::new(name, problem).into());
            }
        };
        if slot.is_some() {
            return Err(once(field).into());
        }
        *slot = Some(state.app.within_idle(part.text(field, most)).await??);
        Ok(())
    }

    /// What has to be known before the file comes.
    fn new_upload(&self, size_bytes: u64) -> Result<NewUpload, FieldViolation> {
        let before = |field, value: &Option<String>| {
            let problem = "is required, before the part 'file'";
            value.clone().ok_or_else(|| FieldViolation::new(field, problem))
        };
        let database = before("database_name", &self.database_name)?;
        let collection = before("collection_name", &self.collection_name)?;
        Ok(NewUpload {
            database: DatabaseName::parse("database_name", &database)?,
            collection: CollectionName::parse("collection_name", &collection)?,
            size_bytes,
            size_field: SIZE_HEADER,
        })
    }

    /// What goes with the file.
    fn details(
        self,
        file_name: FileName,
        part_content_type: Option<String>,
        catalog: &ModelCatalog,
    ) -> Result<FileDetails, Error> {
        let embedding: Option<Object<EmbeddingBody>> = json("embedding", self.embedding)?;
        let chunking: Option<Object<ChunkingBody>> = json("chunking", self.chunking)?;
        let names_model = embedding
            .as_ref()
            .is_some_and(|Object(embedding)| embedding.dense.is_some());
        let (embedding, model) = embedding::read(None, embedding, catalog)?;
        let request = match chunking {
            Some(Object(chunking)) => Some(chunking.into()),
            // What another model reads may be less than what the source's chunks have.
            None if names_model => Some(ChunkingRequest::default()),
            None => None,
        };
        let content_type = self
            .content_type
            .map(|text| parse_content_type("content_type", &text))
            .transpose()?;
        Ok(FileDetails {
            file_name,
            custom_id: self
                .custom_id
                .map(|id| CustomId::parse("custom_id", &id))
                .transpose()?,
            metadata: match self.metadata {
                Some(text) => UserMetadata::parse_text("metadata", &text)?,
                None => UserMetadata::default(),
            },
            content_type: content_type.flatten().or(part_content_type),
            sparse: embedding.sparse.clone(),
            embedding: names_model.then_some(embedding),
            chunking: request
                .map(|request| Chunking::resolve(request, model.max_tokens))
                .transpose()?,
            webhook: None,
            request_id: None,
        })
    }
}

/// A field that is JSON.
fn json<T: DeserializeOwned>(field: &str, text: Option<String>) -> Result<Option<T>, FieldViolation> {
    let Some(text) = text else { return Ok(None) };
    let mut deserializer = serde_json::Deserializer::from_str(&text);
    let read = serde_path_to_error::deserialize(&mut deserializer)
        .map_err(|error| (error.path().to_string(), error.into_inner()))
        .and_then(|value| match deserializer.end() {
            Ok(()) => Ok(value),
            Err(error) => Err((".".to_owned(), error)),
        });
    read.map(Some).map_err(|(path, error)| {
        let path = match path.as_str() {
            "." | "" => field.to_owned(),
            path => format!("{field}.{path}"),
        };
        FieldViolation::new(path, format!("must be as in POST /api/v1/sources: {error}"))
    })
}
