//! What a search asks for, and what it finds.

use serde_json::{Map, Value};

use super::{
    ids::SourceId,
    names::{CollectionName, DatabaseName},
    texts::check_text,
};
use crate::error::FieldViolation;

/// Hits where a request says nothing.
pub const DEFAULT_LIMIT: u32 = 10;
/// The most hits of one search.
pub const MAX_LIMIT: u32 = 100;
/// The most hits that are skipped: with [`MAX_LIMIT`] as many as Chroma Cloud gives for one query (300).
pub const MAX_OFFSET: u32 = 200;

/// Where the collection is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In this database.
    Database(DatabaseName),
    /// In the database of this source, whose model counts where the collection names none.
    Source(SourceId),
}

/// What hits must be like besides being near, in Chroma's own language; Chroma reads it, we do not.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Filter {
    /// On metadata: Chroma's `where`.
    pub metadata: Option<Value>,
    /// On texts: Chroma's `where_document`.
    pub document: Option<Value>,
}

/// A search in the words of the caller. The fields are called the same on every surface.
#[derive(Debug, Clone, PartialEq, Default)]
#[allow(missing_docs)]
pub struct RequestedSearch {
    pub query: String,
    pub database_name: Option<String>,
    pub source_id: Option<String>,
    pub collection_name: String,
    pub model: Option<String>,
    /// Empty is none, as Chroma refuses it.
    pub metadata_filter: Map<String, Value>,
    /// Likewise.
    pub document_filter: Map<String, Value>,
    /// None is [`DEFAULT_LIMIT`].
    pub limit: Option<i64>,
    pub offset: i64,
    pub hybrid: bool,
}

/// A search that is valid by itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Search {
    /// What to look for; not empty.
    pub query: String,
    /// Where the collection is.
    pub place: Place,
    /// Its name.
    pub collection: CollectionName,
    /// The model that the caller names.
    pub model: Option<String>,
    /// What hits must be like.
    pub filter: Filter,
    /// Hits wanted, 1 to [`MAX_LIMIT`].
    pub limit: u32,
    /// Hits to skip, 0 to [`MAX_OFFSET`].
    pub offset: u32,
    /// Whether sparse vectors count as well.
    pub hybrid: bool,
}

impl RequestedSearch {
    /// Checks the request.
    ///
    /// # Errors
    /// The violation names the field and what is allowed.
    pub fn check(self) -> Result<Search, FieldViolation> {
        let place = match (self.database_name, self.source_id) {
            (Some(name), None) => Place::Database(DatabaseName::parse("database_name", &name)?),
            (None, Some(id)) => Place::Source(id.parse()?),
            (None, None) => {
                let problem = "is required, or source_id in its place";
                return Err(FieldViolation::new("database_name", problem));
            }
            (Some(_), Some(_)) => {
                let problem = "must not be given with source_id, whose database is searched";
                return Err(FieldViolation::new("database_name", problem));
            }
        };
        if self.query.is_empty() {
            return Err(FieldViolation::new("query", "must not be empty"));
        }
        check_text("query", &self.query)?;
        Ok(Search {
            query: self.query,
            place,
            collection: CollectionName::parse("collection_name", &self.collection_name)?,
            model: self.model,
            filter: Filter {
                metadata: filter(self.metadata_filter),
                document: filter(self.document_filter),
            },
            limit: within(
                "limit",
                self.limit.unwrap_or(i64::from(DEFAULT_LIMIT)),
                1,
                MAX_LIMIT,
            )?,
            offset: within("offset", self.offset, 0, MAX_OFFSET)?,
            hybrid: self.hybrid,
        })
    }
}

fn filter(fields: Map<String, Value>) -> Option<Value> {
    (!fields.is_empty()).then_some(Value::Object(fields))
}

fn within(field: &str, number: i64, least: u32, most: u32) -> Result<u32, FieldViolation> {
    match u32::try_from(number) {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        Ok(_) | Err(_) => Err(FieldViolation::new(
            field,
            format!("must be a whole number from {least} to {most}, is {number}"),
        )),
    }
}

/// A chunk that answers a search.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchHit {
    /// Id of its record.
    pub id: String,
    /// The cosine similarity of its vector and that of the query, -1 to 1; of a hybrid search the sum of
    /// `1 / (60 + rank)` over both rankings.
    pub score: f32,
    /// The document it is of; none in a record that no sync wrote.
    pub document_key: Option<String>,
    /// Its first line, from 1; none in a record that no sync wrote.
    pub start_line: Option<u32>,
    /// Its last line, inclusive.
    pub end_line: Option<u32>,
    /// Its text.
    pub text: String,
    /// All metadata of its record.
    pub metadata: Map<String, Value>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn request() -> RequestedSearch {
        RequestedSearch {
            query: "where?".to_owned(),
            database_name: Some("db".to_owned()),
            collection_name: "abc".to_owned(),
            ..RequestedSearch::default()
        }
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let search = request().check().unwrap();
        assert_eq!((search.limit, search.offset), (DEFAULT_LIMIT, 0));
        assert_eq!(search.filter, Filter::default());
    }

    #[test]
    fn each_wrong_field_is_named() {
        let refused = |change: fn(&mut RequestedSearch)| {
            let mut request = request();
            change(&mut request);
            request.check().unwrap_err().field
        };
        assert_eq!(refused(|request| request.query.clear()), "query");
        assert_eq!(refused(|request| request.query = "x".repeat(200_000)), "query");
        assert_eq!(refused(|request| request.database_name = None), "database_name");
        assert_eq!(
            refused(|request| request.source_id = Some("x".to_owned())),
            "database_name"
        );
        assert_eq!(
            refused(|request| {
                request.database_name = None;
                request.source_id = Some("x".to_owned());
            }),
            "source_id"
        );
        assert_eq!(
            refused(|request| request.collection_name.clear()),
            "collection_name"
        );
        assert_eq!(refused(|request| request.limit = Some(0)), "limit");
        assert_eq!(refused(|request| request.limit = Some(101)), "limit");
        assert_eq!(refused(|request| request.offset = 201), "offset");
        assert_eq!(refused(|request| request.offset = -1), "offset");
    }
}
