//! Who calls, and what they may do.
//!
//! Every use case takes an [`Auth`] value and asks it, so no path can forget the check. In mode `keys`
//! the token is looked up for each call: a revoked key stops at once, on every node that shares the
//! database. Mode `chroma` is in `identity`.

use std::time::Duration;

use sha2::{Digest, Sha256};

use super::identity::Identities;
use crate::{
    domain::{
        api_key::{ApiKey, Role},
        ids::InvocationId,
        invocation::Invocation,
        names::{DatabaseName, TenantName},
    },
    error::{Error, Reason, Result},
    index::{ChromaClient, Identity},
    secret::Secret,
    store::{Scope, Store},
};

/// Text before the random part of a token, so that secret scanners recognise it.
const TOKEN_PREFIX: &str = "cs-";
/// Longest token that is looked up; a longer one is refused unread.
const MAX_TOKEN_BYTES: usize = 512;
/// What a caller without a token is told where tokens are those of API keys.
const NO_KEY: &str = "no token was sent; send one made with `chroma-sync keys create` as x-chroma-token";

/// A caller whose token was checked.
#[derive(Debug, Clone)]
pub struct Auth {
    tenant: TenantName,
    role: Role,
    databases: Option<Vec<DatabaseName>>,
    credential: Credential,
}

/// What the caller showed.
#[derive(Debug, Clone)]
enum Credential {
    /// The token of an API key, by its digest.
    Key([u8; 32]),
    /// A token of the Chroma server.
    Chroma(Secret),
    /// Nothing.
    None,
}

impl Auth {
    /// The owner of `tenant`, with access to all of its databases.
    pub fn owner(tenant: TenantName) -> Self {
        Self {
            tenant,
            role: Role::Owner,
            databases: None,
            credential: Credential::None,
        }
    }

    fn of_key(key: ApiKey, digest: [u8; 32]) -> Self {
        Self {
            tenant: key.tenant,
            role: key.role,
            databases: key.databases,
            credential: Credential::Key(digest),
        }
    }

    /// Whose resources the caller sees.
    pub fn tenant(&self) -> &TenantName {
        &self.tenant
    }

    /// The token with which the Chroma server is asked and written to for this caller; none for the
    /// service's own.
    pub fn chroma_token(&self) -> Option<&Secret> {
        match &self.credential {
            Credential::Chroma(token) => Some(token),
            Credential::Key(_) | Credential::None => None,
        }
    }

    /// What every listing of this caller starts from.
    pub fn scope(&self) -> Scope {
        Scope {
            tenant: self.tenant.clone(),
            databases: self.databases.clone(),
        }
    }

    /// The caller's tenant, whichever databases its key is bound to: for looking a single thing up, which
    /// [`Auth::require_database`] then allows or refuses.
    pub fn tenant_scope(&self) -> Scope {
        Scope::tenant(self.tenant.clone())
    }

    /// Only owners and admins create and delete sources.
    ///
    /// # Errors
    /// ROLE_INSUFFICIENT.
    pub fn require_administrator(&self, action: &str) -> Result<()> {
        match self.role {
            Role::Owner | Role::Admin => Ok(()),
            Role::Member => Err(Error::new(
                Reason::RoleInsufficient,
                format!("only keys with role owner or admin may {action}; this key has role member"),
            )
            .with_metadata("role", self.role.as_str())),
        }
    }

    /// Tells credentials apart; the same for every call with the same token.
    pub(super) fn fingerprint(&self) -> [u8; 32] {
        match &self.credential {
            Credential::Key(digest) => *digest,
            Credential::Chroma(token) => token_digest(token.expose()),
            Credential::None => [0; 32],
        }
    }

    /// What belongs to the whole tenant is not changed with a key that is bound to some of its databases.
    ///
    /// # Errors
    /// DATABASE_FORBIDDEN.
    pub fn require_all_databases(&self, action: &str) -> Result<()> {
        match &self.databases {
            None => Ok(()),
            Some(_) => Err(Error::new(
                Reason::DatabaseForbidden,
                format!(
                    "only keys for all databases of the tenant may {action}; this key is bound to some of them"
                ),
            )),
        }
    }

    /// A key that is bound to databases reaches no other.
    ///
    /// # Errors
    /// DATABASE_FORBIDDEN.
    pub fn require_database(&self, database: &DatabaseName) -> Result<()> {
        match &self.databases {
            Some(allowed) if !allowed.contains(database) => Err(Error::new(
                Reason::DatabaseForbidden,
                format!("this key is not bound to database {database}"),
            )
            .with_metadata("database_name", database)),
            Some(_) | None => Ok(()),
        }
    }
}

/// Checks tokens.
#[derive(Debug, Clone)]
pub struct Authenticator(Mode);

#[derive(Debug, Clone)]
enum Mode {
    Keys(Store),
    Chroma { identities: Identities, role: Role },
    None,
}

impl Authenticator {
    /// Tokens are those of the API keys in `store`.
    pub fn keys(store: Store) -> Self {
        Self(Mode::Keys(store))
    }

    /// Tokens are those of the Chroma server, whose answers are kept for `keep`. It knows no roles of
    /// ours, so every caller has `role`.
    pub fn chroma(chroma: ChromaClient, role: Role, keep: Duration) -> Self {
        let identities = Identities::new(chroma, keep);
        Self(Mode::Chroma { identities, role })
    }

    /// Every caller is the owner of the default tenant.
    pub fn none() -> Self {
        Self(Mode::None)
    }

    /// Finds out who calls.
    ///
    /// # Errors
    /// TOKEN_MISSING, TOKEN_INVALID, STORE_UNAVAILABLE, CHROMA_UNAVAILABLE.
    pub async fn authenticate(&self, token: Option<&str>) -> Result<Auth> {
        match &self.0 {
            Mode::None => Ok(Auth::owner(TenantName::default_tenant())),
            Mode::Keys(store) => {
                let digest = token_digest(usable(token, NO_KEY)?);
                let key = store.find_api_key(&digest).await?.ok_or_else(invalid_token)?;
                Ok(Auth::of_key(key, digest))
            }
            Mode::Chroma { identities, role } => {
                let missing = "no token was sent; send your token for the Chroma server as x-chroma-token";
                let token = usable(token, missing)?;
                let Identity { tenant, databases } = identities.of(token).await?;
                Ok(Auth {
                    tenant,
                    role: *role,
                    databases,
                    credential: Credential::Chroma(Secret::new(token)),
                })
            }
        }
    }

    /// Finds out who calls, and reads the invocation of the caller's tenant that is asked for: where tokens are
    /// those of API keys, both at once.
    ///
    /// # Errors
    /// Those of [`Authenticator::authenticate`].
    pub(super) async fn authenticate_for(
        &self,
        token: Option<&str>,
        id: InvocationId,
        store: &Store,
    ) -> Result<(Auth, Option<Invocation>)> {
        if let Mode::Keys(store) = &self.0 {
            let digest = token_digest(usable(token, NO_KEY)?);
            let found = store.find_api_key_and_invocation(&digest, id).await?;
            let (key, invocation) = found.ok_or_else(invalid_token)?;
            return Ok((Auth::of_key(key, digest), invocation));
        }
        let auth = self.authenticate(token).await?;
        let invocation = store.get_invocation(&auth.tenant_scope(), id).await?;
        Ok((auth, invocation))
    }

    /// Whether what a caller showed some time ago is still good, for calls that stay open.
    ///
    /// # Errors
    /// TOKEN_INVALID, STORE_UNAVAILABLE, CHROMA_UNAVAILABLE.
    pub async fn check_again(&self, auth: &Auth) -> Result<()> {
        match (&self.0, &auth.credential) {
            (Mode::Keys(store), Credential::Key(digest)) => match store.find_api_key(digest).await? {
                Some(_) => Ok(()),
                None => Err(invalid_token()),
            },
            (Mode::Chroma { identities, .. }, Credential::Chroma(token)) => {
                identities.of(token.expose()).await.map(drop)
            }
            (Mode::None, _) => Ok(()),
            // Shown to a server in another mode.
            (Mode::Keys(_) | Mode::Chroma { .. }, _) => Err(invalid_token()),
        }
    }
}

/// A token that may be looked up.
fn usable<'a>(token: Option<&'a str>, missing: &'static str) -> Result<&'a str> {
    let token = token
        .filter(|token| !token.is_empty())
        .ok_or_else(|| Error::new(Reason::TokenMissing, missing))?;
    if token.len() > MAX_TOKEN_BYTES {
        return Err(invalid_token());
    }
    Ok(token)
}

pub(super) fn invalid_token() -> Error {
    Error::new(Reason::TokenInvalid, "the token is unknown, revoked or expired")
}

/// SHA-256 of a token: the only form in which it is stored and looked up. The lookup goes by an index
/// over digests, so its timing tells nothing about the token.
pub fn token_digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// A new token: `cs-` and 256 random bits as 64 hexadecimal digits.
pub fn generate_token() -> String {
    format!("{TOKEN_PREFIX}{}", hex::encode(rand::random::<[u8; 32]>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(databases: Option<Vec<DatabaseName>>) -> Auth {
        Auth {
            tenant: TenantName::default_tenant(),
            role: Role::Member,
            databases,
            credential: Credential::None,
        }
    }

    #[test]
    fn a_member_may_not_administer() {
        let error = member(None).require_administrator("create sources").unwrap_err();
        assert_eq!(error.reason(), Reason::RoleInsufficient);
        assert!(
            Auth::owner(TenantName::default_tenant())
                .require_administrator("create sources")
                .is_ok()
        );
    }

    #[test]
    fn a_bound_key_reaches_its_databases_alone() {
        let name = |text: &str| DatabaseName::parse("database_name", text).unwrap();
        let bound = member(Some(vec![name("mine")]));
        assert!(bound.require_database(&name("mine")).is_ok());
        assert_eq!(
            bound.require_database(&name("other")).unwrap_err().reason(),
            Reason::DatabaseForbidden
        );
        assert!(member(None).require_database(&name("other")).is_ok());
    }

    #[test]
    fn tokens_are_long_and_never_repeat() {
        let (one, two) = (generate_token(), generate_token());
        assert_eq!(one.len(), 67);
        assert_ne!(one, two);
    }
}
