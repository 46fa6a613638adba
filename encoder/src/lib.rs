//! Encoders that run in this process: token ids in, one vector for each sequence out.
//!
//! They compute on the CPU; with the feature `candle` there is a second engine, which computes on GPUs and has a
//! module of its own. What follows is about the first.
//!
//! The sequences of a batch are **packed**: laid end to end without padding, so no arithmetic is spent on
//! anything but real tokens and a text's vector does not depend on its neighbours. All matrix products but
//! attention see one tall matrix of all tokens; attention runs for each sequence and head.
//!
//! [`Linear`] holds the weights of a fully connected layer in one of three [`Precision`]s and has its own
//! kernels for each; an architecture is a file of its own: [`bert`], [`qwen3`],
//! [`masked_language_model`]. Absent on purpose: threads. A product
//! runs on the thread that calls it, since the embedder gives each of its threads a batch of its own.

pub mod bert;
#[cfg(feature = "candle")]
pub mod candle;
mod config;
mod kernels;
mod linear;
pub mod masked_language_model;
mod matrix;
pub mod qwen3;
mod tensors;
mod weights;

pub use bert::{Encoder, Scratch};
pub use config::{ConfigError, EncoderConfig};
pub use linear::{AttentionShape, HeadRows, Instructions, Linear, LinearScratch, Precision, StoredRows};
pub use masked_language_model::{MaskedLanguageModel, MaskedLanguageScratch, WeightedTerms};
pub use qwen3::{Qwen3, Qwen3Config, Qwen3Scratch};
pub use tensors::{TensorError, TensorFiles};
pub use weights::Weights;

/// The first `length` floats of `buffer`, which grows if it must; their values are left over from before.
fn sized(buffer: &mut Vec<f32>, length: usize) -> &mut [f32] {
    if buffer.len() < length {
        buffer.resize(length, 0.0);
    }
    &mut buffer[..length]
}
