//! Syncs objects as soon as S3 says that they changed.
//!
//! S3 puts an event for each change into a queue that the operator made; what is read from there becomes
//! invocations. A message is deleted after its invocations are stored, so one that is delivered twice, or to two
//! processes, must change nothing: the id of each request is made of what happened to which object.

pub mod events;
pub mod metadata_file;
mod queue;

pub use self::queue::{Message, Queue, QueueError, QueueOptions};
