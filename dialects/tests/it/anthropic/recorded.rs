// SPDX-License-Identifier: Apache-2.0
//! Recorded exchanges with vendors, where this machine has them (`PENSTOCK_FIXTURES`, or `shared/fixtures` beside the
//! repository). Tests that find none say so and pass.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use penstock_dialects::codec::Codec;
use penstock_dialects::collect::Collector;
use penstock_dialects::framing::SseParser;
use penstock_dialects::ir::{Content, Event, Response};

/// One recorded exchange.
pub(crate) struct Recorded {
    pub(crate) name: String,
    pub(crate) status: u16,
    pub(crate) streaming: bool,
    pub(crate) headers: Value,
    /// The request's body, if it was recorded.
    pub(crate) request: Option<Value>,
    pub(crate) answer: Vec<u8>,
    pub(crate) expected: Value,
}

/// Every chat exchange of a protocol.
pub(crate) fn of(protocol: &str) -> Vec<Recorded> {
    let Some(root) = root() else {
        eprintln!("SKIPPED: there are no recorded exchanges here (set PENSTOCK_FIXTURES)");
        return Vec::new();
    };
    let mut found = Vec::new();
    visit(&root, &root, protocol, &mut found);
    assert!(!found.is_empty(), "{} holds no exchange of {protocol}", root.display());
    found.sort_by(|one, other| one.name.cmp(&other.name));
    found
}

fn root() -> Option<PathBuf> {
    let named = std::env::var_os("PENSTOCK_FIXTURES").map(|folder| PathBuf::from(folder).join("open"));
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|folder| folder.join("shared/fixtures/open"));
    named.into_iter().chain(beside).find(|folder| folder.is_dir())
}

fn visit(root: &Path, folder: &Path, protocol: &str, found: &mut Vec<Recorded>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            visit(root, &path, protocol, found);
        }
    }
    let json = |name: &str| -> Option<Value> { serde_json::from_slice(&std::fs::read(folder.join(name)).ok()?).ok() };
    let Some(meta) = json("meta.json").filter(|meta| meta["protocol"] == protocol) else { return };
    let Some(expected) = json("expected.json") else { return };
    let file = meta["response_file"].as_str().expect("a response file");
    found.push(Recorded {
        name: folder.strip_prefix(root).expect("a folder below the root").display().to_string(),
        status: meta["status"].as_u64().and_then(|status| u16::try_from(status).ok()).unwrap_or(200),
        streaming: file.starts_with("stream"),
        headers: meta["response_headers"].clone(),
        request: json("request.json").map(|mut request| request["body"].take()).filter(Value::is_object),
        answer: std::fs::read(folder.join(file)).expect("the answer"),
        expected,
    });
}

/// The events of a streamed answer.
pub(crate) fn streamed(codec: &dyn Codec, stream: &[u8]) -> Vec<Event> {
    let mut parser = SseParser::new(16 << 20);
    let (mut decoder, mut events) = (codec.stream_decoder(), Vec::new());
    for chunk in stream.chunks(997) {
        parser.feed(chunk, &mut |frame| decoder.frame(&frame, &mut events)).expect("frames of a usual size");
    }
    parser.end(&mut |frame| decoder.frame(&frame, &mut events)).expect("frames of a usual size");
    decoder.end(&mut events);
    events
}

/// What the events fold into.
pub(crate) fn folded(events: &[Event]) -> Response {
    let mut collector = Collector::new();
    events.iter().for_each(|event| collector.event(event));
    collector.finish()
}

/// The events of a recorded answer.
pub(crate) fn events(codec: &dyn Codec, recorded: &Recorded) -> Vec<Event> {
    if recorded.streaming {
        return streamed(codec, &recorded.answer);
    }
    codec.decode_response(&recorded.answer).unwrap_or_else(|fault| vec![Event::Fault(fault)])
}

/// What a caller makes of an answer, in the words of `expected.json`.
pub(crate) fn reading(response: &Response) -> Value {
    let (mut text, mut reasoning, mut calls) = (String::new(), String::new(), Vec::new());
    for block in &response.blocks {
        match &block.content {
            Content::Text { text: more, .. } => text.push_str(more),
            Content::Reasoning { text: more, .. } => reasoning.push_str(more),
            Content::ToolUse { id, name, input } => {
                let input: Value = serde_json::from_str(input).unwrap_or_else(|_| json!({"$raw": input}));
                calls.push(json!({"id": id, "name": name, "arguments": input}));
            }
            _ => {}
        }
    }
    let finish = response.finish.as_ref().map(|finish| match finish.reason.as_str() {
        "stop_sequence" => "stop",
        "refusal" => "content_filter",
        other => other,
    });
    json!({"text": text, "reasoning": reasoning, "tool_calls": calls, "finish": finish})
}

/// The seals of the thoughts, byte for byte.
pub(crate) fn seals(response: &Response) -> Vec<String> {
    let seal = |content: &Content| match content {
        Content::Reasoning { signature, .. } => Some(signature.clone().unwrap_or_default()),
        Content::Redacted { data } => Some(data.clone()),
        _ => None,
    };
    response.blocks.iter().filter_map(|block| seal(&block.content)).collect()
}
