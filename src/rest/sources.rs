//! `/api/v1/sources`.

use axum::{Json, extract::State};
use http::{StatusCode, Uri};
use serde_json::Value;

use super::{
    RestState, embedding,
    error::RestResult,
    extract::{Caller, JsonBody, Object, PathId, Query, RequestId, read_object, required},
    filter::TypeFilter,
    page,
    source_settings::{GithubBody, S3Body, WebScrapeBody},
    types::{self, CreateSourceAnswer, CreateSourceBody, CreatedWebhook},
};
use crate::{
    domain::{
        chunking::{Chunking, ChunkingRequest},
        embedding::ModelCatalog,
        ids::SourceId,
        names::DatabaseName,
        page::PageRequest,
        source::{NewSource, SourceFilter, SourceSettings},
    },
    error::{Error, FieldViolation},
};

const LIST_PARAMETERS: [&str; 7] = [
    "database_name",
    "source_type",
    "github.app_id",
    "github.repository",
    "limit",
    "offset",
    "order_by",
];

pub(super) async fn create(
    State(state): State<RestState>,
    Caller(auth): Caller,
    RequestId(request_id): RequestId,
    JsonBody(body): JsonBody,
) -> RestResult<(StatusCode, Json<CreateSourceAnswer>)> {
    let new = read_new_source(&body, state.app.catalog())?;
    let source = state.app.create_source(&auth, new, request_id).await?;
    Ok((
        StatusCode::CREATED,
        Json(CreateSourceAnswer {
            source_id: source.id.to_string(),
            webhook: CreatedWebhook::of(source.webhook.as_ref()),
        }),
    ))
}

pub(super) async fn get(
    State(state): State<RestState>,
    Caller(auth): Caller,
    PathId(id): PathId<SourceId>,
) -> RestResult<Json<Value>> {
    Ok(Json(types::source(state.app.get_source(&auth, id).await?)))
}

pub(super) async fn delete(
    State(state): State<RestState>,
    Caller(auth): Caller,
    PathId(id): PathId<SourceId>,
) -> RestResult<StatusCode> {
    state.app.delete_source(&auth, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn list(
    State(state): State<RestState>,
    Caller(auth): Caller,
    uri: Uri,
) -> RestResult<Json<Vec<Value>>> {
    let (filter, page) = read_source_listing(uri.query())?;
    let page = state.app.list_sources(&auth, &filter, &page).await?;
    Ok(Json(page.items.into_iter().map(types::source).collect()))
}

/// Reads the query of `GET /api/v1/sources`.
///
/// # Errors
/// Names the parameter that is unknown, repeated or has a value that is not allowed.
pub fn read_source_listing(query: Option<&str>) -> Result<(SourceFilter, PageRequest), FieldViolation> {
    let mut query = Query::parse(query)?;
    let TypeFilter {
        source_type,
        github_app_id,
        github_repository,
    } = TypeFilter::take(&mut query)?;
    let filter = SourceFilter {
        database: query
            .take("database_name")
            .map(|name| DatabaseName::parse("database_name", &name))
            .transpose()?,
        source_type,
        github_app_id,
        github_repository,
    };
    let page = page(&mut query)?;
    query.finish(&LIST_PARAMETERS)?;
    Ok((filter, page))
}

/// Reads the body of `POST /api/v1/sources`; the model is one of `catalog`.
///
/// # Errors
/// MALFORMED_REQUEST for what is not one JSON object, INVALID_FIELD and UNKNOWN_MODEL with the field.
pub fn read_new_source(bytes: &[u8], catalog: &ModelCatalog) -> Result<NewSource, Error> {
    new_source(read_object(bytes)?, catalog)
}

/// The body, checked.
fn new_source(body: CreateSourceBody, catalog: &ModelCatalog) -> Result<NewSource, Error> {
    let CreateSourceBody {
        database_name,
        github,
        s3,
        web_scrape,
        file_upload,
        embedding_model,
        embedding,
        chunking,
        webhook,
    } = body;
    let database_name = required("database_name", database_name)?;
    let database = DatabaseName::parse("database_name", &database_name)?;
    let settings = settings(github, s3, web_scrape, file_upload)?;
    let (embedding, model) = embedding::read(embedding_model, embedding, catalog)?;
    let request = chunking.map_or_else(ChunkingRequest::default, |Object(chunking)| chunking.into());
    let chunking = Chunking::resolve(request, model.max_tokens)?;
    Ok(NewSource {
        database,
        settings,
        embedding,
        chunking,
        webhook: webhook.map(|Object(webhook)| webhook.read()).transpose()?,
    })
}

/// The one type that the body names.
fn settings(
    github: Option<Object<GithubBody>>,
    s3: Option<Object<S3Body>>,
    web_scrape: Option<Object<WebScrapeBody>>,
    file_upload: Option<Value>,
) -> Result<SourceSettings, FieldViolation> {
    if file_upload.is_some() {
        let problem = "the source of uploaded files is made with the first upload of a database \
                       (POST /api/v1/add-file); leave it out";
        return Err(FieldViolation::new("file_upload", problem));
    }
    match (github, s3, web_scrape) {
        (Some(Object(github)), None, None) => Ok(SourceSettings::Github(github.read()?)),
        (None, Some(Object(s3)), None) => Ok(SourceSettings::S3(s3.read()?)),
        (None, None, Some(Object(web))) => Ok(SourceSettings::WebScrape(web.read()?)),
        (None, None, None) => Err(FieldViolation::new(
            "source_type",
            "give the settings of one type: github, s3 or web_scrape",
        )),
        (Some(_), _, _) | (None, Some(_), Some(_)) => Err(FieldViolation::new(
            "source_type",
            "give the settings of one type alone: github, s3 or web_scrape",
        )),
    }
}
