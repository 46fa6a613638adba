//! The real model in lower precision against itself in single precision. (That in turn is held against the Python
//! reference by the service's tests, which have its tokenizer.)

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
};

use chroma_sync_encoder::{Encoder, EncoderConfig, Precision, Scratch, TensorFiles, Weights};

/// Vectors of sequences of 1 to 253 ids that look random, which is harder on a model than text.
fn vectors(precision: Precision) -> Vec<Vec<f32>> {
    let models = env::var_os("CHROMA_SYNC_TEST_MODELS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../.peers/models"),
        PathBuf::from,
    );
    let directory = models.join("sentence-transformers/all-MiniLM-L6-v2");
    let config = fs::read(directory.join("config.json")).expect("run `make peers`");
    let config = EncoderConfig::parse(&config).unwrap();
    let file = File::open(directory.join("model.safetensors")).unwrap();
    let files = TensorFiles::open([file]).unwrap();
    let weights = Weights::read(&files, &config, precision).unwrap();
    let sequences: Vec<Vec<u32>> = (0..22)
        .map(|text| {
            let ids = (0..1 + text * 12).map(|token| (text * 7919 + token * 104_729) % 30_000);
            ids.collect()
        })
        .collect();
    let sequences: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
    Encoder::new(config, weights).embed(&sequences, &mut Scratch::default(), &mut || {})
}

fn least_cosine(left: &[Vec<f32>], right: &[Vec<f32>]) -> f64 {
    assert_eq!(left.len(), right.len());
    let cosine = |(left, right): (&Vec<f32>, &Vec<f32>)| -> f64 {
        left.iter()
            .zip(right)
            .map(|(left, right)| f64::from(*left) * f64::from(*right))
            .sum()
    };
    left.iter().zip(right).map(cosine).fold(f64::INFINITY, f64::min)
}

#[test]
fn lower_precision_leaves_vectors_where_they_are() {
    let single = vectors(Precision::Single);
    let bfloat16 = least_cosine(&single, &vectors(Precision::Bfloat16));
    assert!(bfloat16 >= 0.9999, "bf16: {bfloat16}");
    let eight_bit = least_cosine(&single, &vectors(Precision::EightBit));
    assert!(eight_bit >= 0.998, "8 bits: {eight_bit}");
    assert!(
        eight_bit < bfloat16 && bfloat16 < 1.0,
        "each was computed as asked: {eight_bit}, {bfloat16}"
    );
}
