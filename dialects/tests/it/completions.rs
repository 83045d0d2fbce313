// SPDX-License-Identifier: Apache-2.0
//! openai-completions, against recorded exchanges and case by case.

use penstock_dialects::codec::{Codec, Envelope, Head, Operation};
use penstock_dialects::conformance::{decode, stream_events};
use penstock_dialects::framing::{Frame, SseParser};
use penstock_dialects::ir::{
    Block, Content, Event, Fault, FaultClass, Finish, Message, Reasoning, Request, Response, Role, Tool,
};
use penstock_dialects::openai_chat::OpenAiChat;
use penstock_dialects::openai_completions::{NAME, OpenAiCompletions};
use serde_json::{Value, json};

use crate::anthropic::recorded::{events, folded, reading};
use crate::recordings::{Exchange, exchanges, matching};

const CODEC: OpenAiCompletions = OpenAiCompletions;

fn recorded() -> Vec<Exchange> {
    matching("completions", |meta| meta["protocol"].is_null() && meta["operation"] == "completions")
}

fn envelope() -> Envelope {
    Envelope { request_id: "r1".into(), model: "named".into(), created: 7, stream_usage: true, ..Envelope::default() }
}

fn as_stream(events: &[Event]) -> Vec<u8> {
    let (mut encoder, mut out) = (CODEC.stream_encoder(&envelope()), Vec::new());
    events.iter().for_each(|event| encoder.event(event, &mut out));
    encoder.end(&mut out);
    out
}

/// What the bytes of a recorded answer say, read without a codec.
fn plainly(exchange: &Exchange) -> Value {
    let mut objects = Vec::new();
    if exchange.streamed() {
        let mut take = |frame: Frame<'_>| objects.extend(serde_json::from_slice::<Value>(frame.data));
        SseParser::new(1 << 20).feed(&exchange.answer, &mut take).unwrap();
    } else {
        objects.push(serde_json::from_slice(&exchange.answer).unwrap());
    }
    let first = |object: &Value| {
        object["choices"]
            .as_array()
            .unwrap()
            .iter()
            .find(|choice| choice["index"] == 0 || choice["index"].is_null())
            .cloned()
    };
    let choices: Vec<Value> = objects.iter().filter_map(first).collect();
    let text: String = choices.iter().filter_map(|choice| choice["text"].as_str()).collect();
    let finish = choices.iter().filter_map(|choice| choice["finish_reason"].as_str()).next_back();
    let usage = objects.iter().filter(|object| object["usage"].is_object()).map(|object| &object["usage"]).next_back();
    json!({
        "text": text,
        "finish": finish.map(|finish| if finish == "eos" { "stop" } else { finish }),
        "usage": usage.map(|usage| [usage["prompt_tokens"].as_u64(), usage["completion_tokens"].as_u64()]),
    })
}

fn read(response: &Response) -> Value {
    let usage = response.usage.as_ref().map(|usage| [usage.input_total(), usage.output_total()]);
    json!({ "text": reading(response)["text"], "finish": reading(response)["finish"], "usage": usage })
}

#[test]
fn every_recorded_answer_reads_as_its_bytes_say_and_survives_being_written() {
    for exchange in recorded().iter().filter(|exchange| exchange.ok()) {
        let events = events(&CODEC, exchange);
        let response = folded(&events);
        let (name, expected) = (&exchange.name, plainly(exchange));
        assert_eq!(read(&response), expected, "{name}");
        let again = decode(&CODEC, true, &as_stream(&events)).unwrap();
        assert_eq!((read(&again), again.model.as_str()), (expected.clone(), "named"), "{name}");
        let again = decode(&CODEC, false, &CODEC.encode_response(&response, &envelope())).unwrap();
        assert_eq!(read(&again), expected, "{name}");
        let tapped = if exchange.streamed() {
            let mut tap = CODEC.tap();
            SseParser::new(1 << 20).feed(&exchange.answer, &mut |frame: Frame<'_>| tap.frame(&frame)).unwrap();
            assert!(tap.complete() && tap.fault().is_none(), "{name}");
            tap.usage()
        } else {
            CODEC.whole_usage(&exchange.answer)
        };
        assert_eq!(tapped, response.usage, "{name}");
    }
}

#[test]
fn a_stream_reads_the_same_wherever_it_is_cut() {
    for exchange in recorded().iter().filter(|exchange| exchange.streamed()) {
        let whole = stream_events(&CODEC, &exchange.answer).unwrap();
        let (mut decoder, mut parser, mut events) = (CODEC.stream_decoder(), SseParser::new(1 << 20), Vec::new());
        for byte in exchange.answer.chunks(1) {
            parser.feed(byte, &mut |frame: Frame<'_>| decoder.frame(&frame, &mut events)).unwrap();
        }
        decoder.end(&mut events);
        assert_eq!(events, whole, "{}", exchange.name);
    }
}

#[test]
fn every_recorded_error_has_the_class_that_its_bytes_show() {
    let table = [
        ("not supported in the v1/completions endpoint", FaultClass::Unsupported),
        ("integer_below_min_value", FaultClass::InvalidRequest),
        ("not allowed to sample from this model", FaultClass::Permission),
    ];
    for exchange in recorded().iter().filter(|exchange| !exchange.ok()) {
        let text = String::from_utf8_lossy(&exchange.answer);
        let status = u16::try_from(exchange.meta["status"].as_u64().unwrap()).unwrap();
        let fault = CODEC.decode_fault(status, &|_| None, &exchange.answer);
        let class = table.iter().find(|(words, _)| text.contains(words)).map(|(_, class)| *class);
        assert_eq!(Some(fault.class), class, "{}: {}", exchange.name, fault.message);
        assert_eq!(json!(fault.message), exchange.expected["error"]["message"], "{}", exchange.name);
    }
}

/// A request in the form that the codec's documentation calls normal.
fn normalised(body: &Value) -> Value {
    let mut body = body.clone();
    let members = body.as_object_mut().unwrap();
    if let Some([only]) = members["prompt"].as_array().map(Vec::as_slice) {
        members["prompt"] = only.clone();
    }
    members.retain(|name, value| {
        let is_default = matches!(name.as_str(), "n" | "best_of") && *value == 1 || name == "stream" && *value == false;
        !(is_default || value.is_null())
    });
    for value in members.values_mut() {
        if value.is_number() {
            *value = json!(value.as_f64());
        }
    }
    body
}

#[test]
fn a_recorded_request_goes_through_the_canonical_form_unharmed() {
    let mut refused = Vec::new();
    for exchange in recorded() {
        let body = &exchange.request["body"];
        match CODEC.decode_request(body.to_string().as_bytes()) {
            Ok(request) => {
                let (written, dropped) = CODEC.encode_request(&request);
                let written: Value = serde_json::from_slice(&written).unwrap();
                assert_eq!((normalised(&written), dropped), (normalised(body), vec![]), "{}", exchange.name);
            }
            Err(fault) => refused.push(fault.message),
        }
    }
    refused.sort();
    let expected = [
        "max_tokens: must be a whole number, not negative",
        "prompt: several prompts cannot be translated for this model; send one by one",
        "prompt: tokens cannot be translated for this model; send the text",
    ];
    assert!(refused == expected || recorded().is_empty(), "{refused:?}");
}

#[test]
fn everything_that_the_dialect_has_reaches_a_vendor_of_it() {
    let body = json!({
        "model": "m", "prompt": "def f(", "suffix": ")", "max_tokens": 9, "temperature": 0.5, "top_p": 0.5, "top_k": 4,
        "stop": ["x"], "seed": -3, "user": "u", "stream": true, "logprobs": 2, "echo": true, "logit_bias": { "5": 1 },
        "stream_options": { "include_usage": true, "include_obfuscation": false }, "frequency_penalty": 0.1,
    });
    let request = CODEC.decode_request(body.to_string().as_bytes()).unwrap();
    assert!(request.streaming && request.stream_usage);
    let (written, dropped) = CODEC.encode_request(&request);
    let written: Value = serde_json::from_slice(&written).unwrap();
    assert_eq!((normalised(&written), dropped), (normalised(&body), vec![]));
    let (_, dropped) = OpenAiChat.encode_request(&request);
    for member in ["suffix", "logprobs", "echo", "logit_bias"] {
        assert!(dropped.iter().any(|dropped| dropped == member), "{member} is not in {dropped:?}");
    }
}

#[test]
fn what_cannot_be_translated_is_refused() {
    let cases = [
        (json!({ "prompt": "x" }), "model: is required"),
        (json!({ "model": "m" }), "prompt: is required"),
        (json!({ "model": "m", "prompt": 1 }), "prompt: must be"),
        (json!({ "model": "m", "prompt": [] }), "prompt: must be"),
        (json!({ "model": "m", "prompt": [[1, 2], [3]] }), "prompt: tokens"),
        (json!({ "model": "m", "prompt": ["a", "b"] }), "prompt: several"),
        (json!({ "model": "m", "prompt": "x", "n": 2 }), "n: more than one"),
        (json!({ "model": "m", "prompt": "x", "best_of": 3 }), "best_of: more than one"),
        (json!({ "model": "m", "prompt": "x", "stop": 1 }), "stop: must be"),
        (json!({ "model": "m", "prompt": "x", "stream": "yes" }), "stream: must be"),
    ];
    for (body, message) in cases {
        let fault = CODEC.decode_request(body.to_string().as_bytes()).unwrap_err();
        assert_eq!(fault.class, FaultClass::InvalidRequest);
        assert!(fault.message.starts_with(message), "{body}: {}", fault.message);
    }
}

#[test]
fn a_conversation_is_written_as_a_text_that_goes_on() {
    let said = |role: Role, blocks: Vec<Block>| Message { role, name: None, blocks };
    let picture = Content::Opaque { dialect: "x".into(), json: json!({}) };
    let mut request = Request {
        model: "m".into(),
        messages: vec![said(Role::User, vec![Block::text("Hello")])],
        ..Request::default()
    };
    let prompt = |request: &Request| -> (Value, Vec<String>) {
        let (body, dropped) = CODEC.encode_request(request);
        (serde_json::from_slice::<Value>(&body).unwrap(), dropped)
    };
    assert_eq!(prompt(&request), (json!({ "model": "m", "prompt": "Hello", "max_tokens": 1024 }), vec![]));
    request.system = vec![Block::text("Be brief.")];
    request.messages.push(said(Role::Assistant, vec![Block::text("Hi.")]));
    request.messages.push(said(Role::User, vec![Block::text("Well?"), Block::new(picture)]));
    request.tools.push(Tool::default());
    request.reasoning = Some(Reasoning::default());
    let (body, dropped) = prompt(&request);
    assert_eq!(body["prompt"], "Be brief.\n\nUser: Hello\n\nAssistant: Hi.\n\nUser: Well?\n\nAssistant:");
    assert_eq!(dropped, ["messages[2].blocks[1]", "tools[0]", "reasoning"]);
}

#[test]
fn log_probabilities_survive() {
    let logprobs = json!({
        "text_offset": [0, 1], "tokens": ["é", "b"], "token_logprobs": [-0.5, -1.0],
        "top_logprobs": [{ "é": -0.5, "e": -2.0 }, {}],
    });
    let choice = json!({ "text": "éb", "index": 0, "logprobs": logprobs, "finish_reason": "length" });
    let answer = json!({ "id": "c", "object": "text_completion", "created": 7, "model": "named", "choices": [choice] });
    let response = folded(&CODEC.decode_response(answer.to_string().as_bytes()).unwrap());
    let again: Value = serde_json::from_slice(&CODEC.encode_response(&response, &envelope())).unwrap();
    assert_eq!(again, answer);
    let chat: Value = serde_json::from_slice(&OpenAiChat.encode_response(&response, &envelope())).unwrap();
    assert_eq!(chat["choices"][0]["logprobs"]["content"][0]["top_logprobs"].as_array().map(Vec::len), Some(2));
    let stream = String::from_utf8(as_stream(&penstock_dialects::collect::events(&response))).unwrap();
    assert!(stream.contains("\"token_logprobs\":[-0.5,-1.0]"), "{stream}");
}

#[test]
fn errors_and_ends_are_told() {
    let chunk = json!({ "id": "c", "model": "m", "choices": [{ "index": 0, "text": "a", "finish_reason": null }] });
    let error = json!({ "error": { "message": "slow", "code": 429 } });
    let read = |bytes: String| folded(&stream_events(&CODEC, bytes.as_bytes()).unwrap());
    assert_eq!(read(format!("data: {chunk}\n\n")).finish, None, "a cut");
    let finish = Finish { reason: "stop".into(), sequence: None };
    assert_eq!(read(format!("data: {chunk}\n\ndata: [DONE]\n\n")).finish, Some(finish));
    let failed = read(format!("data: {chunk}\n\ndata: {error}\n\ndata: [DONE]\n\n"));
    assert_eq!((failed.fault.map(|fault| fault.class), failed.finish), (Some(FaultClass::RateLimit), None));
    assert!(read("data: nonsense\n\n".into()).fault.is_some());
    for (body, class) in [
        ("", FaultClass::VendorBug),
        ("{}", FaultClass::VendorBug),
        ("{\"error\":\"overloaded\"}", FaultClass::Overloaded),
    ] {
        assert_eq!(CODEC.decode_response(body.as_bytes()).unwrap_err().class, class, "{body}");
    }
    let mut out = Vec::new();
    CODEC.stream_encoder(&envelope()).fault(&Fault::new(FaultClass::Overloaded, "busy"), &mut out);
    assert!(String::from_utf8(out).unwrap().starts_with("data: {\"error\":{\"message\":\"busy\""));
}

#[test]
fn an_answer_of_another_dialect_is_read_as_a_continuation() {
    for exchange in exchanges("openai-chat").iter().filter(|exchange| exchange.ok()) {
        let events = events(&OpenAiChat, exchange);
        let response = folded(&events);
        if response.fault.is_some() {
            continue;
        }
        let text = reading(&response)["text"].clone();
        let whole = decode(&CODEC, false, &CODEC.encode_response(&response, &envelope())).unwrap();
        let stream = decode(&CODEC, true, &as_stream(&events)).unwrap();
        assert_eq!((&reading(&whole)["text"], &reading(&stream)["text"]), (&text, &text), "{}", exchange.name);
    }
}

#[test]
fn requests_of_this_dialect_are_told_by_their_path() {
    let operation = |method: &'static str, path: &'static str| {
        let head = Head { method, path, query: "", header: &|_| None };
        penstock_dialects::recognise(&head, &[]).map(|(codec, ask)| (codec.name(), ask.operation))
    };
    assert_eq!(operation("POST", "/completions"), Some((NAME, Operation::Chat)));
    assert_eq!(operation("POST", "/chat/completions"), Some(("openai-chat", Operation::Chat)));
    assert_eq!(operation("GET", "/completions"), None);
}
