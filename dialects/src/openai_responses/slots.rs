// SPDX-License-Identifier: Apache-2.0
//! The items of an answer that is being read. Each is told as far as it comes; what its end states and no delta has said is
//! told then. So a whole answer is read as a stream that consists of ends.

use serde_json::{Map, Value, json};

use super::{ITEM, NAME, PART, notes, seal};
use crate::collect::{CITATION, OPAQUE};
use crate::ir::Event;

/// The items so far.
#[derive(Default)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    /// How many blocks have begun, counted as [`crate::collect::Collector`] does.
    blocks: u64,
    /// Slot and part of the block that has not ended.
    open: Option<(usize, u64)>,
    /// Slot of the block that has begun last.
    last: Option<usize>,
    calls: u32,
}

/// An item.
struct Slot {
    /// `output_index`.
    place: u64,
    kind: Kind,
    /// As it was last stated.
    item: Map<String, Value>,
    parts: Vec<Part>,
    /// Whether its thoughts, its call, its arguments have been told.
    told: Told,
    done: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Message,
    Reasoning,
    Call(u32),
    /// Known to this dialect only.
    Other,
}

#[derive(Default)]
struct Told {
    item: bool,
    thoughts: bool,
    call: bool,
    input: bool,
}

/// A part of a message, in the order in which they come.
struct Part {
    index: u64,
    text: bool,
    annotations: usize,
    done: bool,
}

impl Slots {
    /// Whether a tool of the caller has been called.
    pub(super) fn called(&self) -> bool {
        self.calls > 0
    }

    /// `output_item.added`
    pub(super) fn added(&mut self, place: Option<u64>, item: &Value, events: &mut Vec<Event>) {
        let place = place.unwrap_or(self.slots.len() as u64);
        let at = self.slot(Some(place));
        self.state(at, item);
        self.begin_call(at, events);
    }

    /// More of a text or a refusal.
    pub(super) fn text(
        &mut self,
        place: Option<u64>,
        part: Option<u64>,
        more: String,
        refusal: bool,
        events: &mut Vec<Event>,
    ) {
        if more.is_empty() {
            return;
        }
        let at = self.slot(place);
        let part = self.part(at, part.unwrap_or_default());
        let index = self.slots[at].parts[part].index;
        self.slots[at].parts[part].text = true;
        self.enter(at, index, events);
        events.push(if refusal { Event::Refusal(more) } else { Event::Text(more) });
    }

    /// More of a thought: of its content if it is open, else of its summary.
    pub(super) fn thought(
        &mut self,
        place: Option<u64>,
        part: Option<u64>,
        is_open: bool,
        more: String,
        events: &mut Vec<Event>,
    ) {
        if more.is_empty() {
            return;
        }
        let at = self.slot(place);
        let index = part.unwrap_or_default();
        let slot = &mut self.slots[at];
        if slot.item.is_empty() || slot.kind == Kind::Message {
            slot.kind = Kind::Reasoning;
        }
        if is_open {
            // Stated at the end only; until then it says where the text belongs.
            slot.item.insert("content".to_owned(), json!([{}]));
        }
        let goes_on = slot.told.thoughts && slot.parts.last().is_some_and(|part| part.index != index);
        if slot.parts.last().is_none_or(|part| part.index != index) {
            slot.parts.push(Part { index, text: true, annotations: 0, done: false });
        }
        slot.told.thoughts = true;
        self.enter(at, 0, events);
        if goes_on {
            events.push(Event::Other { name: PART.to_owned(), json: "{}".to_owned() });
        }
        events.push(Event::Reasoning(more));
    }

    /// More of a call's arguments. Those of a call that is not known yet are told at its end.
    pub(super) fn input(&mut self, place: Option<u64>, more: String, events: &mut Vec<Event>) {
        let at = self.slot(place);
        let slot = &mut self.slots[at];
        if let (Kind::Call(index), true) = (slot.kind, slot.told.call && !more.is_empty()) {
            slot.told.input = true;
            events.push(Event::ToolInput { index, json: more });
        }
    }

    /// `output_text.annotation.added`
    pub(super) fn annotation(
        &mut self,
        place: Option<u64>,
        part: Option<u64>,
        annotation: &Value,
        events: &mut Vec<Event>,
    ) {
        let at = self.slot(place);
        let part = self.part(at, part.unwrap_or_default());
        let index = self.slots[at].parts[part].index;
        self.slots[at].parts[part].annotations += 1;
        self.enter(at, index, events);
        events.push(Event::Other { name: CITATION.to_owned(), json: annotation.to_string() });
    }

    /// `content_part.done`
    pub(super) fn part_done(&mut self, place: Option<u64>, index: Option<u64>, part: &Value, events: &mut Vec<Event>) {
        let at = self.slot(place);
        if self.slots[at].kind == Kind::Message {
            let position = self.part(at, index.unwrap_or_default());
            self.end_part(at, position, part, events);
        }
    }

    /// `output_item.done`
    pub(super) fn done(&mut self, place: Option<u64>, item: &Value, events: &mut Vec<Event>) {
        let at = self.slot(place);
        if !self.slots[at].done {
            self.state(at, item);
            self.end(at, events);
        }
    }

    /// The output of the last event: items that have not been told, or not to their end.
    pub(super) fn last(&mut self, output: &[Value], events: &mut Vec<Event>) {
        let told = self.slots.len();
        for (place, item) in output.iter().enumerate() {
            let place = place as u64;
            let known = self.slots.iter().position(|slot| slot.place == place || has_id(slot, item));
            match known {
                Some(at) if self.slots[at].done => {}
                Some(at) if item["type"] == self.slots[at].item.get("type").cloned().unwrap_or_default() => {
                    self.done(Some(self.slots[at].place), item, events);
                }
                // Vendors may number the items of a stream otherwise than those of the answer.
                None if told < output.len() => self.done(Some(place), item, events),
                _ => {}
            }
        }
        for at in 0..self.slots.len() {
            if !std::mem::replace(&mut self.slots[at].done, true) {
                self.end(at, events);
            }
        }
    }

    /// The slot of a place. An event without a place means the last item.
    fn slot(&mut self, place: Option<u64>) -> usize {
        let last = self.slots.last().map(|slot| slot.place);
        let place = place.or(last).unwrap_or_default();
        if let Some(at) = self.slots.iter().rposition(|slot| slot.place == place) {
            return at;
        }
        let (item, parts, told) = (Map::new(), Vec::new(), Told::default());
        self.slots.push(Slot { place, kind: Kind::Message, item, parts, told, done: false });
        self.slots.len() - 1
    }

    fn state(&mut self, at: usize, item: &Value) {
        let Value::Object(item) = item else { return };
        let slot = &mut self.slots[at];
        slot.item = item.clone();
        slot.kind = match (item.get("type").and_then(Value::as_str).unwrap_or_default(), slot.kind) {
            ("message", _) => Kind::Message,
            ("reasoning", _) => Kind::Reasoning,
            ("function_call", Kind::Call(index)) => Kind::Call(index),
            ("function_call", _) => {
                self.calls += 1;
                Kind::Call(self.calls - 1)
            }
            _ => Kind::Other,
        };
    }

    /// The part of a message with this index, or the next one.
    fn part(&mut self, at: usize, index: u64) -> usize {
        let parts = &mut self.slots[at].parts;
        parts.iter().position(|part| part.index == index).unwrap_or_else(|| {
            parts.push(Part { index, text: false, annotations: 0, done: false });
            parts.len() - 1
        })
    }

    /// Begins a block unless it is open; before the first one of an item stands what only this dialect knows of it.
    fn enter(&mut self, at: usize, part: u64, events: &mut Vec<Event>) {
        if self.open != Some((at, part)) {
            self.begin(at, events);
            self.open = Some((at, part));
        }
    }

    fn begin(&mut self, at: usize, events: &mut Vec<Event>) {
        let slot = &mut self.slots[at];
        if !std::mem::replace(&mut slot.told.item, true) {
            let item = known_here(slot);
            if item.len() > 1 {
                let json = json!({ "block": self.blocks, "item": item }).to_string();
                events.push(Event::Other { name: ITEM.to_owned(), json });
            }
        }
        self.blocks += 1;
        self.open = None;
        self.last = Some(at);
    }

    fn begin_call(&mut self, at: usize, events: &mut Vec<Event>) {
        let slot = &self.slots[at];
        let text = |name: &str| slot.item.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (Kind::Call(index), false) = (slot.kind, slot.told.call) else { return };
        let (id, name) = (text("call_id"), text("name"));
        if !name.is_empty() {
            self.begin(at, events);
            self.slots[at].told.call = true;
            events.push(Event::Tool { index, id, name });
        }
    }

    /// Tells what is left of an item.
    fn end(&mut self, at: usize, events: &mut Vec<Event>) {
        self.slots[at].done = true;
        match self.slots[at].kind {
            Kind::Message => self.end_message(at, events),
            Kind::Reasoning => self.end_reasoning(at, events),
            Kind::Call(index) => {
                self.begin_call(at, events);
                let slot = &mut self.slots[at];
                let input = slot.item.get("arguments").and_then(Value::as_str).unwrap_or_default();
                if slot.told.call && !slot.told.input && !input.is_empty() {
                    events.push(Event::ToolInput { index, json: input.to_owned() });
                }
                // The end of a block is that of the last one: a call that has begun since goes on.
                if self.last == Some(at) {
                    self.end_block(events);
                }
            }
            Kind::Other => {
                if !self.slots[at].item.is_empty() {
                    self.opaque(at, events);
                }
            }
        }
    }

    fn end_block(&mut self, events: &mut Vec<Event>) {
        self.open = None;
        events.push(Event::BlockEnd);
    }

    fn end_message(&mut self, at: usize, events: &mut Vec<Event>) {
        let content = self.slots[at].item.get("content").cloned().unwrap_or_default();
        let parts = content.as_array().map(Vec::as_slice).unwrap_or_default();
        for (position, part) in parts.iter().enumerate() {
            // By position: vendors may begin to count elsewhere.
            if position >= self.slots[at].parts.len() {
                self.slots[at].parts.push(Part { index: position as u64, text: false, annotations: 0, done: false });
            }
            self.end_part(at, position, part, events);
        }
        if self.open.is_some_and(|(open, _)| open == at) {
            self.end_block(events);
        }
    }

    fn end_part(&mut self, at: usize, position: usize, stated: &Value, events: &mut Vec<Event>) {
        let part = &mut self.slots[at].parts[position];
        if std::mem::replace(&mut part.done, true) {
            return;
        }
        let (index, annotations) = (part.index, part.annotations);
        let untold = |member: &str| stated[member].as_str().filter(|text| !part.text && !text.is_empty());
        let text = untold("text").map(|text| Event::Text(text.to_owned()));
        let more = text.or_else(|| untold("refusal").map(|text| Event::Refusal(text.to_owned())));
        if let Some(more) = more {
            self.enter(at, index, events);
            events.push(more);
        }
        for citation in stated["annotations"].as_array().into_iter().flatten().skip(annotations) {
            self.enter(at, index, events);
            events.push(Event::Other { name: CITATION.to_owned(), json: citation.to_string() });
        }
        if let Some(list) = stated["logprobs"].as_array().filter(|list| !list.is_empty()) {
            events.push(Event::Other { name: "logprobs".to_owned(), json: notes::logprobs_json(list) });
        }
        if self.open == Some((at, index)) {
            self.end_block(events);
        }
    }

    fn end_reasoning(&mut self, at: usize, events: &mut Vec<Event>) {
        let slot = &self.slots[at];
        let text = seal::text(&slot.item);
        let has_seal = slot.item.get("encrypted_content").is_some_and(|seal| !seal.is_null());
        let told = slot.told.thoughts;
        if text.is_empty() && !has_seal && !told {
            // Nothing that another dialect could say; this one may want it back.
            if slot.item.contains_key("id") {
                self.opaque(at, events);
            }
            return;
        }
        self.enter(at, 0, events);
        if !told && !text.is_empty() {
            events.push(Event::Reasoning(text));
        }
        events.push(Event::Signature(seal::pack(&self.slots[at].item)));
        self.end_block(events);
    }

    fn opaque(&mut self, at: usize, events: &mut Vec<Event>) {
        self.blocks += 1;
        self.last = Some(at);
        let json = json!({ "dialect": NAME, "json": self.slots[at].item }).to_string();
        events.push(Event::Other { name: OPAQUE.to_owned(), json });
        self.end_block(events);
    }
}

fn has_id(slot: &Slot, item: &Value) -> bool {
    slot.item.get("id").is_some_and(|id| id.is_string() && *id == item["id"])
}

/// The members of an item that have no canonical place, and its type.
fn known_here(slot: &Slot) -> Map<String, Value> {
    let canonical = |name: &str| match slot.kind {
        Kind::Message => matches!(name, "content" | "role" | "status"),
        Kind::Call(_) => matches!(name, "arguments" | "call_id" | "name" | "status"),
        Kind::Reasoning => !matches!(name, "type" | "id" | "content"),
        Kind::Other => true,
    };
    let mut item = slot.item.clone();
    item.retain(|name, value| !canonical(name) && !value.is_null());
    let kind = match slot.kind {
        Kind::Message => "message",
        Kind::Reasoning => "reasoning",
        Kind::Call(_) => "function_call",
        Kind::Other => "",
    };
    item.insert("type".to_owned(), Value::from(kind));
    // Where the text of a thought belongs, said before it comes.
    if let Some(Value::Array(content)) = item.shift_remove("content").filter(|_| slot.kind == Kind::Reasoning)
        && !content.is_empty()
    {
        item.insert("open".to_owned(), Value::from(true));
    }
    item
}
