// SPDX-License-Identifier: Apache-2.0
//! `openai-chat` against recorded exchanges: what vendors answered is read as an independent decoder reads it, what we
//! write is read as the same, and a request that goes through the canonical form loses nothing.

use penstock_dialects::codec::{Codec, Envelope};
use penstock_dialects::conformance::{self, decode};
use penstock_dialects::framing::{Frame, SseParser};
use penstock_dialects::ir::{Content, Event, Response, Usage};
use penstock_dialects::openai_chat::{OpenAiChat, Style};
use penstock_dialects::{collect, ir};
use serde_json::{Value, json};

use crate::recordings::{Exchange, exchanges};

/// A recording that ends before `[DONE]`, so that it counts as cut.
const CUT: &str = "vllm-gpustack/chat-stream-thinking-340f43";

fn recorded() -> Vec<Exchange> {
    exchanges("openai-chat").into_iter().filter(|exchange| exchange.name != CUT).collect()
}

/// Fails with every finding at once.
fn report(findings: &[String]) {
    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));
}

fn envelope() -> Envelope {
    Envelope {
        request_id: "r1".into(),
        model: "named".into(),
        created: 1_700_000_000,
        stream_usage: true,
        ..Envelope::default()
    }
}

#[test]
fn every_recorded_answer_is_read_as_expected() {
    let mut findings = Vec::new();
    for exchange in recorded() {
        if let Err(found) = conformance::check(&exchange.meta, &exchange.expected, &exchange.answer) {
            findings.extend(found.iter().map(|finding| format!("{}: {finding}", exchange.name)));
        }
    }
    report(&findings);
}

/// The class of every recorded error, by the code or the words that it is recognised by.
#[test]
fn every_recorded_error_has_the_class_that_its_bytes_show() {
    use ir::FaultClass as C;
    let table: &[(&str, C)] = &[
        ("maximum context length", C::ContextTooLong),
        ("too_many_prompt_tokens", C::ContextTooLong),
        ("DeploymentNotFound", C::ModelNotFound),
        ("model_not_found", C::ModelNotFound),
        ("invalid_model", C::ModelNotFound),
        ("The supported API model names are", C::ModelNotFound),
        ("RateLimitReached", C::RateLimit),
        ("temporarily rate-limited upstream", C::RateLimit),
        ("Invalid API Key", C::Authentication),
        ("Unauthorized", C::Authentication),
        ("invalid subscription key", C::Authentication),
        ("You didn't provide an API key", C::Authentication),
        ("Authentication Fails", C::Authentication),
        ("Cannot use both json_schema and grammar", C::InvalidRequest),
        ("json.exception.type_error", C::InvalidRequest),
        ("tool_use_failed", C::InvalidRequest),
        ("Failed to deserialize", C::InvalidRequest),
        ("Logprobs are not enabled", C::InvalidRequest),
        ("empty_array", C::InvalidRequest),
        ("invalid_value", C::InvalidRequest),
    ];
    let mut findings = Vec::new();
    for exchange in recorded().iter().filter(|exchange| !exchange.ok()) {
        let text = String::from_utf8_lossy(&exchange.answer);
        let status = u16::try_from(exchange.meta["status"].as_u64().unwrap()).unwrap();
        let headers = &exchange.meta["response_headers"];
        let fault = OpenAiChat.decode_fault(status, &|name| headers[name].as_str(), &exchange.answer);
        match table.iter().find(|(words, _)| text.contains(words)) {
            Some((_, class)) if *class == fault.class => {}
            row => findings.push(format!("{}: {row:?}, read as {fault:?}", exchange.name)),
        }
    }
    report(&findings);
}

/// What must survive being written and read again: everything but ids that the caller cannot see and empty blocks.
fn essence(response: &Response) -> Value {
    let mut text = (String::new(), String::new(), String::new());
    let (mut calls, mut seals) = (Vec::new(), Vec::new());
    for block in &response.blocks {
        match &block.content {
            Content::Text { text: more, .. } => text.0.push_str(more),
            Content::Refusal { text: more } => text.1.push_str(more),
            Content::Reasoning { text: more, signature } => {
                text.2.push_str(more);
                seals.extend(signature.clone());
            }
            Content::Redacted { data } => seals.push(data.clone()),
            Content::ToolUse { id, name, input } => {
                let id = if id.starts_with("call_r1_") { "" } else { id }; // made up where the vendor gave none
                calls.push(json!([id, name, if input.is_empty() { "{}" } else { input }]));
            }
            _ => {}
        }
    }
    let usage = response.usage.clone().map(|usage| Usage { stated: String::new(), more: Vec::new(), ..usage });
    json!({ "text": text, "calls": calls, "seals": seals, "finish": response.finish, "usage": usage })
}

/// Read again what has been written, whole and streamed.
fn written_and_read(response: &Response) -> [Response; 2] {
    let whole = decode(&OpenAiChat, false, &OpenAiChat.encode_response(response, &envelope())).unwrap();
    let stream = streamed(&collect::events(response));
    [whole, decode(&OpenAiChat, true, &stream).unwrap()]
}

fn streamed(events: &[Event]) -> Vec<u8> {
    let (mut encoder, mut out) = (OpenAiChat.stream_encoder(&envelope()), Vec::new());
    events.iter().for_each(|event| encoder.event(event, &mut out));
    encoder.end(&mut out);
    out
}

#[test]
fn an_answer_that_is_written_reads_the_same() {
    let mut findings = Vec::new();
    for exchange in recorded().iter().filter(|exchange| exchange.ok()) {
        let Ok(response) = decode(&OpenAiChat, exchange.streamed(), &exchange.answer) else { continue };
        if response.fault.is_some() {
            continue;
        }
        for again in written_and_read(&response) {
            if essence(&again) != essence(&response) {
                findings.push(format!("{}:\n  {}\n  {}", exchange.name, essence(&response), essence(&again)));
            }
            assert_eq!(again.model, "named");
        }
    }
    report(&findings);
}

#[test]
fn a_recorded_stream_that_is_translated_delta_by_delta_says_the_same() {
    for exchange in recorded().iter().filter(|exchange| exchange.streamed()) {
        let events = conformance::stream_events(&OpenAiChat, &exchange.answer).unwrap();
        let fold = |events: &[Event]| {
            let mut collector = collect::Collector::new();
            events.iter().for_each(|event| collector.event(event));
            collector.finish()
        };
        let response = fold(&events);
        if response.fault.is_none() {
            let again = decode(&OpenAiChat, true, &streamed(&events)).unwrap();
            assert_eq!(essence(&again), essence(&response), "{}", exchange.name);
        }
    }
}

#[test]
fn a_tap_sees_usage_end_and_error_of_every_recorded_answer() {
    let mut findings = Vec::new();
    for exchange in recorded().iter().filter(|exchange| exchange.ok()) {
        let decoded = decode(&OpenAiChat, exchange.streamed(), &exchange.answer);
        let usage = decoded.as_ref().ok().and_then(|response| response.usage.clone());
        let tapped = if exchange.streamed() {
            let (mut tap, mut parser) = (OpenAiChat.tap(), SseParser::new(1 << 24));
            let mut watch = |frame: Frame<'_>| tap.frame(&frame);
            parser.feed(&exchange.answer, &mut watch).unwrap();
            parser.end(&mut watch).unwrap();
            let response = decoded.as_ref().unwrap();
            if tap.complete() != response.finish.is_some() || tap.fault() != response.fault {
                findings.push(format!("{}: complete {}, fault {:?}", exchange.name, tap.complete(), tap.fault()));
            }
            tap.usage()
        } else {
            OpenAiChat.whole_usage(&exchange.answer)
        };
        // The tap keeps numbers as they were written.
        let parsed = |mut usage: Usage| {
            usage.stated = serde_json::from_str::<Value>(&usage.stated).unwrap().to_string();
            usage
        };
        let tapped = tapped.map(parsed);
        if tapped != usage {
            findings.push(format!("{}: tapped {tapped:?}, decoded {usage:?}", exchange.name));
        }
    }
    report(&findings);
}

/// A recorded request in the form that the codec's documentation calls normal.
fn normalised(body: &Value) -> Value {
    let mut body = body.clone();
    remove_nulls(&mut body);
    let members = body.as_object_mut().unwrap();
    if let Some(limit) = members.shift_remove("max_completion_tokens") {
        members.insert("max_tokens".into(), limit);
    }
    if let Some(Value::String(stop)) = members.get("stop") {
        let stop = json!([stop]);
        members.insert("stop".into(), stop);
    }
    if members.get("stream") == Some(&json!(false)) {
        members.shift_remove("stream");
    }
    if members.get("stream_options") == Some(&json!({ "include_usage": false })) {
        members.shift_remove("stream_options");
    }
    if members.get("response_format") == Some(&json!({ "type": "text" })) {
        members.shift_remove("response_format");
    }
    if members.get("tools") == Some(&json!([])) {
        members.shift_remove("tools");
    }
    if members.get("tool_choice") == Some(&json!("any")) {
        members.insert("tool_choice".into(), "required".into());
    }
    if let Some(call) = members.shift_remove("function_call") {
        members.entry("tool_choice").or_insert(call);
    }
    if let Some(choice) = members.get_mut("tool_choice").and_then(Value::as_object_mut) {
        choice.insert("type".into(), "function".into());
    }
    for name in ["temperature", "top_p"] {
        if let Some(number) = members.get_mut(name).filter(|number| number.as_f64().is_some_and(|n| n.fract() == 0.0)) {
            *number = json!(number.as_f64().unwrap().to_string().parse::<i64>().unwrap());
        }
    }
    let messages: Vec<Value> = members["messages"].as_array().unwrap().iter().map(normal_message).collect();
    members["messages"] = merge_system(messages);
    body
}

fn remove_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, value| !value.is_null());
            members.values_mut().for_each(remove_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(remove_nulls),
        _ => {}
    }
}

/// Content always as parts, reasoning always as text beside it.
fn normal_message(message: &Value) -> Value {
    let mut message = message.as_object().unwrap().clone();
    if message["role"] == "developer" {
        message["role"] = "system".into();
    }
    let mut parts = match message.shift_remove("content") {
        Some(Value::Array(parts)) => parts,
        Some(Value::String(text)) if !(text.is_empty() && message.contains_key("tool_calls")) => {
            vec![json!({ "type": "text", "text": text })]
        }
        _ => Vec::new(),
    };
    let mut thoughts = String::new();
    parts.retain(|part| {
        let thinking = part["thinking"].as_array().map(Vec::as_slice).unwrap_or_default();
        thinking.iter().for_each(|thought| thoughts.push_str(thought["text"].as_str().unwrap()));
        part["type"] != "thinking"
    });
    for part in &mut parts {
        if let Some(url) = part["image_url"].as_str().map(str::to_owned) {
            part["image_url"] = json!({ "url": url });
        }
        if part["type"] == "image_url" {
            part.as_object_mut().unwrap().shift_remove("text");
        }
    }
    if message["role"] != "tool"
        && let Some(mark) = message.shift_remove("cache_control")
    {
        match parts.last_mut() {
            Some(last) => last["cache_control"] = mark,
            None => message["tool_calls"].as_array_mut().unwrap().last_mut().unwrap()["cache_control"] = mark,
        }
    }
    if let Some(reasoning) = message.shift_remove("reasoning") {
        thoughts.push_str(reasoning.as_str().unwrap());
    }
    if let Some(details) = message.get("reasoning_details").and_then(Value::as_array) {
        let told = |item: &Value| item["text"].as_str().or(item["summary"].as_str()).unwrap_or_default().to_owned();
        if thoughts.is_empty() {
            thoughts = details.iter().map(told).collect();
        }
    }
    if !thoughts.is_empty() {
        message.insert("reasoning_content".into(), thoughts.into());
    }
    if message.get("reasoning_content") == Some(&json!("")) {
        message.shift_remove("reasoning_content");
    }
    for call in message.get_mut("tool_calls").and_then(Value::as_array_mut).into_iter().flatten() {
        call.as_object_mut().unwrap().shift_remove("index");
        if call["function"]["arguments"] == "" {
            call["function"]["arguments"] = "{}".into();
        }
    }
    if message.get("tool_calls") == Some(&json!([])) {
        message.shift_remove("tool_calls");
    }
    message.insert("content".into(), parts.into());
    message.into()
}

fn merge_system(messages: Vec<Value>) -> Value {
    let mut merged: Vec<Value> = Vec::new();
    for message in messages {
        match merged.as_mut_slice() {
            [only] if only["role"] == "system" && message["role"] == "system" => {
                only["content"].as_array_mut().unwrap().extend(message["content"].as_array().unwrap().clone());
            }
            _ => merged.push(message),
        }
    }
    merged.into()
}

#[test]
fn a_recorded_request_goes_through_the_canonical_form_unharmed() {
    let style = Style { cache_marks: true, top_k: true, ..Style::default() };
    let (mut findings, mut seen) = (Vec::new(), 0);
    for exchange in recorded().iter().filter(|exchange| exchange.request["body"].is_object()) {
        let body = &exchange.request["body"];
        let request = match OpenAiChat.decode_request(body.to_string().as_bytes()) {
            Ok(request) => request,
            Err(_) if !exchange.ok() => continue,
            Err(fault) => {
                findings.push(format!("{}: {}", exchange.name, fault.message));
                continue;
            }
        };
        let (written, dropped) = OpenAiChat.encode_request_as(&request, &style);
        let written = normalised(&serde_json::from_slice(&written).unwrap());
        if !dropped.is_empty() || written != normalised(body) {
            findings.push(format!("{}: dropped {dropped:?}\n  {}\n  {written}", exchange.name, normalised(body)));
        }
        let json = serde_json::to_string(&request).unwrap();
        assert_eq!(serde_json::from_str::<ir::Request>(&json).unwrap(), request, "{}", exchange.name);
        seen += 1;
    }
    assert!(seen > 0 || recorded().is_empty());
    report(&findings);
}
