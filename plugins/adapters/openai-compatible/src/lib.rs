// SPDX-License-Identifier: Apache-2.0
//! Speaks Chat Completions as OpenAI does (<https://platform.openai.com/docs/api-reference/chat>), and as the many vendors
//! that are compatible with it do. In which ways a vendor differs is configuration: a new one is a policy file, not code.
//! README.md has the table.

mod ways;

use penstock_sdk::dialect::{DialectExchange, read_fault, read_request};
use penstock_sdk::dialects::estimate::input_tokens;
use penstock_sdk::dialects::openai_chat::{NAME, OpenAiChat};
use penstock_sdk::dialects::splice::Members;
use penstock_sdk::prelude::{
    Adapter, Blob, Body, Call, Event, Fault, FaultClass, Framing, Issue, Pairs, Placed, Plan, Secret, Upstream, Usage,
    Wants,
};
use serde_json::Value;

use ways::{Edits, Options};

/// The secret that holds the vendor's key.
const KEY: &str = "key";

/// The response headers by which vendors tell how long to wait.
const WAIT_HEADERS: [&str; 6] = [
    "retry-after",
    "retry-after-ms",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-requests",
    "x-ratelimit-reset-tokens",
];

/// The adapter.
#[derive(Debug)]
pub struct OpenAiCompatible {
    options: Options,
    has_key: bool,
}

impl Adapter for OpenAiCompatible {
    type Config = Options;
    type Exchange = DialectExchange<OpenAiChat>;

    const DIALECTS: &'static [&'static str] = &[NAME];
    const OPERATIONS: &'static [&'static str] = &["chat", "count_tokens", "embeddings"];
    const SECRETS: &'static [&'static str] = &[KEY];

    fn new(options: Options) -> Result<Self, Vec<Issue>> {
        let issues = options.issues();
        if !issues.is_empty() {
            return Err(issues);
        }
        Ok(Self { options, has_key: Secret::open(KEY).is_some() })
    }

    fn wants(&self) -> Wants {
        Wants::nothing().response_headers(WAIT_HEADERS).members(self.options.members())
    }

    fn relay(&self, call: &Call, _: &Pairs, members: &Pairs) -> Result<Upstream, Fault> {
        let Edits { mut edits, dropped } = self.options.edits(&|name| members.get(name));
        edits.push(("model".to_owned(), Value::from(call.model.as_str()).to_string()));
        Ok(self.head(call)?.body(Body::Splice(edits)).dropped(dropped))
    }

    fn open(
        &self,
        call: &Call,
        _: &Pairs,
        body: &[u8],
        _: &[Blob],
    ) -> Result<(DialectExchange<OpenAiChat>, Plan), Fault> {
        let exchange = DialectExchange::new(OpenAiChat);
        if call.operation == "count_tokens" {
            // These vendors do not count; an estimate at once is more useful than none.
            let input = input_tokens(&read_request(call, body)?);
            return Ok((exchange, Plan::Answer(vec![Event::Usage(Usage { input, ..Usage::default() })])));
        }
        if call.operation != "chat" {
            let message = format!("{} in {} cannot be translated: ask in {NAME}", call.operation, call.dialect);
            return Err(Fault::new(FaultClass::Unsupported, message));
        }
        let mut request = read_request(call, body)?;
        request.stream_usage = request.streaming && self.options.stream_usage();
        let (body, mut dropped) = OpenAiChat.encode_request_as(&request, &self.options.style());
        let members = Members::index(&body)?;
        let Edits { edits, dropped: more } = self.options.edits(&|name| members.get(name));
        let edits: Vec<_> = edits.iter().map(|(name, json)| (name.as_str(), json.as_str())).collect();
        let body = if edits.is_empty() { body } else { members.splice(&edits) };
        dropped.extend(more);
        Ok((exchange, Plan::Ask(self.head(call)?.body(Body::Bytes(body)).dropped(dropped))))
    }

    fn reject(&self, status: u16, headers: &Pairs, body: &[u8]) -> Fault {
        read_fault(&OpenAiChat, status, headers, body)
    }
}

impl OpenAiCompatible {
    /// Everything but the body.
    fn head(&self, call: &Call) -> Result<Upstream, Fault> {
        let path = self.options.path(&call.operation).ok_or_else(|| {
            let message = format!("this vendor has no {}: name a model of another one", call.operation);
            Fault::new(FaultClass::Unsupported, message)
        })?;
        let mut upstream = Upstream::post(path).framing(Framing::sse_if(call.streaming && call.operation == "chat"));
        upstream.headers.extend(self.options.headers().map(|(name, value)| Placed::text(name, value)));
        upstream.query.extend(self.options.query().map(|(name, value)| Placed::text(name, value)));
        if self.has_key {
            let auth = self.options.auth();
            match &auth.query {
                Some(name) => upstream.query.push(Placed::secret(name, "", KEY)),
                None => upstream.headers.push(Placed::secret(&auth.header, &auth.prefix, KEY)),
            }
        }
        Ok(upstream)
    }
}

penstock_sdk::adapter!(OpenAiCompatible);

#[cfg(test)]
mod tests {
    use super::OpenAiCompatible;

    #[test]
    fn golden_cases_pass() {
        penstock_sdk::testkit::run_cases::<OpenAiCompatible>(concat!(env!("CARGO_MANIFEST_DIR"), "/cases"));
    }
}
