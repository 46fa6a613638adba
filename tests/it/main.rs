//! All integration tests in one binary: one link step. Run them with `make test`, which provides the
//! real peers first.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, missing_docs)]

mod architecture;
mod auth;
mod crash;
mod fetch_github;
mod grpc;
mod grpc_errors;
mod grpc_listings;
mod grpc_wire;
mod harness;
mod index;
mod rest;
mod rest_errors;
mod sync;
mod watch;
