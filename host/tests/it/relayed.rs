// SPDX-License-Identifier: Apache-2.0
//! Same dialect on both sides: the caller's bytes go out, the vendor's bytes come back.

use serde_json::json;

use crate::support::fake::{self, Do, Fake, chunk, last_chunk, stream_head};
use crate::support::rig::Rig;

const STREAM: &[u8] = b": hello\n\ndata: {\"id\":\"c1\",\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"Hi\"}}]}\n\ndata: {\"id\":\"c1\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1,\"total_tokens\":4},\"odd\":1e2}\n\ndata: [DONE]\n\n";

pub fn policy(url: &str) -> String {
    format!(
        "[vendors.v]\nadapter = \"openai-compatible\"\nbase_url = \"{url}/v1\"\nmodels = [\"m\"]\n\
         [[routes]]\nname = \"ai\"\npath = \"/v1\"\n"
    )
}

#[tokio::test]
async fn a_whole_answer_comes_back_byte_for_byte_and_only_the_model_changes_on_the_way_out() {
    let answer = r#"{ "id":"x", "odd": 1.50e1, "choices":[{"index":0,"message":{"role":"assistant","content":"é"},"finish_reason":"stop"}], "usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4}}"#;
    let fake = Fake::start(move |_| fake::json("200 OK", answer)).await;
    let rig = Rig::start(&policy(&fake.url())).await;
    let body =
        "{ \"messages\" : [{\"role\":\"user\",\"content\":\"a\\u00e9\"}] , \"model\":\"v/m\", \"extra\": 1.0e3 }";
    let request = http::Request::post("/v1/chat/completions").body(body.into()).unwrap();
    let reply = rig.ask(request).await;
    assert_eq!((reply.status.as_u16(), reply.text()), (200, answer.to_owned()));
    let asked = fake.last();
    assert_eq!(asked.line, "POST /v1/chat/completions");
    assert_eq!(String::from_utf8(asked.body).unwrap(), body.replace("v/m", "m"));
}

#[tokio::test]
async fn a_stream_comes_back_byte_for_byte_wherever_the_network_cuts_it() {
    let cuts: Vec<usize> = (1..STREAM.len()).step_by(17).collect();
    for at in cuts {
        let script = vec![stream_head(), chunk(&STREAM[..at]), chunk(&STREAM[at..]), last_chunk()];
        let fake = Fake::start(move |_| script.clone()).await;
        let rig = Rig::start(&policy(&fake.url())).await;
        let reply = rig.post("/v1/chat/completions", &json!({"model": "m", "stream": true, "messages": []})).await;
        assert_eq!(reply.body, STREAM, "cut at {at}");
        assert!(!reply.cut);
    }
}

#[tokio::test]
async fn a_stream_that_breaks_ends_with_an_error_event_and_a_cut() {
    let ways: [(&str, Vec<Do>); 3] = [
        ("connection lost", vec![Do::Close]),
        ("ended without its terminal event", vec![last_chunk()]),
        ("ended within an event", vec![chunk(b"data: {\"id\":"), last_chunk()]),
    ];
    for (way, rest) in ways {
        let mut script = vec![stream_head(), chunk(&STREAM[..110])];
        script.extend(rest);
        let fake = Fake::start(move |_| script.clone()).await;
        let rig = Rig::start(&policy(&fake.url())).await;
        let reply = rig.post("/v1/chat/completions", &json!({"model": "m", "stream": true, "messages": []})).await;
        let text = reply.text();
        let last = text.trim_end().rsplit("\n\n").next().unwrap();
        assert!(last.starts_with("data: {\"error\":"), "{way}: {text}");
        assert!(reply.cut, "{way}");
        assert!(!text.contains("data: {\"id\":data"), "{way}: half an event went out: {text}");
    }
}

#[tokio::test]
async fn the_vendors_own_error_comes_back_as_it_is() {
    let error = r#"{"error":{"message":"no","type":"invalid_request_error","param":null,"code":"odd"}}"#;
    let fake = Fake::start(move |_| fake::json("400 Bad Request", error)).await;
    let rig = Rig::start(&policy(&fake.url())).await;
    let reply = rig.post("/v1/chat/completions", &json!({"model": "m", "messages": []})).await;
    assert_eq!((reply.status.as_u16(), reply.text()), (400, error.to_owned()));
}
