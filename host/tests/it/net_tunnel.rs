// SPDX-License-Identifier: Apache-2.0
//! A WebSocket through the listener, the client and the tunnel.

use std::sync::Arc;
use std::time::Duration;

use http::header::{CONNECTION, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode};
use penstock::config::{Limits, Timeouts};
use penstock::head;
use penstock::listener::Peer;
use penstock::tunnel::{self, Carried, End};
use penstock::upstream::{Client, Endpoint, InBody, OutBody};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

use crate::net_support::{BoxBody, Server, client, endpoint, full, raw, read_head, server, soon};

type Ends = mpsc::UnboundedSender<(Carried, End)>;

/// What a plain HTTP route does with an upgrade.
async fn upgrade(
    mut request: Request<InBody>,
    peer: Peer,
    client: Client,
    endpoint: Arc<Endpoint>,
    idle: Duration,
    ends: Ends,
) -> Response<BoxBody> {
    let protocol = head::upgrade_of(request.headers()).expect("an upgrade").to_owned();
    let caller = hyper::upgrade::on(&mut request);
    let mut out = Request::get(endpoint.uri(request.uri().path()).unwrap()).body(OutBody::Empty).unwrap();
    *out.headers_mut() = request.headers().clone();
    head::strip_hop_by_hop(out.headers_mut());
    let again = HeaderValue::from_str(&protocol).unwrap();
    out.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    out.headers_mut().insert(UPGRADE, again.clone());
    let mut answer = client.send(&endpoint, out).await.unwrap();
    let mut response = Response::new(full(""));
    *response.status_mut() = answer.status();
    *response.headers_mut() = answer.headers().clone();
    head::strip_hop_by_hop(response.headers_mut());
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
        response.headers_mut().insert(UPGRADE, again);
        let upstream = hyper::upgrade::on(&mut answer);
        tokio::spawn(async move {
            let end = tunnel::relay(caller, upstream, idle, peer.stopped(), None).await;
            ends.send(end).unwrap();
        });
    }
    response
}

async fn gateway(upstream: std::net::SocketAddr, idle: Duration) -> (Server, mpsc::UnboundedReceiver<(Carried, End)>) {
    let (sender, ends) = mpsc::unbounded_channel();
    let (client, endpoint) = (client(&Timeouts::default()), endpoint(upstream, false));
    let timeouts = Timeouts { drain_ms: 200, ..Timeouts::default() };
    let server = server(Limits::default(), timeouts, None, move |request, peer| {
        upgrade(request, peer, client.clone(), Arc::clone(&endpoint), idle, sender.clone())
    })
    .await;
    (server, ends)
}

async fn websocket_echo() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        while let Some(Ok(message)) = next(&mut socket).await {
            if !message.is_close() {
                send(&mut socket, message).await;
            }
        }
    });
    addr
}

type Socket = tokio_tungstenite::WebSocketStream<TcpStream>;

async fn next(socket: &mut Socket) -> Option<Result<Message, tokio_tungstenite::tungstenite::Error>> {
    use futures_core::Stream;
    std::future::poll_fn(|cx| std::pin::Pin::new(&mut *socket).poll_next(cx)).await
}

async fn send(socket: &mut Socket, message: Message) {
    use futures_sink::Sink;
    std::future::poll_fn(|cx| std::pin::Pin::new(&mut *socket).poll_ready(cx)).await.unwrap();
    std::pin::Pin::new(&mut *socket).start_send(message).unwrap();
    std::future::poll_fn(|cx| std::pin::Pin::new(&mut *socket).poll_flush(cx)).await.unwrap();
}

async fn websocket(server: &Server) -> Socket {
    let stream = TcpStream::connect(server.addr).await.unwrap();
    let (socket, answer) = tokio_tungstenite::client_async(format!("ws://{}/chat", server.addr), stream).await.unwrap();
    assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
    socket
}

#[tokio::test]
async fn a_websocket_passes_in_both_directions_and_closes() {
    let (server, mut ends) = gateway(websocket_echo().await, Duration::from_secs(60)).await;
    let mut socket = soon(websocket(&server)).await;
    for size in [0, 1, 125, 126, 65_536, 1_000_000] {
        let message = Message::text("x".repeat(size));
        soon(send(&mut socket, message.clone())).await;
        assert_eq!(soon(next(&mut socket)).await.unwrap().unwrap(), message);
    }
    soon(socket.close(None)).await.unwrap();
    while let Some(Ok(_)) = soon(next(&mut socket)).await {}
    drop(socket);
    let (carried, end) = soon(ends.recv()).await.unwrap();
    assert_eq!(end, End::Closed);
    assert!(carried.up > 1_065_788 && carried.down > 1_065_788, "{carried:?}");
    assert_eq!(server.stop().await.cut, 0);
}

#[tokio::test]
async fn a_tunnel_that_does_not_end_counts_as_a_connection_and_is_cut() {
    let (server, mut ends) = gateway(websocket_echo().await, Duration::from_secs(60)).await;
    let mut socket = soon(websocket(&server)).await;
    assert_eq!(server.connections.get(), 1);
    assert_eq!(server.stop().await.cut, 1);
    assert_eq!(soon(ends.recv()).await.unwrap().1, End::Stopped);
    assert!(!matches!(soon(next(&mut socket)).await, Some(Ok(_))), "the tunnel is closed");
}

#[tokio::test]
async fn a_silent_tunnel_is_closed_after_the_idle_time_out() {
    let (server, mut ends) = gateway(websocket_echo().await, Duration::from_millis(100)).await;
    let _socket = soon(websocket(&server)).await;
    assert_eq!(soon(ends.recv()).await.unwrap().1, End::Idle);
}

#[tokio::test]
async fn the_end_of_one_direction_leaves_the_other_open() {
    let upstream = raw(|mut stream, _| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: lines\r\n\r\n").await.unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).await.unwrap();
        stream.write_all(format!("heard {said}").as_bytes()).await.unwrap();
    })
    .await;
    let (server, mut ends) = gateway(upstream, Duration::from_secs(60)).await;
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    // What is said before the 101 waits for it.
    let head = "GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: lines\r\n\r\nhello ";
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = soon(read_head(&mut stream)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    stream.write_all(b"there").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut said = String::new();
    soon(stream.read_to_string(&mut said)).await.unwrap();
    assert_eq!(said, "heard hello there");
    assert_eq!(soon(ends.recv()).await.unwrap(), (Carried { up: 11, down: 17 }, End::Closed));
}

#[tokio::test]
async fn without_a_101_nothing_is_tunnelled() {
    let upstream = raw(|mut stream, _| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        let mut more = Vec::new();
        stream.read_to_end(&mut more).await.unwrap();
        assert!(more.is_empty(), "bytes after the head went on: {more:?}");
    })
    .await;
    let (server, mut ends) = gateway(upstream, Duration::from_secs(60)).await;
    let head =
        "GET /a HTTP/1.1\r\nhost: x\r\nconnection: upgrade, close\r\nupgrade: lines\r\n\r\nGET /b HTTP/1.1\r\n\r\n";
    let answer = crate::net_support::talk(server.addr, head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    assert!(ends.try_recv().is_err());
}
