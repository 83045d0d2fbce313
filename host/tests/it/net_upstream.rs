// SPDX-License-Identifier: Apache-2.0
//! The upstream client against upstreams that behave and upstreams that do not.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, Version};
use http_body::Frame;
use http_body_util::BodyExt;
use penstock::config::{Limits, Timeouts};
use penstock::upstream::health::FAILURES_MAX;
use penstock::upstream::{BodyError, Endpoint, OutBody, SendError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{Barrier, mpsc};

use crate::net_support::{
    Pki, client, data, endpoint, frames, full, get, ok, post, raw, read_head, server, soon, talk,
};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

fn brief() -> Timeouts {
    Timeouts { first_byte_ms: 100, idle_ms: 100, ..Timeouts::default() }
}

#[tokio::test]
async fn a_refused_connection_is_an_error_before_anything_was_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = endpoint(listener.local_addr().unwrap(), false);
    drop(listener);
    let client = client(&Timeouts::default());
    for _ in 0..FAILURES_MAX {
        let error = client.send(&endpoint, post(&endpoint, "/", "x")).await.unwrap_err();
        assert!(matches!(error, SendError::Connect(_)), "{error:?}");
        assert!(error.before_sent());
    }
    assert!(!endpoint.health.healthy(Instant::now()), "the breaker is open");
    assert_eq!(endpoint.health.in_flight(), 0);
}

#[tokio::test]
async fn a_handshake_that_does_not_come_is_a_connect_time_out() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", silent.local_addr().unwrap());
    let endpoint = Endpoint::parse(&url, None, false).unwrap();
    let timeouts = Timeouts { connect_ms: 100, ..Timeouts::default() };
    let error = soon(client(&timeouts).send(&endpoint, get(&endpoint, "/"))).await.unwrap_err();
    assert_eq!(error, SendError::ConnectTimeout(Duration::from_millis(100)));
    assert!(error.before_sent());
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_a_first_byte_time_out() {
    let addr = raw(|mut stream, _| async move {
        read_head(&mut stream).await;
        std::future::pending::<()>().await;
    })
    .await;
    let endpoint = endpoint(addr, false);
    let error = soon(client(&brief()).send(&endpoint, get(&endpoint, "/"))).await.unwrap_err();
    assert_eq!(error, SendError::FirstByteTimeout(Duration::from_millis(100)));
    assert!(!error.before_sent());
}

#[tokio::test]
async fn a_pooled_connection_that_was_closed_is_replaced_without_an_error() {
    let (closed, mut was_closed) = mpsc::channel(1);
    let addr = raw(move |mut stream, _| {
        let closed = closed.clone();
        async move {
            if read_head(&mut stream).await.is_some() {
                stream.write_all(ANSWER).await.unwrap();
                drop(stream);
                closed.send(()).await.unwrap();
            }
        }
    })
    .await;
    let (client, endpoint) = (client(&Timeouts::default()), endpoint(addr, false));
    for round in 0..50 {
        let answer = soon(client.send(&endpoint, get(&endpoint, "/"))).await;
        let answer = answer.unwrap_or_else(|error| panic!("round {round}: {error}"));
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "ok");
        soon(was_closed.recv()).await.unwrap();
    }
}

#[tokio::test]
async fn connections_are_kept_and_used_again() {
    let (opened, mut count) = mpsc::unbounded_channel();
    let addr = raw(move |mut stream, _| {
        opened.send(()).unwrap();
        async move {
            while read_head(&mut stream).await.is_some() {
                stream.write_all(ANSWER).await.unwrap();
            }
        }
    })
    .await;
    let (client, endpoint) = (client(&Timeouts::default()), endpoint(addr, false));
    for _ in 0..20 {
        client.send(&endpoint, get(&endpoint, "/")).await.unwrap().into_body().collect().await.unwrap();
    }
    count.close();
    assert_eq!(count.len(), 1);
    assert!(endpoint.health.first_byte() > Duration::ZERO);
}

#[tokio::test]
async fn a_cut_body_is_an_error_and_a_body_without_a_length_says_so() {
    /// What is sent after the request, and what the body must come to.
    const CASES: [(&str, &str, Result<&str, ()>, bool); 6] = [
        ("whole", "content-length: 2\r\n\r\nok", Ok("ok"), false),
        ("short", "content-length: 9\r\n\r\nok", Err(()), false),
        ("chunked", "transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", Ok("ok"), false),
        ("chunked without an end", "transfer-encoding: chunked\r\n\r\n2\r\nok\r\n", Err(()), false),
        ("bad chunk", "transfer-encoding: chunked\r\n\r\n2\r\nokXX", Err(()), false),
        ("up to the close", "connection: close\r\n\r\nok", Ok("ok"), true),
    ];
    let client = client(&Timeouts::default());
    for (name, tail, expected, close_delimited) in CASES {
        let addr = raw(move |mut stream, _| async move {
            read_head(&mut stream).await;
            stream.write_all(format!("HTTP/1.1 200 OK\r\n{tail}").as_bytes()).await.unwrap();
        })
        .await;
        let endpoint = endpoint(addr, false);
        let answer = soon(client.send(&endpoint, get(&endpoint, "/"))).await.unwrap().into_body();
        assert_eq!(answer.is_close_delimited(), close_delimited, "{name}");
        match (soon(answer.collect()).await, expected) {
            (Ok(body), Ok(text)) => assert_eq!(body.to_bytes(), text, "{name}"),
            (Err(BodyError::Cut(_)), Err(())) => assert_eq!(endpoint.health.failures(), 1, "{name}"),
            (other, _) => panic!("{name}: {other:?}"),
        }
        assert_eq!(endpoint.health.in_flight(), 0, "{name}");
    }
}

#[tokio::test]
async fn what_is_no_proper_answer_is_an_error() {
    const CASES: [&str; 8] = [
        "",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: identity\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ncontent-le",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nx: a\0b\r\ncontent-length: 2\r\n\r\nok",
        "SSH-2.0-OpenSSH_9.9\r\n",
    ];
    let client = client(&Timeouts::default());
    for answer in CASES {
        let addr = raw(move |mut stream, _| async move {
            read_head(&mut stream).await;
            stream.write_all(answer.as_bytes()).await.unwrap();
        })
        .await;
        let endpoint = endpoint(addr, false);
        let error = soon(client.send(&endpoint, get(&endpoint, "/"))).await.err();
        let error = error.unwrap_or_else(|| panic!("taken as an answer: {answer:?}"));
        assert!(matches!(error, SendError::Reset(_) | SendError::Protocol(_)), "{answer:?}: {error:?}");
    }
}

#[tokio::test]
async fn silence_within_an_answer_is_an_idle_time_out_and_back_pressure_is_not() {
    let addr = raw(|mut stream, _| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n").await.unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let endpoint = endpoint(addr, false);
    let mut answer = soon(client(&brief()).send(&endpoint, get(&endpoint, "/"))).await.unwrap().into_body();
    let first = soon(answer.frame()).await.unwrap().unwrap().into_data().unwrap();
    // The reader takes its time; that is not the upstream's.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut text = first.to_vec();
    let error = loop {
        match soon(answer.frame()).await.expect("the answer has no end") {
            Ok(frame) => text.extend_from_slice(&frame.into_data().unwrap()),
            Err(error) => break error,
        }
    };
    assert_eq!(text, b"ab");
    assert_eq!(error, BodyError::Idle(Duration::from_millis(100)));
}

#[tokio::test]
async fn http2_without_negotiation_carries_trailers() {
    let upstream = server(Limits::default(), Timeouts::default(), None, |request, _| async move {
        assert_eq!(request.version(), Version::HTTP_2);
        let (sender, body) = frames();
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        sender.send(data("one")).await.unwrap();
        sender.send(Ok(Frame::trailers(trailers))).await.unwrap();
        Response::new(body)
    })
    .await;
    let endpoint = endpoint(upstream.addr, true);
    let mut request = post(&endpoint, "/service/method", "x");
    request.headers_mut().insert("te", HeaderValue::from_static("trailers"));
    let answer = soon(client(&Timeouts::default()).send(&endpoint, request)).await.unwrap();
    assert!(!answer.body().is_close_delimited());
    let body = soon(answer.into_body().collect()).await.unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
    assert_eq!(body.to_bytes(), "one");
}

#[tokio::test]
async fn more_exchanges_than_one_http2_connection_allows_run_at_the_same_time() {
    const EXCHANGES: usize = 250;
    let all = Arc::new(Barrier::new(EXCHANGES));
    let limits = Limits { streams_max: 100, ..Limits::default() };
    let upstream = server(limits, Timeouts::default(), None, move |_, _| {
        let all = Arc::clone(&all);
        async move {
            all.wait().await;
            Response::new(full("ok"))
        }
    })
    .await;
    let (client, endpoint) = (client(&Timeouts::default()), endpoint(upstream.addr, true));
    let exchanges: Vec<_> = (0..EXCHANGES)
        .map(|_| {
            let (client, endpoint) = (client.clone(), Arc::clone(&endpoint));
            tokio::spawn(async move { client.send(&endpoint, get(&endpoint, "/")).await.map(|answer| answer.status()) })
        })
        .collect();
    for exchange in exchanges {
        assert_eq!(soon(exchange).await.unwrap(), Ok(StatusCode::OK));
    }
    assert_eq!(endpoint.health.in_flight(), 0);
}

#[tokio::test]
async fn only_an_endpoint_with_the_right_roots_is_trusted_and_a_new_certificate_is_used() {
    let pki = Pki::new();
    let upstream = server(Limits::default(), Timeouts::default(), Some(pki.tls()), |request, peer| async move {
        assert!(peer.tls);
        Response::new(full(format!("{:?}", request.version())))
    })
    .await;
    let client = client(&Timeouts::default());
    let url = format!("https://localhost:{}", upstream.addr.port());
    let ask = async |ca: Option<&[u8]>| {
        let endpoint = Endpoint::parse(&url, ca, false).unwrap();
        let answer = soon(client.send(&endpoint, get(&endpoint, "/"))).await?;
        Ok::<_, SendError>(answer.into_body().collect().await.unwrap().to_bytes())
    };
    let stranger = Pki::new();
    for round in 0..2 {
        assert_eq!(ask(Some(&pki.ca)).await, Ok(Bytes::from("HTTP/2.0")), "round {round}");
        for ca in [None, Some(stranger.ca.as_slice())] {
            let error = ask(ca).await.unwrap_err();
            assert!(matches!(&error, SendError::Tls(_)), "{error:?}");
        }
        assert_eq!(upstream.certificates.reload(), Ok(0), "nothing is new");
        pki.issue();
        assert_eq!(upstream.certificates.reload(), Ok(1));
    }
    std::fs::write(pki.key(), "-----BEGIN hunter2").unwrap();
    let error = upstream.certificates.reload().unwrap_err();
    assert!(error.contains("key.pem") && !error.contains("hunter2"), "{error}");
    assert!(ask(Some(&pki.ca)).await.is_ok(), "the old certificate stays");
}

#[tokio::test]
async fn a_dropped_exchange_is_cancelled_at_the_upstream() {
    let (gone, mut is_gone) = mpsc::channel(1);
    let addr = raw(move |mut stream, _| {
        let gone = gone.clone();
        async move {
            read_head(&mut stream).await;
            gone.send("asked").await.unwrap();
            assert_eq!(stream.read(&mut [0; 8]).await.unwrap_or(0), 0);
            gone.send("gone").await.unwrap();
        }
    })
    .await;
    let (client, endpoint) = (client(&Timeouts::default()), endpoint(addr, false));
    let exchange = tokio::spawn({
        let endpoint = Arc::clone(&endpoint);
        async move { client.send(&endpoint, get(&endpoint, "/")).await.map(|_| ()) }
    });
    assert_eq!(soon(is_gone.recv()).await, Some("asked"));
    exchange.abort();
    assert_eq!(soon(is_gone.recv()).await, Some("gone"));
    assert_eq!(endpoint.health.in_flight(), 0);
}

#[tokio::test]
async fn an_upload_that_goes_on_may_take_longer_than_the_first_byte_time_out_and_a_stalled_one_is_the_callers() {
    let upstream = server(Limits::default(), Timeouts::default(), None, |request, _| async move {
        let body = request.into_body().collect().await.map(|body| body.to_bytes());
        Response::new(full(body.unwrap_or_default()))
    })
    .await;
    let timeouts = Timeouts { first_byte_ms: 400, body_idle_ms: 400, ..Timeouts::default() };
    let (client, endpoint) = (client(&timeouts), endpoint(upstream.addr, false));
    let gateway = server(Limits::default(), timeouts, None, {
        let endpoint = Arc::clone(&endpoint);
        move |request, _| {
            let (client, endpoint) = (client.clone(), Arc::clone(&endpoint));
            async move {
                let request = http::Request::post(endpoint.uri("/").unwrap())
                    .body(OutBody::Streaming(request.into_body()))
                    .unwrap();
                match client.send(&endpoint, request).await {
                    Ok(answer) => Response::new(full(answer.into_body().collect().await.unwrap().to_bytes())),
                    Err(SendError::RequestBody(BodyError::Idle(_))) => {
                        Response::builder().status(StatusCode::REQUEST_TIMEOUT).body(full("stalled")).unwrap()
                    }
                    Err(error) => panic!("{error:?}"),
                }
            }
        }
    })
    .await;
    let head = "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 10\r\n\r\n";
    let mut stream = tokio::net::TcpStream::connect(gateway.addr).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(60)).await;
        stream.write_all(b"x").await.unwrap();
    }
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("xxxxxxxxxx"), "{answer}");

    let answer = talk(gateway.addr, format!("{head}xxx").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert_eq!(endpoint.health.failures(), 0, "a stalled caller is not the upstream's fault");
}

#[tokio::test]
async fn a_request_never_goes_to_another_authority_than_its_endpoints() {
    let upstream = server(Limits::default(), Timeouts::default(), None, ok).await;
    let endpoint = endpoint(upstream.addr, false);
    let mut request = get(&endpoint, "/");
    *request.uri_mut() = "http://localhost:1/".parse().unwrap();
    let error = client(&Timeouts::default()).send(&endpoint, request).await.unwrap_err();
    assert!(matches!(error, SendError::Protocol(_)));
    let mut request = get(&endpoint, "/");
    request.headers_mut().insert("host", HeaderValue::from_static("evil.example"));
    assert_eq!(client(&Timeouts::default()).send(&endpoint, request).await.unwrap().status(), StatusCode::OK);
}
