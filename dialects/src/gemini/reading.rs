// SPDX-License-Identifier: Apache-2.0
//! Reads a vendor's answer into events: whole, chunk by chunk, or as the list of its chunks. A chunk is an answer of its
//! own, with the parts that are new; nothing marks the end of a stream but the finish reason of the last chunk with a
//! candidate, which may come after the call that it ends.

use serde_json::{Map, Value, json};

use super::partial::Arguments;
use super::seal::{self, Place};
use super::{ENVELOPE, NAME, fault, finish, grounding, logprobs, usage};
use crate::codec::StreamDecoder;
use crate::collect::OPAQUE;
use crate::framing::Frame;
use crate::ir::{Event, Fault, FaultClass, Finish, Usage};

/// Name of the bucket for searches that the vendor has made.
const SEARCHES: &str = "tool-google_search";

/// Reads a whole answer to a chat request, or the one to a count-tokens request.
pub(super) fn whole(body: &[u8]) -> Result<Vec<Event>, Fault> {
    let answer: Value = serde_json::from_slice(body).map_err(|error| unreadable(&error))?;
    if let Some(usage) = usage::read_count(&answer) {
        let finish = Finish { reason: "stop".to_owned(), sequence: None };
        return Ok(vec![Event::Usage(usage), Event::Finish(finish)]);
    }
    let (mut reading, mut events) = (Reading { whole: true, ..Reading::default() }, Vec::new());
    reading.answer(answer, &mut events);
    if let Some(fault) =
        events.iter().find_map(|event| if let Event::Fault(fault) = event { Some(fault) } else { None })
    {
        return Err(fault.clone());
    }
    if !reading.started {
        return Err(Fault::new(FaultClass::VendorBug, "the vendor's answer is no answer of this dialect"));
    }
    // A whole answer has ended, whether it says why or not.
    reading.finish.get_or_insert_with(|| "OTHER".to_owned());
    reading.end(&mut events);
    Ok(events)
}

/// State of an answer that is being read.
#[derive(Debug, Default)]
pub(super) struct Reading {
    whole: bool,
    started: bool,
    failed: bool,
    /// The last part was a thought whose block has not ended.
    thinks: bool,
    calls: u32,
    /// The function call whose arguments come in pieces.
    open: Option<(u32, Arguments)>,
    images: Vec<Value>,
    image_count: usize,
    /// What was said, to tell where sources are cited.
    text: String,
    finish: Option<String>,
    blocked: bool,
    usage: Option<Usage>,
    /// Members of the candidate and of the answer that only this dialect knows.
    candidate: Map<String, Value>,
    members: Map<String, Value>,
}

impl StreamDecoder for Reading {
    fn frame(&mut self, frame: &Frame<'_>, events: &mut Vec<Event>) {
        let data = frame.data.trim_ascii();
        if data.is_empty() || data == b"[DONE]" {
            return;
        }
        match serde_json::from_slice(data) {
            Ok(answer) => self.answer(answer, events),
            Err(error) => self.fail(unreadable(&error), events),
        }
    }

    fn end(&mut self, events: &mut Vec<Event>) {
        self.close_call(events);
        if !self.images.is_empty() {
            let images = Value::Array(std::mem::take(&mut self.images));
            events.push(Event::Other { name: "images".to_owned(), json: images.to_string() });
        }
        self.grounding(events);
        if !self.candidate.is_empty() || !self.members.is_empty() {
            let json = json!({"candidate": self.candidate, "answer": self.members}).to_string();
            events.push(Event::Other { name: ENVELOPE.to_owned(), json });
        }
        if self.failed {
            return;
        }
        match self.finish.take() {
            _ if self.blocked => events.push(Event::Finish(finish::of_blocked_prompt())),
            Some(reason) => events.push(Event::Finish(finish::from_wire(&reason, self.calls > 0))),
            // Cut off.
            None => {}
        }
    }
}

impl Reading {
    fn answer(&mut self, answer: Value, events: &mut Vec<Event>) {
        match answer {
            Value::Array(chunks) => chunks.into_iter().for_each(|chunk| self.answer(chunk, events)),
            Value::Object(chunk) => self.chunk(chunk, events),
            _ => self.fail(Fault::new(FaultClass::VendorBug, "a part of the vendor's answer is no object"), events),
        }
    }

    fn chunk(&mut self, mut chunk: Map<String, Value>, events: &mut Vec<Event>) {
        if let Some(error) = chunk.get("error").filter(|error| !error.is_null()) {
            self.fail(fault::stated(&json!({ "error": error }), None), events);
            return;
        }
        let mut text = |name: &str| match chunk.shift_remove(name) {
            Some(Value::String(text)) => text,
            _ => String::new(),
        };
        let (id, model) = (text("responseId"), text("modelVersion"));
        let has_answer = ["candidates", "promptFeedback", "usageMetadata"].iter().any(|name| chunk.contains_key(*name));
        if !self.started && (has_answer || !id.is_empty() || !model.is_empty()) {
            self.started = true;
            events.push(Event::Start { id, model });
        }
        let feedback = chunk.get("promptFeedback");
        self.blocked |= feedback.is_some_and(|feedback| feedback["blockReason"].is_string());
        let candidates = chunk.shift_remove("candidates");
        let stated = chunk.shift_remove("usageMetadata");
        for candidate in
            candidates.into_iter().flat_map(|list| if let Value::Array(list) = list { list } else { Vec::new() })
        {
            if let Value::Object(candidate) = candidate
                && candidate.get("index").and_then(Value::as_u64).unwrap_or_default() == 0
            {
                self.candidate(candidate, events);
            }
        }
        self.members.extend(chunk.into_iter().filter(|(_, value)| !value.is_null()));
        if let Some(usage) = stated.as_ref().and_then(usage::read)
            && self.usage.as_ref() != Some(&usage)
        {
            events.push(Event::Usage(usage.clone()));
            self.usage = Some(usage);
        }
    }

    fn candidate(&mut self, mut candidate: Map<String, Value>, events: &mut Vec<Event>) {
        candidate.shift_remove("index");
        if let Some(Value::Object(mut content)) = candidate.shift_remove("content")
            && let Some(Value::Array(parts)) = content.shift_remove("parts")
        {
            for part in parts {
                if let Value::Object(part) = part {
                    self.part(part, events);
                }
            }
        }
        if let Some(logprobs) = candidate.shift_remove("logprobsResult").as_ref().and_then(logprobs::from_wire) {
            events.push(Event::Other { name: "logprobs".to_owned(), json: logprobs.to_string() });
        }
        match candidate.shift_remove("finishReason") {
            Some(Value::String(reason)) if reason != "FINISH_REASON_UNSPECIFIED" => self.finish = Some(reason),
            _ => {}
        }
        self.candidate.extend(candidate.into_iter().filter(|(_, value)| !value.is_null()));
    }

    fn part(&mut self, mut part: Map<String, Value>, events: &mut Vec<Event>) {
        let is_thought = part.get("thought") == Some(&Value::Bool(true));
        let signature = part.get("thoughtSignature").and_then(Value::as_str).filter(|seal| !seal.is_empty());
        let signature = signature.map(str::to_owned);
        match part.get_mut("text") {
            Some(Value::String(text)) if is_thought => {
                let text = std::mem::take(text);
                self.thinks |= !text.is_empty();
                events.extend(Some(text).filter(|text| !text.is_empty()).map(Event::Reasoning));
                if let Some(signature) = signature {
                    self.thinks = false;
                    events.push(Event::Signature(seal::pack(&signature, &Place::Thought)));
                }
                return;
            }
            Some(Value::String(text)) => {
                let text = std::mem::take(text);
                self.said(text, signature, events);
                return;
            }
            _ => {}
        }
        match part.get("functionCall") {
            Some(Value::Object(call)) => {
                if let Some(signature) = signature {
                    // A piece of a call that goes on belongs to it.
                    let goes_on = self.open.is_some() && !call.contains_key("name");
                    let index = self.calls as usize - usize::from(goes_on);
                    self.seal(&signature, &Place::Call(index), events);
                }
                self.call(call, events);
            }
            _ => self.other(&part, is_thought, signature, events),
        }
    }

    fn said(&mut self, text: String, signature: Option<String>, events: &mut Vec<Event>) {
        if let Some(signature) = signature {
            let place = if text.is_empty() { Place::Empty(self.calls as usize) } else { Place::Text };
            self.seal(&signature, &place, events);
        }
        if !text.is_empty() {
            self.thinks = false;
            self.close_call(events);
            self.text.push_str(&text);
            events.push(Event::Text(text));
        }
    }

    /// Images have a canonical place; other kinds of parts travel as they are.
    fn other(
        &mut self,
        part: &Map<String, Value>,
        is_thought: bool,
        signature: Option<String>,
        events: &mut Vec<Event>,
    ) {
        self.thinks = false;
        self.close_call(events);
        let data = part.get("inlineData").filter(|data| !is_thought && data["data"].is_string());
        let media_type = data.and_then(|data| data["mimeType"].as_str()).filter(|kind| kind.starts_with("image/"));
        let (Some(data), Some(media_type)) = (data, media_type) else {
            let json = json!({"dialect": NAME, "json": part}).to_string();
            events.push(Event::Other { name: OPAQUE.to_owned(), json });
            return;
        };
        if let Some(signature) = signature {
            self.seal(&signature, &Place::Image(self.image_count), events);
        }
        self.image_count += 1;
        let url = format!("data:{media_type};base64,{}", data["data"].as_str().unwrap_or_default());
        let image = json!({"type": "image_url", "image_url": {"url": url}});
        if self.whole {
            self.images.push(image);
        } else {
            events.push(Event::Other { name: "images".to_owned(), json: json!([image]).to_string() });
        }
    }

    /// A seal that belongs to another part than a thought stands alone, before that part.
    fn seal(&mut self, signature: &str, place: &Place, events: &mut Vec<Event>) {
        if std::mem::take(&mut self.thinks) {
            events.push(Event::BlockEnd);
        }
        events.push(Event::Signature(seal::pack(signature, place)));
    }

    fn call(&mut self, call: &Map<String, Value>, events: &mut Vec<Event>) {
        let text = |name: &str| call.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let pieces = call.get("partialArgs").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let name = text("name");
        if !name.is_empty() || (self.open.is_none() && !pieces.is_empty()) {
            self.close_call(events);
            self.thinks = false;
            events.push(Event::Tool { index: self.calls, id: text("id"), name });
            self.open = Some((self.calls, Arguments::default()));
            self.calls += 1;
        }
        let Some((_, arguments)) = &mut self.open else { return };
        if let Some(Value::Object(args)) = call.get("args") {
            arguments.whole(args);
        }
        pieces.iter().for_each(|piece| arguments.piece(piece));
        if call.get("willContinue") != Some(&Value::Bool(true)) {
            self.close_call(events);
        }
    }

    fn close_call(&mut self, events: &mut Vec<Event>) {
        if let Some((index, arguments)) = self.open.take() {
            events.push(Event::ToolInput { index, json: arguments.into_json() });
            events.push(Event::BlockEnd);
        }
    }

    /// Sources, for callers of other dialects, and searches, which are billed.
    fn grounding(&mut self, events: &mut Vec<Event>) {
        let Some(metadata) = self.candidate.get("groundingMetadata") else { return };
        let annotations = grounding::annotations(metadata, &self.text);
        if !annotations.is_empty() {
            let json = Value::Array(annotations).to_string();
            events.push(Event::Other { name: "annotations".to_owned(), json });
        }
        let searches = grounding::search_count(metadata);
        if let Some(usage) = self.usage.as_mut().filter(|_| searches > 0) {
            usage.more.push((SEARCHES.to_owned(), searches));
            events.push(Event::Usage(usage.clone()));
        }
    }

    fn fail(&mut self, fault: Fault, events: &mut Vec<Event>) {
        if !std::mem::replace(&mut self.failed, true) {
            events.push(Event::Fault(fault));
        }
    }
}

fn unreadable(error: &serde_json::Error) -> Fault {
    Fault::new(FaultClass::VendorBug, format!("the vendor's answer is not JSON: {error}"))
}
