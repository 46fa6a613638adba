//! The weights of a BERT encoder, from the hub's `model.safetensors`.
//!
//! Each weight is held once. The word embedding, half of a small model, stays in the file and is mapped:
//! texts touch few of its rows, and processes share them. The other tensors are copied out, matrices packed by
//! [`Linear`], query, key and value side by side; the mapping they were read through is gone afterwards.
//!
//! Invariant: every tensor has the shape that the [`EncoderConfig`] calls for.

use std::{fs::File, io};

use memmap2::{Mmap, MmapOptions};
use safetensors::{Dtype, SafeTensorError, SafeTensors, tensor::TensorView};

use super::{EncoderConfig, Linear, Precision, StoredRows};

/// Why a weights file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TensorError {
    /// The file cannot be mapped.
    #[error("cannot be mapped into memory")]
    Map(#[source] io::Error),
    /// The header is damaged, or the file ends too early.
    #[error("is damaged or not a safetensors file, fetch it again")]
    Damaged(#[source] SafeTensorError),
    /// A tensor is not there.
    #[error("has no tensor {0:?}, so it is not a BERT encoder's")]
    Missing(String),
    /// A tensor has another shape than `config.json` says.
    #[error("has tensor {name:?} of shape {found:?}, but config.json calls for {wanted:?}")]
    Shape {
        /// The tensor.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape needed.
        wanted: Vec<usize>,
    },
    /// A tensor holds another type of number.
    #[error("has tensor {name:?} of type {found:?}, and only F32 is supported, convert it first")]
    DataType {
        /// The tensor.
        name: String,
        /// Its type.
        found: Dtype,
    },
}

/// All weights of an encoder.
#[derive(Debug)]
pub struct Weights {
    /// One row for each token id.
    pub(super) words: WordTable,
    /// One row for each position.
    pub(super) positions: Vec<f32>,
    /// Row 0 of the token type embedding: the type of all tokens of a single text.
    pub(super) token_type: Vec<f32>,
    /// Normalises the sum of the three.
    pub(super) embedding_norm: LayerNorm,
    /// From the first layer to the last.
    pub(super) layers: Vec<LayerWeights>,
    /// What the matrices are held in.
    pub(super) precision: Precision,
}

/// One encoder layer.
#[derive(Debug)]
pub(super) struct LayerWeights {
    /// Query, key and value of all heads: `hidden` to `3 * hidden`.
    pub(super) projections: Linear,
    /// Mixes the heads: `hidden` to `hidden`.
    pub(super) attention_output: Linear,
    /// After attention and residual sum.
    pub(super) attention_norm: LayerNorm,
    /// `hidden` to `intermediate`.
    pub(super) expansion: Linear,
    /// `intermediate` to `hidden`.
    pub(super) contraction: Linear,
    /// After feed-forward and residual sum.
    pub(super) feed_forward_norm: LayerNorm,
}

/// Scale and shift of a layer normalisation.
#[derive(Debug)]
pub(super) struct LayerNorm {
    pub(super) scale: Vec<f32>,
    pub(super) shift: Vec<f32>,
}

/// The word embedding, read from its place in the file: rows of little-endian floats.
#[derive(Debug)]
pub(super) struct WordTable {
    bytes: Mmap,
}

impl WordTable {
    /// Copies the row of token `id` into `row`, whose length is that of all rows.
    ///
    /// # Panics
    /// If the table has no such row.
    pub(super) fn read_row(&self, id: u32, row: &mut [f32]) {
        let size = size_of_val(row);
        let start = id as usize * size;
        read_floats(&self.bytes[start..start + size], row);
    }
}

impl Weights {
    /// Reads the tensors that `config` calls for, with or without the prefix `bert.`; others are ignored.
    /// Matrices are held in `precision`. The file stays mapped while the weights live, and must not be rewritten in place.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape or type, or the file is damaged.
    pub fn read(file: &File, config: &EncoderConfig, precision: Precision) -> Result<Self, TensorError> {
        // SAFETY: a mapping is sound as long as nobody shortens or rewrites the file in place. Model files are
        // replaced, never rewritten: the hub's cache holds each under its hash, and callers are told.
        let map = unsafe { Mmap::map(file) }.map_err(TensorError::Map)?;
        let tensors = SafeTensors::deserialize(&map).map_err(TensorError::Damaged)?;
        let reader = Reader::new(&tensors, precision);

        let hidden = config.hidden;
        let words = reader.tensor("embeddings.word_embeddings.weight", &[config.vocabulary, hidden])?;
        let offset = words.data().as_ptr() as usize - map.as_ptr() as usize;
        // SAFETY: as above. A fresh mapping, since the other one's pages were all read and count as ours.
        let bytes = unsafe {
            MmapOptions::new()
                .offset(offset as u64)
                .len(words.data().len())
                .map(file)
        }
        .map_err(TensorError::Map)?;

        let mut token_type = reader.floats(
            "embeddings.token_type_embeddings.weight",
            &[config.token_types, hidden],
        )?;
        token_type.truncate(hidden);
        Ok(Self {
            words: WordTable { bytes },
            positions: reader.floats(
                "embeddings.position_embeddings.weight",
                &[config.positions, hidden],
            )?,
            token_type,
            embedding_norm: reader.layer_norm("embeddings.LayerNorm", hidden)?,
            layers: (0..config.layers)
                .map(|index| reader.layer(index, config))
                .collect::<Result<_, _>>()?,
            precision,
        })
    }
}

/// Finds tensors by their name without prefix and checks them.
struct Reader<'a> {
    tensors: &'a SafeTensors<'a>,
    prefix: &'static str,
    precision: Precision,
}

impl<'a> Reader<'a> {
    fn new(tensors: &'a SafeTensors<'a>, precision: Precision) -> Self {
        let prefixed = tensors.tensor("bert.embeddings.word_embeddings.weight").is_ok();
        Self {
            tensors,
            prefix: if prefixed { "bert." } else { "" },
            precision,
        }
    }

    fn tensor(&self, name: &str, shape: &[usize]) -> Result<TensorView<'a>, TensorError> {
        let name = format!("{}{name}", self.prefix);
        let Ok(tensor) = self.tensors.tensor(&name) else {
            return Err(TensorError::Missing(name));
        };
        if tensor.dtype() != Dtype::F32 {
            return Err(TensorError::DataType {
                name,
                found: tensor.dtype(),
            });
        }
        if tensor.shape() != shape {
            return Err(TensorError::Shape {
                name,
                found: tensor.shape().to_vec(),
                wanted: shape.to_vec(),
            });
        }
        Ok(tensor)
    }

    fn floats(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, TensorError> {
        let tensor = self.tensor(name, shape)?;
        let mut floats = vec![0.0; tensor.data().len() / size_of::<f32>()];
        read_floats(tensor.data(), &mut floats);
        Ok(floats)
    }

    fn layer_norm(&self, name: &str, length: usize) -> Result<LayerNorm, TensorError> {
        Ok(LayerNorm {
            scale: self.floats(&format!("{name}.weight"), &[length])?,
            shift: self.floats(&format!("{name}.bias"), &[length])?,
        })
    }

    /// Layers that read the same inputs, side by side in one.
    fn linear(&self, names: &[String], inputs: usize, outputs: usize) -> Result<Linear, TensorError> {
        let mut bias = Vec::new();
        let mut parts = Vec::with_capacity(names.len());
        for name in names {
            let weight = self.tensor(&format!("{name}.weight"), &[outputs, inputs])?;
            parts.push(StoredRows::float32(weight.data(), outputs, inputs));
            bias.extend(self.floats(&format!("{name}.bias"), &[outputs])?);
        }
        Ok(Linear::new(&parts, Some(bias), self.precision))
    }

    fn layer(&self, index: usize, config: &EncoderConfig) -> Result<LayerWeights, TensorError> {
        let (hidden, intermediate) = (config.hidden, config.intermediate);
        let named = |name: &str| format!("encoder.layer.{index}.{name}");
        let projections = ["query", "key", "value"].map(|part| named(&format!("attention.self.{part}")));
        Ok(LayerWeights {
            projections: self.linear(&projections, hidden, hidden)?,
            attention_output: self.linear(&[named("attention.output.dense")], hidden, hidden)?,
            attention_norm: self.layer_norm(&named("attention.output.LayerNorm"), hidden)?,
            expansion: self.linear(&[named("intermediate.dense")], hidden, intermediate)?,
            contraction: self.linear(&[named("output.dense")], intermediate, hidden)?,
            feed_forward_norm: self.layer_norm(&named("output.LayerNorm"), hidden)?,
        })
    }
}

/// Decodes little-endian floats; `bytes` has four for each.
fn read_floats(bytes: &[u8], floats: &mut [f32]) {
    let (chunks, _) = bytes.as_chunks::<4>();
    for (float, chunk) in floats.iter_mut().zip(chunks) {
        *float = f32::from_le_bytes(*chunk);
    }
}
