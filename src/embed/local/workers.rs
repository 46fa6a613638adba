//! How many threads a model gets, what they take at once, and at which priority they run.

use super::batches::Layout;

/// Threads for documents that one thread for queries goes with.
const DOCUMENT_THREADS_PER_QUERY_THREAD: usize = 2;

/// How much nicer than the process its threads for documents are: a quarter of a processor is left to them by one thread
/// that is not (`nice(7)`: each step is a factor of about 1.25).
const NICER: i32 = 6;

/// The threads of a pool, and how the batches lie that they compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Workers {
    /// Threads that take documents, and of queries what is left over.
    pub(super) threads: usize,
    /// Threads that take queries alone.
    pub(super) query_threads: usize,
    pub(super) layout: Layout,
}

impl Workers {
    /// One for a device, which computes one batch at a time.
    pub(super) const ON_A_DEVICE: Self = Self {
        threads: 1,
        query_threads: 0,
        layout: Layout::Padded,
    };

    /// `threads` that compute, and some more for queries alone.
    pub(super) fn on_processors(threads: usize) -> Self {
        Self {
            threads,
            query_threads: threads.div_ceil(DOCUMENT_THREADS_PER_QUERY_THREAD),
            layout: Layout::Packed,
        }
    }

    /// Lowers the priority of the calling thread, one that takes documents, if others take the queries and the system
    /// has priorities of threads.
    pub(super) fn step_back(&self) {
        if self.query_threads == 0 {
            return;
        }
        #[cfg(target_os = "linux")]
        {
            // Of the thread alone: Linux has it by thread, whatever POSIX says.
            let lowered = rustix::process::getpriority_process(None)
                .and_then(|now| rustix::process::setpriority_process(None, now + NICER));
            if let Err(error) = lowered {
                tracing::debug!(%error, "threads for documents keep their priority");
            }
        }
    }
}
