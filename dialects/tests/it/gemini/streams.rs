// SPDX-License-Identifier: Apache-2.0
//! Streams, both ways, of shapes that few recordings have.

use serde_json::{Value, json};

use penstock_dialects::codec::Codec;
use penstock_dialects::collect;
use penstock_dialects::ir::{Event, Fault, FaultClass, Finish};

use super::{CODEC, as_stream, elements, envelope};
use crate::anthropic::recorded::{folded, reading, streamed};

/// A stream as the vendor sends it.
fn sse(chunks: &[Value]) -> Vec<u8> {
    chunks.iter().flat_map(|chunk| format!("data: {chunk}\r\n\r\n").into_bytes()).collect()
}

fn parts(parts: &Value) -> Value {
    json!({"candidates": [{"content": {"parts": parts, "role": "model"}, "index": 0}], "responseId": "r", "modelVersion": "m"})
}

fn finished(reason: &str) -> Value {
    json!({"candidates": [{"content": {"parts": [{"text": ""}], "role": "model"}, "finishReason": reason, "index": 0}]})
}

#[test]
fn a_stop_after_a_call_is_told_as_tool_calls_in_whatever_chunk_it_comes() {
    let call = json!([{"functionCall": {"name": "f", "args": {"a": 1}}}]);
    let mut with_stop = parts(&call);
    with_stop["candidates"][0]["finishReason"] = json!("STOP");
    for chunks in [vec![parts(&call), parts(&call), finished("STOP")], vec![parts(&call), with_stop]] {
        let response = folded(&streamed(&CODEC, &sse(&chunks)));
        let read = reading(&response);
        assert_eq!(read["finish"], "tool_calls");
        let call = json!({"id": "", "name": "f", "arguments": {"a": 1}});
        assert_eq!(read["tool_calls"], json!([call, call]), "parallel calls have no index");
    }
}

#[test]
fn a_stream_without_a_finish_reason_was_cut() {
    let events = streamed(&CODEC, &sse(&[parts(&json!([{"text": "a"}]))]));
    assert!(!events.iter().any(|event| matches!(event, Event::Finish(_))));
    let whole = CODEC.decode_response(parts(&json!([{"text": "a"}])).to_string().as_bytes()).expect("an answer");
    assert!(matches!(whole.last(), Some(Event::Finish(_))), "a whole answer has ended");
}

#[test]
fn a_refused_prompt_is_a_content_filter() {
    let refused = json!({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": {"promptTokenCount": 3, "totalTokenCount": 3}});
    let filtered = Finish { reason: "content_filter".into(), sequence: None };
    for events in [
        streamed(&CODEC, &sse(std::slice::from_ref(&refused))),
        CODEC.decode_response(refused.to_string().as_bytes()).expect("an answer"),
    ] {
        let response = folded(&events);
        assert_eq!(response.finish, Some(filtered.clone()));
        let again: Value = serde_json::from_slice(&CODEC.encode_response(&response, &envelope(false))).expect("JSON");
        assert_eq!(again["promptFeedback"], refused["promptFeedback"]);
        assert_eq!(again["candidates"][0]["finishReason"], "SAFETY");
    }
}

#[test]
fn an_error_inside_a_stream_is_a_fault() {
    let error = json!({"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}});
    let stream = sse(&[parts(&json!([{"text": "a"}])), error.clone()]);
    let array = format!("[{}\n,\r\n{error}\n]", parts(&json!([{"text": "a"}]))).into_bytes();
    for stream in [stream, array] {
        let response = folded(&streamed(&CODEC, &stream));
        assert_eq!(response.fault.map(|fault| fault.class), Some(FaultClass::Overloaded));
        assert_eq!(response.finish, None);
    }
    for body in [error.to_string(), json!([error]).to_string()] {
        assert_eq!(CODEC.decode_response(body.as_bytes()).expect_err("a fault").class, FaultClass::Overloaded);
    }
    let mut tap = CODEC.tap();
    tap.frame(&penstock_dialects::framing::Frame { name: "", data: error.to_string().as_bytes() });
    assert_eq!(tap.fault().map(|fault| fault.class), Some(FaultClass::Overloaded));
}

#[test]
fn nonsense_is_the_vendors_bug_and_nothing_worse() {
    for data in [
        "{",
        "1",
        "null",
        "[1]",
        "\"x\"",
        "{\"candidates\":1}",
        "{\"candidates\":[1,{\"content\":1},{\"content\":{\"parts\":[1,{\"functionCall\":2}]}}]}",
    ] {
        let events = streamed(&CODEC, format!("data: {data}\r\n\r\n").as_bytes());
        let _ = CODEC.decode_response(data.as_bytes());
        let faulty = ["{", "1", "null", "[1]", "\"x\""].contains(&data);
        assert_eq!(events.iter().any(|event| matches!(event, Event::Fault(_))), faulty, "{data}");
    }
    assert_eq!(CODEC.decode_response(b"{}").expect_err("no answer").class, FaultClass::VendorBug);
}

#[test]
fn a_thrown_error_closes_the_array() {
    let fault = Fault { retry_after_ms: Some(2000), ..Fault::new(FaultClass::RateLimit, "slow down") };
    for (begun, said) in [(false, false), (false, true), (true, false)] {
        let mut envelope = envelope(true);
        envelope.begun = begun;
        let mut out = if begun { b"[{\"candidates\":[]}\n".to_vec() } else { Vec::new() };
        let mut encoder = CODEC.stream_encoder(&envelope);
        if said {
            encoder.event(&Event::Text("a".into()), &mut out);
        }
        encoder.fault(&fault, &mut out);
        let elements: Vec<Value> =
            serde_json::from_slice(&out).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&out)));
        assert_eq!(elements.len(), 1 + usize::from(begun || said));
        let error = &elements.last().expect("an element")["error"];
        assert_eq!((&error["code"], &error["status"]), (&json!(429), &json!("RESOURCE_EXHAUSTED")));
    }
    let mut out = Vec::new();
    CODEC.stream_encoder(&envelope(false)).event(&Event::Fault(fault), &mut out);
    assert!(out.starts_with(b"data: {\"error\":{\"code\":429,"), "SDKs look for an error at the very beginning");
    assert!(out.ends_with(b"}\r\n\r\n"));
}

#[test]
fn arguments_in_pieces_become_whole_calls() {
    let Some(folder) = crate::recordings::shared("open/gemini") else { return };
    let read = |name: &str| {
        let stream = std::fs::read(folder.join(name).join("stream.txt")).expect("a recording");
        reading(&folded(&streamed(&CODEC, &stream)))
    };
    let several = read("responseonly-google-stream-no-args-tool-call-chunks-txt-ea54");
    let call = |name: &str, arguments: &Value| json!({"id": "", "name": name, "arguments": arguments});
    let screen = |id: &str| call("read_screen", &json!({ "id": id }));
    let expected = json!([call("read_theme", &json!({})), screen("A"), screen("B"), screen("C")]);
    assert_eq!(several["tool_calls"], expected);
    let unclosed = read("responseonly-google-stream-tool-call-array-arguments-missing-terminal-fun-33c3");
    let operation = |id: &str, description: &str, price: f64| json!({"action": "add", "description": description, "itemid": id, "price": price});
    let operations =
        [operation("apple_001", "Fresh red apple", 0.5), operation("banana_001", "Ripe yellow banana", 0.3)];
    assert_eq!(unclosed["tool_calls"], json!([call("writeItems", &json!({"operations": operations}))]));
    let nested = read("responseonly-google-vertex-stream-tool-call-arguments-nested-1-chunks-txt-76de");
    let recipe = &nested["tool_calls"][0]["arguments"]["recipe"];
    assert_eq!(recipe["ingredients"][1], json!({"amount": "1 lb", "name": "Ground beef"}));
    assert_eq!(recipe["steps"][9], "Let stand for 15 minutes before serving.");
    assert_eq!(nested["tool_calls"].as_array().map(Vec::len), Some(1));
}

#[test]
fn calls_are_told_whole_and_in_order_however_their_pieces_come() {
    let tool = |index: u32| Event::Tool { index, id: format!("id{index}"), name: format!("f{index}") };
    let input = |index: u32, json: &str| Event::ToolInput { index, json: json.into() };
    let finish = Event::Finish(Finish { reason: "tool_calls".into(), sequence: None });
    let start = Event::Start { id: "a".into(), model: "m".into() };
    let cases = [
        vec![start.clone(), tool(0), tool(1), input(1, "{\"b\""), input(0, "{}"), input(1, ":1}"), finish.clone()],
        vec![
            start.clone(),
            tool(0),
            input(0, "{}"),
            Event::BlockEnd,
            tool(1),
            input(1, "{\"b\":1}"),
            Event::BlockEnd,
            finish.clone(),
        ],
        vec![start, tool(0), Event::BlockEnd, tool(1), input(1, "{\"b\":1}"), finish],
    ];
    for events in cases {
        let stream = as_stream(&CODEC, &events, false);
        let calls: Vec<Value> = elements(&stream)
            .iter()
            .flat_map(|chunk| chunk["candidates"][0]["content"]["parts"].as_array().cloned().unwrap_or_default())
            .filter_map(|part| part.get("functionCall").cloned())
            .collect();
        let expected =
            [json!({"name": "f0", "args": {}, "id": "id0"}), json!({"name": "f1", "args": {"b": 1}, "id": "id1"})];
        assert_eq!(calls, expected, "{events:?}");
    }
}

#[test]
fn what_only_this_dialect_knows_survives() {
    let candidate = json!({
        "content": {"parts": [
            {"executableCode": {"language": "PYTHON", "code": "1"}, "thoughtSignature": "c2Vl"},
            {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}},
            {"text": "é one. two"},
            {"inlineData": {"mimeType": "image/png", "data": "AAAA"}, "thoughtSignature": "aW1n"}], "role": "model"},
        "finishReason": "STOP", "index": 0,
        "safetyRatings": [{"category": "c", "probability": "LOW"}],
        "logprobsResult": {"topCandidates": [{"candidates": []}], "chosenCandidates": [{"token": "a", "logProbability": -0.5}]},
        "groundingMetadata": {"webSearchQueries": ["q", "r"], "groundingChunks": [{"web": {"uri": "https://a.example", "title": "A"}}],
            "groundingSupports": [{"segment": {"startIndex": 3, "endIndex": 7}, "groundingChunkIndices": [0]}]},
    });
    let answer = json!({"candidates": [candidate], "createTime": "2026-01-01T00:00:00Z", "responseId": "r", "modelVersion": "alias",
        "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 2, "totalTokenCount": 3}});
    let response = folded(&CODEC.decode_response(answer.to_string().as_bytes()).expect("an answer"));
    let other = |name: &str| response.other.iter().filter(|(known, _)| known == name).count();
    assert_eq!((other("annotations"), other("images"), other("logprobs")), (1, 1, 1));
    assert_eq!(
        response.usage.as_ref().map(|usage| usage.more.clone()),
        Some(vec![("tool-google_search".to_owned(), 2)])
    );
    let again: Value = serde_json::from_slice(&CODEC.encode_response(&response, &envelope(false))).expect("JSON");
    let mut ordered = again;
    // The image is told beside the blocks, and so comes last; its signature waits for it.
    assert_eq!(ordered["candidates"][0]["content"]["parts"][3], candidate["content"]["parts"][3]);
    ordered["candidates"][0]["content"].take();
    let mut expected = answer;
    expected["candidates"][0]["content"].take();
    assert_eq!(ordered, expected);
    let stream = as_stream(&CODEC, &collect::events(&response), false);
    assert_eq!(folded(&streamed(&CODEC, &stream)).blocks, response.blocks);
}
