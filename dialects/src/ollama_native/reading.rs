// SPDX-License-Identifier: Apache-2.0
//! Reads answers. Every object of a stream holds what is new; a tool call comes whole, with its arguments as an object.

use serde_json::{Value, json};

use crate::codec::{Codec, StreamDecoder};
use crate::framing::Frame;
use crate::ir::{Event, Fault, FaultClass, Finish, Usage};
use crate::openai_chat::OpenAiChat;
use crate::task::EMBEDDING;

/// Reads a whole answer.
///
/// # Errors
/// The error that the answer states, or vendor-bug if it cannot be read.
pub fn decode_response(body: &[u8]) -> Result<Vec<Event>, Fault> {
    let object = read(body)?;
    if !object["message"].is_object() && !object["response"].is_string() {
        return Err(Fault::new(FaultClass::VendorBug, "the vendor's answer has no message"));
    }
    let mut events = Vec::new();
    Reading::default().object(&object, &mut events);
    Ok(events)
}

/// Begins to read a streamed answer.
#[must_use]
pub fn stream_decoder() -> Box<dyn StreamDecoder> {
    Box::new(Reading::default())
}

/// Reads the answer to a request for vectors.
///
/// # Errors
/// As [`decode_response`].
pub fn decode_embeddings(body: &[u8]) -> Result<Vec<Event>, Fault> {
    let object = read(body)?;
    let list = object["embeddings"].as_array();
    let list = list.ok_or_else(|| Fault::new(FaultClass::VendorBug, "the vendor's answer has no embeddings"))?;
    let mut events = vec![start(&object)];
    events.extend(list.iter().enumerate().map(|(index, values)| Event::Other {
        name: EMBEDDING.to_owned(),
        json: json!({ "index": index, "values": values }).to_string(),
    }));
    events.extend(usage(&object).map(Event::Usage));
    events.push(Event::Finish(Finish { reason: "stop".to_owned(), sequence: None }));
    Ok(events)
}

/// Reads an answer that is not 2xx: `{"error": "…"}`. `header` looks a response header up by its lower-case name.
#[must_use]
pub fn decode_fault<'h>(status: u16, header: &dyn Fn(&str) -> Option<&'h str>, body: &[u8]) -> Fault {
    OpenAiChat.decode_fault(status, header, body)
}

/// State of an answer that is being read.
#[derive(Debug, Default)]
struct Reading {
    started: bool,
    ended: bool,
    calls: u32,
}

impl StreamDecoder for Reading {
    fn frame(&mut self, frame: &Frame<'_>, events: &mut Vec<Event>) {
        if self.ended || frame.data.trim_ascii().is_empty() {
            return;
        }
        match read(frame.data) {
            Ok(object) => self.object(&object, events),
            Err(fault) => {
                self.ended = true;
                events.push(Event::Fault(fault));
            }
        }
    }

    fn end(&mut self, _: &mut Vec<Event>) {}
}

impl Reading {
    fn object(&mut self, object: &Value, events: &mut Vec<Event>) {
        if !std::mem::replace(&mut self.started, true) {
            events.push(start(object));
        }
        let message = &object["message"];
        for (said, event) in [
            (&message["thinking"], Event::Reasoning as fn(String) -> Event),
            (&object["thinking"], Event::Reasoning),
            (&message["content"], Event::Text),
            (&object["response"], Event::Text),
        ] {
            if let Some(text) = said.as_str().filter(|text| !text.is_empty()) {
                events.push(event(text.to_owned()));
            }
        }
        for call in message["tool_calls"].as_array().into_iter().flatten() {
            let index = self.calls;
            self.calls += 1;
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            events.push(Event::Tool { index, id: text(&call["id"]), name: text(&call["function"]["name"]) });
            let json = match &call["function"]["arguments"] {
                Value::Null => "{}".to_owned(),
                Value::String(text) => text.clone(),
                object => object.to_string(),
            };
            events.push(Event::ToolInput { index, json });
        }
        if object["done"] == true {
            self.ended = true;
            events.extend(usage(object).map(Event::Usage));
            // An answer that ends in a call says "stop".
            let reason = match object["done_reason"].as_str() {
                None | Some("" | "stop") if self.calls > 0 => "tool_calls",
                None | Some("") => "stop",
                Some(reason) => reason,
            };
            events.push(Event::Finish(Finish { reason: reason.to_owned(), sequence: None }));
        }
    }
}

/// One object of an answer, or the error that it states. There is no status for that: the server has failed at its work.
fn read(data: &[u8]) -> Result<Value, Fault> {
    let unreadable = |error| Fault::new(FaultClass::VendorBug, format!("the vendor's answer is not JSON: {error}"));
    let object: Value = serde_json::from_slice(data).map_err(unreadable)?;
    match &object["error"] {
        Value::Null => Ok(object),
        Value::String(text) if text.is_empty() => Ok(object),
        _ => Err(decode_fault(500, &|_| None, data)),
    }
}

fn start(object: &Value) -> Event {
    Event::Start { id: String::new(), model: object["model"].as_str().unwrap_or_default().to_owned() }
}

/// Counts and durations, which stand beside the answer. A prompt that is cached whole is not counted.
fn usage(object: &Value) -> Option<Usage> {
    const STATED: &[&str] = &[
        "total_duration",
        "load_duration",
        "prompt_eval_count",
        "prompt_eval_duration",
        "eval_count",
        "eval_duration",
    ];
    let stated: serde_json::Map<String, Value> =
        STATED.iter().filter_map(|name| Some(((*name).to_owned(), object.get(*name)?.clone()))).collect();
    let count = |name: &str| object[name].as_u64();
    let (input, output) = (count("prompt_eval_count"), count("eval_count"));
    (input.is_some() || output.is_some()).then(|| Usage {
        input: input.unwrap_or_default(),
        output: output.unwrap_or_default(),
        stated: Value::Object(stated).to_string(),
        ..Usage::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_classified_by_status_and_words() {
        use FaultClass as C;
        let cases = [
            (404, "model 'nonexistent-model:latest' not found", C::ModelNotFound),
            (400, "\"llama3\" does not support tools", C::InvalidRequest),
            (400, "the input length exceeds the context length", C::ContextTooLong),
            (401, "unauthorized", C::Authentication),
            (500, "llama runner process has terminated: exit status 2", C::Overloaded),
            (503, "server busy, please try again. maximum pending requests exceeded", C::Overloaded),
        ];
        for (status, message, class) in cases {
            let fault = decode_fault(status, &|_| None, json!({ "error": message }).to_string().as_bytes());
            assert_eq!((fault.class, fault.message.as_str()), (class, message));
        }
    }

    #[test]
    fn an_error_in_a_stream_is_a_fault_and_no_finish() {
        let (mut decoder, mut events) = (stream_decoder(), Vec::new());
        for data in [
            r#"{"model":"m","message":{"role":"assistant","content":"Hi"},"done":false}"#,
            r#"{"error":"an error was encountered while running the model: CUDA error"}"#,
            r#"{"model":"m","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop"}"#,
        ] {
            decoder.frame(&Frame { name: "", data: data.as_bytes() }, &mut events);
        }
        decoder.end(&mut events);
        let [Event::Start { .. }, Event::Text(_), Event::Fault(fault)] = events.as_slice() else {
            panic!("{events:?}")
        };
        assert_eq!(fault.class, FaultClass::Overloaded);
    }

    #[test]
    fn a_stream_that_breaks_off_does_not_finish() {
        let (mut decoder, mut events) = (stream_decoder(), Vec::new());
        let data = br#"{"model":"m","message":{"role":"assistant","content":"Hi"},"done":false}"#;
        decoder.frame(&Frame { name: "", data }, &mut events);
        decoder.end(&mut events);
        assert!(!events.iter().any(|event| matches!(event, Event::Finish(_))), "{events:?}");
    }
}
