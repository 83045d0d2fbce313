// SPDX-License-Identifier: Apache-2.0
//! The listener: protocols, time-outs, limits, panics, and the way to stop.

use std::sync::Arc;
use std::time::Duration;

use http::{Response, StatusCode};
use http_body_util::BodyExt;
use penstock::config::{Limits, Listener, Timeouts};
use penstock::listener;
use penstock::upstream::SendError;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use crate::net_support::{Pki, client, data, endpoint, frames, full, get, ok, read_head, server, soon, talk};

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

#[tokio::test]
async fn a_clear_text_port_speaks_both_protocols_and_answers_no_garbage() {
    let server = server(Limits::default(), Timeouts::default(), None, |request, _| async move {
        Response::new(full(format!("{:?}", request.version())))
    })
    .await;
    let client = client(&Timeouts::default());
    for (http2, version) in [(false, "HTTP/1.1"), (true, "HTTP/2.0")] {
        let endpoint = endpoint(server.addr, http2);
        let answer = soon(client.send(&endpoint, get(&endpoint, "/"))).await.unwrap();
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), version);
    }
    assert_eq!(talk(server.addr, b"INVALID CONNECTION PREFACE\r\n\r\n").await, "");
    let huge = format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "a".repeat(Limits::default().head_bytes_max));
    assert!(talk(server.addr, huge.as_bytes()).await.starts_with("HTTP/1.1 431"));
}

#[tokio::test]
async fn a_panic_is_a_500_for_its_request_alone() {
    let server = server(Limits::default(), Timeouts::default(), None, |request, _| async move {
        assert_ne!(request.uri().path(), "/panic", "this panic is a part of the test");
        Response::new(full("ok"))
    })
    .await;
    let answer = talk(
        server.addr,
        b"GET /panic HTTP/1.1\r\nhost: x\r\n\r\nGET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    )
    .await;
    assert!(
        answer.starts_with("HTTP/1.1 500") && answer.contains("HTTP/1.1 200") && answer.ends_with("ok"),
        "{answer}"
    );
    let endpoint = endpoint(server.addr, true);
    let client = client(&Timeouts::default());
    for (path, status) in [("/panic", StatusCode::INTERNAL_SERVER_ERROR), ("/", StatusCode::OK)] {
        assert_eq!(client.send(&endpoint, get(&endpoint, path)).await.unwrap().status(), status);
    }
}

#[tokio::test]
async fn idle_connections_and_slow_heads_are_closed_at_their_own_time_outs() {
    let timeouts = Timeouts { head_ms: 150, keep_alive_ms: 900, ..Timeouts::default() };
    let server = server(Limits::default(), timeouts, None, ok).await;
    /// What is sent, and between which milliseconds the connection must be closed.
    const CASES: [(&str, &[u8], u64, u64); 4] = [
        ("nothing", b"", 150, 850),
        ("half a head", b"GET / HTTP/1.1\r\nhost", 150, 850),
        ("half a preface", b"PRI * HTTP/2.0\r\n", 150, 850),
        ("one request", GET, 900, 5_000),
    ];
    for (name, bytes, at_least, at_most) in CASES {
        let begun = std::time::Instant::now();
        talk(server.addr, bytes).await;
        let took = begun.elapsed();
        let expected = Duration::from_millis(at_least)..Duration::from_millis(at_most);
        assert!(expected.contains(&took), "{name}: {took:?}");
    }
    let begun = std::time::Instant::now();
    let mut drip = TcpStream::connect(server.addr).await.unwrap();
    drip.write_all(GET).await.unwrap();
    read_head(&mut drip).await.unwrap();
    drip.read_exact(&mut [0; 2]).await.unwrap();
    while drip.write_all(b"x").await.is_ok() && begun.elapsed() < Duration::from_secs(5) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(
        begun.elapsed() < Duration::from_millis(850),
        "a head that drips in after a request: {:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn a_caller_that_still_sends_can_read_an_early_answer() {
    let server = server(Limits::default(), Timeouts::default(), None, |_, _| async {
        Response::builder().status(StatusCode::PAYLOAD_TOO_LARGE).body(full("too large")).unwrap()
    })
    .await;
    for _ in 0..10 {
        let mut stream = TcpStream::connect(server.addr).await.unwrap();
        stream.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 8000000\r\n\r\n").await.unwrap();
        // A reset would make this write fail, and the answer would be lost with it.
        soon(stream.write_all(&vec![b'x'; 8_000_000])).await.unwrap();
        let mut answer = String::new();
        soon(stream.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 413") && answer.ends_with("too large"), "{answer}");
    }
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_their_turn() {
    let limits = Limits { connections_max: 1, ..Limits::default() };
    let server = server(limits, Timeouts::default(), None, ok).await;
    let mut first = TcpStream::connect(server.addr).await.unwrap();
    first.write_all(GET).await.unwrap();
    assert!(soon(read_head(&mut first)).await.is_some());
    assert_eq!(server.connections.get(), 1);
    let mut second = TcpStream::connect(server.addr).await.unwrap();
    second.write_all(GET).await.unwrap();
    let early = tokio::time::timeout(Duration::from_millis(100), second.read_u8()).await;
    assert!(early.is_err(), "the second connection was served");
    drop(first);
    assert!(soon(read_head(&mut second)).await.is_some());
}

#[tokio::test]
async fn what_runs_finishes_when_the_server_is_told_to_stop() {
    for http2 in [false, true] {
        let (sender, body) = frames();
        let body = Arc::new(Mutex::new(Some(body)));
        let server = server(Limits::default(), Timeouts::default(), None, move |_, _| {
            let body = Arc::clone(&body);
            async move { Response::new(body.lock().await.take().unwrap()) }
        })
        .await;
        let idle = TcpStream::connect(server.addr).await.unwrap();
        let (client, endpoint) = (client(&Timeouts::default()), endpoint(server.addr, http2));
        sender.send(data("one ")).await.unwrap();
        let mut answer = soon(client.send(&endpoint, get(&endpoint, "/"))).await.unwrap().into_body();
        assert!(soon(answer.frame()).await.unwrap().is_ok());
        let stopping = server.begin_stop();
        // The idle connection is closed at once, which shows that the drain has begun.
        let mut idle = idle;
        assert_eq!(soon(idle.read(&mut [0; 1])).await.unwrap_or(0), 0);
        let refused = soon(client.send(&endpoint, get(&endpoint, "/"))).await.err();
        assert!(matches!(refused, Some(SendError::Connect(_))), "http2 {http2}: {refused:?}");
        sender.send(data("two")).await.unwrap();
        drop(sender);
        let rest = soon(answer.collect()).await.unwrap().to_bytes();
        assert_eq!(rest, "two", "http2 {http2}");
        assert_eq!(soon(stopping).await.unwrap().cut, 0);
    }
}

#[tokio::test]
async fn what_does_not_finish_is_cut_after_the_drain_time_out() {
    for http2 in [false, true] {
        let timeouts = Timeouts { drain_ms: 100, ..Timeouts::default() };
        let server = server(Limits::default(), timeouts, None, |_, _| async {
            let (sender, body) = frames();
            sender.send(data("one")).await.unwrap();
            tokio::spawn(async move { sender.closed().await });
            Response::new(body)
        })
        .await;
        let (client, endpoint) = (client(&Timeouts::default()), endpoint(server.addr, http2));
        let answer = soon(client.send(&endpoint, get(&endpoint, "/"))).await.unwrap();
        assert_eq!(server.stop().await.cut, 1);
        assert!(soon(answer.into_body().collect()).await.is_err(), "a cut is not a clean end (http2 {http2})");
    }
}

#[tokio::test]
async fn a_drained_http1_connection_is_told_to_close() {
    let (sender, body) = frames();
    let body = Arc::new(Mutex::new(Some(body)));
    let (entered, mut has_entered) = tokio::sync::mpsc::channel(1);
    let (go, gone) = tokio::sync::watch::channel(false);
    let server = server(Limits::default(), Timeouts::default(), None, move |_, _| {
        let (body, entered, mut gone) = (Arc::clone(&body), entered.clone(), gone.clone());
        async move {
            entered.send(()).await.unwrap();
            gone.wait_for(|gone| *gone).await.unwrap();
            Response::new(body.lock().await.take().unwrap())
        }
    })
    .await;
    let mut idle = TcpStream::connect(server.addr).await.unwrap();
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    stream.write_all(GET).await.unwrap();
    soon(has_entered.recv()).await.unwrap();
    let stopping = server.begin_stop();
    assert_eq!(soon(idle.read(&mut [0; 1])).await.unwrap_or(0), 0);
    go.send_replace(true);
    drop(sender);
    let head = soon(read_head(&mut stream)).await.unwrap();
    assert!(head.to_ascii_lowercase().contains("connection: close"), "{head}");
    drop(stream);
    assert_eq!(soon(stopping).await.unwrap().cut, 0);
}

#[tokio::test]
async fn a_bad_address_or_certificate_is_an_error_before_anything_runs() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let error = listener::bind(&[Listener::plain(address.into())]).err().unwrap();
    assert!(error.contains(&address.to_string()), "{error}");
    let (pki, other) = (Pki::new(), Pki::new());
    std::fs::copy(other.key(), pki.key()).unwrap();
    let tls = Some(pki.tls());
    let error = listener::bind(&[Listener { tls, ..Listener::plain("127.0.0.1:0".parse().unwrap()) }]).err().unwrap();
    assert!(error.contains("key.pem") && error.contains("chain.pem"), "{error}");
}
