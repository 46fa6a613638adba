//! `/api/v1/search`.

use axum::{Json, extract::State};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    RestState,
    error::RestResult,
    extract::{Caller, JsonBody, read_object, required},
};
use crate::{
    domain::search::{RequestedSearch, Search},
    error::Error,
    json::search_hit,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SearchBody {
    query: Option<String>,
    database_name: Option<String>,
    source_id: Option<String>,
    collection_name: Option<String>,
    model: Option<String>,
    #[serde(rename = "where")]
    metadata_filter: Option<Map<String, Value>>,
    #[serde(rename = "where_document")]
    document_filter: Option<Map<String, Value>>,
    limit: Option<i64>,
    offset: Option<i64>,
    #[serde(default)]
    hybrid: bool,
}

/// `POST /api/v1/search`.
pub(super) async fn search(
    State(state): State<RestState>,
    Caller(auth): Caller,
    JsonBody(body): JsonBody,
) -> RestResult<Json<Value>> {
    let found = state.app.search(&auth, read(&body)?).await?;
    let hits: Vec<Value> = found.hits.into_iter().map(search_hit).collect();
    Ok(Json(json!({"model": found.model, "hits": hits})))
}

fn read(body: &[u8]) -> Result<Search, Error> {
    let body: SearchBody = read_object(body)?;
    let search = RequestedSearch {
        query: required("query", body.query)?,
        database_name: body.database_name,
        source_id: body.source_id,
        collection_name: required("collection_name", body.collection_name)?,
        model: body.model,
        metadata_filter: body.metadata_filter.unwrap_or_default(),
        document_filter: body.document_filter.unwrap_or_default(),
        limit: body.limit,
        offset: body.offset.unwrap_or_default(),
        hybrid: body.hybrid,
    };
    Ok(search.check()?)
}
