//! Calls of any method of the contract, from the descriptors alone: what is added to the contract is
//! called as well.

use chroma_sync::proto;
use prost::Message;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, MessageDescriptor, MethodDescriptor, Value,
};
use serde_json::Value as Json;
use tonic::{
    Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

use super::service::Service;

/// Every method of our own services.
pub fn methods() -> Vec<MethodDescriptor> {
    let pool = DescriptorPool::decode(proto::DESCRIPTORS).unwrap();
    let own = pool
        .services()
        .filter(|service| service.package_name() == "chromasync.v1");
    own.flat_map(|service| service.methods().collect::<Vec<_>>())
        .collect()
}

/// Sets a field from JSON.
pub fn set(message: &mut DynamicMessage, field: &FieldDescriptor, json: &Json) {
    let value = match json {
        Json::String(text) => Value::String(text.clone()),
        Json::Number(number) if field.kind().as_enum().is_some() => {
            Value::EnumNumber(number.as_i64().unwrap().try_into().unwrap())
        }
        Json::Number(number) => Value::I64(number.as_i64().unwrap()),
        Json::Array(texts) => {
            let texts = texts
                .iter()
                .map(|text| Value::String(text.as_str().unwrap().to_owned()));
            Value::List(texts.collect())
        }
        Json::Object(_) => {
            let kind = field.kind();
            let descriptor = kind.as_message().unwrap().clone();
            let mut inner = DynamicMessage::new(descriptor.clone());
            for (name, value) in json.as_object().unwrap() {
                // A message that lacks the field is set empty.
                if let Some(field) = descriptor.get_field_by_name(name) {
                    set(&mut inner, &field, value);
                }
            }
            Value::Message(inner)
        }
        other => panic!("{other} is not needed yet"),
    };
    message.set_field(field, value);
}

/// Calls a method; all messages of the answer, at most the first of a stream.
pub async fn call(
    service: &Service,
    token: &str,
    method: &MethodDescriptor,
    request: DynamicMessage,
) -> Result<Vec<DynamicMessage>, Status> {
    let mut client = Grpc::new(service.channel(token));
    client
        .ready()
        .await
        .map_err(|error| Status::unavailable(error.to_string()))?;
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    let codec = DynamicCodec(method.output());
    let mut answers = client
        .server_streaming(Request::new(request), path.parse().unwrap(), codec)
        .await?
        .into_inner();
    Ok(answers.message().await?.into_iter().collect())
}

struct DynamicCodec(MessageDescriptor);

impl Codec for DynamicCodec {
    type Encode = DynamicMessage;
    type Decode = DynamicMessage;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self(self.0.clone())
    }

    fn decoder(&mut self) -> Self {
        Self(self.0.clone())
    }
}

impl Encoder for DynamicCodec {
    type Item = DynamicMessage;
    type Error = Status;

    fn encode(&mut self, message: DynamicMessage, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        message
            .encode(buffer)
            .map_err(|error| Status::internal(error.to_string()))
    }
}

impl Decoder for DynamicCodec {
    type Item = DynamicMessage;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<DynamicMessage>, Status> {
        let message = DynamicMessage::decode(self.0.clone(), buffer);
        message
            .map(Some)
            .map_err(|error| Status::internal(error.to_string()))
    }
}
