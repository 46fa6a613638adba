#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

/// The special-purpose IPv4 blocks of the IANA registry, and multicast.
const SPECIAL_V4: &[(&str, u32)] = &[
    ("0.0.0.0", 8),
    ("10.0.0.0", 8),
    ("100.64.0.0", 10),
    ("127.0.0.0", 8),
    ("169.254.0.0", 16),
    ("172.16.0.0", 12),
    ("192.0.0.0", 24),
    ("192.0.2.0", 24),
    ("192.88.99.0", 24),
    ("192.168.0.0", 16),
    ("198.18.0.0", 15),
    ("198.51.100.0", 24),
    ("203.0.113.0", 24),
    ("224.0.0.0", 4),
    ("240.0.0.0", 4),
];

/// Special-purpose IPv6 blocks that lie in no reserved space around 2000::/3.
const SPECIAL_V6: &[(&str, u32)] = &[
    ("::", 128),
    ("::1", 128),
    ("100::", 64),
    ("64:ff9b:1::", 48),
    ("2001::", 23),
    ("2001:db8::", 32),
    ("2002::", 16),
    ("3fff::", 20),
    ("5f00::", 16),
    ("fc00::", 7),
    ("fe80::", 10),
    ("fec0::", 10),
    ("ff00::", 8),
];

fn in_block_v4(address: u32, block: &(&str, u32)) -> bool {
    let network = u32::from(block.0.parse::<Ipv4Addr>().unwrap());
    (address ^ network).leading_zeros() >= block.1
}

fn in_block_v6(address: u128, block: &(&str, u32)) -> bool {
    let network = u128::from(block.0.parse::<Ipv6Addr>().unwrap());
    (address ^ network).leading_zeros() >= block.1
}

fn egress(entries: &[&str]) -> Egress {
    let entries: Vec<String> = entries.iter().map(|entry| (*entry).to_owned()).collect();
    Egress::parse(&entries).unwrap()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn url(text: &str) -> Url {
    Url::parse(text).unwrap()
}

#[test]
fn the_addresses_that_attacks_use_are_not_public() {
    for text in [
        "127.0.0.1",
        "127.255.255.254",
        "0.0.0.0",
        "10.1.2.3",
        "172.31.0.1",
        "192.168.1.1",
        "100.100.100.200",
        "169.254.169.254",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fd00:ec2::254",
        "fe80::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::127.0.0.1",
        "64:ff9b::10.0.0.1",
        "2002:7f00:1::",
        "2001:0:7f00:1::",
    ] {
        assert!(!is_public(address(text)), "{text}");
    }
}

#[test]
fn ordinary_hosts_are_public() {
    for text in [
        "1.1.1.1",
        "140.82.121.4",
        "172.15.255.255",
        "172.32.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "198.17.255.255",
        "198.20.0.0",
        "223.255.255.255",
        "2606:50c0:8000::153",
        "2a00:1450:4001::200e",
        "2001:200::1",
        "::ffff:140.82.121.4",
        "64:ff9b::140.82.121.4",
    ] {
        assert!(is_public(address(text)), "{text}");
    }
}

proptest! {
    #[test]
    fn an_ipv4_address_is_public_exactly_outside_the_special_blocks(bits: u32) {
        let special = SPECIAL_V4.iter().any(|block| in_block_v4(bits, block));
        prop_assert_eq!(is_public(IpAddr::V4(bits.into())), !special);
    }

    #[test]
    fn the_edges_of_special_ipv4_blocks_are_exact(index in 0..SPECIAL_V4.len()) {
        let (network, prefix) = SPECIAL_V4[index];
        let first = u32::from(network.parse::<Ipv4Addr>().unwrap());
        let last = first | u32::MAX.checked_shr(prefix).unwrap_or(0);
        for bits in [first.wrapping_sub(1), first, last, last.wrapping_add(1)] {
            let special = SPECIAL_V4.iter().any(|block| in_block_v4(bits, block));
            prop_assert_eq!(is_public(IpAddr::V4(bits.into())), !special, "{}", Ipv4Addr::from(bits));
        }
    }

    #[test]
    fn a_mapped_address_is_judged_as_the_one_it_carries(bits: u32) {
        let carried = Ipv4Addr::from(bits);
        prop_assert_eq!(is_public(carried.to_ipv6_mapped().into()), is_public(carried.into()));
    }

    #[test]
    fn no_address_of_a_special_ipv6_block_is_public(bits: u128, index in 0..SPECIAL_V6.len()) {
        let (network, prefix) = SPECIAL_V6[index];
        let network = u128::from(network.parse::<Ipv6Addr>().unwrap());
        let inside = network | bits.checked_shr(prefix).unwrap_or(0);
        prop_assert!(!is_public(IpAddr::V6(inside.into())), "{}", Ipv6Addr::from(inside));
    }

    #[test]
    fn a_global_unicast_ipv6_address_is_public_exactly_outside_the_special_blocks(bits: u128) {
        let unicast = 0x2000_u128 << 112 | bits >> 3;
        let special = SPECIAL_V6.iter().any(|block| in_block_v6(unicast, block));
        prop_assert_eq!(is_public(IpAddr::V6(unicast.into())), !special, "{}", Ipv6Addr::from(unicast));
    }

    #[test]
    fn a_block_allows_exactly_its_addresses(bits: u32, other: u32, prefix in 0_u32..=32) {
        let policy = egress(&[&format!("{}/{prefix}", Ipv4Addr::from(bits))]);
        let inside = (bits ^ other).leading_zeros() >= prefix;
        let candidate = IpAddr::V4(other.into());
        let permitted = policy.permit("host", None, [candidate]).is_ok();
        prop_assert_eq!(permitted, inside || is_public(candidate));
    }

    #[test]
    fn any_entry_is_read_or_refused_without_a_panic(entry in ".{0,40}") {
        let _ = Egress::parse(&[entry]);
    }
}

#[test]
fn entries_of_every_form_are_read() {
    let forms = [
        "10.0.0.0/8",
        "fd00::/8",
        "10.0.0.1",
        "10.0.0.1:80",
        "::1",
        "[::1]",
        "[::1]:80",
        "git.internal",
        "git.internal:3000",
        "*.corp.example",
        "*.corp.example:443",
        "localhost",
    ];
    let entries: Vec<String> = forms.iter().map(|form| (*form).to_owned()).collect();
    assert!(Egress::parse(&entries).is_ok());
}

#[test]
fn an_entry_without_a_known_form_is_named_by_its_index() {
    for wrong in [
        "",
        "10.0.0.0/33",
        "::/129",
        "a/8",
        "host:",
        "host:70000",
        "*.10.0.0.1",
        "a b",
        "*",
    ] {
        let error = Egress::parse(&["::1".to_owned(), wrong.to_owned()]).unwrap_err();
        assert_eq!(
            error,
            AllowListError {
                index: 1,
                entry: wrong.to_owned()
            }
        );
        assert!(
            error
                .to_string()
                .starts_with("egress.allow[1] must be a CIDR block"),
            "{error}"
        );
    }
}

#[test]
fn a_name_that_leads_inside_and_outside_keeps_the_outside_alone() {
    let found = [
        address("127.0.0.1"),
        address("1.1.1.1"),
        address("10.0.0.1"),
        address("2606:4700::1111"),
    ];
    let permitted = Egress::public_only()
        .permit("two-faced.example", Some(443), found)
        .unwrap();
    assert_eq!(permitted, [address("1.1.1.1"), address("2606:4700::1111")]);
}

#[test]
fn a_name_that_leads_inside_alone_is_refused_without_showing_the_address() {
    let found = [address("10.0.0.1"), address("::1")];
    let error = Egress::public_only()
        .permit("Lying.Example.", Some(443), found)
        .unwrap_err();
    assert_eq!(
        error,
        EgressError::Forbidden {
            host: "lying.example".to_owned(),
            source: ForbiddenAddress(address("10.0.0.1"))
        }
    );
    assert!(!error.to_string().contains("10.0.0.1"), "{error}");
    assert_eq!(
        error.source().unwrap().to_string(),
        "10.0.0.1 is not a public address"
    );
}

#[test]
fn an_allowed_host_may_lead_inside_but_its_namesakes_may_not() {
    let policy = egress(&["git.internal", "*.corp.example"]);
    let inside = [address("10.0.0.1")];
    for host in [
        "git.internal",
        "GIT.internal",
        "git.internal.",
        "a.corp.example",
        "b.a.corp.example",
    ] {
        assert!(policy.permit(host, None, inside).is_ok(), "{host}");
    }
    for host in [
        "x.git.internal",
        "git.internal.example",
        "corp.example",
        "xcorp.example",
        "internal",
    ] {
        assert!(policy.permit(host, None, inside).is_err(), "{host}");
    }
}

#[test]
fn an_entry_with_a_port_allows_that_port_alone() {
    let policy = egress(&["git.internal:3000", "127.0.0.1:8080"]);
    let inside = [address("10.0.0.1")];
    assert!(policy.permit("git.internal", Some(3000), inside).is_ok());
    assert!(policy.permit("git.internal", Some(3001), inside).is_err());
    assert!(policy.permit("git.internal", None, inside).is_err());
    assert!(policy.check(&url("http://127.0.0.1:8080/a")).is_ok());
    assert!(policy.check(&url("http://127.0.0.1:8081/a")).is_err());
    assert!(policy.check(&url("http://[::ffff:127.0.0.1]:8080/a")).is_ok());
}

#[test]
fn the_origin_of_a_configured_url_is_allowed_with_its_port_alone() {
    let policy = Egress::public_only().with_origin(&url("http://127.0.0.1:3000/git"));
    assert!(policy.check(&url("http://127.0.0.1:3000/other")).is_ok());
    assert!(policy.check(&url("http://127.0.0.1/other")).is_err());
    let policy = Egress::public_only().with_origin(&url("https://git.internal"));
    assert!(
        policy
            .permit("git.internal", Some(443), [address("10.0.0.1")])
            .is_ok()
    );
    assert!(
        policy
            .permit("git.internal", Some(80), [address("10.0.0.1")])
            .is_err()
    );
}

#[test]
fn a_url_is_checked_for_its_scheme_and_for_addresses_however_they_are_written() {
    let policy = Egress::public_only();
    assert!(policy.check(&url("https://example.com/")).is_ok());
    assert!(policy.check(&url("http://1.1.1.1/")).is_ok());
    assert_eq!(
        policy.check(&url("ftp://example.com/")),
        Err(EgressError::Scheme {
            scheme: "ftp".to_owned()
        })
    );
    for text in [
        "http://127.0.0.1/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://0177.0.0.1/",
        "http://[::1]/",
        "http://[::ffff:7f00:1]/",
        "http://169.254.169.254/latest/meta-data/",
    ] {
        assert!(
            matches!(policy.check(&url(text)), Err(EgressError::Forbidden { .. })),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_client_with_the_resolver_does_not_connect_to_a_name_that_leads_to_loopback() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let target = format!("http://localhost:{}/", listener.local_addr().unwrap().port());
    let client = reqwest::Client::builder()
        .no_proxy()
        .dns_resolver(Egress::public_only().resolver(None))
        .build()
        .unwrap();

    let error = client.get(&target).send().await.unwrap_err();

    let refusal = refusal(&error).expect("the policy refused");
    assert!(
        matches!(refusal, EgressError::Forbidden { host, .. } if host == "localhost"),
        "{refusal:?}"
    );
    assert_eq!(
        listener.accept().unwrap_err().kind(),
        std::io::ErrorKind::WouldBlock,
        "nothing connected"
    );
}

#[tokio::test]
async fn a_client_with_the_resolver_connects_to_a_name_that_the_operator_allowed() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let policy = egress(&[&format!("localhost:{port}")]);
    let client = reqwest::Client::builder()
        .no_proxy()
        .dns_resolver(policy.resolver(Some(port)))
        .build()
        .unwrap();

    let request = tokio::spawn(client.get(format!("http://localhost:{port}/")).send());
    let (connection, _) = listener.accept().await.unwrap();
    drop(connection);

    let error = request.await.unwrap().unwrap_err();
    assert!(refusal(&error).is_none(), "{error:?}");
}
