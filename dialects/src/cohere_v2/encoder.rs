// SPDX-License-Identifier: Apache-2.0
//! Writes a streamed answer: the grammar of [`super::decoder`]. Every event is named, and its type stands in its data, too.

use serde_json::{Value, json};

use super::answer::{answer_id, call_id, is_citation};
use super::{NAME, PLAN, fault, finish, logprobs, plan_of, usage};
use crate::codec::{Envelope, StreamEncoder};
use crate::collect::{CITATION, OPAQUE};
use crate::ir::{Event, Fault, Finish, Usage};

/// A streamed answer that is being written.
#[derive(Debug)]
pub(super) struct Encoder {
    envelope: Envelope,
    begun: bool,
    open: Open,
    /// A tool plan has been begun, and told to its end.
    planned: bool,
    plan_told: bool,
    /// Parts of content so far; the last is open if `open` says so.
    parts: u64,
    calls: usize,
    citations: u64,
    usage: Option<Usage>,
    finish: Option<Finish>,
}

/// What is being said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    Nothing,
    Text,
    Thinking,
    Plan,
    Call(u32),
}

impl Encoder {
    pub(super) fn new(envelope: &Envelope) -> Self {
        Self {
            envelope: envelope.clone(),
            begun: envelope.begun,
            open: Open::Nothing,
            planned: false,
            plan_told: false,
            parts: 0,
            calls: 0,
            citations: 0,
            usage: None,
            finish: None,
        }
    }

    fn begin(&mut self, id: &str, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.begun, true) {
            let message =
                json!({ "role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": [] });
            let id = answer_id(id, &self.envelope);
            write(&json!({ "id": id, "type": "message-start", "delta": { "message": message } }), out);
        }
    }

    /// Ends what is open, unless it is this, and begins it.
    fn turn_to(&mut self, open: Open, out: &mut Vec<u8>) {
        if self.open == open {
            return;
        }
        self.close(out);
        self.open = open;
        let content = match open {
            Open::Text => json!({ "type": "text", "text": "" }),
            Open::Thinking => json!({ "type": "thinking", "thinking": "" }),
            Open::Nothing | Open::Plan | Open::Call(_) => return,
        };
        self.content_start(&content, out);
    }

    fn content_start(&mut self, content: &Value, out: &mut Vec<u8>) {
        self.parts += 1;
        let delta = json!({ "message": { "content": content } });
        write(&json!({ "type": "content-start", "index": self.part(), "delta": delta }), out);
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        match std::mem::replace(&mut self.open, Open::Nothing) {
            Open::Nothing | Open::Plan => {}
            Open::Text | Open::Thinking => write(&json!({ "type": "content-end", "index": self.part() }), out),
            Open::Call(index) => write(&json!({ "type": "tool-call-end", "index": index }), out),
        }
    }

    /// Index of the part that is open.
    fn part(&self) -> u64 {
        self.parts.saturating_sub(1)
    }

    /// A delta with one string: nearly every event of a stream, so it is written without building a tree.
    fn content_delta(&self, member: &str, text: &str, out: &mut Vec<u8>) {
        let text = Value::from(text);
        let data = format!(
            "event: content-delta\ndata: {{\"type\":\"content-delta\",\"index\":{},\"delta\":{{\"message\":{{\"content\":{{\"{member}\":{text}}}}}}}}}\n\n",
            self.part()
        );
        out.extend_from_slice(data.as_bytes());
    }

    fn text(&mut self, text: &str, out: &mut Vec<u8>) {
        if !text.is_empty() {
            self.turn_to(Open::Text, out);
            self.content_delta("text", text, out);
        }
    }

    fn reasoning(&mut self, text: &str, out: &mut Vec<u8>) {
        if text.is_empty() {
            return;
        }
        self.turn_to(Open::Thinking, out);
        self.content_delta("thinking", text, out);
    }

    fn plan(&mut self, text: &str, out: &mut Vec<u8>) {
        self.turn_to(Open::Plan, out);
        write(&json!({ "type": "tool-plan-delta", "delta": { "message": { "tool_plan": text } } }), out);
        self.planned = true;
    }

    fn signature(&mut self, seal: &str, out: &mut Vec<u8>) {
        self.turn_to(Open::Thinking, out);
        self.content_delta("signature", seal, out);
        self.close(out);
    }

    fn redacted(&mut self, data: &str, out: &mut Vec<u8>) {
        if let Some(plan) = plan_of(data) {
            // Its pieces may have come before; where they come behind it they have been said.
            if !self.planned {
                self.plan(&plan, out);
            }
            self.plan_told = true;
            return self.close(out);
        }
        self.close(out);
        self.turn_to(Open::Thinking, out);
        self.content_delta("redacted", data, out);
        self.close(out);
    }

    fn call(&mut self, index: u32, id: &str, name: &str, out: &mut Vec<u8>) {
        self.close(out);
        let id = call_id(id, self.calls, &self.envelope);
        self.calls += 1;
        self.open = Open::Call(index);
        let call = json!({ "id": id, "type": "function", "function": { "name": name, "arguments": "" } });
        let delta = json!({ "message": { "tool_calls": call } });
        write(&json!({ "type": "tool-call-start", "index": index, "delta": delta }), out);
    }

    fn call_more(index: u32, json: &str, out: &mut Vec<u8>) {
        if !json.is_empty() {
            let delta = json!({ "message": { "tool_calls": { "function": { "arguments": json } } } });
            write(&json!({ "type": "tool-call-delta", "index": index, "delta": delta }), out);
        }
    }

    fn other(&mut self, name: &str, json: &str, out: &mut Vec<u8>) {
        let Ok(value) = serde_json::from_str::<Value>(json) else { return };
        match name {
            PLAN if !self.plan_told => self.plan(value.as_str().unwrap_or_default(), out),
            CITATION if is_citation(&value) => {
                let delta = json!({ "message": { "citations": value } });
                write(&json!({ "type": "citation-start", "index": self.citations, "delta": delta }), out);
                write(&json!({ "type": "citation-end", "index": self.citations }), out);
                self.citations += 1;
            }
            "logprobs" => {
                self.turn_to(Open::Text, out);
                let delta = json!({ "message": { "content": { "text": "" } } });
                for item in logprobs::to_wire(&value) {
                    let event =
                        json!({ "type": "content-delta", "index": self.part(), "delta": delta, "logprobs": item });
                    write(&event, out);
                }
            }
            OPAQUE if value["dialect"] == NAME => {
                self.close(out);
                self.content_start(&value["json"], out);
                write(&json!({ "type": "content-end", "index": self.part() }), out);
            }
            _ => {}
        }
    }

    fn message_end(&self, delta: &Value, out: &mut Vec<u8>) {
        write(&json!({ "type": "message-end", "delta": delta }), out);
        out.extend_from_slice(b"data: [DONE]\n\n");
    }
}

impl StreamEncoder for Encoder {
    fn event(&mut self, event: &Event, out: &mut Vec<u8>) {
        match event {
            Event::Start { id, .. } => return self.begin(id, out),
            Event::Usage(usage) => return self.usage = Some(usage.clone()),
            Event::Finish(finish) => return self.finish = Some(finish.clone()),
            Event::Fault(fault) => return self.fault(fault, out),
            _ => self.begin("", out),
        }
        match event {
            Event::Text(text) | Event::Refusal(text) => self.text(text, out),
            Event::Reasoning(text) => self.reasoning(text, out),
            Event::Signature(seal) => self.signature(seal, out),
            Event::Redacted(data) => self.redacted(data, out),
            Event::BlockEnd => self.close(out),
            Event::Tool { index, id, name } => self.call(*index, id, name, out),
            Event::ToolInput { index, json } => Self::call_more(*index, json, out),
            Event::Other { name, json } => self.other(name, json, out),
            Event::Start { .. } | Event::Usage(_) | Event::Finish(_) | Event::Fault(_) => {}
        }
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        self.begin("", out);
        self.close(out);
        let mut delta = json!({ "finish_reason": finish::to_wire(self.finish.as_ref(), self.calls > 0) });
        if let Some(usage) = &self.usage {
            delta["usage"] = usage::write(usage);
        }
        self.message_end(&delta, out);
    }

    fn fault(&mut self, fault: &Fault, out: &mut Vec<u8>) {
        self.begin("", out);
        self.close(out);
        let mut delta = json!({ "finish_reason": "ERROR", "error": fault.message });
        delta["usage"] = self.usage.as_ref().map_or_else(|| json!({}), usage::write);
        if let Some(kind) = fault::error_type(fault) {
            delta["error_type"] = json!(kind);
        }
        self.message_end(&delta, out);
    }
}

/// Appends an event that is named as its data says.
fn write(event: &Value, out: &mut Vec<u8>) {
    let kind = event["type"].as_str().unwrap_or_default();
    out.extend_from_slice(format!("event: {kind}\ndata: {event}\n\n").as_bytes());
}
