//! How messages become bytes on a gRPC connection: by prost, in small buffers.
//!
//! tonic's own codec sets 8 KiB aside for every open call, which for a server of tens of thousands of
//! open watches is most of its memory. Messages larger than the buffer make it grow.

use std::marker::PhantomData;

use prost::Message;
use tonic::codec::{BufferSettings, Codec};
use tonic_prost::{ProstDecoder, ProstEncoder};

/// Bytes that a call's buffers begin with; a watch message has 150 to 400.
const BUFFER_BYTES: usize = 512;
/// Bytes that are gathered before they are handed to the connection.
const YIELD_BYTES: usize = 32 * 1024;

/// prost in small buffers; the generated services and clients use it.
#[derive(Debug, Clone)]
pub struct SmallBufferCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for SmallBufferCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for SmallBufferCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::new(BufferSettings::new(BUFFER_BYTES, YIELD_BYTES))
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::new(BufferSettings::new(BUFFER_BYTES, YIELD_BYTES))
    }
}
