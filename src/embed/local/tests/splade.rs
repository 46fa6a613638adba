//! A tiny SPLADE against the Python reference; see `scripts/tiny_models.py`.

use std::sync::Arc;

use serde_json::json;

use super::{
    super::{LocalEmbedder, LocalModel, LocalOptions, LocalSparseEmbedder},
    cosine, floats, golden_file, golden_texts, largest_difference,
    tiny::{TinyModel, options},
    words,
};
use crate::{
    embed::{Embedders, Precision, Purpose, SparseEmbedder, SparseVector},
    error::chain,
};

const VOCABULARY: usize = 600;

#[derive(serde::Deserialize)]
struct Golden {
    texts: Vec<GoldenText>,
}

#[derive(serde::Deserialize)]
struct GoldenText {
    tokens: usize,
    truncated: bool,
    indices: String,
    values: String,
}

impl GoldenText {
    fn vector(&self) -> SparseVector {
        SparseVector {
            indices: words(&self.indices).into_iter().map(u32::from_le_bytes).collect(),
            values: floats(&self.values),
        }
    }
}

/// A weight for each term of the vocabulary: terms at the edge of weighing nothing may be there or not.
fn spread(vector: &SparseVector) -> Vec<f32> {
    assert_eq!(vector.indices.len(), vector.values.len());
    assert!(
        vector.indices.is_sorted_by(|left, right| left < right),
        "{:?}",
        vector.indices
    );
    let mut weights = vec![0.0; VOCABULARY];
    for (index, value) in vector.indices.iter().zip(&vector.values) {
        assert!(*value > 0.0);
        weights[*index as usize] = *value;
    }
    weights
}

fn sparse(model: &TinyModel, precision: Precision) -> LocalSparseEmbedder {
    match model.load(options(precision)).unwrap() {
        LocalModel::Sparse(embedder) => embedder,
        LocalModel::Dense(_) => panic!("it is dense"),
    }
}

async fn documents(embedder: &LocalSparseEmbedder, texts: &[Arc<str>]) -> Vec<SparseVector> {
    embedder.embed(texts.to_vec(), Purpose::Document).await.unwrap()
}

#[tokio::test]
async fn weights_and_tokens_equal_the_reference_whether_stored_as_bf16_or_as_floats() {
    let (texts, golden): (_, Golden) = (golden_texts(), golden_file("splade.json"));
    let stored_as_floats = TinyModel::copy("splade");
    stored_as_floats.widen();
    for model in [TinyModel::copy("splade"), stored_as_floats] {
        let embedder = sparse(&model, Precision::Single);
        assert_eq!(embedder.model(), "tiny/splade");
        let found = documents(&embedder, &texts).await;
        for ((text, found), wanted) in texts.iter().zip(&found).zip(&golden.texts) {
            let difference = largest_difference(&spread(found), &spread(&wanted.vector()));
            assert!(
                difference <= 1e-4,
                "{difference:e} from the reference for {text:?}"
            );
            let tokens = embedder.tokenize(text).unwrap();
            assert_eq!(
                (tokens.ids.len(), tokens.truncated),
                (wanted.tokens, wanted.truncated),
                "{text:?}"
            );
        }
        assert!(
            found
                .iter()
                .all(|vector| (10..200).contains(&vector.indices.len()))
        );
    }
}

#[tokio::test]
async fn smaller_precisions_stay_close_to_the_reference() {
    let (texts, golden): (_, Golden) = (golden_texts(), golden_file("splade.json"));
    let model = TinyModel::copy("splade");
    for (precision, allowed) in [(Precision::Bfloat16, 0.999), (Precision::EightBit, 0.99)] {
        let found = documents(&sparse(&model, precision), &texts).await;
        for ((text, found), wanted) in texts.iter().zip(&found).zip(&golden.texts) {
            let cosine = cosine(&spread(found), &spread(&wanted.vector()));
            assert!(cosine >= allowed, "cosine {cosine} in {precision:?} for {text:?}");
        }
    }
}

#[tokio::test]
async fn a_text_by_itself_has_the_weights_it_has_among_others() {
    let texts = golden_texts();
    let embedder = sparse(&TinyModel::copy("splade"), Precision::Single);
    let together = documents(&embedder, &texts).await;
    for (text, together) in texts.iter().zip(&together) {
        let alone = documents(&embedder, std::slice::from_ref(text)).await;
        let difference = largest_difference(&spread(&alone[0]), &spread(together));
        assert!(difference <= 1e-6, "{difference:e} for {text:?}");
    }
}

#[tokio::test]
async fn a_head_with_a_matrix_of_its_own_is_used() {
    let texts = &golden_texts()[..3];
    let model = TinyModel::copy("splade");
    let tied = documents(&sparse(&model, Precision::Single), texts).await;
    let mut tensors = model.tensors();
    let words = tensors["bert.embeddings.word_embeddings.weight"].clone();
    tensors.insert("cls.predictions.decoder.weight".to_owned(), words);
    model.write_tensors("model.safetensors", &tensors);
    assert_eq!(documents(&sparse(&model, Precision::Single), texts).await, tied);

    let bytes = &mut tensors.get_mut("cls.predictions.decoder.weight").unwrap().2;
    bytes.rotate_left(48 * 2);
    model.write_tensors("model.safetensors", &tensors);
    assert_ne!(documents(&sparse(&model, Precision::Single), texts).await, tied);
}

#[tokio::test]
async fn the_files_of_the_sentence_package_are_understood() {
    let texts = &golden_texts()[..3];
    let model = TinyModel::copy("splade");
    let before = documents(&sparse(&model, Precision::Single), texts).await;
    model.write(
        "modules.json",
        &json!([
            {"path": "", "type": "sentence_transformers.sparse_encoder.models.MLMTransformer"},
            {"path": "1_SpladePooling", "type": "sentence_transformers.sparse_encoder.models.SpladePooling"},
        ]),
    );
    let pooling = |strategy: &str| json!({"pooling_strategy": strategy, "activation_function": "relu"});
    model.write("1_SpladePooling/config.json", &pooling("max"));
    assert_eq!(documents(&sparse(&model, Precision::Single), texts).await, before);
    model.write("1_SpladePooling/config.json", &pooling("sum"));
    let problem = model.problem();
    assert!(
        problem.contains("pooling_strategy is \"sum\", and only \"max\""),
        "{problem}"
    );
}

#[test]
fn a_model_of_the_other_kind_is_refused() {
    let model = TinyModel::copy("splade");
    let files = model.directories().find("tiny/splade").unwrap();
    let error = LocalEmbedder::load(&files, options(Precision::Single))
        .err()
        .unwrap();
    assert!(
        chain(&error).contains("it is sparse, and a dense one is called for"),
        "{error}"
    );
    let model = TinyModel::copy("qwen3");
    let files = model.directories().find("tiny/qwen3").unwrap();
    let error = LocalSparseEmbedder::load(&files, options(Precision::Single))
        .err()
        .unwrap();
    assert!(
        chain(&error).contains("it is dense, and a sparse one is called for"),
        "{error}"
    );
}

#[test]
fn the_registry_keeps_dense_and_sparse_models_apart() {
    let models = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models");
    let directories = crate::embed::ModelDirectories::new(Some(models), None);
    let names = ["tiny/splade", "tiny/qwen3"];
    let automatic = LocalOptions {
        precision: None,
        ..options(Precision::Single)
    };
    let embedders = Embedders::load_local(names, &directories, automatic).unwrap();
    assert_eq!(embedders.sparse_names(), ["tiny/splade"]);
    let dense: Vec<String> = embedders.catalog().into_iter().map(|model| model.name).collect();
    assert_eq!(dense, ["tiny/qwen3"]);
    assert!(embedders.sparse("tiny/splade").is_some() && embedders.get("tiny/splade").is_none());
}
