//! The engine that runs on GPUs, here on its CPU device, against the Python reference (`tests/golden`) and against the
//! engine that runs on the CPU.

#![cfg(feature = "candle")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
};

use base64::Engine;
use chroma_sync_encoder::{
    Encoder, EncoderConfig, MaskedLanguageModel, Precision, Qwen3Config, Scratch, TensorFiles, WeightedTerms,
    Weights,
    candle::{self, Device, DeviceError},
};
use tokenizers::{Tokenizer, TruncationParams};

/// Sequences that are computed at once.
const BATCH: usize = 8;

#[derive(serde::Deserialize)]
struct Golden {
    max_tokens: usize,
    #[serde(default)]
    instruction: String,
    texts: Vec<GoldenText>,
    #[serde(default)]
    queries: Vec<GoldenText>,
}

#[derive(serde::Deserialize)]
struct GoldenText {
    tokens: usize,
    #[serde(default)]
    vector: String,
    #[serde(default)]
    indices: String,
    #[serde(default)]
    values: String,
}

/// One model's files.
struct Model {
    directory: PathBuf,
    golden: Golden,
}

impl Model {
    fn new(directory: PathBuf, golden: &str) -> Self {
        Self {
            directory,
            golden: golden_file(golden),
        }
    }

    fn tiny(name: &str) -> Self {
        Self::new(golden_path("models/tiny").join(name), &format!("{name}.json"))
    }

    fn minilm() -> Self {
        let models = env::var_os("CHROMA_SYNC_TEST_MODELS").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("../.peers/models"),
            PathBuf::from,
        );
        Self::new(
            models.join("sentence-transformers/all-MiniLM-L6-v2"),
            "minilm.json",
        )
    }

    fn config(&self) -> Vec<u8> {
        fs::read(self.directory.join("config.json")).expect("run `make peers`")
    }

    fn bert_config(&self) -> EncoderConfig {
        EncoderConfig::parse(&self.config()).unwrap()
    }

    fn qwen3_config(&self) -> Qwen3Config {
        Qwen3Config {
            positions: self.golden.max_tokens,
            ..Qwen3Config::parse(&self.config()).unwrap()
        }
    }

    fn files(&self) -> TensorFiles {
        TensorFiles::open([File::open(self.directory.join("model.safetensors")).unwrap()]).unwrap()
    }

    fn bert(&self, precision: Precision) -> candle::Bert {
        candle::Bert::read(&self.files(), self.bert_config(), precision, &Device::cpu()).unwrap()
    }

    fn qwen3(&self, precision: Precision) -> candle::Qwen3 {
        candle::Qwen3::read(&self.files(), self.qwen3_config(), precision, &Device::cpu()).unwrap()
    }

    fn splade(&self, precision: Precision) -> candle::MaskedLanguageModel {
        candle::MaskedLanguageModel::read(&self.files(), self.bert_config(), precision, &Device::cpu())
            .unwrap()
    }

    /// The tokens of these texts after `before`, as the service cuts them.
    fn tokens(&self, before: &str, texts: &[String], golden: &[GoldenText]) -> Vec<Vec<u32>> {
        let mut tokenizer = Tokenizer::from_file(self.directory.join("tokenizer.json")).unwrap();
        tokenizer.with_padding(None);
        let truncation = TruncationParams {
            max_length: self.golden.max_tokens,
            ..TruncationParams::default()
        };
        tokenizer.with_truncation(Some(truncation)).unwrap();
        let read = |(text, golden): (&String, &GoldenText)| {
            let tokens = tokenizer.encode(format!("{before}{text}"), true).unwrap();
            assert_eq!(tokens.get_ids().len(), golden.tokens, "{text:?}");
            tokens.get_ids().to_vec()
        };
        texts.iter().zip(golden).map(read).collect()
    }

    fn documents(&self) -> Vec<Vec<u32>> {
        self.tokens("", &texts(), &self.golden.texts)
    }
}

fn golden_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/golden")
        .join(name)
}

fn golden_file<T: serde::de::DeserializeOwned>(name: &str) -> T {
    serde_json::from_slice(&fs::read(golden_path(name)).unwrap()).unwrap()
}

fn texts() -> Vec<String> {
    golden_file("texts.json")
}

fn words(text: &str) -> Vec<[u8; 4]> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
    bytes.as_chunks::<4>().0.to_vec()
}

fn floats(text: &str) -> Vec<f32> {
    words(text).into_iter().map(f32::from_le_bytes).collect()
}

/// Calls `compute` with batches of sequences, the longest first, as the service does; the results are in order.
fn in_batches<V: Clone>(sequences: &[Vec<u32>], compute: impl Fn(&[&[u32]]) -> Vec<V>) -> Vec<V> {
    let mut order: Vec<usize> = (0..sequences.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(sequences[*index].len()));
    let mut found = vec![None; sequences.len()];
    for batch in order.chunks(BATCH) {
        let ids: Vec<&[u32]> = batch.iter().map(|index| sequences[*index].as_slice()).collect();
        let vectors = compute(&ids);
        assert_eq!(vectors.len(), batch.len());
        for (index, vector) in batch.iter().zip(vectors) {
            found[*index] = Some(vector);
        }
    }
    found.into_iter().flatten().collect()
}

fn largest_difference(left: &[f32], right: &[f32]) -> f32 {
    assert_eq!(left.len(), right.len());
    let differences = left.iter().zip(right).map(|(left, right)| (left - right).abs());
    differences.fold(0.0, f32::max)
}

fn cosine(left: &[f32], right: &[f32]) -> f64 {
    let dot = |left: &[f32], right: &[f32]| -> f64 {
        let products = left.iter().zip(right);
        products
            .map(|(left, right)| f64::from(*left) * f64::from(*right))
            .sum()
    };
    dot(left, right) / (dot(left, left) * dot(right, right)).sqrt()
}

fn assert_close(found: &[Vec<f32>], wanted: &[Vec<f32>], tolerance: f32) {
    assert_eq!(found.len(), wanted.len());
    for (index, (found, wanted)) in found.iter().zip(wanted).enumerate() {
        let difference = largest_difference(found, wanted);
        assert!(difference <= tolerance, "text {index}: {difference:e}");
    }
}

fn vectors(golden: &[GoldenText]) -> Vec<Vec<f32>> {
    golden.iter().map(|text| floats(&text.vector)).collect()
}

/// A weight for each term of the vocabulary: terms at the edge of weighing nothing may be there or not.
fn spread(terms: &WeightedTerms, vocabulary: usize) -> Vec<f32> {
    assert!(terms.ids.is_sorted_by(|left, right| left < right));
    let mut weights = vec![0.0; vocabulary];
    for (id, weight) in terms.ids.iter().zip(&terms.weights) {
        assert!(*weight > 0.0);
        weights[*id as usize] = *weight;
    }
    weights
}

#[test]
fn a_qwen3_gives_documents_and_queries_the_vectors_of_the_reference() {
    let model = Model::tiny("qwen3");
    let network = model.qwen3(Precision::Single);
    let embed =
        |sequences: &[Vec<u32>]| in_batches(sequences, |batch| network.embed(batch, &mut || {}).unwrap());
    assert_close(&embed(&model.documents()), &vectors(&model.golden.texts), 1e-5);
    let before = format!("Instruct: {}\nQuery:", model.golden.instruction);
    let queries = model.tokens(
        &before,
        &texts()[..model.golden.queries.len()],
        &model.golden.queries,
    );
    assert_close(&embed(&queries), &vectors(&model.golden.queries), 1e-5);
}

#[test]
fn the_real_minilm_gives_texts_the_vectors_of_the_reference_and_of_the_other_engine() {
    let model = Model::minilm();
    let (network, documents) = (model.bert(Precision::Single), model.documents());
    let found = in_batches(&documents, |batch| network.embed(batch, &mut || {}).unwrap());
    assert_close(&found, &vectors(&model.golden.texts), 1e-5);

    let config = model.bert_config();
    let weights = Weights::read(&model.files(), &config, Precision::Single).unwrap();
    let sequences: Vec<&[u32]> = documents.iter().map(Vec::as_slice).collect();
    let packed = Encoder::new(config, weights).embed(&sequences, &mut Scratch::default(), &mut || {});
    assert_close(&found, &packed, 1e-5);
}

#[test]
fn a_splade_gives_terms_the_weights_of_the_reference_and_of_the_other_engine() {
    let model = Model::tiny("splade");
    let (network, documents) = (model.splade(Precision::Single), model.documents());
    let vocabulary = model.bert_config().vocabulary;
    let found = in_batches(&documents, |batch| network.weigh(batch, &mut || {}).unwrap());
    let found: Vec<_> = found.iter().map(|terms| spread(terms, vocabulary)).collect();
    let reference = |text: &GoldenText| WeightedTerms {
        ids: words(&text.indices).into_iter().map(u32::from_le_bytes).collect(),
        weights: floats(&text.values),
    };
    let reference: Vec<_> = model.golden.texts.iter().map(reference).collect();
    let reference: Vec<_> = reference.iter().map(|terms| spread(terms, vocabulary)).collect();
    assert_close(&found, &reference, 1e-4);

    let other = MaskedLanguageModel::read(&model.files(), model.bert_config(), Precision::Single).unwrap();
    let sequences: Vec<&[u32]> = documents.iter().map(Vec::as_slice).collect();
    let packed = other.weigh(&sequences, &mut Default::default(), &mut || {});
    let packed: Vec<_> = packed.iter().map(|terms| spread(terms, vocabulary)).collect();
    assert_close(&found, &packed, 1e-4);
}

#[test]
fn bf16_stays_close_to_the_reference() {
    let model = Model::tiny("qwen3");
    let network = model.qwen3(Precision::Bfloat16);
    let found = in_batches(&model.documents(), |batch| {
        network.embed(batch, &mut || {}).unwrap()
    });
    for (found, wanted) in found.iter().zip(vectors(&model.golden.texts)) {
        let cosine = cosine(found, &wanted);
        assert!((0.999..0.999_999_9).contains(&cosine), "{cosine}");
    }

    let model = Model::minilm();
    let documents = &model.documents()[..16];
    let [single, bfloat16] = [Precision::Single, Precision::Bfloat16].map(|precision| {
        let network = model.bert(precision);
        in_batches(documents, |batch| network.embed(batch, &mut || {}).unwrap())
    });
    for (single, bfloat16) in single.iter().zip(&bfloat16) {
        let cosine = cosine(single, bfloat16);
        assert!((0.999..0.999_999_9).contains(&cosine), "{cosine}");
    }
}

#[test]
fn a_sequence_by_itself_has_the_vector_it_has_among_longer_and_empty_ones() {
    let qwen3 = Model::tiny("qwen3");
    let mut documents = qwen3.documents();
    documents.truncate(20);
    documents.insert(3, Vec::new());
    let sequences: Vec<&[u32]> = documents.iter().map(Vec::as_slice).collect();
    let longest = sequences.iter().map(|sequence| sequence.len()).max().unwrap();
    let network = qwen3.qwen3(Precision::Single);
    let together = network.embed(&sequences, &mut || {}).unwrap();
    assert_eq!(together[3], [0.0; 64]);
    let (mut shorter, mut alone) = (0, Vec::new());
    for sequence in &sequences {
        shorter += usize::from(sequence.len() < longest);
        alone.extend(network.embed(&[sequence], &mut || {}).unwrap());
    }
    assert_close(&together, &alone, 1e-6);
    assert!(shorter > 10, "nothing was padded");

    let minilm = Model::minilm();
    let mut documents = minilm.documents();
    documents.truncate(6);
    documents.insert(2, Vec::new());
    let sequences: Vec<&[u32]> = documents.iter().map(Vec::as_slice).collect();
    let network = minilm.bert(Precision::Single);
    let together = network.embed(&sequences, &mut || {}).unwrap();
    assert_eq!(together[2], [0.0; 384]);
    let embed = |sequence: &&[u32]| network.embed(&[sequence], &mut || {}).unwrap().remove(0);
    let alone: Vec<_> = sequences.iter().map(embed).collect();
    assert_close(&together, &alone, 1e-6);

    let splade = Model::tiny("splade").splade(Precision::Single);
    assert_eq!(
        splade.weigh(&[&[]], &mut || {}).unwrap(),
        [WeightedTerms::default()]
    );
}

#[test]
fn what_is_computed_in_a_pause_does_not_change_what_pauses() {
    let model = Model::tiny("qwen3");
    let network = model.qwen3(Precision::Single);
    let documents = model.documents();
    let (batch, query): (Vec<&[u32]>, &[u32]) =
        (documents[..4].iter().map(Vec::as_slice).collect(), &documents[5]);
    let expected = network.embed(&batch, &mut || {}).unwrap();
    let alone = network.embed(&[query], &mut || {}).unwrap();
    let mut paused = Vec::new();
    let found = network
        .embed(&batch, &mut || {
            paused.push(network.embed(&[query], &mut || {}).unwrap());
        })
        .unwrap();
    assert_eq!(found, expected);
    assert_eq!(paused, vec![alone; model.qwen3_config().layers]);
}

#[test]
fn what_cannot_be_read_onto_a_device_says_why() {
    let model = Model::tiny("qwen3");
    let read = |config, precision| {
        candle::Qwen3::read(&model.files(), config, precision, &Device::cpu()).map(|_| "it was read")
    };
    let error = read(model.qwen3_config(), Precision::EightBit).unwrap_err();
    assert!(matches!(error, DeviceError::EightBit), "{error}");
    let wide = Qwen3Config {
        intermediate: 4096,
        ..model.qwen3_config()
    };
    let error = read(wide, Precision::Single).unwrap_err();
    assert!(error.to_string().contains("mlp.gate_proj.weight"), "{error}");
}

#[test]
fn a_sequence_that_is_too_long_is_an_error() {
    let model = Model::tiny("qwen3");
    let network = model.qwen3(Precision::Single);
    let long = vec![1; model.golden.max_tokens + 1];
    let error = network.embed(&[&long], &mut || {}).unwrap_err();
    assert!(matches!(error, DeviceError::Computation(_)), "{error}");
}
