//! Which IP addresses are public.
//!
//! Source: the IANA special-purpose address registries for IPv4 and IPv6; what they do not mark as
//! globally reachable is not public, nor is multicast.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether `address` is a globally reachable unicast address.
///
/// Forms that carry an IPv4 address (mapped `::ffff:0:0/96` and NAT64 `64:ff9b::/96`) are judged by
/// the address they carry, since a connection ends there.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let special = match address.octets() {
        // This network, private, loopback, link-local (metadata services live there).
        [0 | 10 | 127, ..] | [169, 254, ..] | [192, 168, ..] => true,
        [172, second, ..] => (16..=31).contains(&second),
        // Shared address space of carriers.
        [100, second, ..] => (64..=127).contains(&second),
        // Protocol assignments, documentation, the retired 6to4 relays.
        [192, 0, 0 | 2, _] | [192, 88, 99, _] | [198, 51, 100, _] | [203, 0, 113, _] => true,
        // Benchmarks.
        [198, 18 | 19, ..] => true,
        // Multicast, reserved, broadcast.
        [224..=255, ..] => true,
        _ => false,
    };
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    match address.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            let [a, b] = high.to_be_bytes();
            let [c, d] = low.to_be_bytes();
            is_public_v4(Ipv4Addr::new(a, b, c, d))
        }
        // Protocol assignments with Teredo, documentation, 6to4, documentation again: all inside the
        // one block that is assigned for global unicast.
        [0x2001, second, ..] => second >= 0x0200 && second != 0x0db8,
        [0x2002, ..] => false,
        [0x3fff, second, ..] => second >= 0x1000,
        // 2000::/3 is global unicast; outside of it lie loopback, unspecified, unique local,
        // link-local, site-local, multicast and all that is not assigned.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}
