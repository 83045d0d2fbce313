// SPDX-License-Identifier: Apache-2.0
//! anthropic-messages, against recorded exchanges and against itself.

mod cross;
mod grammar;
pub(crate) mod hostile;
pub(crate) mod recorded;
mod requests;
mod streams;

use serde_json::{Value, json};

use penstock_dialects::anthropic_messages::AnthropicMessages;
use penstock_dialects::codec::{Codec, Envelope, Head, ModelEntry, Operation};
use penstock_dialects::framing::SseParser;
use penstock_dialects::ir::{Content, Event, Fault, FaultClass, Response, Usage};

use crate::recordings::{Exchange, exchanges};
use recorded::{events, folded, reading, seals, streamed};

const CODEC: AnthropicMessages = AnthropicMessages;

fn answers() -> Vec<Exchange> {
    recorded::answers("anthropic-messages")
}

fn envelope() -> Envelope {
    Envelope { request_id: "r-1".into(), model: "alias".into(), created: 0, stream_usage: true, ..Envelope::default() }
}

/// The bytes of a streamed answer.
fn as_stream(codec: &dyn Codec, events: &[Event]) -> Vec<u8> {
    let (mut encoder, mut out) = (codec.stream_encoder(&envelope()), Vec::new());
    events.iter().for_each(|event| encoder.event(event, &mut out));
    encoder.end(&mut out);
    out
}

/// Without what the gateway replaces, or says in its own words.
fn comparable(mut response: Response) -> Response {
    response.model.clear();
    if let Some(usage) = &mut response.usage {
        usage.stated.clear();
    }
    response.other.sort();
    for block in &mut response.blocks {
        if let Content::ToolUse { input, .. } = &mut block.content {
            *input = serde_json::from_str::<Value>(input).expect("JSON").to_string();
        }
    }
    response
}

#[test]
fn every_recorded_exchange_conforms() {
    for exchange in exchanges("anthropic-messages") {
        let found = penstock_dialects::conformance::check(&exchange.meta, &exchange.expected, &exchange.answer);
        assert_eq!(found, Ok(()), "{}", exchange.name);
    }
}

#[test]
fn every_recorded_answer_reads_as_expected() {
    for recorded in answers() {
        let response = folded(&events(&CODEC, &recorded));
        let name = &recorded.name;
        assert_eq!(response.fault, None, "{name}");
        let read = reading(&response);
        for member in ["text", "reasoning", "tool_calls", "finish"] {
            assert_eq!(read[member], recorded.expected[member], "{name}: {member}");
        }
        assert_eq!(json!(response.model), recorded.expected["model"], "{name}");
        let lengths: Vec<usize> = seals(&response).iter().map(String::len).collect();
        let expected = recorded.expected["thinking_blocks"].as_array().cloned().unwrap_or_default();
        let expected: Vec<Value> = expected.iter().map(|block| block["signature_len"].clone()).collect();
        assert_eq!(json!(lengths), json!(expected), "{name}: seals");
        usage_is_as_expected(&recorded, response.usage.as_ref());
    }
}

fn usage_is_as_expected(recorded: &Exchange, usage: Option<&Usage>) {
    let name = &recorded.name;
    let usage = usage.unwrap_or_else(|| panic!("{name}: no usage"));
    let expected = &recorded.expected["usage"];
    let read = json!({
        "input_total": usage.input_total(),
        "input_cached": usage.cache_read,
        "cache_write": usage.cache_write,
        "output_total": usage.output_total(),
        "total": usage.total(),
    });
    for (member, value) in read.as_object().expect("an object") {
        assert_eq!(value, &expected[member], "{name}: {member}");
    }
    assert_eq!(usage.reasoning, expected["reasoning"].as_u64().unwrap_or_default(), "{name}: reasoning");
    let stated: Value = serde_json::from_str(&usage.stated).expect("JSON");
    assert_eq!(stated, recorded.expected["usage_native"], "{name}: stated");
}

#[test]
fn the_tap_reads_the_same_usage_as_the_decoder() {
    for recorded in answers() {
        let decoded = folded(&events(&CODEC, &recorded)).usage;
        if !recorded.streamed() {
            assert_eq!(CODEC.whole_usage(&recorded.answer), decoded, "{}", recorded.name);
            continue;
        }
        for named in [true, false] {
            let (mut parser, mut tap) = (SseParser::new(16 << 20), CODEC.tap());
            let mut pass = |mut frame: penstock_dialects::framing::Frame<'_>| {
                if !named {
                    frame.name = "";
                }
                tap.frame(&frame);
            };
            parser.feed(&recorded.answer, &mut pass).expect("frames of a usual size");
            parser.end(&mut pass).expect("frames of a usual size");
            assert!(tap.complete(), "{}", recorded.name);
            assert_eq!(tap.usage(), decoded, "{}", recorded.name);
            assert_eq!(tap.fault(), None);
        }
    }
}

#[test]
fn every_recorded_answer_survives_being_written_and_read_again() {
    for recorded in answers() {
        let events = events(&CODEC, &recorded);
        let response = folded(&events);
        let name = &recorded.name;
        let stream = as_stream(&CODEC, &events);
        assert_eq!(grammar::complaint(&stream), None, "{name}");
        let again = folded(&streamed(&CODEC, &stream));
        assert_eq!(again.model, "alias", "{name}: the caller reads the name that it used");
        assert_eq!(comparable(again), comparable(response.clone()), "{name}: as a stream");
        let whole = CODEC.encode_response(&response, &envelope());
        let again = folded(&CODEC.decode_response(&whole).expect("an answer"));
        assert_eq!(comparable(again), comparable(response.clone()), "{name}: whole");
        // A whole answer to a caller who wants a stream.
        let stream = as_stream(&CODEC, &penstock_dialects::collect::events(&response));
        assert_eq!(grammar::complaint(&stream), None, "{name}");
    }
}

#[test]
fn every_recorded_whole_answer_is_written_as_the_vendor_wrote_it() {
    for recorded in answers().into_iter().filter(|recorded| !recorded.streamed()) {
        let mut vendors: Value = serde_json::from_slice(&recorded.answer).expect("JSON");
        let response = folded(&events(&CODEC, &recorded));
        let ours = CODEC.encode_response(&response, &Envelope::default());
        let mut ours: Value = serde_json::from_slice(&ours).expect("JSON");
        for answer in [&mut vendors, &mut ours] {
            let members = answer.as_object_mut().expect("an object");
            members.retain(|name, value| !value.is_null() && name != "base_resp");
            for block in members["content"].as_array_mut().expect("blocks") {
                // Who called matters to programs that run on the vendor's side only.
                block
                    .as_object_mut()
                    .expect("a block")
                    .retain(|name, value| !(value.is_null() || name == "caller" && value["type"] == "direct"));
            }
        }
        assert_eq!(ours, vendors, "{}", recorded.name);
    }
}

#[test]
fn recorded_refusals_have_the_right_class() {
    for recorded in exchanges("anthropic-messages").into_iter().filter(|recorded| !recorded.ok()) {
        let error = &recorded.expected["error"];
        let header = |name: &str| recorded.meta["response_headers"][name].as_str();
        let status = recorded.meta["status"].as_u64().and_then(|status| u16::try_from(status).ok());
        let fault = CODEC.decode_fault(status.expect("a status"), &header, &recorded.answer);
        let class = match error["type"].as_str().expect("a type") {
            "authentication_error" => FaultClass::Authentication,
            "not_found_error" => FaultClass::ModelNotFound,
            "invalid_request_error" if fault.message.contains("too long") => FaultClass::ContextTooLong,
            "invalid_request_error" => FaultClass::InvalidRequest,
            other => panic!("{}: a new type, {other}", recorded.name),
        };
        assert_eq!(fault.class, class, "{}", recorded.name);
        assert_eq!(json!(fault.message), error["message"]);
        assert_eq!(json!(fault.code), error["type"]);
        let again = CODEC.decode_fault(fault.class.status(), &|_| None, &CODEC.encode_fault(&fault, "r-1"));
        assert_eq!((again.class, again.message), (fault.class, fault.message), "{}", recorded.name);
    }
}

#[test]
fn errors_are_classed_by_what_they_say() {
    let anthropic = |kind: &str, message: &str| json!({"type": "error", "error": {"type": kind, "message": message}});
    let cases = [
        (429, anthropic("rate_limit_error", "This request would exceed your rate limit"), FaultClass::RateLimit),
        (529, anthropic("overloaded_error", "Overloaded"), FaultClass::Overloaded),
        (500, anthropic("api_error", "Internal server error"), FaultClass::Overloaded),
        (504, anthropic("timeout_error", "Timed out"), FaultClass::Timeout),
        (403, anthropic("permission_error", "Not allowed"), FaultClass::Permission),
        (413, anthropic("request_too_large", "Request exceeds the maximum size"), FaultClass::InvalidRequest),
        (400, anthropic("invalid_request_error", "Your credit balance is too low to access"), FaultClass::Billing),
        (
            400,
            anthropic("invalid_request_error", "prompt is too long: 2 tokens > 1 maximum"),
            FaultClass::ContextTooLong,
        ),
        (
            400,
            anthropic("invalid_request_error", "input length and `max_tokens` exceed context limit: 1 + 2 > 2"),
            FaultClass::ContextTooLong,
        ),
        (
            400,
            anthropic("invalid_request_error", "You have reached your specified API usage limits."),
            FaultClass::Quota,
        ),
        (400, anthropic("invalid_request_error", "max_tokens: required"), FaultClass::InvalidRequest),
        (404, anthropic("not_found_error", "File not found: file_1"), FaultClass::InvalidRequest),
        (500, anthropic("api_error", "insufficient balance (1008)"), FaultClass::Billing),
        (
            404,
            json!({"error": {"code": 404, "message": "Publisher Model not found", "status": "NOT_FOUND"}}),
            FaultClass::ModelNotFound,
        ),
        (
            429,
            json!([{"error": {"code": 429, "message": "Quota", "status": "RESOURCE_EXHAUSTED"}}]),
            FaultClass::RateLimit,
        ),
        (403, json!({"message": "User is not authorized"}), FaultClass::Permission),
        (502, json!("<html>"), FaultClass::Overloaded),
        (418, json!({}), FaultClass::VendorBug),
    ];
    for (status, body, class) in cases {
        let fault = CODEC.decode_fault(status, &|_| None, body.to_string().as_bytes());
        assert_eq!(fault.class, class, "{status} {body}");
        assert!(!fault.message.is_empty());
    }
    let header = |name: &str| (name == "retry-after").then_some("1.5");
    assert_eq!(CODEC.decode_fault(429, &header, b"").retry_after_ms, Some(1500));
    let inside = CODEC.decode_response(br#"{"base_resp":{"status_code":1008,"status_msg":"insufficient balance"}}"#);
    assert_eq!(inside.expect_err("an error").class, FaultClass::Billing);
}

#[test]
fn every_class_of_failure_is_one_that_callers_know() {
    for class in FaultClass::ALL {
        let mut event = Vec::new();
        CODEC.stream_encoder(&Envelope::default()).fault(&Fault::new(*class, "it failed"), &mut event);
        let events = streamed(&CODEC, &event);
        let [Event::Fault(fault)] = events.as_slice() else { panic!("{events:?}") };
        let again = match class {
            FaultClass::Quota => FaultClass::RateLimit,
            FaultClass::ContentFilter | FaultClass::Unsupported => FaultClass::InvalidRequest,
            class => *class,
        };
        assert_eq!(fault.class, again);
        assert!(fault.message.ends_with("it failed"));
    }
}

#[test]
fn requests_of_this_dialect_are_told_by_path_and_version() {
    let operation = |method: &'static str, path: &'static str, version: Option<&'static str>| {
        let header = |name: &str| version.filter(|_| name == "anthropic-version");
        let head = Head { method, path, query: "", header: &header };
        CODEC.recognise(&head).map(|ask| ask.operation)
    };
    let version = Some("2023-06-01");
    assert_eq!(operation("POST", "/messages", None), Some(Operation::Chat));
    assert_eq!(operation("POST", "/messages/count_tokens", None), Some(Operation::CountTokens));
    assert_eq!(operation("GET", "/models", version), Some(Operation::Models));
    assert_eq!(operation("GET", "/models/claude", version), Some(Operation::Models));
    assert_eq!(operation("GET", "/models", None), None);
    assert_eq!(operation("GET", "/messages", version), None);
    assert_eq!(operation("POST", "/messages/batches", version), Some(Operation::Batches));
    assert_eq!(operation("POST", "/files", version), Some(Operation::Files));
    assert_eq!(operation("POST", "/files", None), None);
}

#[test]
fn models_and_counts_have_the_vendor_s_form() {
    let entry = |id: &str| ModelEntry { id: id.into(), owner: "o".into() };
    let list: Value = serde_json::from_slice(&CODEC.encode_models(&[entry("a"), entry("b")])).expect("JSON");
    assert_eq!(list["data"][1]["id"], "b");
    assert_eq!((&list["first_id"], &list["last_id"], &list["has_more"]), (&json!("a"), &json!("b"), &json!(false)));
    let usage = Usage { input: 3, cache_read: 4, ..Usage::default() };
    assert_eq!(CODEC.encode_count(&usage), br#"{"input_tokens":7}"#);
    let events = CODEC.decode_response(br#"{"input_tokens":14}"#).expect("a count");
    assert_eq!(folded(&events).usage.map(|usage| usage.input_total()), Some(14));
}
