// SPDX-License-Identifier: Apache-2.0
//! Holds the adapter against recorded exchanges: every answer through its exchange, wherever the network cuts it, and what
//! it asks against what was asked.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "the helpers of tests fail and speak like tests"
)]

#[path = "../../../../dialects/tests/it/recordings.rs"]
mod recordings;

use ollama::Ollama;
use penstock_sdk::adapter::{Adapter, Answer, Body, Exchange as _, Framing, Plan, Upstream};
use penstock_sdk::call::{Call, Pairs};
use penstock_sdk::config::Reader;
use penstock_sdk::dialects::collect::Collector;
use penstock_sdk::dialects::conformance::{compare, compare_fault};
use penstock_sdk::dialects::framing::{Frame, Kind, Parser};
use penstock_sdk::dialects::ir::{
    Block, Content, Event, FaultClass, Format, Message, Reasoning, Request, Response, Role, Tool,
};
use serde_json::{Value, json};

use recordings::{Exchange, exchanges, matching};

fn adapter() -> Ollama {
    Ollama::new(Reader::read(&json!({})).expect("no options")).expect("an adapter")
}

fn open(operation: &str, model: &str, body: &Value) -> (<Ollama as Adapter>::Exchange, Upstream) {
    let call = Call { operation: operation.into(), model: model.into(), ..Call::default() };
    let opened = adapter().open(&call, &Pairs::default(), body.to_string().as_bytes(), &[]);
    let (exchange, Plan::Ask(upstream)) = opened.expect("a plan") else { panic!("the server is not asked") };
    (exchange, upstream)
}

/// The events of a recorded answer that comes in these pieces.
fn events(exchange: &Exchange, pieces: &[&[u8]]) -> Vec<Event> {
    let request = json!({ "messages": [{ "role": "user", "blocks": [] }], "streaming": exchange.streamed() });
    let (mut open, upstream) = open("chat", "m", &request);
    let (mut events, headers, mut whole) = (Vec::new(), Pairs::default(), pieces.concat());
    if exchange.streamed() {
        assert_eq!(upstream.framing, Framing::JsonLines);
        whole.clear();
        let mut parser = Parser::new(Kind::JsonLines, 1 << 20);
        let mut take = |frame: Frame<'_>| open.frame(&frame, &mut events).expect("frames are no faults");
        pieces.iter().for_each(|piece| parser.feed(piece, &mut take).expect("short frames"));
        parser.end(&mut take).expect("short frames");
    }
    let next = open.finish(&Answer { status: 200, headers: &headers, body: &whole }, &mut events);
    assert_eq!(next.unwrap_or_else(|fault| panic!("{}: {fault:?}", exchange.name)), None);
    events
}

fn folded(events: &[Event]) -> Response {
    let mut collector = Collector::new();
    events.iter().for_each(|event| collector.event(event));
    collector.finish()
}

#[test]
fn every_recorded_conversation_reads_as_expected() {
    let mut report = String::new();
    for exchange in exchanges("ollama-native") {
        let found = if exchange.ok() {
            compare(&folded(&events(&exchange, &[&exchange.answer])), &exchange.expected)
        } else {
            let status = u16::try_from(exchange.meta["status"].as_u64().unwrap()).unwrap();
            let fault = adapter().reject(status, &Pairs::default(), &exchange.answer);
            assert_eq!(fault.class, FaultClass::ModelNotFound, "{}", exchange.name);
            compare_fault(&fault, status, &exchange.expected)
        };
        if let Err(differences) = found {
            report.push_str(&format!("{}: {}\n", exchange.name, differences.join("; ")));
        }
    }
    assert!(report.is_empty(), "{report}");
}

#[test]
fn a_stream_means_the_same_wherever_it_is_cut() {
    /// Cuts of one stream; the streams are long, and what a cut changes does not depend on what came long before.
    const CUTS: usize = 101;
    for exchange in exchanges("ollama-native").iter().filter(|exchange| exchange.streamed()) {
        let (answer, whole) = (&exchange.answer, events(exchange, &[&exchange.answer]));
        let bytes: Vec<&[u8]> = answer.chunks(1).collect();
        assert_eq!(events(exchange, &bytes), whole, "{} byte by byte", exchange.name);
        for cut in (1..answer.len()).step_by(answer.len() / CUTS + 1) {
            assert_eq!(events(exchange, &[&answer[..cut], &answer[cut..]]), whole, "{} at {cut}", exchange.name);
        }
    }
}

/// The canonical form of a recorded request.
fn canonical(body: &Value) -> Request {
    let mut request = Request { streaming: body["stream"] == true, ..Request::default() };
    for message in body["messages"].as_array().unwrap() {
        let text = message["content"].as_str().unwrap();
        let mut blocks: Vec<Block> = (!text.is_empty()).then(|| Block::text(text)).into_iter().collect();
        let role = match message["role"].as_str().unwrap() {
            "system" => {
                request.system = blocks;
                continue;
            }
            "assistant" => Role::Assistant,
            "tool" => {
                let id = message["tool_call_id"].as_str().unwrap_or_default().to_owned();
                blocks = vec![Block::new(Content::ToolResult { id, blocks, is_error: false })];
                Role::User
            }
            _ => Role::User,
        };
        request.messages.push(Message { role, name: None, blocks });
    }
    let options = &body["options"];
    request.temperature = options["temperature"].as_f64();
    request.seed = options["seed"].as_i64();
    request.output_tokens_max = options["num_predict"].as_u64();
    request.reasoning =
        body["think"].as_bool().map(|enabled| Reasoning { enabled: Some(enabled), ..Reasoning::default() });
    request.format = body["format"].is_object().then(|| Format::Schema {
        name: None,
        description: None,
        schema: body["format"].clone(),
        strict: None,
    });
    for tool in body["tools"].as_array().into_iter().flatten() {
        let function = &tool["function"];
        request.tools.push(Tool {
            name: function["name"].as_str().unwrap().into(),
            description: function["description"].as_str().map(str::to_owned),
            parameters: function["parameters"].clone(),
            ..Tool::default()
        });
    }
    request
}

/// A request without members that say nothing, and with numbers that are equal written alike.
fn plain(mut body: Value) -> Value {
    if let Value::Object(members) = &mut body {
        let empty = [json!(null), json!(""), json!([]), json!({})];
        members.retain(|_, value| !empty.contains(value));
    }
    if let Some(temperature) = body.pointer_mut("/options/temperature") {
        *temperature = json!(temperature.as_f64());
    }
    body
}

fn written(upstream: &Upstream) -> Value {
    let Body::Bytes(body) = &upstream.body else { panic!("no body: {upstream:?}") };
    serde_json::from_slice(body).unwrap()
}

#[test]
fn conversations_are_asked_for_as_they_were() {
    let mut asked = 0;
    let recorded = exchanges("ollama-native");
    for exchange in recorded.iter().filter(|exchange| exchange.request["body"]["messages"].is_array()) {
        let body = &exchange.request["body"];
        let request = serde_json::to_value(canonical(body)).unwrap();
        let (_, upstream) = open("chat", body["model"].as_str().unwrap(), &request);
        assert!(exchange.request["url"].as_str().unwrap().ends_with(&upstream.path), "{}", exchange.name);
        assert_eq!(plain(written(&upstream)), plain(body.clone()), "{}", exchange.name);
        assert_eq!(upstream.dropped, Vec::<String>::new(), "{}", exchange.name);
        asked += 1;
    }
    assert!(recorded.is_empty() || asked >= 5, "only {asked} requests were compared");
}

#[test]
fn vectors_are_read_as_recorded() {
    let of_vectors = |meta: &Value| meta["vendor"] == "ollama" && meta["operation"] == "embeddings";
    for exchange in matching("ollama embeddings", of_vectors) {
        let body = &exchange.request["body"];
        let task = json!({ "input": [{ "text": body["input"] }], "single": true });
        let (mut open, upstream) = open("embeddings", body["model"].as_str().unwrap(), &task);
        assert!(exchange.request["url"].as_str().unwrap().ends_with(&upstream.path), "{}", exchange.name);
        assert_eq!(written(&upstream), json!({ "model": body["model"], "input": [body["input"]] }));
        let (mut events, headers) = (Vec::new(), Pairs::default());
        open.finish(&Answer { status: 200, headers: &headers, body: &exchange.answer }, &mut events).unwrap();
        let answer: Value = serde_json::from_slice(&exchange.answer).unwrap();
        let response = folded(&events);
        let found: Vec<Value> = response
            .other
            .iter()
            .map(|(_, json)| serde_json::from_str::<Value>(json).unwrap()["values"].take())
            .collect();
        assert_eq!(Value::from(found), answer["embeddings"], "{}", exchange.name);
        assert_eq!(response.usage.map(|usage| usage.input), answer["prompt_eval_count"].as_u64());
    }
}
