// SPDX-License-Identifier: Apache-2.0
//! The PROXY protocol, versions 1 and 2 (`proxy-protocol.txt` of HAProxy): a load balancer says, before the first byte of a caller,
//! who the caller is. It is believed from the networks that the operator has named, and asked of them: a connection from there
//! without it is closed, since whoever it is would pass for the load balancer.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::BytesMut;
use tokio::io::AsyncReadExt;

use super::socket::Socket;
use crate::config;

/// Longest header, in bytes: two addresses and some further facts (certificates of callers and such), which are skipped.
const HEADER_BYTES_MAX: usize = 4096;
/// Longest header of version 1, with its line end.
const LINE_BYTES_MAX: usize = 107;
/// What a header of version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family and protocol, length.
const FIXED_BYTES: usize = 16;
/// What a header of version 1 begins with.
const PREFIX: &[u8] = b"PROXY ";

/// Who may say who the caller is.
#[derive(Debug)]
pub(super) struct Balancers {
    networks: Vec<Network>,
    others: bool,
    /// Whoever connects is one: who may open a Unix socket is a matter of the file system.
    all: bool,
}

/// Addresses with the same beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    bits: u32,
}

/// A header, or a part of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// More bytes are needed.
    Partial,
    /// It is as long as this. The caller is the one who is named, if one is: a load balancer may also ask for itself.
    Whole {
        /// Bytes of the header.
        length: usize,
        /// Address of the caller.
        caller: Option<SocketAddr>,
    },
}

impl Balancers {
    /// What an operator has written; `unix` if the listener is a Unix socket.
    pub(super) fn new(written: &config::ProxyProtocol, unix: bool) -> Result<Self, String> {
        let network = |text: &toml::Spanned<String>| Network::parse(text.as_ref());
        let networks: Vec<_> = written.from.iter().map(network).collect::<Result<_, _>>()?;
        if networks.is_empty() && !unix {
            return Err("proxy_protocol: `from` names nobody; write the networks of the load balancers".to_owned());
        }
        Ok(Self { networks, others: written.others, all: unix })
    }

    /// Who has connected: `from`, or whom the header names. Reads no more of the caller than it gives back.
    pub(super) async fn caller(&self, socket: &mut Socket, from: SocketAddr) -> io::Result<SocketAddr> {
        if !self.all && !self.networks.iter().any(|network| network.contains(from.ip())) {
            return if self.others { Ok(from) } else { Err(invalid("PROXY header: not a load balancer")) };
        }
        let mut read = BytesMut::with_capacity(512);
        loop {
            match parse(&read).map_err(invalid)? {
                Header::Whole { length, caller } => {
                    let rest = read.split_off(length);
                    socket.unread(rest.freeze());
                    return Ok(caller.unwrap_or(from));
                }
                Header::Partial if socket.read_buf(&mut read).await? == 0 => {
                    return Err(invalid("PROXY header: the connection has ended in it"));
                }
                Header::Partial => {}
            }
        }
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Reads a header at the beginning of what has come so far.
///
/// # Errors
/// It is none, or too long.
pub fn parse(bytes: &[u8]) -> Result<Header, &'static str> {
    if begins(bytes, SIGNATURE) {
        binary(bytes)
    } else if begins(bytes, PREFIX) {
        line(bytes)
    } else {
        Err("PROXY header: there is none")
    }
}

/// Whether these bytes begin as `start` does, as far as either goes.
fn begins(bytes: &[u8], start: &[u8]) -> bool {
    bytes.iter().zip(start).all(|(one, other)| one == other)
}

/// Version 2.
fn binary(bytes: &[u8]) -> Result<Header, &'static str> {
    let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED_BYTES>() else { return Ok(Header::Partial) };
    let [.., command, family, high, low] = *fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if FIXED_BYTES + length > HEADER_BYTES_MAX {
        return Err("PROXY header: too long");
    }
    let Some(rest) = rest.get(..length) else { return Ok(Header::Partial) };
    let caller = match (command, family) {
        // A load balancer that asks for itself: how we are doing, most of all.
        (0x20, _) => None,
        (0x21, 0x11) => Some(address::<4>(rest)?),
        (0x21, 0x21) => Some(address::<16>(rest)?),
        // Of no known kind, and callers of Unix sockets: accepted, and their address is not known.
        (0x21, 0x00 | 0x31) => None,
        (0x21, _) => return Err("PROXY header: the caller does not come over TCP"),
        _ => return Err("PROXY header: neither LOCAL nor PROXY of version 2"),
    };
    Ok(Header::Whole { length: FIXED_BYTES + length, caller })
}

/// The first of two addresses of `N` bytes, which their ports follow.
fn address<const N: usize>(bytes: &[u8]) -> Result<SocketAddr, &'static str> {
    const SHORT: &str = "PROXY header: shorter than its addresses";
    let (ip, ports) = bytes.split_at_checked(2 * N).ok_or(SHORT)?;
    let ports: &[u8; 4] = ports.first_chunk().ok_or(SHORT)?;
    let ip = match N {
        4 => Ipv4Addr::from(*ip.first_chunk::<4>().ok_or(SHORT)?).into(),
        _ => Ipv6Addr::from(*ip.first_chunk::<16>().ok_or(SHORT)?).to_canonical(),
    };
    Ok(SocketAddr::new(ip, u16::from_be_bytes([ports[0], ports[1]])))
}

/// Version 1: `PROXY TCP4 192.0.2.1 192.0.2.2 4711 443` and a line end.
fn line(bytes: &[u8]) -> Result<Header, &'static str> {
    const BAD: &str = "PROXY header: not a line of version 1";
    let Some(end) = bytes.iter().take(LINE_BYTES_MAX).position(|&byte| byte == b'\n') else {
        return if bytes.len() < LINE_BYTES_MAX { Ok(Header::Partial) } else { Err("PROXY header: too long") };
    };
    let text = bytes[..end].strip_suffix(b"\r").and_then(|text| std::str::from_utf8(text).ok()).ok_or(BAD)?;
    let mut words = text.split(' ').skip(1);
    let mut word = || words.next().ok_or(BAD);
    let family = word()?;
    if family == "UNKNOWN" {
        return Ok(Header::Whole { length: end + 1, caller: None });
    }
    let (caller, listener): (IpAddr, IpAddr) = (ip(family, word()?).ok_or(BAD)?, ip(family, word()?).ok_or(BAD)?);
    let (port, other) = (port(word()?).ok_or(BAD)?, port(word()?).ok_or(BAD)?);
    let _ = (listener, other); // what the caller has connected to there matters to nobody here, but it must be in order
    if words.next().is_some() {
        return Err(BAD);
    }
    Ok(Header::Whole { length: end + 1, caller: Some(SocketAddr::new(caller.to_canonical(), port)) })
}

fn ip(family: &str, text: &str) -> Option<IpAddr> {
    match family {
        "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => None,
    }
}

fn port(text: &str) -> Option<u16> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

impl Network {
    fn parse(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is no network; write `10.0.0.0/8`, `fd00::/8` or one address");
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), str::parse).map_err(|_| bad())?;
        let network = Self { address, bits };
        if bits > most || network.first() != address {
            return Err(bad());
        }
        Ok(network)
    }

    fn contains(self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && Self { address, ..self }.first() == self.address
    }

    /// Its first address.
    fn first(self) -> IpAddr {
        match self.address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32 - self.bits.min(32)).unwrap_or_default();
                Ipv4Addr::from_bits(address.to_bits() & mask).into()
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(128 - self.bits.min(128)).unwrap_or_default();
                Ipv6Addr::from_bits(address.to_bits() & mask).into()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binary(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, body].concat()
    }

    #[test]
    fn a_header_names_the_caller_and_its_own_end() {
        let v4 = [&[192, 0, 2, 1, 192, 0, 2, 2][..], &[0x12, 0x67, 1, 0xbb]].concat();
        let tlv = [&v4[..], &[4, 0, 2, 9, 9]].concat();
        let v6 = [&[0; 15][..], &[1], &[0; 16], &[0, 80, 0, 81]].concat();
        let mapped = [&[0; 10][..], &[255, 255, 10, 0, 0, 1], &[0; 16], &[0, 80, 0, 81]].concat();
        let cases: [(Vec<u8>, Option<&str>); 12] = [
            (binary(0x21, 0x11, &v4), Some("192.0.2.1:4711")),
            (binary(0x21, 0x11, &tlv), Some("192.0.2.1:4711")),
            (binary(0x21, 0x21, &v6), Some("[::1]:80")),
            (binary(0x21, 0x21, &mapped), Some("10.0.0.1:80")),
            (binary(0x20, 0x11, &v4), None),
            (binary(0x20, 0x00, b""), None),
            (binary(0x21, 0x00, b"anything"), None),
            (binary(0x21, 0x31, &[0; 216]), None),
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 443\r\n".to_vec(), Some("192.0.2.1:4711")),
            (b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n".to_vec(), Some("[2001:db8::1]:1")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff::1 ::1 1 2\r\n".to_vec(), None),
        ];
        for (header, caller) in cases {
            let caller = caller.map(|caller| caller.parse().unwrap());
            let whole = Header::Whole { length: header.len(), caller };
            let followed = [&header[..], b"GET / HTTP/1.1\r\n\r\n"].concat();
            assert_eq!(parse(&followed), Ok(whole), "{}", header.escape_ascii());
            for cut in 0..header.len() {
                assert_eq!(parse(&header[..cut]), Ok(Header::Partial), "{}", header[..cut].escape_ascii());
            }
        }
    }

    #[test]
    fn what_is_no_header_is_refused() {
        let cases: [Vec<u8>; 15] = [
            b"GET / HTTP/1.1\r\n".to_vec(),
            b"\x16\x03\x01".to_vec(),
            b"PROXY TCP4 192.0.2.1 192.0.2.2 4711\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 443 1\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 65536\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 192.0.2.2 +711 443\r\n".to_vec(),
            b"PROXY TCP4 ::1 192.0.2.2 4711 443\r\n".to_vec(),
            b"PROXY TCP5 ::1 ::1 1 1\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 443\n".to_vec(),
            [&b"PROXY UNKNOWN "[..], &[b'x'; 100], b"\r\n"].concat(),
            binary(0x21, 0x11, &[0; 11]),
            binary(0x21, 0x12, &[0; 12]),
            binary(0x22, 0x11, &[0; 12]),
            binary(0x11, 0x11, &[0; 12]),
            binary(0x20, 0x11, &[0; HEADER_BYTES_MAX]),
        ];
        for bytes in cases {
            assert!(parse(&bytes).is_err(), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn a_network_has_the_addresses_that_begin_as_it_does() {
        let cases = [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("10.0.0.0/8", "::ffff:10.1.1.1", true),
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "10.0.0.2", false),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "::1", true),
            ("fd00::/8", "fdff::1", true),
            ("fd00::/8", "fe80::1", false),
        ];
        for (network, address, inside) in cases {
            let network = Network::parse(network).unwrap();
            assert_eq!(network.contains(address.parse().unwrap()), inside, "{network:?} {address}");
        }
        for bad in ["", "10.0.0.0/33", "10.0.0.1/8", "x", "10.0.0.0/", "::/129", "10.0.0.0/-1"] {
            assert!(Network::parse(bad).is_err(), "{bad}");
        }
    }
}
