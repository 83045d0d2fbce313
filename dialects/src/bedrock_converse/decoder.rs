// SPDX-License-Identifier: Apache-2.0
//! Reads a streamed answer: `messageStart`, then for each block `contentBlockStart` (only of tools), `contentBlockDelta`…,
//! `contentBlockStop`, then `messageStop` and, behind it, `metadata` with the usage; exceptions anywhere; unknown events are
//! passed over. The name of a frame is its event type.

use std::borrow::Cow;
use std::mem;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{blob, fault, response, stop, usage};
use crate::codec::StreamDecoder;
use crate::collect::CITATION;
use crate::framing::Frame;
use crate::ir::{Event, Fault, FaultClass, Finish};

/// State of one streamed answer.
#[derive(Default)]
pub(super) struct Decoder {
    started: bool,
    /// Blocks that have begun and not ended, by index.
    open: Vec<(u64, Open)>,
    tool_count: u32,
    /// How the answer ended. It waits for the usage, which comes behind it.
    finish: Option<Finish>,
    /// Nothing that follows belongs to the answer.
    complete: bool,
}

/// A block that has begun.
enum Open {
    /// Text, or a thought without a seal so far.
    Plain,
    /// With the pieces of the signature of a thought.
    Sealed(String),
    /// With the pieces of a thought that only the vendor can read.
    Redacted(Vec<String>),
    /// With its index among the calls, and whether a piece of its input has come.
    Tool(u32, bool),
    /// A block that only this dialect knows, and the pieces of its bytes.
    Opaque(Value, Vec<String>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BlockDelta<'a> {
    #[serde(default)]
    content_block_index: u64,
    #[serde(borrow, default)]
    delta: Delta<'a>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Delta<'a> {
    #[serde(borrow)]
    text: Option<Cow<'a, str>>,
    #[serde(borrow)]
    tool_use: Option<ToolDelta<'a>>,
    #[serde(borrow)]
    reasoning_content: Option<ThoughtDelta<'a>>,
    citation: Option<Value>,
    tool_result: Option<Vec<Value>>,
    image: Option<Map<String, Value>>,
}

#[derive(Deserialize)]
struct ToolDelta<'a> {
    #[serde(borrow, default)]
    input: Cow<'a, str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ThoughtDelta<'a> {
    #[serde(borrow)]
    text: Option<Cow<'a, str>>,
    #[serde(borrow)]
    signature: Option<Cow<'a, str>>,
    #[serde(borrow)]
    redacted_content: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BlockStart {
    #[serde(default)]
    content_block_index: u64,
    #[serde(default)]
    start: Map<String, Value>,
}

impl StreamDecoder for Decoder {
    fn frame(&mut self, frame: &Frame<'_>, events: &mut Vec<Event>) {
        if self.complete {
            return;
        }
        if let Some(fault) = fault::of_frame(frame.name, frame.data) {
            self.complete = true;
            events.push(Event::Fault(fault));
            return;
        }
        if let Err(error) = self.read(frame, events) {
            let message = format!("an event of the vendor's stream cannot be read: {error}");
            events.push(Event::Fault(Fault::new(FaultClass::VendorBug, message)));
        }
    }

    fn end(&mut self, events: &mut Vec<Event>) {
        // An answer without its usage is one all the same; one without a stop reason was cut.
        if !self.complete {
            self.complete = true;
            events.extend(self.finish.take().map(Event::Finish));
        }
    }
}

impl Decoder {
    fn read(&mut self, frame: &Frame<'_>, events: &mut Vec<Event>) -> serde_json::Result<()> {
        match frame.name {
            "messageStart" => self.start(events),
            "contentBlockStart" => self.block_start(serde_json::from_slice(frame.data)?, events),
            "contentBlockDelta" => {
                let BlockDelta { content_block_index, delta } = serde_json::from_slice(frame.data)?;
                self.start(events);
                self.block_delta(content_block_index, delta, events);
            }
            "contentBlockStop" => {
                let stop: BlockStart = serde_json::from_slice(frame.data)?;
                self.block_stop(stop.content_block_index, events);
            }
            "messageStop" => self.message_stop(&serde_json::from_slice(frame.data)?, events),
            "metadata" => self.metadata(&serde_json::from_slice(frame.data)?, events),
            _ => {}
        }
        Ok(())
    }

    fn start(&mut self, events: &mut Vec<Event>) {
        if !mem::replace(&mut self.started, true) {
            events.push(Event::Start { id: String::new(), model: String::new() });
        }
    }

    fn block_start(&mut self, mut block: BlockStart, events: &mut Vec<Event>) {
        self.start(events);
        let open = if let Some(call) = block.start.get("toolUse") {
            let text = |name: &str| call[name].as_str().unwrap_or_default().to_owned();
            let index = self.tool_count;
            self.tool_count += 1;
            events.extend(response::server_tool_event(&call["type"]));
            events.push(Event::Tool { index, id: text("toolUseId"), name: text("name") });
            Open::Tool(index, false)
        } else {
            if let Some(Value::Object(result)) = block.start.get_mut("toolResult") {
                result.insert("content".to_owned(), json!([]));
            }
            Open::Opaque(Value::Object(block.start), Vec::new())
        };
        self.open.retain(|(other, _)| *other != block.content_block_index);
        self.open.push((block.content_block_index, open));
    }

    fn block_delta(&mut self, index: u64, delta: Delta<'_>, events: &mut Vec<Event>) {
        let place = self.open.iter().position(|(other, _)| *other == index).unwrap_or_else(|| {
            self.open.push((index, Open::Plain));
            self.open.len() - 1
        });
        let open = &mut self.open[place].1;
        let more = |text: Option<Cow<'_, str>>| text.map(Cow::into_owned).filter(|text| !text.is_empty());
        events.extend(more(delta.text).map(Event::Text));
        if let Some(json) = delta.tool_use.and_then(|tool| more(Some(tool.input)))
            && let Open::Tool(index, begun) = open
        {
            *begun = true;
            events.push(Event::ToolInput { index: *index, json });
        }
        if let Some(thought) = delta.reasoning_content {
            events.extend(more(thought.text).map(Event::Reasoning));
            match (more(thought.signature), &mut *open) {
                (Some(piece), Open::Sealed(seal)) => seal.push_str(&piece),
                (Some(piece), open) => *open = Open::Sealed(piece),
                (None, _) => {}
            }
            match (more(thought.redacted_content), &mut *open) {
                (Some(piece), Open::Redacted(pieces)) => pieces.push(piece),
                (Some(piece), open) => *open = Open::Redacted(vec![piece]),
                (None, _) => {}
            }
        }
        events.extend(delta.citation.map(|cited| Event::Other { name: CITATION.to_owned(), json: cited.to_string() }));
        if let Open::Opaque(block, bytes) = open {
            opaque_delta(block, bytes, delta.tool_result, delta.image);
        }
    }

    fn block_stop(&mut self, index: u64, events: &mut Vec<Event>) {
        if let Some(place) = self.open.iter().position(|(other, _)| *other == index) {
            end_block(self.open.remove(place).1, events);
        }
    }

    fn message_stop(&mut self, stated: &Map<String, Value>, events: &mut Vec<Event>) {
        self.start(events);
        for (_, open) in mem::take(&mut self.open) {
            end_block(open, events);
        }
        let reason = stated.get("stopReason").and_then(Value::as_str).unwrap_or("end_turn");
        self.finish = Some(stop::from_wire(reason, response::stop_sequence(stated)));
        events.extend(response::envelope_event(stated));
    }

    fn metadata(&mut self, stated: &Map<String, Value>, events: &mut Vec<Event>) {
        let usage = stated.get("usage").and_then(Value::as_object);
        events.extend(usage.map(|usage| Event::Usage(usage::from_wire(usage))));
        events.extend(response::envelope_event(stated));
        if let Some(finish) = self.finish.take() {
            self.complete = true;
            events.push(Event::Finish(finish));
        }
    }
}

fn end_block(open: Open, events: &mut Vec<Event>) {
    match open {
        Open::Plain => {}
        Open::Sealed(seal) => events.push(Event::Signature(seal)),
        Open::Redacted(pieces) => events.push(Event::Redacted(blob::unwrap(&blob::join(pieces)))),
        Open::Tool(index, begun) => {
            if !begun {
                events.push(Event::ToolInput { index, json: "{}".to_owned() });
            }
        }
        Open::Opaque(mut block, bytes) => {
            if let Some(Value::Object(image)) = block.get_mut("image").filter(|_| !bytes.is_empty()) {
                image.insert("source".to_owned(), json!({"bytes": blob::join(bytes)}));
            }
            events.push(response::opaque_event(&block));
        }
    }
    events.push(Event::BlockEnd);
}

/// What the vendor's own tools answer, and pictures: gathered until the block is whole.
fn opaque_delta(
    block: &mut Value,
    bytes: &mut Vec<String>,
    result: Option<Vec<Value>>,
    image: Option<Map<String, Value>>,
) {
    if let (Some(more), Some(Value::Array(content))) = (result, block.pointer_mut("/toolResult/content")) {
        content.extend(more);
    }
    let (Some(more), Some(Value::Object(image))) = (image, block.get_mut("image")) else { return };
    for (name, value) in more {
        match value["bytes"].as_str() {
            Some(piece) if name == "source" => bytes.push(piece.to_owned()),
            _ => {
                image.insert(name, value);
            }
        }
    }
}
