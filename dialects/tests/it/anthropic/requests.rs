// SPDX-License-Identifier: Apache-2.0
//! Requests of callers, and requests to vendors.

use serde_json::{Value, json};

use penstock_dialects::anthropic_messages::{NAME, encode_count_request};
use penstock_dialects::codec::Codec;
use penstock_dialects::ir::{Block, Content, Format, Message, Reasoning, Request, Role, Source, Tool, ToolChoice};

use super::CODEC;
use crate::recordings::exchanges;

fn written(request: &Request) -> (Value, Vec<String>) {
    let (body, dropped) = CODEC.encode_request(request);
    (serde_json::from_slice(&body).expect("JSON"), dropped)
}

fn read(body: &Value) -> Request {
    CODEC.decode_request(body.to_string().as_bytes()).unwrap_or_else(|fault| panic!("{}: {body}", fault.message))
}

fn user(blocks: Vec<Block>) -> Message {
    Message { role: Role::User, name: None, blocks }
}

fn assistant(blocks: Vec<Block>) -> Message {
    Message { role: Role::Assistant, name: None, blocks }
}

fn asks(model: &str) -> Request {
    Request { model: model.into(), messages: vec![user(vec![Block::text("hi")])], ..Request::default() }
}

fn call(id: &str, input: &str) -> Block {
    Block::new(Content::ToolUse { id: id.into(), name: "f".into(), input: input.into() })
}

fn result(id: &str, text: &str) -> Block {
    Block::new(Content::ToolResult { id: id.into(), blocks: vec![Block::text(text)], is_error: false })
}

fn thought(text: &str, signature: Option<&str>) -> Block {
    Block::new(Content::Reasoning { text: text.into(), signature: signature.map(str::to_owned) })
}

/// The same request in one spelling: texts as blocks, turns merged, defaults left out.
fn in_one_spelling(mut body: Value) -> Value {
    let as_blocks = |content: &mut Value| {
        if content.is_string() {
            *content = json!([{"type": "text", "text": content.take()}]);
        }
    };
    let members = body.as_object_mut().expect("an object");
    members.retain(|name, value| !(value.is_null() || name == "stream" && *value == json!(false)));
    if let Some(system) = members.get_mut("system") {
        as_blocks(system);
    }
    if let Some(Value::Object(choice)) = members.get_mut("tool_choice") {
        choice.retain(|_, value| *value != json!(false));
    }
    let mut merged: Vec<Value> = Vec::new();
    for mut message in members["messages"].as_array().expect("messages").clone() {
        as_blocks(&mut message["content"]);
        for block in message["content"].as_array_mut().expect("blocks") {
            if block["type"] == "tool_result" {
                as_blocks(&mut block["content"]);
            }
        }
        match merged.last_mut() {
            Some(last) if last["role"] == message["role"] => {
                let more = message["content"].as_array().expect("blocks").clone();
                last["content"].as_array_mut().expect("blocks").extend(more);
            }
            _ => merged.push(message),
        }
    }
    members["messages"] = Value::Array(merged);
    body
}

#[test]
fn every_recorded_request_survives_being_read_and_written_again() {
    for mut recorded in exchanges("anthropic-messages") {
        let mut body = recorded.request["body"].take();
        if !body.is_object() {
            continue;
        }
        if body["model"].is_null() {
            body["model"] = json!("claude-sonnet-4-5"); // Vertex states it in the path
        }
        let request = read(&body);
        let crossed: Request =
            serde_json::from_str(&serde_json::to_string(&request).expect("JSON")).expect("a request");
        assert_eq!(crossed, request, "{}: across the contract", recorded.name);
        let (again, dropped) = written(&crossed);
        assert_eq!(dropped, Vec::<String>::new(), "{}", recorded.name);
        assert_eq!(in_one_spelling(again), in_one_spelling(body), "{}", recorded.name);
    }
}

#[test]
fn every_member_of_a_request_survives_being_read_and_written_again() {
    let body = json!({
        "model": "claude-opus-4-6", "max_tokens": 9000, "stream": true, "temperature": 1.0, "stop_sequences": ["END"],
        "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
        "messages": [
            {"role": "user", "content": [
                {"type": "text", "text": "Look."},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
                {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
                {"type": "image", "source": {"type": "file", "file_id": "file_1"}},
                {"type": "document", "title": "T", "context": "C", "citations": {"enabled": true},
                 "source": {"type": "text", "media_type": "text/plain", "data": "words"}},
                {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "piece"}]}},
                {"type": "search_result", "source": "s", "title": "t", "content": [{"type": "text", "text": "x"}]},
                {"type": "from_the_future", "x": 1, "cache_control": {"type": "ephemeral"}}
            ]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s1=="},
                {"type": "redacted_thinking", "data": "r1=="},
                {"type": "text", "text": "I see", "citations": [{"type": "char_location", "cited_text": "w"}]},
                {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "q"}},
                {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []},
                {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": [1, {"b": null}]}, "caller": {"type": "direct"}}
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "is_error": true, "content": [
                    {"type": "text", "text": "no"}, {"type": "image", "source": {"type": "url", "url": "https://e.com/b"}}
                ], "cache_control": {"type": "ephemeral"}}
            ]}
        ],
        "tools": [
            {"name": "f", "description": "d", "input_schema": {"type": "object"}, "strict": true, "defer_loading": true,
             "cache_control": {"type": "ephemeral"}},
            {"type": "web_search_20250305", "name": "web_search", "max_uses": 2}
        ],
        "tool_choice": {"type": "auto", "disable_parallel_tool_use": true},
        "metadata": {"user_id": "u", "more": 1},
        "thinking": {"type": "adaptive", "display": "omitted"},
        "output_config": {"effort": "max", "format": {"type": "json_schema", "schema": {"type": "object"}}, "x": 1},
        "mcp_servers": [{"type": "url", "url": "https://m"}], "container": "c", "service_tier": "auto"
    });
    let request = read(&body);
    assert_eq!(request.reasoning.as_ref().and_then(|reasoning| reasoning.effort.as_deref()), Some("max"));
    assert_eq!(request.parallel_tools, Some(false));
    assert!(matches!(&request.messages[0].blocks[5].content,
        Content::Media { source: Source::Text { text }, .. } if text == "piece"));
    let (again, dropped) = written(&request);
    assert_eq!(dropped, Vec::<String>::new());
    assert_eq!(in_one_spelling(again), in_one_spelling(body));
}

#[test]
fn a_wrong_request_is_told_where_it_is_wrong() {
    let with = |name: &str, value: Value| {
        let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
        body[name] = value;
        body
    };
    let block = |block: Value| with("messages", json!([{"role": "user", "content": [block]}]));
    let cases = [
        (json!([]), "the body must be a JSON object"),
        (json!({"messages": [{"role": "user", "content": "hi"}]}), "model: is required"),
        (with("messages", json!([])), "messages: must not be empty"),
        (with("messages", json!([{"role": "tool", "content": ""}])), "messages[0].role: must be \"user\""),
        (with("messages", json!([{"role": "user"}])), "messages[0].content: is required"),
        (with("messages", json!([{"role": "user", "content": 1}])), "messages[0].content: must be a string or a list"),
        (block(json!({"text": "x"})), "messages[0].content[0].type: is required"),
        (block(json!({"type": "text"})), "messages[0].content[0].text: is required"),
        (block(json!({"type": "image"})), "messages[0].content[0].source: is required"),
        (block(json!({"type": "image", "source": {"type": "x"}})), "messages[0].content[0].source.type: \"x\" is not"),
        (
            block(json!({"type": "tool_result", "tool_use_id": "i", "content": [{"type": "text", "text": 1}]})),
            "messages[0].content[0].content[0].text: must be a string",
        ),
        (with("max_tokens", json!("many")), "max_tokens: must be a whole number"),
        (with("tools", json!([{"name": "f"}])), "tools[0].input_schema: is required"),
        (with("tool_choice", json!({"type": "tool"})), "tool_choice.name: is required"),
        (with("thinking", json!({"type": "enabled"})), "thinking.budget_tokens: is required"),
        (with("system", json!([{"type": "text"}])), "system[0].text: is required"),
        (with("output_config", json!({"format": {"type": "x"}})), "output_config.format.type: must be \"json_schema\""),
    ];
    for (body, message) in cases {
        let fault = CODEC.decode_request(body.to_string().as_bytes()).expect_err("a fault");
        assert!(fault.message.starts_with(message), "{} for {body}", fault.message);
    }
    assert!(CODEC.decode_request(b"{").is_err());
}

#[test]
fn a_conversation_of_another_dialect_takes_the_vendor_s_form() {
    let system = |text: &str| Message { role: Role::System, name: None, blocks: vec![Block::text(text)] };
    let request = Request {
        model: "claude-sonnet-4-5".into(),
        system: vec![Block::text("one")],
        messages: vec![
            system("two"),
            assistant(vec![Block::text("Hello.")]),
            user(vec![Block::text("a"), Block::text("  ")]),
            user(vec![Block::text("b")]),
            assistant(vec![call("call:1", "{\"x\":1}"), call("", "not json"), thought("late", Some("seal"))]),
            user(vec![Block::text("and"), result("call:1", "r1")]),
            user(vec![result("", "r2")]),
            system("three"),
            assistant(vec![
                thought("unsealed", None),
                thought("foreign", Some("{\"id\":1}")),
                Block::text("prefill \n"),
            ]),
        ],
        ..Request::default()
    };
    let (body, dropped) = written(&request);
    let text = |text: &str| json!({"type": "text", "text": text});
    assert_eq!(body["system"], json!([text("one"), text("two"), text("three")]));
    let expected = json!([
        {"role": "user", "content": [text("(The conversation begins.)")]},
        {"role": "assistant", "content": [text("Hello.")]},
        {"role": "user", "content": [text("a"), text("b")]},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "late", "signature": "seal"},
            {"type": "tool_use", "id": "call_x3a1", "name": "f", "input": {"x": 1}},
            {"type": "tool_use", "id": "toolu_unnamed_1", "name": "f", "input": {"$raw": "not json"}}
        ]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "call_x3a1", "content": "r1"},
            {"type": "tool_result", "tool_use_id": "toolu_unnamed_1", "content": "r2"},
            text("and")
        ]},
        {"role": "assistant", "content": [text("prefill")]}
    ]);
    assert_eq!(body["messages"], expected);
    assert_eq!(dropped, ["messages[7].role", "messages[8].blocks[0]", "messages[8].blocks[1]"]);
    assert_eq!(body["max_tokens"], 16_384);
    assert_eq!(read(&body).messages[3].blocks[2], call("toolu_unnamed_1", "not json"), "broken input is itself again");
}

#[test]
fn what_has_no_place_is_reported() {
    let media = |kind: &str, source: Source, detail: Option<&str>| {
        let detail = detail.map(str::to_owned);
        Block::new(Content::Media { kind: kind.into(), source, title: None, detail })
    };
    let data_url = Source::Url { url: "data:image/png;base64,AAAA".into() };
    let mut request = Request {
        messages: vec![Message {
            name: Some("ann".into()),
            ..user(vec![
                media("image", data_url, Some("high")),
                media("audio", Source::Url { url: "https://e.com/a".into() }, None),
                Block::new(Content::Opaque { dialect: "other".into(), json: json!({}) }),
            ])
        }],
        temperature: Some(1.5),
        top_p: Some(0.5),
        seed: Some(1),
        stop: vec!["\n".into(), "x".into()],
        format: Some(Format::Json),
        tools: vec![Tool { opaque: Some(("other".into(), json!({}))), ..Tool::default() }],
        tool_choice: Some(ToolChoice::Required),
        ..asks("claude-sonnet-4-5")
    };
    let members =
        [("logit_bias", json!({"1": 1})), ("n", json!(1)), ("presence_penalty", json!(0.0)), ("store", json!(true))];
    let members = members.map(|(name, value)| (name.to_owned(), value)).into_iter().collect();
    request.extensions.insert("other".into(), members);
    let (body, mut dropped) = written(&request);
    dropped.sort();
    let expected = [
        "format",
        "logit_bias",
        "messages[0].blocks[0].detail",
        "messages[0].blocks[1]",
        "messages[0].blocks[2]",
        "messages[0].name",
        "seed",
        "stop[0]",
        "store",
        "temperature",
        "tool_choice",
        "tools[0]",
        "top_p",
    ];
    assert_eq!(dropped, expected);
    assert_eq!((&body["temperature"], &body["stop_sequences"]), (&json!(1.0), &json!(["x"])));
    let image = json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}});
    assert_eq!(body["messages"][0]["content"], json!([image]));
}

#[test]
fn thinking_yields_to_what_the_api_refuses_beside_it() {
    let reasoning = Some(Reasoning { effort: Some("low".into()), ..Reasoning::default() });
    let tool = Tool { name: "f".into(), parameters: Value::Null, ..Tool::default() };
    let thinking = Request { reasoning, temperature: Some(0.2), top_k: Some(5), ..asks("claude-sonnet-4-5") };
    let (body, dropped) = written(&thinking);
    assert_eq!(body["thinking"], json!({"type": "enabled", "budget_tokens": 2048}));
    assert_eq!((body.get("temperature"), body.get("top_k")), (None, None));
    assert_eq!(dropped, ["temperature", "top_k"]);
    let forced = Request { tools: vec![tool], tool_choice: Some(ToolChoice::Tool("f".into())), ..thinking };
    let (body, dropped) = written(&forced);
    assert_eq!((body.get("thinking"), &body["temperature"], &body["top_k"]), (None, &json!(0.2), &json!(5)));
    assert_eq!(dropped, ["reasoning"]);
    assert_eq!(body["tools"], json!([{"name": "f", "input_schema": {"type": "object", "properties": {}}}]));
}

#[test]
fn a_model_that_samples_in_its_own_way_is_not_told_how() {
    let sampled = |model: &str, temperature: f64| {
        let sampled = Request { temperature: Some(temperature), top_p: Some(0.5), top_k: Some(5), ..asks(model) };
        let (body, dropped) = written(&sampled);
        let sent = ["temperature", "top_p", "top_k"].map(|name| body.get(name).is_some());
        (sent, dropped.join(" "))
    };
    assert_eq!(sampled("claude-3-5-haiku", 0.5), ([true, true, true], String::new()));
    assert_eq!(sampled("MiniMax-M2.7", 2.0), ([true, true, true], "temperature".to_owned()));
    assert_eq!(sampled("claude-sonnet-4-5", 0.5), ([true, false, true], "top_p".to_owned()));
    assert_eq!(sampled("claude-opus-4-7", 0.5), ([false, false, false], "temperature top_p top_k".to_owned()));
    assert_eq!(sampled("claude-opus-4-7", 1.0), ([false, false, false], "top_p top_k".to_owned()));
}

#[test]
fn the_callers_own_effort_asks_for_no_thinking() {
    let body = json!({"model": "claude-opus-4-6", "max_tokens": 5, "output_config": {"effort": "low"},
        "messages": [{"role": "user", "content": "hi"}]});
    let (again, _) = written(&read(&body));
    assert_eq!((again.get("thinking"), &again["output_config"]), (None, &json!({"effort": "low"})));
    let other = Request {
        reasoning: Some(Reasoning { effort: Some("low".into()), ..Reasoning::default() }),
        ..asks("claude-opus-4-6")
    };
    let (body, _) = written(&other);
    assert_eq!((&body["thinking"], &body["output_config"]), (&json!({"type": "adaptive"}), &json!({"effort": "low"})));
}

#[test]
fn a_count_asks_for_nothing_about_the_answer() {
    let mut request =
        Request { streaming: true, temperature: Some(0.5), user: Some("u".into()), ..asks("claude-opus-4-6") };
    request.extensions.entry(NAME.into()).or_default().insert("service_tier".into(), json!("auto"));
    let (body, _) = encode_count_request(&request);
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    let hi = json!([{"role": "user", "content": [{"type": "text", "text": "hi"}]}]);
    assert_eq!(body, json!({"model": "claude-opus-4-6", "messages": hi}));
}
