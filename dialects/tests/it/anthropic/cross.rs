// SPDX-License-Identifier: Apache-2.0
//! Across dialects: what a vendor of one dialect said, a caller of another one reads.

use serde_json::{Value, json};

use penstock_dialects::codec::Codec;
use penstock_dialects::collect;
use penstock_dialects::conformance;
use penstock_dialects::ir::{Event, Response};
use penstock_dialects::openai_chat::OpenAiChat;

use super::recorded::{answers, events, folded, reading, streamed};
use super::{CODEC, as_stream, envelope, grammar};
use crate::recordings::exchanges;

/// Every recorded answer of another dialect that is no error.
fn foreign() -> Vec<(String, Vec<Event>, Response)> {
    let read = |exchange: &crate::recordings::Exchange| {
        let events = events(&OpenAiChat, exchange);
        let response = folded(&events);
        (exchange.name.clone(), events, response)
    };
    let mut found: Vec<_> = answers("openai-chat").iter().map(read).collect();
    found.retain(|(_, _, response)| response.fault.is_none());
    found
}

/// The reading of a caller of this dialect: tool calls have an id and an object, and finish as such.
fn as_told_here(response: &Response) -> Value {
    let mut read = reading(response);
    let mut called = false;
    for (index, call) in read["tool_calls"].as_array_mut().expect("a list").iter_mut().enumerate() {
        called = true;
        if call["id"] == "" {
            call["id"] = json!(format!("toolu_r-1_{index}"));
        }
    }
    read["finish"] = match read["finish"].as_str() {
        Some("stop") | None if called => json!("tool_calls"),
        Some("error") | None => json!("stop"),
        Some(_) => read["finish"].take(),
    };
    read
}

/// Where a reading is not as expected.
fn findings(expected: &Value, found: &Value, name: &str, way: &str) -> Vec<String> {
    let members = ["text", "reasoning", "tool_calls", "finish"].into_iter();
    let differ = members.filter(|member| expected[member] != found[member]);
    differ.map(|member| format!("{name}, {way}: {member}: {} became {}", expected[member], found[member])).collect()
}

#[test]
fn every_recorded_openai_answer_reads_the_same_here() {
    let mut found = Vec::new();
    for (name, events, response) in foreign() {
        let expected = as_told_here(&response);
        let streams = [
            ("delta by delta", as_stream(&CODEC, &events)),
            ("unfolded", as_stream(&CODEC, &collect::events(&response))),
        ];
        for (way, stream) in streams {
            found.extend(grammar::complaint(&stream).map(|complaint| format!("{name}, {way}: {complaint}")));
            found.extend(findings(&expected, &reading(&folded(&streamed(&CODEC, &stream))), &name, way));
        }
        let whole = CODEC.decode_response(&CODEC.encode_response(&response, &envelope())).expect("an answer");
        found.extend(findings(&expected, &reading(&folded(&whole)), &name, "whole"));
        let usage =
            |response: &Response| response.usage.as_ref().map(|usage| (usage.input_total(), usage.output_total()));
        assert_eq!(usage(&folded(&whole)).unwrap_or_default(), usage(&response).unwrap_or_default(), "{name}");
    }
    assert!(found.is_empty(), "{} findings:\n{}", found.len(), found.join("\n"));
}

#[test]
fn every_recorded_answer_of_this_dialect_reads_the_same_there() {
    for exchange in answers("anthropic-messages") {
        let events = events(&CODEC, &exchange);
        let response = folded(&events);
        let expected = reading(&response);
        let whole = OpenAiChat.encode_response(&response, &envelope());
        let readings = [
            ("delta by delta", conformance::decode(&OpenAiChat, true, &as_stream(&OpenAiChat, &events))),
            ("whole", conformance::decode(&OpenAiChat, false, &whole)),
        ];
        for (way, again) in readings {
            let again = again.expect("an answer");
            let mut again = reading(&again);
            // That dialect has no word for a turn that is to be continued.
            if expected["finish"] == "pause" {
                again["finish"] = json!("pause");
            }
            let found = findings(&expected, &again, &exchange.name, way);
            assert!(found.is_empty(), "{}", found.join("\n"));
        }
    }
}

#[test]
fn every_recorded_request_can_be_put_to_a_vendor_of_the_other_dialect() {
    let pairs: [(&str, &dyn Codec, &dyn Codec); 2] =
        [("openai-chat", &OpenAiChat, &CODEC), ("anthropic-messages", &CODEC, &OpenAiChat)];
    for (protocol, from, to) in pairs {
        for mut exchange in exchanges(protocol) {
            let mut body = exchange.request["body"].take();
            if !body.is_object() || !exchange.ok() {
                continue;
            }
            if body["model"].is_null() {
                body["model"] = json!("m");
            }
            let request = from.decode_request(body.to_string().as_bytes());
            let request = request.unwrap_or_else(|fault| panic!("{}: {}", exchange.name, fault.message));
            let (written, _) = to.encode_request(&request);
            let again = to.decode_request(&written);
            let again = again.unwrap_or_else(|fault| panic!("{}: {}", exchange.name, fault.message));
            assert_eq!(names(&again.tools), names(&request.tools), "{}", exchange.name);
            assert_eq!(again.streaming, request.streaming, "{}", exchange.name);
        }
    }
}

fn names(tools: &[penstock_dialects::ir::Tool]) -> Vec<&str> {
    tools.iter().filter(|tool| tool.opaque.is_none()).map(|tool| tool.name.as_str()).collect()
}
