//! The use case of search: a text in, the nearest chunks of a collection out.
//!
//! Which model a collection was built with, and what it is told about queries, stands in the collection
//! itself, so a search is right even after its source was deleted or differs. Absent on purpose: reading
//! filters, which Chroma does.

use std::sync::Arc;

use serde_json::Value;

use super::{
    App, Auth,
    embedding::{Purpose, default_task},
    refused_for,
};
use crate::{
    domain::{
        embedding::Task,
        search::{Filter, Place, Search, SearchHit},
        source::Source,
        texts::Texts,
    },
    embed::Embedder,
    error::{Error, Reason, Result},
    index::{Collection, DOCUMENT_KEY, END_LINE, Hit, HybridQuery, IndexError, Metadata, START_LINE, Space},
};

/// What was found, and with which model.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchResult {
    /// Nearest first.
    pub hits: Vec<SearchHit>,
    /// Name of the model.
    pub model: String,
}

impl App {
    /// Searches a collection.
    ///
    /// # Errors
    /// SOURCE_NOT_FOUND, DATABASE_FORBIDDEN, DATABASE_NOT_FOUND, COLLECTION_NOT_FOUND, CHROMA_FORBIDDEN,
    /// CHROMA_UNAVAILABLE; MODEL_NOT_SERVED, MODEL_UNKNOWN and DIMENSION_MISMATCH where this server cannot
    /// embed as the collection needs it; HYBRID_UNAVAILABLE; INVALID_FIELD for a `model` that contradicts the collection and for
    /// a filter that Chroma refuses; TOO_MANY_REQUESTS, EMBEDDING_UNAVAILABLE.
    pub async fn search(&self, auth: &Auth, search: Search) -> Result<SearchResult> {
        let source = match &search.place {
            Place::Source(id) => Some(self.get_source(auth, *id).await?),
            Place::Database(_) => None,
        };
        let database = match (&search.place, &source) {
            (Place::Database(database), _) => database,
            (Place::Source(_), Some(source)) => &source.database,
            (Place::Source(id), None) => return Err(super::sources::source_not_found(*id)),
        };
        auth.require_database(database)?;
        let chroma = self.chroma_of(auth)?;
        let collection = chroma
            .find_collection(auth.tenant(), database, &search.collection)
            .await
            .map_err(|error| refused_for(auth, error))?
            .ok_or_else(|| {
                Error::not_found(Reason::CollectionNotFound, "collection", &search.collection)
                    .with_metadata("collection_name", &search.collection)
                    .with_metadata("database_name", database)
            })?;
        let sparse = match search.hybrid {
            true => Some(self.sparse_index_of(&collection)?),
            false => None,
        };
        let (embedder, task) = self.model_of(&collection, source.as_ref(), search.model.as_deref())?;
        let instruction = task.map(|task| task.query_prompt).unwrap_or_default();
        let query_text = Texts::parse("query", vec![search.query], 1)?;
        let embedded = self
            .compute(embedder, Purpose::Query, instruction, query_text.clone())
            .await?;
        let model = embedded.model.name;
        let Some(query) = embedded.texts.into_iter().next() else {
            return Err(Error::internal(format!(
                "model {model} gave no vector for a text"
            )));
        };
        let Filter { metadata, document } = &search.filter;
        if let Some((sparse_key, sparse_model)) = sparse {
            let sparse = self
                .embed_sparse("model", sparse_model, Purpose::Query, query_text)
                .await?;
            let hybrid = HybridQuery {
                vector: query.vector,
                sparse_key,
                sparse: sparse.into_iter().next().unwrap_or_default(),
                filter: metadata.as_ref(),
                document_filter: document.as_ref(),
                limit: search.limit,
                offset: search.offset,
            };
            let hits = chroma.hybrid_query(&collection, &hybrid).await;
            let hits = hits.map_err(|error| refused_query(auth, &collection, &search.filter, error))?;
            let hits = hits
                .into_iter()
                .map(|hit| {
                    let score = -hit.distance;
                    shown(score, hit)
                })
                .collect();
            return Ok(SearchResult { hits, model });
        }
        let wanted = search.limit + search.offset;
        let hits = chroma
            .query_filtered(
                &collection,
                query.vector,
                wanted,
                metadata.as_ref(),
                document.as_ref(),
            )
            .await
            .map_err(|error| refused_query(auth, &collection, &search.filter, error))?;
        let hits = hits
            .into_iter()
            .skip(search.offset as usize)
            .map(|hit| shown(score(collection.space, hit.distance), hit))
            .collect();
        Ok(SearchResult { hits, model })
    }

    /// Key and model of the one sparse index of `collection`.
    ///
    /// # Errors
    /// HYBRID_UNAVAILABLE.
    fn sparse_index_of<'a>(&self, collection: &'a Collection) -> Result<(&'a str, &'a str)> {
        let mut indexes = collection.sparse_indexes.iter().flatten();
        let (Some((key, function)), None) = (indexes.next(), indexes.next()) else {
            let problem = "the collection does not have exactly one sparse index";
            return Err(hybrid_unavailable(collection, problem));
        };
        let model = function
            .as_ref()
            .and_then(|function| function.persisted_sparse_model());
        match model {
            Some(model) if self.0.catalog.serves_sparse(model) => Ok((key, model)),
            Some(_) | None => Err(hybrid_unavailable(
                collection,
                "this server does not serve the model of the collection's sparse index",
            )),
        }
    }

    /// The embedder that makes vectors for `collection`, and the task it is used for.
    fn model_of(
        &self,
        collection: &Collection,
        source: Option<&Source>,
        asked: Option<&str>,
    ) -> Result<(Arc<dyn Embedder>, Option<Task>)> {
        let function = collection.embedding_function.as_ref();
        let persisted = function.and_then(|function| function.persisted_model());
        let (name, task) = match (persisted, source, asked) {
            (Some(persisted), _, Some(asked)) if persisted.name != asked => {
                let problem = format!(
                    "must be {:?} or left out: collection {} was built with it",
                    persisted.name, collection.name
                );
                return Err(Error::invalid_field("model", problem));
            }
            (Some(persisted), _, _) => (persisted.name, persisted.task),
            (None, _, Some(asked)) => (asked.to_owned(), None),
            (None, Some(source), None) => (source.embedding.model.clone(), None),
            (None, None, None) => return Err(model_unknown(collection)),
        };
        let embedder = self.served(&name)?;
        let model = embedder.model();
        if let Some(dimension) = collection.dimension
            && dimension != model.dimensions
        {
            return Err(dimension_mismatch(collection, dimension, model.dimensions));
        }
        let of_source = source
            .map(|source| &source.embedding)
            .filter(|embedding| embedding.model == model.name)
            .and_then(|embedding| embedding.task_for(model));
        let task = task.or(of_source).or_else(|| default_task(model));
        Ok((embedder, task))
    }
}

fn model_unknown(collection: &Collection) -> Error {
    let message = match &collection.embedding_function {
        Some(function) => format!(
            "collection {} has the embedding function {:?}, of which it is not known which model it has; give \
             model",
            collection.name, function.name
        ),
        None => format!(
            "collection {} does not say which model it was built with; give model",
            collection.name
        ),
    };
    Error::new(Reason::ModelUnknown, message).with_metadata("collection_name", &collection.name)
}

fn dimension_mismatch(collection: &Collection, expected: u32, actual: u32) -> Error {
    let message = format!(
        "collection {} holds vectors of {expected} dimensions, but its model makes {actual}; give the model it \
         was built with",
        collection.name
    );
    Error::new(Reason::DimensionMismatch, message)
        .with_metadata("collection_name", &collection.name)
        .with_metadata("collection_dimensions", expected)
        .with_metadata("model_dimensions", actual)
}

/// An answer of Chroma to a query. What it refuses is the filter, since everything else was checked.
fn refused_query(auth: &Auth, collection: &Collection, filter: &Filter, error: IndexError) -> Error {
    match error {
        IndexError::DimensionMismatch { expected, actual, .. } => {
            dimension_mismatch(collection, expected, actual)
        }
        IndexError::CollectionNotFound { .. } => {
            Error::not_found(Reason::CollectionNotFound, "collection", &collection.name)
                .with_metadata("collection_name", &collection.name)
                .with_cause(error)
        }
        IndexError::Rejected {
            status: 400 | 422,
            ref message,
            ..
        } if *filter != Filter::default() => {
            let field = match filter.metadata {
                Some(_) => "where",
                None => "where_document",
            };
            Error::invalid_field(field, format!("the chroma server does not read it: {message}"))
        }
        // Every server answers the other queries.
        IndexError::Unsupported { .. } => {
            let problem = "the chroma server has no Search API, which a hybrid search needs";
            hybrid_unavailable(collection, problem).with_cause(error)
        }
        error => refused_for(auth, error),
    }
}

fn hybrid_unavailable(collection: &Collection, problem: &str) -> Error {
    let message = format!("{problem}; search collection {} without hybrid", collection.name);
    Error::new(Reason::HybridUnavailable, message).with_metadata("collection_name", &collection.name)
}

fn shown(score: f32, hit: Hit) -> SearchHit {
    let number = |metadata: &Metadata, key: &str| {
        let number = metadata.get(key).and_then(Value::as_u64);
        number.and_then(|number| u32::try_from(number).ok())
    };
    let document_key = hit.metadata.get(DOCUMENT_KEY).and_then(Value::as_str);
    SearchHit {
        score,
        document_key: document_key.map(str::to_owned),
        start_line: number(&hit.metadata, START_LINE),
        end_line: number(&hit.metadata, END_LINE),
        id: hit.id,
        text: hit.document.unwrap_or_default(),
        metadata: hit.metadata,
    }
}

/// The cosine similarity of two vectors of length 1 at this distance. One that is infinite is that to a
/// vector of zeros, which is like nothing: -1.
fn score(space: Space, distance: f32) -> f32 {
    let score = match space {
        Space::Cosine | Space::InnerProduct => 1.0 - distance,
        // |a - b|^2 = 2 - 2ab
        Space::L2 => 1.0 - distance / 2.0,
    };
    score.max(-1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_score_is_the_same_in_every_space() {
        for (space, distance) in [
            (Space::Cosine, 0.25),
            (Space::InnerProduct, 0.25),
            (Space::L2, 0.5),
        ] {
            assert!((score(space, distance) - 0.75).abs() < f32::EPSILON, "{space:?}");
        }
        assert_eq!(score(Space::Cosine, f32::INFINITY).to_bits(), (-1.0f32).to_bits());
    }
}
