//! The real model against the Python reference; see `scripts/golden_vectors.py`.

use std::{
    env,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
};

use super::{
    super::{LocalEmbedder, LocalOptions, Tokens},
    dot, floats, golden_file, golden_texts, largest_difference,
};
use crate::{
    domain::embedding::MINILM,
    embed::{EmbedError, Embedder, MAX_TEXTS, ModelDirectories, Purpose},
};

#[derive(serde::Deserialize)]
struct Golden {
    model: String,
    max_tokens: u32,
    texts: Vec<GoldenText>,
}

#[derive(serde::Deserialize)]
struct GoldenText {
    tokens: u32,
    truncated: bool,
    vector: String,
}

impl GoldenText {
    fn vector(&self) -> Vec<f32> {
        floats(&self.vector)
    }
}

static MODEL: LazyLock<LocalEmbedder> = LazyLock::new(|| {
    let models = env::var_os("CHROMA_SYNC_TEST_MODELS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join(".peers/models"),
        PathBuf::from,
    );
    let files = ModelDirectories::new(Some(models), None)
        .find(MINILM)
        .unwrap_or_else(|error| panic!("run `make peers`: {error}"));
    LocalEmbedder::load(&files, LocalOptions::default()).unwrap()
});

fn golden() -> (Vec<Arc<str>>, Golden) {
    let texts = golden_texts();
    let golden: Golden = golden_file("minilm.json");
    assert_eq!((texts.len(), golden.texts.len()), (100, 100));
    (texts, golden)
}

#[tokio::test]
async fn vectors_token_counts_and_cuts_equal_the_reference_in_the_order_of_the_texts() {
    let (texts, golden) = golden();
    let model = MODEL.model();
    assert_eq!(
        (model.name.as_str(), model.max_tokens),
        (golden.model.as_str(), golden.max_tokens)
    );
    let embedded = MODEL.embed(texts.clone(), Purpose::Document, "").await.unwrap();
    assert_eq!(embedded.len(), texts.len());
    for ((text, found), wanted) in texts.iter().zip(&embedded).zip(&golden.texts) {
        assert_eq!(found.vector.len(), model.dimensions as usize);
        assert_eq!(
            (found.tokens, found.truncated),
            (wanted.tokens, wanted.truncated),
            "{text:?}"
        );
        let cosine = dot(&found.vector, &wanted.vector());
        assert!(cosine >= 0.9999, "cosine {cosine} for {text:?}");
        let difference = largest_difference(&found.vector, &wanted.vector());
        assert!(
            difference < 1e-5,
            "{difference:e} from the reference for {text:?}"
        );
        let length = dot(&found.vector, &found.vector).sqrt();
        assert!((length - 1.0).abs() < 1e-6, "length {length} for {text:?}");
    }
    assert_eq!(embedded.iter().filter(|text| text.truncated).count(), 2);
}

#[tokio::test]
async fn a_text_by_itself_has_the_vector_it_has_among_others() {
    let (texts, _) = golden();
    let together = MODEL.embed(texts.clone(), Purpose::Document, "").await.unwrap();
    for (text, together) in texts.iter().zip(&together) {
        let alone = MODEL
            .embed(vec![Arc::clone(text)], Purpose::Query, "")
            .await
            .unwrap();
        let difference = largest_difference(&alone[0].vector, &together.vector);
        assert!(
            difference <= 1e-6,
            "{difference:e} between alone and together for {text:?}"
        );
    }
}

#[tokio::test]
async fn a_text_of_megabytes_costs_what_its_beginning_costs() {
    let long: Arc<str> = "word \u{1F600} ".repeat(2_000_000).into();
    let beginning: Arc<str> = long[..long.floor_char_boundary(20_000)].into();
    let embedded = MODEL
        .embed(vec![long, beginning], Purpose::Document, "")
        .await
        .unwrap();
    assert_eq!((embedded[0].tokens, embedded[0].truncated), (256, true));
    assert_eq!(embedded[0], embedded[1]);
}

#[tokio::test]
async fn a_long_text_without_tokens_is_marked_as_cut() {
    let spaces: Arc<str> = " ".repeat(1_000_000).into();
    let embedded = MODEL.embed(vec![spaces], Purpose::Document, "").await.unwrap();
    assert_eq!((embedded[0].tokens, embedded[0].truncated), (2, true));
}

#[tokio::test]
async fn a_call_of_too_many_texts_is_refused() {
    let error = MODEL
        .embed(vec!["".into(); MAX_TEXTS + 1], Purpose::Document, "")
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            EmbedError::TooManyTexts {
                count: 8193,
                limit: 8192
            }
        ),
        "{error}"
    );
    assert!(!error.is_transient());
}

#[test]
fn tokens_are_what_the_model_reads() {
    let tokens = MODEL.tokenize("Hello, world!").unwrap();
    assert_eq!(
        tokens,
        Tokens {
            ids: vec![101, 7592, 1010, 2088, 999, 102],
            truncated: false
        }
    );
}
