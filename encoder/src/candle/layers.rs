//! What the architectures have in common: weights on the device, fully connected layers, attention.

use candle_core::{DType, Result, Tensor};
use candle_nn::ops;

use super::{Device, DeviceError, batch::Mask};
use crate::{
    Precision, TensorFiles,
    tensors::{self, Stored},
};

/// Finds the tensors of a model by their names without prefix, and puts them on a device.
pub(super) struct Reader<'a> {
    tensors: tensors::Reader<'a>,
    device: &'a Device,
    /// What products are computed in.
    products: DType,
}

impl<'a> Reader<'a> {
    pub(super) fn new(
        files: &'a TensorFiles,
        prefix: &'static str,
        precision: Precision,
        device: &'a Device,
    ) -> std::result::Result<Self, DeviceError> {
        let products = match precision {
            Precision::Single => DType::F32,
            Precision::Bfloat16 => DType::BF16,
            Precision::EightBit => return Err(DeviceError::EightBit),
        };
        Ok(Self {
            tensors: tensors::Reader::new(files, prefix, precision),
            device,
            products,
        })
    }

    /// A tensor of numbers that are not multiplied as matrices: single precision.
    pub(super) fn floats(&self, name: &str, shape: &[usize]) -> std::result::Result<Tensor, DeviceError> {
        self.tensor(name, shape, DType::F32)
    }

    /// Host values on the device.
    pub(super) fn values(
        &self,
        values: Vec<f32>,
        shape: &[usize],
    ) -> std::result::Result<Tensor, DeviceError> {
        Ok(Tensor::from_vec(values, shape, &self.device.0)?)
    }

    /// A row for each token id, as they are stored, but without bf16 where nothing else needs it: cards before
    /// Ampere have none.
    pub(super) fn table(
        &self,
        name: &str,
        rows: usize,
        width: usize,
    ) -> std::result::Result<Tensor, DeviceError> {
        let kind = match self.tensors.stored(name, &[rows, width])? {
            (Stored::Float32, _) => DType::F32,
            (Stored::Bfloat16, _) => self.products,
        };
        self.tensor(name, &[rows, width], kind)
    }

    /// A layer without bias; several parts that read the same inputs lie side by side: a name and the number of
    /// outputs each.
    pub(super) fn linear(
        &self,
        parts: &[(String, usize)],
        inputs: usize,
    ) -> std::result::Result<Linear, DeviceError> {
        let read = |(name, outputs): &(String, usize)| {
            self.tensor(&format!("{name}.weight"), &[*outputs, inputs], self.products)
        };
        let parts = parts
            .iter()
            .map(read)
            .collect::<std::result::Result<Vec<_>, _>>()?;
        Ok(Linear {
            weight: Tensor::cat(&parts, 0)?.t()?,
            bias: None,
        })
    }

    /// The same for layers with biases.
    pub(super) fn linear_with_bias(
        &self,
        parts: &[(String, usize)],
        inputs: usize,
    ) -> std::result::Result<Linear, DeviceError> {
        let read = |(name, outputs): &(String, usize)| self.floats(&format!("{name}.bias"), &[*outputs]);
        let biases = parts
            .iter()
            .map(read)
            .collect::<std::result::Result<Vec<_>, _>>()?;
        Ok(Linear {
            bias: Some(Tensor::cat(&biases, 0)?),
            ..self.linear(parts, inputs)?
        })
    }

    pub(super) fn layer_norm(
        &self,
        name: &str,
        width: usize,
        epsilon: f32,
    ) -> std::result::Result<LayerNorm, DeviceError> {
        Ok(LayerNorm {
            scale: self.floats(&format!("{name}.weight"), &[width])?,
            shift: self.floats(&format!("{name}.bias"), &[width])?,
            epsilon,
        })
    }

    /// Converted here rather than on the device, which then needs memory for the outcome alone.
    fn tensor(&self, name: &str, shape: &[usize], kind: DType) -> std::result::Result<Tensor, DeviceError> {
        let (stored, bytes) = self.tensors.stored(name, shape)?;
        let stored = match stored {
            Stored::Float32 => DType::F32,
            Stored::Bfloat16 => DType::BF16,
        };
        let tensor = Tensor::from_raw_buffer(bytes, stored, shape, &candle_core::Device::Cpu)?;
        Ok(tensor.to_dtype(kind)?.to_device(&self.device.0)?)
    }
}

/// A fully connected layer.
#[derive(Debug)]
pub(super) struct Linear {
    /// `[inputs, outputs]`, in what products are computed in.
    weight: Tensor,
    /// `[outputs]`, single precision.
    bias: Option<Tensor>,
}

impl Linear {
    /// What products are computed in.
    pub(super) fn products(&self) -> DType {
        self.weight.dtype()
    }

    /// `[rows, inputs]` to `[rows, outputs]`, of the type of products, with the bias left out.
    pub(super) fn apply(&self, inputs: &Tensor) -> Result<Tensor> {
        inputs.to_dtype(self.products())?.matmul(&self.weight)
    }

    /// The same in single precision, with the bias if the layer has one.
    pub(super) fn apply_with_bias(&self, inputs: &Tensor) -> Result<Tensor> {
        let outputs = self.apply(inputs)?.to_dtype(DType::F32)?;
        match &self.bias {
            Some(bias) => outputs.broadcast_add(bias),
            None => Ok(outputs),
        }
    }
}

/// Layer normalisation, in single precision.
#[derive(Debug)]
pub(super) struct LayerNorm {
    scale: Tensor,
    shift: Tensor,
    epsilon: f32,
}

impl LayerNorm {
    pub(super) fn apply(&self, states: &Tensor) -> Result<Tensor> {
        ops::layer_norm(states, &self.scale, &self.shift, self.epsilon)
    }
}

/// Attention of all sequences: `queries` are `[sequences, heads, longest, width]`, `keys` and `values`
/// `[sequences, key heads, longest, width]`, all in the type of products and contiguous; the outcome is
/// `[sequences * longest, heads * width]`. Scores are divided by the root of `width`.
pub(super) fn attend(queries: &Tensor, keys: &Tensor, values: &Tensor, mask: &Mask) -> Result<Tensor> {
    let (sequences, heads, longest, width) = queries.dims4()?;
    let key_heads = keys.dim(1)?;
    let scale = 1.0 / (width as f64).sqrt();
    let mut contexts = Vec::with_capacity(mask.blocks.len());
    for block in &mask.blocks {
        // The heads that share keys are next to each other, so they are more queries of one head.
        let rows = heads / key_heads * block.queries;
        let queries = queries
            .narrow(2, block.first, block.queries)?
            .reshape((sequences, key_heads, rows, width))?;
        let keys = keys.narrow(2, 0, block.keys)?;
        // Assigned anew each time, so that no two of them are kept.
        let mut scores = queries.matmul(&keys.transpose(2, 3)?)?.to_dtype(DType::F32)?;
        scores = (scores * scale)?
            .reshape((sequences, heads, block.queries, block.keys))?
            .broadcast_add(&block.summand)?;
        scores = ops::softmax_last_dim(&scores)?
            .reshape((sequences, key_heads, rows, block.keys))?
            .to_dtype(queries.dtype())?;
        let context = scores.matmul(&values.narrow(2, 0, block.keys)?)?;
        contexts.push(context.reshape((sequences, heads, block.queries, width))?);
    }
    Tensor::cat(&contexts, 2)?
        .transpose(1, 2)?
        .reshape((sequences * longest, heads * width))
}
