// SPDX-License-Identifier: Apache-2.0
//! cohere-v2, what no recording shows: the rest of the request, what other vendors make its writers write, streams that
//! Cohere documents and nobody has recorded.

use penstock_dialects::anthropic_messages::AnthropicMessages;
use penstock_dialects::codec::{Codec, Envelope, Head, ModelEntry, Operation};
use penstock_dialects::cohere_v2::CohereV2;
use penstock_dialects::collect::CITATION;
use penstock_dialects::ir::{Block, Content, Event, Fault, FaultClass, Finish, Request, Response, Source, Usage};
use penstock_dialects::openai_chat::OpenAiChat;
use penstock_dialects::recognise;
use serde_json::{Value, json};

use crate::anthropic::recorded::{folded, streamed};
use crate::cohere::{as_stream, envelope, wire};

fn decoded(body: &Value) -> Request {
    CohereV2.decode_request(body.to_string().as_bytes()).unwrap()
}

fn encoded(request: &Request) -> (Value, Vec<String>) {
    let (body, dropped) = CohereV2.encode_request(request);
    (serde_json::from_slice(&body).unwrap(), dropped)
}

fn finish(reason: &str) -> Event {
    Event::Finish(Finish { reason: reason.into(), sequence: None })
}

fn other(name: &str, json: &Value) -> Event {
    Event::Other { name: name.into(), json: json.to_string() }
}

#[test]
fn a_head_is_recognised_and_nobody_elses_is_taken() {
    let ask = |method: &str, path: &str, header: &'static str, allowed: &[&str]| {
        let header = move |name: &str| (name == header).then_some("cohere");
        let head = Head { method, path, query: "", header: &header };
        let allowed: Vec<String> = allowed.iter().map(|name| (*name).to_owned()).collect();
        recognise(&head, &allowed).map(|(codec, ask)| (codec.name(), ask.operation))
    };
    let cohere = |operation| Some(("cohere-v2", operation));
    let both = ["cohere-v2", "openai-chat", "anthropic-messages"];
    assert_eq!(ask("POST", "/chat", "", &["cohere-v2"]), cohere(Operation::Chat));
    assert_eq!(ask("POST", "/embed", "", &both), cohere(Operation::Embeddings));
    assert_eq!(ask("POST", "/rerank", "", &["cohere-v2"]), cohere(Operation::Rerank));
    assert_eq!(ask("GET", "/models/x", "x-client-name", &["cohere-v2"]), cohere(Operation::Models));
    assert_eq!(
        ask("GET", "/models", "anthropic-version", &["cohere-v2"]),
        cohere(Operation::Models),
        "alone on its route"
    );
    assert_eq!(
        ask("GET", "/models", "anthropic-version", &["cohere-v2", "openai-chat"]).map(|(name, _)| name),
        Some("openai-chat")
    );
    assert_eq!(ask("GET", "/chat", "", &["cohere-v2"]), None);
    assert_eq!(ask("POST", "/chat/completions", "", &["cohere-v2"]), None);
    assert_eq!(ask("POST", "/rerank", "", &both), Some(("openai-chat", Operation::Rerank)));
    assert_eq!(ask("GET", "/models", "x-client-name", &both), Some(("openai-chat", Operation::Models)));
    assert_eq!(ask("POST", "/embeddings", "", &both), Some(("openai-chat", Operation::Embeddings)));
}

fn full_request() -> Value {
    json!({
        "model": "command-a",
        "messages": [
            { "role": "system", "content": "be brief" },
            { "role": "user", "content": [
                { "type": "text", "text": "look" },
                { "type": "image_url", "image_url": { "url": "data:image/png;base64,AAAA", "detail": "low" } },
            ] },
            { "role": "assistant", "tool_plan": "I will look", "tool_calls": [
                { "id": "t1", "type": "function", "function": { "name": "f", "arguments": "{\"a\":1}" } },
                { "id": "t2", "type": "function", "function": { "name": "g", "arguments": "{}" } },
            ] },
            { "role": "tool", "tool_call_id": "t1", "content": [
                { "type": "document", "document": { "id": "d", "data": { "title": "T", "snippet": "S" } } },
                { "type": "document", "document": { "data": "plain" } },
            ] },
            { "role": "tool", "tool_call_id": "t2", "content": "12" },
            { "role": "assistant",
                "content": [
                    { "type": "thinking", "thinking": "hm", "signature": "seal" },
                    { "type": "thinking", "thinking": "", "redacted": "bytes" },
                    { "type": "text", "text": "It is S." },
                ],
                "citations": [{ "start": 6, "end": 7, "text": "S", "type": "TEXT_CONTENT",
                    "sources": [{ "type": "tool", "id": "t1:0", "tool_output": { "snippet": "S" } }] }] },
            { "role": "user", "content": "and?" },
        ],
        "documents": ["one", { "id": "2", "data": { "title": "Two", "text": "zwei" } }],
        "tools": [{ "type": "function", "function": { "name": "f", "description": "d", "parameters": { "type": "object" } } }],
        "strict_tools": true,
        "tool_choice": "NONE",
        "max_tokens": 7, "temperature": 0.3, "p": 0.5, "k": 9, "seed": 3,
        "stop_sequences": ["x", "y"],
        "thinking": { "type": "enabled", "token_budget": 500 },
        "stream": true,
        "citation_options": { "mode": "FAST" },
        "safety_mode": "STRICT",
        "frequency_penalty": 0.1, "presence_penalty": 0.2, "logprobs": true, "priority": 5,
    })
}

#[test]
fn a_request_with_everything_goes_through_unharmed_but_for_seals_that_cohere_cannot_use() {
    let mut body = full_request();
    let request = decoded(&body);
    let (written, dropped) = encoded(&request);
    let parts = body["messages"][5]["content"].as_array_mut().unwrap();
    parts[0].as_object_mut().unwrap().shift_remove("signature");
    parts.remove(1);
    assert_eq!(written, body);
    assert_eq!(dropped, ["messages[3].blocks[0].signature", "messages[3].blocks[1]"]);
    let json = serde_json::to_string(&request).unwrap();
    assert_eq!(serde_json::from_str::<Request>(&json).unwrap(), request);
    assert!(request.stream_usage, "a stream of this dialect always tells its usage");
}

#[test]
fn what_is_canonical_of_a_request_reaches_other_vendors() {
    let request = decoded(&full_request());
    let (openai, dropped) = OpenAiChat.encode_request(&request);
    let openai: Value = serde_json::from_slice(&openai).unwrap();
    let roles: Vec<&str> = openai["messages"].as_array().unwrap().iter().map(|m| m["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["system", "user", "assistant", "tool", "tool", "assistant", "user"]);
    assert_eq!(openai["messages"][3]["content"][0]["text"], "S", "a document as text");
    assert_eq!(openai["messages"][6]["content"][0]["text"], "one", "the documents with what is asked of them");
    assert_eq!((&openai["top_p"], &openai["stop"]), (&json!(0.5), &json!(["x", "y"])));
    assert_eq!(openai["stream_options"]["include_usage"], true);
    for name in ["citation_options", "safety_mode", "priority"] {
        assert!(dropped.iter().any(|path| path == name), "{name}: {dropped:?}");
    }
    let (anthropic, _) = AnthropicMessages.encode_request(&request);
    let anthropic: Value = serde_json::from_slice(&anthropic).unwrap();
    let last = anthropic["messages"].as_array().unwrap().last().unwrap();
    assert_eq!(last["content"][1]["title"], "Two");
    assert_eq!(last["content"][1]["source"]["data"], "zwei");
}

#[test]
fn requests_of_other_dialects_are_written_as_cohere_takes_them() {
    let openai = |more: Value| {
        let mut body = json!({ "model": "m", "messages": [{ "role": "user", "content": "a" }] });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        encoded(&OpenAiChat.decode_request(body.to_string().as_bytes()).unwrap())
    };
    let tools = json!([
        { "type": "function", "function": { "name": "f", "strict": true } },
        { "type": "function", "function": { "name": "g", "strict": false } },
    ]);
    let (body, dropped) = openai(json!({
        "tools": tools, "tool_choice": { "type": "function", "function": { "name": "g" } },
        "parallel_tool_calls": false, "user": "u", "top_p": 1, "stop": ["1", "2", "3", "4", "5", "6"],
        "frequency_penalty": 0.5, "presence_penalty": -1, "logprobs": true, "top_logprobs": 2, "reasoning_effort": "low",
    }));
    assert_eq!(body["tools"].as_array().unwrap().len(), 1, "the only tool that may be called");
    assert_eq!(body["tools"][0]["function"]["parameters"], json!({ "type": "object", "properties": {} }));
    assert_eq!((&body["tool_choice"], &body["strict_tools"]), (&json!("REQUIRED"), &json!(false)));
    assert_eq!((&body["p"], &body["frequency_penalty"], &body["logprobs"]), (&json!(0.99), &json!(0.5), &json!(true)));
    assert_eq!(body["stop_sequences"].as_array().unwrap().len(), 5);
    assert_eq!(body["thinking"], json!({ "type": "enabled", "token_budget": 2048 }));
    assert_eq!(dropped, ["parallel_tools", "stop[5]", "user", "presence_penalty", "top_logprobs"]);

    let (body, dropped) = openai(json!({ "tools": tools, "reasoning_effort": "none" }));
    assert_eq!(dropped, ["tools[0].strict", "tools[1].strict"]);
    assert_eq!(body["thinking"], json!({ "type": "disabled" }));

    let schema = json!({ "type": "object", "properties": { "a": { "type": "string" } } });
    let (body, _) = openai(json!({ "response_format":
        { "type": "json_schema", "json_schema": { "name": "n", "strict": true, "schema": schema } } }));
    assert_eq!(body["response_format"], json!({ "type": "json_object", "json_schema": schema }));
    let again = decoded(&body);
    assert_eq!(encoded(&again).0, body);
}

#[test]
fn what_a_tool_shows_stands_after_its_result() {
    let image = Content::Media {
        kind: "image".into(),
        source: Source::Url { url: "https://x/y.png".into() },
        title: None,
        detail: None,
    };
    let document = Content::Media {
        kind: "document".into(),
        source: Source::Text { text: "words".into() },
        title: Some("T".into()),
        detail: None,
    };
    let blocks = vec![Block::text("seen"), Block::new(document.clone()), Block::new(image)];
    let result = Content::ToolResult { id: "t".into(), blocks, is_error: true };
    let mut request = decoded(&json!({ "model": "m", "messages": [{ "role": "user", "content": "a" }] }));
    request.messages[0].blocks = vec![Block::new(result), Block::new(document), Block::text("well?")];
    let (body, dropped) = encoded(&request);
    let titled = json!({ "data": { "title": "T", "text": "words" } });
    assert_eq!(
        body["messages"],
        json!([
            { "role": "tool", "tool_call_id": "t", "content": [
                { "type": "text", "text": "seen" }, { "type": "document", "document": titled }] },
            { "role": "user", "content": [
                { "type": "image_url", "image_url": { "url": "https://x/y.png" } }, { "type": "text", "text": "well?" }] },
        ])
    );
    assert_eq!(body["documents"], json!([titled]));
    assert_eq!(dropped, ["messages[0].blocks[0].is_error"]);
    // The API takes no documents together with a shape of the answer.
    request.format = Some(penstock_dialects::ir::Format::Json);
    let (body, _) = encoded(&request);
    assert_eq!((body.get("documents"), &body["messages"][1]["content"][1]["text"]), (None, &json!("words")));
}

#[test]
fn a_wrong_request_is_refused_with_its_path() {
    let message = |message: Value| json!({ "model": "m", "messages": [message] });
    let cases = [
        (json!({ "messages": [] }), "model: is required"),
        (json!({ "model": "m" }), "messages: is required"),
        (json!({ "model": "m", "messages": [] }), "messages: must have at least one message"),
        (message(json!({ "role": "robot", "content": "" })), "messages[0].role: unknown role \"robot\""),
        (message(json!({ "role": "user" })), "messages[0].content: is required"),
        (
            message(json!({ "role": "user", "content": [{ "type": "text" }] })),
            "messages[0].content[0].text: is required",
        ),
        (message(json!({ "role": "tool", "content": "x" })), "messages[0].tool_call_id: is required"),
        (
            message(json!({ "role": "assistant", "tool_calls": [{ "function": {} }] })),
            "messages[0].tool_calls[0].function.name: is required",
        ),
        (
            json!({ "model": "m", "messages": [{ "role": "user", "content": "a" }], "thinking": { "type": "auto" } }),
            "thinking.type: must be enabled or disabled",
        ),
        (
            json!({ "model": "m", "messages": [{ "role": "user", "content": "a" }], "tool_choice": "f" }),
            "tool_choice: must be REQUIRED or NONE",
        ),
    ];
    for (body, expected) in cases {
        let fault = CohereV2.decode_request(body.to_string().as_bytes()).unwrap_err();
        assert_eq!((fault.class, fault.message.as_str()), (FaultClass::InvalidRequest, expected));
    }
}

/// The stream in words: begins with their kind, deltas with their text.
fn told(stream: &[u8]) -> String {
    let word = |(name, event): &(String, Value)| {
        let message = &event["delta"]["message"];
        let index = &event["index"];
        match name.as_str() {
            "content-start" => format!("+{}{index}", message["content"]["type"].as_str().unwrap()),
            "content-delta" => message["content"].to_string(),
            "content-end" => format!("-{index}"),
            "tool-plan-delta" => format!("plan:{}", message["tool_plan"].as_str().unwrap()),
            "tool-call-start" => format!("+call{index}:{}", message["tool_calls"]["id"].as_str().unwrap()),
            "tool-call-delta" => format!("call{index}:{}", message["tool_calls"]["function"]["arguments"]),
            "tool-call-end" => format!("-call{index}"),
            "message-end" => event["delta"]["finish_reason"].as_str().unwrap().to_owned(),
            "" => "[DONE]".to_owned(),
            name => name.to_owned(),
        }
    };
    wire(stream).iter().map(word).collect::<Vec<_>>().join(" ")
}

#[test]
fn what_other_vendors_say_is_written_in_the_grammar_of_this_dialect() {
    let tool = |index: u32, id: &str| Event::Tool { index, id: id.into(), name: "f".into() };
    let input = |index: u32, json: &str| Event::ToolInput { index, json: json.into() };
    let text = |text: &str| Event::Text(text.into());
    let cases = [
        ("nothing", vec![finish("stop")], "message-start COMPLETE [DONE]"),
        (
            "a sealed thought, a redacted one, a text",
            vec![
                Event::Reasoning("t".into()),
                Event::Signature("s".into()),
                Event::Redacted("r".into()),
                text("a"),
                finish("length"),
            ],
            r#"message-start +thinking0 {"thinking":"t"} {"signature":"s"} -0 +thinking1 {"redacted":"r"} -1 +text2 {"text":"a"} -2 MAX_TOKENS [DONE]"#,
        ),
        (
            "a seal of what follows",
            vec![Event::Signature("s".into()), tool(0, ""), input(0, "{}"), finish("stop")],
            r#"message-start +thinking0 {"signature":"s"} -0 +call0:call_r-1_0 call0:"{}" -call0 TOOL_CALL [DONE]"#,
        ),
        (
            "calls at once, mixed",
            vec![tool(0, "a"), tool(1, "b"), input(1, "{"), input(0, "{}"), input(1, "}"), finish("tool_calls")],
            r#"message-start +call0:a -call0 +call1:b call1:"{" call0:"{}" call1:"}" -call1 TOOL_CALL [DONE]"#,
        ),
        (
            "a refusal and a filter",
            vec![Event::Refusal("no".into()), finish("content_filter")],
            r#"message-start +text0 {"text":"no"} -0 ERROR_TOXIC [DONE]"#,
        ),
        (
            "a foreign citation has no place",
            vec![text("a"), other(CITATION, &json!({ "type": "char_location" })), finish("stop_sequence")],
            r#"message-start +text0 {"text":"a"} -0 STOP_SEQUENCE [DONE]"#,
        ),
    ];
    for (name, events, expected) in cases {
        let stream = as_stream(&CohereV2, &events);
        assert_eq!(told(&stream), expected, "{name}");
        for (name, event) in wire(&stream) {
            assert!(event.is_null() || event["type"] == name);
        }
    }
}

#[test]
fn a_fault_ends_a_stream_as_cohere_ends_it() {
    let fault = Fault { code: Some("INVALID_TOOL_GENERATION".into()), ..Fault::new(FaultClass::VendorBug, "bad") };
    let stream = as_stream(&CohereV2, &[Event::Text("a".into()), Event::Fault(fault.clone())]);
    assert_eq!(told(&stream), r#"message-start +text0 {"text":"a"} -0 ERROR [DONE]"#);
    let again = folded(&streamed(&CohereV2, &stream));
    assert_eq!((again.fault, again.finish), (Some(fault), None));
    let long = as_stream(&CohereV2, &[Event::Fault(Fault::new(FaultClass::ContextTooLong, "long"))]);
    assert_eq!(folded(&streamed(&CohereV2, &long)).fault.unwrap().class, FaultClass::ContextTooLong);
}

fn events_of(events: &[Value]) -> Vec<Event> {
    let line = |event: &Value| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or_default());
    let stream: String = events.iter().map(line).collect();
    streamed(&CohereV2, format!("{stream}data: [DONE]\n\n").as_bytes())
}

#[test]
fn documented_streams_are_read() {
    let delta = |kind: &str, index: u64, message: Value| json!({ "type": kind, "index": index, "delta": { "message": message } });
    let cited = |text: &str| json!({ "start": 0, "end": 1, "text": text, "sources": [] });
    let usage = json!({ "tokens": { "input_tokens": 3, "output_tokens": 2 } });
    let events = events_of(&[
        json!({ "type": "message-start", "id": "x", "delta": { "message": { "role": "assistant" } } }),
        delta("content-start", 0, json!({ "content": { "type": "thinking", "thinking": "h" } })),
        delta("content-delta", 0, json!({ "content": { "thinking": "m" } })),
        delta("citation-start", 0, json!({ "citations": cited("while thinking") })),
        json!({ "type": "content-end", "index": 0 }),
        json!({ "type": "debug", "prompt": "p" }),
        delta("content-start", 1, json!({ "content": { "type": "text", "text": "" } })),
        json!({ "type": "content-delta", "index": 1, "delta": { "message": { "content": { "text": "H" } } },
            "logprobs": { "text": "H", "token_ids": [5], "logprobs": [-0.1] } }),
        json!({ "type": "content-end", "index": 1 }),
        delta("citation-start", 1, json!({ "citations": cited("late") })),
        json!({ "type": "citation-end", "index": 1 }),
        json!({ "type": "unheard-of" }),
        json!({ "type": "message-end", "delta": { "finish_reason": "MAX_TOKENS", "usage": usage } }),
    ]);
    let response = folded(&events);
    let thought = Content::Reasoning { text: "hm".into(), signature: None };
    let text = Content::Text { text: "H".into(), citations: vec![cited("while thinking"), cited("late")] };
    let contents: Vec<Content> = response.blocks.iter().map(|block| block.content.clone()).collect();
    assert_eq!(contents, [thought, text]);
    assert_eq!(response.finish.as_ref().map(|finish| finish.reason.as_str()), Some("length"));
    // A caller of OpenAI's dialect reads probabilities in its own form; one of Cohere's as Cohere wrote them.
    let openai: Value = serde_json::from_slice(&OpenAiChat.encode_response(&response, &envelope())).unwrap();
    assert_eq!(openai["choices"][0]["logprobs"]["content"][0]["logprob"], json!(-0.1));
    let ours: Value = serde_json::from_slice(&CohereV2.encode_response(&response, &envelope())).unwrap();
    assert_eq!(ours["logprobs"], json!([{ "text": "H", "token_ids": [5], "logprobs": [-0.1] }]));
    assert_eq!(ours["message"]["content"][0], json!({ "type": "thinking", "thinking": "hm" }));
    let stream = as_stream(&CohereV2, &events);
    assert_eq!(folded(&streamed(&CohereV2, &stream)), response);
}

#[test]
fn failures_inside_an_answer_are_faults() {
    let fault = |events: &[Value]| folded(&events_of(events)).fault.map(|fault| (fault.class, fault.message));
    let timeout = json!({ "type": "message-end", "delta": { "finish_reason": "TIMEOUT" } });
    assert_eq!(fault(&[timeout]), Some((FaultClass::Timeout, "the vendor broke its answer off: TIMEOUT".to_owned())));
    let bare = json!({ "id": "x", "message": "too many tokens: size limit exceeded" });
    assert_eq!(fault(std::slice::from_ref(&bare)).map(|(class, _)| class), Some(FaultClass::ContextTooLong));
    let whole = CohereV2.decode_response(bare.to_string().as_bytes()).unwrap_err();
    assert_eq!(whole.class, FaultClass::ContextTooLong);
    let failed = json!({ "id": "x", "message": { "role": "assistant" }, "finish_reason": "ERROR", "error": "broken" });
    let whole = CohereV2.decode_response(failed.to_string().as_bytes()).unwrap_err();
    assert_eq!((whole.class, whole.message.as_str()), (FaultClass::VendorBug, "broken"));
    for nonsense in ["", "[]", "{}", "<html>", r#"{"message":null}"#] {
        assert_eq!(CohereV2.decode_response(nonsense.as_bytes()).unwrap_err().class, FaultClass::VendorBug);
    }
    let cut = events_of(&[json!({ "type": "message-start", "id": "x" })]);
    assert!(!cut.iter().any(|event| matches!(event, Event::Finish(_))), "a cut is no finish");
}

#[test]
fn hostile_bytes_do_no_harm() {
    let frames = [
        r#"{"type":"content-delta","index":18446744073709551615,"delta":{"message":{"content":{"text":"a"}}}}"#,
        r#"{"type":"tool-call-delta","index":7,"delta":{"message":{"tool_calls":{"function":{"arguments":{"a":1}}}}}}"#,
        r#"{"type":"content-start","delta":{"message":{"content":[]}}}"#,
        r#"{"type":"message-end","delta":null}"#,
        r#"{"type":7}"#,
        "null",
        "not json",
    ];
    for frame in frames {
        for name in ["", "event: content-delta\n"] {
            streamed(&CohereV2, format!("{name}data: {frame}\n\n").as_bytes());
        }
    }
}

#[test]
fn an_answer_that_says_nothing_has_an_empty_text_and_models_are_listed() {
    let ours = CohereV2.encode_response(&Response::default(), &envelope());
    let ours: Value = serde_json::from_slice(&ours).unwrap();
    assert_eq!(ours["message"]["content"], json!([{ "type": "text", "text": "" }]));
    assert_eq!((&ours["id"], &ours["finish_reason"]), (&json!("r-1"), &json!("COMPLETE")));
    let models = CohereV2.encode_models(&[ModelEntry { id: "m".into(), owner: "o".into() }]);
    let models: Value = serde_json::from_slice(&models).unwrap();
    assert_eq!(models["models"][0]["name"], "m");
    let count = CohereV2.encode_count(&Usage { input: 3, cache_read: 4, ..Usage::default() });
    assert_eq!(serde_json::from_slice::<Value>(&count).unwrap(), json!({ "input_tokens": 7 }));
    assert!(CohereV2.decode_task(Operation::Images, b"{}").is_err());
    assert!(CohereV2.decode_result(Operation::Videos, b"{}").is_err());
    assert_eq!(CohereV2.encode_result(Operation::Images, &Response::default(), &Envelope::default()), b"");
}
