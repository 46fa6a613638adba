//! Fetches model files from a Hugging Face hub into its cache, when somebody asks for it with `chroma-sync models pull`.
//!
//! The routes, headers and the layout of the cache are those of the `huggingface_hub` package, with its variables
//! `HF_ENDPOINT`, `HF_HUB_CACHE`, `HF_HOME`, `HF_TOKEN`, `HF_TOKEN_PATH` and `HF_HUB_OFFLINE`. A server that starts
//! fetches nothing: it would start differently from one day to the next, and take minutes to.
//!
//! Invariants: a file gets its name in the cache only after its checksum was right; the token goes to the hub's own
//! host alone; what was fetched before a failure is kept, and the next run goes on from there.

mod cache;
mod checksum;
mod client;
mod download;
mod error;
mod listing;

use std::{env, fs, io::Read, path::PathBuf};

use url::Url;

use super::directories;
use crate::secret::Secret;

pub use client::Hub;
pub use error::HubError;

/// The public hub.
const ENDPOINT: &str = "https://huggingface.co";
/// The longest token file that is read, in bytes.
const MAX_TOKEN_BYTES: u64 = 4_096;

/// Which hub, and where its files go.
#[derive(Debug, Clone)]
pub struct HubOptions {
    /// Base of its routes.
    pub endpoint: Url,
    /// The cache, which may not exist yet.
    pub cache: PathBuf,
    /// Shown to the hub.
    pub token: Option<Secret>,
    /// Whether nothing may be fetched.
    pub offline: bool,
}

impl HubOptions {
    /// As the environment of this process says.
    ///
    /// # Errors
    /// [`HubError::Endpoint`] or [`HubError::NoCache`].
    pub fn from_environment() -> Result<Self, HubError> {
        let set = |name: &str| env::var(name).ok().filter(|value| !value.trim().is_empty());
        let text = set("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned());
        let endpoint = Url::parse(&text)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or(HubError::Endpoint(text))?;
        let offline = set("HF_HUB_OFFLINE").or_else(|| set("TRANSFORMERS_OFFLINE"));
        Ok(Self {
            endpoint,
            cache: directories::hub_cache().ok_or(HubError::NoCache)?,
            token: set("HF_TOKEN").or_else(token_of_file).map(Secret::new),
            offline: offline.is_some_and(|value| is_true(&value)),
        })
    }
}

/// As the `huggingface_hub` package reads its switches.
fn is_true(value: &str) -> bool {
    ["1", "on", "yes", "true"].contains(&value.trim().to_ascii_lowercase().as_str())
}

/// The token that `hf auth login` left.
fn token_of_file() -> Option<String> {
    let path = env::var_os("HF_TOKEN_PATH")
        .map(PathBuf::from)
        .or_else(|| Some(directories::hub_home()?.join("token")))?;
    let mut token = String::new();
    fs::File::open(path)
        .ok()?
        .take(MAX_TOKEN_BYTES)
        .read_to_string(&mut token)
        .ok()?;
    let token = token.trim().to_owned();
    (!token.is_empty()).then_some(token)
}

/// A model that is whole in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// The commit that the revision names.
    pub commit: String,
    /// Where its files are.
    pub directory: PathBuf,
    /// How many.
    pub files: usize,
    /// Bytes of all of them.
    pub bytes: u64,
    /// Bytes that came over the network.
    pub fetched_bytes: u64,
}

/// Told what happens while a model is fetched.
pub trait PullProgress: Send + Sync {
    /// A file of `size` bytes begins, or goes on at `position`.
    fn begin(&self, file: &str, size: u64, position: u64);
    /// So many bytes of it are there.
    fn position(&self, file: &str, position: u64);
    /// It is whole. `fetched` is false if it was there already.
    fn end(&self, file: &str, fetched: bool);
    /// Something that a person wants to know.
    fn note(&self, text: &str);
}
