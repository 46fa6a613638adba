//! How a source's documents are cut into chunks.
//!
//! Sizes are UTF-8 bytes. Source of the defaults: Chroma Sync's S3 page documents 10 lines and
//! 4,096 bytes for line chunks; the design takes 4,096 for syntax-aware ones, but never more than
//! the embedding model reads.

use crate::error::FieldViolation;

/// The smallest `max_size_bytes` that a source may ask for.
pub const MIN_SIZE_BYTES: u32 = 64;
/// The largest `max_size_bytes`: Chroma Cloud refuses longer documents.
pub const MAX_SIZE_BYTES: u32 = 16_384;
/// `max_size_bytes` where neither the source nor the model's window says otherwise.
pub const DEFAULT_SIZE_BYTES: u32 = 4_096;
/// `max_lines` of line chunks where the source does not say.
pub const DEFAULT_LINES: u32 = 10;
/// The largest `max_lines` that a source may ask for.
pub const MAX_LINES: u32 = 16_384;
/// A rough count of UTF-8 bytes that make one token of an English or code text.
const BYTES_PER_TOKEN: u32 = 4;

/// Chunking settings with every default filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Chunking {
    /// By syntax where a grammar is known, by headings for Markdown, else by lines.
    TreeSitter {
        /// The most bytes a chunk may have, 64..=16384.
        max_size_bytes: u32,
    },
    /// By lines alone.
    Lines {
        /// The most lines a chunk may have, 1..=16384.
        max_lines: u32,
        /// The most bytes a chunk may have, 64..=16384.
        max_size_bytes: u32,
    },
}

/// Chunking settings as a caller may leave them open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkingRequest {
    /// See [`Chunking::TreeSitter`].
    TreeSitter {
        /// None: as much as the embedding model reads, at most 4,096.
        max_size_bytes: Option<u64>,
    },
    /// See [`Chunking::Lines`].
    Lines {
        /// None: 10.
        max_lines: Option<u64>,
        /// None: as much as the embedding model reads, at most 4,096.
        max_size_bytes: Option<u64>,
    },
}

impl Default for ChunkingRequest {
    fn default() -> Self {
        Self::TreeSitter { max_size_bytes: None }
    }
}

impl Chunking {
    /// Fills in the defaults for a model that reads `model_tokens` tokens and checks the rest.
    ///
    /// # Errors
    /// Names `chunking.max_size_bytes` or `chunking.max_lines` with the range allowed.
    pub fn resolve(request: ChunkingRequest, model_tokens: u32) -> Result<Self, FieldViolation> {
        match request {
            ChunkingRequest::TreeSitter { max_size_bytes } => Ok(Self::TreeSitter {
                max_size_bytes: size(max_size_bytes, model_tokens)?,
            }),
            ChunkingRequest::Lines {
                max_lines,
                max_size_bytes,
            } => Ok(Self::Lines {
                max_lines: within("chunking.max_lines", max_lines, 1, MAX_LINES, DEFAULT_LINES)?,
                max_size_bytes: size(max_size_bytes, model_tokens)?,
            }),
        }
    }

    /// The most bytes a chunk may have.
    pub fn max_size_bytes(&self) -> u32 {
        match self {
            Self::TreeSitter { max_size_bytes } | Self::Lines { max_size_bytes, .. } => *max_size_bytes,
        }
    }
}

fn size(asked: Option<u64>, model_tokens: u32) -> Result<u32, FieldViolation> {
    let window = model_tokens.saturating_mul(BYTES_PER_TOKEN);
    let default = DEFAULT_SIZE_BYTES.min(window).max(MIN_SIZE_BYTES);
    within(
        "chunking.max_size_bytes",
        asked,
        MIN_SIZE_BYTES,
        MAX_SIZE_BYTES,
        default,
    )
}

fn within(
    field: &str,
    asked: Option<u64>,
    least: u32,
    most: u32,
    default: u32,
) -> Result<u32, FieldViolation> {
    let Some(asked) = asked else { return Ok(default) };
    match u32::try_from(asked) {
        Ok(value) if (least..=most).contains(&value) => Ok(value),
        Ok(_) | Err(_) => Err(FieldViolation::new(
            field,
            format!("must be {least} to {most}, is {asked}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_size_follows_the_models_window() {
        let small = Chunking::resolve(ChunkingRequest::default(), 256).unwrap();
        let large = Chunking::resolve(ChunkingRequest::default(), 32_768).unwrap();
        assert_eq!(
            small,
            Chunking::TreeSitter {
                max_size_bytes: 1_024
            }
        );
        assert_eq!(
            large,
            Chunking::TreeSitter {
                max_size_bytes: 4_096
            }
        );
    }

    #[test]
    fn sizes_out_of_range_are_refused_with_the_range() {
        for asked in [0, 63, 16_385, u64::MAX] {
            let request = ChunkingRequest::TreeSitter {
                max_size_bytes: Some(asked),
            };
            let violation = Chunking::resolve(request, 256).unwrap_err();
            assert_eq!(violation.field, "chunking.max_size_bytes");
            assert_eq!(violation.description, format!("must be 64 to 16384, is {asked}"));
        }
    }

    #[test]
    fn line_chunks_default_to_ten_lines() {
        let request = ChunkingRequest::Lines {
            max_lines: None,
            max_size_bytes: Some(4_096),
        };
        let chunking = Chunking::resolve(request, 256).unwrap();
        assert_eq!(
            chunking,
            Chunking::Lines {
                max_lines: 10,
                max_size_bytes: 4_096
            }
        );
    }
}
