//! A tiny model with random weights, whole and damaged in every way that was thought of.

use std::{fs, num::NonZeroUsize, path::Path};

use safetensors::{Dtype, tensor::TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::super::{LocalEmbedder, LocalOptions};
use crate::{
    domain::embedding::ModelDescription,
    embed::{EmbeddedText, Embedder, LoadError, ModelDirectories, Purpose},
    error::chain,
};

const HIDDEN: usize = 12;
const WIDE: usize = 20;
const VOCABULARY: usize = 7;
const POSITIONS: usize = 9;

struct TinyModel {
    root: TempDir,
}

/// Names and shapes of all tensors of an encoder with two layers.
fn shapes() -> Vec<(String, Vec<usize>)> {
    let mut shapes = vec![
        (
            "embeddings.word_embeddings.weight".to_owned(),
            vec![VOCABULARY, HIDDEN],
        ),
        (
            "embeddings.position_embeddings.weight".to_owned(),
            vec![POSITIONS, HIDDEN],
        ),
        (
            "embeddings.token_type_embeddings.weight".to_owned(),
            vec![2, HIDDEN],
        ),
        ("embeddings.LayerNorm.weight".to_owned(), vec![HIDDEN]),
        ("embeddings.LayerNorm.bias".to_owned(), vec![HIDDEN]),
    ];
    for layer in 0..2 {
        for (name, outputs, inputs) in [
            ("attention.self.query", HIDDEN, HIDDEN),
            ("attention.self.key", HIDDEN, HIDDEN),
            ("attention.self.value", HIDDEN, HIDDEN),
            ("attention.output.dense", HIDDEN, HIDDEN),
            ("intermediate.dense", WIDE, HIDDEN),
            ("output.dense", HIDDEN, WIDE),
        ] {
            shapes.push((
                format!("encoder.layer.{layer}.{name}.weight"),
                vec![outputs, inputs],
            ));
            shapes.push((format!("encoder.layer.{layer}.{name}.bias"), vec![outputs]));
        }
        for name in ["attention.output.LayerNorm", "output.LayerNorm"] {
            shapes.push((format!("encoder.layer.{layer}.{name}.weight"), vec![HIDDEN]));
            shapes.push((format!("encoder.layer.{layer}.{name}.bias"), vec![HIDDEN]));
        }
    }
    shapes
}

impl TinyModel {
    fn new() -> Self {
        let model = Self {
            root: tempfile::tempdir().unwrap(),
        };
        fs::create_dir_all(model.path("1_Pooling")).unwrap();
        model.write("config.json", &Self::config());
        model.write("modules.json", &Self::modules());
        model.write(
            "1_Pooling/config.json",
            &json!({"pooling_mode_mean_tokens": true}),
        );
        model.write("sentence_bert_config.json", &json!({"max_seq_length": 8}));
        model.write("tokenizer.json", &Self::tokenizer());
        model.write_weights("", &shapes());
        model
    }

    fn config() -> Value {
        json!({
            "model_type": "bert", "hidden_act": "gelu", "hidden_size": HIDDEN, "num_hidden_layers": 2,
            "num_attention_heads": 3, "intermediate_size": WIDE, "layer_norm_eps": 1e-12,
            "max_position_embeddings": POSITIONS, "vocab_size": VOCABULARY, "type_vocab_size": 2,
        })
    }

    fn modules() -> Value {
        json!([
            {"path": "", "type": "sentence_transformers.models.Transformer"},
            {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
            {"path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
        ])
    }

    fn tokenizer() -> Value {
        let vocabulary = json!({"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "a": 3, "b": 4, "c": 5});
        json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": {"type": "Whitespace"}, "decoder": null,
            "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]},
            "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
        })
    }

    fn path(&self, file: &str) -> std::path::PathBuf {
        self.root.path().join("tiny/model").join(file)
    }

    fn write(&self, file: &str, value: &Value) {
        fs::write(self.path(file), value.to_string()).unwrap();
    }

    fn change(&self, file: &str, field: &str, value: Value) {
        let mut object: Value = serde_json::from_slice(&fs::read(self.path(file)).unwrap()).unwrap();
        object[field] = value;
        self.write(file, &object);
    }

    fn write_weights(&self, prefix: &str, shapes: &[(String, Vec<usize>)]) {
        let mut state = 1_u32;
        let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = shapes
            .iter()
            .map(|(name, shape)| {
                let bytes = (0..shape.iter().product()).flat_map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state as f32 / u32::MAX as f32 - 0.5).to_le_bytes()
                });
                (format!("{prefix}{name}"), shape.clone(), bytes.collect())
            })
            .collect();
        let views = tensors
            .iter()
            .map(|(name, shape, bytes)| (name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
        safetensors::serialize_to_file(views, None, Path::new(&self.path("model.safetensors"))).unwrap();
    }

    fn load(&self) -> Result<LocalEmbedder, LoadError> {
        let files = ModelDirectories::new(Some(self.root.path().to_owned()), None).find("tiny/model")?;
        LocalEmbedder::load(
            &files,
            LocalOptions {
                threads: NonZeroUsize::MIN,
                ..LocalOptions::default()
            },
        )
    }

    /// Loads the model, which must fail, and returns the whole chain of messages.
    fn problem(&self) -> String {
        match self.load() {
            Ok(_) => panic!("the model was loaded"),
            Err(error) => chain(&error),
        }
    }
}

#[tokio::test]
async fn a_model_of_uncommon_sizes_runs_and_reads_no_more_than_it_may() {
    let model = TinyModel::new().load().unwrap();
    let expected = ModelDescription {
        name: "tiny/model".to_owned(),
        dimensions: 12,
        max_tokens: 8,
        takes_instructions: false,
    };
    assert_eq!(model.model(), &expected);
    let texts = vec!["a b c".into(), "a b c a b c a b c".into(), "a b c a b c".into()];
    let embedded = model.embed(texts, Purpose::Document, "").await.unwrap();
    let sizes: Vec<(u32, bool)> = embedded
        .iter()
        .map(|text| (text.tokens, text.truncated))
        .collect();
    assert_eq!(sizes, [(5, false), (8, true), (8, false)]);
    assert_eq!(embedded[1].vector, embedded[2].vector);
    assert_ne!(embedded[0].vector, embedded[1].vector);
}

#[tokio::test]
async fn weights_with_the_prefix_bert_give_the_same_vectors() {
    let model = TinyModel::new();
    let plain = model
        .load()
        .unwrap()
        .embed(vec!["c b".into()], Purpose::Query, "")
        .await
        .unwrap();
    model.write_weights("bert.", &shapes());
    let prefixed = model
        .load()
        .unwrap()
        .embed(vec!["c b".into()], Purpose::Query, "")
        .await
        .unwrap();
    assert_eq!(plain, prefixed);
}

#[tokio::test]
async fn a_text_without_tokens_has_zeros_and_does_not_disturb_the_others() {
    let model = TinyModel::new();
    model.change("tokenizer.json", "post_processor", Value::Null);
    let model = model.load().unwrap();
    let texts = vec!["a b".into(), "".into(), "a b".into()];
    let embedded = model.embed(texts, Purpose::Document, "").await.unwrap();
    assert_eq!(
        embedded[1],
        EmbeddedText {
            vector: vec![0.0; HIDDEN],
            tokens: 0,
            truncated: false
        }
    );
    assert_eq!(embedded[0], embedded[2]);
    assert_eq!(embedded[0].tokens, 2);
}

#[test]
fn a_model_without_the_optional_files_reads_all_its_positions() {
    let model = TinyModel::new();
    fs::remove_file(model.path("modules.json")).unwrap();
    fs::remove_file(model.path("sentence_bert_config.json")).unwrap();
    assert_eq!(model.load().unwrap().model().max_tokens, POSITIONS as u32);
}

#[test]
fn the_newer_form_of_the_pooling_file_is_read_too() {
    let model = TinyModel::new();
    model.write("1_Pooling/config.json", &json!({"pooling_mode": "mean"}));
    assert!(model.load().is_ok());
    model.write("1_Pooling/config.json", &json!({"pooling_mode": "cls"}));
    let problem = model.problem();
    assert!(
        problem.contains("only pooling by the mean is supported"),
        "{problem}"
    );
}

#[test]
fn a_missing_file_is_named() {
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        let model = TinyModel::new();
        fs::remove_file(model.path(file)).unwrap();
        let problem = model.problem();
        assert!(problem.contains(&format!("has no {file}")), "{problem}");
    }
}

#[test]
fn a_weights_file_cut_short_anywhere_is_refused() {
    let model = TinyModel::new();
    let whole = fs::read(model.path("model.safetensors")).unwrap();
    for length in (0..whole.len()).step_by(397) {
        fs::write(model.path("model.safetensors"), &whole[..length]).unwrap();
        let problem = model.problem();
        assert!(
            problem.contains("model.safetensors cannot be used"),
            "cut to {length}: {problem}"
        );
    }
}

#[test]
fn a_weights_file_with_a_damaged_header_never_panics() {
    let model = TinyModel::new();
    let whole = fs::read(model.path("model.safetensors")).unwrap();
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let (mut refused, mut tried) = (0, 0);
    for at in (0..header).step_by(11) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x15;
        fs::write(model.path("model.safetensors"), &damaged).unwrap();
        refused += usize::from(model.load().is_err());
        tried += 1;
    }
    assert!(tried > 100 && refused > tried / 2, "{refused} of {tried}");
}

#[test]
fn damaged_values_are_noticed() {
    let model = TinyModel::new();
    let mut bytes = fs::read(model.path("model.safetensors")).unwrap();
    let end = bytes.len();
    bytes[end - 4 * HIDDEN..].copy_from_slice(&f32::NAN.to_le_bytes().repeat(HIDDEN));
    fs::write(model.path("model.safetensors"), &bytes).unwrap();
    let problem = model.problem();
    assert!(problem.contains("vectors that are not finite"), "{problem}");
}

#[test]
fn a_missing_tensor_and_one_of_another_shape_are_named() {
    let name = "encoder.layer.1.attention.self.value.weight";
    let model = TinyModel::new();
    let without: Vec<_> = shapes()
        .into_iter()
        .filter(|(tensor, _)| tensor != name)
        .collect();
    model.write_weights("", &without);
    let problem = model.problem();
    assert!(
        problem.contains(name) && problem.contains("has no tensor"),
        "{problem}"
    );

    let reshaped: Vec<_> = shapes()
        .into_iter()
        .map(|(tensor, shape)| {
            let shape = if tensor == name {
                vec![HIDDEN, HIDDEN + 1]
            } else {
                shape
            };
            (tensor, shape)
        })
        .collect();
    model.write_weights("", &reshaped);
    let problem = model.problem();
    assert!(
        problem.contains("shape [12, 13], but config.json calls for [12, 12]"),
        "{problem}"
    );
}

#[test]
fn a_configuration_that_does_not_fit_the_weights_is_refused() {
    for (field, value, expected) in [
        ("vocab_size", json!(8), "word_embeddings"),
        ("max_position_embeddings", json!(10), "position_embeddings"),
        ("intermediate_size", json!(1_000_000), "intermediate.dense"),
        ("num_hidden_layers", json!(3), "encoder.layer.2."),
        ("num_attention_heads", json!(5), "not a multiple of"),
        ("num_attention_heads", json!(0), "num_attention_heads is 0"),
        (
            "hidden_size",
            json!(4_000_000_000_u64),
            "hidden_size is 4000000000",
        ),
        ("hidden_size", json!(-1), "config.json is damaged"),
        ("layer_norm_eps", json!(-1.0), "layer_norm_eps is -1"),
        ("hidden_act", json!("relu"), "only \"gelu\" is supported"),
        ("model_type", json!("gpt2"), "and only \"bert\""),
        (
            "position_embedding_type",
            json!("relative_key"),
            "only \"absolute\" is supported",
        ),
    ] {
        let model = TinyModel::new();
        model.change("config.json", field, value);
        let problem = model.problem();
        assert!(problem.contains(expected), "{field}: {problem}");
    }
}

#[test]
fn models_that_are_pooled_or_shaped_otherwise_are_refused() {
    let model = TinyModel::new();
    model.change("1_Pooling/config.json", "pooling_mode_cls_token", json!(true));
    let problem = model.problem();
    assert!(
        problem.contains("only pooling by the mean is supported"),
        "{problem}"
    );

    for (modules, expected) in [
        (
            json!([{"path": "", "type": "a.Transformer"}]),
            "no Pooling module",
        ),
        (
            json!([{"path": "2_Dense", "type": "a.Dense"}]),
            "\"a.Dense\" is none of",
        ),
        (
            json!([{"path": "../1_Pooling", "type": "a.Pooling"}]),
            "not the name of a directory",
        ),
        (
            json!([{"path": "9_Pooling", "type": "a.Pooling"}]),
            "9_Pooling/config.json does not exist",
        ),
        (json!({"path": ""}), "modules.json is damaged"),
    ] {
        let model = TinyModel::new();
        model.write("modules.json", &modules);
        let problem = model.problem();
        assert!(problem.contains(expected), "{problem}");
    }
}

#[test]
fn a_tokenizer_that_is_damaged_or_of_another_model_is_refused() {
    let model = TinyModel::new();
    fs::write(model.path("tokenizer.json"), "{\"version\": \"1.0\"").unwrap();
    let problem = model.problem();
    assert!(problem.contains("tokenizer.json is damaged"), "{problem}");

    let model = TinyModel::new();
    let mut tokenizer = TinyModel::tokenizer();
    tokenizer["model"]["vocab"]["beyond"] = json!(VOCABULARY);
    model.write("tokenizer.json", &tokenizer);
    let problem = model.problem();
    assert!(
        problem.contains("token id 7, but the model's vocabulary ends at 7"),
        "{problem}"
    );

    let model = TinyModel::new();
    model.change("sentence_bert_config.json", "max_seq_length", json!(2));
    let problem = model.problem();
    assert!(
        problem.contains("adds 2 tokens to each text, and the model reads 2"),
        "{problem}"
    );
}
