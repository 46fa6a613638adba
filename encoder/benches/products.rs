//! How fast layers of the sizes of real models are multiplied, in GFLOP a processor second, for each precision and
//! each of the instructions that the processor has: the bound of what a model can reach.
//!
//! `cargo bench -p chroma-sync-encoder --bench products`; a word behind `--` picks the shapes that contain it.

#![allow(clippy::print_stdout)]

#[path = "../../benches/shared/processor_time.rs"]
mod processor_time;

use chroma_sync_encoder::{Instructions, Linear, LinearScratch, Precision, StoredRows};
use processor_time::own_seconds;

/// What a layer does, and its inputs and outputs.
const SHAPES: [(&str, usize, usize); 8] = [
    ("minilm projections", 384, 1152),
    ("minilm attention output", 384, 384),
    ("minilm expansion", 384, 1536),
    ("minilm contraction", 1536, 384),
    ("qwen3 projections", 1024, 4096),
    ("qwen3 attention output", 2048, 1024),
    ("qwen3 gate and up", 1024, 6144),
    ("qwen3 down", 3072, 1024),
];

/// Tokens of a batch: a query, a short text, a batch of documents.
const ROWS: [usize; 4] = [8, 128, 512, 1024];

/// The least processor time of a measurement, in seconds.
const ENOUGH: f64 = 0.1;

/// Rounds, each of which measures everything once; the best one counts, since others disturb and nobody helps.
const ROUNDS: usize = 5;

fn main() {
    let pattern = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'));
    println!("GFLOP a processor second, the best of {ROUNDS} rounds");
    for (name, inputs, outputs) in SHAPES {
        if pattern
            .as_ref()
            .is_some_and(|pattern| !name.contains(pattern.as_str()))
        {
            continue;
        }
        let weights: Vec<f32> = (0..inputs * outputs)
            .map(|index| (index % 255) as f32 / 255.0 - 0.5)
            .collect();
        let stored = StoredRows::floats(&weights, outputs, inputs);
        let layers = [Precision::Single, Precision::Bfloat16, Precision::EightBit]
            .map(|precision| Linear::new(&[stored], None, precision));
        let mut cases = vec![(&layers[0], Instructions::Portable)];
        for layer in &layers[1..] {
            cases.extend(
                Instructions::available()
                    .iter()
                    .map(|instructions| (layer, *instructions)),
            );
        }
        for rows in ROWS {
            let values: Vec<f32> = (0..rows * inputs)
                .map(|index| (index % 251) as f32 / 251.0 - 0.5)
                .collect();
            let mut out = vec![0.0; rows * outputs];
            let mut best = vec![0.0_f64; cases.len()];
            for _ in 0..ROUNDS {
                for ((layer, instructions), best) in cases.iter().zip(&mut best) {
                    let Some(mut scratch) = LinearScratch::with_instructions(*instructions) else {
                        continue;
                    };
                    layer.apply(&values, &mut out, &mut scratch);
                    let (start, mut times) = (own_seconds(), 0);
                    while own_seconds() - start < ENOUGH {
                        for _ in 0..8 {
                            layer.apply(&values, &mut out, &mut scratch);
                        }
                        times += 8;
                    }
                    let seconds = (own_seconds() - start) / f64::from(times);
                    *best = best.max((2 * rows * inputs * outputs) as f64 / seconds / 1e9);
                }
            }
            print!("{name:24} {inputs:4} to {outputs:4}, {rows:4} rows:");
            for ((layer, instructions), best) in cases.iter().zip(&best) {
                match layer.precision() {
                    Precision::Single => print!("  f32 {best:.0}"),
                    Precision::Bfloat16 => print!("  bf16 {instructions:?} {best:.0}"),
                    Precision::EightBit => print!("  int8 {instructions:?} {best:.0}"),
                }
            }
            println!();
        }
    }
}
