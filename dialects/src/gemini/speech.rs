// SPDX-License-Identifier: Apache-2.0
//! Events into the parts of an answer, whole or streamed: pieces of text and thought at once, function calls when their
//! arguments are whole, since a part of this dialect has them as an object.

use serde_json::{Map, Value, json};

use super::grounding::Sources;
use super::seal::{self, Foreign, Place};
use super::{ENVELOPE, NAME, finish, logprobs, usage, write_parts};
use crate::collect::{CITATION, OPAQUE};
use crate::ir::{Event, Finish, Usage};

/// An answer that is being written.
#[derive(Debug, Default)]
pub(super) struct Speech {
    /// Id of the answer, as the vendor stated it.
    pub(super) id: String,
    /// Parts that have not been fetched.
    parts: Vec<Value>,
    /// Members for the candidate of the next chunk.
    members: Map<String, Value>,
    /// Function calls that have begun and are not whole.
    calls: Vec<Call>,
    /// Signature for the next part.
    signature: Option<String>,
    refused: bool,
    text: String,
    sources: Sources,
    usage: Option<Usage>,
    finish: Option<Finish>,
    /// Members of the candidate and of the answer that only this dialect knows.
    envelope: Map<String, Value>,
}

/// A function call whose arguments are not whole.
#[derive(Debug)]
struct Call {
    index: u32,
    id: String,
    name: String,
    input: String,
    signature: Option<String>,
}

impl Speech {
    /// Takes one more event. Faults are not said but thrown.
    pub(super) fn event(&mut self, event: &Event) {
        match event {
            Event::Start { id, .. } => id.clone_into(&mut self.id),
            Event::Text(more) => self.text(more),
            Event::Refusal(more) => {
                self.refused = true;
                self.text(more);
            }
            Event::Reasoning(more) => {
                self.tell_calls(false);
                if !more.is_empty() {
                    self.parts.push(json!({"text": more, "thought": true}));
                }
            }
            Event::Signature(seal) => self.seal(seal),
            Event::Redacted(data) => self.thought_sign(&seal::wrap(&Foreign::Redacted(data.clone()))),
            Event::Tool { index, id, name } => {
                self.tell_calls(false);
                let signature = self.signature.take();
                let (id, name) = (id.clone(), name.clone());
                self.calls.push(Call { index: *index, id, name, input: String::new(), signature });
            }
            Event::ToolInput { index, json } => {
                if let Some(call) = self.calls.iter_mut().find(|call| call.index == *index) {
                    call.input.push_str(json);
                }
            }
            Event::BlockEnd => self.tell_calls(true),
            Event::Usage(usage) => self.usage = Some(usage.clone()),
            Event::Finish(finish) => self.finish = Some(finish.clone()),
            Event::Other { name, json } => self.other(name, json),
            Event::Fault(_) => {}
        }
    }

    /// The candidate that says what has come since the last time; none if nothing has.
    pub(super) fn candidate(&mut self) -> Option<Value> {
        if self.parts.is_empty() && self.members.is_empty() {
            return None;
        }
        let mut parts = std::mem::take(&mut self.parts);
        // SDKs leave an answer out of the history of a conversation if a chunk of it has no part.
        if parts.is_empty() {
            parts.push(json!({"text": ""}));
        }
        let mut candidate = json!({"content": {"parts": parts, "role": "model"}});
        for (name, value) in std::mem::take(&mut self.members) {
            candidate[name] = value;
        }
        candidate["index"] = json!(0);
        Some(candidate)
    }

    /// The last candidate, and the members of the answer beside it.
    pub(super) fn last(&mut self, is_whole: bool) -> (Value, Map<String, Value>) {
        self.tell_all_calls();
        if let Some(signature) = self.signature.take() {
            self.parts.push(json!({"text": "", "thoughtSignature": signature}));
        }
        if is_whole {
            self.parts = joined(std::mem::take(&mut self.parts));
        }
        let reason = finish::to_wire(self.finish.as_ref(), self.refused).to_owned();
        let mut own = std::mem::take(&mut self.envelope);
        if let Some(Value::Object(candidate)) = own.shift_remove("candidate") {
            self.members.extend(candidate);
        }
        if !self.members.contains_key("groundingMetadata") {
            let metadata = self.sources.metadata(&self.text);
            self.members.extend(metadata.map(|metadata| ("groundingMetadata".to_owned(), metadata)));
        }
        self.members.insert("finishReason".to_owned(), json!(reason));
        let mut members = match own.shift_remove("answer") {
            Some(Value::Object(members)) => members,
            _ => Map::new(),
        };
        members.extend(self.usage.as_ref().map(|usage| ("usageMetadata".to_owned(), usage::write(usage))));
        (self.candidate().unwrap_or_default(), members)
    }

    fn text(&mut self, more: &str) {
        if more.is_empty() {
            return;
        }
        self.tell_calls(false);
        self.text.push_str(more);
        let part = json!({"text": more});
        self.part(part);
    }

    /// A part that takes the signature which waits for one.
    fn part(&mut self, mut part: Value) {
        if let Some(signature) = self.signature.take() {
            part["thoughtSignature"] = json!(signature);
        }
        self.parts.push(part);
    }

    fn seal(&mut self, seal: &str) {
        self.tell_calls(false);
        // What came as `extra_content` is wrapped as other vendors' seals are: unpacked, it could not become that again.
        match seal::unpack_own(seal) {
            None => self.thought_sign(&seal::wrap(&Foreign::Seal(seal.to_owned()))),
            Some((signature, Place::Thought)) => self.thought_sign(&signature),
            Some((signature, Place::Empty(_))) => {
                self.parts.push(json!({"text": "", "thoughtSignature": signature}));
            }
            Some((signature, _)) => self.signature = Some(signature),
        }
    }

    /// The signature of the thought before.
    fn thought_sign(&mut self, signature: &str) {
        self.tell_calls(false);
        self.parts.push(json!({"text": "", "thought": true, "thoughtSignature": signature}));
    }

    /// Tells the calls that are whole, in order. `ended`: nothing more belongs to the last one.
    fn tell_calls(&mut self, ended: bool) {
        while let Some(call) = self.calls.first() {
            let is_whole = matches!(serde_json::from_str(&call.input), Ok(Value::Object(_)));
            let is_last = ended && self.calls.len() == 1;
            if !is_whole && !is_last {
                return;
            }
            self.tell_first_call();
        }
    }

    fn tell_all_calls(&mut self) {
        while !self.calls.is_empty() {
            self.tell_first_call();
        }
    }

    fn tell_first_call(&mut self) {
        let call = self.calls.remove(0);
        let mut wire = json!({"name": call.name, "args": write_parts::args(&call.input)});
        if !call.id.is_empty() {
            wire["id"] = json!(call.id);
        }
        let mut part = json!({"functionCall": wire});
        if let Some(signature) = call.signature {
            part["thoughtSignature"] = json!(signature);
        }
        self.parts.push(part);
    }

    fn other(&mut self, name: &str, json: &str) {
        let Ok(mut value) = serde_json::from_str::<Value>(json) else { return };
        match name {
            OPAQUE if value["dialect"] == NAME => {
                self.tell_calls(false);
                self.parts.push(value["json"].take());
            }
            "images" => {
                self.tell_calls(false);
                for image in value.as_array().into_iter().flatten() {
                    if let Some(part) = image_part(image) {
                        self.part(part);
                    }
                }
            }
            "annotations" => self.sources.annotations(&value),
            CITATION => self.sources.citation(&value),
            "logprobs" => {
                let result = logprobs::to_wire(&value).map(|result| ("logprobsResult".to_owned(), result));
                self.members.extend(result);
            }
            ENVELOPE => {
                if let Value::Object(members) = value {
                    self.envelope.extend(members);
                }
            }
            _ => {}
        }
    }
}

/// The part of an image of openai-chat; none if it does not lie in the answer itself.
fn image_part(image: &Value) -> Option<Value> {
    let (media_type, data) = super::files::data_url(image["image_url"]["url"].as_str()?)?;
    Some(json!({"inlineData": {"mimeType": media_type, "data": data}}))
}

/// In a whole answer the signature of a thought stands on the thought.
fn joined(parts: Vec<Value>) -> Vec<Value> {
    let mut joined: Vec<Value> = Vec::with_capacity(parts.len());
    for part in parts {
        let signs = part["thought"] == true && part["text"] == "";
        match joined.last_mut() {
            Some(thought) if signs && thought["thought"] == true && thought.get("thoughtSignature").is_none() => {
                thought["thoughtSignature"] = part["thoughtSignature"].clone();
            }
            _ => joined.push(part),
        }
    }
    joined
}
