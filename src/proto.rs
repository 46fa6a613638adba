//! Types and services generated from `proto/chromasync/v1`, for the server and for clients.
//!
//! Absent on purpose: any hand-written code. The contract and its comments live in the proto files.

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

/// The encoded `FileDescriptorSet` of the contract, for reflection and for tests.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
