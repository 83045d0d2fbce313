// SPDX-License-Identifier: Apache-2.0
//! Writes a streamed answer in the grammar that the SDKs parse: `message_start`, then one block after the other (start,
//! deltas, stop), then `message_delta` and `message_stop`.
//!
//! Blocks of this dialect cannot interleave, the events of others can (parallel tool calls by index). So blocks queue: the
//! first of the queue is on the wire and its pieces go out at once; the pieces of those behind it wait until it has ended.

use std::collections::VecDeque;
use std::mem;

use serde_json::{Map, Value, json};

use super::{ENVELOPE, NAME, fault, response, stop, usage};
use crate::codec::{Envelope, StreamEncoder};
use crate::collect::{CITATION, OPAQUE};
use crate::ir::{Event, Fault, Finish, Usage};

/// State of one streamed answer.
pub(super) struct Encoder {
    envelope: Envelope,
    /// Id and model, as the vendor stated them.
    start: (String, String),
    /// `message_start` has been written. It waits for the event after `Start`, so that it can tell the usage.
    started: bool,
    /// Members of the envelope that only this dialect knows, until they are written: those known before the first block
    /// in `message_start`, later ones in `message_delta`.
    members: Map<String, Value>,
    /// Index of the block at the front of the queue.
    index: u64,
    queue: VecDeque<Block>,
    called_tools: bool,
    refused: bool,
    usage: Usage,
    finish: Option<Finish>,
}

/// A block that has not been written to its end.
struct Block {
    kind: Kind,
    /// `content_block` of its start; none once that has been written.
    head: Option<Value>,
    /// Deltas that wait.
    deltas: VecDeque<Delta>,
    /// What is known to follow is another block.
    ended: bool,
}

/// A delta, ready to be written. Those of text are nearly all of a stream and are written without a JSON tree.
enum Delta {
    /// Type, member, text.
    Text(&'static str, &'static str, String),
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

/// Tells when pieces of JSON form a whole object.
#[derive(Default)]
pub(crate) struct Balance {
    depth: u32,
    begun: bool,
    in_string: bool,
    escaped: bool,
}

impl StreamEncoder for Encoder {
    fn event(&mut self, event: &Event, out: &mut Vec<u8>) {
        match event {
            Event::Start { id, model } => {
                self.start = (id.clone(), model.clone());
                return;
            }
            Event::Usage(usage) => self.usage.clone_from(usage),
            Event::Text(more) => self.text(more),
            Event::Refusal(more) => {
                self.refused = true;
                self.text(more);
            }
            Event::Reasoning(more) => self.thinking("thinking_delta", "thinking", more),
            Event::Signature(seal) => {
                self.thinking("signature_delta", "signature", seal);
                self.end_last();
            }
            Event::Redacted(data) => self.push(Kind::Other, json!({"type": "redacted_thinking", "data": data}), true),
            Event::Tool { index, id, name } => self.tool(*index, id, name),
            Event::ToolInput { index, json } => self.tool_input(*index, json),
            Event::BlockEnd => self.end_last(),
            Event::Finish(finish) => self.finish = Some(finish.clone()),
            Event::Fault(fault) => {
                self.fault(fault, out);
                return;
            }
            Event::Other { name, json } if name == ENVELOPE => {
                if let Ok(Value::Object(members)) = serde_json::from_str(json) {
                    self.members.extend(members);
                }
                return;
            }
            Event::Other { name, json } => self.other(name, json),
        }
        self.advance(out);
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        self.queue.iter_mut().for_each(|block| block.ended = true);
        self.advance(out);
        let finish = self.finish.as_ref();
        let mut delta = mem::take(&mut self.members);
        delta.insert("stop_reason".into(), json!(stop::to_wire(finish, self.called_tools, self.refused)));
        delta.insert("stop_sequence".into(), json!(finish.and_then(|finish| finish.sequence.as_deref())));
        let mut event = json!({"type": "message_delta", "delta": delta, "usage": usage::to_wire(&self.usage)});
        // This one stands beside `delta`.
        if let Some(edits) = event["delta"].as_object_mut().and_then(|delta| delta.remove("context_management")) {
            event["context_management"] = edits;
        }
        write(out, &event);
        write(out, &json!({"type": "message_stop"}));
    }

    fn fault(&mut self, fault: &Fault, out: &mut Vec<u8>) {
        out.extend_from_slice(&fault::encode_event(fault));
    }
}

impl Encoder {
    pub(super) fn new(envelope: Envelope) -> Self {
        Self {
            envelope,
            start: Default::default(),
            started: false,
            members: Map::new(),
            index: 0,
            queue: VecDeque::new(),
            called_tools: false,
            refused: false,
            usage: Usage::default(),
            finish: None,
        }
    }

    fn text(&mut self, more: &str) {
        if !more.is_empty() {
            self.text_delta(Delta::Text("text_delta", "text", more.to_owned()));
        }
    }

    fn text_delta(&mut self, delta: Delta) {
        if !self.queue.back().is_some_and(|block| matches!(block.kind, Kind::Text) && !block.ended) {
            self.push(Kind::Text, json!({"type": "text", "text": ""}), false);
        }
        self.delta_to_last(delta);
    }

    fn thinking(&mut self, kind: &'static str, member: &'static str, more: &str) {
        if !self.queue.back().is_some_and(|block| matches!(block.kind, Kind::Thinking) && !block.ended) {
            self.push(Kind::Thinking, json!({"type": "thinking", "thinking": "", "signature": ""}), false);
        }
        if !more.is_empty() {
            self.delta_to_last(Delta::Text(kind, member, more.to_owned()));
        }
    }

    fn tool(&mut self, index: u32, id: &str, name: &str) {
        self.called_tools = true;
        let id = response::tool_id(id, index, &self.envelope);
        let head = json!({"type": "tool_use", "id": id, "name": name, "input": {}});
        self.push(Kind::Tool(index, Balance::default()), head, false);
    }

    fn tool_input(&mut self, call: u32, json: &str) {
        let block =
            self.queue.iter_mut().rev().find(|block| matches!(block.kind, Kind::Tool(index, _) if index == call));
        // Pieces of a call that is not open come after its whole object: white space, or nonsense.
        let Some(block) = block.filter(|_| !json.is_empty()) else { return };
        if let Kind::Tool(_, balance) = &mut block.kind {
            balance.feed(json);
        }
        block.deltas.push_back(Delta::Text("input_json_delta", "partial_json", json.to_owned()));
    }

    fn other(&mut self, name: &str, json: &str) {
        let Ok(mut json) = serde_json::from_str::<Value>(json) else { return };
        match name {
            CITATION if response::is_citation(&json) => {
                self.text_delta(Delta::Whole(json!({"type": "citations_delta", "citation": json})));
            }
            OPAQUE if json["dialect"] == NAME => self.opaque(json["json"].take()),
            _ => {}
        }
    }

    /// A block that only this dialect knows. Its input goes as a delta, as the vendor sends it.
    fn opaque(&mut self, mut block: Value) {
        let input = block.get_mut("input").filter(|input| input.is_object());
        let delta = input.map(|input| {
            let text = input.to_string();
            *input = json!({});
            Delta::Text("input_json_delta", "partial_json", text)
        });
        self.push(Kind::Other, block, true);
        if let Some(delta) = delta {
            self.delta_to_last(delta);
        }
    }

    fn push(&mut self, kind: Kind, head: Value, ended: bool) {
        self.queue.push_back(Block { kind, head: Some(head), deltas: VecDeque::new(), ended });
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
        self.write_start(out);
        loop {
            let more_follow = self.queue.len() > 1;
            let index = self.index;
            let Some(block) = self.queue.front_mut() else { return };
            if let Some(head) = block.head.take() {
                write(out, &json!({"type": "content_block_start", "index": index, "content_block": head}));
            }
            for delta in block.deltas.drain(..) {
                write_delta(out, index, delta);
            }
            let over = block.ended || (more_follow && block.is_whole());
            if !over {
                return;
            }
            write(out, &json!({"type": "content_block_stop", "index": index}));
            self.queue.pop_front();
            self.index += 1;
        }
    }

    fn write_start(&mut self, out: &mut Vec<u8>) {
        if self.started {
            return;
        }
        self.started = true;
        let (id, model) = &self.start;
        let model = if self.envelope.model.is_empty() { model } else { &self.envelope.model };
        let mut message = json!({
            "id": response::message_id(id, &self.envelope),
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": [],
            "stop_reason": null,
            "stop_sequence": null,
            "usage": usage::to_wire(&self.usage),
        });
        for (name, value) in mem::take(&mut self.members) {
            message[name] = value;
        }
        write(out, &json!({"type": "message_start", "message": message}));
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

impl Balance {
    pub(crate) fn feed(&mut self, json: &str) {
        for byte in json.bytes() {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.in_string => self.escaped = true,
                b'"' => self.in_string = !self.in_string,
                _ if self.in_string => {}
                b'{' | b'[' => {
                    self.begun = true;
                    self.depth += 1;
                }
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.begun && self.depth == 0 && !self.in_string
    }
}

fn write_delta(out: &mut Vec<u8>, index: u64, delta: Delta) {
    match delta {
        Delta::Whole(delta) => write(out, &json!({"type": "content_block_delta", "index": index, "delta": delta})),
        Delta::Text(kind, member, text) => {
            let head = format!(
                "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":{index},\
                 \"delta\":{{\"type\":\"{kind}\",\"{member}\":"
            );
            out.extend_from_slice(head.as_bytes());
            // Text always serialises, and a vector takes every byte.
            let _ = serde_json::to_writer(&mut *out, &text);
            out.extend_from_slice(b"}}\n\n");
        }
    }
}

/// One wire event; its name is its type.
fn write(out: &mut Vec<u8>, event: &Value) {
    let name = event["type"].as_str().unwrap_or_default();
    out.extend_from_slice(format!("event: {name}\ndata: {event}\n\n").as_bytes());
}
