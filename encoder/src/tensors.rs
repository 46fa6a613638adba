//! Tensors of the hub's `model.safetensors`, or of the several files that a large model is split into.
//!
//! The files are mapped, not read: a tensor's bytes are looked at where they lie. Layers are packed from them
//! once ([`Linear`]); an [`EmbeddingTable`] stays in its file. Numbers are 32-bit floats or bf16.
//!
//! Invariant: a tensor handed out has the shape that was asked for, and its bytes lie inside its file. Absent on
//! purpose: other types of numbers, and formats that can run code.

use std::{fs::File, io};

use memmap2::{Mmap, MmapOptions};
use safetensors::{
    Dtype, SafeTensorError, SafeTensors,
    tensor::{Metadata, TensorInfo},
};

use super::{Linear, Precision, StoredRows};

/// Bytes before the header of a safetensors file: its length.
const HEADER_LENGTH_BYTES: usize = 8;

/// Why weights files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TensorError {
    /// A file cannot be mapped.
    #[error("cannot be mapped into memory")]
    Map(#[source] io::Error),
    /// A header is damaged, or a file ends too early.
    #[error("is damaged or not a safetensors file, fetch it again")]
    Damaged(#[source] SafeTensorError),
    /// A tensor is not there.
    #[error("has no tensor {0:?}, which the model of config.json has")]
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
    #[error("has tensor {name:?} of type {found:?}, and only F32 and BF16 are supported, convert it first")]
    DataType {
        /// The tensor.
        name: String,
        /// Its type.
        found: Dtype,
    },
}

/// The weights files of one model, mapped.
///
/// They may be replaced by others while they are mapped, but must not be rewritten in place.
#[derive(Debug)]
pub struct TensorFiles {
    files: Vec<MappedFile>,
}

#[derive(Debug)]
struct MappedFile {
    file: File,
    map: Mmap,
    metadata: Metadata,
    /// Where the tensors begin, after the header.
    start: usize,
}

/// The types of numbers that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stored {
    Float32,
    Bfloat16,
}

/// One tensor, found.
struct Tensor<'a> {
    file: &'a MappedFile,
    info: &'a TensorInfo,
    stored: Stored,
}

impl TensorFiles {
    /// Maps `files` and reads their headers.
    ///
    /// # Errors
    /// [`TensorError::Map`] or [`TensorError::Damaged`].
    pub fn open(files: impl IntoIterator<Item = File>) -> Result<Self, TensorError> {
        let files = files
            .into_iter()
            .map(MappedFile::open)
            .collect::<Result<_, _>>()?;
        Ok(Self { files })
    }

    /// Whether one of the files has the tensor `name`.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.files.iter().any(|file| file.metadata.info(name).is_some())
    }

    fn tensor(&self, name: String, shape: &[usize]) -> Result<Tensor<'_>, TensorError> {
        let found = self
            .files
            .iter()
            .find_map(|file| Some((file, file.metadata.info(&name)?)));
        let Some((file, info)) = found else {
            return Err(TensorError::Missing(name));
        };
        let stored = match info.dtype {
            Dtype::F32 => Stored::Float32,
            Dtype::BF16 => Stored::Bfloat16,
            found => return Err(TensorError::DataType { name, found }),
        };
        if info.shape != shape {
            return Err(TensorError::Shape {
                name,
                found: info.shape.clone(),
                wanted: shape.to_vec(),
            });
        }
        Ok(Tensor { file, info, stored })
    }
}

impl MappedFile {
    fn open(file: File) -> Result<Self, TensorError> {
        // SAFETY: a mapping is sound as long as nobody shortens or rewrites the file in place. Model files are
        // replaced, never rewritten: the hub's cache holds each under its hash, and callers are told.
        let map = unsafe { Mmap::map(&file) }.map_err(TensorError::Map)?;
        // Checks that all tensors lie inside the file, one after the other, and have the bytes of their shapes.
        let (header, metadata) = SafeTensors::read_metadata(&map).map_err(TensorError::Damaged)?;
        Ok(Self {
            file,
            map,
            metadata,
            start: HEADER_LENGTH_BYTES + header,
        })
    }
}

impl<'a> Tensor<'a> {
    fn bytes(&self) -> &'a [u8] {
        let (from, to) = self.info.data_offsets;
        &self.file.map[self.file.start..][from..to]
    }
}

/// Finds the tensors of a model by their names without prefix, and makes layers of them.
pub(crate) struct Reader<'a> {
    files: &'a TensorFiles,
    prefix: &'static str,
    precision: Precision,
}

impl<'a> Reader<'a> {
    /// Reads tensors whose names begin with `prefix`; layers are held in `precision`.
    pub(crate) fn new(files: &'a TensorFiles, prefix: &'static str, precision: Precision) -> Self {
        Self {
            files,
            prefix,
            precision,
        }
    }

    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor<'a>, TensorError> {
        self.files.tensor(format!("{}{name}", self.prefix), shape)
    }

    /// A tensor of this shape, row-major, as 32-bit floats.
    pub(crate) fn floats(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, TensorError> {
        let tensor = self.tensor(name, shape)?;
        let mut floats = vec![0.0; shape.iter().product()];
        tensor.stored.decode(tensor.bytes(), &mut floats);
        Ok(floats)
    }

    /// The little-endian numbers of a tensor of this shape, row-major, where they lie.
    #[cfg(feature = "candle")]
    pub(crate) fn stored(&self, name: &str, shape: &[usize]) -> Result<(Stored, &'a [u8]), TensorError> {
        let tensor = self.tensor(name, shape)?;
        Ok((tensor.stored, tensor.bytes()))
    }

    /// The weights of a layer, where they lie: a row for each output.
    pub(crate) fn rows(
        &self,
        name: &str,
        outputs: usize,
        inputs: usize,
    ) -> Result<StoredRows<'a>, TensorError> {
        let tensor = self.tensor(name, &[outputs, inputs])?;
        Ok(match tensor.stored {
            Stored::Float32 => StoredRows::float32(tensor.bytes(), outputs, inputs),
            Stored::Bfloat16 => StoredRows::bfloat16(tensor.bytes(), outputs, inputs),
        })
    }

    /// Layers without bias that read the same inputs, side by side in one: a name and the number of outputs each.
    pub(crate) fn linear(&self, parts: &[(String, usize)], inputs: usize) -> Result<Linear, TensorError> {
        let rows = self.parts(parts, inputs)?;
        Ok(Linear::new(&rows, None, self.precision))
    }

    /// The same for layers with biases.
    pub(crate) fn linear_with_bias(
        &self,
        parts: &[(String, usize)],
        inputs: usize,
    ) -> Result<Linear, TensorError> {
        let rows = self.parts(parts, inputs)?;
        let mut bias = Vec::new();
        for (name, outputs) in parts {
            bias.extend(self.floats(&format!("{name}.bias"), &[*outputs])?);
        }
        Ok(Linear::new(&rows, Some(bias), self.precision))
    }

    fn parts(&self, parts: &[(String, usize)], inputs: usize) -> Result<Vec<StoredRows<'a>>, TensorError> {
        parts
            .iter()
            .map(|(name, outputs)| self.rows(&format!("{name}.weight"), *outputs, inputs))
            .collect()
    }

    /// An embedding that stays in its file: `rows` of `width` numbers.
    pub(crate) fn table(&self, name: &str, rows: usize, width: usize) -> Result<EmbeddingTable, TensorError> {
        let tensor = self.tensor(name, &[rows, width])?;
        let (from, to) = tensor.info.data_offsets;
        // SAFETY: as in `MappedFile::open`. A mapping of its own, since the pages that layers were packed from
        // count as this process' memory as long as theirs lives.
        let bytes = unsafe {
            MmapOptions::new()
                .offset((tensor.file.start + from) as u64)
                .len(to - from)
                .map(&tensor.file.file)
        }
        .map_err(TensorError::Map)?;
        Ok(EmbeddingTable {
            bytes,
            stored: tensor.stored,
        })
    }
}

impl Stored {
    /// Bytes of a number.
    fn size(self) -> usize {
        match self {
            Self::Float32 => 4,
            Self::Bfloat16 => 2,
        }
    }

    /// Decodes little-endian numbers; `bytes` has as many as `floats`.
    fn decode(self, bytes: &[u8], floats: &mut [f32]) {
        match self {
            Self::Float32 => {
                for (float, chunk) in floats.iter_mut().zip(bytes.as_chunks().0) {
                    *float = f32::from_le_bytes(*chunk);
                }
            }
            Self::Bfloat16 => {
                for (float, chunk) in floats.iter_mut().zip(bytes.as_chunks().0) {
                    *float = f32::from_bits(u32::from(u16::from_le_bytes(*chunk)) << 16);
                }
            }
        }
    }
}

/// A row of numbers for each token id, read from their place in the file: texts touch few of the rows, and
/// processes share them.
#[derive(Debug)]
pub(crate) struct EmbeddingTable {
    bytes: Mmap,
    stored: Stored,
}

impl EmbeddingTable {
    /// Copies the row of token `id` into `row`, whose length is that of all rows.
    ///
    /// # Panics
    /// If the table has no such row.
    pub(crate) fn read_row(&self, id: u32, row: &mut [f32]) {
        let size = row.len() * self.stored.size();
        let start = id as usize * size;
        self.stored.decode(&self.bytes[start..start + size], row);
    }
}
