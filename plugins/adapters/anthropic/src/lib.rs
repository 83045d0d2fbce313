// SPDX-License-Identifier: Apache-2.0
//! Speaks Anthropic's Messages API (<https://docs.anthropic.com/en/api/messages>), and that of vendors which offer the same
//! under another address. README.md says what is mapped.

use penstock_sdk::dialect::{DialectExchange, read_fault, read_request};
use penstock_sdk::dialects::anthropic_messages::{AnthropicMessages, NAME, encode_count_request};
use penstock_sdk::dialects::codec::Codec;
use penstock_sdk::prelude::{
    Adapter, Answer, Blob, Body, Call, Config, Event, Exchange, Fault, FaultClass, Frame, Framing, Issue, Pairs, Plan,
    Secret, Upstream, Usage, Wants,
};
use penstock_sdk::relayed::ALIKE;
use serde_json::Value;

/// The secret that holds the vendor's key.
const KEY: &str = "key";
const VERSION: &str = "anthropic-version";
const BETA: &str = "anthropic-beta";

/// The vendor's ways.
#[derive(Debug, Config)]
pub struct Options {
    /// Version of the API, unless the caller states one.
    #[config(default = "2023-06-01")]
    version: String,
    /// Beta features to ask for, besides those that the caller asks for.
    #[config(default)]
    beta: Vec<String>,
    /// Where the key goes.
    #[config(default)]
    auth: KeyPlace,
}

/// Where the key goes.
#[derive(Debug, Clone, Copy, Default, Config)]
pub enum KeyPlace {
    /// The header `x-api-key`.
    #[default]
    ApiKey,
    /// The header `authorization`, with the scheme Bearer.
    Bearer,
}

/// The adapter.
#[derive(Debug)]
pub struct Anthropic {
    options: Options,
    has_key: bool,
}

impl Adapter for Anthropic {
    type Config = Options;
    type Exchange = MessagesExchange;

    const DIALECTS: &'static [&'static str] = &[NAME];
    const OPERATIONS: &'static [&'static str] = &["chat", "count_tokens"];
    const FEATURES: &'static [&'static str] =
        &["streaming", "tools", "reasoning", "image-input", "document-input", "json", "caching"];
    const SECRETS: &'static [&'static str] = &[KEY];

    fn new(options: Options) -> Result<Self, Vec<Issue>> {
        Ok(Self { options, has_key: Secret::open(KEY).is_some() })
    }

    fn wants(&self) -> Wants {
        Wants::nothing().headers([VERSION, BETA]).response_headers(["retry-after", "retry-after-ms"]).alike(ALIKE)
    }

    fn relay(&self, call: &Call, headers: &Pairs, _: &Pairs) -> Result<Upstream, Fault> {
        let model = Value::from(call.model.as_str()).to_string();
        Ok(self.head(call, headers)?.body(Body::Splice(vec![("model".to_owned(), model)])))
    }

    fn open(&self, call: &Call, headers: &Pairs, body: &[u8], _: &[Blob]) -> Result<(MessagesExchange, Plan), Fault> {
        let upstream = self.head(call, headers)?;
        let request = read_request(call, body)?;
        let counts = call.operation == "count_tokens";
        let (body, dropped) =
            if counts { encode_count_request(&request) } else { AnthropicMessages.encode_request(&request) };
        let chat = || MessagesExchange::Chat(DialectExchange::new(AnthropicMessages));
        let exchange = if counts { MessagesExchange::Count } else { chat() };
        Ok((exchange, Plan::Ask(upstream.body(Body::Bytes(body)).dropped(dropped))))
    }

    fn reject(&self, status: u16, headers: &Pairs, body: &[u8]) -> Fault {
        read_fault(&AnthropicMessages, status, headers, body)
    }
}

impl Anthropic {
    /// Everything but the body.
    fn head(&self, call: &Call, headers: &Pairs) -> Result<Upstream, Fault> {
        let path = match call.operation.as_str() {
            "chat" => "/messages",
            "count_tokens" => "/messages/count_tokens",
            other => {
                let message = format!("Anthropic's API has no {other}: name a model of a vendor that offers it");
                return Err(Fault::new(FaultClass::Unsupported, message));
            }
        };
        let streaming = call.streaming && call.operation == "chat";
        let mut upstream = Upstream::post(path)
            .header(VERSION, headers.get(VERSION).unwrap_or(&self.options.version))
            .framing(Framing::sse_if(streaming));
        let beta = self.beta(headers);
        if !beta.is_empty() {
            upstream = upstream.header(BETA, beta);
        }
        Ok(match (self.has_key, self.options.auth) {
            (false, _) => upstream,
            (true, KeyPlace::ApiKey) => upstream.secret_header("x-api-key", "", KEY),
            (true, KeyPlace::Bearer) => upstream.secret_header("authorization", "Bearer ", KEY),
        })
    }

    /// The caller's beta features and the operator's, each once.
    fn beta(&self, headers: &Pairs) -> String {
        let asked = headers.iter().filter(|(name, _)| *name == BETA).flat_map(|(_, value)| value.split(','));
        let mut features: Vec<&str> = Vec::new();
        for feature in asked.map(str::trim).chain(self.options.beta.iter().map(String::as_str)) {
            if !feature.is_empty() && !features.contains(&feature) {
                features.push(feature);
            }
        }
        features.join(",")
    }
}

/// An answer, or a count of tokens.
#[derive(Debug)]
pub enum MessagesExchange {
    /// An answer.
    Chat(DialectExchange<AnthropicMessages>),
    /// `{"input_tokens": 17}`
    Count,
}

impl Exchange for MessagesExchange {
    fn frame(&mut self, frame: &Frame<'_>, events: &mut Vec<Event>) -> Result<(), Fault> {
        match self {
            Self::Chat(exchange) => exchange.frame(frame, events),
            Self::Count => Ok(()),
        }
    }

    fn finish(&mut self, answer: &Answer<'_>, events: &mut Vec<Event>) -> Result<Option<Upstream>, Fault> {
        match self {
            Self::Chat(exchange) => exchange.finish(answer, events),
            Self::Count => {
                let counted: Option<Value> = serde_json::from_slice(answer.body).ok();
                let input = counted.and_then(|count| count.get("input_tokens")?.as_u64()).ok_or_else(|| {
                    Fault::new(FaultClass::VendorBug, "the vendor answered a count of tokens without `input_tokens`")
                })?;
                events.push(Event::Usage(Usage { input, ..Usage::default() }));
                Ok(None)
            }
        }
    }
}

penstock_sdk::adapter!(Anthropic);

#[cfg(test)]
mod tests {
    use super::Anthropic;

    #[test]
    fn golden_cases_pass() {
        penstock_sdk::testkit::run_cases::<Anthropic>(concat!(env!("CARGO_MANIFEST_DIR"), "/cases"));
    }
}
