// SPDX-License-Identifier: Apache-2.0
//! Signatures: what a vendor has sealed comes back to it unchanged, and where it stood, whatever dialect the caller speaks.

use serde_json::{Value, json};

use penstock_dialects::anthropic_messages::AnthropicMessages;
use penstock_dialects::bedrock_converse::BedrockConverse;
use penstock_dialects::codec::Codec;
use penstock_dialects::ir::{Block, Content, Message, Request, Response, Role};
use penstock_dialects::openai_chat::OpenAiChat;
use penstock_dialects::openai_responses::OpenAiResponses;

use super::{CODEC, answers, as_stream, elements, envelope};
use crate::anthropic::recorded::{events, folded, seals, streamed};
use crate::recordings::Exchange;

/// Signatures by what they stand on: the name of a function, "text", "empty", "thought" or another part's name.
fn places(parts: &[Value]) -> Vec<(String, String)> {
    let place = |part: &Value| {
        let on = match part {
            _ if part["functionCall"]["name"].is_string() => part["functionCall"]["name"].to_string(),
            _ if part["thought"] == true => "thought".to_owned(),
            _ if part["text"] == "" => "empty".to_owned(),
            _ => part.as_object()?.keys().find(|name| *name != "thoughtSignature")?.clone(),
        };
        Some((on, part["thoughtSignature"].as_str().filter(|text| !text.is_empty())?.to_owned()))
    };
    parts.iter().filter_map(place).collect()
}

/// The parts of a recorded answer, piece by piece.
fn recorded_parts(exchange: &Exchange) -> Vec<Value> {
    let chunks = if exchange.streamed() {
        elements(&exchange.answer)
    } else {
        vec![serde_json::from_slice(&exchange.answer).expect("JSON")]
    };
    let parts = |chunk: &Value| chunk["candidates"][0]["content"]["parts"].as_array().cloned().unwrap_or_default();
    chunks.iter().flat_map(parts).collect()
}

/// The message of an assistant that a caller of a dialect keeps of an answer, as its SDK builds it.
type Kept = fn(&Response, bool) -> Value;

fn kept_by_openai(response: &Response, streams: bool) -> Value {
    if !streams {
        let whole: Value =
            serde_json::from_slice(&OpenAiChat.encode_response(response, &envelope(false))).expect("JSON");
        return whole["choices"][0]["message"].clone();
    }
    let mut message =
        json!({"role": "assistant", "content": "", "reasoning_content": "", "reasoning_details": [], "tool_calls": []});
    for chunk in elements(&without_done(&as_stream(&OpenAiChat, &penstock_dialects::collect::events(response), false)))
    {
        let delta = &chunk["choices"][0]["delta"];
        for name in ["content", "reasoning_content"] {
            let text = message[name].as_str().unwrap_or_default().to_owned() + delta[name].as_str().unwrap_or_default();
            message[name] = json!(text);
        }
        for item in delta["reasoning_details"].as_array().into_iter().flatten() {
            message["reasoning_details"].as_array_mut().expect("a list").push(item.clone());
        }
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            let calls = message["tool_calls"].as_array_mut().expect("a list");
            match call.get("id") {
                Some(_) => calls.push(call.clone()),
                None => {
                    let call_of =
                        &mut calls[usize::try_from(call["index"].as_u64().expect("an index")).expect("small")];
                    let input = call_of["function"]["arguments"].as_str().unwrap_or_default().to_owned();
                    call_of["function"]["arguments"] =
                        json!(input + call["function"]["arguments"].as_str().unwrap_or_default());
                }
            }
        }
    }
    message
}

fn without_done(stream: &[u8]) -> Vec<u8> {
    String::from_utf8_lossy(stream).replace("data: [DONE]\n\n", "").into_bytes()
}

fn kept_by_anthropic(response: &Response, streams: bool) -> Value {
    let response = if streams {
        let stream = as_stream(&AnthropicMessages, &penstock_dialects::collect::events(response), false);
        folded(&streamed(&AnthropicMessages, &stream))
    } else {
        response.clone()
    };
    let whole: Value =
        serde_json::from_slice(&AnthropicMessages.encode_response(&response, &envelope(false))).expect("JSON");
    json!({"role": "assistant", "content": whole["content"]})
}

/// What a caller of a dialect has read, from a stream or a whole answer, as that dialect writes it whole.
fn whole_of(codec: &dyn Codec, response: &Response, streams: bool) -> Value {
    let stream = || as_stream(codec, &penstock_dialects::collect::events(response), false);
    let read = if streams { folded(&streamed(codec, &stream())) } else { response.clone() };
    serde_json::from_slice(&codec.encode_response(&read, &envelope(false))).expect("JSON")
}

fn kept_by_responses(response: &Response, streams: bool) -> Value {
    whole_of(&OpenAiResponses, response, streams)["output"].take()
}

fn kept_by_bedrock(response: &Response, streams: bool) -> Value {
    whole_of(&BedrockConverse, response, streams)["output"]["message"].take()
}

/// The next request of a caller, with what it has kept between two questions.
fn next_request(caller: &dyn Codec, kept: &Value) -> Value {
    let ask = json!({"role": "user", "content": "ask"});
    match caller.name() {
        "openai-responses" => {
            let items = kept.as_array().cloned().unwrap_or_default();
            let input: Vec<Value> = [vec![ask.clone()], items, vec![ask]].concat();
            json!({"model": "m", "input": input})
        }
        "bedrock-converse" => {
            let ask = json!({"role": "user", "content": [{"text": "ask"}]});
            json!({"messages": [ask, kept, ask]})
        }
        _ => json!({"model": "m", "max_tokens": 9, "messages": [ask, kept, ask]}),
    }
}

#[test]
fn every_recorded_signature_returns_through_callers_of_other_dialects() {
    let callers: [(&dyn Codec, Kept); 4] = [
        (&OpenAiChat, kept_by_openai),
        (&AnthropicMessages, kept_by_anthropic),
        (&OpenAiResponses, kept_by_responses),
        (&BedrockConverse, kept_by_bedrock),
    ];
    let mut count = 0;
    for exchange in answers() {
        let parts = recorded_parts(&exchange);
        // Parts that have no place in those dialects take their signature along.
        let expected: Vec<_> = places(&parts)
            .into_iter()
            .filter(|(on, _)| !on.starts_with("executable") && on != "codeExecutionResult")
            .collect();
        let response = folded(&events(&CODEC, &exchange));
        for (&(caller, kept), streams) in callers.iter().flat_map(|caller| [(caller, false), (caller, true)]) {
            let name = format!("{} through {}, streamed: {streams}", exchange.name, caller.name());
            let body = next_request(caller, &kept(&response, streams));
            let request = caller
                .decode_request(body.to_string().as_bytes())
                .unwrap_or_else(|fault| panic!("{name}: {}", fault.message));
            let (body, _) = CODEC.encode_request(&request);
            let body: Value = serde_json::from_slice(&body).expect("JSON");
            let again = body["contents"][1]["parts"].as_array().cloned().unwrap_or_default();
            assert_eq!(places(&again), expected, "{name}");
            let ids: Vec<&Value> =
                again.iter().map(|part| &part["functionCall"]["id"]).filter(|id| !id.is_null()).collect();
            let given: Vec<&Value> =
                parts.iter().map(|part| &part["functionCall"]["id"]).filter(|id| id.is_string()).collect();
            // The id of the request in these tests is none that the host makes.
            if !given.is_empty() {
                assert_eq!(ids, given, "{name}: ids that the vendor gave");
            }
            count += expected.len();
        }
    }
    assert!(count > 0 || crate::recordings::shared("open").is_none(), "no signature was compared");
}

#[test]
fn every_recorded_signature_returns_through_a_caller_of_this_dialect() {
    for exchange in answers() {
        let expected = places(&recorded_parts(&exchange));
        let events = events(&CODEC, &exchange);
        let whole: Value =
            serde_json::from_slice(&CODEC.encode_response(&folded(&events), &envelope(false))).expect("JSON");
        let whole = whole["candidates"][0]["content"].clone();
        let chunks = elements(&as_stream(&CODEC, &events, false));
        let parts: Vec<Value> = chunks
            .iter()
            .flat_map(|chunk| chunk["candidates"][0]["content"]["parts"].as_array().cloned().unwrap_or_default())
            .collect();
        for content in [whole, json!({"role": "model", "parts": parts})] {
            let ask = json!({"role": "user", "parts": [{"text": "ask"}]});
            let body = json!({"contents": [ask, content]});
            let request = CODEC.decode_request(body.to_string().as_bytes()).expect("a request");
            let (body, _) = CODEC.encode_request(&request);
            let body: Value = serde_json::from_slice(&body).expect("JSON");
            let again = body["contents"][1]["parts"].as_array().cloned().unwrap_or_default();
            assert_eq!(places(&again), expected, "{}", exchange.name);
        }
    }
}

/// What other vendors seal.
fn foreign_answer() -> Response {
    let block = |content: Content| Block::new(content);
    Response {
        blocks: vec![
            block(Content::Reasoning { text: "hm".into(), signature: Some("EqQB+/=".into()) }),
            block(Content::Redacted { data: "only mine".into() }),
            block(Content::Reasoning {
                text: String::new(),
                signature: Some("{\"type\":\"reasoning\",\"id\":\"rs_1\"}".into()),
            }),
            block(Content::ToolUse { id: "toolu_1".into(), name: "f".into(), input: "{}".into() }),
        ],
        ..Response::default()
    }
}

#[test]
fn what_another_vendor_has_sealed_returns_through_a_caller_of_this_dialect() {
    let response = foreign_answer();
    let whole: Value = serde_json::from_slice(&CODEC.encode_response(&response, &envelope(false))).expect("JSON");
    let stream = elements(&as_stream(&CODEC, &penstock_dialects::collect::events(&response), false));
    let pieces: Vec<Value> = stream
        .iter()
        .flat_map(|chunk| chunk["candidates"][0]["content"]["parts"].as_array().cloned().unwrap_or_default())
        .collect();
    for parts in [whole["candidates"][0]["content"]["parts"].clone(), Value::from(pieces)] {
        // SDKs that read signatures as bytes write them in the other alphabet of base64.
        let changed: Vec<Value> = parts
            .as_array()
            .expect("a list")
            .iter()
            .map(|part| {
                let mut part = part.clone();
                if let Some(signature) = part["thoughtSignature"].as_str().map(str::to_owned) {
                    assert!(
                        signature.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte)),
                        "base64"
                    );
                    part["thoughtSignature"] = json!(signature.replace('+', "-").replace('/', "_"));
                }
                part
            })
            .collect();
        for parts in [parts, Value::from(changed)] {
            let body =
                json!({"contents": [{"role": "user", "parts": [{"text": "ask"}]}, {"role": "model", "parts": parts}]});
            let request = CODEC.decode_request(body.to_string().as_bytes()).expect("a request");
            let blocks: Vec<Block> =
                request.messages[1].blocks.iter().filter(|block| **block != Block::text("")).cloned().collect();
            let again = Response { blocks, ..Response::default() };
            assert_eq!(seals(&again), seals(&response));
            assert_eq!(again.blocks[0], response.blocks[0]);
            assert_eq!(again.blocks.last(), response.blocks.last());
        }
    }
}

#[test]
fn what_another_vendor_has_sealed_does_not_reach_this_one() {
    let messages = vec![
        Message { role: Role::User, name: None, blocks: vec![Block::text("ask")] },
        Message { role: Role::Assistant, name: None, blocks: foreign_answer().blocks },
    ];
    let (body, dropped) = CODEC.encode_request(&Request { messages, ..Request::default() });
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(body["contents"][1]["parts"], json!([{"functionCall": {"id": "toolu_1", "name": "f", "args": {}}}]));
    let paths: Vec<String> = (0..3).map(|index| format!("messages[1].blocks[{index}]")).collect();
    assert_eq!(dropped, paths);
}

#[test]
fn a_signature_of_this_vendor_does_not_reach_another_one() {
    let answer = json!({"candidates": [{"content": {"parts": [
        {"functionCall": {"name": "f", "args": {}}, "thoughtSignature": "c2Vl"}], "role": "model"}, "finishReason": "STOP"}]});
    let response = folded(&CODEC.decode_response(answer.to_string().as_bytes()).expect("an answer"));
    let messages = vec![
        Message { role: Role::User, name: None, blocks: vec![Block::text("ask")] },
        Message { role: Role::Assistant, name: None, blocks: response.blocks },
    ];
    let (body, dropped) = AnthropicMessages.encode_request(&Request { messages, ..Request::default() });
    assert!(!String::from_utf8_lossy(&body).contains("c2Vl"));
    assert_eq!(dropped, ["messages[1].blocks[0]"]);
}
