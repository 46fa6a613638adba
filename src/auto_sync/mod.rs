//! Syncs objects as soon as S3 says that they changed.
//!
//! S3 puts an event for each change into a queue that the operator made; what is read from there becomes
//! invocations. A message is deleted after its invocations are stored, so one that is delivered twice, or to two
//! processes, must change nothing: the id of each request is made of what happened to which object. What cannot be
//! read or done is never deleted: it comes back until the queue's own policy sets it aside as a dead letter.
//!
//! Absent on purpose: any order. Events come late and out of order, so they say which object to look at, and the
//! attempt looks.

mod counts;
pub mod events;
mod handler;
pub mod metadata_file;
mod queue;

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use tokio_util::sync::CancellationToken;

pub use self::{
    counts::Counts,
    queue::{Message, Queue, QueueError, QueueOptions},
};
use crate::{
    error::chain,
    fetch::s3::S3Options,
    seal::SealingKey,
    store::Store,
    wake::{ChangeSignal, WorkSignal},
};

/// Wait after the queue could not be read; doubles with every further time, up to the longest.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);

/// Everything events need from outside.
#[derive(Debug, Clone)]
pub struct Environment {
    /// The service's own database.
    pub store: Store,
    /// Opens the secrets of access keys.
    pub sealing_key: SealingKey,
    /// How metadata files are read.
    pub s3: S3Options,
    /// Wakes workers.
    pub work: WorkSignal,
    /// Wakes watches.
    pub changes: ChangeSignal,
    /// What became of it all.
    pub counts: Arc<Counts>,
    /// Whether the document of an object that was removed is removed as well.
    pub delete_removed_objects: bool,
    /// How long what is at hand may take after `drain` was cancelled.
    pub drain: Duration,
}

/// Handles messages of `queue` until `drain` is cancelled, and those at hand for [`Environment::drain`] longer; what
/// is not done by then comes back when the messages can be seen again.
pub async fn run(environment: Environment, queue: Queue, drain: CancellationToken) {
    let mut backoff = FIRST_BACKOFF;
    loop {
        let received = tokio::select! {
            biased;
            () = drain.cancelled() => break,
            received = queue.receive() => received,
        };
        match received {
            Ok(messages) => {
                backoff = FIRST_BACKOFF;
                let settled = join_all(messages.iter().map(|message| environment.settle(&queue, message)));
                let too_long = async {
                    drain.cancelled().await;
                    tokio::time::sleep(environment.drain).await;
                };
                tokio::select! {
                    _ = settled => {}
                    () = too_long => {
                        tracing::warn!("events broke off; their messages are received again");
                        break;
                    }
                }
            }
            Err(error) => {
                tracing::warn!(error = %chain(&error), "cannot read the queue of events; will try again");
                tokio::select! {
                    () = drain.cancelled() => break,
                    () = tokio::time::sleep(backoff) => {}
                }
                backoff = backoff.saturating_mul(2).min(LONGEST_BACKOFF);
            }
        }
    }
}

impl Environment {
    /// Does what a message says, then deletes it, or leaves it where it is.
    async fn settle(&self, queue: &Queue, message: &Message) {
        let id = &message.message_id;
        let events = match events::parse(&message.body) {
            Ok(events) => events,
            Err(error) => {
                self.counts.messages_unreadable.inc();
                tracing::warn!(
                    message.id = id, error = %chain(&error),
                    "a message of the queue is left to its dead-letter policy"
                );
                return;
            }
        };
        // Others receive the message once its time is up, and do the same without harm.
        let handled = async {
            for event in &events {
                self.handle(event).await?;
            }
            Ok(())
        };
        let error = match tokio::time::timeout(queue.visibility_timeout(), handled).await {
            Ok(Ok(())) => {
                self.delete(queue, message).await;
                return;
            }
            Ok(Err(error)) => Some(error),
            Err(_) => None,
        };
        self.counts.messages_left.inc();
        let cause = error.as_ref().map_or_else(
            || "it took longer than sqs.visibility_timeout_seconds".to_owned(),
            |error: &handler::HandleError| chain(error),
        );
        tracing::warn!(
            message.id = id,
            error = cause,
            "a message of the queue is left for another try"
        );
        if let Some(wait) = error.and_then(|error| error.retry_after())
            && let Err(error) = queue.show_again_after(message, wait).await
        {
            tracing::debug!(message.id = id, error = %chain(&error), "it comes back sooner than asked for");
        }
    }

    async fn delete(&self, queue: &Queue, message: &Message) {
        let deleted = queue.delete(message).await;
        self.counts.messages_handled.inc();
        if let Err(error) = deleted {
            tracing::warn!(
                message.id = message.message_id, error = %chain(&error),
                "a message that was handled could not be deleted; it will be received again, without effect"
            );
        }
    }
}
