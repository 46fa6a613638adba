//! All integration tests in one binary: one link step. Run them with `make test`, which provides the
//! real peers first.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, missing_docs)]

mod architecture;
mod auth;
mod auth_chroma;
mod auth_reach;
mod clients;
mod crash;
mod credentials;
mod documentation;
mod fetch_github;
mod github_api;
mod github_app;
mod grpc;
mod grpc_errors;
mod grpc_listings;
mod grpc_wire;
mod harness;
mod index;
mod openapi;
mod parse;
mod parse_hostile;
mod parse_images;
mod proxies;
mod rest;
mod rest_contract;
mod rest_errors;
mod rest_source_types;
mod secrets;
mod store_api_keys;
mod store_claims;
mod store_credentials;
mod store_documents;
mod store_events;
mod store_feed;
mod store_invocations;
mod store_lease;
mod store_ownership;
mod store_plans;
mod store_processes;
mod store_races;
mod store_schema;
mod store_sources;
mod store_webhooks;
mod sync;
mod transport;
mod watch;
mod watch_cli;
mod watch_events;
mod watch_many;
mod watch_model;
mod watch_nodes;
mod web;
mod webhook_requests;
mod webhooks;
