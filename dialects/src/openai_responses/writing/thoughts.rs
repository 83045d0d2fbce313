// SPDX-License-Identifier: Apache-2.0
//! Writes reasoning items. Their text is a summary, which is what clients show, unless a vendor of this dialect has said
//! that it is the thought itself.

use serde_json::{Value, json};

use super::super::open::{Open, Thought};
use super::super::seal;
use super::{Block, Writing};

impl Writing {
    pub(super) fn think(&mut self, more: &str, out: &mut Vec<u8>) {
        let begins = self.block != Block::Thought;
        self.enter(Block::Thought);
        if more.is_empty() && !begins {
            return;
        }
        self.open_thought(begins, None, out);
        let Some(Open::Thought(mut thought)) = self.open.take() else { return };
        if !more.is_empty() {
            self.open_thought_part(&mut thought, out);
            thought.text.push_str(more);
            let kind =
                if thought.is_open { "response.reasoning_text.delta" } else { "response.reasoning_summary_text.delta" };
            let (id, index) = (Value::from(thought.id.as_str()), thought.parts - 1);
            let head = format!("\"item_id\":{id},\"{}\":{index}", thought.index_name());
            self.delta(kind, thought.place, &head, more, "", out);
        }
        self.open = Some(Open::Thought(thought));
    }

    /// Opens a thought where one begins; the sealed one may know its id.
    fn open_thought(&mut self, begins: bool, sealed: Option<&str>, out: &mut Vec<u8>) {
        if !begins && matches!(self.open, Some(Open::Thought(_))) {
            return;
        }
        self.end_open("completed", None, out);
        let own = sealed.and_then(|sealed| seal::unpack("", sealed));
        if self.next.is_none() {
            self.next = own;
        }
        let (stated, id) = self.stated_item("reasoning", "rs");
        let is_open = stated.get("open").is_some();
        let place = self.place();
        let item = json!({ "id": id, "type": "reasoning", "summary": [] });
        self.send("response.output_item.added", &json!({ "output_index": place, "item": item }), out);
        let (text, ended) = (String::new(), Vec::new());
        self.open = Some(Open::Thought(Thought { place, id, is_open, text, part_at: 0, parts: 0, ended }));
    }

    fn open_thought_part(&mut self, thought: &mut Thought, out: &mut Vec<u8>) {
        if thought.parts > thought.ended.len() {
            return;
        }
        let event = thought_event(thought, thought.parts, "part", thought.part(""));
        let kind =
            if thought.is_open { "response.content_part.added" } else { "response.reasoning_summary_part.added" };
        self.send(kind, &event, out);
        thought.part_at = thought.text.len();
        thought.parts += 1;
    }

    pub(super) fn end_thought_part(&mut self, thought: &mut Thought, out: &mut Vec<u8>) {
        if thought.parts == thought.ended.len() {
            return;
        }
        let text = thought.text[thought.part_at..].to_owned();
        let index = thought.ended.len();
        let (text_done, part_done) = if thought.is_open {
            ("response.reasoning_text.done", "response.content_part.done")
        } else {
            ("response.reasoning_summary_text.done", "response.reasoning_summary_part.done")
        };
        self.send(text_done, &thought_event(thought, index, "text", json!(text)), out);
        self.send(part_done, &thought_event(thought, index, "part", thought.part(&text)), out);
        thought.ended.push(text);
    }

    pub(super) fn seal(&mut self, sealed: &str, out: &mut Vec<u8>) {
        let begins = self.block != Block::Thought;
        self.enter(Block::Thought);
        self.open_thought(begins, Some(sealed), out);
        self.end_open("completed", Some(sealed), out);
        self.block = Block::Ended;
    }
}

/// Members of an event about a part of a thought.
fn thought_event(thought: &Thought, index: usize, member: &str, value: Value) -> Value {
    let mut event = json!({ "item_id": thought.id, "output_index": thought.place });
    event[thought.index_name()] = json!(index);
    event[member] = value;
    event
}
