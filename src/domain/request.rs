//! What a caller asks of an invocation, before it is known what source it is for.
//!
//! A request is the same for every type of source as far as its form goes; what it may have in it depends on
//! the source. So it is read once, and checked against the source when that is at hand.

use super::{
    invocation::{GitReference, InvocationInput, NewInvocation, S3Objects},
    names::CollectionName,
    s3::{CustomId, ObjectKey},
    source::{Source, SourceSettings, SourceType},
    user_metadata::UserMetadata,
    webhook::Webhook,
};
use crate::error::FieldViolation;

/// What is to be synced, in the words of the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestedInput {
    /// Nothing was said.
    Default,
    /// A commit; none for the default branch.
    Github(Option<GitReference>),
    /// One object.
    Object {
        /// Its key; checked against the source's prefix later.
        key: String,
        /// What its records are named after.
        custom_id: Option<CustomId>,
        /// What its records say.
        metadata: UserMetadata,
    },
    /// Every object under the source's prefix.
    Prefix,
    /// A web site.
    WebScrape,
}

/// How a surface calls the fields that a violation may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FieldNames {
    /// The commit.
    pub reference: &'static str,
    /// The key of an object.
    pub object_key: &'static str,
    /// The whole prefix.
    pub prefix: &'static str,
    /// What the records of an object say.
    pub metadata: &'static str,
    /// Web sites.
    pub web_scrape: &'static str,
}

/// A request to create an invocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestedInvocation {
    /// Where the records go.
    pub collection: Option<CollectionName>,
    /// What is to be synced.
    pub input: RequestedInput,
    /// Where its state changes are sent to.
    pub webhook: Option<Webhook>,
    /// Whether a finished collection is brought up to date.
    pub update_collection: bool,
    /// How the caller calls its fields.
    pub fields: FieldNames,
}

impl RequestedInvocation {
    /// What the request means for `source`.
    ///
    /// # Errors
    /// The violation names the field that the type of the source does not have, or lacks.
    pub fn for_source(self, source: &Source) -> Result<NewInvocation, FieldViolation> {
        let Self {
            collection,
            input,
            webhook,
            update_collection,
            fields,
        } = self;
        let (input, default_collection) = match &source.settings {
            SourceSettings::Github(_) => (github(input, &fields)?, None),
            SourceSettings::S3(s3) => {
                let objects = match input {
                    RequestedInput::Object {
                        key,
                        custom_id,
                        metadata,
                    } => {
                        metadata.require_free(fields.metadata, source.embedding.sparse_key())?;
                        S3Objects::Object {
                            key: ObjectKey::parse(fields.object_key, &key, s3.path_prefix.as_ref())?,
                            custom_id,
                            metadata,
                        }
                    }
                    RequestedInput::Prefix => S3Objects::Prefix,
                    RequestedInput::Default => {
                        let problem = format!(
                            "is required for S3 sources; or ask for every object with {}",
                            fields.prefix
                        );
                        return Err(FieldViolation::new(fields.object_key, problem));
                    }
                    other => return Err(unfitting(&other, &fields)),
                };
                let bucket = s3.bucket.clone();
                (InvocationInput::S3 { bucket, objects }, Some(&s3.collection))
            }
            SourceSettings::WebScrape(_) => match input {
                RequestedInput::Default | RequestedInput::WebScrape => (InvocationInput::WebScrape, None),
                other => return Err(unfitting(&other, &fields)),
            },
            SourceSettings::FileUpload => {
                return Err(FieldViolation::new(
                    "source_id",
                    "is a source of uploaded files; upload a file to create an invocation",
                ));
            }
        };
        let collection = collection
            .or_else(|| default_collection.cloned())
            .ok_or_else(|| {
                let of = match source.settings.source_type() {
                    SourceType::WebScrape => "web sites",
                    SourceType::Github | SourceType::S3 | SourceType::FileUpload => "GitHub sources",
                };
                FieldViolation::new("target_collection_name", format!("is required for {of}"))
            })?;
        Ok(NewInvocation {
            collection,
            input,
            webhook,
            update_collection,
        })
    }
}

fn github(input: RequestedInput, fields: &FieldNames) -> Result<InvocationInput, FieldViolation> {
    match input {
        RequestedInput::Default => Ok(InvocationInput::Github { reference: None }),
        RequestedInput::Github(reference) => Ok(InvocationInput::Github { reference }),
        other => Err(unfitting(&other, fields)),
    }
}

/// Names the field that only sources of another type have.
fn unfitting(input: &RequestedInput, fields: &FieldNames) -> FieldViolation {
    let (field, types) = match input {
        RequestedInput::Default | RequestedInput::Github(_) => (fields.reference, "GitHub sources"),
        RequestedInput::Object { .. } => (fields.object_key, "S3 sources"),
        RequestedInput::Prefix => (fields.prefix, "S3 sources"),
        RequestedInput::WebScrape => (fields.web_scrape, "web sites"),
    };
    FieldViolation::new(field, format!("is allowed for {types} only; leave it out"))
}
