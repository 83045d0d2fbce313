// SPDX-License-Identifier: Apache-2.0
//! bedrock-converse, against recorded exchanges and against itself.

mod cross;
mod faults;
mod hostile;
mod requests;
mod streams;

use serde_json::{Value, json};

use penstock_dialects::bedrock_converse::{BedrockConverse, SERVER_TOOL};
use penstock_dialects::codec::{Codec, Envelope, Head, ModelEntry, Operation};
use penstock_dialects::collect;
use penstock_dialects::conformance;
use penstock_dialects::framing::{EventStreamParser, Frame};
use penstock_dialects::ir::{Content, Event, Response, Usage};

use crate::anthropic::recorded::{events, folded, reading, streamed};
use crate::recordings::{Exchange, exchanges, shared};

const CODEC: BedrockConverse = BedrockConverse;
const MAX: usize = 16 << 20;

/// Every recorded answer that is one.
fn answers() -> Vec<Exchange> {
    let mut found = exchanges("bedrock-converse");
    found.retain(Exchange::ok);
    found
}

fn envelope() -> Envelope {
    Envelope { request_id: "r-1".into(), model: "alias".into(), stream_usage: true, ..Envelope::default() }
}

/// The bytes of a streamed answer.
fn as_stream(codec: &dyn Codec, events: &[Event]) -> Vec<u8> {
    let (mut encoder, mut out) = (codec.stream_encoder(&envelope()), Vec::new());
    events.iter().for_each(|event| encoder.event(event, &mut out));
    encoder.end(&mut out);
    out
}

/// Names and payloads of a stream.
fn frames(stream: &[u8]) -> Vec<(String, Value)> {
    let (mut parser, mut found) = (EventStreamParser::new(MAX), Vec::new());
    let mut out = |frame: Frame<'_>| {
        found.push((frame.name.to_owned(), serde_json::from_slice(frame.data).expect("JSON")));
    };
    parser.feed(stream, &mut out).expect("messages");
    parser.end().expect("whole messages");
    found
}

/// What is wrong with the grammar of a stream, if anything: one message, blocks one after the other, numbered from 0.
fn complaint(stream: &[u8]) -> Option<String> {
    let (mut index, mut open, mut at) = (0_u64, false, "");
    let frames = frames(stream);
    for (place, (name, json)) in frames.iter().enumerate() {
        let numbered = json["contentBlockIndex"] == index;
        let fits = match name.as_str() {
            "messageStart" => place == 0 && json["role"] == "assistant",
            "contentBlockStart" => !std::mem::replace(&mut open, true) && numbered && at != "messageStop",
            "contentBlockDelta" => {
                open = true;
                numbered && at != "messageStop" && json["delta"].as_object().is_some_and(|delta| delta.len() == 1)
            }
            "contentBlockStop" => {
                index += 1;
                std::mem::replace(&mut open, false) && numbered
            }
            "messageStop" => !open && json["stopReason"].is_string(),
            "metadata" => at == "messageStop" && place + 1 == frames.len() && json["usage"]["totalTokens"].is_u64(),
            _ => false,
        };
        if !fits {
            return Some(format!("frame {place}: {name} {json} after {at:?}"));
        }
        at = name;
    }
    (at != "metadata").then(|| format!("it ends with {at:?}"))
}

/// Without what the gateway says in its own words.
fn comparable(mut response: Response) -> Response {
    if let Some(usage) = &mut response.usage {
        usage.stated.clear();
    }
    response.other.retain(|(_, json)| !json.contains("latencyMs"));
    for block in &mut response.blocks {
        if let Content::ToolUse { input, .. } = &mut block.content {
            *input = serde_json::from_str::<Value>(input).expect("JSON").to_string();
        }
    }
    // Citations stand in blocks of their own where the vendor streams them so; blocks of nothing are not written.
    response.blocks.retain(
        |block| !matches!(&block.content, Content::Text { text, citations } if text.is_empty() && citations.is_empty()),
    );
    response
}

#[test]
fn every_recorded_exchange_conforms() {
    for exchange in exchanges("bedrock-converse") {
        let found = conformance::check(&exchange.meta, &exchange.expected, &exchange.answer);
        assert_eq!(found, Ok(()), "{}", exchange.name);
    }
}

#[test]
fn every_recorded_answer_reads_as_expected_and_states_its_usage() {
    for recorded in answers() {
        let response = folded(&events(&CODEC, &recorded));
        let name = &recorded.name;
        assert_eq!(response.fault, None, "{name}");
        let read = reading(&response);
        for member in ["text", "reasoning", "tool_calls", "finish"] {
            assert_eq!(read[member], recorded.expected[member], "{name}: {member}");
        }
        let usage = response.usage.unwrap_or_else(|| panic!("{name}: no usage"));
        let expected = &recorded.expected["usage"];
        assert_eq!(json!(usage.input_total()), expected["input_total"], "{name}");
        assert_eq!(json!(usage.total()), expected["total"], "{name}");
        let stated: Value = serde_json::from_str(&usage.stated).expect("JSON");
        assert_eq!(stated, recorded.expected["usage_native"], "{name}: stated");
    }
}

#[test]
fn a_stream_means_the_same_frame_by_frame_whatever_came_before_a_cut() {
    for recorded in answers().iter().filter(|recorded| recorded.streamed()) {
        let whole = events(&CODEC, recorded);
        for size in [1, 2, 3, 7, 64, 1000] {
            let (mut parser, mut decoder) = (EventStreamParser::new(MAX), CODEC.stream_decoder());
            let mut cut = Vec::new();
            for chunk in recorded.answer.chunks(size) {
                parser.feed(chunk, &mut |frame| decoder.frame(&frame, &mut cut)).expect("messages");
            }
            decoder.end(&mut cut);
            assert_eq!(cut, whole, "{} in chunks of {size}", recorded.name);
        }
    }
}

#[test]
fn the_tap_reads_the_same_usage_as_the_decoder() {
    for recorded in answers() {
        let decoded = folded(&events(&CODEC, &recorded)).usage;
        if !recorded.streamed() {
            assert_eq!(CODEC.whole_usage(&recorded.answer), decoded, "{}", recorded.name);
            continue;
        }
        let (mut parser, mut tap) = (EventStreamParser::new(MAX), CODEC.tap());
        parser.feed(&recorded.answer, &mut |frame| tap.frame(&frame)).expect("messages");
        assert!(tap.complete(), "{}", recorded.name);
        assert_eq!((tap.usage(), tap.fault()), (decoded, None), "{}", recorded.name);
    }
}

#[test]
fn every_recorded_answer_survives_being_written_and_read_again() {
    for recorded in answers() {
        let events = events(&CODEC, &recorded);
        let response = folded(&events);
        let name = &recorded.name;
        let stream = as_stream(&CODEC, &events);
        assert_eq!(complaint(&stream), None, "{name}");
        let again = folded(&streamed(&CODEC, &stream));
        assert_eq!(comparable(again), comparable(response.clone()), "{name}: as a stream");
        let whole = CODEC.encode_response(&response, &envelope());
        let again = folded(&CODEC.decode_response(&whole).expect("an answer"));
        assert_eq!(comparable(again), comparable(response.clone()), "{name}: whole");
        // A whole answer to a caller who wants a stream.
        assert_eq!(complaint(&as_stream(&CODEC, &collect::events(&response))), None, "{name}");
    }
}

#[test]
fn every_recorded_answer_is_written_as_the_vendor_wrote_it() {
    for recorded in answers() {
        let events = events(&CODEC, &recorded);
        if recorded.streamed() {
            let without_padding = |stream: &[u8]| -> Vec<(String, Value)> {
                let mut frames = frames(stream);
                for (_, json) in &mut frames {
                    json.as_object_mut().expect("an object").shift_remove("p");
                }
                // An empty piece says nothing, nor does a block of nothing else.
                let says = |(name, json): &(String, Value)| json["delta"]["text"] != "" || name != "contentBlockDelta";
                frames.retain(says);
                frames
            };
            let (theirs, ours) = (without_padding(&recorded.answer), without_padding(&as_stream(&CODEC, &events)));
            // One vendor's model begins with an empty block, which shifts the numbers.
            if theirs[1].0 != "contentBlockStop" {
                assert_eq!(ours, theirs, "{}", recorded.name);
            }
            continue;
        }
        let theirs: Value = serde_json::from_slice(&recorded.answer).expect("JSON");
        let ours = CODEC.encode_response(&folded(&events), &Envelope::default());
        assert_eq!(serde_json::from_slice::<Value>(&ours).expect("JSON"), theirs, "{}", recorded.name);
    }
}

#[test]
fn a_call_that_the_vendor_runs_itself_is_marked_as_such_again() {
    let marked: Vec<_> = answers()
        .into_iter()
        .filter(|recorded| recorded.streamed() && events(&CODEC, recorded).iter().any(is_server_tool))
        .collect();
    assert!(!marked.is_empty() || shared("open").is_none());
    for recorded in marked {
        let response = folded(&events(&CODEC, &recorded));
        let whole = CODEC.encode_response(&response, &envelope());
        let whole: Value = serde_json::from_slice(&whole).expect("JSON");
        assert_eq!(whole["output"]["message"]["content"][0]["toolUse"]["type"], "server_tool_use");
        assert_eq!(whole["output"]["message"]["content"][1]["toolResult"]["type"], "nova_grounding_result");
        assert_eq!(whole["stopReason"], "end_turn", "nothing is left for the caller to run");
    }
}

fn is_server_tool(event: &Event) -> bool {
    matches!(event, Event::Other { name, .. } if name == SERVER_TOOL)
}

#[test]
fn requests_are_told_by_the_verb_and_name_the_model_in_the_path() {
    let ask = |method: &'static str, path: &str| {
        let head = Head { method, path, query: "", header: &|_| None };
        CODEC.recognise(&head).map(|ask| (ask.operation, ask.model.expect("a model"), ask.streaming))
    };
    let chat = |model: &str, streaming| Some((Operation::Chat, model.to_owned(), Some(streaming)));
    let arn = "arn:aws:bedrock:us-east-1:1:inference-profile/us.amazon.nova-lite-v1:0";
    let encoded = "arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Fus.amazon.nova-lite-v1%3A0";
    assert_eq!(ask("POST", "/gpt-4o/converse"), chat("gpt-4o", false));
    assert_eq!(ask("POST", "/model/gpt-4o/converse"), chat("gpt-4o", false));
    assert_eq!(ask("POST", "/amazon.nova-lite-v1%3A0/converse-stream"), chat("amazon.nova-lite-v1:0", true));
    assert_eq!(ask("POST", "/amazon.nova-lite-v1:0/converse-stream"), chat("amazon.nova-lite-v1:0", true));
    assert_eq!(ask("POST", &format!("/model/{encoded}/converse")), chat(arn, false));
    assert_eq!(ask("POST", &format!("/model/{arn}/converse")), chat(arn, false));
    assert_eq!(ask("POST", "/vendor%2fmodel/converse"), chat("vendor/model", false));
    let counts = Some((Operation::CountTokens, "m".to_owned(), Some(false)));
    assert_eq!(ask("POST", "/m/count-tokens"), counts);
    for (method, path) in [
        ("GET", "/m/converse"),
        ("POST", "/m/invoke"),
        ("POST", "/m/invoke-with-response-stream"),
        ("POST", "/converse"),
        ("POST", "//converse"),
        ("POST", "/a/b/converse"),
        ("POST", "/messages"),
        ("POST", "/m%ff/converse"),
        ("POST", ""),
    ] {
        assert_eq!(ask(method, path), None, "{method} {path}");
    }
}

#[test]
fn recorded_counts_are_read_and_written() {
    let mut read = 0;
    for name in ["count-tokens-22ae60", "count-tokens-65fca6"] {
        let Some(folder) = shared(&format!("open/bedrock/{name}")) else { continue };
        let body = std::fs::read(folder.join("response.json")).expect("a file");
        let usage = folded(&CODEC.decode_response(&body).expect("a count")).usage.expect("tokens");
        assert_eq!(CODEC.whole_usage(&body), Some(usage.clone()));
        let again: Value = serde_json::from_slice(&CODEC.encode_count(&usage)).expect("JSON");
        assert_eq!(again, serde_json::from_slice::<Value>(&body).expect("JSON"));
        read += 1;
    }
    assert!(read > 0 || shared("open").is_none());
    let usage = Usage { input: 3, cache_read: 4, ..Usage::default() };
    assert_eq!(CODEC.encode_count(&usage), br#"{"inputTokens":7}"#);
    let entry = ModelEntry { id: "a".into(), owner: "o".into() };
    let list: Value = serde_json::from_slice(&CODEC.encode_models(&[entry])).expect("JSON");
    assert_eq!(list["modelSummaries"][0]["modelId"], "a");
}
