//! What the service is about, as types: sources, invocations, documents, chunks, and their rules.
//!
//! Absent on purpose: any input or output, any SQL, any wire format. A value of a type in here is
//! valid, because the only ways to make one check it; the layers above never check again.

pub mod api_key;
pub mod chunking;
pub mod credential;
pub mod dimensions;
pub mod document;
pub mod embedding;
pub mod github;
pub mod globs;
pub mod ids;
pub mod input;
pub mod invocation;
pub mod names;
pub mod page;
pub mod path_patterns;
pub mod request;
pub mod s3;
pub mod search;
pub mod source;
pub mod texts;
pub mod time;
pub mod user_metadata;
pub mod web;
pub mod webhook;
