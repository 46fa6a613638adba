//! The document whose chunks are coming in.
//!
//! Its records wait here until its last chunk was embedded, and are written together: a document that fails because a
//! model refuses one of its chunks leaves what the collection held of it before as it is, as one does that cannot be
//! parsed. A document of more than [`MAX_WAITING_RECORDS`] is written as it comes, so that memory is bounded; when it
//! fails, the index stage deletes all of it, since its old and its new records are mixed by then.

use crate::index::Record;

/// The most records that wait: 40 MB, if each has the longest text and a vector of 1,024 numbers.
pub(super) const MAX_WAITING_RECORDS: usize = 2_000;

/// What is known of it so far.
#[derive(Debug)]
pub(super) struct OpenDocument {
    ordinal: u32,
    waiting: Vec<Record>,
    is_partly_written: bool,
    totals: Totals,
}

/// Counts over chunks.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Totals {
    /// Bytes of text.
    pub(super) bytes: u64,
    /// Tokens that the model read.
    pub(super) tokens: u64,
    /// Chunks of which the model did not read the end.
    pub(super) truncated: u64,
}

impl OpenDocument {
    /// Nothing yet of the document with this place in the listing.
    pub(super) fn new(ordinal: u32) -> Self {
        Self {
            ordinal,
            waiting: Vec::new(),
            is_partly_written: false,
            totals: Totals::default(),
        }
    }

    /// Its place in the listing.
    pub(super) fn ordinal(&self) -> u32 {
        self.ordinal
    }

    /// Whether some of its records were taken by [`take_excess`](Self::take_excess).
    pub(super) fn is_partly_written(&self) -> bool {
        self.is_partly_written
    }

    /// Adds a record and counts its chunk.
    pub(super) fn add(&mut self, record: Record, tokens: u32, truncated: bool) {
        self.totals.bytes += record.document.len() as u64;
        self.totals.tokens += u64::from(tokens);
        self.totals.truncated += u64::from(truncated);
        self.waiting.push(record);
    }

    /// The records that wait, to be written, if they are too many to wait longer.
    pub(super) fn take_excess(&mut self) -> Vec<Record> {
        if self.waiting.len() < MAX_WAITING_RECORDS {
            return Vec::new();
        }
        self.is_partly_written = true;
        std::mem::take(&mut self.waiting)
    }

    /// The records that are left to be written after its last chunk, and the counts of the whole document.
    pub(super) fn finish(self) -> (Vec<Record>, Totals) {
        (self.waiting, self.totals)
    }
}
