//! Mode `chroma`: callers show the token that they use with the Chroma server, and the server is asked
//! whose it is.
//!
//! What it says is kept for a short time (`auth.cache_seconds`), so a token that was revoked there stops
//! here after that time at the latest. A refusal is not kept. Tokens are kept as SHA-256 digests. A server
//! that takes any token says nothing about anybody; it is found out before the first caller is let in.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::OnceCell;

use super::auth::{invalid_token, token_digest};
use crate::{
    error::{Error, Reason, Result},
    index::{ChromaClient, Identity, IndexError},
    secret::Secret,
};

/// Identities kept at a time.
const MAX_KEPT: usize = 10_000;

/// Asks the Chroma server who callers are, and remembers its answers.
#[derive(Debug, Clone)]
pub(super) struct Identities(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    chroma: ChromaClient,
    keep: Duration,
    kept: Mutex<HashMap<[u8; 32], Kept>>,
    /// Set once the server was seen to refuse a token that nobody has.
    checks_tokens: OnceCell<()>,
}

#[derive(Debug, Clone)]
struct Kept {
    identity: Identity,
    until: Instant,
}

impl Identities {
    pub(super) fn new(chroma: ChromaClient, keep: Duration) -> Self {
        Self(Arc::new(Inner {
            chroma,
            keep,
            kept: Mutex::default(),
            checks_tokens: OnceCell::new(),
        }))
    }

    /// Whose token this is.
    ///
    /// # Errors
    /// TOKEN_INVALID, CHROMA_UNAVAILABLE.
    pub(super) async fn of(&self, token: &str) -> Result<Identity> {
        let digest = token_digest(token);
        if let Some(identity) = self.kept(&digest) {
            return Ok(identity);
        }
        self.0
            .checks_tokens
            .get_or_try_init(|| self.require_checked_tokens())
            .await?;
        let identity = match self.ask(token).await {
            Ok(identity) => identity,
            Err(IndexError::Unauthorized { .. }) => return Err(invalid_token()),
            Err(error) => return Err(error.into()),
        };
        self.keep(digest, identity.clone());
        Ok(identity)
    }

    async fn ask(&self, token: &str) -> std::result::Result<Identity, IndexError> {
        self.0.chroma.with_token(&Secret::new(token))?.identity().await
    }

    /// A single-node server without a proxy in front of it answers every caller alike.
    async fn require_checked_tokens(&self) -> Result<()> {
        match self.ask(&super::auth::generate_token()).await {
            Err(IndexError::Unauthorized { .. }) => Ok(()),
            Err(error) => Err(error.into()),
            Ok(_) => {
                tracing::error!(
                    "auth.mode is \"chroma\", but the chroma server accepts any token; put it behind something \
                     that checks x-chroma-token, or use mode \"keys\""
                );
                Err(Error::new(
                    Reason::ChromaUnavailable,
                    "the chroma server does not check tokens, so nobody can be identified by one",
                ))
            }
        }
    }

    fn kept(&self, digest: &[u8; 32]) -> Option<Identity> {
        let kept = self.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept.get(digest)?;
        (Instant::now() < found.until).then(|| found.identity.clone())
    }

    fn keep(&self, digest: [u8; 32], identity: Identity) {
        let now = Instant::now();
        let mut kept = self.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MAX_KEPT {
            kept.retain(|_, kept| now < kept.until);
        }
        // Full of live ones: whoever comes next is asked about again.
        if kept.len() < MAX_KEPT {
            let until = now + self.0.keep;
            kept.insert(digest, Kept { identity, until });
        }
    }
}
