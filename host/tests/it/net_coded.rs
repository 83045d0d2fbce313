// SPDX-License-Identifier: Apache-2.0
//! Compressed answers: towards callers that accept them, and from vendors that nobody has asked for them. And gRPC-Web, whose bodies
//! pass as they are.

use std::io::{Read as _, Write as _};
use std::sync::Arc;

use bytes::Bytes;
use flate2::write::GzEncoder;
use flate2::{Compression, Decompress, FlushDecompress};
use http::Request;
use http_body_util::BodyExt;
use serde_json::json;
use tokio::sync::Notify;

use crate::net_support::soon;
use crate::support::caller;
use crate::support::fake::{self, Do, Fake, chunk, last_chunk, stream_head};
use crate::support::rig::Rig;

fn plain(url: &str, more: &str) -> String {
    format!(
        "[services.s]\nendpoints = [\"{url}\"]\n[[routes]]\nname = \"plain\"\npath = \"/\"\nservice = \"s\"\n{more}"
    )
}

fn vendor(url: &str, more: &str) -> String {
    format!(
        "[vendors.v]\nadapter = \"openai-compatible\"\nbase_url = \"{url}/v1\"\nmodels = [\"m\"]\n\
         [[routes]]\nname = \"ai\"\npath = \"/v1\"\n{more}"
    )
}

fn asking(path: &str, accepted: &str) -> Request<Bytes> {
    Request::get(path).header("accept-encoding", accepted).body(Bytes::new()).unwrap()
}

fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(bytes).read_to_end(&mut plain).unwrap();
    plain
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn an_answer_is_compressed_for_who_accepts_that_and_says_so() {
    let text = "{\"a\":\"something that is said again and again\"}".repeat(400);
    let body = text.clone();
    let fake = Fake::start(move |_| fake::json("200 OK", &body)).await;
    let rig = Rig::start(&plain(&fake.url(), "compress = [\"zstd\", \"br\", \"gzip\"]\n")).await;
    for (accepted, coding) in
        [("gzip", "gzip"), ("gzip, br", "br"), ("gzip, br, zstd", "zstd"), ("deflate", ""), ("gzip;q=0", "")]
    {
        let reply = soon(rig.ask(asking("/x", accepted))).await;
        assert_eq!((reply.header("content-encoding"), reply.header("vary")), (coding, "accept-encoding"), "{accepted}");
        let unpacked = match coding {
            "gzip" => gunzip(&reply.body),
            "br" => {
                let mut plain = Vec::new();
                brotli::Decompressor::new(&*reply.body, 4096).read_to_end(&mut plain).unwrap();
                plain
            }
            "zstd" => zstd::decode_all(&*reply.body).unwrap(),
            _ => reply.body.clone(),
        };
        assert!(unpacked == text.as_bytes() && !reply.cut, "{accepted}");
        assert_eq!(reply.body.len() < text.len() / 4, !coding.is_empty(), "{accepted}");
    }
    let silent = Rig::start(&plain(&fake.url(), "")).await;
    let reply = soon(silent.ask(asking("/x", "gzip"))).await;
    assert_eq!((reply.header("content-encoding"), reply.header("vary")), ("", ""), "only where the route says so");
}

#[tokio::test]
async fn an_answer_that_is_cut_is_cut_when_it_is_compressed_too() {
    let head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 90000\r\n\r\n".to_vec();
    let fake = Fake::start(move |_| vec![Do::Send(head.clone()), Do::Send(vec![b' '; 50_000]), Do::Close]).await;
    let rig = Rig::start(&plain(&fake.url(), "compress = [\"gzip\"]\n")).await;
    let reply = soon(rig.ask(asking("/x", "gzip"))).await;
    assert!(reply.cut && reply.header("content-encoding") == "gzip");
}

#[tokio::test]
async fn no_event_waits_in_the_compressor() {
    for coding in ["gzip", "zstd"] {
        each_event_comes_at_once(coding).await;
    }
}

async fn each_event_comes_at_once(coding: &str) {
    let go = Arc::new(Notify::new());
    let event = |text: &str| {
        let event = json!({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": null}]});
        chunk(format!("data: {event}\n\n").as_bytes())
    };
    let script = vec![
        stream_head(),
        event("one"),
        Do::Await(Arc::clone(&go)),
        event("two"),
        chunk(b"data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n"),
        last_chunk(),
    ];
    let fake = Fake::start(move |_| script.clone()).await;
    let rig = Rig::start(&vendor(&fake.url(), &format!("compress = [\"{coding}\"]\ncompress_events = true\n"))).await;
    let mut request = caller::post("/v1/chat/completions", &json!({"model": "m", "stream": true, "messages": []}));
    request.headers_mut().insert("accept-encoding", coding.parse().unwrap());
    let (_, headers, mut body) = caller::begin(rig.address, request).await;
    assert_eq!(headers["content-encoding"], coding);
    let (mut packed, mut first) = (Vec::new(), String::new());
    while !first.contains("one") {
        packed.extend_from_slice(&soon(body.frame()).await.unwrap().unwrap().into_data().unwrap());
        first = String::from_utf8(so_far(coding, &packed)).unwrap();
    }
    assert!(!first.contains("two"));
    go.notify_one();
    while let Some(frame) = soon(body.frame()).await {
        packed.extend_from_slice(&frame.unwrap().into_data().unwrap());
    }
    let whole = String::from_utf8(so_far(coding, &packed)).unwrap();
    assert!(whole.contains("two") && whole.ends_with("data: [DONE]\n\n"), "{whole}");
}

/// What can be unpacked of the beginning of an answer.
fn so_far(coding: &str, packed: &[u8]) -> Vec<u8> {
    const GZIP_HEAD_BYTES: usize = 10;
    let mut out = Vec::with_capacity(100_000);
    if coding == "zstd" {
        let mut decoder = zstd::stream::write::Decoder::new(&mut out).unwrap();
        decoder.write_all(packed).unwrap();
        decoder.flush().unwrap();
        drop(decoder);
    } else {
        Decompress::new(false).decompress_vec(&packed[GZIP_HEAD_BYTES..], &mut out, FlushDecompress::Sync).unwrap();
    }
    out
}

#[tokio::test]
async fn a_compressed_stream_that_breaks_has_its_error_event_and_is_cut() {
    let fake = Fake::start(move |_| {
        let event = b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"one\"},\"finish_reason\":null}]}\n\n";
        vec![stream_head(), chunk(event), Do::Close]
    })
    .await;
    let rig = Rig::start(&vendor(&fake.url(), "compress = [\"gzip\"]\ncompress_events = true\n")).await;
    let mut request = caller::post("/v1/chat/completions", &json!({"model": "m", "stream": true, "messages": []}));
    request.headers_mut().insert("accept-encoding", "gzip".parse().unwrap());
    let reply = soon(rig.ask(request)).await;
    let mut plain = Vec::with_capacity(100_000);
    let _ = Decompress::new(false).decompress_vec(&reply.body[10..], &mut plain, FlushDecompress::Sync);
    let text = String::from_utf8(plain).unwrap();
    assert!(reply.cut && text.contains("one") && text.contains("data: {\"error\":"), "{text}");
}

#[tokio::test]
async fn a_vendor_that_compresses_unasked_is_read_all_the_same() {
    let answer = r#"{"id":"x","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4}}"#;
    let whole = |coding: &str, body: &[u8]| {
        let mut bytes = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-encoding: {coding}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        bytes.extend_from_slice(body);
        vec![Do::Send(bytes)]
    };
    let bomb = gzip(&vec![b' '; 64 << 20]);
    let packed = gzip(answer.as_bytes());
    let cases = [
        (whole("gzip", &packed), 200, ""),
        (whole("identity", answer.as_bytes()), 200, ""),
        (whole("gzip", &packed[..packed.len() - 9]), 502, "upstream-cut"),
        (whole("gzip", answer.as_bytes()), 502, "upstream-cut"),
        (whole("gzip", &bomb), 502, "upstream-cut"),
        (whole("zstd", &zstd::encode_all(answer.as_bytes(), 3).unwrap()), 200, ""),
        (whole("zstd", &zstd::encode_all(&vec![b' '; 64 << 20][..], 3).unwrap()), 502, "upstream-cut"),
        (whole("zstd", &packed), 502, "upstream-cut"),
        (whole("compress", &packed), 502, "upstream-bad-answer"),
    ];
    for (script, status, failure) in cases {
        let fake = Fake::start(move |_| script.clone()).await;
        let rig = Rig::start(&vendor(&fake.url(), "")).await;
        for path in ["/v1/chat/completions", "/v1/messages"] {
            let body = json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]});
            let reply = soon(rig.post(path, &body)).await;
            assert_eq!(
                (reply.status.as_u16(), reply.header("penstock-failure")),
                (status, failure),
                "{path} {}",
                reply.text()
            );
            assert_eq!(reply.header("content-encoding"), "");
            assert!(status != 200 || reply.json().to_string().contains("\"hi\""), "{}", reply.text());
        }
    }
    let events = b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"one\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
    let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n";
    let script =
        [vec![Do::Send(head.to_vec())], gzip(events).chunks(5).map(chunk).collect(), vec![last_chunk()]].concat();
    let fake = Fake::start(move |_| script.clone()).await;
    let rig = Rig::start(&vendor(&fake.url(), "")).await;
    let reply = rig.post("/v1/chat/completions", &json!({"model": "m", "stream": true, "messages": []})).await;
    assert_eq!(reply.body, events);
}

#[tokio::test]
async fn grpc_web_passes_as_it_is_in_both_forms_and_browsers_may_read_it() {
    // A message and the trailers, as frames of the body (grpc/doc/PROTOCOL-WEB.md).
    let binary = [&b"\0\0\0\x08\x00"[..], &[7; 2048], b"\x80\0\0\0\x0fgrpc-status:0\r\n"].concat();
    let text = b"AAAAAAIIAQ==gAAAAA9ncnBjLXN0YXR1czowDQo=".repeat(40);
    for (kind, body) in [("application/grpc-web+proto", binary), ("application/grpc-web-text", text)] {
        let (sent, of_kind) = (body.clone(), kind.to_owned());
        let fake = Fake::start(move |_| fake::whole("200 OK", &of_kind, &sent)).await;
        let cors = "[plugins.cors]\nplugin = \"cors\"\nconfig = { origins = [\"https://app.example\"], expose = [\"grpc-status\", \
                    \"grpc-message\"] }\n";
        let route = plain(&fake.url(), "filters = [\"cors\"]\ncompress = [\"gzip\"]\ncompress_events = true\n");
        let rig = Rig::start(&format!("{cors}{route}")).await;
        let page = |method: &str| {
            Request::builder().method(method).uri("/pkg.Service/Call").header("origin", "https://app.example")
        };
        let preflight = page("OPTIONS").header("access-control-request-method", "POST");
        let preflight = preflight.header("access-control-request-headers", "content-type,x-grpc-web");
        let reply = soon(rig.ask(preflight.body(Bytes::new()).unwrap())).await;
        assert_eq!((reply.status.as_u16(), reply.header("access-control-allow-origin")), (204, "https://app.example"));
        let request =
            page("POST").header("content-type", kind).header("x-grpc-web", "1").header("accept-encoding", "gzip");
        let reply = soon(rig.ask(request.body(Bytes::from(body.clone())).unwrap())).await;
        assert!(reply.body == body && fake.last().body == body, "{kind}");
        assert_eq!((reply.header("content-type"), reply.header("content-encoding")), (kind, ""));
        assert_eq!(reply.header("access-control-expose-headers"), "grpc-status, grpc-message");
        assert_eq!(
            (fake.last().line.as_str(), fake.last().header("x-grpc-web")),
            ("POST /pkg.Service/Call", Some("1"))
        );
    }
}
