// SPDX-License-Identifier: Apache-2.0
//! Speaks the own API of DashScope (Alibaba Cloud Model Studio: Qwen, Wanx). What its OpenAI-compatible mode cannot do is
//! here: pictures and films, which are jobs, rankings, vectors of pictures. README.md says what is mapped.

mod exchange;

use penstock_sdk::dialect::read_request;
use penstock_sdk::dialects::codec::Operation;
use penstock_sdk::dialects::dashscope_native::{
    Asked, Style, decode_fault, encode_request, encode_task, holds_media, wants_thoughts,
};
use penstock_sdk::dialects::estimate::input_tokens;
use penstock_sdk::dialects::ir::Request;
use penstock_sdk::dialects::task::Task;
use penstock_sdk::passthrough::passthrough;
use penstock_sdk::pattern::fits_any;
use penstock_sdk::prelude::{
    Adapter, Blob, Body, Call, Config, Event, Fault, FaultClass, Framing, Issue, Pairs, Plan, Secret, Upstream, Usage,
    Wants,
};

pub use exchange::DashScopeExchange;
use exchange::{ARRIVED, Job, Pace};

/// The secret that holds the vendor's key.
const KEY: &str = "key";
/// Asks for a stream.
const SSE: &str = "x-dashscope-sse";
/// Asks for a job.
const ASYNC: &str = "x-dashscope-async";

/// What a caller of the vendor's own API may say in headers.
const OWN_HEADERS: [&str; 6] =
    ["accept", SSE, ASYNC, "x-dashscope-datainspection", "x-dashscope-ossresourceresolve", "x-dashscope-workspace"];

/// The vendor's ways.
#[derive(Debug, Config)]
pub struct Options {
    /// Patterns of models that only the multimodal service has, whether they are shown something or not.
    #[config(default = patterns(&["*-vl*", "*omni*", "qwen*-audio*", "qvq*", "gui-*"]))]
    multimodal: Vec<String>,
    /// Patterns of models that answer in streams only: they are asked for one, whatever the caller wants.
    #[config(default = patterns(&["qwq*", "qvq*", "*-thinking*", "*omni*"]))]
    stream_only: Vec<String>,
    /// Whether `cache_control` marks are passed on.
    #[config(default = false)]
    cache_marks: bool,
    /// Milliseconds before a job is asked about for the first time.
    #[config(default = 1000, min = 1)]
    poll_first_ms: u32,
    /// Milliseconds at most between two questions about a job.
    #[config(default = 5000, min = 1)]
    poll_max_ms: u32,
}

fn patterns(patterns: &[&str]) -> Vec<String> {
    patterns.iter().map(|pattern| (*pattern).to_owned()).collect()
}

/// The adapter.
#[derive(Debug)]
pub struct DashScope {
    options: Options,
    has_key: bool,
}

impl Adapter for DashScope {
    type Config = Options;
    type Exchange = DashScopeExchange;

    const OPERATIONS: &'static [&'static str] =
        &["chat", "count_tokens", "embeddings", "rerank", "images", "image_edits", "videos", "passthrough"];
    const FEATURES: &'static [&'static str] =
        &["streaming", "tools", "reasoning", "image-input", "audio-input", "json", "caching"];
    const SECRETS: &'static [&'static str] = &[KEY];

    fn new(options: Options) -> Result<Self, Vec<Issue>> {
        if options.poll_first_ms > options.poll_max_ms {
            return Err(vec![Issue::new("poll_first_ms", "must not be more than poll_max_ms")]);
        }
        Ok(Self { options, has_key: Secret::open(KEY).is_some() })
    }

    fn wants(&self) -> Wants {
        Wants::nothing().headers(OWN_HEADERS).response_headers(["retry-after", "retry-after-ms", ARRIVED])
    }

    fn relay(&self, call: &Call, headers: &Pairs, _: &Pairs) -> Result<Upstream, Fault> {
        if call.operation != "passthrough" {
            return Err(unsupported(call));
        }
        let upstream = passthrough(call)?;
        let stated = headers.iter().filter(|(name, _)| OWN_HEADERS.contains(name));
        Ok(keyed(stated.fold(upstream, |upstream, (name, value)| upstream.header(name, value)), self.has_key))
    }

    fn open(&self, call: &Call, _: &Pairs, body: &[u8], _: &[Blob]) -> Result<(DashScopeExchange, Plan), Fault> {
        match Operation::from_name(&call.operation) {
            Some(Operation::Chat) => Ok(self.chat(&read_request(call, body)?)),
            Some(Operation::CountTokens) => {
                // The vendor's counter knows a few models only; an estimate at once serves all.
                let input = input_tokens(&read_request(call, body)?);
                let plan = Plan::Answer(vec![Event::Usage(Usage { input, ..Usage::default() })]);
                Ok((DashScopeExchange::chat(), plan))
            }
            Some(operation) if operation.is_canonical() => self.task(operation, call, body),
            _ => Err(unsupported(call)),
        }
    }

    fn reject(&self, status: u16, headers: &Pairs, body: &[u8]) -> Fault {
        decode_fault(status, &|name| headers.get(name), body)
    }
}

impl DashScope {
    fn chat(&self, request: &Request) -> (DashScopeExchange, Plan) {
        let Options { multimodal, stream_only, cache_marks, .. } = &self.options;
        // Models think in streams only. The host makes one answer of a stream that the caller did not want.
        let thinks = wants_thoughts(request) == Some(true);
        let streaming = request.streaming || thinks || fits_any(stream_only, &request.model);
        let multimodal = holds_media(request) || fits_any(multimodal, &request.model);
        let asked = encode_request(request, Style { multimodal, streaming, cache_marks: *cache_marks });
        let upstream = self.post(asked).framing(Framing::sse_if(streaming));
        let upstream = if streaming { upstream.header(SSE, "enable") } else { upstream };
        (DashScopeExchange::chat(), Plan::Ask(upstream))
    }

    fn task(&self, operation: Operation, call: &Call, body: &[u8]) -> Result<(DashScopeExchange, Plan), Fault> {
        let unreadable = |why| Fault::new(FaultClass::InvalidRequest, format!("the request cannot be read: {why}"));
        let mut task = Task::from_json(operation, body).map_err(unreadable)?;
        task.model_mut().clone_from(&call.model);
        let upstream = self.post(encode_task(operation, &task)?);
        if matches!(operation, Operation::Embeddings | Operation::Rerank) {
            return Ok((DashScopeExchange::result(operation), Plan::Ask(upstream)));
        }
        let pace = Pace { first_ms: self.options.poll_first_ms, max_ms: self.options.poll_max_ms };
        let exchange = DashScopeExchange::job(Job::new(operation, pace, self.has_key));
        Ok((exchange, Plan::Ask(upstream.header(ASYNC, "enable"))))
    }

    fn post(&self, asked: Asked) -> Upstream {
        let upstream = Upstream::post(asked.path).body(Body::Bytes(asked.body)).dropped(asked.dropped);
        keyed(upstream, self.has_key)
    }
}

/// Adds the key, if there is one.
fn keyed(upstream: Upstream, has_key: bool) -> Upstream {
    if has_key { upstream.secret_header("authorization", "Bearer ", KEY) } else { upstream }
}

fn unsupported(call: &Call) -> Fault {
    let message = format!("DashScope's own API has no {}: name a model of a vendor that offers it", call.operation);
    Fault::new(FaultClass::Unsupported, message)
}

penstock_sdk::adapter!(DashScope);

#[cfg(test)]
mod tests {
    use super::DashScope;

    #[test]
    fn golden_cases_pass() {
        penstock_sdk::testkit::run_cases::<DashScope>(concat!(env!("CARGO_MANIFEST_DIR"), "/cases"));
    }
}
