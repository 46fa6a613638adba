//! `SearchService`.

use serde_json::{Map, Value};
use tonic::{Request, Response, Status};

use super::{
    authenticate,
    convert_source::{from_wire, to_wire},
    status::from_error,
};
use crate::{
    app::App,
    domain::search::{RequestedSearch, Search, SearchHit},
    error::FieldViolation,
    proto::{self, search_request::Place, search_service_server::SearchService},
};

/// How deep a filter may be nested; Chroma's own are four or five levels deep.
const MAX_FILTER_DEPTH: usize = 32;

/// Serves `SearchService`.
#[derive(Debug)]
pub(super) struct Searches {
    app: App,
}

impl Searches {
    pub(super) fn new(app: App) -> Self {
        Self { app }
    }
}

fn filter(field: &str, filter: Option<prost_types::Struct>) -> Result<Map<String, Value>, FieldViolation> {
    let fields = filter.unwrap_or_default().fields.into_iter();
    fields
        .map(|(key, value)| {
            let value = from_wire(value, MAX_FILTER_DEPTH)
                .map_err(|problem| FieldViolation::new(format!("{field}.{key}"), problem))?;
            Ok((key, value))
        })
        .collect()
}

fn read(request: proto::SearchRequest) -> Result<Search, FieldViolation> {
    let proto::SearchRequest {
        query,
        place,
        collection_name,
        model,
        r#where,
        where_document,
        limit,
        offset,
        hybrid,
    } = request;
    let (database_name, source_id) = match place {
        None => (None, None),
        Some(Place::DatabaseName(name)) => (Some(name), None),
        Some(Place::SourceId(id)) => (None, Some(id)),
    };
    RequestedSearch {
        query,
        database_name,
        source_id,
        collection_name,
        model: (!model.is_empty()).then_some(model),
        metadata_filter: filter("where", r#where)?,
        document_filter: filter("where_document", where_document)?,
        limit: (limit != 0).then_some(i64::from(limit)),
        offset: i64::from(offset),
        hybrid,
    }
    .check()
}

fn hit(hit: SearchHit) -> proto::SearchHit {
    let line = |line: Option<u32>| line.and_then(|line| i32::try_from(line).ok()).unwrap_or(0);
    proto::SearchHit {
        id: hit.id,
        score: hit.score,
        document_key: hit.document_key.unwrap_or_default(),
        start_line: line(hit.start_line),
        end_line: line(hit.end_line),
        text: hit.text,
        metadata: Some(prost_types::Struct {
            fields: hit
                .metadata
                .iter()
                .map(|(key, value)| (key.clone(), to_wire(value)))
                .collect(),
        }),
    }
}

#[tonic::async_trait]
impl SearchService for Searches {
    async fn search(
        &self,
        request: Request<proto::SearchRequest>,
    ) -> Result<Response<proto::SearchResponse>, Status> {
        let auth = authenticate(&self.app, &request).await?;
        let search = read(request.into_inner()).map_err(|violation| from_error(violation.into()))?;
        let found = self.app.search(&auth, search).await.map_err(from_error)?;
        Ok(Response::new(proto::SearchResponse {
            hits: found.hits.into_iter().map(hit).collect(),
            model: found.model,
        }))
    }
}
