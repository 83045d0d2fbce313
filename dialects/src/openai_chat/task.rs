// SPDX-License-Identifier: Apache-2.0
//! The operations of this dialect that are no conversation: which of them there are, and what their answers share.
//!
//! An answer is read member by member from its bytes, so that vectors and pictures are copied and never parsed. What has
//! no event of its own (`provider`, `created`, `background`) travels in one event and stands in the answer to a caller of
//! this dialect again.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::{NAME, fault, task_embed, task_image, task_rerank, task_video};
use crate::codec::{Envelope, Operation};
use crate::ir::{Event, Fault, FaultClass, Finish, Response, Usage};
use crate::task::Task;

/// Event of the members of an answer that no other event tells.
const REST: &str = "openai-chat.answer";

/// Reads a caller's request.
pub(super) fn decode(operation: Operation, body: &[u8]) -> Result<Task, Fault> {
    match operation {
        Operation::Embeddings => task_embed::decode(body).map(Task::Embed),
        Operation::Rerank => task_rerank::decode(body).map(Task::Rerank),
        Operation::Images => task_image::decode(body, false).map(Task::Image),
        Operation::ImageEdits => task_image::decode(body, true).map(Task::Image),
        Operation::Videos => task_video::decode(body).map(Task::Video),
        other => Err(absent(other)),
    }
}

/// Writes a request to a vendor, and the paths of what is left out.
pub(super) fn encode(operation: Operation, task: &Task) -> Result<(Vec<u8>, Vec<String>), Fault> {
    match (operation, task) {
        (Operation::Embeddings, Task::Embed(task)) => Ok(task_embed::encode(task)),
        (Operation::Rerank, Task::Rerank(task)) => Ok(task_rerank::encode(task)),
        (Operation::Images | Operation::ImageEdits, Task::Image(task)) => Ok(task_image::encode(task)),
        (Operation::Videos, Task::Video(task)) => Ok(task_video::encode(task)),
        (other, _) => Err(absent(other)),
    }
}

/// Reads a vendor's answer.
pub(super) fn decode_result(operation: Operation, body: &[u8]) -> Result<Vec<Event>, Fault> {
    match operation {
        Operation::Embeddings => task_embed::decode_result(body),
        Operation::Rerank => task_rerank::decode_result(body),
        Operation::Images | Operation::ImageEdits => task_image::decode_result(body),
        Operation::Videos => task_video::decode_result(body),
        other => Err(absent(other)),
    }
}

/// Writes the answer to a caller; an answer that is a fault is written as an error.
pub(super) fn encode_result(operation: Operation, response: &Response, envelope: &Envelope) -> Vec<u8> {
    match operation {
        Operation::Videos => task_video::encode_result(response, envelope),
        _ if response.fault.is_some() => error(response.fault.as_ref()),
        Operation::Embeddings => task_embed::encode_result(response, envelope),
        Operation::Rerank => task_rerank::encode_result(response, envelope),
        Operation::Images | Operation::ImageEdits => task_image::encode_result(response, envelope),
        _ => Vec::new(),
    }
}

/// The body of an error.
pub(super) fn error(fault: Option<&Fault>) -> Vec<u8> {
    fault.map(|fault| fault::encode(fault).to_string().into_bytes()).unwrap_or_default()
}

/// The members of an answer, unparsed.
pub(super) struct Answer<'b> {
    members: BTreeMap<Cow<'b, str>, &'b RawValue>,
}

impl<'b> Answer<'b> {
    /// Reads the body of a 2xx answer. The vendor's error is one if the member that makes it an answer is absent.
    pub(super) fn read(body: &'b [u8], essential: &[&str]) -> Result<Self, Fault> {
        let members: BTreeMap<Cow<'b, str>, &'b RawValue> =
            serde_json::from_slice(body).map_err(|error| unreadable(&error.to_string()))?;
        if essential.iter().any(|name| members.get(*name).is_some_and(|raw| raw.get() != "null")) {
            return Ok(Self { members });
        }
        let object = serde_json::from_slice(body).unwrap_or_default();
        Err(fault::in_band(&object, false)
            .unwrap_or_else(|| unreadable(&format!("it has no `{}`", essential.join("`, `")))))
    }

    /// Takes a member that is not null.
    pub(super) fn take(&mut self, name: &str) -> Option<&'b RawValue> {
        self.members.remove(name).filter(|raw| raw.get() != "null")
    }

    /// Takes a member that is a string.
    pub(super) fn text(&mut self, name: &str) -> String {
        self.take(name).and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default()
    }

    /// Takes a member of any kind.
    pub(super) fn value(&mut self, name: &str) -> Value {
        self.take(name).and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default()
    }

    /// Looks at a member of any kind.
    pub(super) fn look(&self, name: &str) -> Value {
        self.members.get(name).and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default()
    }

    /// The begin of the answer: the vendor's id of it, and the model.
    pub(super) fn start(&mut self) -> Event {
        Event::Start { id: self.text("id"), model: self.text("model") }
    }

    /// The end of the answer: what has no place elsewhere, the tokens, and that it is complete.
    pub(super) fn conclude(mut self, usage: Option<Usage>, events: &mut Vec<Event>) {
        self.members.remove("object");
        let parse = |(name, raw): (Cow<'_, str>, &RawValue)| {
            let value: Value = serde_json::from_str(raw.get()).ok()?;
            Some((name.into_owned(), value)).filter(|(_, value)| !value.is_null())
        };
        let rest: Map<String, Value> = self.members.into_iter().filter_map(parse).collect();
        if !rest.is_empty() {
            events.push(Event::Other { name: REST.to_owned(), json: Value::Object(rest).to_string() });
        }
        events.extend(usage.map(Event::Usage));
        events.push(Event::Finish(Finish { reason: "stop".to_owned(), sequence: None }));
    }
}

/// A list of members of an answer.
pub(super) fn list<'b, T: serde::Deserialize<'b>>(raw: &'b RawValue, name: &str) -> Result<Vec<T>, Fault> {
    serde_json::from_str(raw.get()).map_err(|error| unreadable(&format!("{name}: {error}")))
}

/// An answer that begins with what its own dialect knows of it.
pub(super) fn begun(response: &Response) -> Map<String, Value> {
    let own = response.other.iter().filter(|(name, _)| name == REST);
    let members = own.filter_map(|(_, json)| serde_json::from_str::<Map<String, Value>>(json).ok());
    members.flatten().collect()
}

/// The name of the model that the caller reads.
pub(super) fn model<'a>(response: &'a Response, envelope: &'a Envelope) -> &'a str {
    if envelope.model.is_empty() { &response.model } else { &envelope.model }
}

/// The events of one name.
pub(super) fn events<'r>(response: &'r Response, name: &str) -> impl Iterator<Item = &'r str> {
    response.other.iter().filter(move |(other, _)| other == name).map(|(_, json)| json.as_str())
}

/// The usage of an answer that has no output: the vendor's own object, where it is one of this dialect and its counts are
/// the ones that we have read.
pub(super) fn input_usage(usage: &Usage) -> Value {
    let stated: Value = serde_json::from_str(&usage.stated).unwrap_or_default();
    let total = usage.total();
    let mut written = match stated {
        Value::Object(stated) if stated.get("total_tokens").and_then(Value::as_u64) == Some(total) => stated,
        _ => Map::new(),
    };
    written.entry("prompt_tokens").or_insert_with(|| Value::from(total.saturating_sub(usage.output_total())));
    written.entry("total_tokens").or_insert_with(|| Value::from(total));
    if let Some((_, units)) = usage.more.iter().find(|(name, _)| name == "search-units") {
        written.entry("search_units").or_insert_with(|| Value::from(*units));
    }
    Value::Object(written)
}

fn unreadable(what: &str) -> Fault {
    Fault::new(FaultClass::VendorBug, format!("the vendor's answer cannot be read: {what}"))
}

fn absent(operation: Operation) -> Fault {
    Fault::new(FaultClass::Unsupported, format!("{NAME} has no canonical form of {}", operation.name()))
}
