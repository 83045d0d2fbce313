// SPDX-License-Identifier: Apache-2.0
//! Where connections to upstreams may go. Names come from configuration alone, but what they resolve to is up to others; so each
//! address is looked at between the resolution and the connection, which then goes to that address and no other.
//!
//! An address that carries another one, as translators and tunnels have it, is judged by what it carries.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use tower_service::Service;

/// What may be written.
pub const ADDRESSES_HELP: &str =
    "write \"public\", \"private\", \"loopback\", \"link-local\", or a range such as \"10.1.0.0/16\"";

/// The addresses that are allowed.
#[derive(Debug, Clone)]
pub struct Addresses(Arc<[Allowed]>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Allowed {
    Of(Class),
    Range { network: u128, bits: u32 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Public,
    Private,
    Loopback,
    LinkLocal,
    /// Nobody's, everybody's, or for examples: allowed only by a range.
    Reserved,
}

impl Addresses {
    /// Reads what an operator has written; the error says what is wrong with it.
    pub fn parse(written: &[String]) -> Result<Self, String> {
        let allowed = written.iter().map(|text| match text.as_str() {
            "public" => Ok(Allowed::Of(Class::Public)),
            "private" => Ok(Allowed::Of(Class::Private)),
            "loopback" => Ok(Allowed::Of(Class::Loopback)),
            "link-local" => Ok(Allowed::Of(Class::LinkLocal)),
            range => parse_range(range).ok_or_else(|| format!("{range:?} is no range of addresses")),
        });
        Ok(Self(allowed.collect::<Result<_, _>>()?))
    }

    /// Whether connections may be made to this address.
    pub fn allow(&self, address: IpAddr) -> bool {
        let (plain, class) = judged(address);
        self.0.iter().any(|allowed| match *allowed {
            Allowed::Of(of) => of == class,
            Allowed::Range { network, bits } => is_in(plain, network, bits),
        })
    }
}

/// Resolves names to those of their addresses that are allowed.
#[derive(Clone)]
pub(super) struct Resolver {
    allowed: Addresses,
    names: GaiResolver,
}

impl Resolver {
    pub(super) fn new(allowed: Addresses) -> Self {
        Self { allowed, names: GaiResolver::new() }
    }

    /// Refuses a host that is an address and is not allowed: such a one is not resolved.
    pub(super) fn admit(&self, host: &str) -> Result<(), String> {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        match bare.parse() {
            Ok(address) if !self.allowed.allow(address) => Err(refusal(host)),
            _ => Ok(()),
        }
    }
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.names.poll_ready(cx)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (found, allowed, host) = (self.names.call(name.clone()), self.allowed.clone(), name);
        Box::pin(async move {
            let found: Vec<_> = found.await?.collect();
            let may_be: Vec<_> = found.iter().copied().filter(|address| allowed.allow(address.ip())).collect();
            if may_be.is_empty() && !found.is_empty() {
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, refusal(host.as_str())));
            }
            Ok(may_be.into_iter())
        })
    }
}

/// The address itself is not told: the text may reach logs of others than those who run the network.
fn refusal(host: &str) -> String {
    format!("{host} is at an address that limits.upstream_addresses does not allow")
}

/// The address that counts, in the form of version 6, and what it is.
fn judged(address: IpAddr) -> (u128, Class) {
    match address {
        IpAddr::V4(address) => (mapped(address), of_v4(address)),
        IpAddr::V6(address) => match carried(address) {
            Some(inner) => (mapped(inner), of_v4(inner)),
            None => (address.to_bits(), of_v6(address)),
        },
    }
}

fn mapped(address: Ipv4Addr) -> u128 {
    address.to_ipv6_mapped().to_bits()
}

/// The address of version 4 within one of version 6: mapped and compatible (RFC 4291), translated (RFC 2765, 6052, 8215), 6to4
/// (RFC 3056), Teredo (RFC 4380), ISATAP (RFC 5214).
fn carried(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let segments = address.segments();
    let (head, last) = (&segments[..6], Ipv4Addr::from_bits((address.to_bits() & 0xffff_ffff) as u32));
    let from = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match head {
        [0, 0, 0, 0, 0, 0xffff] | [0, 0, 0, 0, 0xffff, 0] | [0x64, 0xff9b, 0, 0, 0, 0] | [0x64, 0xff9b, 1, ..] => {
            Some(last)
        }
        [0, 0, 0, 0, 0, 0] if address.to_bits() > 1 => Some(last),
        [0x2002, high, low, ..] => Some(from(*high, *low)),
        [0x2001, 0, ..] => Some(Ipv4Addr::from_bits(!last.to_bits())),
        [.., 0 | 0x200, 0x5efe] => Some(last),
        _ => None,
    }
}

fn of_v4(address: Ipv4Addr) -> Class {
    let bits = address.to_bits();
    let is_in = |network: [u8; 4], length: u32| bits >> (32 - length) == u32::from_be_bytes(network) >> (32 - length);
    if address.is_loopback() {
        Class::Loopback
    } else if address.is_link_local() {
        Class::LinkLocal
    } else if address.is_private() || is_in([100, 64, 0, 0], 10) {
        Class::Private
    } else if is_in([0, 0, 0, 0], 8)
        || is_in([192, 0, 0, 0], 24)
        || is_in([192, 88, 99, 0], 24)
        || is_in([198, 18, 0, 0], 15)
        || is_in([224, 0, 0, 0], 3)
        || address.is_documentation()
    {
        Class::Reserved
    } else {
        Class::Public
    }
}

fn of_v6(address: Ipv6Addr) -> Class {
    let first = address.segments()[0];
    match first {
        _ if address.is_loopback() => Class::Loopback,
        _ if first & 0xffc0 == 0xfe80 => Class::LinkLocal,
        _ if first & 0xfe00 == 0xfc00 => Class::Private,
        0x2001 if matches!(address.segments()[1], 0xdb8 | 0x2 | 0x10..=0x2f) => Class::Reserved,
        // Only this eighth of all addresses has been given out as global ones (RFC 4291 section 2.4).
        _ if first & 0xe000 == 0x2000 && first & 0xfff0 != 0x3ff0 => Class::Public,
        _ => Class::Reserved,
    }
}

fn parse_range(text: &str) -> Option<Allowed> {
    let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
    let (network, most, above) = match address.parse().ok()? {
        IpAddr::V4(address) => (mapped(address), 32, 96),
        IpAddr::V6(address) => (address.to_bits(), 128, 0),
    };
    let bits = bits.map_or(Some(most), |bits| bits.parse().ok().filter(|bits| *bits <= most))?;
    Some(Allowed::Range { network, bits: bits + above })
}

fn is_in(address: u128, network: u128, bits: u32) -> bool {
    (address ^ network).checked_shr(128 - bits).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allow(written: &[&str], address: &str) -> bool {
        let written: Vec<_> = written.iter().map(|text| (*text).to_owned()).collect();
        Addresses::parse(&written).unwrap().allow(address.parse().unwrap())
    }

    #[test]
    fn an_address_is_judged_by_what_it_is_or_carries() {
        let cases: &[(&str, &[&str])] = &[
            (
                "public",
                &["8.8.8.8", "2606:4700::1", "64:ff9b::808:808", "::ffff:8.8.8.8", "2002:808:808::1", "172.32.0.1"],
            ),
            (
                "private",
                &[
                    "10.0.0.1",
                    "172.16.0.1",
                    "172.31.255.255",
                    "192.168.1.1",
                    "100.64.0.1",
                    "100.127.255.255",
                    "fc00::1",
                    "fdff::1",
                    "::ffff:10.0.0.1",
                    "64:ff9b::a00:1",
                    "64:ff9b:1::a00:1",
                    "2002:a00:1::",
                    "::10.0.0.1",
                    "::ffff:0:10.0.0.1",
                    "2606:4700::5efe:10.0.0.1",
                    "2606:4700::200:5efe:10.0.0.1",
                ],
            ),
            (
                "loopback",
                &[
                    "127.0.0.1",
                    "127.255.255.254",
                    "::1",
                    "::ffff:127.0.0.1",
                    "64:ff9b::7f00:1",
                    "2002:7f00:1::1",
                    "2001:0:1::80ff:fffe",
                ],
            ),
            ("link-local", &["169.254.169.254", "fe80::1", "febf::1", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe"]),
            (
                "",
                &[
                    "0.0.0.0",
                    "0.1.2.3",
                    "255.255.255.255",
                    "224.0.0.1",
                    "240.0.0.1",
                    "192.0.2.1",
                    "198.18.0.1",
                    "::",
                    "fec0::1",
                    "ff02::1",
                    "2001:db8::1",
                    "::ffff:0.0.0.0",
                    "4000::1",
                    "5f00::1",
                    "3fff::1",
                    "100::1",
                ],
            ),
        ];
        for (class, addresses) in cases {
            for address in *addresses {
                for of in ["public", "private", "loopback", "link-local"] {
                    assert_eq!(allow(&[of], address), of == *class, "{address} as {of}");
                }
            }
        }
    }

    #[test]
    fn a_range_allows_what_is_in_it_however_it_is_spelled() {
        for (address, allowed) in
            [("10.1.2.3", true), ("::ffff:10.1.2.3", true), ("10.2.0.0", false), ("fec0::9", true), ("fec1::9", false)]
        {
            assert_eq!(allow(&["10.1.0.0/16", "fec0::/16"], address), allowed, "{address}");
        }
        assert!(allow(&["0.0.0.0/0"], "1.1.1.1") && !allow(&["0.0.0.0/0"], "2606::1") && allow(&["::/0"], "0.0.0.0"));
        assert!(!allow(&[], "8.8.8.8"));
        for wrong in ["", "all", "10.0.0.0/33", "10.0.0/8", "::/129", "10.0.0.0/", "10.0.0.0/-1"] {
            assert!(Addresses::parse(&[wrong.to_owned()]).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_name_leads_only_to_what_is_allowed() {
        let resolve = async |written: &str, name: &str| {
            let mut resolver = Resolver::new(Addresses::parse(&[written.to_owned()]).unwrap());
            resolver.call(name.parse().unwrap()).await.map(|addresses| addresses.count())
        };
        assert!(resolve("loopback", "localhost").await.unwrap() > 0);
        for name in ["localhost", "127.1", "2130706433", "0x7f.1", "0177.0.0.1", "127.0.0.1"] {
            let error = resolve("public", name).await.unwrap_err().to_string();
            assert!(error.contains("upstream_addresses"), "{name}: {error}");
        }
        let resolver = Resolver::new(Addresses::parse(&["public".to_owned()]).unwrap());
        for host in ["127.0.0.1", "[::1]", "[::ffff:169.254.169.254]", "0.0.0.0"] {
            assert!(resolver.admit(host).is_err(), "{host}");
        }
        assert!(resolver.admit("8.8.8.8").is_ok() && resolver.admit("localhost").is_ok(), "a name is resolved first");
    }
}
