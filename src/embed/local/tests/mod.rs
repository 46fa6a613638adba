#![allow(clippy::unwrap_used, clippy::expect_used)]

mod device;
mod golden;
mod loading;
mod qwen3;
mod splade;
mod tiny;

use std::{fs, path::Path, sync::Arc};

use base64::Engine;

/// A file of tests/golden; see `make golden`.
fn golden_file<T: serde::de::DeserializeOwned>(name: &str) -> T {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap()
}

/// The texts that all golden vectors are of.
fn golden_texts() -> Vec<Arc<str>> {
    golden_file("texts.json")
}

/// Little-endian words in base64.
fn words(text: &str) -> Vec<[u8; 4]> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
    bytes.as_chunks::<4>().0.to_vec()
}

fn floats(text: &str) -> Vec<f32> {
    words(text).into_iter().map(f32::from_le_bytes).collect()
}

fn dot(left: &[f32], right: &[f32]) -> f64 {
    left.iter()
        .zip(right)
        .map(|(left, right)| f64::from(*left) * f64::from(*right))
        .sum()
}

fn cosine(left: &[f32], right: &[f32]) -> f64 {
    dot(left, right) / (dot(left, left) * dot(right, right)).sqrt()
}

fn largest_difference(left: &[f32], right: &[f32]) -> f32 {
    assert_eq!(left.len(), right.len());
    left.iter()
        .zip(right)
        .map(|(left, right)| (left - right).abs())
        .fold(0.0, f32::max)
}
