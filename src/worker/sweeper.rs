//! Removes uploaded files that nobody needs any more. Every worker runs one; the rows of the uploads keep them
//! from removing the same file at once.

use tokio_util::sync::CancellationToken;

use super::{Environment, WorkerOptions};
use crate::{
    error::{Error, chain},
    store::TakenUploads,
};

/// Uploads that are looked at in one transaction.
const BATCH: u64 = 64;

/// Looks at the start, so that what died with the process before is gone soon, then as often as configured,
/// until `drain`.
pub(super) async fn run(environment: Environment, options: WorkerOptions, drain: CancellationToken) {
    loop {
        if let Err(error) = sweep(&environment, &options).await {
            tracing::warn!(error = %chain(&error), "cannot remove uploaded files; will try again");
        }
        tokio::select! {
            () = drain.cancelled() => return,
            () = tokio::time::sleep(options.sweep_uploads) => {}
        }
    }
}

async fn sweep(environment: &Environment, options: &WorkerOptions) -> Result<(), Error> {
    let Environment { store, uploads, .. } = environment;
    loop {
        let TakenUploads { removable, seen } = store
            .take_removable_uploads(options.keep_uploads, options.sweep_uploads, BATCH)
            .await?;
        for id in removable {
            uploads.remove(id).await?;
            store.delete_upload(id).await?;
            tracing::debug!(upload.id = %id, "removed an uploaded file");
        }
        if seen < BATCH {
            return Ok(());
        }
    }
}
