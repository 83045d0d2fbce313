// SPDX-License-Identifier: Apache-2.0
//! What of a vendor's answers has to be read otherwise than its dialect says, where the bytes alone do not tell.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::super::usage;
use crate::codec::{Codec, Operation, StreamDecoder};
use crate::framing::Frame;
use crate::ir::{Event, Fault, FaultClass, Usage};

/// What of a vendor's answers has to be read otherwise.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AnswerWays {
    /// Finish reasons: the vendor's word, and the canonical one.
    pub finish: BTreeMap<String, String>,
    /// Where tokens are counted.
    pub usage: Option<UsageWays>,
    /// How errors are told.
    pub faults: FaultWays,
    /// Whether each chunk of a stream repeats all the text so far.
    pub cumulative: bool,
}

/// Where a vendor counts tokens, as JSON pointers; an empty one counts nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UsageWays {
    /// The usage object in an answer or a chunk.
    pub at: String,
    /// Input tokens in the usage object.
    pub input: String,
    /// Output tokens.
    pub output: String,
    /// Input tokens read from a cache.
    pub cached: String,
    /// Tokens spent on reasoning.
    pub reasoning: String,
    /// Whether the cached tokens are not part of the input tokens.
    pub cached_outside: bool,
    /// Whether the reasoning tokens are not part of the output tokens.
    pub reasoning_outside: bool,
}

/// How a vendor tells errors.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FaultWays {
    /// What holds of an answer that is none: a JSON pointer, and the value if there is one.
    pub success: BTreeMap<String, Value>,
    /// JSON pointer to the code of an error; empty for the dialect's own places.
    pub code: String,
    /// JSON pointer to its message; empty for the dialect's own places.
    pub message: String,
    /// Class of an error by its code.
    pub classes: BTreeMap<String, FaultClass>,
}

impl AnswerWays {
    /// Whether only one who reads an answer can tell what it means, so that it must not go to the caller as it comes.
    #[must_use]
    pub fn must_be_read(&self) -> bool {
        self.usage.is_some() || self.cumulative || !self.faults.success.is_empty()
    }

    /// Reads an answer that is not 2xx.
    pub fn fault<'h>(
        &self,
        codec: &dyn Codec,
        status: u16,
        header: &dyn Fn(&str) -> Option<&'h str>,
        body: &[u8],
    ) -> Fault {
        let fault = codec.decode_fault(status, header, body);
        let places = !self.faults.code.is_empty() || !self.faults.message.is_empty();
        let object = if places { serde_json::from_slice(body).unwrap_or_default() } else { Value::Null };
        self.faults.classified(self.faults.placed(fault, &object))
    }
}

impl FaultWays {
    /// The error that a 2xx answer states.
    fn in_band(&self, object: &Value) -> Option<Fault> {
        let fails = |(pointer, value): (&String, &Value)| object.pointer(pointer).is_some_and(|found| found != value);
        if !self.success.iter().any(fails) {
            return None;
        }
        let unknown = Fault::new(FaultClass::VendorBug, "the vendor reported an error in its answer");
        let stated = super::super::fault::in_band(object, true).unwrap_or(unknown);
        Some(self.classified(self.placed(stated, object)))
    }

    /// With code and message from where the vendor puts them.
    fn placed(&self, fault: Fault, object: &Value) -> Fault {
        let found = |pointer: &str| object.pointer(pointer).filter(|_| !pointer.is_empty()).and_then(word);
        let code = found(&self.code).or(fault.code);
        Fault { code, message: found(&self.message).unwrap_or(fault.message), ..fault }
    }

    fn classified(&self, fault: Fault) -> Fault {
        let class = fault.code.as_ref().and_then(|code| self.classes.get(code));
        Fault { class: class.copied().unwrap_or(fault.class), ..fault }
    }
}

fn word(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

impl UsageWays {
    fn read(&self, answer: &Value) -> Option<Usage> {
        let stated = answer.pointer(&self.at).filter(|stated| stated.is_object())?;
        let count = |pointer: &str| {
            Some(pointer).filter(|pointer| !pointer.is_empty()).and_then(|pointer| usage::count(stated, pointer))
        };
        let (input, output) = (count(&self.input), count(&self.output));
        if input.is_none() && output.is_none() {
            return None;
        }
        let (input, output) = (input.unwrap_or_default(), output.unwrap_or_default());
        let cache_read = count(&self.cached).unwrap_or_default();
        let reasoning = count(&self.reasoning).unwrap_or_default();
        let reasoning = if self.reasoning_outside { reasoning } else { reasoning.min(output) };
        Some(Usage {
            input: if self.cached_outside { input } else { input.saturating_sub(cache_read) },
            cache_read,
            output: if self.reasoning_outside { output } else { output - reasoning },
            reasoning,
            stated: stated.to_string(),
            ..Usage::default()
        })
    }
}

/// The answer to one request, as it is read: what a dialect makes of it, with a vendor's ways.
pub struct Answer {
    codec: &'static dyn Codec,
    operation: Operation,
    ways: Arc<AnswerWays>,
    decoder: Box<dyn StreamDecoder>,
    /// Text and reasoning so far, where each chunk repeats them.
    told: [String; 2],
    failed: bool,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Answer").field("operation", &self.operation).finish_non_exhaustive()
    }
}

impl Answer {
    /// The answer to a request of a canonical operation that was written in this dialect.
    #[must_use]
    pub fn new(codec: &'static dyn Codec, operation: Operation, ways: Arc<AnswerWays>) -> Self {
        let decoder = codec.stream_decoder();
        Self { codec, operation, ways, decoder, told: [String::new(), String::new()], failed: false }
    }

    /// One frame of a stream.
    pub fn frame(&mut self, frame: &Frame<'_>, events: &mut Vec<Event>) {
        if self.failed {
            return;
        }
        let first = events.len();
        let object = self.object(frame.data);
        if let Some(fault) = self.ways.faults.in_band(&object) {
            self.failed = true;
            events.push(Event::Fault(fault));
            return;
        }
        self.decoder.frame(frame, events);
        self.heed(first, &object, events);
    }

    /// The end: with the body of an answer that came whole, also where a stream was asked for, since some vendors answer so.
    ///
    /// # Errors
    /// The fault that the answer states, or vendor-bug if it cannot be read.
    pub fn finish(&mut self, body: &[u8], events: &mut Vec<Event>) -> Result<(), Fault> {
        let first = events.len();
        if body.is_empty() {
            if !self.failed {
                self.decoder.end(events);
                self.heed(first, &Value::Null, events);
            }
            return Ok(());
        }
        let object = self.object(body);
        if let Some(fault) = self.ways.faults.in_band(&object) {
            return Err(fault);
        }
        let read = match self.operation.is_conversation() {
            true => self.codec.decode_response(body),
            false => self.codec.decode_result(self.operation, body),
        };
        events.extend(read.map_err(|fault| self.ways.faults.classified(fault))?);
        self.heed(first, &object, events);
        Ok(())
    }

    /// The answer or chunk as a tree, if something of it has to be looked at.
    fn object(&self, json: &[u8]) -> Value {
        let looks = self.ways.usage.is_some() || !self.ways.faults.success.is_empty();
        if looks { serde_json::from_slice(json).unwrap_or_default() } else { Value::Null }
    }

    /// Puts right what the dialect made of an answer or a chunk.
    fn heed(&mut self, first: usize, object: &Value, events: &mut Vec<Event>) {
        let ways = Arc::clone(&self.ways);
        if let Some(usage) = &ways.usage {
            let read = usage.read(object);
            let mut at = 0;
            events.retain(|event| {
                at += 1;
                at <= first || !matches!(event, Event::Usage(_))
            });
            // Before a finish, after which nothing is expected.
            let end = events[first..].iter().position(|event| matches!(event, Event::Finish(_)));
            let place = end.map_or(events.len(), |end| first + end);
            events.splice(place..place, read.map(Event::Usage));
        }
        for event in &mut events[first..] {
            match event {
                Event::Finish(finish) => {
                    if let Some(word) = ways.finish.get(&finish.reason) {
                        finish.reason.clone_from(word);
                    }
                }
                Event::Fault(fault) => *fault = ways.faults.classified(fault.clone()),
                Event::Text(text) if ways.cumulative => cut(&mut self.told[0], text),
                Event::Reasoning(text) if ways.cumulative => cut(&mut self.told[1], text),
                _ => {}
            }
        }
    }
}

/// Takes off what was told before.
fn cut(told: &mut String, text: &mut String) {
    if let Some(rest) = text.strip_prefix(told.as_str()) {
        let rest = rest.to_owned();
        *told = std::mem::replace(text, rest);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::openai_chat::OpenAiChat;

    fn chunks(ways: AnswerWays, chunks: &[Value]) -> Vec<Event> {
        let mut answer = Answer::new(&OpenAiChat, Operation::Chat, Arc::new(ways));
        let mut events = Vec::new();
        for chunk in chunks {
            answer.frame(&Frame { name: "", data: chunk.to_string().as_bytes() }, &mut events);
        }
        answer.frame(&Frame { name: "", data: b"[DONE]" }, &mut events);
        answer.finish(b"", &mut events).unwrap();
        events
    }

    fn chunk(content: &str, finish: &str) -> Value {
        let finish = Some(finish).filter(|finish| !finish.is_empty());
        json!({"id": "i", "model": "m", "choices": [{"index": 0, "delta": {"content": content}, "finish_reason": finish}]})
    }

    #[test]
    fn a_predicate_that_fails_is_a_fault_whole_and_in_a_stream() {
        let faults = FaultWays {
            success: BTreeMap::from([("/state/ok".to_owned(), json!(true))]),
            code: "/state/number".to_owned(),
            message: "/state/words".to_owned(),
            classes: BTreeMap::from([("7".to_owned(), FaultClass::Billing)]),
        };
        let ways = AnswerWays { faults, ..AnswerWays::default() };
        let failed = json!({"state": {"ok": false, "number": 7, "words": "pay first"}, "choices": []});
        let fault = Fault { code: Some("7".to_owned()), ..Fault::new(FaultClass::Billing, "pay first") };
        let events = chunks(ways.clone(), &[failed.clone(), chunk("a", "stop")]);
        assert_eq!(events, [Event::Fault(fault.clone())]);
        let mut answer = Answer::new(&OpenAiChat, Operation::Chat, Arc::new(ways.clone()));
        assert_eq!(answer.finish(failed.to_string().as_bytes(), &mut Vec::new()), Err(fault.clone()));
        assert_eq!(ways.fault(&OpenAiChat, 500, &|_| None, failed.to_string().as_bytes()), fault);
        let fine = json!({"state": {"ok": true}, "choices": [{"message": {"content": "a"}, "finish_reason": "stop"}]});
        let mut answer = Answer::new(&OpenAiChat, Operation::Chat, Arc::new(ways));
        assert_eq!(answer.finish(fine.to_string().as_bytes(), &mut Vec::new()), Ok(()));
    }

    #[test]
    fn words_counts_and_repeated_text_are_put_right() {
        let usage = UsageWays {
            at: "/meta".to_owned(),
            input: "/in".to_owned(),
            output: "/out".to_owned(),
            cached: "/hit".to_owned(),
            reasoning: "/thought".to_owned(),
            cached_outside: true,
            reasoning_outside: true,
        };
        let finish = BTreeMap::from([("too_long".to_owned(), "length".to_owned())]);
        let ways = AnswerWays { finish, usage: Some(usage), cumulative: true, ..AnswerWays::default() };
        let mut last = chunk("Hello", "too_long");
        last["usage"] = json!({"prompt_tokens": 900, "completion_tokens": 900});
        last["meta"] = json!({"in": 5, "out": 2, "hit": 9, "thought": 4});
        let events = chunks(ways, &[chunk("He", ""), last.clone()]);
        let counted = Usage { input: 5, cache_read: 9, output: 2, reasoning: 4, ..Usage::default() };
        let counted = Usage { stated: last["meta"].to_string(), ..counted };
        let finish = crate::ir::Finish { reason: "length".to_owned(), sequence: None };
        let expected = [
            Event::Start { id: "i".to_owned(), model: "m".to_owned() },
            Event::Text("He".to_owned()),
            Event::Text("llo".to_owned()),
            Event::Usage(counted),
            Event::Finish(finish),
        ];
        assert_eq!(events, expected);
    }
}
