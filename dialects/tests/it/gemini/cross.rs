// SPDX-License-Identifier: Apache-2.0
//! Across dialects: what a vendor of one dialect said, a caller of another one reads.

use serde_json::{Value, json};

use penstock_dialects::anthropic_messages::AnthropicMessages;
use penstock_dialects::codec::Codec;
use penstock_dialects::collect;
use penstock_dialects::conformance;
use penstock_dialects::ir::{Event, Response};
use penstock_dialects::openai_chat::OpenAiChat;

use super::{CODEC, answers, as_stream, envelope};
use crate::anthropic::recorded::{self, events, folded, reading, streamed};
use crate::recordings::{Exchange, exchanges};

const OTHERS: [&dyn Codec; 2] = [&OpenAiChat, &AnthropicMessages];

/// The reading of a caller of this dialect: arguments are objects, and what is no word of it is "OTHER".
fn as_told_here(response: &Response) -> Value {
    let mut read = reading(response);
    let called = read["tool_calls"].as_array().is_some_and(|calls| !calls.is_empty());
    read["finish"] = match read["finish"].as_str() {
        Some("stop") | None if called => json!("tool_calls"),
        None => json!("stop"),
        Some("pause" | "error") => json!("OTHER"),
        Some(_) => read["finish"].take(),
    };
    // A tool_calls finish without a call.
    if read["finish"] == "tool_calls" && !called {
        read["finish"] = json!("stop");
    }
    read
}

fn findings(expected: &Value, found: &Value, name: &str, way: &str) -> Vec<String> {
    let members = ["text", "reasoning", "tool_calls", "finish"].into_iter();
    let differ = members.filter(|member| expected[member] != found[member]);
    differ.map(|member| format!("{name}, {way}: {member}: {} became {}", expected[member], found[member])).collect()
}

#[test]
fn every_recorded_answer_of_other_dialects_reads_the_same_here() {
    let mut found = Vec::new();
    for codec in OTHERS {
        for exchange in recorded::answers(codec.name()) {
            let events: Vec<Event> = events(codec, &exchange);
            let response = folded(&events);
            if response.fault.is_some() {
                continue;
            }
            let expected = as_told_here(&response);
            let name = &exchange.name;
            for array in [false, true] {
                let stream = as_stream(&CODEC, &events, array);
                found.extend(findings(
                    &expected,
                    &reading(&folded(&streamed(&CODEC, &stream))),
                    name,
                    "delta by delta",
                ));
            }
            let stream = as_stream(&CODEC, &collect::events(&response), false);
            found.extend(findings(&expected, &reading(&folded(&streamed(&CODEC, &stream))), name, "unfolded"));
            let whole = CODEC.decode_response(&CODEC.encode_response(&response, &envelope(false))).expect("an answer");
            let whole = folded(&whole);
            found.extend(findings(&expected, &reading(&whole), name, "whole"));
            let usage =
                |response: &Response| response.usage.as_ref().map(|usage| (usage.input_total(), usage.output_total()));
            assert_eq!(usage(&whole).unwrap_or_default(), usage(&response).unwrap_or_default(), "{name}");
        }
    }
    assert!(found.is_empty(), "{} findings:\n{}", found.len(), found.join("\n"));
}

#[test]
fn every_recorded_answer_of_this_dialect_reads_the_same_there() {
    for exchange in answers() {
        let events = events(&CODEC, &exchange);
        let response = folded(&events);
        for codec in OTHERS {
            let mut expected = reading(&response);
            let whole = codec.encode_response(&response, &envelope(false));
            let readings = [
                ("delta by delta", conformance::decode(codec, true, &as_stream(codec, &events, false))),
                ("whole", conformance::decode(codec, false, &whole)),
            ];
            for (way, again) in readings {
                let again = again.expect("an answer");
                let read = reading(&again);
                // Callers there need ids.
                for (index, call) in expected["tool_calls"].as_array_mut().expect("a list").iter_mut().enumerate() {
                    if call["id"] == "" {
                        call["id"] = read["tool_calls"][index]["id"].clone();
                        assert!(call["id"].as_str().is_some_and(|id| id.contains("_r-1_")), "{}", call["id"]);
                    }
                }
                let found = findings(&expected, &read, &format!("{} for {}", exchange.name, codec.name()), way);
                assert!(found.is_empty(), "{}", found.join("\n"));
                let (told, counted) = (again.usage.unwrap_or_default(), response.usage.clone().unwrap_or_default());
                assert_eq!(told.input_total(), counted.input_total(), "{} for {}, {way}", exchange.name, codec.name());
            }
        }
    }
}

/// Whether a recorded request is one for an answer.
fn body_of(mut exchange: Exchange) -> Option<(String, Value)> {
    let mut body = exchange.request["body"].take();
    if !body.is_object() || !exchange.ok() {
        return None;
    }
    if body["model"].is_null() {
        body["model"] = json!("m");
    }
    Some((exchange.name, body))
}

#[test]
fn every_recorded_request_can_be_put_to_a_vendor_of_another_dialect() {
    let here: &dyn Codec = &CODEC;
    for other in OTHERS {
        for (from, to) in [(here, other), (other, here)] {
            for (name, body) in exchanges(from.name()).into_iter().filter_map(body_of) {
                let request = from.decode_request(body.to_string().as_bytes());
                let request = request.unwrap_or_else(|fault| panic!("{name}: {}", fault.message));
                let (written, _) = to.encode_request(&request);
                let again = to.decode_request(&written);
                let again = again.unwrap_or_else(|fault| panic!("{name}: {}", fault.message));
                let names = |request: &penstock_dialects::ir::Request| -> Vec<String> {
                    let tools = request.tools.iter().filter(|tool| tool.opaque.is_none());
                    tools.map(|tool| tool.name.clone()).collect()
                };
                assert_eq!(names(&again), names(&request), "{name} to {}", to.name());
            }
        }
    }
}
