// SPDX-License-Identifier: Apache-2.0
//! Recorded JSON with one value replaced by another one, everywhere: nothing may panic, what is written is well-formed, and
//! a request that is admitted can be written.

use std::collections::BTreeSet;

use penstock_dialects::codec::Codec;
use penstock_dialects::collect::OPAQUE;
use penstock_dialects::framing::{Frame, SseParser};
use penstock_dialects::ir::{Event, Response};
use penstock_dialects::openai_responses::ENVELOPE;
use serde_json::Value;

use super::{CODEC, answers, as_stream, envelope, grammar};
use crate::anthropic::hostile::replaced;
use crate::anthropic::recorded::folded;
use crate::recordings::exchanges;

/// Every so many of the ways of replacing a value: each value is replaced by some, and all take minutes.
const STEP: usize = 5;

#[test]
fn no_answer_makes_a_codec_panic() {
    let mut shapes = BTreeSet::new();
    for exchange in answers().iter().filter(|exchange| !exchange.streamed()) {
        let mut whole: Value = serde_json::from_slice(&exchange.answer).unwrap();
        // One of each vendor with these items.
        let vendor = exchange.name.split('/').next().unwrap().to_owned();
        let items: Vec<String> =
            whole["output"].as_array().unwrap().iter().map(|item| item["type"].to_string()).collect();
        if !shapes.insert((vendor, items)) {
            continue;
        }
        // What is only echoed adds time, not shapes.
        whole.as_object_mut().unwrap().retain(|name, _| {
            ["id", "model", "object", "output", "status", "usage", "error", "tool_usage", "incomplete_details"]
                .contains(&name.as_str())
        });
        for answer in replaced(&whole).into_iter().step_by(STEP) {
            let bytes = answer.to_string();
            let _ = (CODEC.whole_usage(bytes.as_bytes()), CODEC.decode_fault(500, &|_| None, bytes.as_bytes()));
            if let Ok(events) = CODEC.decode_response(bytes.as_bytes()) {
                CODEC.encode_response(&folded(&events), &envelope());
                is_well_formed(&events);
            }
        }
    }
}

fn is_well_formed(events: &[Event]) {
    if events.iter().any(|event| matches!(event, Event::Fault(_))) {
        return;
    }
    // Items and members of the answer that only this dialect knows go out as they came.
    let is_own =
        |event: &Event| matches!(event, Event::Other { name, .. } if [OPAQUE, ENVELOPE].contains(&name.as_str()));
    let ours: Vec<Event> = events.iter().filter(|event| !is_own(event)).cloned().collect();
    let stream = as_stream(&CODEC, &ours);
    if let Some(complaint) = grammar::complaint(&stream) {
        panic!("{complaint}\n{ours:?}\n{}", String::from_utf8_lossy(&stream));
    }
}

#[test]
fn no_stream_makes_a_codec_panic() {
    let mut shapes = BTreeSet::new();
    for exchange in answers().iter().filter(|exchange| exchange.streamed()) {
        let (mut stream, mut parser) = (Vec::new(), SseParser::new(64 << 20));
        let mut take = |frame: Frame<'_>| stream.extend(serde_json::from_slice::<Value>(frame.data));
        parser.feed(&exchange.answer, &mut take).unwrap();
        for event in &mut stream {
            for echoed in ["instructions", "tools", "text", "metadata", "reasoning", "tool_usage"] {
                if let Some(response) = event.get_mut("response").and_then(Value::as_object_mut) {
                    response.shift_remove(echoed);
                }
            }
        }
        if stream.len() > 40 {
            continue;
        }
        for place in 0..stream.len() {
            // One of each type and vendor.
            let vendor = exchange.name.split('/').next().unwrap();
            if !shapes.insert((
                vendor.to_owned(),
                stream[place]["type"].to_string(),
                stream[place]["item"]["type"].to_string(),
            )) {
                continue;
            }
            for other in replaced(&stream[place]).into_iter().step_by(STEP) {
                let (mut decoder, mut tap, mut events) = (CODEC.stream_decoder(), CODEC.tap(), Vec::new());
                for (at, event) in stream.iter().enumerate() {
                    let data = if at == place { other.to_string() } else { event.to_string() };
                    let frame = Frame { name: "", data: data.as_bytes() };
                    tap.frame(&frame);
                    decoder.frame(&frame, &mut events);
                }
                decoder.end(&mut events);
                let response: Response = folded(&events);
                assert_eq!((tap.complete(), tap.fault()), (response.finish.is_some(), response.fault), "{other}");
                is_well_formed(&events);
            }
        }
    }
}

#[test]
fn every_request_that_is_admitted_can_be_written_and_is_admitted_again() {
    let mut admitted = 0_u32;
    let recorded = exchanges("openai-responses").into_iter().map(|mut exchange| exchange.request["body"].take());
    for body in recorded.chain([serde_json::from_str(include_str!("full.json")).unwrap()]) {
        for body in replaced(&body).into_iter().step_by(STEP) {
            let Ok(request) = CODEC.decode_request(body.to_string().as_bytes()) else { continue };
            let (written, _) = CODEC.encode_request(&request);
            if let Err(fault) = CODEC.decode_request(&written) {
                // A conversation of which nothing is left.
                let is_empty = fault.message.starts_with("input: is required");
                assert!(is_empty, "{}\n{body}\n{}", fault.message, String::from_utf8_lossy(&written));
            }
            admitted += 1;
        }
    }
    assert!(admitted > 100, "{admitted}");
}
