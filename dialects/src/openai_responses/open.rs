// SPDX-License-Identifier: Apache-2.0
//! Items of an answer that is being written, until they end: what they hold so far, and what they are at last. Their ends
//! repeat all that their deltas have said, so all of it is kept.

use serde_json::{Map, Value, json};

use super::seal;

/// The item to which the next delta may belong.
#[derive(Debug)]
pub(super) enum Open {
    Message(Message),
    Thought(Thought),
}

/// A message.
#[derive(Debug)]
pub(super) struct Message {
    /// `output_index`
    pub(super) place: usize,
    pub(super) id: String,
    /// What only this dialect knows of it.
    pub(super) stated: Map<String, Value>,
    /// Parts that have ended.
    pub(super) parts: Vec<Value>,
    pub(super) part: Option<Part>,
}

/// A part of a message.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) refusal: bool,
    pub(super) text: String,
    pub(super) annotations: Vec<Value>,
}

/// A reasoning item.
#[derive(Debug)]
pub(super) struct Thought {
    pub(super) place: usize,
    pub(super) id: String,
    /// Whether its text is its content, open to all, and not a summary of it.
    pub(super) is_open: bool,
    /// All of its text; the part that has not ended begins at `part_at`.
    pub(super) text: String,
    pub(super) part_at: usize,
    /// Parts that have begun.
    pub(super) parts: usize,
    /// Texts of those that have ended.
    pub(super) ended: Vec<String>,
}

/// A call of a tool. Several may be open at once.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) place: usize,
    /// Position among the calls.
    pub(super) index: u32,
    pub(super) id: String,
    pub(super) call_id: String,
    pub(super) name: String,
    pub(super) input: String,
    pub(super) stated: Map<String, Value>,
}

impl Message {
    /// The item.
    pub(super) fn item(&self, status: &str) -> Value {
        let mut item = json!({ "id": self.id, "type": "message", "status": status, "role": "assistant" });
        item["content"] = json!(self.parts);
        with(item, &self.stated)
    }
}

impl Part {
    /// The part.
    pub(super) fn json(&self, logprobs: &[Value]) -> Value {
        if self.refusal {
            return json!({ "type": "refusal", "refusal": self.text });
        }
        json!({ "type": "output_text", "annotations": self.annotations, "logprobs": logprobs, "text": self.text })
    }
}

impl Thought {
    /// The item. One that a vendor of this dialect has sealed is as it was, under the id by which it has been announced, and
    /// if it `was_told`, in the parts in which it was.
    pub(super) fn item(&self, sealed: Option<&str>, was_told: bool) -> Value {
        let parts: Vec<Value> = self.ended.iter().map(|text| self.part(text)).collect();
        let member = if self.is_open { "content" } else { "summary" };
        if let Some(mut item) = sealed.and_then(|sealed| seal::unpack(&self.text, sealed)) {
            item.insert("id".to_owned(), json!(self.id));
            if was_told {
                item.get_mut("content").into_iter().for_each(|content| *content = json!([]));
                item.insert("summary".to_owned(), json!([]));
                item.insert(member.to_owned(), json!(parts));
            }
            return Value::Object(item);
        }
        let mut item = json!({ "id": self.id, "type": "reasoning", "summary": [] });
        item[member] = json!(parts);
        if let Some(sealed) = sealed {
            item["encrypted_content"] = json!(seal::sealed(sealed));
        }
        item
    }

    /// A part of its text.
    pub(super) fn part(&self, text: &str) -> Value {
        json!({ "type": if self.is_open { "reasoning_text" } else { "summary_text" }, "text": text })
    }

    /// Name of the index of a part.
    pub(super) fn index_name(&self) -> &'static str {
        if self.is_open { "content_index" } else { "summary_index" }
    }
}

impl Call {
    /// The item.
    pub(super) fn item(&self, status: &str) -> Value {
        let item = json!({
            "id": self.id,
            "type": "function_call",
            "status": status,
            "arguments": self.input,
            "call_id": self.call_id,
            "name": self.name,
        });
        with(item, &self.stated)
    }
}

fn with(mut item: Value, stated: &Map<String, Value>) -> Value {
    for (name, value) in stated {
        item[name] = value.clone();
    }
    item
}
