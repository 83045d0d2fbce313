// SPDX-License-Identifier: Apache-2.0
//! Asks a SOCKS5 proxy (RFC 1928, RFC 1929) for a connection. No byte beyond the proxy's last answer is read: what follows is the
//! upstream's.

use std::io;
use std::net::{IpAddr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use zeroize::Zeroizing;

/// Longest user, password and name of a host, in bytes: their lengths have one byte.
pub(super) const WORD_BYTES_MAX: usize = 255;

const VERSION: u8 = 5;
/// Version of the login by user and password (RFC 1929).
const LOGIN_VERSION: u8 = 1;
const NO_LOGIN: u8 = 0;
const USER_AND_PASSWORD: u8 = 2;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;
/// What the codes of a refusal mean (RFC 1928 section 6), from 1 on.
const REFUSALS: [&str; 8] = [
    "general failure",
    "not allowed by its rules",
    "network unreachable",
    "host unreachable",
    "connection refused",
    "the time to live has expired",
    "command not supported",
    "kind of address not supported",
];

/// Where a proxy is to connect to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Target<'a> {
    /// A name that the proxy looks up, and a port.
    Name(&'a str, u16),
    Address(SocketAddr),
}

/// Asks for a connection, with user and password if there are any; they have 1 to [`WORD_BYTES_MAX`] bytes. The error says what
/// the proxy did.
pub(super) async fn connect(
    proxy: &mut (impl AsyncRead + AsyncWrite + Unpin),
    login: Option<(&str, &str)>,
    target: Target<'_>,
) -> Result<(), String> {
    let method = if login.is_some() { USER_AND_PASSWORD } else { NO_LOGIN };
    proxy.write_all(&[VERSION, 1, method]).await.map_err(lost)?;
    match bytes(proxy).await? {
        [VERSION, chosen] if chosen == method => {}
        [VERSION, _] if login.is_some() => return Err("it takes no user and password".to_owned()),
        [VERSION, _] => return Err("it wants to know who asks; write user and password into its URL".to_owned()),
        _ => return Err("it does not speak SOCKS5".to_owned()),
    }
    if let Some((user, password)) = login {
        let mut message = Zeroizing::new(Vec::with_capacity(3 + 2 * WORD_BYTES_MAX));
        message.push(LOGIN_VERSION);
        push_word(&mut message, user)?;
        push_word(&mut message, password)?;
        proxy.write_all(&message).await.map_err(lost)?;
        if bytes(proxy).await? != [LOGIN_VERSION, 0] {
            return Err("it refuses user and password".to_owned());
        }
    }
    proxy.write_all(&request(target)?).await.map_err(lost)?;
    let [version, code, _, kind] = bytes(proxy).await?;
    match (version, code) {
        (VERSION, 0) => {}
        (VERSION, code) => {
            let what = REFUSALS.get(usize::from(code) - 1).copied().unwrap_or("unknown reason");
            return Err(format!("it refuses to connect: {what}"));
        }
        _ => return Err("it does not speak SOCKS5".to_owned()),
    }
    // The address that it connects from, which nobody needs, and its port.
    let rest = match kind {
        IPV4 => 4,
        IPV6 => 16,
        NAME => usize::from(bytes::<1>(proxy).await?[0]),
        _ => return Err("it does not speak SOCKS5".to_owned()),
    };
    let mut skipped = [0; WORD_BYTES_MAX + 2];
    proxy.read_exact(&mut skipped[..rest + 2]).await.map_err(lost)?;
    Ok(())
}

fn request(target: Target<'_>) -> Result<Vec<u8>, String> {
    let mut message = vec![VERSION, CONNECT, 0];
    let port = match target {
        Target::Name(name, port) => {
            message.push(NAME);
            push_word(&mut message, name)?;
            port
        }
        Target::Address(address) => {
            match address.ip() {
                IpAddr::V4(ip) => message.extend([&[IPV4], &ip.octets()[..]].concat()),
                IpAddr::V6(ip) => message.extend([&[IPV6], &ip.octets()[..]].concat()),
            }
            address.port()
        }
    };
    message.extend(port.to_be_bytes());
    Ok(message)
}

fn push_word(message: &mut Vec<u8>, word: &str) -> Result<(), String> {
    let length = u8::try_from(word.len()).map_err(|_| format!("SOCKS5 carries words of {WORD_BYTES_MAX} bytes"))?;
    message.push(length);
    message.extend(word.as_bytes());
    Ok(())
}

async fn bytes<const N: usize>(proxy: &mut (impl AsyncRead + Unpin)) -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    proxy.read_exact(&mut bytes).await.map_err(lost)?;
    Ok(bytes)
}

#[allow(clippy::needless_pass_by_value, reason = "the shape that `map_err` wants")]
fn lost(error: io::Error) -> String {
    format!("the connection to it broke: {}", error.kind())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_proxy_says_instead_of_yes_is_told() {
        let to = Target::Name("x.example", 443);
        type Case = (&'static [u8], Option<(&'static str, &'static str)>, &'static str);
        const CASES: [Case; 9] = [
            (b"HTTP/1.1 400 Bad Request\r\n", None, "does not speak SOCKS5"),
            (b"\x05\xff", None, "wants to know who asks"),
            (b"\x05\xff", Some(("a", "b")), "takes no user"),
            (b"\x05\x02\x01\x01", Some(("a", "b")), "refuses user and password"),
            (b"\x05\x00\x05\x05\x00\x01", None, "connection refused"),
            (b"\x05\x00\x05\x63\x00\x01", None, "unknown reason"),
            (b"\x05\x00\x05\x00\x00\x09", None, "does not speak SOCKS5"),
            (b"\x05\x00\x05\x00\x00\x01\x00", None, "broke"),
            (b"", None, "broke"),
        ];
        for (answer, login, expected) in CASES {
            let (mut ours, mut theirs) = tokio::io::duplex(1024);
            theirs.write_all(answer).await.unwrap();
            theirs.shutdown().await.unwrap();
            let error = connect(&mut ours, login, to).await.unwrap_err();
            assert!(error.contains(expected), "{answer:?}: {error}");
        }
    }

    #[tokio::test]
    async fn what_follows_the_last_answer_is_the_upstreams() {
        for from in [
            &b"\x01\x7f\x00\x00\x01\x00\x50"[..],
            b"\x03\x02ab\x00\x50",
            b"\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\x50",
        ] {
            let (mut ours, mut theirs) = tokio::io::duplex(1024);
            let answer = [b"\x05\x02\x01\x00\x05\x00\x00", from, b"hello"].concat();
            theirs.write_all(&answer).await.unwrap();
            let target = Target::Address("[::1]:80".parse().unwrap());
            connect(&mut ours, Some(("ann", "hunter2")), target).await.unwrap();
            let mut rest = [0; 5];
            ours.read_exact(&mut rest).await.unwrap();
            assert_eq!(&rest, b"hello");
            let mut asked = vec![0; 3 + 13 + 22];
            theirs.read_exact(&mut asked).await.unwrap();
            let expected =
                [b"\x05\x01\x02\x01\x03ann\x07hunter2\x05\x01\x00\x04", &[0; 15][..], b"\x01\x00\x50"].concat();
            assert_eq!(asked, expected);
        }
    }
}
