// SPDX-License-Identifier: Apache-2.0
//! Plain HTTP routes beside the AI routes: the same stages, bodies as they come, upgrades as tunnels.

use bytes::Bytes;
use http::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::caller::get;
use crate::support::fake::{self, Do, Fake};
use crate::support::rig::Rig;

fn policy(endpoints: &[String], more: &str) -> String {
    format!(
        "[services.s]\nendpoints = {endpoints:?}\n[[routes]]\nname = \"plain\"\npath = \"/api\"\nservice = \"s\"\n{more}"
    )
}

#[tokio::test]
async fn a_request_goes_to_the_service_as_it_came() {
    let fake = Fake::start(|_| fake::whole("201 Created", "text/odd", b"made")).await;
    let rig = Rig::start(&policy(&[format!("{}/base", fake.url())], "strip_prefix = true\n")).await;
    let request = Request::put("/api/things/7?a=b%20c").header("x-own", "1").header("connection", "x-hop");
    let reply = rig.ask(request.header("x-hop", "2").body(Bytes::from_static(b"body")).unwrap()).await;
    assert_eq!((reply.status.as_u16(), reply.text(), reply.header("content-type")), (201, "made".into(), "text/odd"));
    let asked = fake.last();
    assert_eq!((asked.line.as_str(), asked.body.as_slice()), ("PUT /base/things/7?a=b%20c", &b"body"[..]));
    assert_eq!((asked.header("x-own"), asked.header("x-hop")), (Some("1"), None), "hop-by-hop headers end here");
    assert_eq!(asked.header("x-forwarded-for"), Some("127.0.0.1"));
}

#[tokio::test]
async fn an_endpoint_that_cannot_be_reached_is_passed_over() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dead = format!("http://{}", gone.local_addr().unwrap());
    drop(gone);
    let fake = Fake::start(|_| fake::whole("200 OK", "text/plain", b"here")).await;
    let rig = Rig::start(&policy(&[dead, fake.url()], "")).await;
    for _ in 0..8 {
        assert_eq!(rig.ask(get("/api/x")).await.text(), "here");
    }
}

#[tokio::test]
async fn an_answer_that_is_cut_is_cut_for_the_caller() {
    let half = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf".to_vec();
    let fake = Fake::start(move |_| vec![Do::Send(half.clone()), Do::Close]).await;
    let rig = Rig::start(&policy(&[fake.url()], "")).await;
    let reply = rig.ask(get("/api/x")).await;
    assert!(reply.cut && reply.body == b"half");
}

#[tokio::test]
async fn filters_and_auth_hold_on_plain_routes_too() {
    let fake = Fake::start(|_| fake::whole("200 OK", "text/plain", b"here")).await;
    let keys = "[plugins.callers]\nplugin = \"api-key\"\nconfig = { keys = [{ subject = \"a\", sha256 = \
                \"72ee9d4355ccb9d3a4c9dbf37382e38e75c1b1a225b5bd1f729ee91bbda30c20\" }] }\n";
    let rig = Rig::start(&format!("{keys}{}", policy(&[fake.url()], "auth = \"callers\"\n"))).await;
    assert_eq!(rig.ask(get("/api/x")).await.status, 401);
    let request = Request::get("/api/x").header("x-api-key", "alice-key").body(Bytes::new()).unwrap();
    assert_eq!(rig.ask(request).await.status, 200);
    assert_eq!(fake.asked().len(), 1);
}

/// An upgrade: the upstream's 101, then bytes both ways, from the first one on.
#[tokio::test]
async fn an_upgraded_connection_is_a_tunnel() {
    let agree =
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nwelcome".to_vec();
    let fake = Fake::start(move |_| vec![Do::Send(agree.clone()), Do::Echo]).await;
    let rig = Rig::start(&policy(&[fake.url()], "")).await;
    let mut caller = TcpStream::connect(rig.address).await.unwrap();
    let head = "GET /api/ws HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    caller.write_all(head.as_bytes()).await.unwrap();
    let mut read = Vec::new();
    while !read.ends_with(b"welcome") {
        assert!(caller.read_buf(&mut read).await.unwrap() > 0, "{}", String::from_utf8_lossy(&read));
    }
    assert!(read.starts_with(b"HTTP/1.1 101 "));
    caller.write_all(b"ping").await.unwrap();
    let mut pong = [0; 4];
    caller.read_exact(&mut pong).await.unwrap();
    assert_eq!(&pong, b"ping");
    assert_eq!(fake.last().header("upgrade"), Some("websocket"));
}
