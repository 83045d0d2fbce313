// SPDX-License-Identifier: Apache-2.0
//! openai-responses, against recorded exchanges and against itself.

mod cases;
mod cross;
mod grammar;
mod hostile;
mod requests;

use penstock_dialects::codec::{Codec, Envelope};
use penstock_dialects::collect;
use penstock_dialects::conformance::{self, decode};
use penstock_dialects::framing::{Frame, SseParser};
use penstock_dialects::ir::{Content, Event, FaultClass, Response};
use penstock_dialects::openai_responses::OpenAiResponses;
use serde_json::{Value, json};

use crate::anthropic::recorded::{events, folded};
use crate::recordings::{Exchange, exchanges};

const CODEC: OpenAiResponses = OpenAiResponses;

fn recorded() -> Vec<Exchange> {
    exchanges("openai-responses")
}

fn answers() -> Vec<Exchange> {
    let mut found = recorded();
    found.retain(Exchange::ok);
    found
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

/// The bytes of a streamed answer.
fn as_stream(codec: &dyn Codec, events: &[Event]) -> Vec<u8> {
    let (mut encoder, mut out) = (codec.stream_encoder(&envelope()), Vec::new());
    events.iter().for_each(|event| encoder.event(event, &mut out));
    encoder.end(&mut out);
    out
}

/// Without what the gateway replaces or says in its own words.
fn comparable(mut response: Response) -> Response {
    response.model.clear();
    if let Some(usage) = &mut response.usage {
        usage.stated.clear();
        usage.more.clear();
    }
    response.other.clear();
    response.blocks.retain(|block| match &block.content {
        Content::Text { text, citations } => !text.is_empty() || !citations.is_empty(),
        _ => true,
    });
    response
}

#[test]
fn every_recorded_exchange_is_read_as_expected() {
    let mut findings = Vec::new();
    for exchange in recorded() {
        if let Err(found) = conformance::check(&exchange.meta, &exchange.expected, &exchange.answer) {
            findings.extend(found.iter().map(|finding| format!("{}: {finding}", exchange.name)));
        }
    }
    report(&findings);
}

/// The events of a stream that arrives in these pieces.
fn in_pieces<'p>(pieces: impl Iterator<Item = &'p [u8]>) -> Vec<Event> {
    let (mut decoder, mut parser, mut events) = (CODEC.stream_decoder(), SseParser::new(64 << 20), Vec::new());
    let mut take = |frame: Frame<'_>| decoder.frame(&frame, &mut events);
    for piece in pieces {
        parser.feed(piece, &mut take).unwrap();
    }
    parser.end(&mut take).unwrap();
    decoder.end(&mut events);
    events
}

#[test]
fn a_stream_reads_the_same_wherever_it_is_cut() {
    for exchange in answers().iter().filter(|exchange| exchange.streamed()) {
        let stream = &exchange.answer;
        let whole = in_pieces(std::iter::once(stream.as_slice()));
        assert_eq!(in_pieces(stream.chunks(1)), whole, "{}", exchange.name);
        // Every byte is the border of two pieces in one of these.
        for (length, offset) in (0..7).map(|offset| (7, offset)) {
            let (first, rest) = stream.split_at(offset);
            let pieces = std::iter::once(first).chain(rest.chunks(length));
            assert_eq!(in_pieces(pieces), whole, "{} at {offset}", exchange.name);
        }
    }
}

#[test]
fn a_tap_sees_usage_end_and_error_of_every_recorded_answer() {
    let mut findings = Vec::new();
    for exchange in answers() {
        let response = folded(&events(&CODEC, &exchange));
        if !exchange.streamed() {
            if CODEC.whole_usage(&exchange.answer) != response.usage {
                findings.push(format!("{}: whole", exchange.name));
            }
            continue;
        }
        for named in [true, false] {
            let (mut tap, mut parser) = (CODEC.tap(), SseParser::new(1 << 24));
            let mut watch = |mut frame: Frame<'_>| {
                if !named {
                    frame.name = "";
                }
                tap.frame(&frame);
            };
            parser.feed(&exchange.answer, &mut watch).unwrap();
            parser.end(&mut watch).unwrap();
            let seen = (tap.usage(), tap.complete(), tap.fault());
            if seen != (response.usage.clone(), response.finish.is_some(), response.fault.clone()) {
                findings.push(format!("{}: tapped {seen:?}", exchange.name));
            }
        }
    }
    report(&findings);
}

#[test]
fn every_recorded_answer_survives_being_written_and_read_again() {
    for exchange in answers() {
        let events = events(&CODEC, &exchange);
        let response = folded(&events);
        let name = &exchange.name;
        let stream = as_stream(&CODEC, &events);
        assert_eq!(grammar::complaint(&stream), None, "{name}");
        let again = decode(&CODEC, true, &stream).unwrap();
        assert_eq!(again.model, "named", "{name}: the caller reads the name that it used");
        assert_eq!(comparable(again), comparable(response.clone()), "{name}: as a stream");
        let whole = CODEC.encode_response(&response, &envelope());
        let again = decode(&CODEC, false, &whole).unwrap();
        assert_eq!(comparable(again), comparable(response.clone()), "{name}: whole");
        // A whole answer to a caller who wants a stream: thoughts have been announced under ids of ours.
        let stream = as_stream(&CODEC, &collect::events(&response));
        assert_eq!(grammar::complaint(&stream), None, "{name}");
    }
}

#[test]
fn every_recorded_answer_is_written_with_the_items_that_the_vendor_wrote() {
    for exchange in answers() {
        let events = events(&CODEC, &exchange);
        let vendors = if exchange.streamed() { output_of_stream(&exchange.answer) } else { output(&exchange.answer) };
        let mut vendors = normal_output(vendors);
        let is_copilot = exchange.name.starts_with("github-copilot/") && exchange.streamed();
        if is_copilot {
            // It names an item otherwise with every event, and we tell the first name.
            vendors.iter_mut().for_each(|item| item["id"] = Value::Null);
        }
        let whole = output(&CODEC.encode_response(&folded(&events), &envelope()));
        let stream = output_of_stream(&as_stream(&CODEC, &events));
        for (way, written) in [("whole", whole), ("as a stream", stream)] {
            let mut written = normal_output(written);
            if is_copilot {
                written.iter_mut().for_each(|item| item["id"] = Value::Null);
            }
            assert_eq!(json!(written), json!(vendors), "{}: {way}", exchange.name);
        }
    }
}

fn output(answer: &[u8]) -> Vec<Value> {
    let answer: Value = serde_json::from_slice(answer).unwrap();
    answer["output"].as_array().cloned().unwrap_or_default()
}

/// The items as they are when they are done.
fn output_of_stream(stream: &[u8]) -> Vec<Value> {
    let mut items = Vec::new();
    let mut parser = SseParser::new(64 << 20);
    let mut take = |frame: Frame<'_>| {
        let Ok(mut event) = serde_json::from_slice::<Value>(frame.data) else { return };
        if event["type"] == "response.output_item.done" {
            items.push((event["output_index"].as_u64(), event["item"].take()));
        }
    };
    parser.feed(stream, &mut take).unwrap();
    parser.end(&mut take).unwrap();
    items.sort_by_key(|(place, _)| *place);
    items.into_iter().map(|(_, item)| item).collect()
}

/// Items in the form that the codec writes: every list is there, nulls are not, and what says nothing is left out.
fn normal_output(mut items: Vec<Value>) -> Vec<Value> {
    for item in &mut items {
        let members = item.as_object_mut().unwrap();
        members.retain(|_, value| !value.is_null());
        if members["type"] == "message" {
            for part in members["content"].as_array_mut().unwrap() {
                if part["logprobs"].is_null() {
                    part["logprobs"] = json!([]);
                }
            }
        }
        if members["type"] == "function_call" {
            // Bedrock's first open models had another name for the id.
            let made_up = |id: &Value| id.as_str().is_some_and(|id| id.contains("_penstock_"));
            members.retain(|name, value| !(name == "id" && made_up(value)));
        }
    }
    items
}

#[test]
fn every_recorded_error_has_the_class_that_its_bytes_show() {
    let table = [
        ("Model not found", FaultClass::ModelNotFound),
        ("context_length_exceeded", FaultClass::ContextTooLong),
        ("without its required following item", FaultClass::InvalidRequest),
    ];
    let mut findings = Vec::new();
    for exchange in recorded().iter().filter(|exchange| !exchange.ok()) {
        let text = String::from_utf8_lossy(&exchange.answer);
        let status = u16::try_from(exchange.meta["status"].as_u64().unwrap()).unwrap();
        let headers = &exchange.meta["response_headers"];
        let fault = CODEC.decode_fault(status, &|name| headers[name].as_str(), &exchange.answer);
        match table.iter().find(|(words, _)| text.contains(words)) {
            Some((_, class)) if *class == fault.class => {}
            row => findings.push(format!("{}: {row:?}, read as {fault:?}", exchange.name)),
        }
    }
    report(&findings);
}
