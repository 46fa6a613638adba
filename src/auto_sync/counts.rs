//! What became of messages and events, counted since the process started.

use prometheus_client::{metrics::counter::Counter, registry::Registry};

/// Counts that only grow. Shared by reference; each is read by itself.
#[derive(Debug, Default)]
pub struct Counts {
    /// Messages that were done with and deleted.
    pub messages_handled: Counter,
    /// Messages that were left, to be received again.
    pub messages_left: Counter,
    /// Messages that nobody will ever be able to read, left to the queue's dead-letter policy.
    pub messages_unreadable: Counter,
    /// Events of buckets that no source follows.
    pub events_of_unknown_buckets: Counter,
    /// Events that no source follows: another prefix, another mode, a folder.
    pub events_passed_over: Counter,
    /// Invocations created to sync an object.
    pub invocations_created: Counter,
    /// Invocations created to remove a document.
    pub removals_created: Counter,
    /// Events that led to an invocation before.
    pub repeated: Counter,
}

impl Counts {
    /// Adds every count to `registry`, each under a name of its own that begins with `auto_sync_`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("auto_sync");
        let metrics = [
            (
                "messages_handled",
                "Messages of the queue that were done with and deleted",
                &self.messages_handled,
            ),
            (
                "messages_left",
                "Messages of the queue that were left, to be received again",
                &self.messages_left,
            ),
            (
                "messages_unreadable",
                "Messages left to the dead-letter policy of the queue, since they cannot be read",
                &self.messages_unreadable,
            ),
            (
                "events_of_unknown_buckets",
                "Events of buckets that no source follows",
                &self.events_of_unknown_buckets,
            ),
            (
                "events_passed_over",
                "Events of a bucket that is followed, but not there: another prefix, another mode, a folder",
                &self.events_passed_over,
            ),
            (
                "invocations_created",
                "Invocations created to sync an object",
                &self.invocations_created,
            ),
            (
                "removals_created",
                "Invocations created to remove the document of an object that is gone",
                &self.removals_created,
            ),
            (
                "repeated",
                "Events that had led to an invocation before",
                &self.repeated,
            ),
        ];
        for (name, help, counter) in metrics {
            registry.register(name, help, counter.clone());
        }
    }
}
