//! What computes a model: the encoder's own kernels on the CPU, or a device.

#[cfg(feature = "candle")]
use chroma_sync_encoder::candle::{self, DeviceError};
use chroma_sync_encoder::{
    Encoder, EncoderConfig, MaskedLanguageModel, Precision, Qwen3, Qwen3Config, Weights,
};

use super::{Device, dense::Network, sparse::TermNetwork, weights::WeightsFiles};
#[cfg(feature = "candle")]
use crate::embed::EmbedError;
use crate::embed::LoadError;

/// What computes.
pub(super) enum Engine {
    /// The threads that call.
    Processors,
    /// A GPU, or in tests what stands for one.
    #[cfg(feature = "candle")]
    Device(candle::Device),
}

impl Engine {
    /// Opens `device`.
    ///
    /// # Errors
    /// [`LoadError::WithoutCuda`] or [`LoadError::DeviceUnavailable`].
    pub(super) fn open(device: Device) -> Result<Self, LoadError> {
        match device {
            Device::Cpu => Ok(Self::Processors),
            Device::Cuda { ordinal } => open_cuda(ordinal),
        }
    }

    /// Reads a dense BERT.
    ///
    /// # Errors
    /// If a tensor cannot be used, or the device does not hold the model.
    pub(super) fn bert(&self, weights: &Reading<'_>, config: EncoderConfig) -> Result<Network, LoadError> {
        let Reading { files, precision, .. } = *weights;
        match self {
            Self::Processors => {
                let read = Weights::read(&files.tensors, &config, precision);
                let read = read.map_err(|error| files.failed(error))?;
                Ok(Network::Bert(Encoder::new(config, read)))
            }
            #[cfg(feature = "candle")]
            Self::Device(device) => candle::Bert::read(&files.tensors, config, precision, device)
                .map(Network::DeviceBert)
                .map_err(|error| weights.failed_on_device(error)),
        }
    }

    /// Reads a dense Qwen3.
    ///
    /// # Errors
    /// As [`bert`](Self::bert).
    pub(super) fn qwen3(&self, weights: &Reading<'_>, config: Qwen3Config) -> Result<Network, LoadError> {
        let Reading { files, precision, .. } = *weights;
        match self {
            Self::Processors => Qwen3::read(&files.tensors, config, precision)
                .map(Network::Qwen3)
                .map_err(|error| files.failed(error)),
            #[cfg(feature = "candle")]
            Self::Device(device) => candle::Qwen3::read(&files.tensors, config, precision, device)
                .map(Network::DeviceQwen3)
                .map_err(|error| weights.failed_on_device(error)),
        }
    }

    /// Reads a sparse BERT.
    ///
    /// # Errors
    /// As [`bert`](Self::bert).
    pub(super) fn masked_language_model(
        &self,
        weights: &Reading<'_>,
        config: EncoderConfig,
    ) -> Result<TermNetwork, LoadError> {
        let Reading { files, precision, .. } = *weights;
        match self {
            Self::Processors => MaskedLanguageModel::read(&files.tensors, config, precision)
                .map(TermNetwork::MaskedLanguageModel)
                .map_err(|error| files.failed(error)),
            #[cfg(feature = "candle")]
            Self::Device(device) => {
                candle::MaskedLanguageModel::read(&files.tensors, config, precision, device)
                    .map(TermNetwork::DeviceMaskedLanguageModel)
                    .map_err(|error| weights.failed_on_device(error))
            }
        }
    }
}

/// Weights on their way into a network.
pub(super) struct Reading<'a> {
    pub(super) files: &'a WeightsFiles,
    pub(super) precision: Precision,
}

#[cfg(feature = "candle")]
impl Reading<'_> {
    fn failed_on_device(&self, error: DeviceError) -> LoadError {
        match error {
            DeviceError::Tensor(error) => self.files.failed(error),
            DeviceError::EightBit => LoadError::PrecisionOnDevice,
            DeviceError::WithoutCuda => LoadError::WithoutCuda,
            error @ (DeviceError::Open { .. } | DeviceError::Computation(_)) => LoadError::Device {
                path: self.files.path.clone(),
                source: error.into(),
            },
        }
    }
}

#[cfg(feature = "candle")]
fn open_cuda(ordinal: usize) -> Result<Engine, LoadError> {
    match candle::Device::cuda(ordinal) {
        Ok(device) => Ok(Engine::Device(device)),
        Err(DeviceError::WithoutCuda) => Err(LoadError::WithoutCuda),
        Err(
            error @ (DeviceError::Open { .. }
            | DeviceError::EightBit
            | DeviceError::Tensor(_)
            | DeviceError::Computation(_)),
        ) => Err(LoadError::DeviceUnavailable {
            ordinal,
            source: error.into(),
        }),
    }
}

#[cfg(not(feature = "candle"))]
fn open_cuda(_ordinal: usize) -> Result<Engine, LoadError> {
    Err(LoadError::WithoutCuda)
}

/// A device that failed while it computed.
#[cfg(feature = "candle")]
pub(super) fn failed(error: DeviceError) -> EmbedError {
    EmbedError::Device(error.into())
}
