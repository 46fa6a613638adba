//! The statements of a store, as it logs them when they have run.

use std::{
    fmt,
    sync::{Arc, LazyLock, Mutex},
};

use tracing::{
    Dispatch, Event, Subscriber,
    field::{Field, Visit},
    subscriber::{self, DefaultGuard},
};
use tracing_subscriber::{Layer, layer::Context, prelude::*};

/// While there is one subscriber, the thread that comes first to a place that logs decides for all threads whether it is
/// listened to: by its own subscriber, and a test that records nothing has none. With two, all are asked.
static SECOND: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(tracing_subscriber::registry()));

/// The statements that ran, in their order. Scripts are one statement.
#[derive(Clone, Default)]
pub struct StatementLog(Arc<Mutex<Vec<String>>>);

impl StatementLog {
    /// Records what this thread logs, which is everything where a store has one thread.
    pub fn record(&self) -> DefaultGuard {
        LazyLock::force(&SECOND);
        subscriber::set_default(tracing_subscriber::registry().with(self.clone()))
    }

    /// What was recorded since the last call.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl<S: Subscriber> Layer<S> for StatementLog {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == "sql" {
            event.record(&mut self.clone());
        }
    }
}

impl Visit for StatementLog {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "sql" {
            self.0.lock().unwrap().push(value.to_owned());
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}
