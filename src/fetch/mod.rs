//! Fetchers: they list what a source holds and load documents one by one.
//!
//! A fetcher decides by name, size and kind which documents are left out before anything is loaded
//! ([`Listed`]), and by content after ([`rules`]). Whatever it connects to passes the [`egress`]
//! policy. Absent on purpose: knowledge of invocations and of what is done with a document. A fetcher
//! is handed what it needs and returns documents or a [`FetchError`].

pub mod egress;
mod error;
mod git;
pub mod rules;
mod scratch;
pub mod web;

pub use self::{
    egress::{AllowListError, Egress, EgressError},
    error::{Cause, FetchError},
    git::{Entry, GithubOptions, Listed, Reader, Snapshot, fetch_repository},
    rules::Loaded,
    scratch::remove_stale,
};
