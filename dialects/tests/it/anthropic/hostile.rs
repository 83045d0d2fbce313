// SPDX-License-Identifier: Apache-2.0
//! Recorded JSON with one value replaced by another one, everywhere: nothing may panic, and a request that is admitted
//! can be written.

use serde_json::{Value, json};

use penstock_dialects::codec::Codec;
use penstock_dialects::collect;
use penstock_dialects::framing::Frame;

use super::{CODEC, as_stream, envelope, folded};
use crate::recordings::exchanges;

/// JSON larger than this many values is left out: it adds time, not shapes.
const VALUES_MAX: usize = 400;

/// Every way of replacing one value within `whole` by another one.
pub(crate) fn replaced(whole: &Value) -> Vec<Value> {
    let mut paths = Vec::new();
    collect_paths(whole, &mut String::new(), &mut paths);
    if paths.len() > VALUES_MAX {
        return Vec::new();
    }
    let others = [Value::Null, json!("x"), json!(-1.5), json!(u64::MAX), json!([]), json!([7]), json!({}), json!(true)];
    let replace = |path: &String, other: &Value| {
        let mut copy = whole.clone();
        *copy.pointer_mut(path).expect("a path of the whole") = other.clone();
        copy
    };
    paths.iter().flat_map(|path| others.iter().map(move |other| replace(path, other))).collect()
}

fn collect_paths(value: &Value, path: &mut String, paths: &mut Vec<String>) {
    paths.push(path.clone());
    let length = path.len();
    let mut below = |name: &str, value: &Value| {
        path.push('/');
        path.push_str(&name.replace('~', "~0").replace('/', "~1"));
        collect_paths(value, path, paths);
        path.truncate(length);
    };
    match value {
        Value::Object(members) => members.iter().for_each(|(name, value)| below(name, value)),
        Value::Array(list) => list.iter().enumerate().for_each(|(index, value)| below(&index.to_string(), value)),
        _ => {}
    }
}

#[test]
fn no_answer_makes_a_codec_panic() {
    for exchange in exchanges("anthropic-messages").iter().filter(|exchange| !exchange.streamed()) {
        let whole: Value = serde_json::from_slice(&exchange.answer).expect("JSON");
        for answer in replaced(&whole) {
            let bytes = answer.to_string();
            let _ = (CODEC.whole_usage(bytes.as_bytes()), CODEC.decode_fault(500, &|_| None, bytes.as_bytes()));
            if let Ok(events) = CODEC.decode_response(bytes.as_bytes()) {
                let response = folded(&events);
                CODEC.encode_response(&response, &envelope());
                as_stream(&CODEC, &collect::events(&response));
            }
        }
    }
}

/// A stream with a block of every kind.
fn stream() -> Vec<Value> {
    let start =
        |index: u64, block: Value| json!({"type": "content_block_start", "index": index, "content_block": block});
    let delta = |index: u64, delta: Value| json!({"type": "content_block_delta", "index": index, "delta": delta});
    let stop = |index: u64| json!({"type": "content_block_stop", "index": index});
    vec![
        json!({"type": "message_start", "message": {"id": "m", "model": "c", "container": {}, "usage": {"input_tokens": 1}}}),
        start(0, json!({"type": "thinking", "thinking": "", "signature": ""})),
        delta(0, json!({"type": "thinking_delta", "thinking": "t"})),
        delta(0, json!({"type": "signature_delta", "signature": "s"})),
        stop(0),
        start(1, json!({"type": "redacted_thinking", "data": "d"})),
        stop(1),
        start(2, json!({"type": "text", "text": "", "citations": []})),
        delta(2, json!({"type": "citations_delta", "citation": {"type": "char_location"}})),
        delta(2, json!({"type": "text_delta", "text": "a"})),
        stop(2),
        start(3, json!({"type": "server_tool_use", "id": "i", "name": "n", "input": {}})),
        delta(3, json!({"type": "input_json_delta", "partial_json": "{}"})),
        stop(3),
        start(4, json!({"type": "compaction", "content": null})),
        delta(4, json!({"type": "compaction_delta", "content": "c"})),
        stop(4),
        start(5, json!({"type": "tool_use", "id": "i", "name": "n", "input": {}})),
        delta(5, json!({"type": "input_json_delta", "partial_json": "{}"})),
        stop(5),
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}}),
        json!({"type": "message_stop"}),
    ]
}

#[test]
fn no_stream_makes_a_codec_panic() {
    let stream = stream();
    for place in 0..stream.len() {
        for other in replaced(&stream[place]) {
            let (mut decoder, mut tap, mut events) = (CODEC.stream_decoder(), CODEC.tap(), Vec::new());
            for (at, event) in stream.iter().enumerate() {
                let data = if at == place { other.to_string() } else { event.to_string() };
                let frame = Frame { name: "", data: data.as_bytes() };
                tap.frame(&frame);
                decoder.frame(&frame, &mut events);
            }
            decoder.end(&mut events);
            folded(&events);
            as_stream(&CODEC, &events);
        }
    }
}

#[test]
fn every_request_that_is_admitted_can_be_written_and_is_admitted_again() {
    let mut admitted = 0_u32;
    for mut exchange in exchanges("anthropic-messages") {
        let body = exchange.request["body"].take();
        for body in replaced(&body) {
            let Ok(request) = CODEC.decode_request(body.to_string().as_bytes()) else { continue };
            let (written, _) = CODEC.encode_request(&request);
            if let Err(fault) = CODEC.decode_request(&written) {
                panic!("{}: {}\n{body}\n{}", exchange.name, fault.message, String::from_utf8_lossy(&written));
            }
            admitted += 1;
        }
    }
    // Zero only where there are no recordings.
    assert!(admitted == 0 || admitted > 500, "{admitted}");
}
