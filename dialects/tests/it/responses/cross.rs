// SPDX-License-Identifier: Apache-2.0
//! Across dialects: what a vendor of one dialect said, a caller of another one reads, and what the vendor has sealed comes
//! back to it unchanged.

use penstock_dialects::anthropic_messages::AnthropicMessages;
use penstock_dialects::bedrock_converse::BedrockConverse;
use penstock_dialects::codec::Codec;
use penstock_dialects::collect;
use penstock_dialects::conformance::decode;
use penstock_dialects::gemini::Gemini;
use penstock_dialects::ir::{Block, Content, Event, Message, Response, Role, Source};
use penstock_dialects::openai_chat::OpenAiChat;
use serde_json::{Value, json};

use super::{CODEC, as_stream, envelope, grammar, report};
use crate::anthropic::recorded::{answers, events, folded, reading};
use crate::recordings::exchanges;

const OTHERS: [&dyn Codec; 4] = [&OpenAiChat, &AnthropicMessages, &Gemini, &BedrockConverse];

/// Every recorded answer of a dialect that is no error.
fn said_in(codec: &dyn Codec) -> Vec<(String, Vec<Event>, Response)> {
    let mut found: Vec<_> = Vec::new();
    for exchange in answers(codec.name()) {
        let events = events(codec, &exchange);
        let response = folded(&events);
        if response.fault.is_none() {
            found.push((exchange.name.clone(), events, response));
        }
    }
    found
}

/// What callers of different dialects read alike: without ids that the vendor did not give.
fn essence(response: &Response) -> Value {
    let mut read = reading(response);
    for call in read["tool_calls"].as_array_mut().unwrap() {
        let id = call["id"].as_str().unwrap();
        if ["call_r1_", "toolu_r1_"].iter().any(|made_up| id.starts_with(made_up)) {
            call["id"] = json!("");
        }
    }
    read["finish"] = match read["finish"].as_str().unwrap_or_default() {
        // Not every dialect has a word for these.
        "pause" | "error" | "" => json!("stop"),
        "stop" if !read["tool_calls"].as_array().unwrap().is_empty() => json!("tool_calls"),
        _ => read["finish"].take(),
    };
    let usage = response.usage.as_ref().map(|usage| [usage.input_total(), usage.cache_read, usage.output_total()]);
    read["usage"] = json!(usage.unwrap_or_default());
    read
}

/// An answer as a caller of a dialect reads it: whole, delta by delta, and unfolded from a whole one.
fn as_read(codec: &dyn Codec, events: &[Event], response: &Response) -> [(&'static str, Response); 3] {
    let whole = decode(codec, false, &codec.encode_response(response, &envelope()));
    let stream = decode(codec, true, &as_stream(codec, events));
    let unfolded = decode(codec, true, &as_stream(codec, &collect::events(response)));
    [("whole", whole.unwrap()), ("stream", stream.unwrap()), ("unfolded", unfolded.unwrap())]
}

fn reads_alike(from: &dyn Codec, to: &dyn Codec) {
    let mut findings = Vec::new();
    for (name, events, response) in said_in(from) {
        let expected = essence(&response);
        for (way, read) in as_read(to, &events, &response) {
            let found = essence(&read);
            for member in ["text", "reasoning", "tool_calls", "finish", "usage"] {
                if found[member] != expected[member] {
                    findings.push(format!("{name}, {way}: {member}: {} became {}", expected[member], found[member]));
                }
            }
        }
    }
    report(&findings);
}

#[test]
fn every_recorded_answer_of_this_dialect_reads_the_same_there() {
    OTHERS.iter().for_each(|to| reads_alike(&CODEC, *to));
}

#[test]
fn every_recorded_answer_of_others_reads_the_same_here() {
    OTHERS.iter().for_each(|from| reads_alike(*from, &CODEC));
}

#[test]
fn every_stream_that_is_written_for_a_vendor_of_another_dialect_is_well_formed() {
    for from in OTHERS {
        for (name, events, response) in said_in(from) {
            assert_eq!(grammar::complaint(&as_stream(&CODEC, &events)), None, "{name}");
            assert_eq!(grammar::complaint(&as_stream(&CODEC, &collect::events(&response))), None, "{name}, unfolded");
        }
    }
}

/// The next request of a caller that sends back what it got.
fn next_request(codec: &dyn Codec, answer: &[u8]) -> Value {
    let answer: Value = serde_json::from_slice(answer).unwrap();
    match codec.name() {
        "openai-chat" => json!({ "model": "m", "messages": [
            { "role": "user", "content": "a" }, answer["choices"][0]["message"], { "role": "user", "content": "b" }] }),
        "anthropic-messages" => json!({ "model": "m", "max_tokens": 9, "messages": [
            { "role": "user", "content": "a" },
            { "role": "assistant", "content": answer["content"] },
            { "role": "user", "content": "b" }] }),
        "gemini" => json!({ "contents": [
            { "role": "user", "parts": [{ "text": "a" }] },
            answer["candidates"][0]["content"],
            { "role": "user", "parts": [{ "text": "b" }] }] }),
        "bedrock-converse" => json!({ "messages": [
            { "role": "user", "content": [{ "text": "a" }] },
            answer["output"]["message"],
            { "role": "user", "content": [{ "text": "b" }] }] }),
        _ => {
            let mut input = vec![json!({ "role": "user", "content": "a" })];
            input.extend(answer["output"].as_array().unwrap().clone());
            input.push(json!({ "role": "user", "content": "b" }));
            json!({ "model": "m", "input": input })
        }
    }
}

/// The same from a client that knows the documented members only, and no ids, as Codex does.
fn by_a_forgetful_client(mut request: Value) -> Value {
    for item in request["input"].as_array_mut().into_iter().flatten() {
        let known = ["type", "role", "content", "summary", "encrypted_content", "call_id", "name", "arguments"];
        item.as_object_mut().unwrap().retain(|name, _| known.contains(&name.as_str()));
    }
    request
}

/// What the assistant's turn of a request to a vendor holds of seals.
fn seals_on_the_wire(codec: &dyn Codec, body: &[u8]) -> Vec<Value> {
    let body: Value = serde_json::from_slice(body).unwrap();
    let mut seals = Vec::new();
    match codec.name() {
        "openai-chat" => {
            for message in body["messages"].as_array().unwrap() {
                seals.extend(message["reasoning_details"].as_array().cloned().unwrap_or_default());
                seals.extend(message.get("extra_content").cloned());
                let calls = message["tool_calls"].as_array().into_iter().flatten();
                seals.extend(calls.filter_map(|call| call.get("extra_content").cloned()));
            }
        }
        "anthropic-messages" => {
            let blocks =
                body["messages"].as_array().unwrap().iter().filter_map(|message| message["content"].as_array());
            seals
                .extend(blocks.flatten().filter(|block| block["type"].as_str().unwrap().contains("thinking")).cloned());
        }
        "gemini" => {
            let parts = body["contents"].as_array().unwrap().iter().filter_map(|turn| turn["parts"].as_array());
            seals.extend(parts.flatten().filter_map(|part| part.get("thoughtSignature").cloned()));
        }
        "bedrock-converse" => {
            let blocks = body["messages"].as_array().unwrap().iter().filter_map(|turn| turn["content"].as_array());
            seals.extend(blocks.flatten().filter_map(|block| block.get("reasoningContent").cloned()));
        }
        _ => {
            let items = body["input"].as_array().unwrap().iter();
            seals.extend(items.filter_map(|item| item.get("encrypted_content").cloned()));
        }
    }
    seals
}

fn seals_of(response: &Response) -> usize {
    let is_sealed =
        |content: &Content| matches!(content, Content::Reasoning { signature: Some(_), .. } | Content::Redacted { .. });
    response.blocks.iter().filter(|block| is_sealed(&block.content)).count()
}

/// The seals that reach the vendor if a caller of its own dialect sends its answer back, and if a caller of another does.
fn seals_come_back(vendor: &dyn Codec, caller: &dyn Codec) -> usize {
    let mut sealed = 0;
    // The seal of a part that only the vendor knows has nothing to stand on elsewhere.
    let is_opaque = |block: &Block| matches!(block.content, Content::Opaque { .. });
    let shared = |(_, _, response): &(_, _, Response)| {
        vendor.name() == "openai-responses" || !response.blocks.iter().any(is_opaque)
    };
    for (name, events, response) in said_in(vendor).into_iter().filter(shared) {
        let direct = next_request(vendor, &vendor.encode_response(&response, &envelope()));
        let direct = vendor.decode_request(direct.to_string().as_bytes()).unwrap();
        let expected = seals_on_the_wire(vendor, &vendor.encode_request(&direct).0);
        sealed += usize::from(!expected.is_empty() && seals_of(&response) > 0);
        for (way, read) in as_read(caller, &events, &response) {
            let answer = caller.encode_response(&read, &envelope());
            let request = next_request(caller, &answer);
            for request in [request.clone(), by_a_forgetful_client(request)] {
                let request = caller.decode_request(request.to_string().as_bytes()).unwrap();
                let found = seals_on_the_wire(vendor, &vendor.encode_request(&request).0);
                assert_eq!(found, expected, "{name}, {way}");
            }
        }
    }
    sealed
}

#[test]
fn what_a_vendor_of_this_dialect_has_sealed_comes_back_from_every_caller() {
    for caller in [&CODEC as &dyn Codec].into_iter().chain(OTHERS) {
        let sealed = seals_come_back(&CODEC, caller);
        assert!(sealed > 20 || exchanges("openai-responses").is_empty(), "{sealed}");
    }
}

#[test]
fn what_others_have_sealed_comes_back_from_a_caller_of_this_dialect() {
    for vendor in OTHERS {
        let sealed = seals_come_back(vendor, &CODEC);
        assert!(sealed > 2 || exchanges(vendor.name()).is_empty(), "{}: {sealed}", vendor.name());
    }
}

/// The turns of a request without what is adapted to a vendor.
fn turns(messages: &[Message]) -> Vec<Value> {
    let said = messages.iter().flat_map(|message| message.blocks.iter().map(move |block| (message.role, block)));
    let said = said.filter_map(|(role, block)| match &block.content {
        Content::Text { text, .. } | Content::Refusal { text } if !text.trim().is_empty() => {
            Some(json!([role != Role::Assistant, text]))
        }
        Content::Media { source: Source::Text { text }, .. } => Some(json!([role != Role::Assistant, text])),
        Content::ToolUse { name, input, .. } => {
            Some(json!([name, serde_json::from_str::<Value>(input).unwrap_or_default()]))
        }
        Content::ToolResult { blocks, .. } => Some(json!(["result", blocks.len()])),
        _ => None,
    });
    said.collect()
}

#[test]
fn every_recorded_request_can_be_put_to_a_vendor_of_another_dialect() {
    let pairs: [(&dyn Codec, &dyn Codec); 4] =
        [(&CODEC, &OpenAiChat), (&CODEC, &AnthropicMessages), (&OpenAiChat, &CODEC), (&AnthropicMessages, &CODEC)];
    for (from, to) in pairs {
        for mut exchange in exchanges(from.name()) {
            let mut body = exchange.request["body"].take();
            if !body.is_object() || !exchange.ok() {
                continue;
            }
            if body["model"].is_null() {
                body["model"] = json!("m");
            }
            let name = format!("{} to {}", exchange.name, to.name());
            let request = from.decode_request(body.to_string().as_bytes()).unwrap();
            let (written, _) = to.encode_request(&request);
            let again = to.decode_request(&written).unwrap_or_else(|fault| panic!("{name}: {}", fault.message));
            let names = |request: &penstock_dialects::ir::Request| -> Vec<String> {
                let own = request.tools.iter().filter(|tool| tool.opaque.is_none());
                own.map(|tool| tool.name.clone()).collect()
            };
            assert_eq!(names(&again), names(&request), "{name}");
            assert_eq!(again.streaming, request.streaming, "{name}");
            if to.name() == "openai-responses" {
                assert_eq!(turns(&again.messages), turns(&request.messages), "{name}");
            }
        }
    }
}
