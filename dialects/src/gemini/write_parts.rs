// SPDX-License-Identifier: Apache-2.0
//! The conversation of a canonical request as this dialect has it: instructions apart, user and model in turn, the responses
//! of functions at the head of the turn after the calls, signatures on the parts that they belong to.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::seal::{self, Place, UNCHECKED};
use super::thinking::Generation;
use super::{NAME, files, ids};
use crate::ir::{Block, Content, Members, Message, Request, Role, Source};

/// Writes contents; keeps the paths of what was dropped.
pub(super) struct Contents<'a> {
    request: &'a Request,
    generation: Generation,
    /// Names of the functions by the ids of their calls.
    names: HashMap<&'a str, &'a str>,
    pub(super) dropped: Vec<String>,
}

/// The parts of one message.
#[derive(Default)]
struct Parts {
    written: Vec<Value>,
    /// Signatures that wait until all parts are there, with how many parts stood before each.
    seals: Vec<(String, Place, usize)>,
    /// Where the function calls stand, by id.
    calls: Vec<(String, usize)>,
    images: Vec<usize>,
}

impl<'a> Contents<'a> {
    pub(super) fn new(request: &'a Request) -> Self {
        let blocks = request.messages.iter().flat_map(|message| &message.blocks);
        let names = blocks.filter_map(|block| match &block.content {
            Content::ToolUse { id, name, .. } => Some((id.as_str(), name.as_str())),
            _ => None,
        });
        Self { request, generation: Generation::of(&request.model), names: names.collect(), dropped: Vec::new() }
    }

    /// The parts of the instructions, and the conversation. Instructions within it go to the end of the former.
    pub(super) fn written(&mut self) -> (Vec<Value>, Vec<Value>) {
        let mut system = self.parts(&self.request.system, "system", false);
        let mut turns: Vec<(Role, Vec<Value>)> = Vec::new();
        for (index, message) in self.request.messages.iter().enumerate() {
            let path = format!("messages[{index}]");
            if message.name.is_some() {
                self.dropped.push(format!("{path}.name"));
            }
            let parts = self.message(message, &path);
            if message.role == Role::System {
                // Above the conversation they stand before what they followed: that is worth telling.
                if !turns.is_empty() {
                    self.dropped.push(format!("{path}.role"));
                }
                system.extend(parts);
                continue;
            }
            match turns.last_mut() {
                _ if parts.is_empty() => {}
                Some((role, turn)) if *role == message.role => turn.extend(parts),
                _ => turns.push((message.role, parts)),
            }
        }
        if self.generation == Generation::Level {
            sign_calls(&mut turns);
        }
        (system, turns.into_iter().map(|(role, parts)| turn(role, parts)).collect())
    }

    fn message(&mut self, message: &Message, path: &str) -> Vec<Value> {
        self.parts(&message.blocks, &format!("{path}.blocks"), message.role == Role::Assistant)
    }

    fn parts(&mut self, blocks: &[Block], path: &str, is_model: bool) -> Vec<Value> {
        let mut parts = Parts::default();
        for (index, block) in blocks.iter().enumerate() {
            let path = format!("{path}[{index}]");
            if block.cache.is_some() {
                self.dropped.push(format!("{path}.cache"));
            }
            self.block(block, &path, is_model, &mut parts);
        }
        parts.signed()
    }

    fn block(&mut self, block: &Block, path: &str, is_model: bool, parts: &mut Parts) {
        let part = match &block.content {
            // The API refuses text that is empty.
            Content::Text { text, .. } | Content::Refusal { text } if text.is_empty() => return,
            Content::Text { text, .. } | Content::Refusal { text } => Some(json!({"text": text})),
            Content::Media { source, title, detail, .. } => {
                let data = own(block, "inlineData").or_else(|| own(block, "fileData"));
                let own_title = data.is_some_and(|data| data.get("displayName").is_some());
                if title.is_some() && !own_title {
                    self.dropped.push(format!("{path}.title"));
                }
                if detail.as_deref().is_some_and(|detail| detail != "auto") {
                    self.dropped.push(format!("{path}.detail"));
                }
                media(source)
            }
            Content::ToolUse { id, name, input } => {
                parts.calls.push((id.clone(), parts.written.len()));
                let mut call = json!({"name": name, "args": args(input)});
                if !ids::is_made(id) {
                    call["id"] = json!(id);
                }
                Some(json!({"functionCall": call}))
            }
            Content::ToolResult { id, blocks, is_error } => {
                let (response, shown) = self.response(id, blocks, *is_error, path, block);
                parts.written.push(response);
                parts.written.extend(shown);
                return;
            }
            Content::Reasoning { text, signature } if is_model => {
                self.thought(text, signature.as_deref(), path, parts);
                return;
            }
            Content::Opaque { dialect, json } if dialect == NAME => Some(json.clone()),
            Content::Reasoning { .. } | Content::Redacted { .. } | Content::Opaque { .. } => None,
        };
        let Some(mut part) = part else {
            self.dropped.push(path.to_owned());
            return;
        };
        if part.get("inlineData").is_some() {
            parts.images.push(parts.written.len());
        }
        extend(&mut part, block.extensions.get(NAME));
        parts.written.push(part);
    }

    /// Only the vendor's own signatures are taken back; a thought that another vendor has sealed is that vendor's.
    fn thought(&mut self, text: &str, signature: Option<&str>, path: &str, parts: &mut Parts) {
        match signature.map(seal::unpack) {
            None if text.is_empty() => {}
            None => parts.written.push(json!({"text": text, "thought": true})),
            Some(None) => self.dropped.push(path.to_owned()),
            Some(Some((signature, Place::Thought))) => {
                parts.written.push(json!({"text": text, "thought": true, "thoughtSignature": signature}));
            }
            Some(Some((signature, place))) => {
                if !text.is_empty() {
                    parts.written.push(json!({"text": text, "thought": true}));
                }
                parts.seals.push((signature, place, parts.written.len()));
            }
        }
    }

    /// A function's response, and what it shows where the model takes that only beside the response.
    fn response(
        &mut self,
        id: &str,
        blocks: &[Block],
        is_error: bool,
        path: &str,
        whole: &Block,
    ) -> (Value, Vec<Value>) {
        let (mut texts, mut shown) = (Vec::new(), Vec::new());
        for (index, block) in blocks.iter().enumerate() {
            match &block.content {
                Content::Text { text, .. } | Content::Refusal { text } => texts.push(text.as_str()),
                Content::Media { source, .. } => match media(source) {
                    Some(mut part) => {
                        extend(&mut part, block.extensions.get(NAME));
                        shown.push(part);
                    }
                    None => self.dropped.push(format!("{path}.blocks[{index}]")),
                },
                _ => self.dropped.push(format!("{path}.blocks[{index}]")),
            }
        }
        // The API wants a name; of a call that is not in the conversation the id is all that is known.
        let name = self.names.get(id).copied().unwrap_or(id);
        let mut response = json!({"name": name, "response": response_object(&texts.join("\n"), is_error)});
        if !ids::is_made(id) {
            response["id"] = json!(id);
        }
        // Models from 3 on look at what a function shows.
        if matches!(self.generation, Generation::Level | Generation::Unknown) && !shown.is_empty() {
            response["parts"] = Value::Array(std::mem::take(&mut shown));
        }
        if let Some(name) = own(whole, "functionResponse").and_then(|own| own.get("name")) {
            response["name"] = name.clone();
        }
        let mut part = json!({"functionResponse": response});
        extend(&mut part, whole.extensions.get(NAME));
        (part, shown)
    }
}

impl Parts {
    /// The parts, with every signature on its own.
    fn signed(mut self) -> Vec<Value> {
        let mut added: Vec<(usize, Value)> = Vec::new();
        for (signature, place, before) in std::mem::take(&mut self.seals) {
            let target = match &place {
                Place::Call(n) => self.calls.get(*n).map(|(_, at)| *at),
                Place::CallOf(id) => self.calls.iter().find(|(call, _)| call == id).map(|(_, at)| *at),
                Place::Image(n) => self.images.get(*n).copied(),
                Place::Text | Place::Thought => self.text_from(before),
                Place::Empty(_) => None,
            };
            match target.filter(|at| self.written[*at].get("thoughtSignature").is_none()) {
                Some(at) => self.written[at]["thoughtSignature"] = json!(signature),
                None => {
                    let behind = if let Place::Empty(n) = place { self.calls.get(n).map(|(_, at)| *at) } else { None };
                    let at = behind.unwrap_or(self.written.len());
                    added.push((at, json!({"text": "", "thoughtSignature": signature})));
                }
            }
        }
        added.sort_by_key(|(at, _)| *at);
        // From the end, so that the places before stay what they are.
        for (at, part) in added.into_iter().rev() {
            self.written.insert(at, part);
        }
        self.written
    }

    /// The first text behind so many parts, else the first of all.
    fn text_from(&self, before: usize) -> Option<usize> {
        let is_text = |part: &Value| part.get("text").is_some() && part.get("thought") != Some(&json!(true));
        let places = || self.written.iter().enumerate().filter(|(_, part)| is_text(part)).map(|(at, _)| at);
        places().find(|at| *at >= before).or_else(|| places().next())
    }
}

/// Models from 3 on refuse a turn under way whose first call of a step has no signature. Calls that another model has made
/// have none; the vendor names a value for them.
fn sign_calls(turns: &mut [(Role, Vec<Value>)]) {
    let asks = |(role, parts): &(Role, Vec<Value>)| {
        *role == Role::User && parts.iter().any(|part| part.get("functionResponse").is_none())
    };
    let under_way = turns.iter().rposition(asks).map_or(0, |at| at + 1);
    for (_, parts) in turns[under_way..].iter_mut().filter(|(role, _)| *role == Role::Assistant) {
        if let Some(call) = parts.iter_mut().find(|part| part.get("functionCall").is_some())
            && call.get("thoughtSignature").is_none()
        {
            call["thoughtSignature"] = json!(UNCHECKED);
        }
    }
}

fn turn(role: Role, parts: Vec<Value>) -> Value {
    if role == Role::Assistant {
        return json!({"role": "model", "parts": parts});
    }
    let (mut responses, others): (Vec<Value>, Vec<Value>) =
        parts.into_iter().partition(|part| part.get("functionResponse").is_some());
    responses.extend(others);
    json!({"role": "user", "parts": responses})
}

/// The arguments of a call, which are an object here. Text that is none (a model's broken JSON, or a bare value) becomes
/// `{"$raw": "<the text>"}`: the function refuses that and the model reads why, whereas an empty object might be obeyed.
pub(super) fn args(input: &str) -> Value {
    if input.trim().is_empty() {
        return json!({});
    }
    match serde_json::from_str(input) {
        Ok(object @ Value::Object(_)) => object,
        _ => json!({"$raw": input}),
    }
}

/// What a function has answered, as an object (see `read_parts::result_text`).
fn response_object(text: &str, is_error: bool) -> Value {
    let value = match serde_json::from_str(text) {
        Ok(object @ Value::Object(_)) if !is_error => return object,
        Ok(object @ Value::Object(_)) => object,
        _ => json!(text),
    };
    if is_error { json!({"error": value}) } else { json!({"output": value}) }
}

fn media(source: &Source) -> Option<Value> {
    Some(match source {
        Source::Base64 { media_type, data } => json!({"inlineData": {"mimeType": media_type, "data": data}}),
        Source::Url { url } => match files::data_url(url) {
            Some((media_type, data)) => json!({"inlineData": {"mimeType": media_type, "data": data}}),
            None => file(url),
        },
        Source::File { id } => file(&files::uri(id)?),
        Source::Text { text } => json!({"text": text}),
    })
}

fn file(uri: &str) -> Value {
    let mut data = json!({"fileUri": uri});
    if let Some(media_type) = files::media_type(uri) {
        data["mimeType"] = json!(media_type);
    }
    json!({"fileData": data})
}

fn own<'b>(block: &'b Block, name: &str) -> Option<&'b Value> {
    block.extensions.get(NAME)?.get(name)
}

/// Adds the members that only this dialect knows; an object's members to the object.
fn extend(part: &mut Value, own: Option<&Members>) {
    let Value::Object(part) = part else { return };
    for (name, value) in own.into_iter().flatten() {
        match (part.get_mut(name), value) {
            (Some(Value::Object(written)), Value::Object(more)) => merge(written, more),
            _ => {
                part.insert(name.clone(), value.clone());
            }
        }
    }
}

fn merge(written: &mut Map<String, Value>, more: &Map<String, Value>) {
    for (name, value) in more {
        written.insert(name.clone(), value.clone());
    }
}
