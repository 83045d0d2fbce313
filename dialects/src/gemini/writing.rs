// SPDX-License-Identifier: Apache-2.0
//! Writes an answer as Google's SDKs read it: whole, as server-sent events, or as the elements of one JSON array. Nothing
//! marks the end of a stream but the chunk with the finish reason, which is written last.

use serde_json::{Map, Value, json};

use super::fault;
use super::speech::Speech;
use crate::codec::{Envelope, ModelEntry, StreamEncoder};
use crate::collect;
use crate::ir::{Event, Fault, Response};

/// Writes a whole answer.
pub(super) fn whole(response: &Response, envelope: &Envelope) -> Vec<u8> {
    let mut speech = Speech::default();
    collect::events(response).iter().for_each(|event| speech.event(event));
    let (candidate, members) = speech.last(true);
    Value::Object(answer(&speech.id, envelope, Some(candidate), members)).to_string().into_bytes()
}

/// Writes the list of models.
pub(super) fn models(models: &[ModelEntry]) -> Vec<u8> {
    let entry = |model: &ModelEntry| {
        json!({
            "name": format!("models/{}", model.id),
            "displayName": model.id,
            "description": format!("served by {}", model.owner),
            "supportedGenerationMethods": ["generateContent", "streamGenerateContent", "countTokens"],
        })
    };
    json!({"models": models.iter().map(entry).collect::<Vec<_>>()}).to_string().into_bytes()
}

/// A streamed answer that is being written.
#[derive(Debug)]
pub(super) struct Chunks {
    envelope: Envelope,
    speech: Speech,
    /// Whether an element of the array has gone out.
    begun: bool,
}

impl Chunks {
    pub(super) fn new(envelope: &Envelope) -> Self {
        Self { begun: envelope.begun, envelope: envelope.clone(), speech: Speech::default() }
    }

    fn write(&mut self, chunk: &Value, out: &mut Vec<u8>) {
        let (before, behind) = match (self.envelope.array, self.begun) {
            (false, _) => ("data: ", "\r\n\r\n"),
            (true, false) => ("[", "\n"),
            (true, true) => (",\r\n", "\n"),
        };
        self.begun = true;
        out.extend_from_slice(before.as_bytes());
        // A tree of strings and numbers always serialises, and a vector takes every byte.
        let _ = serde_json::to_writer(&mut *out, chunk);
        out.extend_from_slice(behind.as_bytes());
    }

    fn close(&self, out: &mut Vec<u8>) {
        if self.envelope.array {
            out.push(b']');
        }
    }
}

impl StreamEncoder for Chunks {
    fn event(&mut self, event: &Event, out: &mut Vec<u8>) {
        if let Event::Fault(fault) = event {
            self.fault(fault, out);
            return;
        }
        self.speech.event(event);
        if let Some(candidate) = self.speech.candidate() {
            let chunk = answer(&self.speech.id, &self.envelope, Some(candidate), Map::new());
            self.write(&Value::Object(chunk), out);
        }
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        let (candidate, members) = self.speech.last(false);
        let chunk = answer(&self.speech.id, &self.envelope, Some(candidate), members);
        self.write(&Value::Object(chunk), out);
        self.close(out);
    }

    fn fault(&mut self, fault: &Fault, out: &mut Vec<u8>) {
        let error = fault::encode(fault, &self.envelope.request_id);
        self.write(&error, out);
        self.close(out);
    }
}

fn answer(id: &str, envelope: &Envelope, candidate: Option<Value>, members: Map<String, Value>) -> Map<String, Value> {
    let mut answer = Map::new();
    answer.extend(candidate.map(|candidate| ("candidates".to_owned(), json!([candidate]))));
    answer.extend(members);
    answer.insert("modelVersion".to_owned(), json!(envelope.model));
    let id = if id.is_empty() { &envelope.request_id } else { id };
    answer.insert("responseId".to_owned(), json!(id));
    answer
}
