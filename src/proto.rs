//! Types and services generated from `proto/chromasync/v1`, for the server and for clients.
//!
//! Absent on purpose: any hand-written code but what keeps a secret from printing, and names for the messages that
//! servers share between streams. The contract and its comments live in the proto files.

#[allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    clippy::unwrap_used,
    rustdoc::all
)]
mod generated {
    tonic::include_proto!("chromasync.v1");
    include!(concat!(env!("OUT_DIR"), "/servers/chromasync.v1.rs"));
}

pub use generated::*;

use crate::codec::PartlyEncoded;

/// What a server's watch of one invocation answers: a [`WatchInvocationResponse`] in the making.
pub type SharedWatchInvocationResponse = PartlyEncoded<WatchInvocationResponse>;

/// What a server's watch of many invocations answers: a [`WatchInvocationsResponse`] in the making.
pub type SharedWatchInvocationsResponse = PartlyEncoded<WatchInvocationsResponse>;

/// Prints neither the secret nor the URL, which may hold one.
impl std::fmt::Debug for Webhook {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Webhook").finish_non_exhaustive()
    }
}

/// Prints nothing of the secret.
impl std::fmt::Debug for AwsAccessKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("AwsAccessKey").finish_non_exhaustive()
    }
}

/// Prints no secret.
impl std::fmt::Debug for CreateAwsCredentialRequest {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("CreateAwsCredentialRequest")
            .field("access_key_id", &self.access_key_id)
            .finish_non_exhaustive()
    }
}

/// Prints no secret.
impl std::fmt::Debug for CreateGithubAppRequest {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("CreateGithubAppRequest")
            .field("app_id", &self.app_id)
            .finish_non_exhaustive()
    }
}

/// The encoded `FileDescriptorSet` of the contract, for reflection and for tests.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use prost::Message;

    use super::*;

    fn invocation() -> Invocation {
        Invocation {
            id: "0192e4a0-7f1c-7c3e-9a55-6a1d3c1b2f00".to_owned(),
            state: invocation::State::Processing.into(),
            revision: 2,
            ..Invocation::default()
        }
    }

    /// What watches share: the invocation, as the field of a message.
    fn shared() -> bytes::Bytes {
        let message = WatchInvocationResponse {
            invocation: Some(invocation()),
            ..Default::default()
        };
        message.encode_to_vec().into()
    }

    #[test]
    fn a_partly_encoded_message_is_the_whole_message_to_whoever_reads_it() {
        let message = |invocation| WatchInvocationResponse {
            kind: watch_invocation_response::Kind::StateChanged.into(),
            revision: 2,
            invocation,
            time: Some(prost_types::Timestamp { seconds: 7, nanos: 5 }),
        };
        let bytes = SharedWatchInvocationResponse::new(message(None), shared()).encode_to_vec();
        let whole = message(Some(invocation()));
        assert_eq!(WatchInvocationResponse::decode(&bytes[..]).unwrap(), whole);
        assert_eq!(bytes.len(), whole.encoded_len());
        let read = SharedWatchInvocationResponse::decode(&bytes[..]).unwrap();
        assert_eq!(
            WatchInvocationResponse::decode(&read.encode_to_vec()[..]).unwrap(),
            whole
        );
    }

    #[test]
    fn both_watches_have_the_invocation_in_the_same_field() {
        let message = |invocation| WatchInvocationsResponse {
            kind: watch_invocations_response::Kind::Snapshot.into(),
            invocation,
            resume_token: "token".to_owned(),
            time: None,
        };
        let bytes = SharedWatchInvocationsResponse::new(message(None), shared()).encode_to_vec();
        let whole = message(Some(invocation()));
        assert_eq!(WatchInvocationsResponse::decode(&bytes[..]).unwrap(), whole);
    }
}
