//! Chunks that the model refuses fail their document, and nothing else.
//!
//! A document may reach over several windows. Once a chunk of it was refused, what is left of it goes no further; what
//! an earlier window wrote of it stays until the document is synced again, as after an attempt that broke off.

use std::collections::HashMap;

use super::{EmbeddedWindow, Loaded, embed_stage::Answered};
use crate::domain::document::DocumentOutcome;

/// Follows the windows in order.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// The document that failed last: only its chunks can still come, since those of a document come together.
    failed: Option<u32>,
}

impl Refusals {
    /// The window with each document that has a refused chunk settled as failed in place of the first of its chunks.
    pub(super) fn settle(&mut self, answered: Answered) -> EmbeddedWindow {
        let Answered { window, refused } = answered;
        if refused.is_empty() && self.failed.is_none() {
            return window;
        }
        let ordinal = |place: usize| match &window.items[place].0 {
            Loaded::Chunk(chunk) => Some((chunk.document.ordinal, chunk.n)),
            Loaded::Settled { .. } => None,
        };
        let mut reasons: HashMap<u32, String> = HashMap::new();
        for (place, problem) in refused {
            let Some((ordinal, n)) = ordinal(place) else {
                continue;
            };
            let reason = || format!("chunk {n} cannot be embedded: {problem}");
            reasons.entry(ordinal).or_insert_with(reason);
        }
        let mut items = Vec::with_capacity(window.items.len());
        for (item, embedded) in window.items {
            let of = match &item {
                Loaded::Chunk(chunk) => chunk.document.ordinal,
                Loaded::Settled { .. } => {
                    items.push((item, embedded));
                    continue;
                }
            };
            if self.failed == Some(of) {
                continue;
            }
            match reasons.remove(&of) {
                Some(reason) => {
                    self.failed = Some(of);
                    let outcome = DocumentOutcome::Failed(reason);
                    items.push((Loaded::Settled { ordinal: of, outcome }, None));
                }
                None => items.push((item, embedded)),
            }
        }
        EmbeddedWindow { items }
    }
}
