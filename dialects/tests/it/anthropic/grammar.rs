// SPDX-License-Identifier: Apache-2.0
//! The event grammar of a streamed answer as the SDKs demand it, and stricter: what this admits they all parse.

use serde_json::Value;

use penstock_dialects::framing::SseParser;

/// What is wrong with a stream; nothing if it is well-formed.
pub(crate) fn complaint(stream: &[u8]) -> Option<String> {
    let mut parser = SseParser::new(16 << 20);
    let mut checker = Checker::default();
    let mut complaint = None;
    let mut check = |name: &str, data: &[u8]| {
        let place = checker.place;
        checker.place += 1;
        if complaint.is_none() {
            complaint = checker.event(name, data).err().map(|what| format!("event {place} ({name}): {what}"));
        }
    };
    parser.feed(stream, &mut |frame| check(frame.name, frame.data)).expect("frames of a usual size");
    if !parser.at_boundary() {
        return Some("the last event has no end".to_owned());
    }
    complaint.or_else(|| (checker.phase != Phase::Over).then(|| "there is no message_stop".to_owned()))
}

#[derive(Default, PartialEq, Debug)]
enum Phase {
    #[default]
    Before,
    /// Between blocks.
    Between,
    /// Within a block of this type, with the pieces of its input.
    Within(String, String),
    /// After `message_delta`.
    Told,
    Over,
}

#[derive(Default)]
struct Checker {
    place: usize,
    phase: Phase,
    next_index: u64,
}

fn demand(condition: bool, what: &str) -> Result<(), String> {
    if condition { Ok(()) } else { Err(what.to_owned()) }
}

impl Checker {
    fn event(&mut self, name: &str, data: &[u8]) -> Result<(), String> {
        let event: Value = serde_json::from_slice(data).map_err(|error| error.to_string())?;
        demand(event["type"] == name, "the name is not the type")?;
        let phase = std::mem::take(&mut self.phase);
        self.phase = match (name, phase) {
            ("message_start", Phase::Before) => {
                message_start(&event["message"])?;
                Phase::Between
            }
            ("content_block_start", Phase::Between) => {
                demand(event["index"] == self.next_index, "not the next index")?;
                self.next_index += 1;
                block_start(&event["content_block"])?
            }
            ("content_block_delta", Phase::Within(kind, mut input)) => {
                demand(event["index"] == self.next_index - 1, "not the index of the open block")?;
                delta(&kind, &event["delta"], &mut input)?;
                Phase::Within(kind, input)
            }
            ("content_block_stop", Phase::Within(_, input)) => {
                demand(event["index"] == self.next_index - 1, "not the index of the open block")?;
                let whole =
                    input.is_empty() || serde_json::from_str::<Value>(&input).is_ok_and(|input| input.is_object());
                demand(whole, "the pieces of the input form no object")?;
                Phase::Between
            }
            ("message_delta", Phase::Between) => {
                demand(event["delta"]["stop_reason"].is_string(), "no stop_reason")?;
                demand(event["delta"].get("stop_sequence").is_some(), "no stop_sequence")?;
                demand(event["usage"]["output_tokens"].is_u64(), "no output_tokens")?;
                Phase::Told
            }
            ("message_stop", Phase::Told) => Phase::Over,
            (_, phase) => return Err(format!("not after {phase:?}")),
        };
        Ok(())
    }
}

fn message_start(message: &Value) -> Result<(), String> {
    demand(message["type"] == "message" && message["role"] == "assistant", "not a message of the assistant")?;
    demand(message["id"].as_str().is_some_and(|id| !id.is_empty()), "no id")?;
    demand(message["model"].is_string(), "no model")?;
    demand(message["content"] == serde_json::json!([]), "content is not empty")?;
    demand(message.get("stop_reason").is_some_and(Value::is_null), "stop_reason is not null")?;
    demand(message["usage"]["input_tokens"].is_u64() && message["usage"]["output_tokens"].is_u64(), "no usage")
}

fn block_start(block: &Value) -> Result<Phase, String> {
    let kind = block["type"].as_str().ok_or("a block without a type")?;
    match kind {
        "text" => demand(block["text"] == "", "text does not begin empty")?,
        "thinking" => demand(block["thinking"] == "" && block["signature"] == "", "thinking does not begin empty")?,
        "tool_use" | "server_tool_use" => {
            demand(block["id"].as_str().is_some_and(|id| !id.is_empty()), "no id")?;
            demand(block["name"].is_string(), "no name")?;
            demand(block["input"] == serde_json::json!({}), "input does not begin empty")?;
        }
        "redacted_thinking" => demand(block["data"].is_string(), "no data")?,
        _ => {}
    }
    Ok(Phase::Within(kind.to_owned(), String::new()))
}

fn delta(block: &str, delta: &Value, input: &mut String) -> Result<(), String> {
    let member = match (delta["type"].as_str().unwrap_or_default(), block) {
        ("text_delta", "text") => "text",
        ("thinking_delta", "thinking") => "thinking",
        ("signature_delta", "thinking") => "signature",
        ("citations_delta", "text") => return demand(delta["citation"].is_object(), "no citation"),
        ("input_json_delta", "tool_use" | "server_tool_use" | "mcp_tool_use") => "partial_json",
        (kind, block) => return Err(format!("a {kind} in a {block} block")),
    };
    let text = delta[member].as_str().ok_or("a delta without its text")?;
    if member == "partial_json" {
        input.push_str(text);
    }
    Ok(())
}

#[test]
fn a_stream_that_no_sdk_would_parse_is_complained_about() {
    let start = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"c\",\"content\":[],\"stop_reason\":null,\"usage\":{\"input_tokens\":1,\"output_tokens\":1}}}\n\n";
    let block = "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n";
    let delta = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"a\"}}\n\n";
    let stop = "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n";
    let told = "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\",\"stop_sequence\":null},\"usage\":{\"output_tokens\":1}}\n\n";
    let over = "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
    assert_eq!(complaint([start, block, delta, stop, told, over].concat().as_bytes()), None);
    let wrong: [&[&str]; 7] = [
        &[block, delta, stop, told, over],
        &[start, delta, told, over],
        &[start, block, delta, told, over],
        &[start, block, block, stop, told, over],
        &[start, block, stop, block, stop, told, over],
        &[start, block, stop, told],
        &[start, block, stop, told, over, over],
    ];
    for stream in wrong {
        assert!(complaint(stream.concat().as_bytes()).is_some(), "{stream:?}");
    }
}
