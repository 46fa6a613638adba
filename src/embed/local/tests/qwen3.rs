//! A tiny Qwen3 against the Python reference; see `scripts/tiny_models.py`.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};

use super::{
    super::{LocalEmbedder, LocalModel, LocalOptions},
    cosine, floats, golden_file, golden_texts, largest_difference,
    tiny::{TinyModel, options},
};
use crate::{
    domain::embedding::{ModelDescription, Task},
    embed::{EmbeddedText, Embedder, Precision, Purpose},
};

const PRECISIONS: [Precision; 3] = [Precision::Single, Precision::Bfloat16, Precision::EightBit];

/// `<|endoftext|>` in the tiny tokenizer.
const END: u32 = 381;

#[derive(serde::Deserialize)]
struct Golden {
    max_tokens: u32,
    instruction: String,
    texts: Vec<GoldenText>,
    queries: Vec<GoldenText>,
}

#[derive(serde::Deserialize)]
struct GoldenText {
    tokens: u32,
    truncated: bool,
    vector: String,
}

fn dense(model: &TinyModel, precision: Precision) -> LocalEmbedder {
    match model.load(options(precision)).unwrap() {
        LocalModel::Dense(embedder) => embedder,
        LocalModel::Sparse(_) => panic!("it is sparse"),
    }
}

async fn documents(embedder: &LocalEmbedder, texts: &[Arc<str>]) -> Vec<EmbeddedText> {
    embedder
        .embed(texts.to_vec(), Purpose::Document, "")
        .await
        .unwrap()
}

fn assert_equal(found: &[EmbeddedText], wanted: &[GoldenText], texts: &[Arc<str>]) {
    assert_eq!(found.len(), wanted.len());
    for ((text, found), wanted) in texts.iter().zip(found).zip(wanted) {
        assert_eq!(
            (found.tokens, found.truncated),
            (wanted.tokens, wanted.truncated),
            "{text:?}"
        );
        let difference = largest_difference(&found.vector, &floats(&wanted.vector));
        assert!(
            difference <= 1e-5,
            "{difference:e} from the reference for {text:?}"
        );
    }
}

#[tokio::test]
async fn documents_and_queries_equal_the_reference_whether_stored_as_bf16_or_as_floats() {
    let (texts, golden): (_, Golden) = (golden_texts(), golden_file("qwen3.json"));
    assert_eq!(golden.instruction, Task::default().query_prompt);
    let stored_as_floats = TinyModel::copy("qwen3");
    stored_as_floats.widen();
    for model in [TinyModel::copy("qwen3"), stored_as_floats] {
        let embedder = dense(&model, Precision::Single);
        assert_equal(&documents(&embedder, &texts).await, &golden.texts, &texts);
        let asked = texts[..golden.queries.len()].to_vec();
        let queries = embedder
            .embed(asked.clone(), Purpose::Query, &golden.instruction)
            .await
            .unwrap();
        assert_equal(&queries, &golden.queries, &asked);
    }
}

#[tokio::test]
async fn smaller_precisions_stay_close_to_the_reference() {
    let (texts, golden): (_, Golden) = (golden_texts(), golden_file("qwen3.json"));
    let model = TinyModel::copy("qwen3");
    for (precision, allowed) in [(Precision::Bfloat16, 0.999), (Precision::EightBit, 0.99)] {
        let found = documents(&dense(&model, precision), &texts).await;
        for ((text, found), wanted) in texts.iter().zip(&found).zip(&golden.texts) {
            let cosine = cosine(&found.vector, &floats(&wanted.vector));
            assert!(cosine >= allowed, "cosine {cosine} in {precision:?} for {text:?}");
        }
    }
}

#[tokio::test]
async fn a_text_by_itself_has_the_vector_it_has_among_others_in_every_precision() {
    let texts = golden_texts();
    let model = TinyModel::copy("qwen3");
    for precision in PRECISIONS {
        let embedder = dense(&model, precision);
        let together = documents(&embedder, &texts).await;
        for (text, together) in texts.iter().zip(&together) {
            let alone = documents(&embedder, std::slice::from_ref(text)).await;
            let difference = largest_difference(&alone[0].vector, &together.vector);
            assert!(difference <= 1e-6, "{difference:e} in {precision:?} for {text:?}");
        }
    }
}

#[test]
fn the_model_reads_what_the_service_is_configured_to_read_and_takes_instructions() {
    let golden: Golden = golden_file("qwen3.json");
    let model = TinyModel::copy("qwen3");
    let expected = ModelDescription {
        name: "tiny/qwen3".to_owned(),
        dimensions: 64,
        max_tokens: golden.max_tokens,
        takes_instructions: true,
    };
    assert_eq!(dense(&model, Precision::Single).model(), &expected);
    let LocalModel::Dense(by_default) = model.load(LocalOptions::default()).unwrap() else {
        panic!("it is sparse");
    };
    assert_eq!(by_default.model().max_tokens, 4096);
}

#[tokio::test]
async fn a_text_that_is_cut_off_keeps_the_token_that_ends_each_text() {
    let model = TinyModel::copy("qwen3");
    let embedder = dense(&model, Precision::Single);
    let long = "many words and \u{1F600} ".repeat(500_000);
    let tokens = embedder.tokenize(&long).unwrap();
    assert_eq!((tokens.ids.len(), tokens.truncated), (512, true));
    assert_eq!(tokens.ids.last(), Some(&END));
    let short = embedder.tokenize("words").unwrap();
    assert_eq!((short.ids.last(), short.truncated), (Some(&END), false));
    assert_eq!(embedder.tokenize("").unwrap().ids, [END]);

    // What is beyond the part that is looked at does not count, but for the mark.
    let beginning: Arc<str> = long[..long.floor_char_boundary(100_000)].into();
    let found = documents(&embedder, &[long.into(), beginning]).await;
    assert_eq!(found[0], found[1]);
}

#[tokio::test]
async fn an_instruction_that_fills_the_model_leaves_the_text_unread_and_marked() {
    let model = TinyModel::copy("qwen3");
    let embedder = dense(&model, Precision::Single);
    let texts = vec!["one".into(), "other".into()];
    let found = embedder
        .embed(texts, Purpose::Query, &"instruct ".repeat(10_000))
        .await
        .unwrap();
    assert_eq!((found[0].tokens, found[0].truncated), (512, true));
    assert_eq!(found[0], found[1]);
}

#[tokio::test]
async fn weights_in_several_files_or_with_a_prefix_give_the_same_vectors() {
    let texts = &golden_texts()[..5];
    let plain = documents(&dense(&TinyModel::copy("qwen3"), Precision::Bfloat16), texts).await;

    let split = TinyModel::copy("qwen3");
    split.split();
    assert_eq!(documents(&dense(&split, Precision::Bfloat16), texts).await, plain);

    let prefixed = TinyModel::copy("qwen3");
    let tensors: BTreeMap<_, _> = prefixed
        .tensors()
        .into_iter()
        .map(|(name, tensor)| (format!("model.{name}"), tensor))
        .collect();
    prefixed.write_tensors("model.safetensors", &tensors);
    assert_eq!(
        documents(&dense(&prefixed, Precision::Bfloat16), texts).await,
        plain
    );
}

#[tokio::test]
async fn a_configuration_saved_by_a_newer_version_gives_the_same_vectors() {
    let texts = &golden_texts()[..5];
    let model = TinyModel::copy("qwen3");
    let before = documents(&dense(&model, Precision::Single), texts).await;
    model.change("config.json", |config| {
        let theta = config.remove("rope_theta").unwrap();
        config.remove("rope_scaling");
        config.insert(
            "rope_parameters".to_owned(),
            json!({"rope_theta": theta, "rope_type": "default"}),
        );
        config.insert("layer_types".to_owned(), json!(vec!["full_attention"; 4]));
    });
    assert_eq!(documents(&dense(&model, Precision::Single), texts).await, before);
    model.change("config.json", |config| {
        config.insert("rope_parameters".to_owned(), json!({"rope_theta": 100.0}));
    });
    assert_ne!(documents(&dense(&model, Precision::Single), texts).await, before);
}

#[test]
fn files_that_call_for_another_computation_are_refused_by_name_and_with_what_is_supported() {
    let model = TinyModel::copy("qwen3");
    model.write(
        "1_Pooling/config.json",
        &json!({"pooling_mode_mean_tokens": true}),
    );
    let problem = model.problem();
    assert!(
        problem.contains("1_Pooling/config.json") && problem.contains("only pooling by the last token"),
        "{problem}"
    );

    let model = TinyModel::copy("qwen3");
    model.change("config.json", |config| {
        config.insert("model_type".to_owned(), json!("xlm-roberta"));
    });
    let problem = model.problem();
    assert!(
        problem.contains("model_type is \"xlm-roberta\"")
            && problem.contains("\"bert\"")
            && problem.contains("\"qwen3\""),
        "{problem}"
    );

    let model = TinyModel::copy("qwen3");
    let mut tensors = model.tensors();
    tensors.remove("layers.3.self_attn.q_norm.weight");
    model.write_tensors("model.safetensors", &tensors);
    let problem = model.problem();
    assert!(
        problem.contains("has no tensor \"layers.3.self_attn.q_norm.weight\""),
        "{problem}"
    );
}

#[test]
fn an_index_that_is_damaged_or_leads_elsewhere_is_refused() {
    let index = |weights: Value| json!({"weight_map": weights});
    for (value, expected) in [
        (index(json!({})), "has no model.safetensors"),
        (
            index(json!({"norm.weight": "../model.safetensors"})),
            "has no model.safetensors",
        ),
        (
            index(json!({"norm.weight": "absent.safetensors"})),
            "has no absent.safetensors",
        ),
        (json!([]), "has no model.safetensors"),
    ] {
        let model = TinyModel::copy("qwen3");
        model.remove("model.safetensors");
        model.write("model.safetensors.index.json", &value);
        let problem = model.problem();
        assert!(problem.contains(expected), "{problem}");
    }
}
