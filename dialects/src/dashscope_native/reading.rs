// SPDX-License-Identifier: Apache-2.0
//! Reads the answer to a conversation, whole or event by event, into canonical events.

use serde_json::{Value, json};

use super::growth::Growth;
use super::{fault, usage};
use crate::codec::StreamDecoder;
use crate::framing::Frame;
use crate::ir::{Event, Fault, FaultClass, Finish, Usage};
use crate::task::IMAGE;

/// Reads a whole answer.
///
/// # Errors
/// The error that the answer states, or vendor-bug if it cannot be read.
pub fn decode_response(body: &[u8]) -> Result<Vec<Event>, Fault> {
    let object: Value = serde_json::from_slice(body).map_err(|error| unreadable(&error))?;
    if let Some(fault) = fault::in_band(&object, false) {
        return Err(fault);
    }
    if !object["output"].is_object() {
        return Err(Fault::new(FaultClass::VendorBug, "the vendor's answer has no output"));
    }
    let mut reading = Reading::default();
    let mut events = Vec::new();
    reading.object(&object, &mut events);
    reading.end(&mut events);
    Ok(events)
}

/// Begins to read a streamed answer.
#[must_use]
pub fn stream_decoder() -> Box<dyn StreamDecoder> {
    Box::new(Reading::default())
}

/// State of an answer that is being read.
#[derive(Debug, Default)]
struct Reading {
    started: bool,
    failed: bool,
    concluded: bool,
    reasoning: Growth,
    text: Growth,
    calls: Vec<Call>,
    usage: Option<Usage>,
    finish: Option<String>,
    searched: Option<Value>,
}

/// A tool call that is being read.
#[derive(Debug, Default)]
struct Call {
    place: u64,
    id: String,
    /// Its start has been told: when its name is known.
    told: bool,
    /// Arguments that came before the name.
    early: String,
    arguments: Growth,
}

impl StreamDecoder for Reading {
    fn frame(&mut self, frame: &Frame<'_>, events: &mut Vec<Event>) {
        let data = frame.data.trim_ascii();
        if data.is_empty() || data == b"[DONE]" || self.failed {
            return;
        }
        let failed = match serde_json::from_slice::<Value>(data) {
            Ok(object) => {
                let fault = fault::in_band(&object, frame.name == "error");
                if fault.is_none() {
                    self.object(&object, events);
                }
                fault
            }
            Err(error) => Some(unreadable(&error)),
        };
        if let Some(fault) = failed {
            self.failed = true;
            events.push(Event::Fault(fault));
        }
    }

    fn end(&mut self, events: &mut Vec<Event>) {
        if !self.failed {
            self.conclude(events);
        }
    }
}

impl Reading {
    fn object(&mut self, object: &Value, events: &mut Vec<Event>) {
        if !std::mem::replace(&mut self.started, true) {
            let id = object["request_id"].as_str().unwrap_or_default().to_owned();
            events.push(Event::Start { id, model: String::new() });
        }
        let output = &object["output"];
        let choices = output["choices"].as_array().map(Vec::as_slice).unwrap_or_default();
        match choices.iter().find(|choice| choice["index"].as_u64().unwrap_or_default() == 0) {
            Some(choice) => {
                self.message(&choice["message"], events);
                if !choice["logprobs"].is_null() {
                    events.push(Event::Other { name: "logprobs".to_owned(), json: choice["logprobs"].to_string() });
                }
                self.finish_reason(&choice["finish_reason"]);
            }
            // The shape of `result_format: "text"`, which is the API's default.
            None => {
                push(Event::Text, self.text.take(output["text"].as_str().unwrap_or_default()), events);
                self.finish_reason(&output["finish_reason"]);
            }
        }
        if output["search_info"]["search_results"].as_array().is_some_and(|results| !results.is_empty()) {
            self.searched = Some(output["search_info"]["search_results"].clone());
        }
        self.usage(&object["usage"], events);
        if self.finish.is_some() && self.usage.is_some() {
            self.conclude(events);
        }
    }

    fn message(&mut self, message: &Value, events: &mut Vec<Event>) {
        let reasoning = message["reasoning_content"].as_str().unwrap_or_default();
        push(Event::Reasoning, self.reasoning.take(reasoning), events);
        match &message["content"] {
            Value::Array(parts) => {
                let texts: String = parts.iter().filter_map(|part| part["text"].as_str()).collect();
                push(Event::Text, self.text.take(&texts), events);
                for url in parts.iter().filter_map(|part| part["image"].as_str()) {
                    events.push(Event::Other { name: IMAGE.to_owned(), json: json!({ "url": url }).to_string() });
                }
            }
            content => push(Event::Text, self.text.take(content.as_str().unwrap_or_default()), events),
        }
        let calls = message["tool_calls"].as_array().map(Vec::as_slice).unwrap_or_default();
        for (position, call) in calls.iter().enumerate() {
            self.call(position, call, events);
        }
    }

    /// A piece of a tool call. Pieces after the first have an empty id and no name.
    fn call(&mut self, position: usize, piece: &Value, events: &mut Vec<Event>) {
        let place = piece["index"].as_u64().unwrap_or(position as u64);
        let id = piece["id"].as_str().unwrap_or_default();
        let name = piece["function"]["name"].as_str().unwrap_or_default();
        let another = |call: &Call| !id.is_empty() && !call.id.is_empty() && call.id != id;
        let known = self.calls.iter().rposition(|call| call.place == place).filter(|at| !another(&self.calls[*at]));
        let at = known.unwrap_or_else(|| {
            self.calls.push(Call { place, ..Call::default() });
            self.calls.len() - 1
        });
        let index = u32::try_from(at).unwrap_or(u32::MAX);
        let call = &mut self.calls[at];
        if call.id.is_empty() {
            id.clone_into(&mut call.id);
        }
        let more = match &piece["function"]["arguments"] {
            Value::Null => String::new(),
            Value::String(piece) => call.arguments.take(piece),
            object => object.to_string(),
        };
        if !call.told && name.is_empty() {
            call.early.push_str(&more);
            return;
        }
        call.tell(index, name, events);
        if !more.is_empty() {
            events.push(Event::ToolInput { index, json: more });
        }
    }

    /// The reason is the word "null" until the end.
    fn finish_reason(&mut self, stated: &Value) {
        match stated.as_str() {
            None | Some("" | "null") => {}
            Some(reason) => self.finish = Some(reason.to_owned()),
        }
    }

    fn usage(&mut self, stated: &Value, events: &mut Vec<Event>) {
        if let Some(usage) = usage::read(stated).filter(|usage| self.usage.as_ref() != Some(usage)) {
            events.push(Event::Usage(usage.clone()));
            self.usage = Some(usage);
        }
    }

    fn conclude(&mut self, events: &mut Vec<Event>) {
        if std::mem::replace(&mut self.concluded, true) {
            return;
        }
        push(Event::Reasoning, self.reasoning.end(), events);
        push(Event::Text, self.text.end(), events);
        for (at, call) in self.calls.iter_mut().enumerate() {
            let index = u32::try_from(at).unwrap_or(u32::MAX);
            let json = call.arguments.end();
            call.tell(index, "", events);
            if !json.is_empty() {
                events.push(Event::ToolInput { index, json });
            }
        }
        if let Some(results) = self.searched.take() {
            events.push(Event::Other { name: "search_results".to_owned(), json: results.to_string() });
        }
        if let Some(reason) = self.finish.take() {
            events.push(Event::Finish(Finish { reason, sequence: None }));
        }
    }
}

impl Call {
    fn tell(&mut self, index: u32, name: &str, events: &mut Vec<Event>) {
        if std::mem::replace(&mut self.told, true) {
            return;
        }
        events.push(Event::Tool { index, id: self.id.clone(), name: name.to_owned() });
        let json = std::mem::take(&mut self.early);
        if !json.is_empty() {
            events.push(Event::ToolInput { index, json });
        }
    }
}

fn push(event: fn(String) -> Event, text: String, events: &mut Vec<Event>) {
    if !text.is_empty() {
        events.push(event(text));
    }
}

pub(super) fn unreadable(error: &serde_json::Error) -> Fault {
    Fault::new(FaultClass::VendorBug, format!("the vendor's answer is not JSON: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn streamed(frames: &[(&str, Value)]) -> Vec<Event> {
        let (mut decoder, mut events) = (stream_decoder(), Vec::new());
        for (name, data) in frames {
            decoder.frame(&Frame { name, data: data.to_string().as_bytes() }, &mut events);
        }
        decoder.end(&mut events);
        events
    }

    fn said(message: &Value, finish: &str) -> (&'static str, Value) {
        let choice = json!({ "message": message, "finish_reason": finish });
        ("result", json!({ "output": { "choices": [choice] }, "request_id": "r" }))
    }

    #[test]
    fn a_cumulative_stream_reads_as_an_incremental_one() {
        let call = |id: &str, name: &str, arguments: &str| {
            json!({ "content": "", "tool_calls": [{ "index": 0, "id": id, "type": "function",
                "function": { "name": name, "arguments": arguments } }] })
        };
        let frames = [
            said(&call("c", "f", "{\"city\""), "null"),
            said(&call("c", "f", "{\"city\": \"Os"), "null"),
            said(&call("c", "f", "{\"city\": \"Oslo\"}"), "null"),
            said(&call("c", "f", "{\"city\": \"Oslo\"}"), "tool_calls"),
        ];
        let events = streamed(&frames);
        let input: String = events
            .iter()
            .filter_map(|event| if let Event::ToolInput { json, .. } = event { Some(json.as_str()) } else { None })
            .collect();
        assert_eq!(input, "{\"city\": \"Oslo\"}");
        assert_eq!(events.iter().filter(|event| matches!(event, Event::Tool { .. })).count(), 1);
        assert_eq!(events.last(), Some(&Event::Finish(Finish { reason: "tool_calls".into(), sequence: None })));
    }

    #[test]
    fn an_error_in_a_stream_is_a_fault_and_no_finish() {
        let frames = [
            said(&json!({ "content": "Hi" }), "null"),
            ("error", json!({ "code": "DataInspectionFailed", "message": "Output data may…", "request_id": "r" })),
            said(&json!({ "content": "" }), "stop"),
        ];
        let events = streamed(&frames);
        let Some(Event::Fault(fault)) = events.last() else { panic!("{events:?}") };
        assert_eq!((fault.class, fault.code.as_deref()), (FaultClass::ContentFilter, Some("DataInspectionFailed")));
    }

    #[test]
    fn a_stream_that_breaks_off_does_not_finish() {
        let events = streamed(&[said(&json!({ "content": "Hi" }), "null")]);
        assert!(!events.iter().any(|event| matches!(event, Event::Finish(_))), "{events:?}");
    }

    #[test]
    fn parallel_calls_under_one_index_are_two() {
        let call =
            |id: &str, name: &str| json!({ "index": 0, "id": id, "function": { "name": name, "arguments": "{}" } });
        let frames = [
            said(&json!({ "content": "", "tool_calls": [call("a", "f")] }), "null"),
            said(&json!({ "content": "", "tool_calls": [call("b", "g")] }), "tool_calls"),
        ];
        let names: Vec<_> = streamed(&frames)
            .into_iter()
            .filter_map(|event| if let Event::Tool { index, name, .. } = event { Some((index, name)) } else { None })
            .collect();
        assert_eq!(names, [(0, "f".to_owned()), (1, "g".to_owned())]);
    }
}
