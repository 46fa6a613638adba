//! chroma-sync: an open, self-hosted implementation of the Chroma Sync service.
//!
//! It registers sources and runs invocations that fetch, chunk, embed and index them into collections
//! of a Chroma server. The modules in reading order; layers point one way only, and a test checks it:
//! `grpc`, `rest` -> `app` -> `store` -> `domain`, and `worker` -> `fetch`, `chunk`, `embed`, `index`,
//! `store`. See `docs/ARCHITECTURE.md`.

pub mod app;
pub mod auto_sync;
pub mod aws;
pub mod chunk;
pub mod cli;
pub mod codec;
pub mod config;
pub mod domain;
pub mod embed;
pub mod error;
pub mod fetch;
pub mod grpc;
pub mod index;
pub mod json;
pub mod openapi;
pub mod outbound;
pub mod parse;
pub mod proto;
pub mod relay;
pub mod rest;
pub mod seal;
pub mod secret;
pub mod server;
pub mod service;
pub mod store;
pub mod telemetry;
pub mod token;
pub mod uploads;
pub mod wake;
pub mod webhook;
pub mod worker;
