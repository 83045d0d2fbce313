// SPDX-License-Identifier: Apache-2.0
//! Writes a streamed answer in the grammar that the SDKs parse: `messageStart`, then one block after the other (a start only
//! for tools, deltas, a stop), then `messageStop` and `metadata`.
//!
//! Callers put a block together until its stop, so blocks must not interleave, though the events of others can (parallel
//! tool calls by index). So blocks queue: the first of the queue is on the wire and its pieces go out at once; the pieces of
//! those behind it wait until it has ended.

use std::collections::VecDeque;
use std::mem;

use serde_json::{Map, Value, json};

use super::{ENVELOPE, NAME, SERVER_TOOL, blob, citation, fault, response, stop, usage};
use crate::anthropic_messages::Balance;
use crate::codec::{Envelope, StreamEncoder};
use crate::collect::{CITATION, OPAQUE};
use crate::framing::event_stream;
use crate::ir::{Event, Fault, Finish, Usage};

/// State of one streamed answer.
pub(super) struct Encoder {
    envelope: Envelope,
    started: bool,
    /// Members of the answer that only this dialect knows, until they are written.
    members: Map<String, Value>,
    /// Index of the block at the front of the queue.
    index: u64,
    queue: VecDeque<Block>,
    /// `type` of the next call, which the vendor has run itself.
    server_tool: Option<Value>,
    called_tools: bool,
    refused: bool,
    usage: Usage,
    finish: Option<Finish>,
}

/// A block that has not been written to its end.
struct Block {
    kind: Kind,
    /// `start`, where the block has one; none once that has been written.
    head: Option<Value>,
    /// Deltas that wait.
    deltas: VecDeque<Delta>,
    /// What is known to follow is another block.
    ended: bool,
}

/// A delta, ready to be written. Those of text are nearly all of a stream and are written without a JSON tree.
enum Delta {
    /// What stands before the text and behind it.
    Text(&'static str, String, &'static str),
    Whole(Value),
}

enum Kind {
    Text,
    Thinking,
    /// With the index among the calls.
    Tool(u32, Balance),
    /// Whole as it is.
    Other,
}

impl StreamEncoder for Encoder {
    fn event(&mut self, event: &Event, out: &mut Vec<u8>) {
        match event {
            Event::Start { .. } => {}
            Event::Usage(usage) => self.usage.clone_from(usage),
            Event::Text(more) => self.text(more),
            Event::Refusal(more) => {
                self.refused = true;
                self.text(more);
            }
            Event::Reasoning(more) => self.thinking("text", more),
            Event::Signature(seal) => {
                self.thinking("signature", seal);
                self.end_last();
            }
            Event::Redacted(data) => {
                self.push(Kind::Other, None, true);
                self.delta_to_last(Delta::Whole(json!({"reasoningContent": {"redactedContent": blob::wrap(data)}})));
            }
            Event::Tool { index, id, name } => self.tool(*index, id, name),
            Event::ToolInput { index, json } => self.tool_input(*index, json),
            Event::BlockEnd => self.end_last(),
            Event::Finish(finish) => self.finish = Some(finish.clone()),
            Event::Fault(fault) => {
                self.fault(fault, out);
                return;
            }
            Event::Other { name, json } => self.other(name, serde_json::from_str(json).unwrap_or_default()),
        }
        self.advance(out);
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        self.queue.iter_mut().for_each(|block| block.ended = true);
        self.advance(out);
        let finish = self.finish.as_ref();
        let mut members = mem::take(&mut self.members);
        let fields = members.remove("additionalModelResponseFields");
        let mut stopped = json!({"stopReason": stop::to_wire(finish, self.called_tools, self.refused)});
        if let Some((name, value)) = response::stop_fields(finish) {
            stopped[name] = value;
        }
        if let Some(fields) = fields {
            stopped["additionalModelResponseFields"] = fields;
        }
        write(out, "messageStop", &stopped);
        let mut metadata = Map::new();
        metadata.insert("usage".to_owned(), Value::Object(usage::to_wire(&self.usage)));
        metadata.insert("metrics".to_owned(), json!({"latencyMs": 0}));
        metadata.extend(members);
        write(out, "metadata", &Value::Object(metadata));
    }

    fn fault(&mut self, fault: &Fault, out: &mut Vec<u8>) {
        fault::encode_frame(fault, out);
    }
}

impl Encoder {
    pub(super) fn new(envelope: Envelope) -> Self {
        Self {
            envelope,
            started: false,
            members: Map::new(),
            index: 0,
            queue: VecDeque::new(),
            server_tool: None,
            called_tools: false,
            refused: false,
            usage: Usage::default(),
            finish: None,
        }
    }

    fn text(&mut self, more: &str) {
        if !more.is_empty() {
            self.text_delta(Delta::Text("{\"text\":", more.to_owned(), "}"));
        }
    }

    fn text_delta(&mut self, delta: Delta) {
        if !self.queue.back().is_some_and(|block| matches!(block.kind, Kind::Text) && !block.ended) {
            self.push(Kind::Text, None, false);
        }
        self.delta_to_last(delta);
    }

    fn thinking(&mut self, member: &str, more: &str) {
        if !self.queue.back().is_some_and(|block| matches!(block.kind, Kind::Thinking) && !block.ended) {
            self.push(Kind::Thinking, None, false);
        }
        match member {
            _ if more.is_empty() => {}
            "text" => self.delta_to_last(Delta::Text("{\"reasoningContent\":{\"text\":", more.to_owned(), "}}")),
            _ => self.delta_to_last(Delta::Text("{\"reasoningContent\":{\"signature\":", more.to_owned(), "}}")),
        }
    }

    fn tool(&mut self, index: u32, id: &str, name: &str) {
        let id = response::tool_id(id, index, &self.envelope);
        let mut call = json!({"toolUseId": id, "name": name});
        match self.server_tool.take() {
            Some(kind) => call["type"] = kind,
            None => self.called_tools = true,
        }
        self.push(Kind::Tool(index, Balance::default()), Some(json!({"toolUse": call})), false);
    }

    fn tool_input(&mut self, call: u32, json: &str) {
        let block =
            self.queue.iter_mut().rev().find(|block| matches!(block.kind, Kind::Tool(index, _) if index == call));
        // Pieces of a call that is not open come after its whole object: white space, or nonsense.
        let Some(block) = block.filter(|_| !json.is_empty()) else { return };
        if let Kind::Tool(_, balance) = &mut block.kind {
            balance.feed(json);
        }
        block.deltas.push_back(Delta::Text("{\"toolUse\":{\"input\":", json.to_owned(), "}}"));
    }

    fn other(&mut self, name: &str, mut json: Value) {
        match (name, &json) {
            (ENVELOPE, Value::Object(members)) => self.members.extend(members.clone()),
            (SERVER_TOOL, _) => self.server_tool = Some(json),
            (CITATION, _) => {
                if let Some(citation) = citation::to_wire(&json) {
                    self.text_delta(Delta::Whole(json!({"citation": citation})));
                }
            }
            (OPAQUE, _) if json["dialect"] == NAME => self.opaque(json["json"].take()),
            _ => {}
        }
    }

    /// A block that only this dialect knows: those that a stream can hold have a start and deltas.
    fn opaque(&mut self, mut block: Value) {
        let deltas = if let Some(Value::Object(result)) = block.get_mut("toolResult") {
            result.remove("content").map(|content| json!({"toolResult": content}))
        } else if let Some(Value::Object(image)) = block.get_mut("image") {
            image.remove("source").map(|source| json!({"image": {"source": source}}))
        } else {
            return;
        };
        self.push(Kind::Other, Some(block), true);
        if let Some(delta) = deltas {
            self.delta_to_last(Delta::Whole(delta));
        }
    }

    fn push(&mut self, kind: Kind, head: Option<Value>, ended: bool) {
        self.queue.push_back(Block { kind, head, deltas: VecDeque::new(), ended });
    }

    fn delta_to_last(&mut self, delta: Delta) {
        if let Some(block) = self.queue.back_mut() {
            block.deltas.push_back(delta);
        }
    }

    fn end_last(&mut self) {
        if let Some(block) = self.queue.back_mut() {
            block.ended = true;
        }
    }

    /// Writes what can be written: everything of the front block, and of those behind it once it has ended.
    fn advance(&mut self, out: &mut Vec<u8>) {
        if !mem::replace(&mut self.started, true) {
            write(out, "messageStart", &json!({"role": "assistant"}));
        }
        loop {
            let more_follow = self.queue.len() > 1;
            let index = self.index;
            let Some(block) = self.queue.front_mut() else { return };
            if let Some(head) = block.head.take() {
                write(out, "contentBlockStart", &json!({"start": head, "contentBlockIndex": index}));
            }
            for delta in block.deltas.drain(..) {
                write_delta(out, index, delta);
            }
            let over = block.ended || (more_follow && block.is_whole());
            if !over {
                return;
            }
            write(out, "contentBlockStop", &json!({"contentBlockIndex": index}));
            self.queue.pop_front();
            self.index += 1;
        }
    }
}

impl Block {
    /// Whether nothing more belongs to it when another block has begun.
    fn is_whole(&self) -> bool {
        match &self.kind {
            Kind::Tool(_, balance) => balance.is_whole(),
            Kind::Text | Kind::Thinking | Kind::Other => true,
        }
    }
}

fn write_delta(out: &mut Vec<u8>, index: u64, delta: Delta) {
    match delta {
        Delta::Whole(delta) => write(out, "contentBlockDelta", &json!({"delta": delta, "contentBlockIndex": index})),
        Delta::Text(before, text, behind) => {
            let mut payload = format!("{{\"contentBlockIndex\":{index},\"delta\":{before}").into_bytes();
            // Text always serialises, and a vector takes every byte.
            let _ = serde_json::to_writer(&mut payload, &text);
            payload.extend_from_slice(behind.as_bytes());
            payload.push(b'}');
            write_payload(out, "contentBlockDelta", &payload);
        }
    }
}

fn write(out: &mut Vec<u8>, name: &str, event: &Value) {
    write_payload(out, name, event.to_string().as_bytes());
}

fn write_payload(out: &mut Vec<u8>, name: &str, payload: &[u8]) {
    let headers = [(":event-type", name), (":content-type", "application/json"), (":message-type", "event")];
    event_stream::write(out, &headers, payload);
}
