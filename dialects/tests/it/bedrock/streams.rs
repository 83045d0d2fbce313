// SPDX-License-Identifier: Apache-2.0
//! Streams that no recording shows: what vendors of other dialects make the encoder write, and what the decoder may meet.

use serde_json::{Value, json};

use penstock_dialects::codec::Codec;
use penstock_dialects::collect::{CITATION, OPAQUE};
use penstock_dialects::framing::{Frame, event_stream};
use penstock_dialects::ir::{Content, Event, Finish, Usage};

use super::{CODEC, as_stream, complaint, folded, frames, streamed};

fn finish(reason: &str) -> Event {
    Event::Finish(Finish { reason: reason.into(), sequence: None })
}

fn tool(index: u32) -> Event {
    Event::Tool { index, id: format!("t{index}"), name: "f".into() }
}

fn input(index: u32, json: &str) -> Event {
    Event::ToolInput { index, json: json.into() }
}

/// Blocks and deltas of a stream, one word each.
fn told(stream: &[u8]) -> String {
    let word = |(name, json): &(String, Value)| match name.as_str() {
        "contentBlockStart" => format!("+{}", json["start"].as_object().unwrap().keys().next().unwrap()),
        "contentBlockStop" => "-".to_owned(),
        "contentBlockDelta" => {
            let mut delta = &json["delta"];
            while let Some((_, inner)) = delta.as_object().and_then(|object| object.iter().next()) {
                delta = inner;
            }
            delta.as_str().map_or_else(|| delta.to_string(), str::to_owned)
        }
        "messageStop" => json["stopReason"].as_str().unwrap().to_owned(),
        name => name.to_owned(),
    };
    frames(stream).iter().map(word).collect::<Vec<_>>().join(" ")
}

#[test]
fn blocks_stand_one_after_the_other_however_events_come() {
    let text = |text: &str| Event::Text(text.into());
    let thought = |text: &str| Event::Reasoning(text.into());
    let seal = |seal: &str| Event::Signature(seal.into());
    let cases = [
        (vec![text("a"), text("b"), finish("stop")], "a b - end_turn"),
        (vec![thought("t"), seal("s"), text("a"), finish("length")], "t s - a - max_tokens"),
        (vec![thought("t"), text("a"), thought("u"), finish("stop")], "t - a - u - end_turn"),
        (vec![seal("s"), tool(0), input(0, "{}"), finish("tool_calls")], "s - +toolUse {} - tool_use"),
        (vec![Event::Redacted("AAEC".into()), text("a"), finish("stop")], "AAEC - a - end_turn"),
        (
            vec![tool(0), tool(1), input(1, "{\"b\":"), input(0, "{\"a\":1}"), input(1, "2}"), finish("stop")],
            "+toolUse {\"a\":1} - +toolUse {\"b\": 2} - tool_use",
        ),
        (vec![tool(0), finish("tool_calls")], "+toolUse - tool_use"),
        (vec![text("a"), Event::BlockEnd, text("b"), finish("stop")], "a - b - end_turn"),
        (vec![Event::Refusal("no".into()), finish("stop")], "no - content_filtered"),
        (vec![text("a"), finish("pause")], "a - end_turn"),
        (vec![finish("stop")], "end_turn"),
    ];
    for (events, expected) in cases {
        let stream = as_stream(&CODEC, &events);
        assert_eq!(told(&stream), format!("messageStart {expected} metadata"));
        assert_eq!(complaint(&stream), None);
    }
}

#[test]
fn pieces_go_out_as_they_come() {
    let (mut encoder, mut out) = (CODEC.stream_encoder(&super::envelope()), Vec::new());
    let mut sent = Vec::new();
    for event in [Event::Text("a".into()), Event::Text("b".into()), tool(0), input(0, "{"), input(0, "}")] {
        encoder.event(&event, &mut out);
        sent.push(frames(&out).len());
    }
    assert_eq!(sent, [2, 3, 5, 6, 7], "each event is on the wire at once");
}

#[test]
fn usage_and_what_only_this_dialect_knows_stand_at_the_end() {
    let usage = Usage { input: 3, cache_read: 4, cache_write: 5, output: 6, reasoning: 7, ..Usage::default() };
    let stopped = Finish { reason: "stop_sequence".into(), sequence: Some("END".into()) };
    let stream = as_stream(&CODEC, &[Event::Text("a".into()), Event::Usage(usage), Event::Finish(stopped.clone())]);
    let frames = frames(&stream);
    let [.., (_, stop), (_, metadata)] = frames.as_slice() else { panic!("{frames:?}") };
    assert_eq!(
        *stop,
        json!({"stopReason": "stop_sequence", "additionalModelResponseFields": {"stop_sequence": "END"}})
    );
    let stated = json!({"inputTokens": 3, "outputTokens": 13, "totalTokens": 25, "cacheReadInputTokens": 4, "cacheWriteInputTokens": 5});
    assert_eq!(metadata["usage"], stated);
    assert_eq!(folded(&streamed(&CODEC, &stream)).finish, Some(stopped));
}

/// A stream with a block of every kind, from a vendor.
pub(super) fn every_block() -> Vec<(&'static str, Value)> {
    let start = |index: u64, start: Value| ("contentBlockStart", json!({"contentBlockIndex": index, "start": start}));
    let delta = |index: u64, delta: Value| ("contentBlockDelta", json!({"contentBlockIndex": index, "delta": delta}));
    let stop = |index: u64| ("contentBlockStop", json!({"contentBlockIndex": index}));
    vec![
        ("messageStart", json!({"role": "assistant"})),
        delta(0, json!({"reasoningContent": {"text": "th"}})),
        delta(0, json!({"reasoningContent": {"text": "ink"}})),
        delta(0, json!({"reasoningContent": {"signature": "se"}})),
        delta(0, json!({"reasoningContent": {"signature": "al"}})),
        stop(0),
        delta(1, json!({"reasoningContent": {"redactedContent": "AA=="}})),
        delta(1, json!({"reasoningContent": {"redactedContent": "AQI="}})),
        stop(1),
        delta(2, json!({"citation": {"title": "t", "location": {"web": {"url": "u"}}}})),
        delta(2, json!({"text": "said"})),
        stop(2),
        start(3, json!({"toolUse": {"toolUseId": "a", "name": "f"}})),
        delta(3, json!({"toolUse": {"input": "{\"x\""}})),
        delta(3, json!({"toolUse": {"input": ":1}"}})),
        stop(3),
        start(4, json!({"toolUse": {"toolUseId": "b", "name": "g"}})),
        stop(4),
        start(5, json!({"image": {"format": "png"}})),
        delta(5, json!({"image": {"source": {"bytes": "AA=="}}})),
        delta(5, json!({"image": {"source": {"bytes": "AQI="}}})),
        stop(5),
        ("newThing", json!({"x": 1})),
        ("messageStop", json!({"stopReason": "tool_use"})),
        (
            "metadata",
            json!({"usage": {"inputTokens": 1, "outputTokens": 2, "totalTokens": 3}, "metrics": {"latencyMs": 9},
            "trace": {"promptRouter": {"invokedModelId": "m"}}, "serviceTier": {"type": "flex"}}),
        ),
    ]
}

fn written(frames: &[(&str, Value)]) -> Vec<u8> {
    let mut stream = Vec::new();
    for (name, json) in frames {
        event_stream::write(
            &mut stream,
            &[(":event-type", name), (":message-type", "event")],
            json.to_string().as_bytes(),
        );
    }
    stream
}

#[test]
fn every_kind_of_block_is_read_and_written_again() {
    let stream = written(&every_block());
    let events = streamed(&CODEC, &stream);
    let response = folded(&events);
    let contents: Vec<&Content> = response.blocks.iter().map(|block| &block.content).collect();
    let opaque = json!({"image": {"format": "png", "source": {"bytes": "AAEC"}}});
    let expected = [
        Content::Reasoning { text: "think".into(), signature: Some("seal".into()) },
        Content::Redacted { data: "AAEC".into() },
        Content::Text {
            text: "said".into(),
            citations: vec![json!({"title": "t", "location": {"web": {"url": "u"}}})],
        },
        Content::ToolUse { id: "a".into(), name: "f".into(), input: "{\"x\":1}".into() },
        Content::ToolUse { id: "b".into(), name: "g".into(), input: "{}".into() },
        Content::Opaque { dialect: "bedrock-converse".into(), json: opaque },
    ];
    assert_eq!(contents, expected.iter().collect::<Vec<_>>());
    assert_eq!(response.finish.as_ref().map(|finish| finish.reason.as_str()), Some("tool_calls"));
    let again = as_stream(&CODEC, &events);
    assert_eq!(complaint(&again), None);
    assert_eq!(folded(&streamed(&CODEC, &again)), response);
    let metadata = frames(&again).pop().expect("frames").1;
    assert_eq!((&metadata["metrics"]["latencyMs"], &metadata["serviceTier"]["type"]), (&json!(9), &json!("flex")));
    let whole = CODEC.encode_response(&response, &super::envelope());
    assert_eq!(folded(&CODEC.decode_response(&whole).expect("an answer")).blocks, response.blocks);
}

#[test]
fn a_stream_that_is_cut_has_no_finish_and_one_without_usage_has() {
    let frames = every_block();
    for length in 0..frames.len() {
        let response = folded(&streamed(&CODEC, &written(&frames[..length])));
        let stopped = frames[..length].iter().any(|(name, _)| *name == "messageStop");
        assert_eq!(response.finish.is_some(), stopped, "{length} frames");
        let mut tap = CODEC.tap();
        for (name, json) in &frames[..length] {
            tap.frame(&Frame { name, data: json.to_string().as_bytes() });
        }
        assert_eq!(tap.complete(), stopped, "{length} frames");
        assert_eq!(tap.usage(), response.usage, "{length} frames");
    }
}

#[test]
fn events_of_other_dialects_that_have_no_place_are_passed_over() {
    let foreign = [
        Event::Other { name: CITATION.into(), json: json!({"type": "url_citation"}).to_string() },
        Event::Other { name: OPAQUE.into(), json: json!({"dialect": "gemini", "json": {"x": 1}}).to_string() },
        Event::Other {
            name: OPAQUE.into(),
            json: json!({"dialect": "bedrock-converse", "json": {"guardContent": {}}}).to_string(),
        },
        Event::Other { name: "logprobs".into(), json: "nonsense".into() },
        Event::Text("a".into()),
        input(7, "{}"),
        finish("stop"),
    ];
    assert_eq!(told(&as_stream(&CODEC, &foreign)), "messageStart a - end_turn metadata");
    let cited = json!({"type": "char_location", "cited_text": "w", "document_index": 0, "start_char_index": 1, "end_char_index": 2});
    let stream = as_stream(&CODEC, &[Event::Other { name: CITATION.into(), json: cited.to_string() }, finish("stop")]);
    let location = json!({"documentChar": {"documentIndex": 0, "start": 1, "end": 2}});
    assert_eq!(frames(&stream)[1].1["delta"]["citation"]["location"], location);
}
