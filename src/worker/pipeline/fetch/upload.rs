//! An uploaded file.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Coverage, Fetched, skip_by_format};
use crate::{
    domain::invocation::UploadedFile,
    fetch::UploadedDocument,
    worker::{
        Environment,
        failure::AttemptError,
        pipeline::{load_stage::Labels, prepare::Source},
        progress::{ProgressHandle, Stage},
    },
};

/// Lists the file.
pub(super) async fn list(
    environment: &Environment,
    progress: &ProgressHandle,
    file: &UploadedFile,
) -> Result<Fetched, AttemptError> {
    let start = Instant::now();
    let document = UploadedDocument::new(
        environment.uploads.clone(),
        file.clone(),
        environment.upload_directory.clone(),
    );
    let mut entries = document.list().await?;
    progress.time(Stage::Fetch, start);
    for entry in &mut entries {
        skip_by_format(environment, entry, file.content_type.as_deref());
    }
    Ok(Fetched {
        source: Source {
            entries: entries.into(),
            reader: Arc::new(document),
        },
        coverage: Coverage::Document,
        labels: Labels {
            custom_id: file.custom_id.as_ref().map(|id| id.as_str().to_owned()),
            metadata: file.metadata.as_map().clone(),
        },
    })
}
