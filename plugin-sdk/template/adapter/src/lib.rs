// SPDX-License-Identifier: Apache-2.0
//! Speaks the API of a vendor that takes `{"model", "prompt", "stream"}` at `/generate` and answers
//! `{"text", "tokens": {"in", "out"}}`, or the same in pieces as server-sent events. Replace it with your vendor's.

use penstock_sdk::dialect::read_request;
use penstock_sdk::dialects::ir::Content;
use penstock_sdk::prelude::{
    Adapter, Answer, Blob, Body, Call, Config, Event, Exchange, Fault, FaultClass, Finish, Frame, Framing, Issue,
    Pairs, Plan, Upstream, Usage, Wants,
};
use serde_json::{Value, json};

/// What operators configure; these comments are what they read.
#[derive(Debug, Config)]
pub struct Options {
    /// Version of the vendor's API.
    #[config(default = "v1")]
    version: String,
}

/// The adapter.
#[derive(Debug)]
pub struct MyPlugin(Options);

impl Adapter for MyPlugin {
    type Config = Options;
    type Exchange = Answering;

    const OPERATIONS: &'static [&'static str] = &["chat"];
    const SECRETS: &'static [&'static str] = &["key"];

    fn new(options: Options) -> Result<Self, Vec<Issue>> {
        Ok(Self(options))
    }

    fn wants(&self) -> Wants {
        Wants::nothing().response_headers(["retry-after"])
    }

    fn open(&self, call: &Call, _: &Pairs, body: &[u8], _: &[Blob]) -> Result<(Answering, Plan), Fault> {
        let request = read_request(call, body)?;
        let blocks = request.messages.iter().flat_map(|message| &message.blocks);
        let texts = blocks.filter_map(|block| match &block.content {
            Content::Text { text, .. } => Some(text.as_str()),
            _ => None,
        });
        let prompt = texts.collect::<Vec<_>>().join("\n");
        let body = json!({ "model": request.model, "prompt": prompt, "stream": request.streaming });
        // Tell the caller what your vendor has no place for.
        let dropped = if request.tools.is_empty() { Vec::new() } else { vec!["tools".to_owned()] };
        let upstream = Upstream::post(format!("/{}/generate", self.0.version))
            .secret_header("authorization", "Bearer ", "key")
            .body(Body::Bytes(body.to_string().into_bytes()))
            .framing(Framing::sse_if(request.streaming))
            .dropped(dropped);
        Ok((Answering { started: false }, Plan::Ask(upstream)))
    }

    fn reject(&self, status: u16, headers: &Pairs, body: &[u8]) -> Fault {
        let class = match status {
            401 => FaultClass::Authentication,
            429 => FaultClass::RateLimit,
            400..=499 => FaultClass::InvalidRequest,
            _ => FaultClass::Overloaded,
        };
        let json: Value = serde_json::from_slice(body).unwrap_or_default();
        let message =
            json["error"].as_str().map_or_else(|| format!("the vendor answered with {status}"), str::to_owned);
        let mut fault = Fault::new(class, message);
        let seconds = headers.get("retry-after").and_then(|seconds| seconds.parse::<u64>().ok());
        fault.retry_after_ms = seconds.map(|seconds| seconds.saturating_mul(1000));
        fault
    }
}

/// One answer, whole or in pieces.
#[derive(Debug)]
pub struct Answering {
    started: bool,
}

impl Exchange for Answering {
    fn frame(&mut self, frame: &Frame<'_>, events: &mut Vec<Event>) -> Result<(), Fault> {
        self.piece(frame.data, events)
    }

    fn finish(&mut self, answer: &Answer<'_>, events: &mut Vec<Event>) -> Result<Option<Upstream>, Fault> {
        if !answer.body.is_empty() {
            self.piece(answer.body, events)?;
        }
        Ok(None)
    }
}

impl Answering {
    fn piece(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> Result<(), Fault> {
        let piece: Value = serde_json::from_slice(bytes).map_err(|error| {
            Fault::new(FaultClass::VendorBug, format!("the vendor's answer cannot be read: {error}"))
        })?;
        if !self.started {
            self.started = true;
            let text = |name: &str| piece[name].as_str().unwrap_or_default().to_owned();
            events.push(Event::Start { id: text("id"), model: text("model") });
        }
        if let Some(text) = piece["text"].as_str() {
            events.push(Event::Text(text.to_owned()));
        }
        // The tokens come last.
        if let Some(tokens) = piece["tokens"].as_object() {
            let count = |name: &str| tokens.get(name).and_then(Value::as_u64).unwrap_or(0);
            events.push(Event::Usage(Usage { input: count("in"), output: count("out"), ..Usage::default() }));
            events.push(Event::Finish(Finish { reason: "stop".to_owned(), sequence: None }));
        }
        Ok(())
    }
}

penstock_sdk::adapter!(MyPlugin);

#[cfg(test)]
mod tests {
    use super::MyPlugin;

    #[test]
    fn golden_cases_pass() {
        penstock_sdk::testkit::run_cases::<MyPlugin>(concat!(env!("CARGO_MANIFEST_DIR"), "/cases"));
    }
}
