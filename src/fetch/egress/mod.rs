//! Which addresses the service may connect to when it fetches something for a user.
//!
//! A user names hosts, and the service sits where the user does not: beside databases, metadata
//! endpoints and other people's services. So a connection is made only to public unicast addresses
//! and to what the operator allowed. Checking the host name alone would be worthless, since any name
//! may lead to any address, and may lead elsewhere a second later. The policy is therefore enforced
//! where addresses come from: in the resolver that the HTTP client connects with ([`EgressResolver`]),
//! and on every URL before it is requested ([`Egress::check`]), because a client connects to an
//! address written into a URL without asking its resolver. Whoever follows redirects has to do both
//! again at each hop.
//!
//! Absent on purpose: proxies. A proxy resolves names out of our sight, so clients built for fetching
//! ignore the proxy settings of the environment.

mod address;
mod allow;
#[cfg(test)]
mod tests;

use std::{
    error::Error as StdError,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

pub use self::address::is_public;
use self::allow::Allowed;

/// Why a URL may not be fetched. `Display` names the host the user gave and never an address, lest
/// answers map the operator's network; the address is in the source, for the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EgressError {
    /// The URL is of a scheme that is not fetched from.
    #[error("URLs of the scheme {scheme:?} are not fetched, only http and https")]
    Scheme {
        /// The scheme, such as `ftp`.
        scheme: String,
    },
    /// The URL has no host.
    #[error("the URL names no host")]
    NoHost,
    /// The host leads to forbidden addresses and to no other.
    #[error("{host} leads to an address that is not public; the operator can allow it with egress.allow")]
    Forbidden {
        /// Host as it was given.
        host: String,
        /// One of its addresses.
        source: ForbiddenAddress,
    },
}

/// An address that the policy refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a public address")]
pub struct ForbiddenAddress(pub IpAddr);

/// An entry of the operator's list that has no known form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "egress.allow[{index}] must be a CIDR block, an IP address, a host name or '*.domain', the last three \
     with or without ':port', is {entry:?}"
)]
pub struct AllowListError {
    /// Its position, from 0.
    pub index: usize,
    /// The entry.
    pub entry: String,
}

/// The policy: public addresses, and those that the operator allowed. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Egress {
    allowed: Arc<[Allowed]>,
}

impl Egress {
    /// Public addresses alone.
    pub fn public_only() -> Self {
        Self::default()
    }

    /// Reads the operator's list. An entry is a CIDR block, an IP address, a host name or `*.` and a
    /// domain (its subdomains, not itself); all but blocks may end in `:port`, which limits them to it.
    ///
    /// # Errors
    /// [`AllowListError`] with the first entry that has none of these forms.
    pub fn parse(entries: &[String]) -> Result<Self, AllowListError> {
        let allowed = entries
            .iter()
            .enumerate()
            .map(|(index, entry)| {
                Allowed::parse(entry).ok_or_else(|| AllowListError {
                    index,
                    entry: entry.clone(),
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { allowed })
    }

    /// This policy plus the host and port of `url`, for a URL that the operator configured. A URL
    /// without a host adds nothing.
    pub fn with_origin(&self, url: &Url) -> Self {
        let origin = url
            .host()
            .map(|host| Allowed::origin(host, url.port_or_known_default()));
        Self {
            allowed: self.allowed.iter().cloned().chain(origin).collect(),
        }
    }

    /// Checks a URL before it is requested: its scheme, and the address where its host is one.
    ///
    /// A host name passes; [`EgressResolver`] decides on it once its addresses are known.
    ///
    /// # Errors
    /// [`EgressError`], each of its kinds.
    pub fn check(&self, url: &Url) -> Result<(), EgressError> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(EgressError::Scheme {
                scheme: url.scheme().to_owned(),
            });
        }
        let (text, address) = match url.host() {
            None => return Err(EgressError::NoHost),
            Some(Host::Domain(_)) => return Ok(()),
            Some(Host::Ipv4(address)) => (address.to_string(), IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => (format!("[{address}]"), IpAddr::V6(address)),
        };
        self.permit(&text, url.port_or_known_default(), [address])
            .map(|_| ())
    }

    /// Keeps those of a host's `addresses` that may be connected to, in their order.
    ///
    /// `port` is the port that will be connected to; entries that are limited to a port match no
    /// unknown one.
    ///
    /// # Errors
    /// [`EgressError::Forbidden`] when there are addresses and none may be connected to.
    pub fn permit(
        &self,
        host: &str,
        port: Option<u16>,
        addresses: impl IntoIterator<Item = IpAddr>,
    ) -> Result<Vec<IpAddr>, EgressError> {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let (permitted, refused): (Vec<IpAddr>, Vec<IpAddr>) = addresses.into_iter().partition(|address| {
            is_public(*address)
                || self
                    .allowed
                    .iter()
                    .any(|allowed| allowed.matches(&host, *address, port))
        });
        match (permitted.is_empty(), refused.first()) {
            (true, Some(address)) => Err(EgressError::Forbidden {
                host,
                source: ForbiddenAddress(*address),
            }),
            (true, None) | (false, _) => Ok(permitted),
        }
    }

    /// The resolver for an HTTP client that connects to `port`, or to any port when that is `None`;
    /// then entries that are limited to a port do not apply to host names.
    pub fn resolver(&self, port: Option<u16>) -> Arc<EgressResolver> {
        self.resolver_over(port, Arc::new(SystemResolver))
    }

    /// As [`Egress::resolver`], with names resolved by `names` in place of the system's resolver.
    pub fn resolver_over(&self, port: Option<u16>, names: Arc<dyn Resolve>) -> Arc<EgressResolver> {
        Arc::new(EgressResolver {
            egress: self.clone(),
            port,
            names,
        })
    }
}

/// Resolves names as the system does. Its errors are those of the system's resolver.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let found: Addrs = Box::new(found.into_iter());
            Ok(found)
        })
    }
}

/// Resolves names and hands out permitted addresses alone.
///
/// The addresses it returns are the ones connected to, so a name that changes between a check and the
/// connection gains nothing. A refused name fails with an [`EgressError`] that [`refusal`] finds.
#[derive(Clone)]
pub struct EgressResolver {
    egress: Egress,
    port: Option<u16>,
    names: Arc<dyn Resolve>,
}

impl fmt::Debug for EgressResolver {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("EgressResolver")
            .field("egress", &self.egress)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

impl EgressResolver {
    /// The permitted addresses of `name`, with port 0.
    ///
    /// # Errors
    /// An [`EgressError`], or that of the resolver of names.
    async fn lookup(self, name: Name) -> Result<Addrs, Box<dyn StdError + Send + Sync>> {
        let host = name.as_str().to_owned();
        let found = self.names.resolve(name).await?.map(|address| address.ip());
        let permitted = self.egress.permit(&host, self.port, found)?;
        Ok(Box::new(
            permitted.into_iter().map(|address| SocketAddr::new(address, 0)),
        ))
    }
}

impl Resolve for EgressResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(self.clone().lookup(name))
    }
}

/// The refusal among the causes of a failed request, if the policy made it fail.
pub fn refusal<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a EgressError> {
    std::iter::successors(Some(error), |error| (**error).source()).find_map(|error| error.downcast_ref())
}
