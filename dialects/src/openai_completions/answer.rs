// SPDX-License-Identifier: Apache-2.0
//! Answers, both ways. Of several choices the first one is read: a request that is translated asks for one.

use serde_json::{Value, json};

use crate::codec::{Envelope, StreamDecoder, StreamEncoder};
use crate::framing::Frame;
use crate::ir::{Content, Event, Fault, FaultClass, Finish, Response, Usage};
use crate::openai_chat::{fault, usage};

/// Terminator of a stream.
const DONE: &[u8] = b"[DONE]";

/// Reads a whole answer.
pub(super) fn read(body: &[u8]) -> Result<Vec<Event>, Fault> {
    let answer: Value = serde_json::from_slice(body).map_err(|error| unreadable(&error))?;
    if let Some(fault) = fault::in_band(&answer, false) {
        return Err(fault);
    }
    if answer["choices"].as_array().is_none_or(Vec::is_empty) {
        return Err(Fault::new(FaultClass::VendorBug, "the vendor's answer has no choices"));
    }
    let (mut reading, mut events) = (Reading::default(), Vec::new());
    reading.object(&answer, &mut events);
    reading.done = true;
    reading.conclude(&mut events);
    Ok(events)
}

/// State of an answer that is being read.
#[derive(Debug, Default)]
pub(super) struct Reading {
    started: bool,
    failed: bool,
    /// The terminator has come.
    done: bool,
    concluded: bool,
    finish: Option<String>,
}

impl StreamDecoder for Reading {
    fn frame(&mut self, frame: &Frame<'_>, events: &mut Vec<Event>) {
        let data = frame.data.trim_ascii();
        if data == DONE {
            self.done = true;
            self.conclude(events);
            return;
        }
        if data.is_empty() || self.concluded {
            return;
        }
        match serde_json::from_slice::<Value>(data) {
            Ok(object) => {
                self.fail(fault::in_band(&object, frame.name == "error"), events);
                self.object(&object, events);
            }
            Err(error) => self.fail(Some(unreadable(&error)), events),
        }
    }

    fn end(&mut self, events: &mut Vec<Event>) {
        self.conclude(events);
    }
}

impl Reading {
    fn object(&mut self, object: &Value, events: &mut Vec<Event>) {
        let text = |name: &str| object[name].as_str().unwrap_or_default().to_owned();
        if !self.started && object["choices"].is_array() {
            self.started = true;
            events.push(Event::Start { id: text("id"), model: text("model") });
        }
        let choices = object["choices"].as_array().into_iter().flatten();
        for choice in choices.filter(|choice| choice["index"].as_u64().unwrap_or_default() == 0) {
            let text = choice["text"].as_str().filter(|text| !text.is_empty());
            events.extend(text.map(|text| Event::Text(text.to_owned())));
            if choice["logprobs"].is_object() {
                let json = chat_logprobs(&choice["logprobs"]).to_string();
                events.push(Event::Other { name: "logprobs".to_owned(), json });
            }
            if let Some(reason) = choice["finish_reason"].as_str().filter(|reason| !reason.is_empty()) {
                self.finish = Some(reason.to_owned());
            }
        }
        events.extend(usage::read(&object["usage"]).map(Event::Usage));
    }

    fn fail(&mut self, fault: Option<Fault>, events: &mut Vec<Event>) {
        if let Some(fault) = fault
            && !std::mem::replace(&mut self.failed, true)
        {
            events.push(Event::Fault(fault));
        }
    }

    /// The finish waits until here, since usage may come behind it.
    fn conclude(&mut self, events: &mut Vec<Event>) {
        if std::mem::replace(&mut self.concluded, true) || self.failed {
            return;
        }
        let reason = match self.finish.as_deref() {
            Some("eos" | "stop") => "stop",
            Some("max_tokens" | "length") => "length",
            Some(other) => other,
            None if self.done => "stop",
            None => return,
        };
        events.push(Event::Finish(Finish { reason: reason.to_owned(), sequence: None }));
    }
}

/// Writes a whole answer.
pub(super) fn whole(response: &Response, envelope: &Envelope) -> Vec<u8> {
    let mut text = String::new();
    for block in &response.blocks {
        if let Content::Text { text: more, .. } | Content::Refusal { text: more } = &block.content {
            text.push_str(more);
        }
    }
    let reason = response.finish.as_ref().map_or("stop", |finish| finish_reason(&finish.reason));
    let mut lists = response.other.iter().filter(|(name, _)| name == "logprobs");
    let logprobs = lists.next().map_or(Value::Null, |(_, json)| own_logprobs(json));
    let choice = json!({ "text": text, "index": 0, "logprobs": logprobs, "finish_reason": reason });
    let mut answer = head(&response.id, envelope);
    answer["choices"] = json!([choice]);
    if let Some(usage) = &response.usage {
        answer["usage"] = usage::write(usage);
    }
    answer.to_string().into_bytes()
}

/// A streamed answer that is being written.
#[derive(Debug)]
pub(super) struct Chunks {
    envelope: Envelope,
    id: String,
    usage: Option<Usage>,
}

impl Chunks {
    pub(super) fn new(envelope: &Envelope) -> Self {
        Self { envelope: envelope.clone(), id: String::new(), usage: None }
    }

    fn choice(&self, text: &str, logprobs: &Value, reason: Option<&str>, out: &mut Vec<u8>) {
        let choice = json!({ "text": text, "index": 0, "logprobs": logprobs, "finish_reason": reason });
        self.chunk(&json!([choice]), None, out);
    }

    fn chunk(&self, choices: &Value, usage: Option<&Usage>, out: &mut Vec<u8>) {
        let mut chunk = head(&self.id, &self.envelope);
        chunk["choices"] = choices.clone();
        if self.envelope.stream_usage {
            // The chunks before the one that tells it say that they have none.
            chunk["usage"] = usage.map_or(Value::Null, usage::write);
        }
        out.extend_from_slice(format!("data: {chunk}\n\n").as_bytes());
    }
}

impl StreamEncoder for Chunks {
    fn event(&mut self, event: &Event, out: &mut Vec<u8>) {
        match event {
            Event::Start { id, .. } => self.id.clone_from(id),
            Event::Text(more) | Event::Refusal(more) if !more.is_empty() => self.choice(more, &Value::Null, None, out),
            Event::Other { name, json } if name == "logprobs" => self.choice("", &own_logprobs(json), None, out),
            Event::Usage(usage) => self.usage = Some(usage.clone()),
            Event::Finish(finish) => self.choice("", &Value::Null, Some(finish_reason(&finish.reason)), out),
            Event::Fault(fault) => self.fault(fault, out),
            // Thoughts, calls and the rest have no place in a continuation.
            _ => {}
        }
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        if let Some(usage) = self.usage.take().filter(|_| self.envelope.stream_usage) {
            self.chunk(&json!([]), Some(&usage), out);
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }

    fn fault(&mut self, fault: &Fault, out: &mut Vec<u8>) {
        // OpenAI's SDKs raise a chunk that has the member `error`.
        out.extend_from_slice(format!("data: {}\n\n", fault::encode(fault)).as_bytes());
    }
}

fn head(id: &str, envelope: &Envelope) -> Value {
    let id = if id.is_empty() { format!("cmpl-{}", envelope.request_id) } else { id.to_owned() };
    json!({ "id": id, "object": "text_completion", "created": envelope.created, "model": envelope.model })
}

fn finish_reason(reason: &str) -> &'static str {
    match reason {
        "length" => "length",
        "content_filter" | "refusal" => "content_filter",
        _ => "stop",
    }
}

/// Log probabilities as Chat Completions has them, which is how they travel: a list of tokens with what each has.
fn chat_logprobs(legacy: &Value) -> Value {
    let tokens = legacy["tokens"].as_array().into_iter().flatten().enumerate();
    let content = tokens.map(|(at, token)| {
        let others = legacy["top_logprobs"][at].as_object().into_iter().flatten();
        let others = others.map(|(token, logprob)| json!({ "token": token, "bytes": null, "logprob": logprob }));
        json!({
            "token": token,
            "bytes": null,
            "logprob": legacy["token_logprobs"][at],
            "top_logprobs": others.collect::<Vec<_>>(),
        })
    });
    json!({ "content": content.collect::<Vec<_>>() })
}

/// The same as this dialect has them: a list of each.
fn own_logprobs(json: &str) -> Value {
    let chat: Value = serde_json::from_str(json).unwrap_or_default();
    let tokens = || chat["content"].as_array().into_iter().flatten();
    let mut offset = 0;
    let offsets = tokens().map(|token| {
        let at = offset;
        offset += token["token"].as_str().unwrap_or_default().chars().count();
        at
    });
    let others = |token: &Value| -> Value {
        let list = token["top_logprobs"].as_array().into_iter().flatten();
        list.filter_map(|other| Some((other["token"].as_str()?.to_owned(), other["logprob"].clone()))).collect()
    };
    json!({
        "text_offset": offsets.collect::<Vec<_>>(),
        "tokens": tokens().map(|token| token["token"].clone()).collect::<Vec<_>>(),
        "token_logprobs": tokens().map(|token| token["logprob"].clone()).collect::<Vec<_>>(),
        "top_logprobs": tokens().map(others).collect::<Vec<_>>(),
    })
}

fn unreadable(error: &serde_json::Error) -> Fault {
    Fault::new(FaultClass::VendorBug, format!("the vendor's answer is not JSON: {error}"))
}
