//! Objects of a bucket: one, all under a prefix, or one that is gone.

use std::sync::Arc;

use futures::{FutureExt, future::BoxFuture};
use tokio::time::Instant;

use super::{Confirmed, Coverage, Fetched, skip_by_format};
use crate::{
    domain::{
        document::SkipRule,
        invocation::S3Objects,
        s3::ObjectKey,
        source::{S3Credential, S3Source},
    },
    fetch::{
        DocumentReader, Entry, Listed, LoadError, LoadedDocument, Reading,
        s3::{S3Bucket, S3Error},
    },
    store::Claim,
    worker::{
        Environment,
        failure::AttemptError,
        pipeline::{load_stage::Labels, prepare::Source},
        progress::{ProgressHandle, Stage},
    },
};

/// Objects that are loaded at once: enough to hide how long each answer takes.
const OBJECTS_AHEAD: usize = 8;

/// Lists what the invocation names.
pub(super) async fn list(
    environment: &Environment,
    claim: &Claim,
    progress: &ProgressHandle,
    s3: &S3Source,
    objects: &S3Objects,
) -> Result<Fetched, AttemptError> {
    let bucket = open(environment, claim, s3).await?;
    let start = Instant::now();
    let (mut entries, coverage, labels) = match objects {
        S3Objects::Object {
            key,
            custom_id,
            metadata,
        } => {
            let labels = Labels {
                custom_id: custom_id.as_ref().map(|id| id.as_str().to_owned()),
                metadata: metadata.as_map().clone(),
            };
            (vec![bucket.head(key).await?], Coverage::Document, labels)
        }
        S3Objects::Removed { key } => {
            // Events come late and out of order, and may be about an old version of an object that is there.
            let gone = match bucket.head(key).await {
                Ok(_) => Vec::new(),
                Err(S3Error::ObjectNotFound { .. }) => vec![gone(key)],
                Err(error) => return Err(error.into()),
            };
            (gone, Coverage::Removed, Labels::default())
        }
        S3Objects::Prefix => {
            let entries = bucket.list(s3.path_prefix.as_ref()).await?;
            (entries, Coverage::Prefix, Labels::default())
        }
    };
    progress.time(Stage::Fetch, start);
    for entry in &mut entries {
        leave_out(environment, entry, coverage);
    }
    Ok(Fetched {
        source: Source {
            entries: entries.into(),
            reader: Arc::new(Objects(bucket)),
        },
        coverage,
        labels,
    })
}

/// Whether the object is still the one that was indexed. One that changed is an error, which is tried again.
pub(super) async fn confirm(
    environment: &Environment,
    claim: &Claim,
    s3: &S3Source,
    key: &ObjectKey,
    source: &Source,
) -> Result<Confirmed, AttemptError> {
    let now = match open(environment, claim, s3).await?.head(key).await {
        Ok(now) => now,
        Err(error @ S3Error::ObjectNotFound { .. }) => return Ok(Confirmed::Gone(error.into())),
        Err(error) => return Err(error.into()),
    };
    match source.entries.first() {
        Some(indexed) if indexed.version_key != now.version_key => Err(S3Error::ObjectChanged {
            key: key.as_str().to_owned(),
        }
        .into()),
        Some(_) | None => Ok(Confirmed::There),
    }
}

async fn open(environment: &Environment, claim: &Claim, s3: &S3Source) -> Result<S3Bucket, AttemptError> {
    let keys = match &s3.credential {
        S3Credential::Stored(id) => environment.aws_keys(&claim.invocation.tenant, *id).await?,
        // No stored source has one.
        S3Credential::Given(keys) => keys.clone(),
    };
    Ok(S3Bucket::of_source(&environment.s3, s3, keys)?)
}

/// What is left out for its name need not be loaded. An object that was asked for by its key and is too large
/// fails, rather than being passed over.
fn leave_out(environment: &Environment, entry: &mut Entry, coverage: Coverage) {
    match (&entry.decision, coverage) {
        (Listed::Load, _) => skip_by_format(environment, entry, None),
        (Listed::Skip(SkipRule::TooLarge), Coverage::Document) => {
            let error = S3Error::ObjectTooLarge {
                key: entry.document_key.clone(),
                limit: environment.s3.max_object_bytes,
            };
            entry.decision = Listed::Failed(error.to_string());
        }
        (Listed::Skip(_) | Listed::Unchanged | Listed::Failed(_), _) => {}
    }
}

fn gone(key: &ObjectKey) -> Entry {
    Entry {
        document_key: key.as_str().to_owned(),
        version_key: String::new(),
        size_bytes: None,
        decision: Listed::Unchanged,
        memo: None,
    }
}

#[derive(Debug)]
struct Objects(S3Bucket);

impl DocumentReader for Objects {
    fn reading(&self) -> Reading {
        Reading {
            concurrency: OBJECTS_AHEAD,
            parses: true,
            fails_without_text: true,
        }
    }

    fn load<'a>(&'a self, entry: &'a Entry) -> BoxFuture<'a, Result<LoadedDocument, LoadError>> {
        async move {
            let loaded = self.0.load(&entry.document_key, &entry.version_key).await;
            let document = loaded.map_err(load_error)?;
            Ok(LoadedDocument {
                // The documented rule goes by the suffix; what stores call an object by default is often wrong.
                media_type: None,
                ..document
            })
        }
        .boxed()
    }
}

/// What is about the bucket ends the attempt, what is about the object fails it alone.
fn load_error(error: S3Error) -> LoadError {
    LoadError {
        failure: error.failure(),
        transient: error.is_transient() || !error.concerns_one_object(),
        retry_after: error.retry_after(),
        source: Some(error.into()),
    }
}
