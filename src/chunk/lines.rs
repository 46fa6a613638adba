//! Chunks of so many lines: what a source may ask for, and what everything falls back to.

use super::{Chunk, pack};

/// Chunks of `max_lines` lines and `max_size_bytes` bytes at most, as full as both allow.
pub(super) fn chunks(text: &str, max_lines: u32, max_size_bytes: u32) -> Vec<Chunk> {
    let limits = pack::Limits::lines(max_lines, max_size_bytes);
    pack::pack(text, limits, &[])
}
