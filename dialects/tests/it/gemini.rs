// SPDX-License-Identifier: Apache-2.0
//! gemini, against recorded exchanges and against itself.

mod cross;
mod embed;
mod requests;
mod seals;
mod streams;

use serde_json::Value;

use penstock_dialects::codec::{Codec, Envelope};
use penstock_dialects::conformance;
use penstock_dialects::framing::{Frame, Kind, Parser};
use penstock_dialects::gemini::Gemini;
use penstock_dialects::ir::{Content, Event, Response};

use crate::anthropic::recorded::{events, folded, streamed};
use crate::recordings::{Exchange, exchanges};

const CODEC: Gemini = Gemini;

/// Every recorded answer of 2xx.
fn answers() -> Vec<Exchange> {
    let mut found = exchanges("gemini");
    found.retain(Exchange::ok);
    found
}

fn envelope(array: bool) -> Envelope {
    Envelope { request_id: "r-1".into(), model: "alias".into(), stream_usage: true, array, ..Envelope::default() }
}

/// The bytes of a streamed answer.
fn as_stream(codec: &dyn Codec, events: &[Event], array: bool) -> Vec<u8> {
    let (mut encoder, mut out) = (codec.stream_encoder(&envelope(array)), Vec::new());
    events.iter().for_each(|event| encoder.event(event, &mut out));
    encoder.end(&mut out);
    out
}

/// Without what the gateway replaces, or says in its own words.
fn comparable(mut response: Response) -> Response {
    response.model.clear();
    if let Some(usage) = &mut response.usage {
        usage.stated.clear();
    }
    response.other.sort();
    for block in &mut response.blocks {
        if let Content::ToolUse { input, .. } = &mut block.content {
            *input = serde_json::from_str::<Value>(input).expect("JSON").to_string();
        }
    }
    response
}

#[test]
fn every_recorded_exchange_conforms() {
    for exchange in exchanges("gemini") {
        let found = conformance::check(&exchange.meta, &exchange.expected, &exchange.answer);
        assert_eq!(found, Ok(()), "{}", exchange.name);
    }
}

#[test]
fn a_stream_reads_the_same_however_it_is_cut() {
    for exchange in answers().iter().filter(|exchange| exchange.streamed()) {
        let whole = events(&CODEC, exchange);
        let bytes = &exchange.answer;
        // Every cut of a small stream, and some of a large one.
        let step = 1 + bytes.len() / 500;
        for cut in (0..=bytes.len()).step_by(step) {
            let (mut decoder, mut found) = (CODEC.stream_decoder(), Vec::new());
            let mut parser = Parser::new(Kind::Sse, 16 << 20);
            let mut take = |frame: Frame<'_>| decoder.frame(&frame, &mut found);
            for piece in [&bytes[..cut], &bytes[cut..]] {
                parser.feed(piece, &mut take).expect("frames of a usual size");
            }
            parser.end(&mut take).expect("frames of a usual size");
            decoder.end(&mut found);
            assert_eq!(found, whole, "{} cut at {cut}", exchange.name);
        }
    }
}

#[test]
fn the_tap_reads_the_same_usage_as_the_decoder() {
    for exchange in answers() {
        let name = &exchange.name;
        let decoded = folded(&events(&CODEC, &exchange)).usage.map(|mut usage| {
            // Searches are counted beside the usage.
            usage.more.retain(|(name, _)| !name.starts_with("tool-"));
            usage
        });
        if !exchange.streamed() {
            assert_eq!(CODEC.whole_usage(&exchange.answer), decoded, "{name}");
            continue;
        }
        let (mut parser, mut tap) = (Parser::new(Kind::Sse, 16 << 20), CODEC.tap());
        let mut pass = |frame: Frame<'_>| tap.frame(&frame);
        parser.feed(&exchange.answer, &mut pass).expect("frames of a usual size");
        parser.end(&mut pass).expect("frames of a usual size");
        assert!(tap.complete(), "{name}");
        assert_eq!(tap.usage(), decoded, "{name}");
        assert_eq!(tap.fault(), None, "{name}");
        let elements: Vec<Value> = elements(&exchange.answer);
        let list = Value::from(elements).to_string();
        assert_eq!(CODEC.whole_usage(list.as_bytes()), decoded, "{name}: as a list");
    }
}

#[test]
fn every_recorded_answer_survives_being_written_and_read_again() {
    for exchange in answers() {
        let name = &exchange.name;
        let events = events(&CODEC, &exchange);
        let response = folded(&events);
        for array in [false, true] {
            let stream = as_stream(&CODEC, &events, array);
            if array {
                assert!(serde_json::from_slice::<Vec<Value>>(&stream).is_ok(), "{name}: one JSON array");
            }
            let again = folded(&streamed(&CODEC, &stream));
            assert_eq!(again.model, "alias", "{name}: the caller reads the name that it used");
            assert_eq!(comparable(again), comparable(response.clone()), "{name}: as a stream, array: {array}");
        }
        let whole = CODEC.encode_response(&response, &envelope(false));
        let again = folded(&CODEC.decode_response(&whole).expect("an answer"));
        assert_eq!(comparable(again), comparable(response.clone()), "{name}: whole");
    }
}

#[test]
fn the_conversations_of_live_tell_what_each_turn_cost() {
    let Some(root) = crate::recordings::shared("open") else { return };
    let mut turns = 0;
    for entry in std::fs::read_dir(root.join("gemini")).expect("a folder") {
        let Ok(lines) = std::fs::read_to_string(entry.expect("an entry").path().join("ws.jsonl")) else { continue };
        for line in lines.lines() {
            let line: Value = serde_json::from_str(line).expect("JSON");
            let message = line["data"].to_string();
            let usage = CODEC.realtime_usage(message.as_bytes());
            assert_eq!(usage.is_some(), line["data"]["usageMetadata"].is_object(), "{message}");
            let Some(usage) = usage else { continue };
            let stated = &line["data"]["usageMetadata"];
            assert_eq!(usage.input_total(), stated["promptTokenCount"].as_u64().unwrap_or_default());
            assert_eq!(
                usage.output_total() - usage.reasoning,
                stated["responseTokenCount"].as_u64().unwrap_or_default()
            );
            turns += 1;
        }
    }
    assert!(turns > 0, "no turn was found");
}

/// The elements of a stream of server-sent events.
fn elements(stream: &[u8]) -> Vec<Value> {
    let mut elements = Vec::new();
    let mut parser = Parser::new(Kind::Sse, 16 << 20);
    let mut take = |frame: Frame<'_>| elements.push(serde_json::from_slice(frame.data).expect("JSON"));
    parser.feed(stream, &mut take).expect("frames of a usual size");
    parser.end(&mut take).expect("frames of a usual size");
    elements
}
