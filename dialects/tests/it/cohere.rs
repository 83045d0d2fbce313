// SPDX-License-Identifier: Apache-2.0
//! cohere-v2 against recorded exchanges: what Cohere answered is read as an independent decoder reads it, what we write is
//! what Cohere wrote, and the callers of other dialects read the same.

use penstock_dialects::anthropic_messages::AnthropicMessages;
use penstock_dialects::codec::{Codec, Envelope};
use penstock_dialects::cohere_v2::CohereV2;
use penstock_dialects::framing::{Frame, SseParser};
use penstock_dialects::ir::{self, Content, Event, FaultClass, Response, Usage};
use penstock_dialects::openai_chat::OpenAiChat;
use penstock_dialects::{collect, conformance};
use serde_json::{Value, json};

use crate::anthropic::recorded::{answers, events, folded, reading, seals, streamed};
use crate::recordings::{Exchange, exchanges};

fn recorded() -> Vec<Exchange> {
    exchanges("cohere-v2")
}

fn report(findings: &[String]) {
    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));
}

pub(crate) fn envelope() -> Envelope {
    Envelope { request_id: "r-1".into(), model: "alias".into(), created: 1, stream_usage: true, ..Envelope::default() }
}

/// The bytes of a streamed answer.
pub(crate) fn as_stream(codec: &dyn Codec, events: &[Event]) -> Vec<u8> {
    let (mut encoder, mut out) = (codec.stream_encoder(&envelope()), Vec::new());
    for event in events {
        encoder.event(event, &mut out);
        if matches!(event, Event::Fault(_)) {
            return out;
        }
    }
    encoder.end(&mut out);
    out
}

/// Name and JSON of every event of a stream; the terminator is null.
pub(crate) fn wire(stream: &[u8]) -> Vec<(String, Value)> {
    let (mut parser, mut events) = (SseParser::new(1 << 24), Vec::new());
    let mut read = |frame: Frame<'_>| {
        events.push((frame.name.to_owned(), serde_json::from_slice(frame.data).unwrap_or_default()));
    };
    parser.feed(stream, &mut read).unwrap();
    parser.end(&mut read).unwrap();
    events
}

#[test]
fn every_recorded_exchange_conforms() {
    let mut findings = Vec::new();
    for exchange in recorded() {
        if let Err(found) = conformance::check(&exchange.meta, &exchange.expected, &exchange.answer) {
            findings.extend(found.iter().map(|finding| format!("{}: {finding}", exchange.name)));
        }
    }
    report(&findings);
}

#[test]
fn every_recorded_answer_reads_as_expected() {
    for exchange in recorded().iter().filter(|exchange| exchange.ok()) {
        let (name, expected) = (&exchange.name, &exchange.expected);
        let response = folded(&events(&CohereV2, exchange));
        let read = reading(&response);
        assert_eq!(read["text"], expected["text"], "{name}");
        assert_eq!(read["reasoning"], expected["reasoning"], "{name}");
        assert_eq!(read["tool_calls"], expected["tool_calls"], "{name}");
        if let Some(error) = expected["error"].as_str() {
            let fault = response.fault.as_ref().unwrap_or_else(|| panic!("{name}: no fault"));
            assert_eq!((fault.message.as_str(), fault.class), (error, FaultClass::VendorBug), "{name}");
            assert_eq!(fault.code.as_deref(), Some("INVALID_TOOL_GENERATION"), "{name}");
            assert_eq!(response.finish, None, "{name}");
            continue;
        }
        assert_eq!(read["finish"], expected["finish"], "{name}");
        usage_is_as_expected(name, expected, response.usage.as_ref().unwrap());
    }
}

fn usage_is_as_expected(name: &str, expected: &Value, usage: &Usage) {
    let stated = &expected["usage"];
    let more = |wanted: &str| usage.more.iter().find(|(bucket, _)| bucket == wanted).map(|(_, count)| *count);
    let images = more("input-image").unwrap_or_default();
    assert_eq!(json!(usage.input_total() - images), stated["input_total"], "{name}");
    assert_eq!(usage.cache_read, stated["input_cached"].as_u64().unwrap_or_default(), "{name}");
    assert_eq!(json!(usage.output_total()), stated["output_total"], "{name}");
    assert_eq!(json!(more("billed-input")), stated["billed_input"], "{name}");
    assert_eq!(json!(more("billed-output")), stated["billed_output"], "{name}");
    let images = expected["usage_native"]["tokens"]["image_tokens"].as_u64().filter(|count| *count > 0);
    assert_eq!(more("input-image"), images, "{name}");
    assert_eq!(serde_json::from_str::<Value>(&usage.stated).unwrap(), expected["usage_native"], "{name}");
}

#[test]
fn a_stream_reads_the_same_however_it_is_cut() {
    let decoded = |chunks: &[&[u8]]| {
        let (mut parser, mut decoder, mut events) = (SseParser::new(1 << 20), CohereV2.stream_decoder(), Vec::new());
        for chunk in chunks {
            parser.feed(chunk, &mut |frame| decoder.frame(&frame, &mut events)).unwrap();
        }
        parser.end(&mut |frame| decoder.frame(&frame, &mut events)).unwrap();
        decoder.end(&mut events);
        events
    };
    for exchange in recorded().iter().filter(|exchange| exchange.streamed()) {
        let bytes = exchange.answer.as_slice();
        let whole = decoded(&[bytes]);
        // Two-way cuts everywhere, where the stream is short; in any case one byte at a time.
        let step = if bytes.len() < 3000 { 1 } else { 97 };
        for cut in (0..bytes.len()).step_by(step) {
            assert_eq!(decoded(&[&bytes[..cut], &bytes[cut..]]), whole, "{} at {cut}", exchange.name);
        }
        assert_eq!(decoded(&bytes.chunks(1).collect::<Vec<_>>()), whole, "{}", exchange.name);
    }
}

#[test]
fn the_tap_reads_the_same_as_the_decoder() {
    for exchange in recorded().iter().filter(|exchange| exchange.ok()) {
        let response = folded(&events(&CohereV2, exchange));
        if !exchange.streamed() {
            assert_eq!(CohereV2.whole_usage(&exchange.answer), response.usage, "{}", exchange.name);
            continue;
        }
        for named in [true, false] {
            let (mut tap, mut parser) = (CohereV2.tap(), SseParser::new(1 << 20));
            let mut watch = |mut frame: Frame<'_>| {
                frame.name = if named { frame.name } else { "" };
                tap.frame(&frame);
            };
            parser.feed(&exchange.answer, &mut watch).unwrap();
            parser.end(&mut watch).unwrap();
            assert_eq!(tap.usage(), response.usage, "{}", exchange.name);
            assert_eq!(tap.complete(), response.finish.is_some(), "{}", exchange.name);
            assert_eq!(tap.fault(), response.fault, "{}", exchange.name);
        }
    }
}

#[test]
fn every_recorded_whole_answer_is_written_as_cohere_wrote_it() {
    for exchange in recorded().iter().filter(|exchange| exchange.ok() && !exchange.streamed()) {
        let response = folded(&events(&CohereV2, exchange));
        let ours: Value = serde_json::from_slice(&CohereV2.encode_response(&response, &envelope())).unwrap();
        let theirs: Value = serde_json::from_slice(&exchange.answer).unwrap();
        assert_eq!(ours, theirs, "{}", exchange.name);
    }
}

#[test]
fn every_recorded_stream_is_written_as_cohere_wrote_it() {
    for exchange in recorded().iter().filter(|exchange| exchange.streamed()) {
        let ours = wire(&as_stream(&CohereV2, &events(&CohereV2, exchange)));
        let theirs = wire(&exchange.answer);
        assert_eq!(ours.len(), theirs.len(), "{}", exchange.name);
        for (place, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
            assert_eq!(ours, theirs, "{}: event {place}", exchange.name);
        }
    }
}

#[test]
fn a_whole_answer_can_be_streamed_and_a_stream_folded() {
    for exchange in recorded().iter().filter(|exchange| exchange.ok()) {
        let response = folded(&events(&CohereV2, exchange));
        let stream = as_stream(&CohereV2, &collect::events(&response));
        let again = folded(&streamed(&CohereV2, &stream));
        assert_eq!(reading(&again), reading(&response), "{}", exchange.name);
        assert_eq!(seals(&again), seals(&response), "{}: seals", exchange.name);
        if response.fault.is_none() {
            let whole = CohereV2.decode_response(&CohereV2.encode_response(&response, &envelope())).unwrap();
            let mut expected = response.clone();
            for block in &mut expected.blocks {
                match &mut block.content {
                    // Arguments of which there are none are an object in a whole answer.
                    Content::ToolUse { input, .. } if input.is_empty() => "{}".clone_into(input),
                    _ => {}
                }
            }
            let mut whole = folded(&whole);
            // The pieces in which a plan comes are those of the stream.
            for response in [&mut whole, &mut expected] {
                response.other.retain(|(name, _)| name != "tool-plan");
            }
            assert_eq!(whole, expected, "{}", exchange.name);
        }
    }
}

#[test]
fn every_recorded_error_has_the_class_that_its_bytes_show() {
    let mut classes = Vec::new();
    for exchange in recorded().iter().filter(|exchange| !exchange.ok()) {
        let status = u16::try_from(exchange.meta["status"].as_u64().unwrap()).unwrap();
        let headers = &exchange.meta["response_headers"];
        let fault = CohereV2.decode_fault(status, &|name| headers[name].as_str(), &exchange.answer);
        let stated: Value = serde_json::from_slice(&exchange.answer).unwrap();
        assert_eq!(json!(fault.code), stated["error_type"], "{}", exchange.name);
        let again: Value = serde_json::from_slice(&CohereV2.encode_fault(&fault, "r-1")).unwrap();
        assert_eq!(again["error_type"], stated["error_type"], "{}", exchange.name);
        classes.push((status, fault.class));
    }
    classes.sort_by_key(|(status, _)| *status);
    if !classes.is_empty() {
        assert_eq!(classes, [(400, FaultClass::ContextTooLong), (401, FaultClass::Authentication)]);
    }
}

/// A recorded request in the form that the codec's documentation calls normal.
fn normalised(body: &Value) -> Value {
    let mut body = body.clone();
    let members = body.as_object_mut().unwrap();
    let says_nothing = |name: &str, value: &Value| match name {
        "stream" => *value == false,
        "documents" => *value == json!([]),
        _ => value.is_null(),
    };
    members.retain(|name, value| !says_nothing(name, value));
    for name in ["temperature", "p"] {
        if let Some(number) = members.get_mut(name).filter(|number| number.as_f64().is_some_and(|n| n.fract() == 0.0)) {
            *number = json!(number.as_f64().unwrap().to_string().parse::<i64>().unwrap());
        }
    }
    for message in members["messages"].as_array_mut().unwrap() {
        let called = message["tool_calls"].is_array();
        let message = message.as_object_mut().unwrap();
        let Some(mut content) = message.shift_remove("content") else { continue };
        if let Value::String(text) = &content {
            content = json!([{ "type": "text", "text": text }]);
        }
        if let Value::Array(parts) = &mut content {
            parts.retain(|part| !(called && part["text"] == ""));
        }
        if !(called && content == json!([])) {
            message.insert("content".into(), content);
        }
    }
    body
}

#[test]
fn a_recorded_request_goes_through_the_canonical_form_unharmed() {
    let mut seen = 0;
    for exchange in recorded().iter().filter(|exchange| exchange.request["body"].is_object()) {
        let body = &exchange.request["body"];
        let request = CohereV2.decode_request(body.to_string().as_bytes()).unwrap();
        let (written, dropped) = CohereV2.encode_request(&request);
        assert_eq!(dropped, [""; 0], "{}", exchange.name);
        let written: Value = serde_json::from_slice(&written).unwrap();
        assert_eq!(normalised(&written), normalised(body), "{}", exchange.name);
        let json = serde_json::to_string(&request).unwrap();
        assert_eq!(serde_json::from_str::<ir::Request>(&json).unwrap(), request, "{}", exchange.name);
        seen += 1;
    }
    assert!(seen > 20 || recorded().is_empty());
}

/// Where a reading is not as expected.
fn differences(expected: &Value, found: &Value, name: &str) -> Vec<String> {
    let members = ["text", "reasoning", "tool_calls", "finish"].into_iter();
    let differ = members.filter(|member| expected[member] != found[member]);
    differ.map(|member| format!("{name}: {member}: {} became {}", expected[member], found[member])).collect()
}

/// What a caller of `codec` reads of an answer, streamed delta by delta, streamed from the whole, and whole.
fn readings(codec: &dyn Codec, events: &[Event], response: &Response) -> Vec<(&'static str, Response)> {
    let whole = codec.encode_response(response, &envelope());
    vec![
        ("delta by delta", folded(&streamed(codec, &as_stream(codec, events)))),
        ("unfolded", folded(&streamed(codec, &as_stream(codec, &collect::events(response))))),
        ("whole", folded(&codec.decode_response(&whole).unwrap())),
    ]
}

#[test]
fn a_cohere_answer_reads_the_same_in_every_other_dialect() {
    let mut findings = Vec::new();
    let others: [&dyn Codec; 2] = [&OpenAiChat, &AnthropicMessages];
    for exchange in answers("cohere-v2") {
        let events = events(&CohereV2, &exchange);
        let response = folded(&events);
        if response.fault.is_some() {
            continue;
        }
        for codec in others {
            for (way, read) in readings(codec, &events, &response) {
                let name = format!("{} for {}, {way}", exchange.name, codec.name());
                findings.extend(differences(&reading(&response), &reading(&read), &name));
                let counted = |response: &Response| {
                    let usage = response.usage.clone().unwrap_or_default();
                    (usage.input_total(), usage.cache_read, usage.output_total())
                };
                if counted(&read) != counted(&response) {
                    findings.push(format!("{name}: usage {:?}", read.usage));
                }
            }
        }
    }
    report(&findings);
}

#[test]
fn an_answer_of_every_other_dialect_reads_the_same_here() {
    let mut findings = Vec::new();
    let others: [(&str, &dyn Codec); 2] = [("openai-chat", &OpenAiChat), ("anthropic-messages", &AnthropicMessages)];
    for (protocol, codec) in others {
        for exchange in answers(protocol) {
            let events = events(codec, &exchange);
            let response = folded(&events);
            if response.fault.is_some() {
                continue;
            }
            let mut expected = reading(&response);
            for (index, call) in expected["tool_calls"].as_array_mut().unwrap().iter_mut().enumerate() {
                if call["id"] == "" {
                    call["id"] = json!(format!("call_r-1_{index}"));
                }
            }
            // Here, calls and nothing else end with calls; there is no word for a pause; unknown ends are ends.
            let called = !expected["tool_calls"].as_array().unwrap().is_empty();
            expected["finish"] = match expected["finish"].as_str() {
                Some(known @ ("length" | "content_filter" | "tool_calls")) => json!(known),
                _ if called => json!("tool_calls"),
                _ => json!("stop"),
            };
            for (way, read) in readings(&CohereV2, &events, &response) {
                let name = format!("{}, {way}", exchange.name);
                findings.extend(differences(&expected, &reading(&read), &name));
                if seals(&read) != seals(&response) {
                    findings.push(format!("{name}: seals {:?} became {:?}", seals(&response), seals(&read)));
                }
            }
        }
    }
    report(&findings);
}

/// The seals of a request's last turn of the model.
fn returned_seals(request: &ir::Request) -> Vec<String> {
    let turn = request.messages.iter().rev().find(|message| message.role == ir::Role::Assistant).unwrap();
    let seal = |block: &ir::Block| match &block.content {
        Content::Reasoning { signature, .. } => Some(signature.clone().unwrap_or_default()),
        Content::Redacted { data } => Some(data.clone()),
        _ => None,
    };
    turn.blocks.iter().filter_map(seal).collect()
}

#[test]
fn a_seal_returns_unchanged_through_a_caller_of_this_dialect() {
    let mut seen = 0;
    for (protocol, codec) in [("openai-chat", &OpenAiChat as &dyn Codec), ("anthropic-messages", &AnthropicMessages)] {
        for exchange in answers(protocol) {
            let response = folded(&events(codec, &exchange));
            if response.fault.is_some() || seals(&response).iter().all(String::is_empty) {
                continue;
            }
            let answer: Value = serde_json::from_slice(&CohereV2.encode_response(&response, &envelope())).unwrap();
            let next = json!({ "model": "m", "messages": [{ "role": "user", "content": "a" }, answer["message"]] });
            let request = CohereV2.decode_request(next.to_string().as_bytes()).unwrap();
            assert_eq!(returned_seals(&request), seals(&response), "{}", exchange.name);
            seen += 1;
        }
    }
    assert!(seen > 10 || recorded().is_empty(), "{seen}");
}

#[test]
fn a_tool_plan_returns_to_its_place_through_a_caller_of_every_dialect() {
    let mut seen = 0;
    for exchange in answers("cohere-v2") {
        let response = folded(&events(&CohereV2, &exchange));
        let Some(plan) = exchange.expected["tool_plan"].as_str().filter(|_| response.fault.is_none()) else { continue };
        let answer = |codec: &dyn Codec| -> Value {
            serde_json::from_slice(&codec.encode_response(&response, &envelope())).unwrap()
        };
        let user = json!({ "role": "user", "content": "a" });
        let anthropic = json!({ "role": "assistant", "content": answer(&AnthropicMessages)["content"] });
        let cases: [(&dyn Codec, Value); 3] = [
            (&CohereV2, answer(&CohereV2)["message"].take()),
            (&OpenAiChat, answer(&OpenAiChat)["choices"][0]["message"].take()),
            (&AnthropicMessages, anthropic),
        ];
        for (codec, turn) in cases {
            let next = json!({ "model": "m", "max_tokens": 1, "messages": [user, turn] });
            let request = codec.decode_request(next.to_string().as_bytes()).unwrap();
            let (written, _) = CohereV2.encode_request(&request);
            let written: Value = serde_json::from_slice(&written).unwrap();
            let turn = &written["messages"][1];
            assert_eq!(turn["tool_plan"], json!(plan), "{} through {}", exchange.name, codec.name());
            assert_eq!(turn.get("content"), None, "{} through {}", exchange.name, codec.name());
            assert_eq!(turn["tool_calls"][0]["id"], exchange.expected["tool_calls"][0]["id"]);
            seen += 1;
        }
    }
    assert!(seen > 10 || recorded().is_empty(), "{seen}");
}

#[test]
fn every_recorded_request_can_be_put_to_a_vendor_of_the_other_dialect() {
    let pairs: [(&str, &dyn Codec, &dyn Codec); 4] = [
        ("openai-chat", &OpenAiChat, &CohereV2),
        ("anthropic-messages", &AnthropicMessages, &CohereV2),
        ("cohere-v2", &CohereV2, &OpenAiChat),
        ("cohere-v2", &CohereV2, &AnthropicMessages),
    ];
    for (protocol, from, to) in pairs {
        for mut exchange in exchanges(protocol) {
            let mut body = exchange.request["body"].take();
            if !body.is_object() || !exchange.ok() {
                continue;
            }
            if body["model"].is_null() {
                body["model"] = json!("m");
            }
            let request = from.decode_request(body.to_string().as_bytes()).unwrap();
            let (written, _) = to.encode_request(&request);
            let again = to.decode_request(&written);
            let again = again.unwrap_or_else(|fault| panic!("{}: {}", exchange.name, fault.message));
            assert_eq!(again.streaming, request.streaming, "{}", exchange.name);
            let names = |request: &ir::Request| -> Vec<String> {
                let known = request.tools.iter().filter(|tool| tool.opaque.is_none());
                known.map(|tool| tool.name.clone()).collect()
            };
            if !matches!(request.tool_choice, Some(ir::ToolChoice::Tool(_))) {
                assert_eq!(names(&again), names(&request), "{}", exchange.name);
            }
        }
    }
}
