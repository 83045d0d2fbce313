// SPDX-License-Identifier: Apache-2.0
//! Streams that no recording shows: what vendors of other dialects make an encoder write, and what goes wrong.

use serde_json::{Value, json};

use penstock_dialects::codec::{Codec, Envelope};
use penstock_dialects::framing::SseParser;
use penstock_dialects::ir::{Block, Content, Event, FaultClass, Finish, Response, Usage};

use super::{CODEC, as_stream, folded, grammar, streamed};

fn start() -> Event {
    Event::Start { id: "x".into(), model: "m".into() }
}

fn tool(index: u32) -> Event {
    Event::Tool { index, id: format!("t{index}"), name: "f".into() }
}

fn input(index: u32, json: &str) -> Event {
    Event::ToolInput { index, json: json.into() }
}

fn text(text: &str) -> Event {
    Event::Text(text.into())
}

fn finish(reason: &str) -> Event {
    Event::Finish(Finish { reason: reason.into(), sequence: None })
}

fn wire(stream: &[u8]) -> Vec<Value> {
    let (mut parser, mut events) = (SseParser::new(1 << 20), Vec::new());
    let mut read = |frame: penstock_dialects::framing::Frame<'_>| {
        events.push(serde_json::from_slice(frame.data).expect("JSON"));
    };
    parser.feed(stream, &mut read).expect("frames of a usual size");
    events
}

/// Deltas and blocks of a stream, one word each.
fn told(stream: &[u8]) -> Vec<String> {
    let word = |event: &Value| {
        let kind = event["type"].as_str().expect("a type");
        match kind {
            "content_block_start" => format!("+{}", event["content_block"]["type"].as_str().expect("a type")),
            "content_block_stop" => "-".to_owned(),
            "content_block_delta" => {
                let delta = event["delta"].as_object().expect("a delta");
                delta.iter().find(|(name, _)| *name != "type").expect("a text").1.as_str().expect("a text").to_owned()
            }
            kind => kind.trim_start_matches("message_").to_owned(),
        }
    };
    wire(stream).iter().map(word).collect()
}

/// Name, events, and the stream in words.
fn block_cases() -> Vec<(&'static str, Vec<Event>, &'static str)> {
    vec![
        ("nothing", vec![finish("stop")], "start delta stop"),
        (
            "kinds",
            vec![Event::Reasoning("r".into()), text("a"), text("b"), finish("stop")],
            "start +thinking r - +text a b - delta stop",
        ),
        (
            "a seal ends a thought",
            vec![
                Event::Reasoning("r".into()),
                Event::Signature("s".into()),
                Event::Reasoning("q".into()),
                finish("stop"),
            ],
            "start +thinking r s - +thinking q - delta stop",
        ),
        (
            "two texts",
            vec![text("a"), Event::BlockEnd, text("b"), finish("stop")],
            "start +text a - +text b - delta stop",
        ),
        (
            "empty pieces",
            vec![text(""), Event::Reasoning(String::new()), text(""), text("a"), finish("stop")],
            "start +thinking - +text a - delta stop",
        ),
        (
            "calls in turn",
            vec![tool(0), input(0, "{"), input(0, "}"), tool(1), input(1, "{}"), finish("tool_calls")],
            "start +tool_use { } - +tool_use {} - delta stop",
        ),
        (
            "interleaved calls",
            vec![
                tool(0),
                tool(1),
                input(1, "{\"b\":"),
                input(0, "{\"a\":"),
                input(1, "2}"),
                input(0, "1}"),
                text("t"),
                finish("stop"),
            ],
            "start +tool_use {\"a\": 1} - +tool_use {\"b\": 2} - +text t - delta stop",
        ),
        (
            "text within a call",
            vec![tool(0), input(0, "{\"a\":\"}"), text("t"), input(0, "\"}"), finish("stop")],
            "start +tool_use {\"a\":\"} \"} - +text t - delta stop",
        ),
        (
            "calls without arguments",
            vec![tool(0), Event::BlockEnd, tool(1), tool(2), finish("tool_calls")],
            "start +tool_use - +tool_use - +tool_use - delta stop",
        ),
        (
            "late white space",
            vec![tool(0), input(0, "{}"), text("t"), input(0, "\n"), finish("stop")],
            "start +tool_use {} - +text t - delta stop",
        ),
        (
            "a thought that only the vendor reads",
            vec![Event::Redacted("d".into()), text("t"), finish("stop")],
            "start +redacted_thinking - +text t - delta stop",
        ),
    ]
}

#[test]
fn blocks_open_and_close_as_kinds_change() {
    for (name, events, expected) in block_cases() {
        let events: Vec<Event> = std::iter::once(start()).chain(events.iter().cloned()).collect();
        let stream = as_stream(&CODEC, &events);
        assert_eq!(told(&stream).join(" "), expected, "{name}");
        assert_eq!(grammar::complaint(&stream), None, "{name}");
    }
}

#[test]
fn pieces_go_out_at_once() {
    let mut encoder = CODEC.stream_encoder(&Envelope::default());
    let mut out = Vec::new();
    encoder.event(&start(), &mut out);
    let mut piece = |event: Event, expected: &str| {
        let mut out = Vec::new();
        encoder.event(&event, &mut out);
        assert_eq!(told(&out).join(" "), expected, "{event:?}");
    };
    piece(Event::Usage(Usage { input: 5, ..Usage::default() }), "start");
    piece(text("a"), "+text a");
    piece(text("b"), "b");
    piece(tool(0), "- +tool_use");
    piece(input(0, "{\"a\""), "{\"a\"");
    piece(tool(1), "");
    piece(input(1, "{"), "");
    piece(input(0, ":1}"), ":1} - +tool_use {");
}

#[test]
fn the_stop_reason_is_one_that_callers_act_on() {
    let reason = |events: Vec<Event>| {
        let stream = as_stream(&CODEC, &events);
        let told = wire(&stream).into_iter().find(|event| event["type"] == "message_delta").expect("a message_delta");
        let whole: Value =
            serde_json::from_slice(&CODEC.encode_response(&folded(&events), &super::envelope())).expect("JSON");
        assert_eq!(told["delta"]["stop_reason"], whole["stop_reason"]);
        told["delta"]["stop_reason"].as_str().expect("a reason").to_owned()
    };
    let plain = [
        ("stop", "end_turn"),
        ("length", "max_tokens"),
        ("tool_calls", "tool_use"),
        ("content_filter", "refusal"),
        ("refusal", "refusal"),
        ("stop_sequence", "stop_sequence"),
        ("pause", "pause_turn"),
        ("error", "end_turn"),
    ];
    for (canonical, expected) in plain {
        assert_eq!(reason(vec![text("a"), finish(canonical)]), expected);
    }
    assert_eq!(reason(vec![tool(0), input(0, "{}"), finish("stop")]), "tool_use");
    assert_eq!(reason(vec![Event::Refusal("no".into()), finish("stop")]), "refusal");
}

#[test]
fn what_a_vendor_leaves_out_is_made_up_for() {
    let events = [
        Event::Start { id: String::new(), model: String::new() },
        Event::Tool { index: 0, id: String::new(), name: "f".into() },
        Event::ToolInput { index: 0, json: "[1".into() },
        finish("tool_calls"),
        Event::Usage(Usage { input: 1, cache_read: 2, cache_write: 3, output: 4, reasoning: 5, ..Usage::default() }),
    ];
    let answer: Value =
        serde_json::from_slice(&CODEC.encode_response(&folded(&events), &super::envelope())).expect("JSON");
    assert_eq!((&answer["id"], &answer["model"]), (&json!("msg_r-1"), &json!("alias")));
    let call = json!([{"type": "tool_use", "id": "toolu_r-1_0", "name": "f", "input": {"$raw": "[1"}}]);
    assert_eq!(answer["content"], call);
    let usage = json!({"input_tokens": 1, "cache_creation_input_tokens": 3, "cache_read_input_tokens": 2,
        "output_tokens": 9, "output_tokens_details": {"thinking_tokens": 5}});
    assert_eq!(answer["usage"], usage);
    let stream = wire(&as_stream(&CODEC, &events));
    assert_eq!(stream[0]["message"]["id"], "msg_r-1");
    assert_eq!(stream[1]["content_block"]["id"], "toolu_r-1_0");
    assert_eq!(stream[stream.len() - 2]["usage"], usage, "the final usage");
}

#[test]
fn foreign_blocks_and_citations_are_not_leaked() {
    let other = |name: &str, json: Value| Event::Other { name: name.into(), json: json.to_string() };
    let events = [
        start(),
        text("a"),
        other("citation", json!({"type": "url_citation"})),
        other("citation", json!({"type": "char_location", "cited_text": "w"})),
        other("opaque", json!({"dialect": "other", "json": {"type": "secret"}})),
        other("logprobs", json!({"secret": 1})),
        finish("stop"),
    ];
    let response = folded(&events);
    for bytes in [as_stream(&CODEC, &events), CODEC.encode_response(&response, &super::envelope())] {
        let bytes = String::from_utf8(bytes).expect("UTF-8");
        assert!(!bytes.contains("secret") && !bytes.contains("url_citation"), "{bytes}");
        assert!(bytes.contains("char_location"), "{bytes}");
    }
}

fn sse(events: &[Value]) -> Vec<u8> {
    let event = |event: &Value| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or_default());
    events.iter().map(event).collect::<String>().into_bytes()
}

#[test]
fn a_stream_without_its_last_event_has_no_finish_even_if_it_has_said_why_it_stops() {
    let begin = json!({"type": "message_start", "message": {"id": "m", "model": "c"}});
    let block = json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "be"}});
    let more = json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "gun"}});
    let told = json!({"type": "message_delta", "delta": {"stop_reason": "stop_sequence", "stop_sequence": "S"}});
    let cut = folded(&streamed(&CODEC, &sse(&[begin.clone(), block.clone(), more.clone()])));
    assert_eq!((cut.finish, cut.blocks), (None, vec![Block::text("begun")]));
    let forgotten = folded(&streamed(&CODEC, &sse(&[begin.clone(), block.clone(), told.clone()])));
    assert_eq!(forgotten.finish, None);
    let stop = json!({"type": "message_stop"});
    let whole = folded(&streamed(&CODEC, &sse(&[begin.clone(), block.clone(), told, stop])));
    assert_eq!(whole.finish, Some(Finish { reason: "stop_sequence".into(), sequence: Some("S".into()) }));
    let error = json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}});
    let stream = sse(&[begin, block, more, error]);
    let failed = folded(&streamed(&CODEC, &stream));
    assert_eq!(failed.fault.map(|fault| fault.class), Some(FaultClass::Overloaded));
    let (mut parser, mut tap) = (SseParser::new(1 << 20), CODEC.tap());
    parser.feed(&stream, &mut |frame| tap.frame(&frame)).expect("frames of a usual size");
    assert_eq!((tap.fault().map(|fault| fault.class), tap.complete()), (Some(FaultClass::Overloaded), false));
    let nonsense = streamed(&CODEC, b"data: {\"type\":\n\n");
    assert!(matches!(nonsense.as_slice(), [Event::Fault(fault)] if fault.class == FaultClass::VendorBug));
}

#[test]
fn blocks_that_are_not_known_are_kept_whole() {
    let stream = sse(&[
        json!({"type": "message_start", "message": {"id": "m", "model": "c", "usage": {"input_tokens": 1}}}),
        json!({"type": "ping"}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "mcp_tool_use", "id": "i", "input": {}}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": "{\"q\":"}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": "1}"}}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "content_block_start", "index": 1, "content_block": {"type": "compaction", "content": null}}),
        json!({"type": "content_block_delta", "index": 1, "delta": {"type": "compaction_delta", "content": "so "}}),
        json!({"type": "content_block_delta", "index": 1, "delta": {"type": "compaction_delta", "content": "far"}}),
        json!({"type": "content_block_stop", "index": 1}),
        json!({"type": "content_block_start", "index": 2, "content_block": {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}}),
        json!({"type": "content_block_stop", "index": 2}),
        json!({"type": "something_new", "index": 3}),
        json!({"type": "message_delta", "delta": {"stop_reason": "model_context_window_exceeded"}, "usage": {"input_tokens": null, "output_tokens": 2}}),
        json!({"type": "message_stop"}),
    ]);
    let response: Response = folded(&streamed(&CODEC, &stream));
    let opaque = |json: Value| Block::new(Content::Opaque { dialect: "anthropic-messages".into(), json });
    let expected = [
        opaque(json!({"type": "mcp_tool_use", "id": "i", "input": {"q": 1}})),
        opaque(json!({"type": "compaction", "content": "so far"})),
        Block::new(Content::ToolUse { id: "t".into(), name: "f".into(), input: "{\"a\":1}".into() }),
    ];
    assert_eq!(response.blocks, expected);
    assert_eq!(response.finish.map(|finish| finish.reason).as_deref(), Some("length"));
    assert_eq!(response.usage.map(|usage| (usage.input, usage.output)), Some((1, 2)));
}
