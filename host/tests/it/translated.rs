// SPDX-License-Identifier: Apache-2.0
//! Another dialect on the other side: through the adapter and the canonical form, and back.

use serde_json::{Value, json};

use crate::support::fake::{self, Do, Fake, chunk, last_chunk, stream_head};
use crate::support::rig::Rig;

fn policy(adapter: &str, url: &str, more: &str) -> String {
    format!(
        "[limits]\nblob_bytes_min = 64\n[vendors.v]\nadapter = \"{adapter}\"\nbase_url = \"{url}\"\nmodels = [\"m\"]\n\
         [[routes]]\nname = \"ai\"\npath = \"/v1\"\n{more}"
    )
}

fn messages(streaming: bool) -> Value {
    json!({"model": "m", "max_tokens": 50, "stream": streaming, "messages": [{"role": "user", "content": "hi"}]})
}

const CHAT: &str = r#"{"id":"c1","model":"m-1","choices":[{"index":0,"message":{"role":"assistant","content":"Hello","reasoning_content":"Hm"},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":4,"total_tokens":13,"prompt_tokens_details":{"cached_tokens":5}}}"#;

#[tokio::test]
async fn an_answer_in_one_dialect_is_read_in_the_other() {
    let fake = Fake::start(|_| fake::json("200 OK", CHAT)).await;
    let rig = Rig::start(&policy("openai-compatible", &fake.url(), "")).await;
    let reply = rig.post("/v1/messages", &messages(false)).await;
    let said = reply.json();
    assert_eq!((reply.status.as_u16(), &said["type"]), (200, &json!("message")), "{said}");
    assert_eq!(said["content"][1]["text"], "Hello", "{said}");
    assert_eq!(said["content"][0]["thinking"], "Hm", "{said}");
    assert_eq!(said["stop_reason"], "end_turn");
    assert_eq!((&said["usage"]["input_tokens"], &said["usage"]["cache_read_input_tokens"]), (&json!(4), &json!(5)));
    let asked = fake.last();
    assert_eq!(asked.line, "POST /chat/completions");
    assert_eq!(asked.json()["messages"][0]["content"], "hi");
}

#[tokio::test]
async fn a_stream_is_translated_as_it_comes_wherever_it_is_cut() {
    let stream = "data: {\"id\":\"c\",\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"Grü\"}}]}\r\n\r\ndata: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"ße\"}}]}\r\n\r\ndata: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2,\"total_tokens\":5}}\r\n\r\ndata: [DONE]\r\n\r\n".as_bytes();
    for at in (1..stream.len()).step_by(23) {
        let script = vec![stream_head(), chunk(&stream[..at]), chunk(&stream[at..]), last_chunk()];
        let fake = Fake::start(move |_| script.clone()).await;
        let rig = Rig::start(&policy("openai-compatible", &fake.url(), "")).await;
        let reply = rig.post("/v1/messages", &messages(true)).await;
        let text = reply.text();
        let said: String = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok())
            .filter_map(|event| event["delta"]["text"].as_str().map(str::to_owned))
            .collect();
        assert_eq!(said, "Grüße", "cut at {at}: {text}");
        assert!(text.contains("event: message_stop") && !reply.cut, "{text}");
    }
}

#[tokio::test]
async fn a_translated_stream_that_breaks_ends_with_the_callers_error_event() {
    let begun = b"data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"}}]}\n\n";
    for rest in [vec![Do::Close], vec![last_chunk()]] {
        let mut script = vec![stream_head(), chunk(begun)];
        script.extend(rest);
        let fake = Fake::start(move |_| script.clone()).await;
        let rig = Rig::start(&policy("openai-compatible", &fake.url(), "")).await;
        let reply = rig.post("/v1/messages", &messages(true)).await;
        assert!(reply.cut && reply.text().contains("event: error\ndata: {\"type\":\"error\""), "{}", reply.text());
        assert!(!reply.text().contains("message_stop"), "{}", reply.text());
    }
}

#[tokio::test]
async fn an_error_keeps_its_class_across_dialects() {
    let error = r#"{"type":"error","error":{"type":"rate_limit_error","message":"slow down"}}"#;
    let fake = Fake::start(move |_| fake::json("429 Too Many Requests", error)).await;
    let rig = Rig::start(&policy("anthropic", &fake.url(), "")).await;
    let reply =
        rig.post("/v1/chat/completions", &json!({"model": "m", "messages": [{"role": "user", "content": "a"}]})).await;
    assert_eq!(reply.status.as_u16(), 429);
    assert!(reply.json()["error"]["message"].as_str().unwrap().contains("slow down"), "{}", reply.text());
}

#[tokio::test]
async fn what_has_no_place_is_told_and_on_a_strict_route_refused() {
    let body = json!({"model": "m", "max_tokens": 5, "top_k": 4, "messages": [{"role": "user", "content": "a"}]});
    let fake = Fake::start(|_| fake::json("200 OK", CHAT)).await;
    let rig = Rig::start(&policy("openai-compatible", &fake.url(), "")).await;
    let reply = rig.post("/v1/messages", &body).await;
    assert_eq!((reply.status.as_u16(), reply.header("penstock-dropped")), (200, "top_k"));
    let strict = Rig::start(&policy("openai-compatible", &fake.url(), "strict = true\n")).await;
    let reply = strict.post("/v1/messages", &body).await;
    assert_eq!((reply.status.as_u16(), reply.header("penstock-failure")), (400, "not-carried"), "{}", reply.text());
    assert!(reply.text().contains("top_k"));
    assert_eq!(fake.asked().len(), 1, "a refused call is not sent");
}

#[tokio::test]
async fn a_picture_goes_round_the_plugin_and_arrives_whole() {
    let picture = "iVBORw0KGgo".repeat(5000);
    let fake = Fake::start(|_| fake::json("200 OK", CHAT)).await;
    let rig = Rig::start(&policy("openai-compatible", &fake.url(), "")).await;
    let source = json!({"type": "base64", "media_type": "image/png", "data": picture});
    let content = json!([{"type": "image", "source": source}, {"type": "text", "text": "@blob:0000000000000000:0@"}]);
    let body = json!({"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": content}]});
    let reply = rig.post("/v1/messages", &body).await;
    assert_eq!(reply.status.as_u16(), 200, "{}", reply.text());
    let sent = fake.last().json();
    let parts = sent["messages"][0]["content"].as_array().unwrap().clone();
    assert!(parts.iter().any(|part| part["image_url"]["url"] == format!("data:image/png;base64,{picture}")));
    assert!(parts.iter().any(|part| part["text"] == "@blob:0000000000000000:0@"), "a caller's text is no marker");
}

#[tokio::test]
async fn tokens_are_counted_also_where_the_vendor_cannot() {
    let rig = Rig::start(&policy("openai-compatible", "http://127.0.0.1:1", "")).await;
    let reply = rig.post("/v1/messages/count_tokens", &messages(false)).await;
    assert!(reply.json()["input_tokens"].as_u64().unwrap() > 0, "{}", reply.text());
}

#[tokio::test]
async fn what_cannot_be_translated_is_refused_with_the_reason() {
    let rig = Rig::start(&policy("anthropic", "http://127.0.0.1:1", "")).await;
    let reply = rig.post("/v1/embeddings", &json!({"model": "m", "input": "a"})).await;
    assert_eq!((reply.status.as_u16(), reply.header("penstock-failure")), (400, "unsupported"), "{}", reply.text());
}
