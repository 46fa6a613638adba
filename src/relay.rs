//! Carries wake-ups between the processes that share a PostgreSQL database.
//!
//! What happens in this process is told to all, and what any process tells wakes the watches and workers
//! of this one. On SQLite nothing is told, and each process looks by the clock. Invariant: nothing depends on
//! it; a relay that is cut off makes others slower by their polling period.

use std::time::Duration;

use crate::{
    error::chain,
    store::{Notice, Store, StoreError},
    wake::{ChangeSignal, Changed, WorkSignal},
};

/// Pause before the database is asked again to let this process listen.
const RECONNECT_PAUSE: Duration = Duration::from_secs(1);

/// Tells and listens; returns only where there is nobody to tell. What changes while the process drains is still told.
pub async fn run(store: Store, changes: ChangeSignal, work: WorkSignal) {
    if !store.has_notices() {
        return;
    }
    tokio::join!(tell(&store, &changes, &work), listen(&store, &changes, &work));
}

/// While one lot is being told, the next one gathers, so a busy process tells many changes at once and an
/// idle one tells each without delay.
async fn tell(store: &Store, changes: &ChangeSignal, work: &WorkSignal) {
    loop {
        let notice = tokio::select! {
            changed = changes.wait_to_tell() => match changed {
                Changed::These(ids) => Notice::Changed(ids.into_iter().collect()),
                Changed::Many => Notice::ManyChanged,
            },
            () = work.wait_to_tell() => Notice::Work,
        };
        if let Err(error) = store.tell(notice).await {
            tracing::warn!(error = %chain(&error), "cannot tell other processes what changed; they will poll");
        }
    }
}

async fn listen(store: &Store, changes: &ChangeSignal, work: &WorkSignal) {
    while let Err(error) = hear(store, changes, work).await {
        tracing::warn!(error = %chain(&error), "cannot listen to other processes; polling meanwhile");
        tokio::time::sleep(RECONNECT_PAUSE).await;
        // What was told meanwhile was not heard.
        changes.heard_many();
        work.heard();
    }
}

/// Returns when there is nothing to listen to.
async fn hear(store: &Store, changes: &ChangeSignal, work: &WorkSignal) -> Result<(), StoreError> {
    let Some(mut notices) = store.listen().await? else {
        return Ok(());
    };
    loop {
        match notices.next().await? {
            Notice::Changed(ids) => changes.heard(ids),
            Notice::ManyChanged => {
                changes.heard_many();
                work.heard();
            }
            Notice::Work => work.heard(),
        }
    }
}
