// SPDX-License-Identifier: Apache-2.0
//! Load balancers that say who the caller is.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use http::Response;
use penstock::config::{Limits, Listener, ProxyProtocol, Timeouts};
use penstock::listener;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::net_support::{Server, full, serve, soon, talk};

const GET: &str = "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

async fn behind(from: &[&str], others: bool) -> Server {
    let from = from.iter().map(|&network| toml::Spanned::new(0..0, network.to_owned())).collect();
    let listener = Listener {
        proxy_protocol: Some(ProxyProtocol { from, others }),
        ..Listener::plain("127.0.0.1:0".parse().unwrap())
    };
    let timeouts = Timeouts { head_ms: 300, ..Timeouts::default() };
    serve(Limits::default(), timeouts, listener, |_, peer| async move { Response::new(full(peer.addr.to_string())) })
        .await
}

fn binary(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &length, body].concat()
}

fn named() -> Vec<u8> {
    binary(0x21, 0x11, &[192, 0, 2, 7, 10, 0, 0, 1, 0x12, 0x67, 1, 0xbb, 4, 0, 1, 9])
}

#[tokio::test]
async fn the_caller_is_whom_a_load_balancer_names() {
    let server = behind(&["127.0.0.0/8"], false).await;
    let cases: [(Vec<u8>, &str); 4] = [
        (named(), "192.0.2.7:4711"),
        (b"PROXY TCP6 2001:db8::9 ::1 5 443\r\n".to_vec(), "[2001:db8::9]:5"),
        (binary(0x20, 0, b""), "127.0.0.1:"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1:"),
    ];
    for (header, caller) in cases {
        let answer = talk(server.addr, &[&header, GET.as_bytes()].concat()).await;
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.rsplit("\r\n\r\n").next().unwrap().starts_with(caller),
            "{answer}"
        );
        assert!(in_pieces(server.addr, &[&header, GET.as_bytes()].concat()).await.contains(caller));
    }
    let preface = [&named()[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"].concat();
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    stream.write_all(&preface).await.unwrap();
    let mut settings = [0; 9];
    soon(stream.read_exact(&mut settings)).await.unwrap();
    assert_eq!(settings[3], 4, "HTTP/2 is spoken after the header, too");
}

/// Sends one byte after the other.
async fn in_pieces(addr: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for byte in bytes {
        stream.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    answer
}

#[tokio::test]
async fn a_connection_without_its_header_is_closed_and_so_is_one_of_somebody_else() {
    let strict = behind(&["127.0.0.0/8"], false).await;
    let elsewhere = behind(&["192.0.2.0/24"], false).await;
    let header = named();
    let with_header = [&header[..], GET.as_bytes()].concat();
    for (server, bytes) in [
        (&strict, GET.as_bytes()),
        (&strict, &header[..14]),
        (&strict, b""),
        (&strict, b"PROXY TCP4 1.2.3.4 "),
        (&strict, &binary(0x20, 0, &[0; 5000])),
        (&elsewhere, GET.as_bytes()),
        (&elsewhere, &with_header),
    ] {
        let begun = Instant::now();
        let mut stream = TcpStream::connect(server.addr).await.unwrap();
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let _ = soon(stream.read_to_end(&mut answer)).await; // what was not read may make a reset of the close
        assert_eq!(String::from_utf8_lossy(&answer), "", "{}", bytes.escape_ascii());
        assert!(begun.elapsed() < Duration::from_millis(900));
    }
    let open = behind(&["192.0.2.0/24"], true).await;
    assert!(talk(open.addr, GET.as_bytes()).await.contains("127.0.0.1:"));
    assert!(!talk(open.addr, &with_header).await.contains("192.0.2.7"), "a header of others is not believed");
}

#[tokio::test]
async fn a_listener_that_believes_nobody_does_not_start() {
    for from in [vec![], vec!["10.0.0.1/8"], vec!["everybody"]] {
        let from: Vec<_> = from.into_iter().map(|network: &str| toml::Spanned::new(0..0, network.to_owned())).collect();
        let proxy_protocol = Some(ProxyProtocol { from, others: false });
        let listener = Listener { proxy_protocol, ..Listener::plain("127.0.0.1:0".parse().unwrap()) };
        let error = listener::bind(&[listener]).err().unwrap();
        assert!(error.contains("127.0.0.1:0") && error.contains("write"), "{error}");
    }
}
