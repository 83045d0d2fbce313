// SPDX-License-Identifier: Apache-2.0
//! Callers that stall or mean harm at the edge: each hole that an attack of `cargo xtask torture` has found stays closed.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt;
use penstock::config::{Limits, Timeouts};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::net_support::{data, frames, full, ok, server, soon};
use crate::support::caller::get;
use crate::support::fake::{self, Fake};
use crate::support::rig::Rig;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A GET of `/` at the host `x` (RFC 7541: three fields of the static table and a literal one).
const HEAD: &[u8] = b"\x82\x84\x86\x41\x01x";
const RST_STREAM: u8 = 3;

/// A frame of HTTP/2 (RFC 9113 section 4.1).
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    [&[0, 0, length, kind, flags, 0, 0, 0, stream], payload].concat()
}

/// What a caller of HTTP/2 begins with who opens no window, and its first request.
fn windowless() -> Vec<u8> {
    [PREFACE, &frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]), &frame(1, 5, 1, HEAD)].concat()
}

#[tokio::test]
async fn an_idle_http2_caller_that_answers_nothing_is_closed_at_its_time_out() {
    let timeouts = Timeouts { keep_alive_ms: 1_000, ..Timeouts::default() };
    let server = server(Limits::default(), timeouts, None, ok).await;
    let mut caller = TcpStream::connect(server.addr).await.unwrap();
    let begun = Instant::now();
    caller.write_all(&[PREFACE, &frame(4, 0, 0, &[])].concat()).await.unwrap();
    let mut said = Vec::new();
    // That the close is a reset is no matter: nothing was under way.
    let _ = soon(caller.read_to_end(&mut said)).await;
    let took = begun.elapsed();
    assert!((Duration::from_secs(1)..Duration::from_secs(5)).contains(&took), "{took:?}");
}

#[tokio::test]
async fn a_stream_whose_caller_opens_no_window_is_reset_at_its_time_out() {
    let timeouts = Timeouts { idle_ms: 1_000, ..Timeouts::default() };
    let server = server(Limits::default(), timeouts, None, ok).await;
    let mut caller = TcpStream::connect(server.addr).await.unwrap();
    let begun = Instant::now();
    caller.write_all(&windowless()).await.unwrap();
    let reset = async {
        loop {
            let mut head = [0; 9];
            caller.read_exact(&mut head).await.unwrap();
            let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
            caller.read_exact(&mut payload).await.unwrap();
            if head[3] == RST_STREAM {
                return;
            }
        }
    };
    soon(reset).await;
    let took = begun.elapsed();
    assert!((Duration::from_secs(1)..Duration::from_secs(5)).contains(&took), "{took:?}");
}

/// The opposite: it is the upstream that is slow, and the caller is not blamed for it.
#[tokio::test]
async fn a_stream_that_has_nothing_for_its_caller_is_not_reset() {
    let timeouts = Timeouts { idle_ms: 300, ..Timeouts::default() };
    let server = server(Limits::default(), timeouts.clone(), None, |_, _| async {
        let (sender, body) = frames();
        tokio::spawn(async move {
            for text in ["one ", "two"] {
                tokio::time::sleep(Duration::from_millis(1_000)).await;
                sender.send(data(text)).await.unwrap();
            }
        });
        http::Response::new(body)
    })
    .await;
    let stream = TcpStream::connect(server.addr).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("http://x/").body(full(Bytes::new())).unwrap();
    let answer = soon(sender.send_request(request)).await.unwrap();
    assert_eq!(soon(answer.into_body().collect()).await.unwrap().to_bytes(), "one two");
}

#[tokio::test]
async fn a_caller_that_does_not_read_is_reset_and_its_buffers_freed() {
    let timeouts = Timeouts { idle_ms: 700, ..Timeouts::default() };
    let server =
        server(Limits::default(), timeouts, None, |_, _| async { http::Response::new(full(vec![b'x'; 64 << 20])) })
            .await;
    let mut caller = TcpStream::connect(server.addr).await.unwrap();
    caller.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let begun = Instant::now();
    while server.connections.get() > 0 || begun.elapsed() < Duration::from_millis(100) {
        assert!(begun.elapsed() < Duration::from_secs(10), "the connection is still there");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // What the kernel still held is gone, too.
    let error = soon(caller.read_to_end(&mut Vec::new())).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn no_spelling_of_a_guarded_path_leads_to_it_by_an_open_route() {
    let fake = Fake::start(|_| fake::whole("200 OK", "text/plain", b"here")).await;
    let policy = format!(
        "[services.s]\nendpoints = [\"{}\"]\n[plugins.callers]\nplugin = \"api-key\"\n\
         [[routes]]\nname = \"open\"\npath = \"/\"\nservice = \"s\"\n\
         [[routes]]\nname = \"guarded\"\npath = \"/guarded\"\nservice = \"s\"\nauth = \"callers\"\n",
        fake.url()
    );
    let rig = Rig::start(&policy).await;
    for path in [
        "//guarded/x",
        "/%67uarded/x",
        "/%2fguarded",
        "/guarded%2fx",
        "/guarded;a=b/x",
        "/a/..%2fguarded",
        "/;/guarded",
    ] {
        let reply = rig.ask(get(path)).await;
        assert_eq!((reply.status.as_u16(), reply.header("penstock-failure")), (400, "bad-head"), "{path}");
    }
    assert_eq!(rig.ask(get("/guarded/x")).await.status, 401);
    assert!(fake.asked().is_empty());
    for path in ["//other//x", "/a%20b", "/a;v=1/b", "/a%2fb", "/caf%C3%A9"] {
        assert_eq!(rig.ask(get(path)).await.status, 200, "{path}: one route, however it is read");
    }
}

#[tokio::test]
async fn members_that_parsers_disagree_on_are_refused_in_every_dialect() {
    let rig = Rig::start("[vendors.echo]\nadapter = \"echo\"\n[[routes]]\nname = \"ai\"\npath = \"/v1\"\n").await;
    for path in ["/v1/chat/completions", "/v1/messages"] {
        for odd in ["\"Model\":\"other\"", "\"MODEL\":\"other\"", "\"Stream\":true", "\"Max_Tokens\":9"] {
            let body =
                format!(r#"{{"model":"echo/e","max_tokens":9,"messages":[{{"role":"user","content":"x"}}],{odd}}}"#);
            let request = Request::post(path).header("content-type", "application/json").body(body.into()).unwrap();
            let reply = rig.ask(request).await;
            assert_eq!(reply.status.as_u16(), 400, "{path} {odd}: {}", reply.text());
            assert_eq!(reply.header("penstock-failure"), "bad-body", "{path} {odd}");
        }
    }
}
