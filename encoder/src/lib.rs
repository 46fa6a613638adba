//! Encoders that run on the CPU in this process: token ids in, one vector for each sequence out.
//!
//! The sequences of a batch are **packed**: laid end to end without padding, so no arithmetic is spent on
//! anything but real tokens and a text's vector does not depend on its neighbours. All matrix products but
//! attention see one tall matrix of all tokens; attention runs for each sequence and head.
//!
//! [`Linear`] holds the weights of a fully connected layer in one of three [`Precision`]s and has its own
//! kernels for each; an architecture is a file of its own ([`bert`]). Absent on purpose: threads. A product
//! runs on the thread that calls it, since the embedder gives each of its threads a batch of its own.

pub mod bert;
mod config;
mod kernels;
mod linear;
mod matrix;
mod weights;

pub use bert::{Encoder, Scratch};
pub use config::{ConfigError, EncoderConfig};
pub use linear::{AttentionShape, HeadRows, Instructions, Linear, LinearScratch, Precision, StoredRows};
pub use weights::{TensorError, Weights};
