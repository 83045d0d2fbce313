// SPDX-License-Identifier: Apache-2.0
//! Holds the adapter against recorded exchanges of the vendor: every answer through its exchange, wherever the network
//! cuts it, and what it asks against what was asked.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "the helpers of tests fail and speak like tests"
)]

#[path = "../../../../dialects/tests/it/recordings.rs"]
mod recordings;

use dashscope::DashScope;
use penstock_sdk::adapter::{Adapter, Answer, Body, Exchange as _, Framing, PlacedValue, Plan, Upstream};
use penstock_sdk::call::{Call, Pairs};
use penstock_sdk::config::Reader;
use penstock_sdk::dialects::collect::Collector;
use penstock_sdk::dialects::conformance::{compare, compare_fault};
use penstock_sdk::dialects::framing::{Frame, Kind, Parser};
use penstock_sdk::dialects::ir::{
    Block, Content, Event, FaultClass, Message, Request, Response, Role, Source, Tool, ToolChoice,
};
use serde_json::{Value, json};

use recordings::{Exchange, exchanges, matching};

fn adapter() -> DashScope {
    DashScope::new(Reader::read(&json!({})).expect("no options")).expect("an adapter")
}

fn call(operation: &str, model: &str, streaming: bool) -> Call {
    Call { operation: operation.into(), model: model.into(), streaming, ..Call::default() }
}

fn open(operation: &str, model: &str, body: &Value) -> (<DashScope as Adapter>::Exchange, Upstream) {
    let call = call(operation, model, body["streaming"] == true);
    let opened = adapter().open(&call, &Pairs::default(), body.to_string().as_bytes(), &[]);
    let (exchange, Plan::Ask(upstream)) = opened.expect("a plan") else { panic!("the vendor is not asked") };
    (exchange, upstream)
}

/// The events of a recorded answer that comes in these pieces.
fn events(exchange: &Exchange, pieces: &[&[u8]]) -> Vec<Event> {
    let request = json!({ "messages": [{ "role": "user", "blocks": [] }], "streaming": exchange.streamed() });
    let (mut open, upstream) = open("chat", "qwen-max", &request);
    let (mut events, headers, mut whole) = (Vec::new(), Pairs::default(), pieces.concat());
    if exchange.streamed() {
        assert_eq!(upstream.framing, Framing::Sse);
        whole.clear();
        let mut parser = Parser::new(Kind::Sse, 1 << 20);
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
    for exchange in exchanges("dashscope-native") {
        let found = if exchange.ok() {
            compare(&folded(&events(&exchange, &[&exchange.answer])), &exchange.expected)
        } else {
            let status = u16::try_from(exchange.meta["status"].as_u64().unwrap()).unwrap();
            compare_fault(&adapter().reject(status, &Pairs::default(), &exchange.answer), status, &exchange.expected)
        };
        if let Err(differences) = found {
            report.push_str(&format!("{}: {}\n", exchange.name, differences.join("; ")));
        }
    }
    assert!(report.is_empty(), "{report}");
}

#[test]
fn a_stream_means_the_same_wherever_it_is_cut() {
    for exchange in exchanges("dashscope-native").iter().filter(|exchange| exchange.streamed()) {
        let (answer, whole) = (&exchange.answer, events(exchange, &[&exchange.answer]));
        let bytes: Vec<&[u8]> = answer.chunks(1).collect();
        assert_eq!(events(exchange, &bytes), whole, "{} byte by byte", exchange.name);
        for cut in 1..answer.len() {
            assert_eq!(events(exchange, &[&answer[..cut], &answer[cut..]]), whole, "{} at {cut}", exchange.name);
        }
    }
}

/// The canonical form of a recorded request.
fn canonical(body: &Value) -> Request {
    let text = |text: &Value| -> Vec<Block> {
        match text {
            Value::String(text) => vec![Block::text(text)],
            Value::Array(parts) => parts.iter().filter_map(|part| Some(Block::text(part["text"].as_str()?))).collect(),
            _ => Vec::new(),
        }
    };
    let mut request = Request { model: body["model"].as_str().unwrap().into(), ..Request::default() };
    for message in body["input"]["messages"].as_array().unwrap() {
        let mut blocks = text(&message["content"]);
        for call in message["tool_calls"].as_array().into_iter().flatten() {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            let (name, input) = (text(&call["function"]["name"]), text(&call["function"]["arguments"]));
            blocks.push(Block::new(Content::ToolUse { id: text(&call["id"]), name, input }));
        }
        let role = match message["role"].as_str().unwrap() {
            "system" => {
                request.system = blocks;
                continue;
            }
            "assistant" => Role::Assistant,
            "tool" => {
                let id = message["tool_call_id"].as_str().or(message["id"].as_str()).unwrap().to_owned();
                blocks = vec![Block::new(Content::ToolResult { id, blocks, is_error: false })];
                Role::User
            }
            _ => Role::User,
        };
        request.messages.push(Message { role, name: None, blocks });
    }
    let parameters = &body["parameters"];
    request.streaming = parameters["incremental_output"] == true;
    request.seed = parameters["seed"].as_i64();
    request.tool_choice = (parameters["tool_choice"] == "auto").then_some(ToolChoice::Auto);
    for tool in parameters["tools"].as_array().into_iter().flatten() {
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

/// A request without what its recorder said more than is needed.
fn plain(mut body: Value) -> Value {
    for message in body["input"]["messages"].as_array_mut().into_iter().flatten() {
        // An older SDK names results by `id`, and repeats their tools' names.
        if let Value::Object(message) = message {
            let id = message.remove("id");
            message.remove("name");
            message.remove("extra");
            if message["role"] == "tool" {
                message.entry("tool_call_id").or_insert(id.unwrap_or_default());
            }
            if message.get("content").is_none_or(|content| *content == json!([])) {
                message.insert("content".into(), "".into());
            }
        }
    }
    if let Value::Object(parameters) = &mut body["parameters"] {
        parameters.remove("stream");
        parameters.entry("result_format").or_insert("message".into());
        parameters.retain(|name, value| name != "incremental_output" || *value == true);
    }
    body
}

fn written(upstream: &Upstream) -> Value {
    let Body::Bytes(body) = &upstream.body else { panic!("no body: {upstream:?}") };
    serde_json::from_slice(body).unwrap()
}

fn header<'u>(upstream: &'u Upstream, name: &str) -> Option<&'u str> {
    let placed = upstream.headers.iter().find(|placed| placed.name == name)?;
    if let PlacedValue::Text(text) = &placed.value { Some(text) } else { None }
}

fn assert_asks_as_recorded(exchange: &Exchange, upstream: &Upstream, written: &Value, recorded: &Value) {
    let url = exchange.request["url"].as_str().unwrap();
    assert_eq!(Some(upstream.path.as_str()), url.split_once("/api/v1").map(|(_, path)| path), "{}", exchange.name);
    for name in ["x-dashscope-sse", "x-dashscope-async"] {
        assert_eq!(header(upstream, name), exchange.request["headers"][name].as_str(), "{} {name}", exchange.name);
    }
    assert_eq!(written, recorded, "{}", exchange.name);
    assert_eq!(upstream.dropped, Vec::<String>::new(), "{}", exchange.name);
}

#[test]
fn conversations_are_asked_for_as_they_were() {
    let mut asked = 0;
    let recorded = exchanges("dashscope-native");
    for exchange in &recorded {
        let body = &exchange.request["body"];
        // Text that is no conversation, and one that was asked of the multimodal service without need.
        let is_chat = body["input"]["messages"].is_array() && !exchange.name.contains("multimodal");
        if is_chat && exchange.ok() {
            let request = serde_json::to_value(canonical(body)).unwrap();
            let (_, upstream) = open("chat", body["model"].as_str().unwrap(), &request);
            assert_asks_as_recorded(exchange, &upstream, &plain(written(&upstream)), &plain(body.clone()));
            asked += 1;
        }
    }
    assert!(recorded.is_empty() || asked >= 10, "only {asked} requests were compared");
}

#[test]
fn a_picture_in_the_request_goes_to_the_multimodal_service() {
    let shown = Content::Media {
        kind: "image".into(),
        source: Source::Base64 { media_type: "image/png".into(), data: "MARKER".into() },
        title: None,
        detail: None,
    };
    let message = Message { role: Role::User, name: None, blocks: vec![Block::new(shown), Block::text("What is it?")] };
    let request = Request { messages: vec![message], ..Request::default() };
    let (_, upstream) = open("chat", "qwen-any", &serde_json::to_value(request).unwrap());
    assert_eq!(upstream.path, "/services/aigc/multimodal-generation/generation");
    let content = json!([{ "image": "data:image/png;base64,MARKER" }, { "text": "What is it?" }]);
    assert_eq!(written(&upstream)["input"]["messages"], json!([{ "role": "user", "content": content }]));
}

/// The rankings that were recorded in the vendor's own format.
fn rankings() -> Vec<Exchange> {
    matching("dashscope rerank", |meta| meta["vendor"] == "dashscope" && meta["operation"] == "rerank")
}

#[test]
fn rankings_are_asked_for_and_read_as_recorded() {
    for exchange in rankings() {
        let (body, parameters) = (&exchange.request["body"], &exchange.request["body"]["parameters"]);
        let mut task = json!({ "query": body["input"]["query"], "documents": body["input"]["documents"] });
        for name in ["top_n", "return_documents"].into_iter().filter(|name| !parameters[*name].is_null()) {
            task[name] = parameters[name].clone();
        }
        let (mut open, upstream) = open("rerank", body["model"].as_str().unwrap(), &task);
        assert_asks_as_recorded(&exchange, &upstream, &written(&upstream), body);
        if !exchange.ok() {
            let fault = adapter().reject(400, &Pairs::default(), &exchange.answer);
            assert_eq!(fault.class, FaultClass::ModelNotFound);
            assert_eq!(compare_fault(&fault, 400, &exchange.expected), Ok(()));
            continue;
        }
        let (mut events, headers) = (Vec::new(), Pairs::default());
        open.finish(&Answer { status: 200, headers: &headers, body: &exchange.answer }, &mut events).unwrap();
        let answer: Value = serde_json::from_slice(&exchange.answer).unwrap();
        let mut expected = answer["output"]["results"].clone();
        for result in expected.as_array_mut().unwrap() {
            result["score"] = result.as_object_mut().unwrap().remove("relevance_score").unwrap();
        }
        let response = folded(&events);
        let found: Vec<Value> = response.other.iter().map(|(_, json)| serde_json::from_str(json).unwrap()).collect();
        assert_eq!(Value::from(found), expected, "{}", exchange.name);
        assert_eq!(response.usage.map(|usage| usage.input), answer["usage"]["total_tokens"].as_u64());
    }
}

/// The jobs, each with the answers about it: the folders `step-01`, `step-02` … of one case.
fn jobs() -> Vec<Vec<Exchange>> {
    let of_a_job = |meta: &Value| {
        let operation = meta["operation"].as_str().unwrap_or_default();
        meta["vendor"] == "dashscope" && matches!(operation, "image-async" | "video-async" | "task-poll")
    };
    let mut jobs: Vec<Vec<Exchange>> = Vec::new();
    for exchange in matching("dashscope jobs", of_a_job) {
        match jobs.last_mut() {
            Some(job) if exchange.meta["operation"] == "task-poll" => job.push(exchange),
            _ => jobs.push(vec![exchange]),
        }
    }
    jobs
}

/// Answers of the vendor are handed to a newly opened exchange, in this order; what it says to the last one.
fn walked(operation: &str, task: &Value, answers: &[&Exchange]) -> (Vec<Event>, Option<Upstream>, Option<Upstream>) {
    let (mut open, _) = open(operation, "m", task);
    let (mut events, mut next) = (Vec::new(), None);
    for answer in answers {
        let recorded = answer.meta["response_headers"].as_object().unwrap().iter();
        let headers: Pairs = recorded.map(|(name, value)| (name.as_str(), value.as_str().unwrap())).collect();
        let answer = Answer { status: 200, headers: &headers, body: &answer.answer };
        next = open.finish(&answer, &mut events).expect("no fault");
    }
    (events, next, open.cancel())
}

#[test]
fn jobs_are_submitted_followed_and_read_as_recorded() {
    for job in jobs() {
        let (submission, body) = (&job[0], &job[0].request["body"]);
        let operation = if submission.meta["operation"] == "video-async" { "videos" } else { "images" };
        let task = json!({ "prompt": body["input"]["prompt"] });
        let (_, upstream) = open(operation, body["model"].as_str().unwrap(), &task);
        let mut recorded = body.clone();
        for name in ["extend_prompt", "function"] {
            // What the vendor's SDK adds to each film.
            recorded["input"].as_object_mut().unwrap().remove(name);
        }
        assert_asks_as_recorded(submission, &upstream, &written(&upstream), &recorded);
        let (mut waits, mut walk) = (Vec::new(), Vec::new());
        for (step, answer) in job.iter().enumerate() {
            walk.push(answer);
            let (events, next, cancel) = walked(operation, &task, &walk);
            assert_eq!(
                (&events, &next),
                (&walked(operation, &task, &[answer]).0, &walked(operation, &task, &[answer]).1),
                "{}: what is done with an answer depends on those before it",
                answer.name
            );
            let status = &answer.expected["task"]["task_status"];
            if status == "SUCCEEDED" {
                assert_done(answer, &events);
                assert_eq!((next, cancel), (None, None), "{}", answer.name);
                continue;
            }
            let id = answer.expected["task"]["task_id"].as_str().unwrap();
            let (next, cancel) = (next.expect("another question"), cancel.expect("a way to cancel"));
            assert_eq!((next.method.as_str(), next.path), ("GET", format!("/tasks/{id}")));
            assert_eq!((cancel.method.as_str(), cancel.path), ("POST", format!("/tasks/{id}/cancel")));
            assert_eq!(events, []);
            waits.push(next.after_ms);
            let asked = job.get(step + 1).map(|next| next.request["url"].as_str().unwrap().to_owned());
            assert!(asked.is_none_or(|url| url.ends_with(&format!("/api/v1/tasks/{id}"))), "{}", answer.name);
        }
        assert_eq!(waits[0], 1000);
        assert!(waits.is_sorted() && waits.iter().all(|wait| *wait <= 5000), "{waits:?}");
    }
}

/// The pictures or the film of a job that is done, its usage, its end.
fn assert_done(answer: &Exchange, events: &[Event]) {
    let body: Value = serde_json::from_slice(&answer.answer).unwrap();
    let response = folded(events);
    let results = response.other.iter().map(|(_, json)| serde_json::from_str::<Value>(json).unwrap()["url"].take());
    let expected: Vec<Value> = match &body["output"]["video_url"] {
        Value::Null => body["output"]["results"].as_array().unwrap().iter().map(|r| r["url"].clone()).collect(),
        url => vec![url.clone()],
    };
    assert_eq!(results.collect::<Vec<_>>(), expected, "{}", answer.name);
    assert_eq!(json!(expected.len()), answer.expected["task"]["results"], "{}", answer.name);
    let usage = response.usage.expect("usage");
    let counted = body["usage"]["image_count"].as_u64().or(body["usage"]["video_duration"].as_u64()).unwrap();
    assert_eq!(usage.more.iter().map(|(_, count)| *count).collect::<Vec<_>>(), [counted], "{}", answer.name);
    assert_eq!(response.finish.map(|finish| finish.reason), Some("stop".to_owned()));
}
