// SPDX-License-Identifier: Apache-2.0
//! Between Chat Completions and the first API of Qianfan (<https://cloud.baidu.com/doc/WENXINWORKSHOP/s/clntwmv7t>): text only,
//! instructions apart, one function call in a turn, turns that alternate and begin and end with the user.

use penstock_sdk::dialects::ir::{Fault, FaultClass};
use serde_json::{Map, Value, json};

/// Members of a request that it has, too, and what it calls them.
const MEMBERS: [(&str, &str); 6] = [
    ("temperature", "temperature"),
    ("top_p", "top_p"),
    ("stop", "stop"),
    ("stream", "stream"),
    ("max_tokens", "max_output_tokens"),
    ("user", "user_id"),
];

/// The request of Qianfan for a request of Chat Completions, and the paths of what it has no place for.
///
/// # Errors
/// A fault if the conversation does not begin and end with the user.
pub(crate) fn request(mut chat: Map<String, Value>) -> Result<(Value, Vec<String>), Fault> {
    let (mut wire, mut dropped) = (Map::new(), Vec::new());
    let (system, messages) = conversation(chat.shift_remove("messages").unwrap_or_default(), &mut dropped)?;
    wire.insert("messages".to_owned(), Value::from(messages));
    if !system.is_empty() {
        wire.insert("system".to_owned(), Value::from(system));
    }
    let forbidden = chat.get("tool_choice").is_some_and(|choice| choice == "none");
    for (name, value) in chat {
        match name.as_str() {
            "model" => {}
            "tools" if forbidden => {}
            "tools" => {
                let functions = value.as_array().into_iter().flatten().map(function).collect();
                wire.insert("functions".to_owned(), functions);
            }
            "tool_choice" if value.is_object() => {
                wire.insert(name, value);
            }
            "tool_choice" if value == "auto" || value == "none" => {}
            "response_format" if value["type"] == "json_object" => {
                wire.insert(name, Value::from("json_object"));
            }
            _ => match MEMBERS.iter().find(|(known, _)| *known == name) {
                Some((_, theirs)) => {
                    wire.insert((*theirs).to_owned(), value);
                }
                None => dropped.push(name),
            },
        }
    }
    Ok((Value::Object(wire), dropped))
}

fn function(tool: &Value) -> Value {
    let mut function = tool["function"].clone();
    if let Some(function) = function.as_object_mut() {
        function.shift_remove("strict");
        function.entry("parameters").or_insert_with(|| json!({ "type": "object", "properties": {} }));
        function.entry("description").or_insert_with(|| Value::from(""));
    }
    function
}

/// The instructions, and the turns.
fn conversation(messages: Value, dropped: &mut Vec<String>) -> Result<(String, Vec<Value>), Fault> {
    let Value::Array(messages) = messages else { return Ok(Default::default()) };
    let (mut system, mut turns): (String, Vec<Value>) = (String::new(), Vec::new());
    let mut calls: Vec<Value> = Vec::new();
    for (index, message) in messages.iter().enumerate() {
        let text = text(&message["content"], &format!("messages[{index}].content"), dropped);
        match message["role"].as_str().unwrap_or_default() {
            "system" if index == 0 => system = text,
            "assistant" => {
                calls = message["tool_calls"].as_array().cloned().unwrap_or_default();
                let said = json!({ "role": "assistant", "content": text });
                if calls.is_empty() || !text.is_empty() {
                    push(&mut turns, said);
                }
            }
            "tool" => {
                // One call in a turn here: each goes right before its result.
                let called = calls.iter().find(|call| call["id"] == message["tool_call_id"]);
                let called = called.map(|call| &call["function"]).unwrap_or(&Value::Null);
                let call = json!({ "name": called["name"], "arguments": called["arguments"] });
                push(&mut turns, json!({ "role": "assistant", "content": "", "function_call": call }));
                push(&mut turns, json!({ "role": "function", "name": called["name"], "content": text }));
            }
            _ => push(&mut turns, json!({ "role": "user", "content": text })),
        }
    }
    let is_caller = |turn: Option<&Value>| turn.is_some_and(|turn| turn["role"] != "assistant");
    if !is_caller(turns.first()) || !is_caller(turns.last()) {
        let text = "messages: at this vendor a conversation begins and ends with the user";
        return Err(Fault::new(FaultClass::InvalidRequest, text));
    }
    Ok((system, turns))
}

/// Adds a turn. Two of one side become one: the user's and a function's are of one side.
fn push(turns: &mut Vec<Value>, turn: Value) {
    let is_model = |turn: &Value| turn["role"] == "assistant";
    match turns.last_mut().filter(|last| is_model(last) == is_model(&turn)) {
        Some(last) => {
            let texts = [&last["content"], &turn["content"]].map(|text| text.as_str().unwrap_or_default());
            let texts: Vec<_> = texts.into_iter().filter(|text| !text.is_empty()).collect();
            last["content"] = Value::from(texts.join("\n\n"));
            if turn["function_call"].is_object() {
                last["function_call"] = turn["function_call"].clone();
            }
        }
        None => turns.push(turn),
    }
}

/// The text of a content.
fn text(content: &Value, path: &str, dropped: &mut Vec<String>) -> String {
    let Some(parts) = content.as_array() else { return content.as_str().unwrap_or_default().to_owned() };
    let mut texts = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        match part["text"].as_str() {
            Some(text) => texts.push(text),
            None => dropped.push(format!("{path}[{index}]")),
        }
    }
    texts.join("\n")
}

/// An answer or a chunk of Qianfan as one of Chat Completions.
///
/// # Errors
/// The error that it states, under HTTP 200.
pub(crate) fn answer(json: &[u8], whole: bool) -> Result<Value, Fault> {
    let answer: Value = serde_json::from_slice(json)
        .map_err(|error| Fault::new(FaultClass::VendorBug, format!("the vendor's answer is not JSON: {error}")))?;
    if let Some(code) = answer["error_code"].as_i64().filter(|code| *code != 0) {
        let message = answer["error_msg"].as_str().unwrap_or_default();
        return Err(Fault { code: Some(code.to_string()), ..Fault::new(class(code), message) });
    }
    let mut message = Map::new();
    message.insert("content".to_owned(), answer["result"].clone());
    if let call @ Value::Object(_) = &answer["function_call"] {
        message.insert("reasoning_content".to_owned(), call["thoughts"].clone());
        let function = json!({ "name": call["name"], "arguments": call["arguments"] });
        message.insert("tool_calls".to_owned(), json!([{ "index": 0, "type": "function", "function": function }]));
    }
    let ended = whole || answer["is_end"] == true;
    let finish = ended.then(|| finish(&answer));
    let member = if whole { "message" } else { "delta" };
    let choice = json!({ "index": 0, member: message, "finish_reason": finish });
    Ok(json!({ "id": answer["id"], "model": "", "choices": [choice], "usage": answer["usage"] }))
}

fn finish(answer: &Value) -> &str {
    match answer["finish_reason"].as_str().unwrap_or_default() {
        // What the vendor wants forgotten it has refused.
        _ if answer["need_clear_history"] == true => "content_filter",
        _ if answer["function_call"].is_object() => "tool_calls",
        _ if answer["is_truncated"] == true => "length",
        "" | "normal" => "stop",
        "function_call" => "tool_calls",
        other => other,
    }
}

/// The class of an error code (<https://cloud.baidu.com/doc/WENXINWORKSHOP/s/tlmyncueh>).
fn class(code: i64) -> FaultClass {
    match code {
        4 | 18 | 336_501..=336_503 => FaultClass::RateLimit,
        17 | 19 => FaultClass::Quota,
        6 | 336_004 => FaultClass::Permission,
        13..=15 | 100 | 110 | 111 => FaultClass::Authentication,
        336_007 | 336_103 | 336_104 => FaultClass::ContextTooLong,
        3 | 336_001..=336_106 => match code {
            336_100 => FaultClass::Overloaded,
            _ => FaultClass::InvalidRequest,
        },
        1 | 2 | 336_000 | 336_200 => FaultClass::Overloaded,
        _ => FaultClass::VendorBug,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_classes() {
        let cases = [
            (4, FaultClass::RateLimit),
            (17, FaultClass::Quota),
            (18, FaultClass::RateLimit),
            (110, FaultClass::Authentication),
            (111, FaultClass::Authentication),
            (336_003, FaultClass::InvalidRequest),
            (336_100, FaultClass::Overloaded),
            (336_103, FaultClass::ContextTooLong),
            (336_501, FaultClass::RateLimit),
            (336_502, FaultClass::RateLimit),
            (999_999, FaultClass::VendorBug),
        ];
        for (code, expected) in cases {
            assert_eq!(class(code), expected, "{code}");
        }
    }

    #[test]
    fn a_conversation_has_an_odd_number_of_turns_whatever_the_caller_sends() {
        let call = |id: &str| json!({"id": id, "type": "function", "function": {"name": "f", "arguments": id}});
        let messages = json!([
            {"role": "system", "content": "s"},
            {"role": "user", "content": "a"},
            {"role": "user", "content": [{"type": "text", "text": "b"}, {"type": "image_url"}]},
            {"role": "assistant", "content": null, "tool_calls": [call("1"), call("2")]},
            {"role": "tool", "tool_call_id": "1", "content": "one"},
            {"role": "tool", "tool_call_id": "2", "content": "two"},
            {"role": "user", "content": "c"},
        ]);
        let mut dropped = Vec::new();
        let (system, turns) = conversation(messages, &mut dropped).unwrap();
        let called = |arguments: &str| json!({"role": "assistant", "content": "", "function_call": {"name": "f", "arguments": arguments}});
        let expected = [
            json!({"role": "user", "content": "a\n\nb"}),
            called("1"),
            json!({"role": "function", "name": "f", "content": "one"}),
            called("2"),
            json!({"role": "function", "name": "f", "content": "two\n\nc"}),
        ];
        assert_eq!((system.as_str(), turns.as_slice()), ("s", expected.as_slice()));
        assert_eq!(dropped, ["messages[2].content[1]"]);
        let ends_with_the_model = json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]);
        assert!(conversation(ends_with_the_model, &mut Vec::new()).is_err());
    }
}
