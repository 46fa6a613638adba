//! All integration tests in one binary: one link step. Run them with `make test`, which provides the
//! real peers first.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, missing_docs)]

mod architecture;
mod crash;
mod fetch_github;
mod grpc;
mod harness;
mod index;
mod rest;
mod sync;
mod watch;
