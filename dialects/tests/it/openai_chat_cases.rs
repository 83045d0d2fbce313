// SPDX-License-Identifier: Apache-2.0
//! `openai-chat`, case by case: what recordings do not hold, or not by themselves.

use penstock_dialects::codec::{Codec, Envelope, Head, ModelEntry, Operation};
use penstock_dialects::collect::Collector;
use penstock_dialects::conformance::stream_events;
use penstock_dialects::ir::{
    Block, Content, Event, Fault, FaultClass, Finish, Message, Reasoning, Request, Response, Role, Source, Tool,
    ToolChoice, Usage,
};
use penstock_dialects::openai_chat::ways::Back;
use penstock_dialects::openai_chat::{OpenAiChat, Style};
use serde_json::{Value, json};

fn sse(chunks: &[Value]) -> Vec<u8> {
    chunks.iter().flat_map(|chunk| format!("data: {chunk}\n\n").into_bytes()).chain(*b"data: [DONE]\n\n").collect()
}

fn delta(delta: &Value) -> Value {
    json!({ "id": "i", "model": "m", "choices": [{ "index": 0, "delta": delta, "finish_reason": null }] })
}

fn read(chunks: &[Value]) -> Response {
    let mut collector = Collector::new();
    stream_events(&OpenAiChat, &sse(chunks)).unwrap().iter().for_each(|event| collector.event(event));
    collector.finish()
}

fn calls(response: &Response) -> Vec<(&str, &str, &str)> {
    let call = |block: &'_ Block| matches!(block.content, Content::ToolUse { .. });
    response
        .blocks
        .iter()
        .filter(|block| call(block))
        .map(|block| match &block.content {
            Content::ToolUse { id, name, input } => (id.as_str(), name.as_str(), input.as_str()),
            _ => unreachable!("filtered"),
        })
        .collect()
}

#[test]
fn tool_calls_are_told_apart_however_vendors_number_them() {
    let call = |index: Value, id: Value, name: Value, arguments: Value| json!({ "index": index, "id": id, "function": { "name": name, "arguments": arguments } });
    let null = Value::Null;
    type Case = (&'static str, Vec<Value>, Vec<(&'static str, &'static str, &'static str)>);
    let cases: Vec<Case> = vec![
        (
            "index, empty ids later (Qwen)",
            vec![
                call(json!(0), json!("a"), json!("f"), json!("")),
                call(json!(0), json!(""), null.clone(), json!("{}")),
            ],
            vec![("a", "f", "{}")],
        ),
        (
            "no index (Mistral)",
            vec![
                call(null.clone(), json!("a"), json!("f"), json!("{}")),
                call(null.clone(), json!("b"), json!("g"), json!("{}")),
            ],
            vec![("a", "f", "{}"), ("b", "g", "{}")],
        ),
        (
            "same index, other id (Gemini)",
            vec![
                call(json!(0), json!("a"), json!("f"), json!("{}")),
                call(json!(0), json!("b"), json!("g"), json!("{}")),
            ],
            vec![("a", "f", "{}"), ("b", "g", "{}")],
        ),
        (
            "id and name with every piece",
            vec![
                call(json!(0), json!("a"), json!("f"), json!("{")),
                call(json!(0), json!("a"), json!("f"), json!("}")),
            ],
            vec![("a", "f", "{}")],
        ),
        (
            "arguments as an object",
            vec![call(json!(0), json!("a"), json!("f"), json!({"x": 1}))],
            vec![("a", "f", "{\"x\":1}")],
        ),
        (
            "the name comes late",
            vec![
                call(json!(0), json!("a"), null.clone(), json!("{")),
                call(json!(0), null.clone(), json!("f"), json!("}")),
            ],
            vec![("a", "f", "{}")],
        ),
        (
            "interleaved, first index 1",
            vec![
                call(json!(1), json!("a"), json!("f"), json!("[")),
                call(json!(2), json!("b"), json!("g"), json!("{")),
                call(json!(1), null.clone(), null.clone(), json!("]")),
                call(json!(2), null.clone(), null, json!("}")),
            ],
            vec![("a", "f", "[]"), ("b", "g", "{}")],
        ),
    ];
    for (what, pieces, expected) in cases {
        let chunks: Vec<Value> = pieces.iter().map(|piece| delta(&json!({ "tool_calls": [piece] }))).collect();
        let response = read(&chunks);
        assert_eq!(calls(&response), expected, "{what}");
        assert_eq!(response.finish.unwrap().reason, "tool_calls", "{what}: [DONE] without a finish reason");
    }
}

#[test]
fn a_legacy_function_call_is_a_tool_call() {
    let chunks = [
        delta(&json!({ "function_call": { "name": "f", "arguments": "" } })),
        delta(&json!({ "function_call": { "arguments": "{}" } })),
    ];
    assert_eq!(calls(&read(&chunks)), [("", "f", "{}")]);
}

#[test]
fn a_finish_waits_for_its_usage_and_is_told_once() {
    let finish = |reason: &str| json!({ "choices": [{ "index": 0, "delta": {}, "finish_reason": reason }] });
    let usage = json!({ "choices": [], "usage": { "prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5 } });
    let cases = [("eos", "stop"), ("sensitive", "content_filter"), ("model_length", "length"), ("odd", "odd")];
    for (native, canonical) in cases {
        let chunks = [delta(&json!({ "content": "x" })), finish(native), finish(native), usage.clone()];
        let events = stream_events(&OpenAiChat, &sse(&chunks)).unwrap();
        let last = Event::Finish(Finish { reason: canonical.into(), sequence: None });
        assert_eq!(events.last(), Some(&last));
        assert_eq!(events.iter().filter(|event| matches!(event, Event::Finish(_))).count(), 1);
        assert!(matches!(&events[events.len() - 2], Event::Usage(usage) if usage.input == 3));
    }
}

#[test]
fn a_stream_that_is_cut_has_no_finish() {
    let bytes = format!("data: {}\n\n", delta(&json!({ "content": "x" })));
    let events = stream_events(&OpenAiChat, bytes.as_bytes()).unwrap();
    assert!(!events.iter().any(|event| matches!(event, Event::Finish(_))));
    let half = &bytes.as_bytes()[..bytes.len() - 10];
    let events = stream_events(&OpenAiChat, half).unwrap();
    assert!(matches!(events.as_slice(), [Event::Fault(fault)] if fault.class == FaultClass::VendorBug));
}

#[test]
fn errors_inside_a_stream_are_faults_once() {
    let text = delta(&json!({ "content": "x" })).to_string();
    let cases: &[(&str, FaultClass)] = &[
        ("data: {\"error\":{\"message\":\"boom\",\"code\":503}}\n\n", FaultClass::Overloaded),
        ("event: error\ndata: {\"message\":\"slow\",\"status_code\":429}\n\n", FaultClass::RateLimit),
        ("event: error\ndata: broken\n\n", FaultClass::VendorBug),
        (
            "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"network_error\"}]}\n\n",
            FaultClass::Overloaded,
        ),
        ("data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"error\"}]}\n\n", FaultClass::VendorBug),
        ("data: {\"base_resp\":{\"status_code\":1002,\"status_msg\":\"rate\"}}\n\n", FaultClass::RateLimit),
        ("data: not json\n\n", FaultClass::VendorBug),
    ];
    for (error, class) in cases {
        let bytes = format!("data: {text}\n\n{error}{error}data: [DONE]\n\n");
        let events = stream_events(&OpenAiChat, bytes.as_bytes()).unwrap();
        let faults: Vec<FaultClass> = events
            .iter()
            .filter_map(|event| if let Event::Fault(fault) = event { Some(fault.class) } else { None })
            .collect();
        assert_eq!(faults, [*class], "{error}");
        assert!(!events.iter().any(|event| matches!(event, Event::Finish(_))), "{error}");
    }
}

#[test]
fn a_whole_answer_that_is_none_is_a_fault() {
    let cases: &[(&str, FaultClass)] = &[
        ("", FaultClass::VendorBug),
        ("<html>", FaultClass::VendorBug),
        ("{}", FaultClass::VendorBug),
        ("{\"choices\":[]}", FaultClass::VendorBug),
        ("  {\"error\":\"overloaded\"}", FaultClass::Overloaded),
        (
            "{\"base_resp\":{\"status_code\":1008,\"status_msg\":\"insufficient balance\"},\"choices\":null}",
            FaultClass::Billing,
        ),
        ("{\"choices\":[{\"message\":{\"content\":\"x\"},\"finish_reason\":\"error\"}]}", FaultClass::VendorBug),
    ];
    for (body, class) in cases {
        assert_eq!(OpenAiChat.decode_response(body.as_bytes()).unwrap_err().class, *class, "{body}");
    }
}

#[test]
fn reasoning_that_vendors_send_twice_is_read_once_and_its_seal_kept() {
    let detail = |item: Value| delta(&json!({ "reasoning": item["text"], "reasoning_details": [item] }));
    let response = read(&[
        detail(json!({ "type": "reasoning.text", "text": "thi", "index": 0 })),
        detail(json!({ "type": "reasoning.text", "text": "nk", "index": 0 })),
        detail(json!({ "type": "reasoning.text", "signature": "seal", "index": 0 })),
        detail(json!({ "type": "reasoning.encrypted", "data": "abc", "id": "rs_1", "format": "openai-responses-v1" })),
        delta(&json!({ "content": "answer" })),
    ]);
    let contents: Vec<&Content> = response.blocks.iter().map(|block| &block.content).collect();
    assert_eq!(contents[0], &Content::Reasoning { text: "think".into(), signature: Some("seal".into()) });
    assert!(matches!(contents[1], Content::Redacted { data } if data.contains("rs_1")));
    let again: Value = serde_json::from_slice(&OpenAiChat.encode_response(&response, &Envelope::default())).unwrap();
    let message = &again["choices"][0]["message"];
    assert_eq!(message["reasoning_content"], "think");
    let details = json!([
        { "type": "reasoning.text", "text": "think", "signature": "seal", "index": 0 },
        { "type": "reasoning.encrypted", "data": "abc", "id": "rs_1", "format": "openai-responses-v1" },
    ]);
    assert_eq!(message["reasoning_details"], details);
    let turn = json!({ "model": "m", "messages": [message] }).to_string();
    let request = OpenAiChat.decode_request(turn.as_bytes()).unwrap();
    assert_eq!(request.messages[0].blocks, response.blocks, "what the caller sends back is what the vendor sent");
    let (written, dropped) = OpenAiChat.encode_request(&request);
    let written: Value = serde_json::from_slice(&written).unwrap();
    assert_eq!((written["messages"][0]["reasoning_details"].clone(), dropped), (details, Vec::new()));
}

#[test]
fn a_streamed_answer_is_what_the_sdks_read() {
    let envelope =
        Envelope { request_id: "r".into(), model: "m".into(), created: 7, stream_usage: true, ..Envelope::default() };
    let mut encoder = OpenAiChat.stream_encoder(&envelope);
    let mut out = Vec::new();
    let events = [
        Event::Start { id: String::new(), model: "vendor's".into() },
        Event::Text(String::new()),
        Event::Text("a\n\"".into()),
        Event::BlockEnd,
        Event::Tool { index: 0, id: String::new(), name: "f".into() },
        Event::ToolInput { index: 0, json: "{}".into() },
        Event::Finish(Finish { reason: "tool_calls".into(), sequence: None }),
        Event::Usage(Usage { input: 1, cache_read: 2, output: 3, reasoning: 4, ..Usage::default() }),
    ];
    events.iter().for_each(|event| encoder.event(event, &mut out));
    encoder.end(&mut out);
    let chunk = |choices: &str, usage: &str| {
        let head =
            "{\"id\":\"chatcmpl-r\",\"object\":\"chat.completion.chunk\",\"created\":7,\"model\":\"m\",\"choices\":";
        format!("data: {head}{choices},\"usage\":{usage}}}\n\n")
    };
    let delta = |delta: &str, finish: &str| {
        let choice = format!("[{{\"index\":0,\"delta\":{delta},\"logprobs\":null,\"finish_reason\":{finish}}}]");
        chunk(&choice, "null")
    };
    let usage = "{\"prompt_tokens\":3,\"completion_tokens\":7,\"total_tokens\":10,\"prompt_tokens_details\":\
        {\"cached_tokens\":2,\"cache_write_tokens\":0},\"completion_tokens_details\":{\"reasoning_tokens\":4}}";
    let call = "{\"tool_calls\":[{\"index\":0,\"id\":\"call_r_0\",\"type\":\"function\",\
        \"function\":{\"name\":\"f\",\"arguments\":\"\"}}]}";
    let expected = [
        delta("{\"role\":\"assistant\",\"content\":\"\"}", "null"),
        delta("{\"content\":\"a\\n\\\"\"}", "null"),
        delta(call, "null"),
        delta("{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"{}\"}}]}", "null"),
        delta("{}", "\"tool_calls\""),
        chunk("[]", usage),
        "data: [DONE]\n\n".to_owned(),
    ];
    assert_eq!(String::from_utf8(out).unwrap(), expected.concat());
}

#[test]
fn what_is_wrong_with_a_request_is_named_by_its_path() {
    let message =
        |message: &str| format!("{{\"model\":\"m\",\"messages\":[{{\"role\":\"user\",\"content\":\"x\"}},{message}]}}");
    let member =
        |member: &str| format!("{{\"model\":\"m\",\"messages\":[{{\"role\":\"user\",\"content\":\"x\"}}],{member}}}");
    let cases = [
        ("".to_owned(), "the body is not JSON"),
        ("[]".to_owned(), "the body must be a JSON object"),
        ("{\"messages\":[]}".to_owned(), "model: is required"),
        ("{\"model\":1}".to_owned(), "model: must be a string"),
        ("{\"model\":\"m\"}".to_owned(), "messages: is required"),
        ("{\"model\":\"m\",\"messages\":[]}".to_owned(), "messages: must have"),
        (message("1"), "messages[1]: must be an object"),
        (message("{}"), "messages[1].role: is required"),
        (message("{\"role\":\"boss\",\"content\":\"\"}"), "messages[1].role: unknown role"),
        (message("{\"role\":\"user\"}"), "messages[1].content: is required"),
        (message("{\"role\":\"user\",\"content\":1}"), "messages[1].content: must be"),
        (message("{\"role\":\"user\",\"content\":[1]}"), "messages[1].content[0]: must be an object"),
        (message("{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}"), "messages[1].content[0].text: must be"),
        (
            message("{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}"),
            "messages[1].content[0].image_url: must",
        ),
        (message("{\"role\":\"tool\",\"content\":\"x\"}"), "messages[1].tool_call_id: is required"),
        (
            message("{\"role\":\"assistant\",\"tool_calls\":[{}]}"),
            "messages[1].tool_calls[0].function.name: is required",
        ),
        (member("\"temperature\":\"hot\""), "temperature: must be a number"),
        (member("\"max_tokens\":-1"), "max_tokens: must be a whole number"),
        (member("\"stop\":[1]"), "stop: must be"),
        (member("\"stream\":1"), "stream: must be true or false"),
        (member("\"tools\":[{\"type\":\"function\",\"function\":{}}]"), "tools[0].function.name: is required"),
        (member("\"tool_choice\":\"maybe\""), "tool_choice: must be"),
        (member("\"response_format\":{\"type\":\"json_schema\"}"), "response_format.json_schema: must"),
    ];
    for (body, expected) in cases {
        let fault = OpenAiChat.decode_request(body.as_bytes()).unwrap_err();
        assert_eq!(fault.class, FaultClass::InvalidRequest);
        assert!(fault.message.starts_with(expected), "{body}: {}", fault.message);
    }
}

#[test]
fn a_legacy_conversation_becomes_a_modern_one() {
    let body = json!({
        "model": "m", "functions": [{ "name": "f", "parameters": {} }], "function_call": { "name": "f" },
        "messages": [
            { "role": "assistant", "content": null, "function_call": { "name": "f", "arguments": "{}" } },
            { "role": "function", "name": "f", "content": "4" },
        ],
    });
    let request = OpenAiChat.decode_request(body.to_string().as_bytes()).unwrap();
    assert_eq!(request.tool_choice, Some(ToolChoice::Tool("f".into())));
    let (written, dropped) = OpenAiChat.encode_request(&request);
    let written: Value = serde_json::from_slice(&written).unwrap();
    assert_eq!(dropped, Vec::<String>::new());
    assert_eq!(written["messages"][0]["tool_calls"][0]["id"], written["messages"][1]["tool_call_id"]);
    assert_eq!(written["messages"][1], json!({ "role": "tool", "content": "4", "tool_call_id": "call_0" }));
}

#[test]
fn what_the_dialect_has_no_place_for_is_told() {
    let block = Block::new;
    let text = |text: &str| Content::Text { text: text.into(), citations: Vec::new() };
    let image = Source::Base64 { media_type: "image/png".into(), data: "AA==".into() };
    let shown = Content::Media { kind: "image".into(), source: image, title: None, detail: None };
    let file = Source::Url { url: "https://a.example/x.pdf".into() };
    let document = Content::Media { kind: "document".into(), source: file, title: None, detail: None };
    let result = Content::ToolResult { id: "t".into(), blocks: vec![block(text("r")), block(shown)], is_error: true };
    let foreign = Content::Opaque { dialect: "anthropic-messages".into(), json: json!({ "type": "x" }) };
    let request = Request {
        model: "m".into(),
        system: vec![Block { cache: Some(json!({ "type": "ephemeral" })), ..Block::new(text("s")) }],
        messages: vec![Message {
            role: Role::User,
            name: None,
            blocks: vec![block(result), block(text("u")), block(document), block(foreign)],
        }],
        tools: vec![Tool { opaque: Some(("anthropic-messages".into(), json!({}))), ..Tool::default() }],
        top_k: Some(5),
        reasoning: Some(Reasoning { enabled: Some(true), effort: None, budget_tokens: Some(4000) }),
        extensions: [("anthropic-messages".to_owned(), [("betas".to_owned(), json!([]))].into())].into(),
        ..Request::default()
    };
    let (written, dropped) = OpenAiChat.encode_request(&request);
    let expected = [
        "system[0].cache",
        "messages[0].blocks[0].is_error",
        "messages[0].blocks[2]",
        "messages[0].blocks[3]",
        "tools[0]",
        "top_k",
        "betas",
    ];
    assert_eq!(dropped, expected);
    let written: Value = serde_json::from_slice(&written).unwrap();
    let expected = json!({
        "model": "m",
        "messages": [
            { "role": "system", "content": "s" },
            { "role": "tool", "content": "r", "tool_call_id": "t" },
            { "role": "user", "content": [
                { "type": "image_url", "image_url": { "url": "data:image/png;base64,AA==" } },
                { "type": "text", "text": "u" },
            ]},
        ],
        "reasoning_effort": "medium",
    });
    assert_eq!(written, expected);
}

#[test]
fn a_vendor_that_takes_no_reasoning_back_gets_none() {
    let block = |content: Content| Block { content, ..Block::default() };
    let thought = Content::Reasoning { text: "t".into(), signature: Some("s".into()) };
    let said = Content::Text { text: "x".into(), citations: Vec::new() };
    let blocks = vec![block(thought), block(Content::Redacted { data: "d".into() }), block(said)];
    let request =
        Request { messages: vec![Message { role: Role::Assistant, name: None, blocks }], ..Request::default() };
    let style = Style { back: Back::Nowhere, output_limit: "max_completion_tokens", ..Style::default() };
    let (written, dropped) = OpenAiChat.encode_request_as(&request, &style);
    let written: Value = serde_json::from_slice(&written).unwrap();
    assert_eq!(written["messages"], json!([{ "role": "assistant", "content": "x" }]));
    assert_eq!(dropped, ["messages[0].blocks[0]", "messages[0].blocks[1]"]);
}

#[test]
fn faults_are_what_the_sdks_raise() {
    for class in FaultClass::ALL {
        let fault = Fault::new(*class, "what happened");
        let whole: Value = serde_json::from_slice(&OpenAiChat.encode_fault(&fault, "r")).unwrap();
        assert_eq!(whole["error"]["message"], "what happened");
        assert!(whole["error"]["type"].is_string() && whole["error"].get("param").is_some());
        let read = OpenAiChat.decode_fault(class.status(), &|_| None, whole.to_string().as_bytes());
        let same = match class {
            FaultClass::VendorBug => FaultClass::Overloaded, // a 502 is one
            class => *class,
        };
        assert_eq!(read.class, same, "a Penstock behind a Penstock");
        let mut stream = Vec::new();
        OpenAiChat.stream_encoder(&Envelope::default()).fault(&fault, &mut stream);
        assert_eq!(String::from_utf8(stream).unwrap(), format!("data: {whole}\n\n"));
    }
}

#[test]
fn operations_and_models() {
    let cases = [
        ("POST", "/chat/completions", Some(Operation::Chat)),
        ("POST", "/embeddings", Some(Operation::Embeddings)),
        ("GET", "/models", Some(Operation::Models)),
        ("GET", "/models/gpt", Some(Operation::Models)),
        ("POST", "/images/generations", Some(Operation::Images)),
        ("DELETE", "/files/file-1", Some(Operation::Files)),
        ("POST", "/vendors/mistral/v1/ocr", Some(Operation::Passthrough)),
        ("POST", "/vendors/mistral", None),
        ("GET", "/chat/completions", None),
        ("POST", "/messages", None),
    ];
    for (method, path, operation) in cases {
        let head = Head { method, path, query: "", header: &|_| None };
        assert_eq!(OpenAiChat.recognise(&head).map(|ask| ask.operation), operation, "{method} {path}");
    }
    let list = OpenAiChat.encode_models(&[ModelEntry { id: "a".into(), owner: "b".into() }]);
    let expected =
        json!({ "object": "list", "data": [{ "id": "a", "object": "model", "created": 0, "owned_by": "b" }] });
    assert_eq!(serde_json::from_slice::<Value>(&list).unwrap(), expected);
}
