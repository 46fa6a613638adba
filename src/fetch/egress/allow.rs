//! One entry of the operator's list.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use url::Host;

/// What an entry allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Allowed {
    /// A host by name, whatever addresses it has.
    Host {
        /// Lowercase, without a final dot.
        name: String,
        /// Whether the names below `name` are meant rather than `name` itself.
        subdomains: bool,
        /// The only port allowed; none allows all.
        port: Option<u16>,
    },
    /// Addresses whose first `prefix` bits are those of `network`.
    Block {
        /// IPv4 addresses are mapped into IPv6, so that both forms of one address match.
        network: Ipv6Addr,
        /// 0 to 128.
        prefix: u32,
        /// The only port allowed; none allows all.
        port: Option<u16>,
    },
}

impl Allowed {
    /// Reads an entry; none when it has no known form.
    pub(super) fn parse(entry: &str) -> Option<Self> {
        if let Some((network, prefix)) = entry.split_once('/') {
            let network: IpAddr = network.parse().ok()?;
            let prefix: u32 = prefix.parse().ok()?;
            let (width, unused) = if network.is_ipv4() { (32, 96) } else { (128, 0) };
            return (prefix <= width).then(|| Self::Block {
                network: mapped(network),
                prefix: prefix + unused,
                port: None,
            });
        }
        if let Ok(address) = entry.parse::<IpAddr>() {
            return Some(Self::address(address, None));
        }
        if let Ok(socket) = entry.parse::<SocketAddr>() {
            return Some(Self::address(socket.ip(), Some(socket.port())));
        }
        let (host, port) = match entry.rsplit_once(':') {
            // The colons of an IPv6 address in brackets are its own.
            Some((host, port)) if !entry.ends_with(']') => (host, Some(port.parse().ok()?)),
            Some(_) | None => (entry, None),
        };
        let (host, subdomains) = match host.strip_prefix("*.") {
            Some(domain) => (domain, true),
            None => (host, false),
        };
        match Host::parse(host).ok()? {
            Host::Domain(name) if !name.bytes().all(is_name_byte) => None,
            Host::Domain(name) => Some(Self::Host {
                name: plain(&name),
                subdomains,
                port,
            }),
            Host::Ipv4(_) | Host::Ipv6(_) if subdomains => None,
            Host::Ipv4(address) => Some(Self::address(address.into(), port)),
            Host::Ipv6(address) => Some(Self::address(address.into(), port)),
        }
    }

    /// Allows exactly the host and port of a URL.
    pub(super) fn origin(host: Host<&str>, port: Option<u16>) -> Self {
        match host {
            Host::Domain(name) => Self::Host {
                name: plain(name),
                subdomains: false,
                port,
            },
            Host::Ipv4(address) => Self::address(address.into(), port),
            Host::Ipv6(address) => Self::address(address.into(), port),
        }
    }

    fn address(address: IpAddr, port: Option<u16>) -> Self {
        Self::Block {
            network: mapped(address),
            prefix: 128,
            port,
        }
    }

    /// Whether the entry allows a connection to `address` at `port`, found under the lowercase `host`.
    pub(super) fn matches(&self, host: &str, address: IpAddr, port: Option<u16>) -> bool {
        let at_port = |only: Option<u16>| only.is_none() || only == port;
        match self {
            Self::Host {
                name,
                subdomains: false,
                port,
            } => at_port(*port) && host == name,
            Self::Host {
                name,
                subdomains: true,
                port,
            } => {
                let below = host
                    .strip_suffix(name.as_str())
                    .and_then(|rest| rest.strip_suffix('.'));
                at_port(*port) && below.is_some_and(|label| !label.is_empty())
            }
            Self::Block {
                network,
                prefix,
                port,
            } => {
                let differing = (u128::from(*network) ^ u128::from(mapped(address))).leading_zeros();
                at_port(*port) && differing >= *prefix
            }
        }
    }
}

fn mapped(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

fn plain(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

/// What names of hosts are made of; the URL standard lets more pass, such as `*`.
fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}
