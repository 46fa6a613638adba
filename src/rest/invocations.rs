//! `/api/v1/invocations` and the invocations of a source.

use std::collections::BTreeMap;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{StatusCode, Uri};
use serde_json::{Value, json};

use super::{
    RestState,
    error::RestResult,
    events::{self, Poll},
    extract::{Caller, JsonBody, Object, PathId, Query, RequestId, read_object, required},
    filter::TypeFilter,
    page,
    types::{self, CreateInvocationAnswer, CreateInvocationBody, CreatedWebhook, LatestByKeysBody},
};
use crate::{
    domain::{
        ids::{InvocationId, SourceId},
        invocation::{InvocationFilter, InvocationInput, NewInvocation, StateName},
        names::{CollectionName, DatabaseName},
        page::PageRequest,
    },
    error::{Error, FieldViolation},
};

const LIST_PARAMETERS: [&str; 9] = [
    "source_id",
    "database_name",
    "source_type",
    "github.app_id",
    "github.repository",
    "status",
    "limit",
    "offset",
    "order_by",
];

pub(super) async fn create(
    State(state): State<RestState>,
    Caller(auth): Caller,
    PathId(source_id): PathId<SourceId>,
    RequestId(request_id): RequestId,
    JsonBody(body): JsonBody,
) -> RestResult<(StatusCode, Json<CreateInvocationAnswer>)> {
    let new = read_new_invocation(&body)?;
    let invocation = state
        .app
        .create_invocation(&auth, source_id, new, request_id)
        .await?;
    let answer = CreateInvocationAnswer {
        invocation_id: invocation.id.to_string(),
        webhook: CreatedWebhook::of(invocation.webhook.as_ref()),
    };
    Ok((StatusCode::CREATED, Json(answer)))
}

pub(super) async fn get(
    State(state): State<RestState>,
    Caller(auth): Caller,
    PathId(id): PathId<InvocationId>,
    uri: Uri,
) -> RestResult<Response> {
    match Poll::read(uri.query())? {
        Some(poll) => events::poll(&state.app, &auth, id, poll).await,
        None => {
            let invocation = state.app.get_invocation(&auth, id).await?;
            Ok(Json(types::invocation(&invocation)).into_response())
        }
    }
}

pub(super) async fn cancel(
    State(state): State<RestState>,
    Caller(auth): Caller,
    PathId(id): PathId<InvocationId>,
) -> RestResult<(StatusCode, Json<Value>)> {
    state.app.cancel_invocation(&auth, id).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({}))))
}

pub(super) async fn list(
    State(state): State<RestState>,
    Caller(auth): Caller,
    uri: Uri,
) -> RestResult<Json<Vec<Value>>> {
    let (filter, page) = read_invocation_listing(uri.query())?;
    let page = state.app.list_invocations(&auth, &filter, &page).await?;
    Ok(Json(page.items.iter().map(types::invocation).collect()))
}

/// Reads the query of `GET /api/v1/invocations`.
///
/// # Errors
/// Names the parameter that is unknown, repeated or has a value that is not allowed.
pub fn read_invocation_listing(
    query: Option<&str>,
) -> Result<(InvocationFilter, PageRequest), FieldViolation> {
    let mut query = Query::parse(query)?;
    let TypeFilter {
        source_type,
        github_app_id,
        github_repository,
    } = TypeFilter::take(&mut query)?;
    let filter = InvocationFilter {
        source_id: query.take("source_id").map(|id| id.parse()).transpose()?,
        database: query
            .take("database_name")
            .map(|name| DatabaseName::parse("database_name", &name))
            .transpose()?,
        source_type,
        github_app_id,
        github_repository,
        state: query
            .take("status")
            .map(|name| StateName::parse("status", &name))
            .transpose()?,
    };
    let page = page(&mut query)?;
    query.finish(&LIST_PARAMETERS)?;
    Ok((filter, page))
}

pub(super) async fn latest_by_keys(
    State(state): State<RestState>,
    Caller(auth): Caller,
    PathId(source_id): PathId<SourceId>,
    JsonBody(body): JsonBody,
) -> RestResult<Json<BTreeMap<String, Value>>> {
    let object_keys = read_object_keys(&body)?;
    let latest = state
        .app
        .latest_invocations(&auth, source_id, &object_keys)
        .await?;
    Ok(Json(
        latest
            .iter()
            .map(|(key, invocation)| (key.clone(), types::invocation(invocation)))
            .collect(),
    ))
}

/// Reads the body of `latest-by-keys`. How many and how long the keys may be is the use case's to say.
///
/// # Errors
/// MALFORMED_REQUEST for what is not one JSON object, INVALID_FIELD with the field.
pub fn read_object_keys(bytes: &[u8]) -> Result<Vec<String>, Error> {
    let LatestByKeysBody { object_keys } = read_object(bytes)?;
    Ok(required("object_keys", object_keys)?)
}

/// Reads the body of `POST /api/v1/sources/{source_id}/invocations`.
///
/// # Errors
/// MALFORMED_REQUEST for what is not one JSON object, INVALID_FIELD with the field.
pub fn read_new_invocation(bytes: &[u8]) -> Result<NewInvocation, Error> {
    Ok(new_invocation(read_object(bytes)?)?)
}

/// The body, checked. Fields that only S3 sources take are refused by name.
fn new_invocation(body: CreateInvocationBody) -> Result<NewInvocation, FieldViolation> {
    let CreateInvocationBody {
        target_collection_name,
        ref_identifier,
        object_key,
        custom_id,
        metadata,
        webhook,
    } = body;
    for (name, given) in [
        ("object_key", object_key),
        ("custom_id", custom_id),
        ("metadata", metadata),
    ] {
        if given.is_some_and(|value| !value.is_null()) {
            return Err(FieldViolation::new(
                name,
                "is allowed for S3 sources only; leave it out",
            ));
        }
    }
    let collection = target_collection_name
        .ok_or_else(|| FieldViolation::new("target_collection_name", "is required for GitHub sources"))?;
    let collection = CollectionName::parse("target_collection_name", &collection)?;
    let reference = ref_identifier
        .map(|Object(reference)| reference.reference())
        .transpose()?
        .flatten();
    Ok(NewInvocation {
        collection,
        input: InvocationInput::Github { reference },
        webhook: webhook.map(|Object(webhook)| webhook.read()).transpose()?,
    })
}
