//! Tokens of GitHub Apps: what opens one private repository, for an hour at most.
//!
//! An App proves itself with a JWT that its private key signs, finds its installation on the repository and
//! has a token made that reads this repository and nothing else. A token is kept until shortly before it
//! expires; whoever asks for one that is being made waits for it.
//!
//! Invariant: tokens and JWTs go to the origin of `api_url` alone, and no redirect is followed.

mod api;
mod jwt;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sha2::{Digest, Sha256};
use tokio::time::Instant;
use url::Url;

use self::api::Api;
use super::{egress::Egress, error::FetchError};
use crate::{
    domain::source::{GithubAppId, RepositoryName},
    secret::Secret,
};

/// A token that expires sooner is not used any more. A fetch sends it in its first seconds.
const MARGIN: Duration = Duration::from_secs(300);
/// The most tokens that are kept.
const MAX_TOKENS: usize = 1_024;

/// How GitHub's API is reached.
#[derive(Debug, Clone)]
pub struct GithubAppOptions {
    /// Where it is: `https://api.github.com`, or `https://HOST/api/v3` of a GitHub Enterprise Server.
    pub api_url: Url,
    /// Which addresses may be connected to, beside the origin of `api_url`.
    pub egress: Egress,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long one request may take.
    pub timeout: Duration,
}

impl GithubAppOptions {
    /// 20 seconds to connect, 30 for a request, public addresses.
    pub fn new(api_url: Url) -> Self {
        Self {
            api_url,
            egress: Egress::public_only(),
            connect_timeout: Duration::from_secs(20),
            timeout: Duration::from_secs(30),
        }
    }
}

/// An App that wants to read one repository.
#[derive(Debug, Clone, Copy)]
pub struct AppAccess<'a> {
    /// Its id.
    pub app_id: &'a GithubAppId,
    /// Its private key, a PEM file.
    pub private_key: &'a Secret,
    /// Which repository.
    pub repository: &'a RepositoryName,
}

/// What tokens are kept by: a digest of App, private key and repository.
type Place = [u8; 32];
/// A token, or the place of one. Who holds the lock makes it.
type Slot = Arc<tokio::sync::Mutex<Option<Token>>>;

/// A token and how long it may be used.
struct Token {
    text: Secret,
    usable_until: Instant,
}

/// Makes and keeps tokens. Clones share them.
#[derive(Clone)]
pub struct GithubApps(Arc<Inner>);

struct Inner {
    api: Api,
    tokens: Mutex<HashMap<Place, Slot>>,
}

impl fmt::Debug for GithubApps {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("GithubApps")
    }
}

impl GithubApps {
    /// Without any token yet.
    ///
    /// # Errors
    /// [`FetchError::Internal`] when no HTTP client can be made.
    pub fn new(options: GithubAppOptions) -> Result<Self, FetchError> {
        Ok(Self(Arc::new(Inner {
            api: Api::new(options)?,
            tokens: Mutex::default(),
        })))
    }

    /// A token that reads the repository.
    ///
    /// # Errors
    /// [`FetchError`]: the App has no access, is refused or suspended, the repository was renamed, GitHub limits
    /// our requests or is away.
    pub async fn token(&self, access: AppAccess<'_>) -> Result<Secret, FetchError> {
        let slot = self.slot(place(access));
        let mut slot = slot.lock().await;
        if let Some(token) = slot.as_ref().filter(|token| token.usable_until > Instant::now()) {
            return Ok(token.text.clone());
        }
        *slot = None;
        let made = self.0.api.make_token(access).await?;
        // A token that lives shorter than the margin is used this once.
        *slot = made.lifetime.checked_sub(MARGIN).map(|usable| Token {
            text: made.text.clone(),
            usable_until: Instant::now() + usable,
        });
        Ok(made.text)
    }

    /// Keeps `token` no longer: the host refused it.
    pub async fn forget(&self, access: AppAccess<'_>, token: &Secret) {
        let slot = self.slot(place(access));
        let mut slot = slot.lock().await;
        if slot.as_ref().is_some_and(|kept| kept.text == *token) {
            *slot = None;
        }
    }

    fn slot(&self, place: Place) -> Slot {
        let mut tokens = self.0.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        if tokens.len() >= MAX_TOKENS && !tokens.contains_key(&place) {
            drop_some(&mut tokens);
        }
        Arc::clone(tokens.entry(place).or_default())
    }
}

/// Drops what has expired or is empty, and when that is nothing, half of what nobody waits for.
fn drop_some(tokens: &mut HashMap<Place, Slot>) {
    let before = tokens.len();
    let now = Instant::now();
    // A slot that is locked is about to be filled.
    let usable_until = |slot: &Slot| match slot.try_lock() {
        Ok(token) => token.as_ref().map(|token| token.usable_until),
        Err(_) => Some(now + MARGIN),
    };
    tokens.retain(|_, slot| usable_until(slot).is_some_and(|until| until > now));
    if tokens.len() == before {
        let mut keep = false;
        tokens.retain(|_, slot| {
            keep = !keep;
            keep || Arc::strong_count(slot) > 1
        });
    }
}

fn place(access: AppAccess<'_>) -> Place {
    let AppAccess {
        app_id,
        private_key,
        repository,
    } = access;
    Sha256::new()
        .chain_update(app_id.as_str())
        .chain_update([0])
        .chain_update(private_key.expose())
        .chain_update([0])
        // GitHub compares owner and name without regard to case.
        .chain_update(repository.as_str().to_ascii_lowercase())
        .finalize()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(usable_until: Option<Instant>) -> Slot {
        let token = usable_until.map(|usable_until| Token {
            text: Secret::new("token"),
            usable_until,
        });
        Arc::new(tokio::sync::Mutex::new(token))
    }

    #[test]
    fn a_full_cache_drops_what_has_expired_first_and_never_what_is_waited_for() {
        let now = Instant::now();
        let later = Some(now + Duration::from_secs(60));
        let mut tokens: HashMap<Place, Slot> = HashMap::new();
        tokens.insert([1; 32], slot(later));
        tokens.insert([2; 32], slot(Some(now)));
        tokens.insert([3; 32], slot(None));
        drop_some(&mut tokens);
        assert_eq!(tokens.keys().collect::<Vec<_>>(), [&[1; 32]]);

        let waited_for = slot(later);
        tokens.insert([4; 32], Arc::clone(&waited_for));
        for number in 10..20 {
            tokens.insert([number; 32], slot(later));
        }
        drop_some(&mut tokens);
        assert!((6..=7).contains(&tokens.len()), "{}", tokens.len());
        assert!(tokens.contains_key(&[4; 32]));
    }
}
