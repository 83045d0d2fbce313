// SPDX-License-Identifier: Apache-2.0
//! What the tests of this dialect make of recorded exchanges.

use serde_json::{Value, json};

use penstock_dialects::codec::Codec;
use penstock_dialects::collect::Collector;
use penstock_dialects::conformance;
use penstock_dialects::ir::{Content, Event, Response};

use crate::recordings::{Exchange, exchanges};

/// Every recorded answer of a protocol that is one: the status is 2xx, and no recorder has put two answers into one file.
pub(crate) fn answers(protocol: &str) -> Vec<Exchange> {
    let mut found = exchanges(protocol);
    found.retain(|exchange| {
        let starts = exchange.answer.windows(20).filter(|window| window == b"event: message_start").count();
        exchange.ok() && starts < 2
    });
    found
}

/// The events of a streamed answer.
pub(crate) fn streamed(codec: &dyn Codec, stream: &[u8]) -> Vec<Event> {
    conformance::stream_events(codec, stream).expect("frames of a usual size")
}

/// What the events fold into.
pub(crate) fn folded(events: &[Event]) -> Response {
    let mut collector = Collector::new();
    events.iter().for_each(|event| collector.event(event));
    collector.finish()
}

/// The events of a recorded answer.
pub(crate) fn events(codec: &dyn Codec, exchange: &Exchange) -> Vec<Event> {
    if exchange.streamed() {
        return streamed(codec, &exchange.answer);
    }
    codec.decode_response(&exchange.answer).unwrap_or_else(|fault| vec![Event::Fault(fault)])
}

/// What a caller makes of an answer.
pub(crate) fn reading(response: &Response) -> Value {
    let (mut text, mut reasoning, mut calls) = (String::new(), String::new(), Vec::new());
    for block in &response.blocks {
        match &block.content {
            Content::Text { text: more, .. } | Content::Refusal { text: more } => text.push_str(more),
            Content::Reasoning { text: more, .. } => reasoning.push_str(more),
            Content::ToolUse { id, name, input } => {
                let input = if input.is_empty() { "{}" } else { input };
                let input: Value = serde_json::from_str(input).unwrap_or_else(|_| json!({"$raw": input}));
                calls.push(json!({"id": id, "name": name, "arguments": input}));
            }
            _ => {}
        }
    }
    let finish = response.finish.as_ref().map(|finish| match finish.reason.as_str() {
        "stop_sequence" => "stop",
        "refusal" => "content_filter",
        other => other,
    });
    json!({"text": text, "reasoning": reasoning, "tool_calls": calls, "finish": finish})
}

/// The seals of the thoughts, byte for byte.
pub(crate) fn seals(response: &Response) -> Vec<String> {
    let seal = |content: &Content| match content {
        Content::Reasoning { signature, .. } => Some(signature.clone().unwrap_or_default()),
        Content::Redacted { data } => Some(data.clone()),
        _ => None,
    };
    response.blocks.iter().filter_map(|block| seal(&block.content)).collect()
}
