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
        invocation::{InvocationFilter, StateName},
        names::{CollectionName, DatabaseName},
        page::PageRequest,
        request::{FieldNames, RequestedInput, RequestedInvocation},
        s3::CustomId,
        user_metadata::UserMetadata,
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

/// How the documented JSON calls the fields of an invocation's input.
const FIELDS: FieldNames = FieldNames {
    reference: "ref_identifier",
    object_key: "object_key",
    prefix: "sync_prefix",
    metadata: "metadata",
    web_scrape: "web_scrape",
};

/// Reads the body of `POST /api/v1/sources/{source_id}/invocations`.
///
/// # Errors
/// MALFORMED_REQUEST for what is not one JSON object, INVALID_FIELD with the field.
pub fn read_new_invocation(bytes: &[u8]) -> Result<RequestedInvocation, Error> {
    Ok(new_invocation(read_object(bytes)?)?)
}

/// The body, as far as it can be checked without its source.
fn new_invocation(body: CreateInvocationBody) -> Result<RequestedInvocation, FieldViolation> {
    let CreateInvocationBody {
        target_collection_name,
        ref_identifier,
        object_key,
        custom_id,
        metadata,
        sync_prefix,
        update_collection,
        webhook,
    } = body;
    let collection = target_collection_name
        .map(|name| CollectionName::parse("target_collection_name", &name))
        .transpose()?;
    let metadata = match metadata {
        None | Some(Value::Null) => None,
        Some(Value::Object(metadata)) => Some(UserMetadata::parse("metadata", metadata)?),
        Some(_) => return Err(FieldViolation::new("metadata", "must be an object")),
    };
    let custom_id = custom_id
        .map(|id| CustomId::parse("custom_id", &id))
        .transpose()?;
    if object_key.is_none() {
        let given = [
            ("custom_id", custom_id.is_some()),
            ("metadata", metadata.is_some()),
        ];
        if let Some((field, _)) = given.into_iter().find(|(_, given)| *given) {
            let problem = "is allowed for S3 sources only, together with object_key; leave it out";
            return Err(FieldViolation::new(field, problem));
        }
    }
    let input = match (object_key, sync_prefix.unwrap_or_default(), ref_identifier) {
        (None, false, None) => RequestedInput::Default,
        (None, false, Some(Object(reference))) => RequestedInput::Github(reference.reference()?),
        (Some(key), false, None) => RequestedInput::Object {
            key,
            custom_id,
            metadata: metadata.unwrap_or_default(),
        },
        (None, true, None) => RequestedInput::Prefix,
        (Some(_), true, _) => {
            let problem = "cannot be given together with object_key";
            return Err(FieldViolation::new("sync_prefix", problem));
        }
        (_, _, Some(_)) => {
            let problem =
                "is for GitHub sources, object_key and sync_prefix for S3 sources; give those of one";
            return Err(FieldViolation::new("ref_identifier", problem));
        }
    };
    Ok(RequestedInvocation {
        collection,
        input,
        webhook: webhook.map(|Object(webhook)| webhook.read()).transpose()?,
        update_collection: update_collection.unwrap_or_default(),
        fields: FIELDS,
    })
}
