// SPDX-License-Identifier: Apache-2.0
//! Another target is tried before the first byte, and never after it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::support::caller::{self, post};
use crate::support::fake::{self, Do, Fake, chunk, stream_head};
use crate::support::rig::Rig;

const GOOD: &str = r#"{"id":"x","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"second"},"finish_reason":"stop"}]}"#;

fn policy(first: &str, second: &str) -> String {
    format!(
        "[timeouts]\nconnect_ms = 500\nfirst_byte_ms = 300\nidle_ms = 300\n\
         [plugins.order]\nplugin = \"priority\"\n\
         [vendors.a]\nadapter = \"openai-compatible\"\nbase_url = \"{first}\"\n\
         [vendors.b]\nadapter = \"openai-compatible\"\nbase_url = \"{second}\"\n\
         [models.m]\ntargets = [{{ vendor = \"b\", priority = 1 }}, {{ vendor = \"a\" }}]\n\
         [[routes]]\nname = \"ai\"\npath = \"/\"\nrouting = \"order\"\n"
    )
}

fn chat(streaming: bool) -> Value {
    json!({"model": "m", "stream": streaming, "messages": [{"role": "user", "content": "hi"}]})
}

async fn second() -> Fake {
    Fake::start(|_| fake::json("200 OK", GOOD)).await
}

#[tokio::test]
async fn every_failure_before_the_first_byte_goes_to_the_next_target() {
    let error =
        |status, class: &str| fake::json(status, &format!(r#"{{"error":{{"message":"no","type":"{class}"}}}}"#));
    let cases: [(&str, Vec<Do>); 9] = [
        ("401", error("401 Unauthorized", "invalid_api_key")),
        ("429", error("429 Too Many Requests", "rate_limit_exceeded")),
        ("500", error("500 Internal Server Error", "server_error")),
        ("503", error("503 Service Unavailable", "overloaded")),
        ("no answer", vec![Do::Close]),
        ("silence", vec![Do::Await(Arc::new(Notify::new()))]),
        ("half a whole answer", vec![Do::Send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{".to_vec()), Do::Close]),
        (
            "half an answer of unknown length",
            vec![Do::Send(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{\"id\":".to_vec()), Do::Close],
        ),
        ("no HTTP", vec![Do::Send(b"SSH-2.0-OpenSSH_9\r\n\r\n".to_vec()), Do::Close]),
    ];
    for (name, script) in cases {
        let first = Fake::start(move |_| script.clone()).await;
        let second = second().await;
        let rig = Rig::start(&policy(&first.url(), &second.url())).await;
        let reply = rig.post("/chat/completions", &chat(false)).await;
        assert_eq!((reply.status.as_u16(), reply.text()), (200, GOOD.to_owned()), "{name}");
        assert_eq!(reply.header("penstock-target"), "b/m", "{name}");
        assert_eq!(first.asked().len(), 1, "{name}");
    }
}

#[tokio::test]
async fn a_target_that_cannot_be_reached_is_passed_over() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", gone.local_addr().unwrap());
    drop(gone);
    let second = second().await;
    let rig = Rig::start(&policy(&url, &second.url())).await;
    assert_eq!(rig.post("/chat/completions", &chat(false)).await.text(), GOOD);
}

#[tokio::test]
async fn a_stream_that_begins_with_an_error_goes_to_the_next_target() {
    let error = b"data: {\"error\":{\"message\":\"overloaded\",\"type\":\"server_error\",\"code\":503}}\n\n";
    let good = b"data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
    let first = Fake::start(move |_| fake::stream(error)).await;
    let second = Fake::start(move |_| fake::stream(good)).await;
    let rig = Rig::start(&policy(&first.url(), &second.url())).await;
    assert_eq!(rig.post("/chat/completions", &chat(true)).await.body, good);
}

#[tokio::test]
async fn who_may_do_better_a_moment_later_is_asked_a_second_time_when_nobody_else_is_left() {
    let error = |status| fake::json(status, r#"{"error":{"message":"no","type":"server_error"}}"#);
    let times = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&times);
    let first = Fake::start(move |_| match seen.fetch_add(1, Ordering::Relaxed) {
        0 => error("503 Service Unavailable"),
        _ => fake::json("200 OK", GOOD),
    });
    let (first, second) = (first.await, Fake::start(move |_| error("401 Unauthorized")).await);
    let rig = Rig::start(&policy(&first.url(), &second.url())).await;
    assert_eq!(rig.post("/chat/completions", &chat(false)).await.text(), GOOD);
    assert_eq!((first.asked().len(), second.asked().len()), (2, 1));
}

#[tokio::test]
async fn the_callers_mistake_is_not_tried_again() {
    let error = r#"{"error":{"message":"bad","type":"invalid_request_error","param":null,"code":null}}"#;
    let first = Fake::start(move |_| fake::json("400 Bad Request", error)).await;
    let second = second().await;
    let rig = Rig::start(&policy(&first.url(), &second.url())).await;
    let reply = rig.post("/chat/completions", &chat(false)).await;
    assert_eq!((reply.status.as_u16(), reply.text()), (400, error.to_owned()));
    assert!(second.asked().is_empty());
}

#[tokio::test]
async fn after_the_first_byte_nothing_is_tried_again() {
    let begun = b"data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"}}]}\n\n";
    let first = Fake::start(move |_| vec![stream_head(), chunk(begun), Do::Close]).await;
    let second = second().await;
    let rig = Rig::start(&policy(&first.url(), &second.url())).await;
    let reply = rig.post("/chat/completions", &chat(true)).await;
    assert!(reply.cut && reply.text().contains("data: {\"error\":"), "{}", reply.text());
    assert!(second.asked().is_empty());
}

#[tokio::test]
async fn when_all_targets_fail_the_caller_is_told_not_to_multiply_the_tries() {
    let error = r#"{"error":{"message":"later","type":"rate_limit_exceeded","param":null,"code":null}}"#;
    let first = Fake::start(move |_| fake::json("429 Too Many Requests", error)).await;
    let second = Fake::start(move |_| fake::json("429 Too Many Requests", error)).await;
    let rig = Rig::start(&policy(&first.url(), &second.url())).await;
    let reply = rig.post("/chat/completions", &chat(false)).await;
    assert_eq!((reply.status.as_u16(), reply.header("x-should-retry")), (429, "false"));
    assert_eq!((first.asked().len(), second.asked().len()), (1, 1));
}

#[tokio::test]
async fn a_caller_who_hangs_up_cancels_the_upstream() {
    for streaming in [false, true] {
        let (reached, closed) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let mut script = vec![Do::Tell(Arc::clone(&reached))];
        if streaming {
            script.push(stream_head());
            script.push(chunk(b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"}}]}\n\n"));
        }
        script.push(Do::UntilClosed(Arc::clone(&closed)));
        let first = Fake::start(move |_| script.clone()).await;
        let patient = policy(&first.url(), &first.url()).replace("= 300", "= 60000");
        let rig = Rig::start(&patient).await;
        let address = rig.address;
        let asking =
            tokio::spawn(async move { caller::begin(address, post("/chat/completions", &chat(streaming))).await });
        reached.notified().await;
        if streaming {
            drop(asking.await.unwrap());
        } else {
            asking.abort();
        }
        closed.notified().await;
    }
}
