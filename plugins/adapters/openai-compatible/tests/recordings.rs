// SPDX-License-Identifier: Apache-2.0
//! Holds the vendors of the policies against what they were recorded to answer: each with its own configuration.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "the helpers of tests fail and speak like tests"
)]

#[path = "../../../../dialects/tests/it/recordings.rs"]
#[allow(dead_code, reason = "shared with tests that look at more")]
mod recordings;

use std::path::Path;

use openai_compatible::OpenAiCompatible;
use penstock_sdk::adapter::Adapter;
use penstock_sdk::call::{Call, Pairs};
use penstock_sdk::config::Reader;
use penstock_sdk::dialects::collect::Collector;
use penstock_sdk::dialects::conformance::compare;
use penstock_sdk::dialects::framing::{Frame, Kind, Parser};
use penstock_sdk::dialects::ir::{FaultClass, Response};
use serde_json::{Value, json};

use recordings::{Exchange, exchanges, matching};

/// Words of an error, and the class that they show.
const CLASSES: &[(&str, FaultClass)] = &[
    ("DeploymentNotFound", FaultClass::ModelNotFound),
    ("RateLimitReached", FaultClass::RateLimit),
    ("supported API model names", FaultClass::ModelNotFound),
    ("Failed to deserialize", FaultClass::InvalidRequest),
    ("model_not_found", FaultClass::ModelNotFound),
    ("tool_use_failed", FaultClass::InvalidRequest),
    ("must be number", FaultClass::InvalidRequest),
    ("does not support reranking", FaultClass::Unsupported),
    ("does not support audio input", FaultClass::Unsupported),
    ("Cannot use both", FaultClass::InvalidRequest),
    ("Too many inputs", FaultClass::InvalidRequest),
    ("invalid_model", FaultClass::ModelNotFound),
    ("Logprobs are not enabled", FaultClass::InvalidRequest),
    ("not supported in the v1/completions", FaultClass::Unsupported),
    ("Invalid image data", FaultClass::InvalidRequest),
    ("integer_below_min_value", FaultClass::InvalidRequest),
    ("without its required following item", FaultClass::InvalidRequest),
    ("You are not allowed to", FaultClass::Permission),
    ("does not exist or you do not", FaultClass::ModelNotFound),
    ("empty_array", FaultClass::InvalidRequest),
    ("is less than the minimum", FaultClass::InvalidRequest),
    ("Content blocks are expected", FaultClass::InvalidRequest),
    ("exceeds the context window", FaultClass::ContextTooLong),
    ("temporarily rate-limited", FaultClass::RateLimit),
    ("maximum context length", FaultClass::ContextTooLong),
    ("too_many_prompt_tokens", FaultClass::ContextTooLong),
    ("Supported models are", FaultClass::ModelNotFound),
    ("Model not found", FaultClass::ModelNotFound),
];

/// The adapter of the vendor that a recording is of, with the configuration of the policies.
fn vendor(exchange: &Exchange) -> Option<OpenAiCompatible> {
    let recorded = exchange.name.split('/').next()?;
    let name = if recorded == "vllm-gpustack" { "vllm" } else { recorded };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../policies/vendors");
    let text = std::fs::read_to_string(folder.join(format!("{name}.toml"))).ok()?;
    let policy: Value = toml::from_str(&text).unwrap();
    let vendor = policy["vendors"].get(name)?;
    if vendor["adapter"] != "openai-compatible" {
        return None;
    }
    let config = vendor.get("config").cloned().unwrap_or_else(|| json!({}));
    Some(Reader::read(&config).and_then(OpenAiCompatible::new).unwrap())
}

fn read(adapter: &OpenAiCompatible, exchange: &Exchange) -> Response {
    let call = Call { operation: "chat".into(), streaming: exchange.streamed(), ..Call::default() };
    let request = json!({ "messages": [{ "role": "user", "blocks": [] }], "streaming": call.streaming });
    let (mut open, _) = adapter.open(&call, &Pairs::default(), request.to_string().as_bytes(), &[]).unwrap();
    let (mut events, mut body) = (Vec::new(), exchange.answer.as_slice());
    if exchange.streamed() {
        body = b"";
        let mut parser = Parser::new(Kind::Sse, 1 << 24);
        let mut take = |frame: Frame<'_>| open.frame(&frame, &mut events);
        parser.feed(&exchange.answer, &mut take).unwrap();
        parser.end(&mut take).unwrap();
    }
    open.finish(body, &mut events).unwrap();
    let mut collector = Collector::new();
    events.iter().for_each(|event| collector.event(event));
    collector.finish()
}

/// A recording that ends before `[DONE]`, so that it counts as cut.
const CUT: &str = "vllm-gpustack/chat-stream-thinking-340f43";

#[test]
fn what_vendors_answered_is_read_with_their_ways() {
    let mut count = 0;
    for exchange in exchanges("openai-chat").iter().filter(|exchange| exchange.ok() && exchange.name != CUT) {
        let Some(adapter) = vendor(exchange) else { continue };
        let found = compare(&read(&adapter, exchange), &exchange.expected);
        assert_eq!(found, Ok(()), "{}", exchange.name);
        count += 1;
    }
    eprintln!("{count} recorded answers of chat");
}

#[test]
fn a_recorded_error_has_the_class_that_its_bytes_show() {
    let own = ["dashscope-native", "ollama-native"];
    let failed = |meta: &Value| {
        let refused = meta["status"].as_u64().is_some_and(|status| status >= 400);
        refused && !own.contains(&meta["protocol"].as_str().unwrap_or_default())
    };
    let mut count = 0;
    for exchange in matching("errors", failed) {
        let Some(adapter) = vendor(&exchange) else { continue };
        let status = exchange.meta["status"].as_u64().and_then(|status| u16::try_from(status).ok()).unwrap();
        let text = String::from_utf8_lossy(&exchange.answer);
        let shown = CLASSES.iter().find(|(words, _)| text.contains(words)).map(|(_, class)| *class);
        let expected = if status == 401 { Some(FaultClass::Authentication) } else { shown };
        let native = text.contains("\"request_id\"") && exchange.name.starts_with("dashscope/rerank");
        if native {
            continue;
        }
        let fault = adapter.reject(status, &Pairs::default(), &exchange.answer);
        assert_eq!(Some(fault.class), expected, "{}: {text}", exchange.name);
        count += 1;
    }
    eprintln!("{count} recorded errors");
}
