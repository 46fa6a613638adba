//! What a server will read of a text: counted with the model's tokenizer, or estimated.

use std::{ops::Range, path::Path, sync::Arc};

use tokenizers::{PostProcessor, Tokenizer};

use crate::embed::{EmbedError, LoadError};

/// The largest `tokenizer.json`, in bytes; those of large vocabularies have some 20 MB.
const MAX_TOKENIZER_BYTES: u64 = 64 << 20;
/// Bytes of a token where nothing better is known: fewer than in most text, so that batches are rather too small.
const BYTES_PER_TOKEN: usize = 3;
/// Bytes of a text that are looked at for each token that is read; see the local tokenizer.
const MAX_BYTES_PER_TOKEN: usize = 16;

/// A text as it is sent.
#[derive(Debug, Clone)]
pub(super) struct Prepared {
    whole: Arc<str>,
    sent: Range<usize>,
    /// Tokens that the server will read, as counted or estimated.
    pub(super) tokens: usize,
    /// Whether it was cut to what the model reads.
    pub(super) truncated: bool,
}

impl Prepared {
    /// What is sent.
    pub(super) fn text(&self) -> &str {
        &self.whole[self.sent.clone()]
    }
}

/// Counts tokens.
pub(super) struct Lengths {
    tokenizer: Option<Arc<Tokenizer>>,
    max_tokens: usize,
}

impl Lengths {
    /// With the `tokenizer.json` at `path`, or with an estimate.
    ///
    /// # Errors
    /// When the file cannot be read or is no tokenizer.
    pub(super) fn load(path: Option<&Path>, max_tokens: usize) -> Result<Self, LoadError> {
        let tokenizer = match path {
            None => None,
            Some(path) => Some(Arc::new(read(path)?)),
        };
        Ok(Self {
            tokenizer,
            max_tokens,
        })
    }

    /// Each text as it is sent, after `instruction` where one is put before it.
    ///
    /// # Errors
    /// [`EmbedError::Tokenizer`].
    pub(super) async fn prepare(
        &self,
        texts: Vec<Arc<str>>,
        instruction: String,
    ) -> Result<Vec<Prepared>, EmbedError> {
        let Some(tokenizer) = self.tokenizer.clone() else {
            let before = estimate(&instruction);
            return Ok(texts.into_iter().map(|text| estimated(text, before)).collect());
        };
        let max_tokens = self.max_tokens;
        // Some milliseconds for a hundred texts, too long for a thread of the runtime.
        let counting = tokio::task::spawn_blocking(move || {
            let before = count(&tokenizer, &instruction)?;
            texts
                .into_iter()
                .map(|text| counted(&tokenizer, text, before, max_tokens))
                .collect()
        });
        counting.await.map_err(|_| EmbedError::Stopped)?
    }
}

fn read(path: &Path) -> Result<Tokenizer, LoadError> {
    let unreadable = |source| LoadError::Read {
        path: path.to_owned(),
        source,
    };
    if std::fs::metadata(path).map_err(unreadable)?.len() > MAX_TOKENIZER_BYTES {
        return Err(LoadError::TooLarge {
            path: path.to_owned(),
            limit: MAX_TOKENIZER_BYTES,
        });
    }
    let bytes = std::fs::read(path).map_err(unreadable)?;
    let damaged = |source| LoadError::Damaged {
        path: path.to_owned(),
        source,
    };
    let mut tokenizer = Tokenizer::from_bytes(bytes).map_err(damaged)?;
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None).map_err(damaged)?;
    Ok(tokenizer)
}

fn estimate(text: &str) -> usize {
    text.len().div_ceil(BYTES_PER_TOKEN)
}

fn estimated(text: Arc<str>, before: usize) -> Prepared {
    Prepared {
        sent: 0..text.len(),
        tokens: before + estimate(&text) + 1,
        truncated: false,
        whole: text,
    }
}

fn count(tokenizer: &Tokenizer, text: &str) -> Result<usize, EmbedError> {
    if text.is_empty() {
        return Ok(0);
    }
    let encoding = tokenizer
        .encode_fast(text, false)
        .map_err(EmbedError::Tokenizer)?;
    Ok(encoding.len())
}

fn counted(
    tokenizer: &Tokenizer,
    text: Arc<str>,
    before: usize,
    max_tokens: usize,
) -> Result<Prepared, EmbedError> {
    let added = tokenizer
        .get_post_processor()
        .map_or(0, |processor| processor.added_tokens(false));
    let room = max_tokens.saturating_sub(added + before).max(1);
    let looked_at = text.floor_char_boundary(room.saturating_mul(MAX_BYTES_PER_TOKEN));
    let encoding = tokenizer
        .encode(&text[..looked_at], false)
        .map_err(EmbedError::Tokenizer)?;
    let fits = encoding.len() <= room;
    let end = if fits {
        looked_at
    } else {
        let last = encoding
            .get_offsets()
            .get(room - 1)
            .map_or(looked_at, |last| last.1);
        text.floor_char_boundary(last)
    };
    Ok(Prepared {
        sent: 0..end,
        tokens: before + added + encoding.len().min(room),
        truncated: end < text.len(),
        whole: text,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words at spaces, each a token, and one token added at the end.
    const WORDS: &str = r#"{"version":"1.0","truncation":{"direction":"Right","max_length":2,"strategy":"LongestFirst","stride":0},"padding":null,
        "added_tokens":[{"id":0,"content":"[E]","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}],
        "normalizer":null,"pre_tokenizer":{"type":"WhitespaceSplit"},
        "post_processor":{"type":"TemplateProcessing","single":[{"Sequence":{"id":"A","type_id":0}},{"SpecialToken":{"id":"[E]","type_id":0}}],
        "pair":[{"Sequence":{"id":"A","type_id":0}},{"Sequence":{"id":"B","type_id":0}}],"special_tokens":{"[E]":{"id":"[E]","ids":[0],"tokens":["[E]"]}}},
        "decoder":null,"model":{"type":"WordLevel","vocab":{"[E]":0,"[U]":1},"unk_token":"[U]"}}"#;

    fn lengths(max_tokens: usize) -> Lengths {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokenizer.json");
        std::fs::write(&path, WORDS).unwrap();
        Lengths::load(Some(&path), max_tokens).unwrap()
    }

    #[tokio::test]
    async fn a_text_is_cut_after_the_last_token_that_is_read() {
        let texts: Vec<Arc<str>> = vec!["ä bb ccc dddd".into(), "a b".into(), "".into()];
        let prepared = lengths(4).prepare(texts.clone(), String::new()).await.unwrap();
        let seen: Vec<_> = prepared
            .iter()
            .map(|text| (text.text(), text.tokens, text.truncated))
            .collect();
        assert_eq!(seen, [("ä bb ccc", 4, true), ("a b", 3, false), ("", 1, false)]);
        let instructed = lengths(4).prepare(texts, "find it".to_owned()).await.unwrap();
        assert_eq!((instructed[0].text(), instructed[0].tokens), ("ä", 4));
    }

    #[tokio::test]
    async fn without_a_tokenizer_texts_are_sent_whole() {
        let long: Arc<str> = "word ".repeat(1_000).into();
        let prepared = Lengths::load(None, 4).unwrap();
        let prepared = prepared
            .prepare(vec![Arc::clone(&long)], String::new())
            .await
            .unwrap();
        assert_eq!(prepared[0].text(), &*long);
        assert_eq!((prepared[0].tokens, prepared[0].truncated), (1_668, false));
    }

    #[test]
    fn a_file_that_is_no_tokenizer_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokenizer.json");
        assert!(matches!(
            Lengths::load(Some(&path), 4),
            Err(LoadError::Read { .. })
        ));
        std::fs::write(&path, "{}").unwrap();
        assert!(matches!(
            Lengths::load(Some(&path), 4),
            Err(LoadError::Damaged { .. })
        ));
    }
}
