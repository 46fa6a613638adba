//! How messages become bytes on a gRPC connection: by prost, in small buffers.
//!
//! tonic's own codec sets 8 KiB aside for every open call, which for a server of tens of thousands of
//! open watches is most of its memory. Messages larger than the buffer make it grow.
//!
//! What thousands of streams say at once is encoded once: see [`PartlyEncoded`].

use std::marker::PhantomData;

use bytes::{Buf, BufMut, Bytes};
use prost::{
    DecodeError, Message,
    encoding::{DecodeContext, WireType},
};
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

/// A message of which some fields are encoded already, so that many can share their bytes.
///
/// On the wire it is the whole message: the encoded fields follow the others, and protobuf gives the order of
/// fields no meaning. Nothing of it is decoded ahead: `message` does not have those fields.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PartlyEncoded<M> {
    message: M,
    encoded: Bytes,
}

impl<M: Message> PartlyEncoded<M> {
    /// `message` with further fields of it, `encoded` as protobuf does.
    pub fn new(message: M, encoded: Bytes) -> Self {
        Self { message, encoded }
    }
}

impl<M: Message> Message for PartlyEncoded<M> {
    fn encode_raw(&self, buffer: &mut impl BufMut) {
        self.message.encode_raw(buffer);
        buffer.put_slice(&self.encoded);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buffer: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        self.message.merge_field(tag, wire_type, buffer, context)
    }

    fn encoded_len(&self) -> usize {
        self.message.encoded_len() + self.encoded.len()
    }

    fn clear(&mut self) {
        self.message.clear();
        self.encoded.clear();
    }
}
