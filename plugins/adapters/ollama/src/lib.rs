// SPDX-License-Identifier: Apache-2.0
//! Speaks Ollama's own API (<https://github.com/ollama/ollama/blob/main/docs/api.md>), which lets a caller say more than
//! its OpenAI-compatible one: the size of the context, how long a model stays loaded, whether it thinks. README.md says
//! what is mapped.

use std::collections::BTreeMap;

use penstock_sdk::dialect::read_request;
use penstock_sdk::dialects::codec::StreamDecoder;
use penstock_sdk::dialects::estimate::input_tokens;
use penstock_sdk::dialects::ollama_native::{
    Style, decode_embeddings, decode_fault, decode_response, encode_embed, encode_request, stream_decoder,
};
use penstock_sdk::dialects::task::Embed;
use penstock_sdk::passthrough::passthrough;
use penstock_sdk::pattern::fits_any;
use penstock_sdk::prelude::{
    Adapter, Answer, Blob, Body, Call, Config, Event, Exchange, Fault, FaultClass, Frame, Framing, Issue, Pairs, Plan,
    Secret, Upstream, Usage, Wants,
};
use serde_json::Value;

/// The secret that holds a key, where the server wants one.
const KEY: &str = "key";

/// The operator's choices.
#[derive(Debug, Config)]
pub struct Options {
    /// How long a model stays loaded after an answer, as Go writes durations: "10m"; "-1s" for as long as the server runs.
    keep_alive: Option<String>,
    /// Members of `options` where the caller says nothing: `num_ctx`, `repeat_penalty` …
    #[config(default)]
    options: BTreeMap<String, Value>,
    /// Patterns of models that take levels of thinking; others are told yes or no.
    #[config(default = vec!["gpt-oss*".to_owned()])]
    think_levels: Vec<String>,
}

/// The adapter.
#[derive(Debug)]
pub struct Ollama {
    options: Options,
    has_key: bool,
}

impl Adapter for Ollama {
    type Config = Options;
    type Exchange = OllamaExchange;

    const OPERATIONS: &'static [&'static str] = &["chat", "count_tokens", "embeddings", "passthrough"];
    const FEATURES: &'static [&'static str] = &["streaming", "tools", "reasoning", "image-input", "json"];
    const SECRETS: &'static [&'static str] = &[KEY];

    fn new(options: Options) -> Result<Self, Vec<Issue>> {
        Ok(Self { options, has_key: Secret::open(KEY).is_some() })
    }

    fn wants(&self) -> Wants {
        Wants::nothing().response_headers(["retry-after"])
    }

    fn relay(&self, call: &Call, _: &Pairs, _: &Pairs) -> Result<Upstream, Fault> {
        if call.operation != "passthrough" {
            return Err(unsupported(call));
        }
        Ok(self.keyed(passthrough(call)?))
    }

    fn open(&self, call: &Call, _: &Pairs, body: &[u8], _: &[Blob]) -> Result<(OllamaExchange, Plan), Fault> {
        let style = Style {
            levels: fits_any(&self.options.think_levels, &call.model),
            keep_alive: self.options.keep_alive.as_deref(),
            options: Some(&self.options.options),
        };
        match call.operation.as_str() {
            "chat" => {
                let request = read_request(call, body)?;
                let framing = if request.streaming { Framing::JsonLines } else { Framing::Whole };
                let (body, dropped) = encode_request(&request, &style);
                let upstream = Upstream::post("/api/chat").body(Body::Bytes(body)).framing(framing).dropped(dropped);
                Ok((OllamaExchange::Chat(stream_decoder()), Plan::Ask(self.keyed(upstream))))
            }
            "count_tokens" => {
                // There is no counter; an estimate at once is more useful than none.
                let input = input_tokens(&read_request(call, body)?);
                let plan = Plan::Answer(vec![Event::Usage(Usage { input, ..Usage::default() })]);
                Ok((OllamaExchange::Chat(stream_decoder()), plan))
            }
            "embeddings" => {
                let unreadable =
                    |why| Fault::new(FaultClass::InvalidRequest, format!("the request cannot be read: {why}"));
                let mut task: Embed = serde_json::from_slice(body).map_err(unreadable)?;
                task.model.clone_from(&call.model);
                let (body, dropped) = encode_embed(&task, &style)?;
                let upstream = Upstream::post("/api/embed").body(Body::Bytes(body)).dropped(dropped);
                Ok((OllamaExchange::Embeddings, Plan::Ask(self.keyed(upstream))))
            }
            _ => Err(unsupported(call)),
        }
    }

    fn reject(&self, status: u16, headers: &Pairs, body: &[u8]) -> Fault {
        decode_fault(status, &|name| headers.get(name), body)
    }
}

impl Ollama {
    fn keyed(&self, upstream: Upstream) -> Upstream {
        if self.has_key { upstream.secret_header("authorization", "Bearer ", KEY) } else { upstream }
    }
}

fn unsupported(call: &Call) -> Fault {
    let message = format!("Ollama's own API has no {}: name a model of a vendor that offers it", call.operation);
    Fault::new(FaultClass::Unsupported, message)
}

/// One call to the server.
pub enum OllamaExchange {
    /// A conversation, streamed or whole.
    Chat(Box<dyn StreamDecoder>),
    /// Vectors.
    Embeddings,
}

impl std::fmt::Debug for OllamaExchange {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("OllamaExchange").finish_non_exhaustive()
    }
}

impl Exchange for OllamaExchange {
    fn frame(&mut self, frame: &Frame<'_>, events: &mut Vec<Event>) -> Result<(), Fault> {
        if let Self::Chat(decoder) = self {
            decoder.frame(frame, events);
        }
        Ok(())
    }

    fn finish(&mut self, answer: &Answer<'_>, events: &mut Vec<Event>) -> Result<Option<Upstream>, Fault> {
        match self {
            Self::Chat(decoder) if answer.body.is_empty() => decoder.end(events),
            Self::Chat(_) => events.extend(decode_response(answer.body)?),
            Self::Embeddings => events.extend(decode_embeddings(answer.body)?),
        }
        Ok(None)
    }
}

penstock_sdk::adapter!(Ollama);

#[cfg(test)]
mod tests {
    use super::Ollama;

    #[test]
    fn golden_cases_pass() {
        penstock_sdk::testkit::run_cases::<Ollama>(concat!(env!("CARGO_MANIFEST_DIR"), "/cases"));
    }
}
