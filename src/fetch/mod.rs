//! Fetchers: they list what a source holds and load documents one by one.
//!
//! A fetcher decides by name, size and kind which documents are left out before anything is loaded
//! ([`Listed`]), then loads one by one ([`DocumentReader`]); [`rules`] say which bytes are text. Whatever it
//! connects to passes the [`egress`] policy. Absent on purpose: knowledge of invocations and of what is done with a document. A fetcher
//! is handed what it needs and returns documents or a [`FetchError`].

mod content;
pub mod egress;
mod error;
mod git;
mod github_app;
mod listing;
mod rate_limit;
pub mod rules;
pub mod s3;
mod scratch;
mod sink;
mod upload;
pub mod web;

pub use self::{
    content::{Content, DocumentReader, LoadError, LoadedDocument, Reading, ScratchFile},
    egress::{AllowListError, Egress, EgressError},
    error::{Cause, FetchError},
    git::{GithubOptions, Reader, RepositoryDocuments, Snapshot, fetch_repository},
    github_app::{AppAccess, GithubAppOptions, GithubApps},
    listing::{Entry, Listed},
    scratch::{ScratchDirectory, remove_stale},
    upload::UploadedDocument,
};
