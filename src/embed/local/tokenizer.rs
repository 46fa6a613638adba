//! Text to token ids, within bounded work.

use tokenizers::{Tokenizer, TruncationDirection, TruncationParams, TruncationStrategy};

use crate::embed::{EmbedError, before_text};

/// Bytes of a text that are looked at for each token the model can read. Tokens of real text have 2 to 6
/// bytes, so a longer text is cut off anyway, and a text of any length costs no more than this.
const BYTES_PER_TOKEN: usize = 16;

/// What a model reads of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// Ids with those the model adds to each text, at most the model's `max_tokens`.
    pub ids: Vec<u32>,
    /// Whether the text went on beyond these.
    pub truncated: bool,
}

/// Why a tokenizer does not fit its model.
#[derive(Debug, thiserror::Error)]
pub(super) enum TokenizerError {
    /// `tokenizer.json` cannot be parsed.
    #[error("is not a tokenizer")]
    Parse(#[source] tokenizers::Error),
    /// It gives ids the model has no embedding for.
    #[error("has token id {id}, but the model's vocabulary ends at {vocabulary}")]
    Vocabulary {
        /// Its highest id.
        id: u32,
        /// Ids the model knows.
        vocabulary: usize,
    },
    /// There is no room for a text between the tokens that are added to it.
    #[error("adds {added} tokens to each text, and the model reads {max_tokens}")]
    NoRoom {
        /// Tokens added to each text.
        added: usize,
        /// Tokens the model reads.
        max_tokens: usize,
    },
}

/// A tokenizer that cuts texts to what the model reads and never pads.
pub(super) struct TextTokenizer {
    tokenizer: Tokenizer,
    max_tokens: usize,
    max_bytes: usize,
}

impl TextTokenizer {
    /// Reads the bytes of a `tokenizer.json`. The padding and truncation it asks for are ignored: published
    /// files carry settings from training (MiniLM's pads everything to 128 tokens).
    ///
    /// # Errors
    /// If the bytes are damaged or do not fit a model of this `vocabulary` that reads `max_tokens`.
    pub(super) fn parse(bytes: &[u8], vocabulary: usize, max_tokens: usize) -> Result<Self, TokenizerError> {
        let mut tokenizer = Tokenizer::from_bytes(bytes).map_err(TokenizerError::Parse)?;
        let highest = tokenizer.get_vocab(true).into_values().max().unwrap_or(0);
        if highest as usize >= vocabulary {
            return Err(TokenizerError::Vocabulary {
                id: highest,
                vocabulary,
            });
        }
        let added = tokenizer.get_post_processor().map_or(0, |processor| {
            tokenizers::PostProcessor::added_tokens(processor, false)
        });
        if max_tokens <= added {
            return Err(TokenizerError::NoRoom { added, max_tokens });
        }
        tokenizer.with_padding(None);
        let truncation = TruncationParams {
            max_length: max_tokens,
            strategy: TruncationStrategy::LongestFirst,
            stride: 0,
            direction: TruncationDirection::Right,
        };
        tokenizer
            .with_truncation(Some(truncation))
            .map_err(TokenizerError::Parse)?;
        Ok(Self {
            tokenizer,
            max_tokens,
            max_bytes: max_tokens.saturating_mul(BYTES_PER_TOKEN),
        })
    }

    /// The most tokens of a text, with those the model adds.
    pub(super) fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// The tokens of `text`, after the text of `instruction` unless that is empty. What is longer than the model
    /// reads is cut off at its end; the tokens that the model adds stay.
    pub(super) fn tokenize(&self, text: &str, instruction: &str) -> Result<Tokens, EmbedError> {
        let instructed;
        let text = if instruction.is_empty() {
            text
        } else {
            instructed = before_text(self.beginning(instruction)) + self.beginning(text);
            &instructed
        };
        let read = self.beginning(text);
        let encoding = self
            .tokenizer
            .encode_fast(read, true)
            .map_err(EmbedError::Tokenizer)?;
        let truncated = read.len() < text.len() || !encoding.get_overflowing().is_empty();
        Ok(Tokens {
            ids: encoding.get_ids().to_vec(),
            truncated,
        })
    }

    /// What of `text` is looked at.
    fn beginning<'a>(&self, text: &'a str) -> &'a str {
        &text[..text.floor_char_boundary(self.max_bytes)]
    }
}
