// SPDX-License-Identifier: Apache-2.0
//! Speaks Cohere's API, version 2 (<https://docs.cohere.com/reference>): chat, vectors, rankings. README.md says what is
//! mapped.

use penstock_sdk::dialect::{DialectExchange, read_fault, read_request};
use penstock_sdk::dialects::codec::{Codec, Operation};
use penstock_sdk::dialects::cohere_v2::{CohereV2, NAME};
use penstock_sdk::dialects::estimate::input_tokens;
use penstock_sdk::dialects::task::Task;
use penstock_sdk::passthrough::passthrough;
use penstock_sdk::prelude::{
    Adapter, Answer, Blob, Body, Call, Config, Event, Exchange, Fault, FaultClass, Frame, Framing, Issue, Pairs, Plan,
    Secret, Upstream, Usage, Wants,
};
use penstock_sdk::relayed::ALIKE;
use serde_json::Value;

/// The secret that holds the vendor's key.
const KEY: &str = "key";

/// The operator's choices.
#[derive(Debug, Config)]
pub struct Options {
    /// Name by which the vendor's logs know these requests.
    client_name: Option<String>,
}

/// The adapter.
#[derive(Debug)]
pub struct Cohere {
    options: Options,
    has_key: bool,
}

impl Adapter for Cohere {
    type Config = Options;
    type Exchange = CohereExchange;

    const DIALECTS: &'static [&'static str] = &[NAME];
    const OPERATIONS: &'static [&'static str] = &["chat", "count_tokens", "embeddings", "rerank", "passthrough"];
    const FEATURES: &'static [&'static str] =
        &["streaming", "tools", "reasoning", "image-input", "document-input", "json", "caching"];
    const SECRETS: &'static [&'static str] = &[KEY];

    fn new(options: Options) -> Result<Self, Vec<Issue>> {
        Ok(Self { options, has_key: Secret::open(KEY).is_some() })
    }

    fn wants(&self) -> Wants {
        Wants::nothing().response_headers(["retry-after"]).alike(ALIKE)
    }

    fn relay(&self, call: &Call, _: &Pairs, _: &Pairs) -> Result<Upstream, Fault> {
        if call.operation == "passthrough" {
            return Ok(self.authorised(passthrough(call)?));
        }
        let model = Value::from(call.model.as_str()).to_string();
        let streaming = call.streaming && call.operation == "chat";
        let upstream = Upstream::post(path(call)?).framing(Framing::sse_if(streaming));
        Ok(self.authorised(upstream.body(Body::Splice(vec![("model".to_owned(), model)]))))
    }

    fn open(&self, call: &Call, _: &Pairs, body: &[u8], _: &[Blob]) -> Result<(CohereExchange, Plan), Fault> {
        let chat = || CohereExchange::Chat(DialectExchange::new(CohereV2));
        if call.operation == "count_tokens" {
            // The vendor counts texts, not conversations; an estimate at once is more useful than none.
            let input = input_tokens(&read_request(call, body)?);
            return Ok((chat(), Plan::Answer(vec![Event::Usage(Usage { input, ..Usage::default() })])));
        }
        let upstream = Upstream::post(path(call)?);
        let operation = Operation::from_name(&call.operation).ok_or_else(|| unsupported(call))?;
        let (exchange, upstream, (body, dropped)) = if operation == Operation::Chat {
            let request = read_request(call, body)?;
            let upstream = upstream.framing(Framing::sse_if(request.streaming));
            (chat(), upstream, CohereV2.encode_request(&request))
        } else {
            let wrong = |why| Fault::new(FaultClass::InvalidRequest, format!("the request cannot be read: {why}"));
            let mut task = Task::from_json(operation, body).map_err(wrong)?;
            task.model_mut().clone_from(&call.model);
            (CohereExchange::Task(operation), upstream, CohereV2.encode_task(operation, &task)?)
        };
        Ok((exchange, Plan::Ask(self.authorised(upstream.body(Body::Bytes(body)).dropped(dropped)))))
    }

    fn reject(&self, status: u16, headers: &Pairs, body: &[u8]) -> Fault {
        read_fault(&CohereV2, status, headers, body)
    }
}

impl Cohere {
    fn authorised(&self, mut upstream: Upstream) -> Upstream {
        if let Some(name) = &self.options.client_name {
            upstream = upstream.header("x-client-name", name);
        }
        if self.has_key { upstream.secret_header("authorization", "Bearer ", KEY) } else { upstream }
    }
}

/// Where an operation is.
fn path(call: &Call) -> Result<&'static str, Fault> {
    match call.operation.as_str() {
        "chat" => Ok("/v2/chat"),
        "embeddings" => Ok("/v2/embed"),
        "rerank" => Ok("/v2/rerank"),
        _ => Err(unsupported(call)),
    }
}

fn unsupported(call: &Call) -> Fault {
    let message = format!("Cohere has no {}: name a model of a vendor that offers it", call.operation);
    Fault::new(FaultClass::Unsupported, message)
}

/// One call to the vendor.
#[derive(Debug)]
pub enum CohereExchange {
    /// A conversation, streamed or whole.
    Chat(DialectExchange<CohereV2>),
    /// Vectors or a ranking.
    Task(Operation),
}

impl Exchange for CohereExchange {
    fn frame(&mut self, frame: &Frame<'_>, events: &mut Vec<Event>) -> Result<(), Fault> {
        match self {
            Self::Chat(exchange) => exchange.frame(frame, events),
            Self::Task(_) => Ok(()),
        }
    }

    fn finish(&mut self, answer: &Answer<'_>, events: &mut Vec<Event>) -> Result<Option<Upstream>, Fault> {
        match self {
            Self::Chat(exchange) => exchange.finish(answer, events),
            Self::Task(operation) => {
                events.extend(CohereV2.decode_result(*operation, answer.body)?);
                Ok(None)
            }
        }
    }
}

penstock_sdk::adapter!(Cohere);

#[cfg(test)]
mod tests {
    use super::Cohere;

    #[test]
    fn golden_cases_pass() {
        penstock_sdk::testkit::run_cases::<Cohere>(concat!(env!("CARGO_MANIFEST_DIR"), "/cases"));
    }
}
