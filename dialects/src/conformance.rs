// SPDX-License-Identifier: Apache-2.0
//! Compares a decoded answer with the expectation that accompanies a recorded exchange (`expected.json`, written by an
//! independent decoder). Pure: the caller reads the files.
//!
//! Where the expectation and the canonical form count differently the rule has a name, and is here:
//! - *cache outside*: a cache read larger than the stated input is no part of it: inputs are compared without it;
//! - *clamped reasoning*: reasoning beyond the output is reported as the whole output;
//! - *media apart*: what pictures, films and sound count is a bucket of its own, which the expectation may have left out;
//! - *two answers*: a file into which a recorder has put the answers to two requests, whose expectation mixes them by block
//!   index, is only held to be readable: the protocol knows one answer in a stream;
//! - *pieces*: where the arguments of a function call are streamed by path, the expectation counts every piece as a call
//!   without a name: only the names are compared;
//! - *another word*: what the expectation calls another finish may have a canonical word;
//! - *refusal*, *sequence*: the expectation calls a refusal a content filter, and a stop sequence a stop.

use serde_json::Value;

use crate::codec::{Codec, Envelope};
use crate::collect::Collector;
use crate::framing::{Frame, Kind, Parser};
use crate::ir::{Content, Event, Fault, FaultClass, Response, Usage};

/// A frame of a recorded stream may be this long.
const FRAME_BYTES_MAX: usize = 64 << 20;

/// Decodes a recorded exchange with the codec of its protocol and compares it with its expectation.
///
/// # Errors
/// Every difference, as text.
pub fn check(meta: &Value, expected: &Value, bytes: &[u8]) -> Result<(), Vec<String>> {
    let protocol = meta["protocol"].as_str().unwrap_or_default();
    let codec = crate::by_name(protocol).ok_or_else(|| vec![format!("no codec for {protocol:?}")])?;
    let status = meta["status"].as_u64().and_then(|status| u16::try_from(status).ok()).unwrap_or_default();
    if !(200..300).contains(&status) {
        let headers = &meta["response_headers"];
        let fault = codec.decode_fault(status, &|name| headers[name].as_str(), bytes);
        return findings(fault_differences(&fault, status, expected));
    }
    let streamed = meta["stream"].as_bool().unwrap_or_default() && meta["framing"] != "json";
    match decode(codec, streamed, bytes) {
        Ok(response) if answers(bytes) > 1 => fault_free(&response),
        Ok(response) => compare(&response, expected),
        Err(fault) if expected["error"].is_null() => Err(vec![format!("decoded as a fault: {fault:?}")]),
        Err(_) => Ok(()),
    }
}

/// How many answers of anthropic-messages begin in a stream; none in other dialects.
fn answers(bytes: &[u8]) -> usize {
    memchr::memmem::find_iter(bytes, b"event: message_start").count()
}

fn fault_free(response: &Response) -> Result<(), Vec<String>> {
    response.fault.as_ref().map_or(Ok(()), |fault| Err(vec![format!("decoded as a fault: {fault:?}")]))
}

/// Decodes the body of a 2xx answer. A streamed one is cut as the dialect's streams are, or is a JSON array.
///
/// # Errors
/// The fault that the codec makes of a whole answer.
pub fn decode(codec: &dyn Codec, streamed: bool, bytes: &[u8]) -> Result<Response, Fault> {
    let events = if streamed { stream_events(codec, bytes)? } else { codec.decode_response(bytes)? };
    let mut collector = Collector::new();
    events.iter().for_each(|event| collector.event(event));
    Ok(collector.finish())
}

/// The events of a streamed answer.
///
/// # Errors
/// A fault if the stream cannot be cut.
pub fn stream_events(codec: &dyn Codec, bytes: &[u8]) -> Result<Vec<Event>, Fault> {
    let (mut decoder, mut events) = (codec.stream_decoder(), Vec::new());
    let mut parser = Parser::new(stream_kind(codec, bytes), FRAME_BYTES_MAX);
    let mut take = |frame: Frame<'_>| decoder.frame(&frame, &mut events);
    parser
        .feed(bytes, &mut take)
        .and_then(|()| parser.end(&mut take))
        .map_err(|error| Fault::new(FaultClass::VendorBug, error.to_string()))?;
    decoder.end(&mut events);
    Ok(events)
}

/// How this recorded stream is cut. Dialects that can stream a JSON array say so in the request, which is not at hand.
#[must_use]
pub fn stream_kind(codec: &dyn Codec, bytes: &[u8]) -> Kind {
    if bytes.trim_ascii_start().starts_with(b"[") {
        return Kind::JsonArray;
    }
    Kind::of_media_type(codec.stream_type(&Envelope::default())).unwrap_or(Kind::Sse)
}

/// Compares a decoded answer with its expectation.
///
/// # Errors
/// Every difference, as text.
pub fn compare(response: &Response, expected: &Value) -> Result<(), Vec<String>> {
    let mut found = Vec::new();
    let gather = |pick: fn(&Content) -> Option<&str>| -> String {
        response.blocks.iter().filter_map(|block| pick(&block.content)).collect()
    };
    let text = gather(|content| if let Content::Text { text, .. } = content { Some(text) } else { None });
    let reasoning = gather(|content| if let Content::Reasoning { text, .. } = content { Some(text) } else { None });
    let refusal = gather(|content| if let Content::Refusal { text } = content { Some(text) } else { None });
    differ("text", &Value::from(text), &expected["text"], &mut found);
    differ("reasoning", &Value::from(reasoning), &expected["reasoning"], &mut found);
    differ("refusal", &Value::from(refusal), expected.get("refusal").unwrap_or(&Value::from("")), &mut found);
    let (decoded, stated) = (tool_calls(response), &expected["tool_calls"]);
    if has_pieces(stated) {
        differ("tool_calls", &Value::from(names(&decoded)), &Value::from(names(stated)), &mut found);
    } else {
        differ("tool_calls", &decoded, stated, &mut found);
    }
    if let Some(model) = expected["model"].as_str() {
        differ("model", &Value::from(response.model.as_str()), &Value::from(model), &mut found);
    }
    finish_differences(response, expected, &mut found);
    if expected["usage"].is_object() {
        usage_differences(response.usage.as_ref(), &expected["usage"], &mut found);
    }
    if response.fault.is_some() == expected["error"].is_null() {
        found.push(format!("fault: {:?}, expected {}", response.fault, expected["error"]));
    }
    findings(found)
}

fn findings(found: Vec<String>) -> Result<(), Vec<String>> {
    if found.is_empty() { Ok(()) } else { Err(found) }
}

fn differ(what: &str, decoded: &Value, expected: &Value, found: &mut Vec<String>) {
    if decoded != expected && !(expected.is_null() && (*decoded == "" || *decoded == Value::Array(Vec::new()))) {
        found.push(format!("{what}: decoded {decoded}, expected {expected}"));
    }
}

fn tool_calls(response: &Response) -> Value {
    let calls = response.blocks.iter().filter_map(|block| {
        let Content::ToolUse { id, name, input } = &block.content else { return None };
        let id = if id.is_empty() { Value::Null } else { Value::from(id.as_str()) };
        let arguments = match input.as_str() {
            "" => serde_json::json!({}),
            input => serde_json::from_str(input).unwrap_or_else(|_| serde_json::json!({ "$raw": input })),
        };
        Some(serde_json::json!({ "id": id, "name": name, "arguments": arguments }))
    });
    calls.collect()
}

/// Whether an expectation counts the pieces of calls as calls.
fn has_pieces(calls: &Value) -> bool {
    calls.as_array().is_some_and(|calls| calls.iter().any(|call| call["name"].is_null()))
}

fn names(calls: &Value) -> Vec<Value> {
    let names = calls.as_array().into_iter().flatten().map(|call| call["name"].clone());
    names.filter(|name| !name.is_null()).collect()
}

fn finish_differences(response: &Response, expected: &Value, found: &mut Vec<String>) {
    let Some(reason) = expected["finish"].as_str() else { return };
    let decoded = match response.finish.as_ref().map(|finish| finish.reason.as_str()) {
        Some("refusal") => "content_filter",
        Some("stop_sequence") => "stop",
        Some(known @ ("stop" | "length" | "tool_calls" | "content_filter" | "pause" | "error")) => known,
        Some(_) => "other",
        None if response.fault.is_some() => return,
        None => "none",
    };
    if decoded != reason && reason != "other" && !(reason == "error" && response.fault.is_some()) {
        found.push(format!("finish: decoded {decoded}, expected {reason}"));
    }
}

fn usage_differences(usage: Option<&Usage>, expected: &Value, found: &mut Vec<String>) {
    let Some(usage) = usage else {
        found.push(format!("usage: none decoded, expected {expected}"));
        return;
    };
    let stated = |name: &str| expected[name].as_u64();
    let mut count = |what: &str, decoded: u64, expected: Option<u64>| {
        if expected.is_some_and(|expected| expected != decoded) {
            found.push(format!("usage.{what}: decoded {decoded}, expected {expected:?}"));
        }
    };
    let cached = stated("input_cached").unwrap_or_default();
    let cache_outside = stated("input_total").is_some_and(|input| cached > input);
    let input = if cache_outside { usage.input } else { usage.input_total() };
    count("input", media_apart(usage, "input-", input, stated("input_total")), stated("input_total"));
    count("cache_read", usage.cache_read, stated("input_cached"));
    count("cache_write", usage.cache_write, stated("cache_write"));
    let output = media_apart(usage, "output-", usage.output_total(), stated("output_total"));
    count("output", output, stated("output_total"));
    let clamped = stated("reasoning").map(|reasoning| reasoning.min(stated("output_total").unwrap_or(reasoning)));
    count("reasoning", usage.reasoning, clamped);
}

/// The tokens without those of media, where that is what was expected.
fn media_apart(usage: &Usage, prefix: &str, tokens: u64, expected: Option<u64>) -> u64 {
    let without_media = tokens.saturating_sub(usage.more_of(prefix));
    if expected == Some(without_media) { without_media } else { tokens }
}

/// Compares an error with its expectation.
///
/// # Errors
/// Every difference, as text.
pub fn compare_fault(fault: &Fault, status: u16, expected: &Value) -> Result<(), Vec<String>> {
    findings(fault_differences(fault, status, expected))
}

/// What the class of an error must be where its status leaves no doubt. The rest is the codec's own table.
fn fault_differences(fault: &Fault, status: u16, expected: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let certain: &[FaultClass] = match status {
        401 => &[FaultClass::Authentication],
        402 => &[FaultClass::Billing],
        429 => &[FaultClass::RateLimit, FaultClass::Quota, FaultClass::Billing, FaultClass::Overloaded],
        _ => &[],
    };
    if !certain.is_empty() && !certain.contains(&fault.class) {
        found.push(format!("class: {} under status {status}", fault.class.name()));
    }
    if fault.class == FaultClass::VendorBug {
        found.push(format!("status {status} was not understood: {}", fault.message));
    }
    let message = expected["error"]["message"].as_str().unwrap_or_default().trim();
    if !message.is_empty() && fault.class != FaultClass::Authentication && fault.message != message {
        found.push(format!("message: decoded {:?}, expected {message:?}", fault.message));
    }
    found
}
