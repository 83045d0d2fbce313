// SPDX-License-Identifier: Apache-2.0
//! Requests of callers, and requests to vendors.

use serde_json::{Value, json};

use penstock_dialects::bedrock_converse::{NAME, ToolNames, encode_count_request};
use penstock_dialects::codec::Codec;
use penstock_dialects::ir::{
    Block, Content, Event, Format, Message, Reasoning, Request, Role, Source, Tool, ToolChoice,
};

use super::CODEC;
use crate::recordings::{exchanges, shared};

const CLAUDE: &str = "us.anthropic.claude-sonnet-4-5-20250929-v1:0";
const NOVA: &str = "us.amazon.nova-2-lite-v1:0";

fn written(request: &Request) -> (Value, Vec<String>) {
    let (body, dropped) = CODEC.encode_request(request);
    (serde_json::from_slice(&body).expect("JSON"), dropped)
}

fn read(body: &Value) -> Request {
    CODEC.decode_request(body.to_string().as_bytes()).unwrap_or_else(|fault| panic!("{}: {body}", fault.message))
}

fn message(role: Role, blocks: Vec<Block>) -> Message {
    Message { role, name: None, blocks }
}

fn asks(model: &str) -> Request {
    Request { model: model.into(), messages: vec![message(Role::User, vec![Block::text("hi")])], ..Request::default() }
}

fn call(id: &str, name: &str, input: &str) -> Block {
    Block::new(Content::ToolUse { id: id.into(), name: name.into(), input: input.into() })
}

fn result(id: &str, blocks: Vec<Block>) -> Block {
    Block::new(Content::ToolResult { id: id.into(), blocks, is_error: false })
}

fn thought(text: &str, signature: Option<&str>) -> Block {
    Block::new(Content::Reasoning { text: text.into(), signature: signature.map(str::to_owned) })
}

fn marked(mut block: Block) -> Block {
    block.cache = Some(json!({"type": "ephemeral", "ttl": "1h"}));
    block
}

/// The same request in one spelling: what is empty left out, a result that went well without a word about it.
fn in_one_spelling(mut body: Value) -> Value {
    let members = body.as_object_mut().expect("an object");
    members.retain(|_, value| !matches!(value, Value::Array(list) if list.is_empty()) && *value != json!({}));
    for message in members["messages"].as_array_mut().expect("messages") {
        for block in message["content"].as_array_mut().expect("blocks") {
            if let Some(Value::Object(result)) = block.get_mut("toolResult") {
                result.retain(|name, value| !(name == "status" && value == "success"));
            }
        }
    }
    let schema = "/outputConfig/textFormat/structure/jsonSchema/schema";
    if let Some(schema) = body.pointer_mut(schema) {
        *schema = serde_json::from_str(schema.as_str().expect("a text")).expect("JSON");
    }
    // Two names of one thing.
    if let Some(Value::Object(fields)) = body.get_mut("additionalModelRequestFields")
        && let Some(thinking) = fields.shift_remove("reasoning_config")
    {
        fields.insert("thinking".into(), thinking);
    }
    body
}

#[test]
fn every_recorded_request_survives_being_read_and_written_again() {
    let mut count = 0;
    for mut recorded in exchanges("bedrock-converse") {
        let url = recorded.request["url"].as_str().unwrap_or_default().to_owned();
        let body = recorded.request["body"].take();
        if !body.is_object() || recorded.name.contains("converse-error400-fbc68b") {
            continue; // the recorder has cut its texts to one word in turns that thereby became the same
        }
        let mut request = read(&body);
        request.model =
            url.split("/model/").nth(1).and_then(|rest| rest.split('/').next()).expect("a model").to_owned();
        let crossed: Request =
            serde_json::from_str(&serde_json::to_string(&request).expect("JSON")).expect("a request");
        assert_eq!(crossed, request, "{}: across the contract", recorded.name);
        let (mut again, dropped) = written(&crossed);
        assert_eq!(dropped, Vec::<String>::new(), "{}", recorded.name);
        // With thinking there is a ceiling, which must lie above the budget.
        if body["inferenceConfig"]["maxTokens"].is_null()
            && again["additionalModelRequestFields"]["thinking"].is_object()
        {
            let config = again["inferenceConfig"].as_object_mut().expect("a ceiling");
            assert!(config.shift_remove("maxTokens").and_then(|ceiling| ceiling.as_u64()).expect("a ceiling") > 1024);
        }
        assert_eq!(in_one_spelling(again), in_one_spelling(body), "{}", recorded.name);
        count += 1;
    }
    assert!(count > 10 || shared("open").is_none());
}

/// A request with every member that this dialect knows.
pub(super) fn every_member() -> Value {
    json!({
        "system": [{"text": "Be brief."}, {"cachePoint": {"type": "default", "ttl": "1h"}},
            {"guardContent": {"text": {"text": "g", "qualifiers": ["guard_content"]}}}],
        "messages": [
            {"role": "user", "content": [
                {"text": "Look."},
                {"image": {"format": "png", "source": {"bytes": "AAAA"}}},
                {"image": {"format": "jpeg", "source": {"s3Location": {"uri": "s3://b/k", "bucketOwner": "123456789012"}}}},
                {"document": {"format": "pdf", "name": "Report", "source": {"bytes": "AAAA"}, "context": "C",
                    "citations": {"enabled": true}}},
                {"document": {"format": "txt", "name": "words", "source": {"text": "words"}}},
                {"document": {"format": "txt", "name": "pieces", "source": {"content": [{"text": "piece"}]}}},
                {"video": {"format": "three_gp", "source": {"s3Location": {"uri": "s3://b/v"}}}},
                {"audio": {"format": "wav", "source": {"bytes": "AAAA"}}},
                {"cachePoint": {"type": "default"}},
                {"guardContent": {"text": {"text": "g"}}},
                {"searchResult": {"source": "s", "title": "t", "content": [{"text": "x"}]}},
                {"fromTheFuture": {"x": 1}}
            ]},
            {"role": "assistant", "content": [
                {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "s1=="}}},
                {"reasoningContent": {"redactedContent": "AAEC"}},
                {"citationsContent": {"content": [{"text": "I see"}], "citations": [
                    {"title": "t", "sourceContent": [{"text": "w"}], "location": {"documentPage": {"documentIndex": 0, "start": 1, "end": 2}}}
                ]}},
                {"toolUse": {"toolUseId": "srv", "name": "nova_grounding", "input": {}, "type": "server_tool_use"}},
                {"toolResult": {"toolUseId": "srv", "content": [{"text": "r"}], "type": "nova_grounding_result"}},
                {"toolUse": {"toolUseId": "t1", "name": "f", "input": {"a": [1, {"b": null}]}}}
            ]},
            {"role": "user", "content": [
                {"toolResult": {"toolUseId": "t1", "status": "error", "content": [
                    {"text": "no"}, {"json": {"x": [1]}}, {"image": {"format": "gif", "source": {"bytes": "AAAA"}}},
                    {"searchResult": {"source": "s", "title": "t", "content": [{"text": "x"}]}}
                ]}},
                {"cachePoint": {"type": "default"}}
            ]}
        ],
        "inferenceConfig": {"maxTokens": 9000, "temperature": 1.0, "stopSequences": ["END"]},
        "toolConfig": {
            "tools": [
                {"toolSpec": {"name": "f", "description": "d", "inputSchema": {"json": {"type": "object"}}, "strict": true}},
                {"cachePoint": {"type": "default"}},
                {"systemTool": {"name": "nova_grounding"}}
            ],
            "toolChoice": {"auto": {}}
        },
        "additionalModelRequestFields": {"thinking": {"type": "enabled", "budget_tokens": 2000}, "anthropic_beta": ["x"]},
        "additionalModelResponseFieldPaths": ["/stop_sequence"],
        "guardrailConfig": {"guardrailIdentifier": "g", "guardrailVersion": "1", "trace": "enabled"},
        "outputConfig": {"textFormat": {"type": "json_schema", "structure": {"jsonSchema":
            {"schema": "{\"type\":\"object\"}", "name": "n", "description": "d"}}}},
        "requestMetadata": {"team": "a"}, "performanceConfig": {"latency": "optimized"}, "serviceTier": {"type": "flex"},
        "promptVariables": {"v": {"text": "x"}}
    })
}

#[test]
fn every_member_of_a_request_survives_being_read_and_written_again() {
    let body = every_member();
    let mut request = read(&body);
    request.model = CLAUDE.into();
    let blocks = &request.messages[0].blocks;
    assert_eq!(request.system[0].cache, Some(json!({"type": "ephemeral", "ttl": "1h"})));
    assert!(matches!(&blocks[1].content, Content::Media { source: Source::Base64 { media_type, data }, .. }
        if media_type == "image/png" && data == "AAAA"));
    assert!(matches!(&blocks[2].content, Content::Media { source: Source::Url { url }, .. } if url == "s3://b/k"));
    assert!(matches!(&blocks[5].content, Content::Media { source: Source::Text { text }, .. } if text == "piece"));
    assert_eq!(request.reasoning.as_ref().and_then(|reasoning| reasoning.budget_tokens), Some(2000));
    assert!(matches!(&request.format, Some(Format::Schema { schema, .. }) if schema["type"] == "object"));
    let (again, dropped) = written(&request);
    assert_eq!(dropped, Vec::<String>::new());
    assert_eq!(in_one_spelling(again), in_one_spelling(body.clone()));
    let (count, _) = encode_count_request(&request);
    let count: Value = serde_json::from_slice(&count).expect("JSON");
    let counted = &count["input"]["converse"];
    assert_eq!(counted["messages"], in_one_spelling(body)["messages"]);
    assert!(counted.get("guardrailConfig").is_none() && counted.get("inferenceConfig").is_none());
    let from_count = CODEC.decode_request(count.to_string().as_bytes()).expect("a request");
    assert_eq!(from_count.messages, request.messages);
}

#[test]
fn recorded_counts_are_read_as_conversations() {
    for name in ["count-tokens-22ae60", "count-tokens-65fca6"] {
        let Some(folder) = shared(&format!("open/bedrock/{name}")) else { continue };
        let recorded = std::fs::read(folder.join("request.json")).expect("a file");
        let recorded: Value = serde_json::from_slice(&recorded).expect("JSON");
        let mut request = read(&recorded["body"]);
        request.model = CLAUDE.into();
        let (again, dropped) = encode_count_request(&request);
        assert!(dropped.is_empty());
        let again: Value = serde_json::from_slice(&again).expect("JSON");
        let of = |body: &Value| in_one_spelling(body["input"]["converse"].clone());
        assert_eq!(of(&again), of(&recorded["body"]), "{name}");
    }
}

#[test]
fn a_wrong_request_is_told_where_it_is_wrong() {
    let with = |name: &str, value: Value| {
        let mut body = json!({"messages": [{"role": "user", "content": [{"text": "hi"}]}]});
        body[name] = value;
        body
    };
    let block = |block: Value| with("messages", json!([{"role": "user", "content": [block]}]));
    let cases = [
        (json!([]), "the body must be a JSON object"),
        (json!({}), "messages: is required"),
        (json!({"input": {"invokeModel": {"body": "e30="}}}), "input.converse: is required"),
        (with("messages", json!("hi")), "messages: must be a list"),
        (with("messages", json!([{"role": "tool", "content": []}])), "messages[0].role: must be \"user\""),
        (with("messages", json!([{"role": "user"}])), "messages[0].content: is required"),
        (with("messages", json!([{"role": "user", "content": "hi"}])), "messages[0].content: must be a list"),
        (block(json!({})), "messages[0].content[0]: must have exactly one member"),
        (block(json!({"text": "a", "image": {}})), "messages[0].content[0]: must have exactly one member"),
        (block(json!({"text": 1})), "messages[0].content[0].text: must be a string"),
        (block(json!({"image": {"format": "png"}})), "messages[0].content[0].image.source: must have bytes"),
        (block(json!({"toolUse": {"name": "f"}})), "messages[0].content[0].toolUse.toolUseId: is required"),
        (
            block(json!({"toolResult": {"toolUseId": "i", "content": [{"text": 1}]}})),
            "messages[0].content[0].toolResult.content[0].text: must be a string",
        ),
        (with("inferenceConfig", json!({"maxTokens": "many"})), "inferenceConfig.maxTokens: must be a whole number"),
        (
            with("toolConfig", json!({"tools": [{"toolSpec": {"name": "f"}}]})),
            "toolConfig.tools[0].toolSpec.inputSchema.json: is",
        ),
        (with("toolConfig", json!({"toolChoice": {"tool": {}}})), "toolConfig.toolChoice.tool.name: is required"),
        (
            with("additionalModelRequestFields", json!({"thinking": {"type": "x"}})),
            "additionalModelRequestFields.thinking.type: must be \"enabled\"",
        ),
        (
            with("outputConfig", json!({"textFormat": {"structure": {"jsonSchema": {"schema": "{"}}}})),
            "outputConfig.textFormat.structure.jsonSchema.schema: must be a JSON schema",
        ),
    ];
    for (body, message) in cases {
        let fault = CODEC.decode_request(body.to_string().as_bytes()).expect_err("a fault");
        assert!(fault.message.starts_with(message), "{} for {body}", fault.message);
    }
    assert!(CODEC.decode_request(b"{").is_err());
}

#[test]
fn a_conversation_of_another_dialect_takes_the_vendor_s_form() {
    let request = Request {
        model: CLAUDE.into(),
        system: vec![Block::text("one")],
        messages: vec![
            message(Role::System, vec![Block::text("two")]),
            message(Role::Assistant, vec![Block::text("Hello.")]),
            message(Role::User, vec![Block::text("a"), marked(Block::text("  "))]),
            message(Role::User, vec![Block::text("b")]),
            message(
                Role::Assistant,
                vec![call("", "files.read", "not json"), thought("after", Some("s==")), thought("open", None)],
            ),
            message(Role::User, vec![Block::text("and"), marked(result("", Vec::new()))]),
            message(Role::System, vec![Block::text("three")]),
            message(Role::Assistant, vec![Block::text("So \n")]),
        ],
        tools: vec![Tool { name: "files.read".into(), ..Tool::default() }],
        tool_choice: Some(ToolChoice::Tool("files.read".into())),
        ..Request::default()
    };
    let (body, dropped) = written(&request);
    let name = body["toolConfig"]["tools"][0]["toolSpec"]["name"].as_str().expect("a name").to_owned();
    assert_eq!(body["system"], json!([{"text": "one"}, {"text": "two"}, {"text": "three"}]));
    let point = json!({"cachePoint": {"type": "default", "ttl": "1h"}});
    let expected = json!([
        {"role": "user", "content": [{"text": "(The conversation begins.)"}]},
        {"role": "assistant", "content": [{"text": "Hello."}]},
        {"role": "user", "content": [{"text": "a"}, point, {"text": "b"}]},
        {"role": "assistant", "content": [
            {"reasoningContent": {"reasoningText": {"text": "after", "signature": "s=="}}},
            {"toolUse": {"toolUseId": "tooluse_unnamed_1", "name": name, "input": {"$raw": "not json"}}}]},
        {"role": "user", "content": [
            {"toolResult": {"toolUseId": "tooluse_unnamed_1", "content": [{"text": "(no output)"}]}}, point, {"text": "and"}]},
        {"role": "assistant", "content": [{"text": "So"}]},
    ]);
    assert_eq!(body["messages"], expected);
    assert_eq!(body["toolConfig"]["toolChoice"], json!({"tool": {"name": name}}));
    assert_eq!(dropped, ["messages[4].blocks[2]", "messages[6].role"]);
    let mut events = [Event::Tool { index: 0, id: "i".into(), name }];
    ToolNames::of(&request).restore(&mut events);
    assert_eq!(events, [Event::Tool { index: 0, id: "i".into(), name: "files.read".into() }]);
}

#[test]
fn tools_are_stated_wherever_the_conversation_has_calls() {
    let mut request = asks(CLAUDE);
    request
        .messages
        .push(message(Role::Assistant, vec![call("a", "f", "{}"), call("b", "f", "{}"), call("c", "g", "{}")]));
    request.messages.push(message(Role::User, vec![result("a", vec![Block::text("1")])]));
    let (body, dropped) = written(&request);
    let unstated =
        |name: &str| json!({"toolSpec": {"name": name, "inputSchema": {"json": {"type": "object", "properties": {}}}}});
    assert_eq!(body["toolConfig"], json!({"tools": [unstated("f"), unstated("g")]}));
    assert_eq!(dropped, Vec::<String>::new());
    let tool = Tool { name: "f".into(), parameters: json!({"properties": {}}), ..Tool::default() };
    request.tools = vec![tool];
    request.tool_choice = Some(ToolChoice::None);
    let (body, dropped) = written(&request);
    assert_eq!(body["toolConfig"]["tools"][0], unstated("f"));
    assert_eq!(dropped, ["tool_choice"], "there is no way to forbid them here");
    request.messages.truncate(1);
    let (body, dropped) = written(&request);
    assert_eq!((body.get("toolConfig"), dropped), (None, Vec::new()), "without calls they can be left out");
}

#[test]
fn media_that_the_api_takes_go_and_others_are_told() {
    let medium = |kind: &str, source: Source, title: Option<&str>| {
        Block::new(Content::Media { kind: kind.into(), source, title: title.map(str::to_owned), detail: None })
    };
    let base64 = |media_type: &str| Source::Base64 { media_type: media_type.into(), data: "\u{1}blob:1".into() };
    let url = |url: &str| Source::Url { url: url.into() };
    let mut request = asks(CLAUDE);
    request.messages[0].blocks = vec![
        medium("image", base64("image/jpeg"), None),
        medium("image", url("data:image/png;base64,AAAA"), None),
        medium("image", url("https://example.com/a.png"), None),
        medium("image", url("s3://bucket/a.webp"), None),
        medium("document", base64("application/pdf"), Some("My_File.pdf")),
        medium("document", Source::Text { text: "w".into() }, Some("My_File.pdf")),
        medium("document", base64("application/zip"), None),
        medium("document", Source::File { id: "f".into() }, None),
        medium("image", Source::Text { text: "w".into() }, None),
        medium("hologram", base64("image/png"), None),
    ];
    let (body, dropped) = written(&request);
    let expected = json!([
        {"image": {"format": "jpeg", "source": {"bytes": "\u{1}blob:1"}}},
        {"image": {"format": "png", "source": {"bytes": "AAAA"}}},
        {"image": {"format": "webp", "source": {"s3Location": {"uri": "s3://bucket/a.webp"}}}},
        {"document": {"format": "pdf", "source": {"bytes": "\u{1}blob:1"}, "name": "My File pdf"}},
        {"document": {"format": "txt", "source": {"text": "w"}, "name": "My File pdf-2"}},
    ]);
    assert_eq!(body["messages"][0]["content"], expected);
    let places = [2, 6, 7, 8, 9].map(|place| format!("messages[0].blocks[{place}]"));
    assert_eq!(dropped, places);
}

/// Model, what is asked for, `inferenceConfig`, `additionalModelRequestFields`, effort, what was dropped.
type SamplingCase = (&'static str, Request, Value, Value, Value, &'static [&'static str]);

fn sampling_cases() -> Vec<SamplingCase> {
    let plain = Request::default;
    let hot = Request { temperature: Some(1.5), top_p: Some(0.9), top_k: Some(5), seed: Some(1), ..plain() };
    let ceiling = Request { output_tokens_max: Some(9000), stop: vec!["a".into(), " ".into()], ..plain() };
    let null = || Value::Null;
    vec![
        (CLAUDE, plain(), null(), null(), null(), &[]),
        (CLAUDE, ceiling, json!({"maxTokens": 9000, "stopSequences": ["a"]}), null(), null(), &["stop[1]"]),
        (
            CLAUDE,
            hot.clone(),
            json!({"temperature": 1.0}),
            json!({"top_k": 5}),
            null(),
            &["temperature", "top_p", "seed"],
        ),
        (
            NOVA,
            hot.clone(),
            json!({"temperature": 1.0, "topP": 0.9}),
            json!({"inferenceConfig": {"topK": 5}}),
            null(),
            &["temperature", "seed"],
        ),
        (
            "meta.llama3-1-8b-instruct-v1:0",
            hot,
            json!({"temperature": 1.0, "topP": 0.9}),
            null(),
            null(),
            &["temperature", "top_k", "seed"],
        ),
    ]
}

fn thinking_cases() -> Vec<SamplingCase> {
    let reasoning = |effort: Option<&str>, budget_tokens: Option<u64>| {
        Some(Reasoning { enabled: None, effort: effort.map(str::to_owned), budget_tokens })
    };
    let thinks =
        |effort, budget| Request { reasoning: reasoning(effort, budget), top_k: Some(5), ..Request::default() };
    let hard = Request { temperature: Some(0.5), output_tokens_max: Some(9), ..thinks(Some("max"), None) };
    let gpt = "openai.gpt-oss-120b-1:0";
    let profile = "arn:aws:bedrock:us-east-1:1:application-inference-profile/x";
    let null = || Value::Null;
    vec![
        (
            CLAUDE,
            thinks(None, Some(2000)),
            json!({"maxTokens": 18_384}),
            json!({"thinking": {"type": "enabled", "budget_tokens": 2000}}),
            null(),
            &["top_k"],
        ),
        (
            "anthropic.claude-opus-4-6-v1",
            thinks(Some("high"), None),
            json!({"maxTokens": 32_768}),
            json!({"thinking": {"type": "adaptive"}}),
            json!("high"),
            &["top_k"],
        ),
        (
            "anthropic.claude-3-haiku-20240307-v1:0",
            thinks(Some("low"), None),
            null(),
            json!({"top_k": 5}),
            null(),
            &["reasoning"],
        ),
        (
            NOVA,
            hard,
            null(),
            json!({"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "high"}, "inferenceConfig": {"topK": 5}}),
            null(),
            &["output_tokens_max", "temperature"],
        ),
        (gpt, thinks(Some("minimal"), None), null(), json!({"reasoning_effort": "low"}), null(), &["top_k"]),
        (
            gpt,
            thinks(None, Some(20_000)),
            null(),
            json!({"reasoning_effort": "high"}),
            null(),
            &["reasoning.budget_tokens", "top_k"],
        ),
        ("us.deepseek.r1-v1:0", thinks(Some("low"), None), null(), null(), null(), &["reasoning", "top_k"]),
        (
            profile,
            thinks(None, Some(2000)),
            null(),
            json!({"thinking": {"type": "enabled", "budget_tokens": 2000}, "top_k": 5}),
            null(),
            &[],
        ),
    ]
}

#[test]
fn each_family_of_models_is_asked_in_its_own_words() {
    for (model, request, config, fields, effort, expected) in sampling_cases().into_iter().chain(thinking_cases()) {
        let (body, dropped) = written(&Request { messages: asks(model).messages, model: model.into(), ..request });
        let member = |name: &str| body.get(name).cloned().unwrap_or_default();
        assert_eq!(member("inferenceConfig"), config, "{model}");
        assert_eq!(member("additionalModelRequestFields"), fields, "{model}");
        assert_eq!(member("outputConfig")["effort"], effort, "{model}");
        assert_eq!(dropped, expected, "{model}");
    }
}

#[test]
fn what_a_model_or_the_api_cannot_do_is_told() {
    let schema = Format::Schema {
        name: Some("n".into()),
        description: None,
        schema: json!({"type": "object"}),
        strict: Some(true),
    };
    let tool =
        Tool { name: "f".into(), strict: Some(true), cache: Some(json!({"type": "ephemeral"})), ..Tool::default() };
    let base = || {
        let mut request = asks(CLAUDE);
        request.messages[0].blocks = vec![marked(Block::text("hi"))];
        Request {
            format: Some(schema.clone()),
            tools: vec![tool.clone()],
            parallel_tools: Some(false),
            user: Some("u".into()),
            ..request
        }
    };
    let (body, dropped) = written(&base());
    assert_eq!(dropped, ["parallel_tools", "user"]);
    assert_eq!(
        body["outputConfig"]["textFormat"]["structure"]["jsonSchema"],
        json!({"schema": "{\"type\":\"object\"}", "name": "n"})
    );
    assert_eq!(body["toolConfig"]["tools"][1], json!({"cachePoint": {"type": "default"}}));
    let (body, dropped) = written(&Request { model: "amazon.nova-lite-v1:0".into(), ..base() });
    assert_eq!(dropped, ["tools[0].strict", "tools[0].cache", "parallel_tools", "format", "user"]);
    assert_eq!(body["messages"][0]["content"].as_array().map(Vec::len), Some(2), "messages can be cached");
    let (_, dropped) = written(&Request { model: "meta.llama3-1-8b-instruct-v1:0".into(), ..base() });
    assert_eq!(dropped, ["messages[0].blocks[0].cache", "tools[0].strict", "tools[0].cache", "parallel_tools", "user"]);
    let mut foreign = Request { format: Some(Format::Json), ..asks(CLAUDE) };
    foreign.tools = vec![Tool { opaque: Some(("gemini".into(), json!({}))), ..Tool::default() }];
    foreign.tool_choice = Some(ToolChoice::Required);
    foreign
        .extensions
        .insert("openai-chat".into(), [("logit_bias".into(), json!({"1": 2})), ("n".into(), json!(1))].into());
    foreign.extensions.insert(NAME.into(), [("guardrailConfig".into(), json!({"guardrailIdentifier": "g"}))].into());
    let (body, dropped) = written(&foreign);
    assert_eq!(dropped, ["tools[0]", "tool_choice", "format", "logit_bias"]);
    assert_eq!(body["guardrailConfig"], json!({"guardrailIdentifier": "g"}));
}

#[test]
fn a_model_that_is_forced_to_call_a_tool_does_not_think_before() {
    let mut body = every_member();
    body["toolConfig"]["toolChoice"] = json!({"any": {}});
    body["additionalModelRequestFields"]["thinking"]["display"] = json!("omitted");
    let request = Request { model: CLAUDE.into(), ..read(&body) };
    let (body, dropped) = written(&request);
    assert_eq!(body["additionalModelRequestFields"], json!({"anthropic_beta": ["x"]}));
    assert_eq!(dropped, ["reasoning"]);
}
