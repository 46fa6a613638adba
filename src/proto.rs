//! Types and services generated from `proto/chromasync/v1`, for the server and for clients.
//!
//! Absent on purpose: any hand-written code but what keeps a secret from printing. The contract and its
//! comments live in the proto files.

#[allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    clippy::unwrap_used,
    rustdoc::all
)]
mod generated {
    tonic::include_proto!("chromasync.v1");
}

pub use generated::*;

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
