// SPDX-License-Identifier: Apache-2.0
//! Requests: what callers send, and what vendors are sent.

use serde_json::{Map, Value, json};

use penstock_dialects::codec::{Codec, Operation};
use penstock_dialects::gemini::encode_count_request;
use penstock_dialects::ir::{
    Block, Content, FaultClass, Format, Message, Reasoning, Request, Role, Source, Tool, ToolChoice,
};

use super::CODEC;
use crate::recordings::exchanges;

fn read(body: &Value) -> Request {
    CODEC.decode_request(body.to_string().as_bytes()).unwrap_or_else(|fault| panic!("{}: {body}", fault.message))
}

fn written(request: &Request) -> (Value, Vec<String>) {
    let (body, dropped) = CODEC.encode_request(request);
    (serde_json::from_slice(&body).expect("JSON"), dropped)
}

/// A request in the words in which it is written: camel case, lists, no members that say nothing. The exceptions that are
/// known, and mean the same to the API:
/// - `null`, empty objects, `candidateCount: 1`, `thought: false` on text and text that is empty are left out;
/// - consecutive contents of one role are one content;
/// - whole numbers are written as such.
fn normal(body: &Value) -> Value {
    let mut body = normal_members(body, true);
    if let Some(contents) = body["contents"].as_array_mut() {
        let mut merged: Vec<Value> = Vec::new();
        for mut content in std::mem::take(contents) {
            if content["role"].is_null() {
                content["role"] = json!("user");
            }
            match merged.last_mut() {
                Some(last) if last["role"] == content["role"] => {
                    let parts = content["parts"].as_array().cloned().unwrap_or_default();
                    last["parts"].as_array_mut().expect("a list").extend(parts);
                }
                _ => merged.push(content),
            }
        }
        *contents = merged;
    }
    body
}

fn normal_members(value: &Value, renames: bool) -> Value {
    match value {
        Value::Object(members) => {
            let mut normal = Map::new();
            for (name, value) in members.iter().filter(|(_, value)| !value.is_null()) {
                let is_free =
                    ["args", "response", "parameters", "parametersJsonSchema", "responseSchema", "responseJsonSchema"];
                let name = if renames { camel(name) } else { name.clone() };
                let value = normal_members(value, renames && !is_free.contains(&name.as_str()));
                let value = match (name.as_str(), value) {
                    ("parts", part @ Value::Object(_)) => normal_members(&json!([part]), renames),
                    (_, value) => value,
                };
                let says_nothing = value == json!({})
                    && !["args", "response", "codeExecution", "googleSearch", "urlContext"].contains(&name.as_str());
                if !(renames && says_nothing) {
                    normal.insert(name, value);
                }
            }
            if normal.get("thought") == Some(&json!(false)) {
                normal.shift_remove("thought");
            }
            Value::Object(normal)
        }
        Value::Array(list) => {
            let nothing = |value: &Value| renames && (*value == json!({"text": ""}) || *value == json!({}));
            list.iter().map(|value| normal_members(value, renames)).filter(|value| !nothing(value)).collect()
        }
        Value::Number(number) => json!(number.as_f64()),
        other => other.clone(),
    }
}

fn camel(name: &str) -> String {
    let (first, rest) = name.split_once('_').unwrap_or((name, ""));
    rest.split('_')
        .filter(|word| !word.is_empty())
        .fold(first.to_owned(), |name, word| name + &word[..1].to_ascii_uppercase() + &word[1..])
}

#[test]
fn every_recorded_request_is_written_as_it_was_read() {
    let mut count = 0;
    for exchange in exchanges("gemini") {
        let body = &exchange.request["body"];
        if !body.is_object() || body["contents"][0]["role"] == "invalid_role" {
            continue;
        }
        let mut request = read(body);
        let url = exchange.request["url"].as_str().unwrap_or_default();
        let model = url.split("/models/").nth(1).and_then(|rest| rest.split(':').next());
        request.model = model.unwrap_or_default().to_owned();
        let (again, dropped) = written(&request);
        let mut expected = normal(body);
        // An instruction without a word.
        if expected["systemInstruction"]["parts"] == json!([]) {
            expected.as_object_mut().expect("an object").shift_remove("systemInstruction");
        }
        assert_eq!(normal(&again), expected, "{}", exchange.name);
        assert_eq!(dropped, Vec::<String>::new(), "{}", exchange.name);
        count += 1;
    }
    assert!(count > 0 || crate::recordings::shared("open").is_none(), "no request was compared");
}

#[test]
fn a_request_is_read_into_the_canonical_form() {
    let body = json!({
        "system_instruction": {"parts": [{"text": "be brief"}]},
        "contents": [
            {"parts": [{"text": "look"}, {"inline_data": {"mime_type": "image/png", "data": "AAAA"}},
                {"fileData": {"mimeType": "application/pdf", "fileUri": "https://a.example/x"}},
                {"fileData": {"fileUri": "gs://b/film.mp4"}}]},
            {"role": "model", "parts": [
                {"text": "hm", "thought": true}, {"text": "m", "thought": true},
                {"functionCall": {"name": "see", "args": {"n": 1}}, "thoughtSignature": "c2Vl"},
                {"functionCall": {"name": "see", "id": "given"}}]},
            {"role": "user", "parts": [
                {"functionResponse": {"id": "given", "name": "see", "response": {"error": "no"}}},
                {"functionResponse": {"name": "see", "response": {"output": "a cat"}}}]},
        ],
        "tools": [
            {"functionDeclarations": [{"name": "see", "description": "looks", "parameters": {"type": "OBJECT", "properties": {"n": {"type": "INTEGER"}}}}]},
            {"googleSearch": {}}],
        "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["see"]}},
        "generationConfig": {"temperature": 0.5, "topP": 0.9, "topK": 40.0, "maxOutputTokens": "100", "stopSequences": ["x"],
            "seed": 7, "candidateCount": 1, "responseMimeType": "application/json", "responseSchema": {"type": "STRING"},
            "thinkingConfig": {"includeThoughts": true, "thinkingBudget": 1000}},
        "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}],
    });
    let request = read(&body);
    assert_eq!(request.system, [Block::text("be brief")]);
    let kinds: Vec<&str> = request.messages[0]
        .blocks
        .iter()
        .filter_map(|block| match &block.content {
            Content::Media { kind, .. } => Some(kind.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(kinds, ["image", "document", "video"]);
    let said: Vec<&Content> = request.messages[1].blocks.iter().map(|block| &block.content).collect();
    let call = |id: &str, input: &str| Content::ToolUse { id: id.into(), name: "see".into(), input: input.into() };
    assert_eq!(*said[0], Content::Reasoning { text: "hmm".into(), signature: None });
    assert!(matches!(said[1], Content::Reasoning { text, signature: Some(_) } if text.is_empty()));
    assert_eq!((said[2], said[3]), (&call("call_gemini_0", "{\"n\":1}"), &call("given", "{}")));
    let result = |id: &str, text: &str, is_error: bool| Content::ToolResult {
        id: id.into(),
        blocks: vec![Block::text(text)],
        is_error,
    };
    assert_eq!(request.messages[2].blocks[0].content, result("given", "no", true));
    assert_eq!(request.messages[2].blocks[1].content, result("call_gemini_0", "a cat", false));
    assert_eq!(request.tools[0].parameters, json!({"type": "object", "properties": {"n": {"type": "integer"}}}));
    assert_eq!(request.tools[1].opaque, Some(("gemini".to_owned(), json!({"googleSearch": {}}))));
    assert_eq!(request.tool_choice, Some(ToolChoice::Tool("see".into())));
    assert_eq!((request.top_k, request.output_tokens_max, request.seed), (Some(40), Some(100), Some(7)));
    let schema = Format::Schema { name: None, description: None, schema: json!({"type": "string"}), strict: None };
    assert_eq!(request.format, Some(schema));
    assert_eq!(request.reasoning, Some(Reasoning { enabled: Some(true), effort: None, budget_tokens: Some(1000) }));
    assert!(request.extensions["gemini"].contains_key("safetySettings"));
    assert!(request.stream_usage);
}

#[test]
fn what_is_wrong_is_named_by_its_path() {
    let cases = [
        (json!([]), "the body must be"),
        (json!({}), "contents: is required"),
        (json!({"contents": [1]}), "contents[0]: must be an object"),
        (json!({"contents": [{"role": "assistant"}]}), "contents[0].role: must be"),
        (json!({"contents": [{"parts": [{"text": 1}]}]}), "contents[0].parts[0].text: must be a string"),
        (
            json!({"contents": [{"parts": [{"inlineData": {"data": "x"}}]}]}),
            "contents[0].parts[0].inlineData.mimeType: is required",
        ),
        (
            json!({"contents": [{"parts": [{"functionCall": {"name": "f", "args": "x"}}]}]}),
            "contents[0].parts[0].functionCall.args: must be an object",
        ),
        (
            json!({"contents": [], "tools": [{"functionDeclarations": [{}]}]}),
            "tools[0].functionDeclarations[0].name: is required",
        ),
        (json!({"contents": [], "generationConfig": {"topK": 1.5}}), "generationConfig.topK: must be a whole number"),
    ];
    for (body, expected) in cases {
        let fault = CODEC.decode_request(body.to_string().as_bytes()).expect_err("refused");
        assert_eq!(fault.class, FaultClass::InvalidRequest);
        assert!(fault.message.starts_with(expected), "{} for {body}", fault.message);
    }
    let several = json!({"contents": [], "generationConfig": {"candidateCount": 2}}).to_string();
    assert_eq!(CODEC.decode_request(several.as_bytes()).expect_err("refused").class, FaultClass::Unsupported);
}

fn message(role: Role, contents: Vec<Content>) -> Message {
    Message { role, name: None, blocks: contents.into_iter().map(Block::new).collect() }
}

fn text(text: &str) -> Content {
    Content::Text { text: text.into(), citations: Vec::new() }
}

fn call(id: &str, name: &str, input: &str) -> Content {
    Content::ToolUse { id: id.into(), name: name.into(), input: input.into() }
}

fn result(id: &str, blocks: Vec<Content>) -> Content {
    Content::ToolResult { id: id.into(), blocks: blocks.into_iter().map(Block::new).collect(), is_error: false }
}

#[test]
fn a_request_of_another_dialect_is_put_in_the_words_of_this_one() {
    let picture = Content::Media {
        kind: "image".into(),
        source: Source::Base64 { media_type: "image/png".into(), data: "AAAA".into() },
        title: None,
        detail: None,
    };
    let schema = json!({"type": "object", "additionalProperties": false, "properties": {"q": {"const": 1}}});
    let request = Request {
        model: "gemini-2.5-flash".into(),
        system: vec![Block::text("first")],
        messages: vec![
            message(Role::User, vec![text("ask")]),
            message(Role::System, vec![text("later")]),
            message(Role::User, vec![text("again")]),
            message(Role::Assistant, vec![text(""), call("call_1", "f", "{\"a\":1.5}"), call("call_2", "g", "broken")]),
            message(Role::User, vec![text("so"), result("call_1", vec![text("{\"b\":2}")])]),
            message(Role::User, vec![result("call_2", vec![text("plain"), picture])]),
        ],
        tools: vec![
            Tool { name: "f".into(), parameters: schema.clone(), strict: Some(true), ..Tool::default() },
            Tool { name: "g".into(), ..Tool::default() },
            Tool { name: "web".into(), opaque: Some(("anthropic-messages".into(), json!({}))), ..Tool::default() },
        ],
        tool_choice: Some(ToolChoice::Required),
        parallel_tools: Some(false),
        temperature: Some(1.0),
        format: Some(Format::Json),
        user: Some("u".into()),
        seed: Some(1 << 40),
        ..Request::default()
    };
    let (body, dropped) = written(&request);
    assert_eq!(body["systemInstruction"], json!({"parts": [{"text": "first"}, {"text": "later"}]}));
    let expected = json!([
        {"role": "user", "parts": [{"text": "ask"}, {"text": "again"}]},
        {"role": "model", "parts": [
            {"functionCall": {"id": "call_1", "name": "f", "args": {"a": 1.5}}},
            {"functionCall": {"id": "call_2", "name": "g", "args": {"$raw": "broken"}}}]},
        {"role": "user", "parts": [
            {"functionResponse": {"id": "call_1", "name": "f", "response": {"b": 2}}},
            {"functionResponse": {"id": "call_2", "name": "g", "response": {"output": "plain"}}},
            {"text": "so"},
            {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}]},
    ]);
    assert_eq!(body["contents"], expected);
    assert_eq!(
        body["tools"],
        json!([{"functionDeclarations": [{"name": "f", "parametersJsonSchema": schema}, {"name": "g"}]}])
    );
    assert_eq!(body["toolConfig"], json!({"functionCallingConfig": {"mode": "ANY"}}));
    assert_eq!(body["generationConfig"], json!({"temperature": 1, "responseMimeType": "application/json"}));
    let reported = ["messages[1].role", "tools[0].strict", "tools[2]", "parallel_tools", "seed", "user"];
    assert_eq!(dropped, reported);
    // From 3 on a function may show something.
    let (body, _) = written(&Request { model: "gemini-3-pro".into(), ..request });
    let shown = &body["contents"][2]["parts"][1]["functionResponse"]["parts"];
    assert_eq!(*shown, json!([{"inlineData": {"mimeType": "image/png", "data": "AAAA"}}]));
    assert_eq!(body["contents"][1]["parts"][0].get("thoughtSignature"), None, "the turn is over");
}

#[test]
fn calls_of_other_models_are_signed_where_the_vendor_checks() {
    let mut request = Request {
        model: "gemini-3-pro".into(),
        messages: vec![
            message(Role::User, vec![text("ask")]),
            message(Role::Assistant, vec![call("a", "f", "{}"), call("b", "f", "{}")]),
            message(Role::User, vec![result("a", vec![text("x")]), result("b", vec![text("y")])]),
        ],
        ..Request::default()
    };
    let (body, _) = written(&request);
    let parts = &body["contents"][1]["parts"];
    assert_eq!(parts[0]["thoughtSignature"], "skip_thought_signature_validator");
    assert_eq!(parts[1].get("thoughtSignature"), None);
    request.model = "gemini-2.5-pro".into();
    assert_eq!(written(&request).0["contents"][1]["parts"][0].get("thoughtSignature"), None);
}

#[test]
fn the_members_of_openai_that_have_a_place_here_find_it() {
    let members = [
        ("frequency_penalty", json!(0.5)),
        ("logprobs", json!(true)),
        ("top_logprobs", json!(3)),
        ("n", json!(1)),
        ("logit_bias", json!({"1": 2})),
    ];
    let members = members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let request = Request { extensions: [("openai-chat".to_owned(), members)].into(), ..Request::default() };
    let (body, dropped) = written(&request);
    assert_eq!(body["generationConfig"], json!({"frequencyPenalty": 0.5, "responseLogprobs": true, "logprobs": 3}));
    assert_eq!(dropped, ["logit_bias"]);
}

#[test]
fn counts_are_asked_for_as_each_endpoint_wants_it() {
    let body = json!({"generateContentRequest": {"model": "models/m", "contents": [{"role": "user", "parts": [{"text": "x"}]}],
        "systemInstruction": {"parts": [{"text": "s"}]}, "safetySettings": [{"category": "c"}]}});
    let request = read(&body);
    assert_eq!(request.model, "m");
    let asked = |is_vertex: bool| -> Value {
        serde_json::from_slice(&encode_count_request(&request, is_vertex).0).expect("JSON")
    };
    assert_eq!(asked(false), body);
    let mut inner = body["generateContentRequest"].clone();
    inner.as_object_mut().expect("an object").retain(|name, _| name == "contents" || name == "systemInstruction");
    assert_eq!(asked(true), inner);
    assert_eq!(
        CODEC.encode_count(&penstock_dialects::ir::Usage { input: 5, cache_read: 2, ..Default::default() }),
        br#"{"totalTokens":7}"#
    );
    let counted = CODEC
        .decode_response(br#"{"totalTokens": 12, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 12}]}"#);
    let counted = crate::anthropic::recorded::folded(&counted.expect("a count"));
    assert_eq!(counted.usage.map(|usage| usage.input_total()), Some(12));
    assert!(CODEC.decode_task(Operation::Images, b"{}").is_err());
}
