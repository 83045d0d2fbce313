// SPDX-License-Identifier: Apache-2.0
//! openai-responses, case by case: what recordings do not hold, or not by themselves.

use penstock_dialects::codec::{Codec, Envelope, ModelEntry};
use penstock_dialects::collect::CITATION;
use penstock_dialects::conformance::{decode, stream_events};
use penstock_dialects::framing::{Frame, SseParser};
use penstock_dialects::ir::{Content, Event, Fault, FaultClass, Finish, Response, Usage};
use serde_json::{Value, json};

use super::{CODEC, as_stream, comparable, envelope, grammar};
use crate::anthropic::recorded::{folded, reading};

fn sse(events: &[Value]) -> Vec<u8> {
    events.iter().flat_map(|event| format!("data: {event}\n\n").into_bytes()).collect()
}

fn read(events: &[Value]) -> Response {
    folded(&stream_events(&CODEC, &sse(events)).unwrap())
}

fn created() -> Value {
    json!({ "type": "response.created", "response": { "id": "resp_1", "model": "m", "status": "in_progress", "output": [] } })
}

fn last(kind: &str, more: &Value) -> Value {
    let mut response = json!({ "id": "resp_1", "model": "m", "status": kind, "output": [] });
    response.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
    json!({ "type": format!("response.{kind}"), "response": response })
}

fn added(place: u64, item: &Value) -> Value {
    json!({ "type": "response.output_item.added", "output_index": place, "item": item })
}

fn done(place: u64, item: &Value) -> Value {
    json!({ "type": "response.output_item.done", "output_index": place, "item": item })
}

fn message(text: &str) -> Value {
    json!({ "type": "message", "id": "msg_1", "role": "assistant", "content": [{ "type": "output_text", "text": text }] })
}

fn call(id: &str, arguments: &str) -> Value {
    json!({ "type": "function_call", "id": format!("fc_{id}"), "call_id": id, "name": "f", "arguments": arguments })
}

fn delta(kind: &str, place: u64, text: &str) -> Value {
    json!({ "type": format!("response.{kind}.delta"), "output_index": place, "content_index": 0, "delta": text })
}

/// Streams that say the same: a text, and a call.
fn streams_with_gaps() -> Vec<(&'static str, Vec<Value>)> {
    vec![
        (
            "no output in the last event (Codex)",
            vec![
                created(),
                added(0, &message("")),
                delta("output_text", 0, "hi"),
                done(0, &message("hi")),
                added(1, &call("c", "")),
                delta("function_call_arguments", 1, "{}"),
                done(1, &call("c", "{}")),
                last("completed", &json!({})),
            ],
        ),
        (
            "no deltas",
            vec![created(), done(0, &message("hi")), done(1, &call("c", "{}")), last("completed", &json!({}))],
        ),
        ("only the last event", vec![last("completed", &json!({ "output": [message("hi"), call("c", "{}")] }))]),
        (
            "no ends of items",
            vec![
                created(),
                added(0, &message("")),
                delta("output_text", 0, "hi"),
                added(1, &call("c", "")),
                delta("function_call_arguments", 1, "{}"),
                last("completed", &json!({ "output": [message("hi"), call("c", "{}")] })),
            ],
        ),
        (
            "no beginnings of items, and a call that is known at its end only",
            vec![
                created(),
                delta("output_text", 0, "hi"),
                delta("function_call_arguments", 1, "{"),
                delta("function_call_arguments", 1, "}"),
                done(1, &call("c", "{}")),
                last("completed", &json!({ "output": [message("hi"), call("c", "{}")] })),
            ],
        ),
        (
            "items numbered from one",
            vec![
                created(),
                added(1, &message("")),
                delta("output_text", 1, "hi"),
                done(1, &message("hi")),
                done(2, &call("c", "{}")),
                last("completed", &json!({ "output": [message("hi"), call("c", "{}")] })),
            ],
        ),
        (
            "no places",
            vec![
                created(),
                json!({ "type": "response.output_item.added", "item": message("") }),
                json!({ "type": "response.output_text.delta", "delta": "hi", "obfuscation": "xyz" }),
                json!({ "type": "response.output_item.done", "item": message("hi") }),
                json!({ "type": "response.output_item.added", "item": call("c", "{}") }),
                json!({ "type": "response.output_item.done", "item": call("c", "{}") }),
                last("completed", &json!({})),
            ],
        ),
    ]
}

#[test]
fn an_answer_is_read_whatever_a_vendor_leaves_out_of_its_stream() {
    for (what, events) in streams_with_gaps() {
        let read = reading(&read(&events));
        let expected = json!({ "text": "hi", "reasoning": "", "finish": "tool_calls",
            "tool_calls": [{ "id": "c", "name": "f", "arguments": {} }] });
        assert_eq!(read, expected, "{what}");
    }
}

#[test]
fn calls_that_come_interleaved_are_told_apart() {
    let events = [
        created(),
        added(0, &call("a", "")),
        added(1, &call("b", "")),
        delta("function_call_arguments", 1, "{\"n\":1"),
        delta("function_call_arguments", 0, "{\"n\":0"),
        done(0, &call("a", "{\"n\":0}")),
        delta("function_call_arguments", 1, "}"),
        delta("function_call_arguments", 0, "}"),
        done(1, &call("b", "{\"n\":1}")),
        last("completed", &json!({})),
    ];
    let events = [&events[..5], &events[7..8], &events[5..7], &events[8..]].concat();
    let told = stream_events(&CODEC, &sse(&events)).unwrap();
    let expected = json!([{ "id": "a", "name": "f", "arguments": { "n": 0 } }, { "id": "b", "name": "f", "arguments": { "n": 1 } }]);
    assert_eq!(reading(&folded(&told))["tool_calls"], expected);
    for codec in penstock_dialects::ALL.iter().filter(|codec| codec.name() != "openai-completions") {
        let again = decode(*codec, true, &as_stream(*codec, &told)).unwrap();
        assert_eq!(reading(&again)["tool_calls"], expected, "{}", codec.name());
    }
}

#[test]
fn an_answer_ends_as_its_status_says() {
    let details = |reason: &str| json!({ "incomplete_details": { "reason": reason } });
    let cases = [
        ("completed", json!({}), "stop"),
        ("incomplete", details("max_output_tokens"), "length"),
        ("incomplete", details("content_filter"), "content_filter"),
        ("incomplete", json!({ "incomplete_details": null }), "length"),
        ("incomplete", details("odd"), "odd"),
        ("cancelled", json!({}), "cancelled"),
    ];
    for (status, more, reason) in cases {
        let event = last(status, &more);
        let whole = CODEC.decode_response(event["response"].to_string().as_bytes()).unwrap();
        for response in [read(&[created(), event]), folded(&whole)] {
            assert_eq!(response.finish, Some(Finish { reason: reason.into(), sequence: None }), "{status} {reason}");
        }
    }
    // The event says it where the answer forgets.
    let event = json!({ "type": "response.incomplete", "response": { "output": [] } });
    assert_eq!(read(&[event]).finish.unwrap().reason, "length");
    assert_eq!(read(&[created(), added(0, &message("")), delta("output_text", 0, "x")]).finish, None, "a cut");
    let whole = CODEC.decode_response(br#"{"object":"response.input_tokens","input_tokens":11}"#).unwrap();
    assert_eq!(folded(&whole).usage.map(|usage| usage.input_total()), Some(11));
}

#[test]
fn errors_inside_an_answer_are_faults_once() {
    let failed = |code: &str, message: &str| last("failed", &json!({ "error": { "code": code, "message": message } }));
    let flat = |code: &str, message: &str| json!({ "type": "error", "code": code, "message": message, "param": null });
    let nested = json!({ "type": "error", "error": { "type": "insufficient_quota", "code": "insufficient_quota", "message": "x" } });
    let cases = [
        (failed("server_error", "x"), FaultClass::Overloaded),
        (failed("rate_limit_exceeded", "Please try again in 20ms."), FaultClass::RateLimit),
        (failed("context_length_exceeded", "x"), FaultClass::ContextTooLong),
        (failed("invalid_prompt", "x"), FaultClass::InvalidRequest),
        (failed("invalid_prompt", "Your prompt was flagged."), FaultClass::ContentFilter),
        (failed("invalid_image_url", "x"), FaultClass::InvalidRequest),
        (failed("bio_policy", "x"), FaultClass::ContentFilter),
        (failed("odd", "x"), FaultClass::VendorBug),
        (last("failed", &json!({ "error": null })), FaultClass::VendorBug),
        (flat("server_is_overloaded", "x"), FaultClass::Overloaded),
        (flat("ERR_SOMETHING", "x"), FaultClass::VendorBug),
        (nested, FaultClass::Quota),
        (json!({ "error": { "message": "boom", "code": 429 } }), FaultClass::RateLimit),
    ];
    for (error, class) in cases {
        let bytes = sse(&[created(), error.clone(), failed("server_error", "again"), last("completed", &json!({}))]);
        let events = stream_events(&CODEC, &bytes).unwrap();
        let faults: Vec<FaultClass> = events
            .iter()
            .filter_map(|event| if let Event::Fault(fault) = event { Some(fault.class) } else { None })
            .collect();
        assert_eq!(faults, [class], "{error}");
        assert!(!events.iter().any(|event| matches!(event, Event::Finish(_))), "{error}");
        let (mut tap, mut parser) = (CODEC.tap(), SseParser::new(1 << 20));
        parser.feed(&bytes, &mut |frame: Frame<'_>| tap.frame(&frame)).unwrap();
        assert_eq!((tap.fault().map(|fault| fault.class), tap.complete()), (Some(class), false), "{error}");
        if error["response"].is_object() {
            let fault = CODEC.decode_response(error["response"].to_string().as_bytes()).unwrap_err();
            assert_eq!(fault.class, class, "{error}");
        }
    }
    for body in ["", "<html>", "{}", "[]", "{\"output\":{}}"] {
        assert_eq!(CODEC.decode_response(body.as_bytes()).unwrap_err().class, FaultClass::VendorBug, "{body}");
    }
}

#[test]
fn what_is_no_part_of_an_answer_is_passed_over() {
    let mut bytes = b": keepalive\n\n".to_vec();
    let known = [
        created(),
        json!({ "type": "keepalive", "sequence_number": 1 }),
        json!({ "type": "response.web_search_call.searching", "output_index": 0, "item_id": "ws_1" }),
        json!({ "type": "response.image_generation_call.partial_image", "partial_image_b64": "AA" }),
        json!({ "type": "response.custom_tool_call_input.delta", "delta": "x", "output_index": 0 }),
        done(0, &json!({ "type": "web_search_call", "id": "ws_1", "status": "completed" })),
        last("completed", &json!({ "output": [{ "type": "web_search_call", "id": "ws_1", "status": "completed" }] })),
        delta("output_text", 0, "behind the end"),
    ];
    bytes.extend(sse(&known));
    bytes.extend_from_slice(b"data: [DONE]\n\n");
    let response = folded(&stream_events(&CODEC, &bytes).unwrap());
    assert_eq!(response.blocks.len(), 1);
    assert!(matches!(&response.blocks[0].content, Content::Opaque { json, .. } if json["id"] == "ws_1"));
    assert_eq!((response.finish.map(|finish| finish.reason), response.fault), (Some("stop".into()), None));
}

#[test]
fn a_refusal_annotations_and_probabilities_survive() {
    let logprob = json!({ "token": "a", "bytes": [97], "logprob": -0.5, "top_logprobs": [] });
    let cited =
        json!({ "type": "url_citation", "url": "https://a.example", "title": "A", "start_index": 0, "end_index": 1 });
    let item = json!({ "type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "phase": "final_answer",
        "content": [
            { "type": "output_text", "annotations": [cited], "logprobs": [logprob], "text": "a" },
            { "type": "refusal", "refusal": "no" },
        ] });
    let part = |kind: &str, index: u64, part: &Value| json!({ "type": format!("response.content_part.{kind}"), "output_index": 0, "content_index": index, "part": part });
    let annotation = json!({ "type": "response.output_text.annotation.added", "output_index": 0, "content_index": 0,
        "annotation_index": 0, "annotation": cited });
    let mut refused = delta("refusal", 0, "no");
    refused["content_index"] = json!(1);
    let streams = [
        vec![created(), done(0, &item), last("completed", &json!({}))],
        vec![
            created(),
            added(0, &json!({ "type": "message", "id": "msg_1", "content": [], "phase": "final_answer" })),
            part("added", 0, &json!({ "type": "output_text", "text": "" })),
            delta("output_text", 0, "a"),
            annotation,
            part("done", 0, &item["content"][0]),
            part("added", 1, &json!({ "type": "refusal", "refusal": "" })),
            refused,
            part("done", 1, &item["content"][1]),
            done(0, &item),
            last("completed", &json!({})),
        ],
    ];
    for events in streams {
        let events = stream_events(&CODEC, &sse(&events)).unwrap();
        let stream = as_stream(&CODEC, &events);
        assert_eq!(grammar::complaint(&stream), None);
        let whole: Value = serde_json::from_slice(&CODEC.encode_response(&folded(&events), &envelope())).unwrap();
        assert_eq!(whole["output"], json!([item]));
        let again = folded(&stream_events(&CODEC, &stream).unwrap());
        assert_eq!(comparable(again), comparable(folded(&events)));
    }
}

/// The last event of a stream that is written, and the stream.
fn written(events: &[Event]) -> (Value, Vec<u8>) {
    let stream = as_stream(&CODEC, events);
    let mut last = Value::Null;
    let mut parser = SseParser::new(1 << 20);
    parser.feed(&stream, &mut |frame: Frame<'_>| last = serde_json::from_slice(frame.data).unwrap()).unwrap();
    assert_eq!(grammar::complaint(&stream), None, "{}", String::from_utf8_lossy(&stream));
    let whole: Value = serde_json::from_slice(&CODEC.encode_response(&folded(events), &envelope())).unwrap();
    assert_eq!(whole["status"], last["response"]["status"]);
    (last, stream)
}

fn start() -> Event {
    Event::Start { id: "id".into(), model: "m".into() }
}

fn finish(reason: &str) -> Event {
    Event::Finish(Finish { reason: reason.into(), sequence: None })
}

fn other(name: &str, json: &Value) -> Event {
    Event::Other { name: name.into(), json: json.to_string() }
}

#[test]
fn an_answer_that_is_cut_short_says_so() {
    let call = Event::Tool { index: 0, id: String::new(), name: "f".into() };
    let input = Event::ToolInput { index: 0, json: "{\"a\":".into() };
    let (last, _) =
        written(&[start(), Event::Text("a".into()), Event::BlockEnd, call, input, Event::BlockEnd, finish("length")]);
    assert_eq!(last["type"], "response.incomplete");
    assert_eq!(last["response"]["incomplete_details"], json!({ "reason": "max_output_tokens" }));
    let call = &last["response"]["output"][1];
    assert_eq!((&call["status"], &call["call_id"]), (&json!("incomplete"), &json!("call_r1_0")));
    let (last, _) = written(&[start(), Event::Text("a".into()), finish("content_filter")]);
    assert_eq!(last["response"]["incomplete_details"], json!({ "reason": "content_filter" }));
    assert_eq!(last["response"]["output"][0]["status"], "incomplete");
}

#[test]
fn what_other_dialects_know_finds_its_place() {
    let nested = json!({ "type": "url_citation", "url_citation": { "url": "u", "title": "t", "start_index": 0, "end_index": 2 } });
    let anthropic = json!({ "type": "web_search_result_location", "url": "v", "title": "w", "cited_text": "x" });
    let logprobs = json!({ "content": [{ "token": "ab", "bytes": null, "logprob": -1.0, "top_logprobs": [] }] });
    let events = [
        start(),
        other("images", &json!([{ "type": "image_url", "image_url": { "url": "data:image/png;base64,AAAA" } }])),
        Event::Text("ab".into()),
        other("logprobs", &logprobs),
        other(CITATION, &anthropic),
        other(CITATION, &json!({ "type": "char_location" })),
        other("annotations", &json!([nested])),
        Event::Tool { index: 0, id: "c".into(), name: "f".into() },
        Event::BlockEnd,
        finish("tool_calls"),
    ];
    let (last, _) = written(&events);
    let output = &last["response"]["output"];
    assert_eq!((&output[0]["type"], &output[0]["result"]), (&json!("image_generation_call"), &json!("AAAA")));
    let part = &output[1]["content"][0];
    assert_eq!(part["logprobs"], logprobs["content"]);
    assert_eq!(
        part["annotations"],
        json!([
            { "type": "url_citation", "url": "v", "title": "w", "start_index": 0, "end_index": 2 },
            { "url": "u", "title": "t", "start_index": 0, "end_index": 2, "type": "url_citation" },
        ])
    );
    assert_eq!(output[2]["arguments"], "{}");
}

#[test]
fn parallel_calls_are_told_as_they_come_and_end_when_they_are_whole() {
    let tool = |index: u32| Event::Tool { index, id: format!("c{index}"), name: "f".into() };
    let input = |index: u32, json: &str| Event::ToolInput { index, json: json.into() };
    let events = [
        start(),
        Event::Reasoning("t".into()),
        tool(0),
        tool(1),
        input(1, "[1"),
        input(0, "[0]"),
        input(1, "]"),
        tool(2),
        input(2, "{}"),
        input(0, " "),
        finish("tool_calls"),
    ];
    let (last, stream) = written(&events);
    let output = last["response"]["output"].as_array().unwrap();
    let calls: Vec<&str> = output.iter().filter_map(|item| item["arguments"].as_str()).collect();
    assert_eq!(calls, ["[0]", "[1]", "{}"]);
    let text = String::from_utf8(stream).unwrap();
    let place = |what: &str| text.find(what).unwrap();
    assert!(place("\"arguments\":\"[0]\"") < place("\"call_id\":\"c2\""), "a whole call ends before the next begins");
}

#[test]
fn a_fault_is_told_as_sdks_and_codex_read_it() {
    for class in FaultClass::ALL {
        let mut out = Vec::new();
        let mut encoder = CODEC.stream_encoder(&Envelope::default());
        encoder.event(&start(), &mut out);
        out.clear();
        encoder.event(&Event::Fault(Fault::new(*class, "it failed")), &mut out);
        let mut events: Vec<(String, Value)> = Vec::new();
        let mut take =
            |frame: Frame<'_>| events.push((frame.name.to_owned(), serde_json::from_slice(frame.data).unwrap()));
        SseParser::new(1 << 20).feed(&out, &mut take).unwrap();
        let [(first, error), (second, failed)] = events.as_slice() else { panic!("{events:?}") };
        assert_eq!((first.as_str(), second.as_str()), ("error", "response.failed"));
        assert_eq!((&error["error"]["message"], &error["message"]), (&json!("it failed"), &json!("it failed")));
        assert_eq!((&error["type"], &failed["type"]), (&json!("error"), &json!("response.failed")));
        assert_eq!(failed["response"]["status"], "failed");
        assert_eq!(failed["response"]["error"]["message"], "it failed");
        // Read again by another gateway.
        let again = read(std::slice::from_ref(failed)).fault.unwrap();
        let expected = match class {
            FaultClass::RateLimit | FaultClass::ContextTooLong | FaultClass::InvalidRequest => *class,
            FaultClass::Quota | FaultClass::Billing => FaultClass::Quota,
            _ => FaultClass::Overloaded,
        };
        assert_eq!(again.class, expected);
    }
}

#[test]
fn counts_and_models_have_the_vendor_s_form() {
    let usage = Usage { input: 3, cache_read: 4, ..Usage::default() };
    let count: Value = serde_json::from_slice(&CODEC.encode_count(&usage)).unwrap();
    assert_eq!(count, json!({ "object": "response.input_tokens", "input_tokens": 7 }));
    assert_eq!(CODEC.whole_usage(count.to_string().as_bytes()).map(|usage| usage.input), Some(7));
    let list: Value =
        serde_json::from_slice(&CODEC.encode_models(&[ModelEntry { id: "a".into(), owner: "o".into() }])).unwrap();
    assert_eq!(list["data"][0]["id"], "a");
}
