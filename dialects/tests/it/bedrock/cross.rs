// SPDX-License-Identifier: Apache-2.0
//! Across dialects: what a vendor of one dialect said, a caller of another one reads and sends back.

use serde_json::{Value, json};

use penstock_dialects::anthropic_messages::AnthropicMessages;
use penstock_dialects::codec::Codec;
use penstock_dialects::collect;
use penstock_dialects::conformance;
use penstock_dialects::ir::{Block, Content, Event, Message, Request, Response, Role, Tool};
use penstock_dialects::openai_chat::OpenAiChat;

use super::{CODEC, as_stream, complaint, envelope, folded, streamed};
use crate::anthropic::recorded::{answers, events, reading, seals};
use crate::recordings::exchanges;

/// The dialects that this one is crossed with.
const OTHERS: [&dyn Codec; 2] = [&OpenAiChat, &AnthropicMessages];

fn model_of(codec: &dyn Codec) -> &'static str {
    match codec.name() {
        "openai-chat" => "gpt-4o",
        "anthropic-messages" => "claude-sonnet-4-5",
        _ => "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
    }
}

/// The reading of a caller whose dialect wants ids and objects, and finishes calls as such.
fn as_told(response: &Response, prefix: &str) -> Value {
    let mut read = reading(response);
    let mut called = false;
    for (index, call) in read["tool_calls"].as_array_mut().expect("a list").iter_mut().enumerate() {
        called = true;
        if call["id"] == "" {
            call["id"] = json!(format!("{prefix}r-1_{index}"));
        }
    }
    read["finish"] = match read["finish"].as_str() {
        Some("stop") | None if called => json!("tool_calls"),
        Some("error") | None => json!("stop"),
        Some(_) => read["finish"].take(),
    };
    read
}

fn findings(expected: &Value, found: &Value, name: &str, way: &str) -> Vec<String> {
    let members = ["text", "reasoning", "tool_calls", "finish"].into_iter();
    let differ = members.filter(|member| expected[member] != found[member]);
    differ.map(|member| format!("{name}, {way}: {member}: {} became {}", expected[member], found[member])).collect()
}

#[test]
fn every_recorded_answer_of_another_dialect_reads_the_same_here() {
    let mut found = Vec::new();
    for codec in OTHERS {
        for exchange in answers(codec.name()) {
            let (name, events) = (&exchange.name, events(codec, &exchange));
            let response = folded(&events);
            if response.fault.is_some() {
                continue;
            }
            let mut expected = as_told(&response, "tooluse_");
            if expected["finish"] == "pause" {
                expected["finish"] = json!("stop"); // there is no word for a turn that is to be continued
            }
            for (way, stream) in [
                ("delta by delta", as_stream(&CODEC, &events)),
                ("unfolded", as_stream(&CODEC, &collect::events(&response))),
            ] {
                found.extend(complaint(&stream).map(|complaint| format!("{name}, {way}: {complaint}")));
                let again = folded(&streamed(&CODEC, &stream));
                found.extend(findings(&expected, &reading(&again), name, way));
                assert_eq!(seals(&again).len(), seals(&response).len(), "{name}");
            }
            let whole = CODEC.decode_response(&CODEC.encode_response(&response, &envelope())).expect("an answer");
            let whole = folded(&whole);
            found.extend(findings(&expected, &reading(&whole), name, "whole"));
            let usage = |response: &Response| {
                response.usage.as_ref().map(|usage| (usage.input_total(), usage.cache_read, usage.output_total()))
            };
            if response.usage.as_ref().is_none_or(|usage| usage.more.is_empty()) {
                assert_eq!(usage(&whole).unwrap_or_default(), usage(&response).unwrap_or_default(), "{name}");
            }
        }
    }
    assert!(found.is_empty(), "{} findings:\n{}", found.len(), found.join("\n"));
}

#[test]
fn every_recorded_answer_of_this_dialect_reads_the_same_there() {
    for exchange in super::answers() {
        let events = events(&CODEC, &exchange);
        let response = folded(&events);
        for codec in OTHERS {
            // A tool that the vendor has run itself is one of the caller's there: the words say that it is not to be run.
            let served = events.iter().any(super::is_server_tool);
            let mut expected = as_told(&response, "");
            expected["finish"] = if served { Value::Null } else { expected["finish"].take() };
            let whole = conformance::decode(codec, false, &codec.encode_response(&response, &envelope()));
            let stream = conformance::decode(codec, true, &as_stream(codec, &events));
            for (way, again) in [("whole", whole), ("stream", stream)] {
                let mut read = reading(&again.expect("an answer"));
                read["finish"] = if served { Value::Null } else { read["finish"].take() };
                let found = findings(&expected, &read, &exchange.name, &format!("{} {way}", codec.name()));
                assert!(found.is_empty(), "{}", found.join("\n"));
            }
        }
    }
}

#[test]
fn every_recorded_request_can_be_put_to_a_vendor_of_another_dialect() {
    let names = |tools: &[Tool]| -> Vec<String> {
        tools.iter().filter(|tool| tool.opaque.is_none()).map(|tool| tool.name.clone()).collect()
    };
    for other in OTHERS {
        for (from, to) in [(other, &CODEC as &dyn Codec), (&CODEC, other)] {
            for mut exchange in exchanges(from.name()) {
                let mut body = exchange.request["body"].take();
                if !body.is_object() || !exchange.ok() {
                    continue;
                }
                if body["model"].is_null() && from.name() != CODEC.name() {
                    body["model"] = json!("m");
                }
                let request = from.decode_request(body.to_string().as_bytes());
                let mut request = request.unwrap_or_else(|fault| panic!("{}: {}", exchange.name, fault.message));
                request.model = model_of(to).into();
                let (written, _) = to.encode_request(&request);
                let again = to.decode_request(&written);
                let again = again.unwrap_or_else(|fault| panic!("{}: {}", exchange.name, fault.message));
                let called = request.messages.iter().flat_map(|message| &message.blocks);
                let called = called.filter(|block| matches!(block.content, Content::ToolUse { .. })).count();
                if !names(&request.tools).is_empty() || called == 0 {
                    let none = request.tool_choice == Some(penstock_dialects::ir::ToolChoice::None);
                    let (ours, theirs) = (names(&again.tools), names(&request.tools));
                    assert!(none || ours == theirs, "{}: {ours:?} {theirs:?}", exchange.name);
                }
            }
        }
    }
}

/// What a caller of this dialect sends back of an answer that it got, as the conversation that the host then reads.
fn sent_back(caller: &dyn Codec, answer: &[u8]) -> Request {
    let answer: Value = serde_json::from_slice(answer).expect("JSON");
    let user = |text: &str| match caller.name() {
        "bedrock-converse" => json!({"role": "user", "content": [{"text": text}]}),
        _ => json!({"role": "user", "content": text}),
    };
    let said = match caller.name() {
        "openai-chat" => answer["choices"][0]["message"].clone(),
        "anthropic-messages" => json!({"role": "assistant", "content": answer["content"]}),
        _ => answer["output"]["message"].clone(),
    };
    let body = json!({"model": "m", "max_tokens": 9000, "messages": [user("a"), said, user("b")]});
    let request = caller.decode_request(body.to_string().as_bytes());
    request.unwrap_or_else(|fault| panic!("{}: {} in {body}", caller.name(), fault.message))
}

/// The seals that a vendor of this dialect reads in a request.
fn seals_written(vendor: &dyn Codec, request: &Request) -> Vec<String> {
    let request = Request { model: model_of(vendor).into(), ..request.clone() };
    let (body, _) = vendor.encode_request(&request);
    let read = vendor.decode_request(&body).unwrap_or_else(|fault| panic!("{}", fault.message));
    let blocks = read.messages.into_iter().flat_map(|message| message.blocks).collect();
    seals(&Response { blocks, ..Response::default() })
}

/// Every way from a vendor over a caller: whole, and put together from a stream.
fn ways(caller: &dyn Codec, events: &[Event]) -> [Vec<u8>; 2] {
    let streamed = conformance::decode(caller, true, &as_stream(caller, events)).expect("an answer");
    [&folded(events), &streamed].map(|response| caller.encode_response(response, &envelope()))
}

#[test]
fn what_seals_a_thought_comes_back_to_its_vendor_unchanged_whoever_calls() {
    let mut sealed = 0;
    for exchange in super::answers() {
        let events = events(&CODEC, &exchange);
        let expected: Vec<String> = seals(&folded(&events)).into_iter().filter(|seal| !seal.is_empty()).collect();
        for caller in OTHERS.into_iter().chain([&CODEC as &dyn Codec]) {
            for answer in ways(caller, &events) {
                let found = seals_written(&CODEC, &sent_back(caller, &answer));
                assert_eq!(found, expected, "{} over {}", exchange.name, caller.name());
            }
        }
        sealed += expected.len();
    }
    assert!(sealed >= 3 || crate::recordings::shared("open").is_none());
}

#[test]
fn seals_of_other_vendors_come_back_over_a_caller_of_this_dialect() {
    let mut sealed = 0;
    for vendor in OTHERS {
        for exchange in answers(vendor.name()) {
            let events = events(vendor, &exchange);
            let response = folded(&events);
            if response.fault.is_some() || seals(&response).iter().all(String::is_empty) {
                continue;
            }
            let message = |role, blocks| Message { role, name: None, blocks };
            let direct = Request {
                messages: vec![
                    message(Role::User, vec![Block::text("a")]),
                    message(Role::Assistant, response.blocks.clone()),
                    message(Role::User, vec![Block::text("b")]),
                ],
                ..Request::default()
            };
            let expected = seals_written(vendor, &direct);
            for answer in ways(&CODEC, &events) {
                let found = seals_written(vendor, &sent_back(&CODEC, &answer));
                assert_eq!(found, expected, "{}", exchange.name);
            }
            sealed += expected.len();
        }
    }
    assert!(sealed > 10 || crate::recordings::shared("open").is_none());
}

#[test]
fn a_thought_of_any_kind_survives_a_caller_of_this_dialect() {
    let item = json!({"type": "reasoning.encrypted", "data": "x", "id": "rs_1"}).to_string();
    let blocks = [
        Content::Reasoning { text: String::new(), signature: Some("gemini==".into()) },
        Content::Reasoning { text: "t".into(), signature: Some(json!({"extra_content": {"a": 1}}).to_string()) },
        Content::Redacted { data: item },
        Content::Redacted { data: "not base64 at all".into() },
        Content::Redacted { data: "AAEC".into() },
    ];
    let response = Response { blocks: blocks.iter().cloned().map(Block::new).collect(), ..Response::default() };
    for answer in ways(&CODEC, &collect::events(&response)) {
        let back = sent_back(&CODEC, &answer);
        let contents: Vec<&Content> = back.messages[1].blocks.iter().map(|block| &block.content).collect();
        assert_eq!(contents, blocks.iter().collect::<Vec<_>>());
    }
}
