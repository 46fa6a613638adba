//! The same architectures on a GPU, computed by the `candle` crates.
//!
//! Weights are read once from the same files and kept on the device; see [`Precision`](crate::Precision) for what
//! products are computed in. Residuals, normalisation and softmax are single precision throughout, as on the CPU. The
//! sequences of a batch are padded on the right to the longest of them, so a batch should hold sequences of like
//! lengths. Padding is hidden from the tokens of a BERT; a Qwen3 needs no mask for it, since its tokens see
//! only what is before them.
//!
//! Calls start work on the device and wait for its result. [`Device::cpu`] runs the same code without a GPU, which is
//! what the tests do; it is slower than the encoders of the crate's root, and of no other use. Absent on purpose:
//! weights in 8 bits, several devices for one model, and kernels of our own.

mod batch;
mod bert;
mod layers;
mod masked_language_model;
mod qwen3;

pub use bert::Bert;
pub use masked_language_model::MaskedLanguageModel;
pub use qwen3::Qwen3;

use crate::TensorError;

/// Where models compute.
#[derive(Debug, Clone)]
pub struct Device(candle_core::Device);

/// Why a device could not be opened, a model could not be read onto it, or it did not compute.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The feature `cuda` is off.
    #[error("built without the feature `cuda`")]
    WithoutCuda,
    /// The driver refuses the device.
    #[error("CUDA device {ordinal} cannot be opened")]
    Open {
        /// Its number, from 0.
        ordinal: usize,
        /// What the driver says.
        source: candle_core::Error,
    },
    /// Weights in 8 bits are asked for.
    #[error("weights in 8 bits are not supported on a device")]
    EightBit,
    /// A tensor of the model cannot be used.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// The device has too little memory, or failed.
    #[error("the device did not compute")]
    Computation(#[from] candle_core::Error),
}

impl Device {
    /// The GPU that the CUDA driver gives the number `ordinal`, from 0, among those that `CUDA_VISIBLE_DEVICES` leaves.
    ///
    /// # Errors
    /// [`DeviceError::WithoutCuda`] or [`DeviceError::Open`].
    pub fn cuda(ordinal: usize) -> Result<Self, DeviceError> {
        if !cfg!(feature = "cuda") {
            return Err(DeviceError::WithoutCuda);
        }
        // A stream of its own: the default is one for each thread, and models are read on other threads than they
        // compute on.
        candle_core::Device::new_cuda_with_stream(ordinal)
            .map(Self)
            .map_err(|source| DeviceError::Open { ordinal, source })
    }

    /// The CPU, for tests of what runs on GPUs.
    pub fn cpu() -> Self {
        Self(candle_core::Device::Cpu)
    }
}

#[cfg(all(test, not(feature = "cuda")))]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn a_gpu_is_refused_by_a_build_without_cuda() {
        let error = Device::cuda(0).unwrap_err();
        assert!(matches!(error, DeviceError::WithoutCuda), "{error}");
    }
}
