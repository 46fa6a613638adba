//! Okapi BM25 as Chroma computes it: words of a text, stemmed and hashed, weighed by how often they occur.
//!
//! Source of the algorithm and of every constant: `ChromaBm25EmbeddingFunction` of chromadb 1.5.9 in Python, whose
//! vectors these are, index by index. How rare a word is among all documents is not in the vectors: Chroma weighs
//! a query by it, with the collection's index at hand.
//!
//! A character is what Unicode 18 says it is; the Python implementation follows the interpreter, so a
//! letter that was added to Unicode after it makes no word there.

use std::{collections::BTreeMap, sync::Arc};

use futures::future::BoxFuture;
use snowball_stemmers_rs::{Algorithm, Stemmer};
use tokio::task;
use tokio_util::sync::CancellationToken;
use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

use super::{SparseEmbedder, SparseVector, murmur3::murmur3, stop_words::is_stop_word};
use crate::{
    domain::embedding::BM25,
    embed::{EmbedError, Purpose, check_count},
};

/// How soon more occurrences of a word add less.
const K: f64 = 1.2;
/// How much a long text counts less for the same word.
const B: f64 = 0.75;
/// Words of a text of average length.
const AVERAGE_LENGTH: f64 = 256.0;
/// Characters of the longest word that counts.
const MAX_WORD_CHARS: usize = 40;

/// The sparse model `Chroma/BM25`. It has no weights and holds nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bm25;

impl Bm25 {
    /// The vector of one text. Computes on the calling thread, some microseconds for each hundred bytes.
    pub fn vector(text: &str) -> SparseVector {
        let stemmer = Stemmer::create(Algorithm::English);
        let mut counts: BTreeMap<u32, u32> = BTreeMap::new();
        let mut length = 0_u32;
        for word in words(text).split(is_space) {
            if word.is_empty() || is_stop_word(word) || word.chars().count() > MAX_WORD_CHARS {
                continue;
            }
            let stem = stemmer.stem(word);
            if stem.is_empty() {
                continue;
            }
            // As a signed number without its sign. Words that share an index count as one.
            let index = murmur3(stem.as_bytes()).cast_signed().unsigned_abs();
            *counts.entry(index).or_default() += 1;
            length = length.saturating_add(1);
        }
        let norm = K * (1.0 - B + (B * f64::from(length)) / AVERAGE_LENGTH);
        let weight = |count: u32| {
            let count = f64::from(count);
            #[expect(clippy::cast_possible_truncation, reason = "Chroma keeps floats of 32 bits")]
            let weight = (count * (K + 1.0) / (count + norm)) as f32;
            weight
        };
        let (indices, values) = counts
            .into_iter()
            .map(|(index, count)| (index, weight(count)))
            .unzip();
        SparseVector { indices, values }
    }
}

/// The text in lower case, with a space for each character that is neither of a word nor white space.
fn words(text: &str) -> String {
    let cleaned: String = text
        .chars()
        .map(|character| match is_of_word(character) || is_space(character) {
            true => character,
            false => ' ',
        })
        .collect();
    cleaned.to_lowercase()
}

/// `\w` of Python's regular expressions: letters, numbers and `_`, but no combining marks.
fn is_of_word(character: char) -> bool {
    if character.is_ascii() {
        return character.is_ascii_alphanumeric() || character == '_';
    }
    match character.general_category_group() {
        GeneralCategoryGroup::Letter | GeneralCategoryGroup::Number => true,
        GeneralCategoryGroup::Mark
        | GeneralCategoryGroup::Punctuation
        | GeneralCategoryGroup::Symbol
        | GeneralCategoryGroup::Separator
        | GeneralCategoryGroup::Other => false,
    }
}

/// `\s` of Python's regular expressions, which has four control characters that Unicode has not.
fn is_space(character: char) -> bool {
    character.is_whitespace() || matches!(character, '\x1c'..='\x1f')
}

impl SparseEmbedder for Bm25 {
    fn model(&self) -> &str {
        BM25
    }

    fn embed(
        &self,
        texts: Vec<Arc<str>>,
        _purpose: Purpose,
    ) -> BoxFuture<'_, Result<Vec<SparseVector>, EmbedError>> {
        Box::pin(async move {
            check_count(&texts)?;
            let dropped = CancellationToken::new();
            let _dropped = dropped.clone().drop_guard();
            let computing = task::spawn_blocking(move || {
                let texts = texts.iter().take_while(|_| !dropped.is_cancelled());
                texts.map(|text| Self::vector(text)).collect()
            });
            computing.await.map_err(|error| match error.is_panic() {
                true => EmbedError::Panicked,
                false => EmbedError::Stopped,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use proptest::prelude::*;

    use super::*;
    use crate::embed::MAX_TEXTS;

    fn index(word: &str) -> u32 {
        let SparseVector { indices, .. } = Bm25::vector(word);
        assert_eq!(indices.len(), 1, "{word:?}");
        indices[0]
    }

    #[test]
    fn words_count_by_their_stem_without_regard_to_case() {
        for (one, other) in [
            ("Foxes", "fox"),
            ("jumping", "JUMPED"),
            ("ΟΔΟΣ", "οδος"),
            ("snake_case", "SNAKE_CASE"),
        ] {
            assert_eq!(index(one), index(other), "{one} {other}");
        }
        assert_ne!(index("fox"), index("ox"));
    }

    #[test]
    fn what_says_nothing_has_the_empty_vector() {
        for text in [
            "",
            " \n\t",
            "...!?",
            "the and of",
            "\u{301}\u{93e}",
            &"x".repeat(41),
        ] {
            assert_eq!(Bm25::vector(text), SparseVector::default(), "{text:?}");
        }
        assert_eq!(Bm25::vector(&"x".repeat(40)).indices.len(), 1);
    }

    #[test]
    fn a_word_weighs_more_the_more_often_it_occurs_and_less_the_longer_the_text_is() {
        let weight = |text: &str| {
            let SparseVector { indices, values } = Bm25::vector(text);
            values[indices.iter().position(|other| *other == index("fox")).unwrap()]
        };
        // 2.2 / (1 + 1.2 * (0.25 + 0.75 / 256))
        assert!((weight("fox") - 1.687_742).abs() < 1e-5, "{}", weight("fox"));
        assert!(weight("fox fox") > weight("fox"));
        assert!(weight("fox") > weight("fox hen goose dog"));
    }

    #[tokio::test]
    async fn vectors_come_in_the_order_of_their_texts() {
        let texts: Vec<Arc<str>> = ["one two", "", "three"].map(Arc::from).to_vec();
        let vectors = Bm25.embed(texts.clone(), Purpose::Document).await.unwrap();
        let expected: Vec<SparseVector> = texts.iter().map(|text| Bm25::vector(text)).collect();
        assert_eq!(vectors, expected);
        let many = vec![texts[0].clone(); MAX_TEXTS + 1];
        let error = Bm25.embed(many, Purpose::Document).await.unwrap_err();
        assert!(matches!(error, EmbedError::TooManyTexts { .. }));
    }

    proptest! {
        #[test]
        fn any_text_has_a_vector_that_chroma_takes(text in any::<String>(), words in "([a-zé'\\-]{0,12} ){0,8}") {
            let text = format!("{text} {words}");
            let SparseVector { indices, values } = Bm25::vector(&text);
            prop_assert!(indices.is_sorted_by(|one, next| one < next));
            prop_assert_eq!(indices.len(), values.len());
            prop_assert!(values.iter().all(|value| *value > 0.0 && *value < 2.2));
        }
    }
}
