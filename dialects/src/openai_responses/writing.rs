// SPDX-License-Identifier: Apache-2.0
//! Writes an answer as OpenAI's SDKs read it: as a `response` object, or as the events that build one. The grammar is that
//! of the API's own streams: every item is added, filled and done under its `output_index`, every part of it likewise, and
//! the last event repeats the whole answer.
//!
//! A whole answer is written by the same machine with its voice switched off, so both say the same.

mod thoughts;

use std::collections::BTreeMap;
use std::mem;

use serde_json::{Map, Value, json};

use super::open::{Call, Message, Open, Part};
use super::{ENVELOPE, ITEM, NAME, PART, fault, notes, seal, usage};
use crate::codec::{Envelope, StreamEncoder};
use crate::collect::{self, CITATION, OPAQUE};
use crate::ir::{Event, Fault, Finish, Response, Usage};
use crate::splice;

/// Writes a whole answer.
pub(super) fn whole(response: &Response, envelope: &Envelope) -> Vec<u8> {
    let (mut writing, mut nowhere) = (Writing::new(envelope), Vec::new());
    writing.is_silent = true;
    // What has no block is told first, so that what belongs to a block is known when it begins.
    for (name, json) in &response.other {
        writing.event(&Event::Other { name: name.clone(), json: json.clone() }, &mut nowhere);
    }
    let told = |event: &Event| match event {
        Event::Other { name, json } => response.other.iter().any(|(other, stated)| other == name && stated == json),
        _ => false,
    };
    for event in collect::events(response).iter().filter(|event| !told(event)) {
        writing.event(event, &mut nowhere);
    }
    let (_, object) = writing.conclude(&mut nowhere);
    object.to_string().into_bytes()
}

/// State of an answer that is being written.
#[derive(Debug)]
pub(super) struct Writing {
    envelope: Envelope,
    /// Nothing is written; only the answer is built.
    is_silent: bool,
    /// Id and model of the answer, once it has begun.
    start: Option<(String, String)>,
    sequence: u64,
    /// Items by their place; null until they are done.
    output: Vec<Value>,
    open: Option<Open>,
    calls: Vec<Call>,
    block: Block,
    /// How many blocks have begun.
    blocks: u64,
    /// What only this dialect knows of the items that begin with these blocks.
    stated: BTreeMap<u64, Map<String, Value>>,
    /// That of the item that begins next.
    next: Option<Map<String, Value>>,
    /// Members of the answer that only this dialect knows.
    members: Map<String, Value>,
    /// Citations and log probabilities for which there is no part yet.
    annotations: Vec<Value>,
    logprobs: Vec<Value>,
    usage: Option<Usage>,
    finish: Option<Finish>,
}

/// The block to which more of its kind belongs, as [`collect::Collector`] has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    Ended,
    Text,
    Refusal,
    Thought,
    Call(u32),
}

impl StreamEncoder for Writing {
    fn event(&mut self, event: &Event, out: &mut Vec<u8>) {
        match event {
            Event::Usage(usage) => return self.usage = Some(usage.clone()),
            Event::Finish(finish) => return self.finish = Some(finish.clone()),
            Event::Fault(fault) => return self.fault(fault, out),
            Event::Start { id, model } => return self.begin(id, model, out),
            Event::Other { .. } if self.is_silent => {}
            _ => self.begin("", "", out),
        }
        match event {
            Event::Text(more) => self.say(Block::Text, more, out),
            Event::Refusal(more) => self.say(Block::Refusal, more, out),
            Event::Reasoning(more) => self.think(more, out),
            Event::Signature(seal) => self.seal(seal, out),
            Event::Redacted(data) => {
                let id = seal::made_up("rs", &self.envelope.request_id, self.output.len());
                let encrypted = seal::redacted(data);
                let item = json!({ "id": id, "type": "reasoning", "summary": [], "encrypted_content": encrypted });
                self.enter(Block::Ended);
                self.whole_item(item, out);
            }
            Event::Tool { index, id, name } => self.call(*index, id, name, out),
            Event::ToolInput { index, json } => self.input(*index, json, out),
            Event::BlockEnd => self.end_block(out),
            Event::Other { name, json } => self.other(name, json, out),
            Event::Usage(_) | Event::Finish(_) | Event::Fault(_) | Event::Start { .. } => {}
        }
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        self.begin("", "", out);
        let (kind, object) = self.conclude(out);
        self.send(kind, &json!({ "response": object }), out);
    }

    fn fault(&mut self, fault: &Fault, out: &mut Vec<u8>) {
        // OpenAI's SDKs raise the first one; Codex reads the second one.
        self.send("error", &fault::event_members(fault), out);
        let mut object = self.object("failed", &self.done());
        object["error"] = fault::answer_error(fault);
        self.send("response.failed", &json!({ "response": object }), out);
    }
}

impl Writing {
    pub(super) fn new(envelope: &Envelope) -> Self {
        Self {
            envelope: envelope.clone(),
            is_silent: false,
            start: None,
            sequence: 0,
            output: Vec::new(),
            open: None,
            calls: Vec::new(),
            block: Block::Ended,
            blocks: 0,
            stated: BTreeMap::new(),
            next: None,
            members: Map::new(),
            annotations: Vec::new(),
            logprobs: Vec::new(),
            usage: None,
            finish: None,
        }
    }

    fn begin(&mut self, id: &str, model: &str, out: &mut Vec<u8>) {
        if self.start.is_some() {
            return;
        }
        let id = if id.is_empty() { format!("resp_{}", self.envelope.request_id) } else { id.to_owned() };
        let model = if self.envelope.model.is_empty() { model } else { &self.envelope.model };
        self.start = Some((id, model.to_owned()));
        for kind in ["response.created", "response.in_progress"] {
            let object = self.object("in_progress", &[]);
            self.send(kind, &json!({ "response": object }), out);
        }
    }

    /// Ends everything. The type of the last event, and the answer.
    fn conclude(&mut self, out: &mut Vec<u8>) -> (&'static str, Value) {
        let reason = self.finish.as_ref().map_or("stop", |finish| finish.reason.as_str());
        let (kind, status, detail) = match reason {
            "length" => ("response.incomplete", "incomplete", Some("max_output_tokens")),
            "content_filter" => ("response.incomplete", "incomplete", Some("content_filter")),
            "queued" => ("response.queued", "queued", None),
            "in_progress" => ("response.in_progress", "in_progress", None),
            "cancelled" => ("response.completed", "cancelled", None),
            _ => ("response.completed", "completed", None),
        };
        let item_status = if status == "incomplete" { status } else { "completed" };
        self.end_open(item_status, None, out);
        for call in mem::take(&mut self.calls) {
            self.end_call(call, item_status, out);
        }
        let mut object = self.object(status, &self.done());
        if let Some(detail) = detail {
            object["incomplete_details"] = json!({ "reason": detail });
        }
        (kind, object)
    }

    /// The items that are done.
    fn done(&self) -> Vec<Value> {
        self.output.iter().filter(|item| !item.is_null()).cloned().collect()
    }

    /// The answer. The SDKs want every member, though only the vendor's own answers know most of them.
    fn object(&self, status: &str, output: &[Value]) -> Value {
        let (id, model) = self.start.clone().unwrap_or_default();
        let mut object = json!({
            "id": id,
            "object": "response",
            "created_at": self.envelope.created,
            "status": status,
            "background": false,
            "error": null,
            "incomplete_details": null,
            "instructions": null,
            "max_output_tokens": null,
            "model": model,
            "output": output,
            "parallel_tool_calls": true,
            "previous_response_id": null,
            "reasoning": { "effort": null, "summary": null },
            "service_tier": "default",
            "store": false,
            "temperature": null,
            "text": { "format": { "type": "text" } },
            "tool_choice": "auto",
            "tools": [],
            "top_p": null,
            "truncation": "disabled",
            "usage": self.usage.as_ref().map(usage::write),
            "user": null,
            "metadata": {},
        });
        for (name, value) in &self.members {
            object[name] = value.clone();
        }
        object
    }

    /// A block begins, or goes on; what is stated of its item is at hand when the item begins.
    fn enter(&mut self, block: Block) {
        if self.block != block || matches!(block, Block::Call(_) | Block::Ended) {
            self.next = self.stated.remove(&self.blocks);
            self.blocks += 1;
            self.block = block;
        }
    }

    /// What is stated of the item that begins, if it is of this type, and its id.
    fn stated_item(&mut self, kind: &str, prefix: &str) -> (Map<String, Value>, String) {
        let mut stated = self.next.take().filter(|item| is_of_type(item, kind)).unwrap_or_default();
        let id = match stated.shift_remove("id") {
            Some(Value::String(id)) if !id.is_empty() => id,
            _ => seal::made_up(prefix, &self.envelope.request_id, self.output.len()),
        };
        stated.shift_remove("type");
        (stated, id)
    }

    fn place(&mut self) -> usize {
        self.output.push(Value::Null);
        self.output.len() - 1
    }

    /// Writes an item that is known as a whole.
    fn whole_item(&mut self, item: Value, out: &mut Vec<u8>) {
        self.end_open("completed", None, out);
        let place = self.place();
        self.send("response.output_item.added", &json!({ "output_index": place, "item": item }), out);
        self.end_item(place, item, out);
    }

    fn end_item(&mut self, place: usize, item: Value, out: &mut Vec<u8>) {
        self.send("response.output_item.done", &json!({ "output_index": place, "item": item }), out);
        self.output[place] = item;
    }

    fn end_block(&mut self, out: &mut Vec<u8>) {
        match mem::replace(&mut self.block, Block::Ended) {
            Block::Ended => {}
            // The message goes on with the next part.
            Block::Text | Block::Refusal => self.end_part(out),
            Block::Thought => self.end_open("completed", None, out),
            Block::Call(index) => {
                let is_whole = |call: &Call| call.index == index && (call.input.is_empty() || is_json(&call.input));
                if let Some(at) = self.calls.iter().position(is_whole) {
                    let call = self.calls.remove(at);
                    self.end_call(call, "completed", out);
                }
            }
        }
    }

    fn end_open(&mut self, status: &str, sealed: Option<&str>, out: &mut Vec<u8>) {
        self.end_part(out);
        match self.open.take() {
            None => {}
            Some(Open::Message(message)) => self.end_item(message.place, message.item(status), out),
            Some(Open::Thought(thought)) => self.end_item(thought.place, thought.item(sealed, !self.is_silent), out),
        }
    }

    fn end_part(&mut self, out: &mut Vec<u8>) {
        match self.open.take() {
            Some(Open::Message(mut message)) => {
                if let Some(part) = message.part.take() {
                    let json = self.end_message_part(&message, &part, out);
                    message.parts.push(json);
                }
                self.open = Some(Open::Message(message));
            }
            Some(Open::Thought(mut thought)) => {
                self.end_thought_part(&mut thought, out);
                self.open = Some(Open::Thought(thought));
            }
            None => {}
        }
    }

    // -- messages

    fn say(&mut self, block: Block, more: &str, out: &mut Vec<u8>) {
        self.enter(block);
        if more.is_empty() {
            return;
        }
        let refusal = block == Block::Refusal;
        self.open_part(refusal, out);
        let Some(Open::Message(message)) = &mut self.open else { return };
        let (place, index) = (message.place, message.parts.len());
        if let Some(part) = &mut message.part {
            part.text.push_str(more);
        }
        let (kind, tail) =
            if refusal { ("response.refusal.delta", "") } else { ("response.output_text.delta", ",\"logprobs\":[]") };
        let head = format!("\"item_id\":{},\"content_index\":{index}", Value::from(message.id.as_str()));
        self.delta(kind, place, &head, more, tail, out);
    }

    /// Makes sure that a part of this kind is open.
    fn open_part(&mut self, refusal: bool, out: &mut Vec<u8>) {
        let begins = self.next.as_ref().is_some_and(|item| is_of_type(item, "message"));
        if begins || !matches!(self.open, Some(Open::Message(_))) {
            self.end_open("completed", None, out);
            let (stated, id) = self.stated_item("message", "msg");
            let message = Message { place: self.place(), id, stated, parts: Vec::new(), part: None };
            let item = message.item("in_progress");
            self.send("response.output_item.added", &json!({ "output_index": message.place, "item": item }), out);
            self.open = Some(Open::Message(message));
        }
        if let Some(Open::Message(message)) = &self.open
            && message.part.as_ref().is_some_and(|part| part.refusal != refusal)
        {
            self.end_part(out);
        }
        let Some(Open::Message(mut message)) = self.open.take() else { return };
        if message.part.is_none() {
            let part = Part { refusal, text: String::new(), annotations: Vec::new() };
            let event = json!({
                "item_id": message.id,
                "output_index": message.place,
                "content_index": message.parts.len(),
                "part": part.json(&[]),
            });
            self.send("response.content_part.added", &event, out);
            message.part = Some(part);
        }
        self.open = Some(Open::Message(message));
    }

    fn end_message_part(&mut self, message: &Message, part: &Part, out: &mut Vec<u8>) -> Value {
        let mut part = Part { refusal: part.refusal, text: part.text.clone(), annotations: part.annotations.clone() };
        let mut logprobs = Vec::new();
        let at = json!({
            "item_id": message.id,
            "output_index": message.place,
            "content_index": message.parts.len(),
        });
        let event = |member: &str, value: Value| {
            let mut event = at.clone();
            event[member] = value;
            event
        };
        if part.refusal {
            self.send("response.refusal.done", &event("refusal", json!(part.text)), out);
        } else {
            logprobs = mem::take(&mut self.logprobs);
            for citation in mem::take(&mut self.annotations) {
                self.annotate(message, &mut part, &citation, out);
            }
            let mut done = event("text", json!(part.text));
            done["logprobs"] = json!(logprobs);
            self.send("response.output_text.done", &done, out);
        }
        let json = part.json(&logprobs);
        self.send("response.content_part.done", &event("part", json.clone()), out);
        json
    }

    fn annotate(&mut self, message: &Message, part: &mut Part, citation: &Value, out: &mut Vec<u8>) {
        let Some(annotation) = notes::annotation(citation, part.text.chars().count()) else { return };
        let event = json!({
            "item_id": message.id,
            "output_index": message.place,
            "content_index": message.parts.len(),
            "annotation_index": part.annotations.len(),
            "annotation": annotation,
        });
        self.send("response.output_text.annotation.added", &event, out);
        part.annotations.push(annotation);
    }

    // -- calls

    fn call(&mut self, index: u32, id: &str, name: &str, out: &mut Vec<u8>) {
        self.enter(Block::Call(index));
        self.end_open("completed", None, out);
        // Those of parallel calls that are whole get no more, and callers may begin to work on them.
        let (whole, open): (Vec<Call>, Vec<Call>) =
            mem::take(&mut self.calls).into_iter().partition(|call| is_json(&call.input));
        self.calls = open;
        for call in whole {
            self.end_call(call, "completed", out);
        }
        let (stated, item_id) = self.stated_item("function_call", "fc");
        // SDKs send it back with the result, so it cannot be empty.
        let made_up = || format!("call_{}_{index}", self.envelope.request_id);
        let call_id = if id.is_empty() { made_up() } else { id.to_owned() };
        let place = self.place();
        let call = Call { place, index, id: item_id, call_id, name: name.to_owned(), input: String::new(), stated };
        let item = call.item("in_progress");
        self.send("response.output_item.added", &json!({ "output_index": place, "item": item }), out);
        self.calls.push(call);
    }

    fn input(&mut self, index: u32, more: &str, out: &mut Vec<u8>) {
        // Pieces of a call that is not open come after its whole JSON: white space, or nonsense.
        let Some(call) = self.calls.iter_mut().rev().find(|call| call.index == index) else { return };
        if !more.is_empty() {
            call.input.push_str(more);
            let (place, head) = (call.place, format!("\"item_id\":{}", Value::from(call.id.as_str())));
            self.delta("response.function_call_arguments.delta", place, &head, more, "", out);
        }
    }

    fn end_call(&mut self, mut call: Call, status: &str, out: &mut Vec<u8>) {
        if call.input.is_empty() && status == "completed" {
            let head = format!("\"item_id\":{}", Value::from(call.id.as_str()));
            call.input.push_str("{}");
            self.delta("response.function_call_arguments.delta", call.place, &head, "{}", "", out);
        }
        let event = json!({
            "item_id": call.id,
            "output_index": call.place,
            "name": call.name,
            "arguments": call.input,
        });
        self.send("response.function_call_arguments.done", &event, out);
        self.end_item(call.place, call.item(status), out);
    }

    // -- what has no event of its own

    fn other(&mut self, name: &str, json: &str, out: &mut Vec<u8>) {
        let Ok(mut value) = serde_json::from_str::<Value>(json) else { return };
        match name {
            ITEM => {
                if let (Some(block), Value::Object(item)) = (value["block"].as_u64(), value["item"].take()) {
                    self.stated.insert(block, item);
                }
            }
            PART => self.end_part(out),
            ENVELOPE => {
                if let Value::Object(members) = value {
                    self.members.extend(members);
                }
            }
            CITATION => {
                self.enter(Block::Text);
                self.cite(value, out);
            }
            "annotations" => {
                let list = if let Value::Array(list) = value { list } else { Vec::new() };
                list.into_iter().for_each(|citation| self.cite(citation, out));
            }
            "logprobs" => self.logprobs.extend(notes::logprobs_list(json)),
            OPAQUE => {
                self.enter(Block::Ended);
                if value["dialect"] == NAME {
                    self.whole_item(value["json"].take(), out);
                }
            }
            "image" => self.picture(&value, out),
            "images" => value.as_array().into_iter().flatten().for_each(|image| self.picture(image, out)),
            _ => {}
        }
    }

    fn cite(&mut self, citation: Value, out: &mut Vec<u8>) {
        match self.open.take() {
            Some(Open::Message(mut message)) => {
                match message.part.take() {
                    Some(mut part) if !part.refusal => {
                        self.annotate(&message, &mut part, &citation, out);
                        message.part = Some(part);
                    }
                    part => {
                        message.part = part;
                        self.annotations.push(citation);
                    }
                }
                self.open = Some(Open::Message(message));
            }
            open => {
                self.open = open;
                self.annotations.push(citation);
            }
        }
    }

    /// A picture in the answer: here the result of a tool that makes pictures.
    fn picture(&mut self, image: &Value, out: &mut Vec<u8>) {
        let url = image["image_url"]["url"].as_str().or_else(|| image["url"].as_str());
        let inline = url.and_then(|url| Some(url.strip_prefix("data:")?.split_once(";base64,")?.1));
        let stated = image["data"].as_str().or_else(|| image["base64"].as_str());
        if let Some(data) = stated.or(inline) {
            let id = seal::made_up("ig", &self.envelope.request_id, self.output.len());
            let item = json!({ "id": id, "type": "image_generation_call", "status": "completed", "result": data });
            self.whole_item(item, out);
        }
    }

    // -- bytes

    /// Writes an event with the members of an object.
    fn send(&mut self, kind: &str, members: &Value, out: &mut Vec<u8>) {
        if self.is_silent {
            return;
        }
        let sequence = self.sequence;
        self.sequence += 1;
        let head = format!("event: {kind}\ndata: {{\"type\":\"{kind}\",\"sequence_number\":{sequence},");
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(members.to_string().trim_start_matches('{').as_bytes());
        out.extend_from_slice(b"\n\n");
    }

    /// Writes a delta: nearly every event of a stream, so it is written without building a tree.
    fn delta(&mut self, kind: &str, place: usize, head: &str, more: &str, tail: &str, out: &mut Vec<u8>) {
        if self.is_silent {
            return;
        }
        let sequence = self.sequence;
        self.sequence += 1;
        let head = format!(
            "event: {kind}\ndata: {{\"type\":\"{kind}\",\"sequence_number\":{sequence},{head},\"output_index\":{place},\
             \"delta\":"
        );
        out.extend_from_slice(head.as_bytes());
        // Text always serialises, and a vector takes every byte.
        let _ = serde_json::to_writer(&mut *out, more);
        out.extend_from_slice(tail.as_bytes());
        out.extend_from_slice(b"}\n\n");
    }
}

fn is_of_type(item: &Map<String, Value>, kind: &str) -> bool {
    item.get("type").is_some_and(|stated| stated == kind)
}

fn is_json(text: &str) -> bool {
    !text.is_empty() && splice::is_json(text)
}
