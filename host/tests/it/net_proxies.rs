// SPDX-License-Identifier: Apache-2.0
//! Upstreams that are reached through a proxy, or by a Unix socket.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Response, StatusCode};
use http_body_util::BodyExt;
use penstock::config::{Limits, Listener, Timeouts};
use penstock::directory::Directory;
use penstock::listener;
use penstock::metrics::Metrics;
use penstock::state::Memory;
use penstock::upstream::{Endpoint, Proxy, SendError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::net_support::{Pki, client, full, get, ok, raw, read_head, server, soon};
use crate::support::rig::{Rig, build, library};

/// A proxy that speaks CONNECT and SOCKS5, wants `ann` with `hunter@2`, and counts what it connects. Names lead to 127.0.0.1.
pub(crate) async fn proxy(connected: Arc<AtomicUsize>) -> SocketAddr {
    raw(move |mut caller, _| {
        let connected = Arc::clone(&connected);
        async move {
            let mut first = [0];
            if caller.peek(&mut first).await.unwrap() == 0 {
                return;
            }
            let port = if first == [5] { socks(&mut caller).await } else { connect(&mut caller).await };
            let Some(port) = port else { return };
            connected.fetch_add(1, Ordering::Relaxed);
            let mut upstream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut caller, &mut upstream).await;
        }
    })
    .await
}

async fn connect(caller: &mut TcpStream) -> Option<u16> {
    let head = read_head(caller).await?;
    let target = head.strip_prefix("CONNECT ")?.split(' ').next()?.to_owned();
    assert!(head.to_ascii_lowercase().contains(&format!("host: {target}\r\n")), "{head}");
    let login = "proxy-authorization: basic yw5uomh1bnrlckay\r\n"; // ann:hunter@2
    if !head.to_ascii_lowercase().contains(login) {
        caller.write_all(b"HTTP/1.1 407 No\r\ncontent-length: 7\r\n\r\nhunter2").await.unwrap();
        return None;
    }
    caller.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").await.unwrap();
    target.rsplit_once(':')?.1.parse().ok()
}

async fn socks(caller: &mut TcpStream) -> Option<u16> {
    let mut greeting = [0; 3];
    caller.read_exact(&mut greeting).await.unwrap();
    if greeting != [5, 1, 2] {
        caller.write_all(&[5, 255]).await.unwrap();
        return None;
    }
    caller.write_all(&[5, 2]).await.unwrap();
    let mut login = [0; 14];
    caller.read_exact(&mut login).await.unwrap();
    assert_eq!(&login, b"\x01\x03ann\x08hunter@2");
    caller.write_all(&[1, 0]).await.unwrap();
    let mut request = [0; 5];
    caller.read_exact(&mut request).await.unwrap();
    let rest = match request[3] {
        1 => 3,
        3 => usize::from(request[4]),
        _ => 15,
    };
    let mut address = vec![0; rest + 2];
    caller.read_exact(&mut address).await.unwrap();
    caller.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await.unwrap();
    Some(u16::from_be_bytes([address[rest], address[rest + 1]]))
}

fn through(url: &str, ca: Option<&[u8]>, http2: bool, proxy: &str) -> Endpoint {
    Endpoint::parse(url, ca, http2).unwrap().through(Arc::new(Proxy::parse(proxy).unwrap())).unwrap()
}

#[tokio::test]
async fn requests_go_through_the_proxy_and_share_its_connections() {
    let pki = Pki::new();
    let clear = server(Limits::default(), Timeouts::default(), None, ok).await;
    let tls = server(Limits::default(), Timeouts::default(), Some(pki.tls()), ok).await;
    let client = client(&Timeouts::default());
    for scheme in ["http", "socks5", "socks5h"] {
        let connected = Arc::new(AtomicUsize::new(0));
        let proxy = format!("{scheme}://ann:hunter%402@{}", proxy(Arc::clone(&connected)).await);
        let cases = [
            (format!("http://localhost:{}", clear.addr.port()), None, false),
            (format!("http://127.0.0.1:{}", clear.addr.port()), None, true),
            (format!("https://localhost:{}", tls.addr.port()), Some(&*pki.ca), false),
        ];
        for (url, ca, http2) in cases {
            let before = connected.load(Ordering::Relaxed);
            let endpoint = through(&url, ca, http2, &proxy);
            for _ in 0..3 {
                let answer = soon(client.send(&endpoint, get(&endpoint, "/"))).await.unwrap();
                assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "ok", "{scheme} {url}");
            }
            assert_eq!(connected.load(Ordering::Relaxed) - before, 1, "{scheme} {url}");
        }
        let direct = Endpoint::parse(&format!("http://localhost:{}", clear.addr.port()), None, false).unwrap();
        let before = connected.load(Ordering::Relaxed);
        soon(client.send(&direct, get(&direct, "/"))).await.unwrap();
        assert_eq!(connected.load(Ordering::Relaxed), before, "others do not share them");
    }
}

#[tokio::test]
async fn a_proxy_that_makes_no_connection_is_blamed_and_nothing_of_its_words_or_ours_is_repeated() {
    let upstream = server(Limits::default(), Timeouts::default(), None, ok).await;
    let strict = proxy(Arc::default()).await;
    let silent = raw(|stream, _| async move {
        let _held = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let client = client(&Timeouts { connect_ms: 200, ..Timeouts::default() });
    let cases = [
        (format!("http://ann:hunter3@{strict}"), "407"),
        (format!("http://{strict}"), "407"),
        (format!("socks5h://{strict}"), "who asks"),
        (format!("http://ann:hunter3@{gone}"), "cannot connect"),
        (format!("http://ann:hunter3@{silent}"), "200 ms"),
        (format!("socks5://ann:hunter3@{silent}"), "200 ms"),
    ];
    for (proxy, reason) in cases {
        let endpoint = through(&format!("http://{}", upstream.addr), None, false, &proxy);
        let error = soon(client.send(&endpoint, get(&endpoint, "/"))).await.unwrap_err();
        assert!(matches!(&error, SendError::Proxy(_)) && error.before_sent(), "{error:?}");
        let text = error.to_string();
        let place = proxy.rsplit(['@', '/']).next().unwrap();
        assert!(text.contains(reason) && text.contains(place) && !text.contains("hunter"), "{text}");
    }
}

#[tokio::test]
async fn a_policy_names_the_proxy_of_a_service_and_keeps_its_password_elsewhere() {
    let upstream = server(Limits::default(), Timeouts::default(), None, ok).await;
    let connected = Arc::new(AtomicUsize::new(0));
    let proxy = proxy(Arc::clone(&connected)).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let policy = |proxy: &str| {
        format!(
            "[services.s]\nendpoints = [\"http://{}\"]\nproxy = \"{proxy}\"\n[[routes]]\nname = \"plain\"\npath = \"/\"\nservice = \"s\"\n",
            upstream.addr
        )
    };
    std::fs::write(file.path(), format!("http://ann:hunter%402@{proxy}\n")).unwrap();
    let named = format!("file:{}", file.path().display());
    let rig = Rig::start(&policy(&named)).await;
    let reply = rig.ask(crate::support::caller::get("/")).await;
    assert_eq!((reply.text(), connected.load(Ordering::Relaxed)), ("ok".into(), 1));

    std::fs::write(file.path(), format!("http://ann:hunter3@{proxy}\n")).unwrap();
    let rig = Rig::start(&policy(&named)).await;
    let reply = rig.ask(crate::support::caller::get("/")).await;
    assert_eq!((reply.status, reply.header("penstock-failure")), (StatusCode::BAD_GATEWAY, "proxy-failed"));
    assert!(reply.text().contains("the proxy on the way to s"), "{}", reply.text());

    let (state, directory) = (Arc::new(Memory::new(10)), Directory::in_memory().unwrap());
    std::fs::write(file.path(), "http://ann:hunter2@nowhere\n").unwrap();
    for (written, reason) in [
        (format!("http://ann:hunter2@{proxy}"), "a password does not stand in a policy"),
        ("ftp://x:1".to_owned(), "neither HTTP nor SOCKS5"),
        (named.clone(), "no port"),
        ("env:PENSTOCK_NO_SUCH_PROXY".to_owned(), "not set"),
    ] {
        let metrics = Metrics::new().unwrap();
        let problems = build(&policy(&written), library(), &state, &directory, &metrics, None).err().unwrap();
        let text = problems[0].to_string();
        assert!(text.starts_with("policy.toml:3") && text.contains(reason) && !text.contains("hunter2"), "{text}");
    }
}

#[tokio::test]
async fn both_sides_speak_over_unix_sockets() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.sock");
    // What a process has left there that is gone.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let listener =
        Listener { mode: "600".to_owned(), ..Listener::plain(format!("unix:{}", path.display()).parse().unwrap()) };
    let bound = listener::bind(std::slice::from_ref(&listener)).unwrap();
    let taken = listener::bind(&[listener]).err().unwrap();
    assert!(taken.contains("s.sock") && taken.contains("another process"), "{taken}");
    let permissions = std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions());
    assert_eq!(permissions & 0o777, 0o600);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(async move {
        let handler = |request: http::Request<_>, peer: listener::Peer| async move {
            let host = request.uri().host().map(str::to_owned);
            let host = host.or_else(|| request.headers().get("host")?.to_str().ok().map(str::to_owned));
            Response::new(full(format!("{} {} {}", host.unwrap_or_default(), request.uri().path(), peer.addr)))
        };
        let gauge = prometheus::IntGauge::new("connections", "connections").unwrap();
        let stopped = async { drop(stopped.await) };
        listener::serve(bound, handler, &Limits::default(), &Timeouts::default(), &gauge, stopped).await
    });
    let client = client(&Timeouts::default());
    for (more, http2, said) in [
        ("", false, "localhost /x 127.0.0.1:0"),
        (":http://model.test/v1", false, "model.test /v1/x 127.0.0.1:0"),
        (":http://model.test/v1", true, "model.test /v1/x 127.0.0.1:0"),
    ] {
        let endpoint = Endpoint::parse(&format!("unix:{}{more}", path.display()), None, http2).unwrap();
        let answer = soon(client.send(&endpoint, get(&endpoint, "/x"))).await.unwrap();
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), said);
    }
    drop(client);
    stop.send(()).unwrap();
    soon(serving).await.unwrap();
    assert!(!path.exists(), "the file goes with the listener");
    std::fs::write(&path, "something").unwrap();
    let place = format!("unix:{}", path.display()).parse().unwrap();
    assert!(listener::bind(&[Listener::plain(place)]).err().unwrap().contains("no socket"));
}
