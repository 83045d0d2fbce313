// SPDX-License-Identifier: Apache-2.0
//! What is measured, and what is aimed at.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::load::Ask;

/// What callers show; worth nothing outside of this benchmark.
pub const CALLER_KEY: &str = "bench-key";
/// SHA-256 of [`CALLER_KEY`].
pub const CALLER_KEY_SHA256: &str = "b0962662e937d44c699c8305d90cbf190b3150c59b13863d1380b5cc3c711bb7";

/// Scenarios whose callers show a token that names a virtual key.
pub const GOVERNED: [&str; 2] = ["governed", "governed, Redis"];

/// One row of the table.
pub struct Scenario {
    /// Name.
    pub name: &'static str,
    /// What the gateway does in it.
    pub what: &'static str,
    /// What is asked of the gateway.
    pub gateway: fn(u32) -> Ask,
    /// What is asked of the baseline, and of the upstream directly.
    pub baseline: fn(u32) -> Ask,
    /// Whether the gateway shares its counters by a Redis.
    pub redis: bool,
    /// Whether CPU time is counted for each event of a stream instead of each request.
    pub streamed: bool,
    /// The most CPU time that it may take, as a multiple of the baseline's; none if nothing is promised.
    pub ratio_max: Option<f64>,
}

/// The largest addition to the median latency on one connection that is aimed at, in microseconds.
pub const ADDED_P50_US_MAX: f64 = 60.0;

/// All of them. The number that a request takes is that of the events of a stream; zero asks for a whole answer.
pub fn all() -> Vec<Scenario> {
    let mut all = whole();
    all.extend(governed());
    all.extend(streamed());
    all
}

fn direct(events: u32) -> Ask {
    chat("/v1/chat/completions", "bench-model", events)
}

fn whole() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "plain route",
            what: "a route to a service, without plugins; bodies stream",
            gateway: |events| chat("/plain/v1/chat/completions", "bench-model", events),
            baseline: direct,
            redis: false,
            streamed: false,
            ratio_max: Some(1.2),
        },
        Scenario {
            name: "relay",
            what: "an AI route with the adapter alone: body read, model resolved, usage counted",
            gateway: |events| chat("/open/chat/completions", "m", events),
            baseline: direct,
            redis: false,
            streamed: false,
            ratio_max: None,
        },
        Scenario {
            name: "full chain",
            what: "cors + api-key + token-bucket + weighted (two targets) + adapter, same dialect",
            gateway: |events| chat("/full/chat/completions", "spread", events),
            baseline: direct,
            redis: false,
            streamed: false,
            ratio_max: Some(2.0),
        },
        Scenario {
            name: "cross dialect",
            what: "the full chain for a caller of the messages dialect: request and answer are translated",
            gateway: |events| messages("/full/messages", "spread", events),
            baseline: direct,
            redis: false,
            streamed: false,
            ratio_max: None,
        },
    ]
}

fn governed() -> Vec<Scenario> {
    vec![
        Scenario {
            name: GOVERNED[0],
            what: "cors + jwt + token-bucket + budget + weighted + adapter for a token that names a virtual key with a limit, a budget, and \
                   a budget of its team: three counters beside two of the policy; budgets are kept in a journal",
            gateway: |events| chat("/governed/chat/completions", "spread", events),
            baseline: direct,
            redis: false,
            streamed: false,
            ratio_max: Some(2.2),
        },
        Scenario {
            name: GOVERNED[1],
            what: "the same with the counters in a Redis on this machine",
            gateway: |events| chat("/governed/chat/completions", "spread", events),
            baseline: direct,
            redis: true,
            streamed: false,
            ratio_max: None,
        },
    ]
}

fn streamed() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "stream",
            what: "one event through the full chain, same dialect",
            gateway: |events| chat("/full/chat/completions", "spread", events),
            baseline: direct,
            redis: false,
            streamed: true,
            ratio_max: Some(1.2),
        },
        Scenario {
            name: "stream, cross dialect",
            what: "one event, translated for a caller of the messages dialect",
            gateway: |events| messages("/full/messages", "spread", events),
            baseline: direct,
            redis: false,
            streamed: true,
            ratio_max: None,
        },
    ]
}

/// A chat completion request of about 1 KB.
fn chat(path: &'static str, model: &str, events: u32) -> Ask {
    let messages = serde_json::json!([
        {"role": "system", "content": "You are a careful assistant. Answer in one paragraph, in plain words, and say when you do not know."},
        {"role": "user", "content": question()},
    ]);
    let body = serde_json::json!({
        "model": model, "messages": messages, "temperature": 0.2, "max_tokens": events.max(1), "stream": events > 0, "user": "u-1",
    });
    Ask { path, headers: headers(), body: Bytes::from(body.to_string()) }
}

/// The same in the messages dialect.
fn messages(path: &'static str, model: &str, events: u32) -> Ask {
    let body = serde_json::json!({
        "model": model, "max_tokens": events.max(1), "temperature": 0.2, "stream": events > 0,
        "system": "You are a careful assistant. Answer in one paragraph, in plain words, and say when you do not know.",
        "messages": [{"role": "user", "content": question()}],
    });
    let mut headers = headers();
    headers.insert("anthropic-version", HeaderValue::from_static("2023-06-01"));
    Ask { path, headers, body: Bytes::from(body.to_string()) }
}

fn question() -> String {
    "Why does the sea look blue on some days and grey on others, and what has the sky to do with it? ".repeat(8)
}

/// What SDKs send.
fn headers() -> HeaderMap {
    let bearer = format!("Bearer {CALLER_KEY}");
    [
        ("accept", "application/json"),
        ("authorization", bearer.as_str()),
        ("content-type", "application/json"),
        ("origin", "https://app.example"),
        ("user-agent", "OpenAI/Python 2.0.0"),
        ("x-stainless-lang", "python"),
        ("x-stainless-os", "Linux"),
        ("x-stainless-runtime", "CPython"),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((HeaderName::from_static(name), HeaderValue::from_str(value).ok()?)))
    .collect()
}
