// SPDX-License-Identifier: Apache-2.0
//! Between Chat Completions and Hunyuan's own form of it (<https://cloud.tencent.com/document/api/1729/105701>), which has
//! other names, the schema of a tool as text, and one instruction at the beginning.

use penstock_sdk::dialects::ir::{Fault, FaultClass};
use penstock_sdk::dialects::openai_chat::ways::Turns;
use serde_json::{Map, Value, json};

/// Members of a request that Hunyuan has, too.
const MEMBERS: [&str; 7] = ["model", "stream", "temperature", "top_p", "seed", "stop", "enable_thinking"];
/// Members of a message that it has, too.
const MESSAGE_MEMBERS: [&str; 5] = ["role", "content", "tool_call_id", "tool_calls", "reasoning_content"];

/// What error codes mean: the first that a code begins with.
const CODES: &[(&str, FaultClass)] = &[
    ("AuthFailure.UnauthorizedOperation", FaultClass::Permission),
    ("AuthFailure", FaultClass::Authentication),
    ("UnauthorizedOperation", FaultClass::Permission),
    ("RequestLimitExceeded", FaultClass::RateLimit),
    ("LimitExceeded", FaultClass::RateLimit),
    ("FailedOperation.EngineServerLimitExceeded", FaultClass::RateLimit),
    ("FailedOperation.EngineRequestTimeout", FaultClass::Timeout),
    ("FailedOperation.FreeResourcePackExhausted", FaultClass::Quota),
    ("FailedOperation.ResourcePackExhausted", FaultClass::Quota),
    ("FailedOperation.ServiceNotActivated", FaultClass::Permission),
    ("FailedOperation.ServiceStop", FaultClass::Billing),
    ("FailedOperation.SetPayModeExceed", FaultClass::Billing),
    ("ResourceUnavailable.InArrears", FaultClass::Billing),
    ("ResourceUnavailable.LowBalance", FaultClass::Billing),
    ("ResourceInsufficient", FaultClass::Quota),
    ("OperationDenied", FaultClass::ContentFilter),
    ("InvalidParameterValue.Model", FaultClass::ModelNotFound),
    ("ResourceNotFound", FaultClass::ModelNotFound),
    ("InvalidParameter", FaultClass::InvalidRequest),
    ("MissingParameter", FaultClass::InvalidRequest),
    ("UnknownParameter", FaultClass::InvalidRequest),
    ("UnsupportedOperation", FaultClass::Unsupported),
    ("InternalError", FaultClass::Overloaded),
    ("FailedOperation", FaultClass::Overloaded),
];

/// The request of Hunyuan for a request of Chat Completions, and the paths of what it has no place for.
pub(crate) fn request(chat: Map<String, Value>) -> (Value, Vec<String>) {
    let (mut wire, mut dropped) = (Map::new(), Vec::new());
    let tools: Vec<Value> = chat.get("tools").and_then(Value::as_array).into_iter().flatten().map(tool).collect();
    for (name, value) in chat {
        match name.as_str() {
            "messages" => {
                wire.insert("Messages".to_owned(), messages(value, &mut dropped));
            }
            "tools" => {
                wire.insert("Tools".to_owned(), Value::from(tools.clone()));
            }
            "tool_choice" => match (value.as_str(), value["function"]["name"].as_str()) {
                (Some(word), _) => {
                    wire.insert("ToolChoice".to_owned(), Value::from(word));
                }
                (None, named) => {
                    let chosen = tools.iter().find(|tool| tool["Function"]["Name"].as_str() == named);
                    wire.insert("ToolChoice".to_owned(), Value::from("custom"));
                    wire.insert("CustomTool".to_owned(), chosen.cloned().unwrap_or_default());
                }
            },
            known if MEMBERS.contains(&known) => {
                wire.insert(pascal(known), value);
            }
            _ => dropped.push(name),
        }
    }
    (Value::Object(wire), dropped)
}

/// Instructions stand at the beginning, once; the user and the model take turns.
fn messages(messages: Value, dropped: &mut Vec<String>) -> Value {
    let Value::Array(mut messages) = messages else { return messages };
    for message in messages.iter_mut().skip(1).filter(|message| message["role"] == "system") {
        message["role"] = Value::from("user");
    }
    Turns { alternate: true, ..Turns::default() }.shape(&mut messages, dropped);
    messages.into_iter().enumerate().map(|(index, message)| self::message(message, index, dropped)).collect()
}

fn message(message: Value, index: usize, dropped: &mut Vec<String>) -> Value {
    let Value::Object(members) = message else { return message };
    let mut wire = Map::new();
    for (name, value) in members {
        match (name.as_str(), value) {
            (_, Value::Null) => {}
            ("content", parts @ Value::Array(_)) => {
                wire.insert("Contents".to_owned(), renamed(parts, &pascal));
            }
            (known, value) if MESSAGE_MEMBERS.contains(&known) => {
                wire.insert(pascal(known), renamed(value, &pascal));
            }
            _ => dropped.push(format!("messages[{index}].{name}")),
        }
    }
    Value::Object(wire)
}

/// A tool; its schema is text.
fn tool(tool: &Value) -> Value {
    let function = &tool["function"];
    let schema =
        if function["parameters"].is_null() { json!({ "type": "object" }) } else { function["parameters"].clone() };
    let mut wire = json!({ "Name": function["name"], "Parameters": schema.to_string() });
    if let Some(description) = function["description"].as_str() {
        wire["Description"] = Value::from(description);
    }
    json!({ "Type": "function", "Function": wire })
}

/// An answer or a chunk of Hunyuan as one of Chat Completions, and its usage as it came. A whole answer is wrapped, a chunk
/// is not.
///
/// # Errors
/// The error that it states, under HTTP 200.
pub(crate) fn answer(json: &[u8]) -> Result<(Value, String), Fault> {
    let mut answer: Value = serde_json::from_slice(json)
        .map_err(|error| Fault::new(FaultClass::VendorBug, format!("the vendor's answer is not JSON: {error}")))?;
    if let Some(wrapped) = answer.get_mut("Response") {
        answer = wrapped.take();
    }
    for (error, code, message) in [("Error", "Code", "Message"), ("ErrorMsg", "Code", "Msg")] {
        if answer[error].is_object() {
            return Err(fault(&answer[error][code], answer[error][message].as_str().unwrap_or_default()));
        }
    }
    let usage = answer["Usage"].to_string();
    Ok((renamed(answer, &snake), usage))
}

fn fault(code: &Value, message: &str) -> Fault {
    let code = code.as_str().map_or_else(|| code.to_string(), str::to_owned);
    let class = CODES.iter().find(|(begin, _)| code.starts_with(begin)).map(|(_, class)| *class);
    let too_long = message.contains("max input length") || message.contains("too long");
    let class = match class {
        Some(FaultClass::InvalidRequest) if too_long => FaultClass::ContextTooLong,
        known => known.unwrap_or(FaultClass::Overloaded),
    };
    Fault { code: Some(code), ..Fault::new(class, message) }
}

/// The value with other names of members, everywhere.
fn renamed(value: Value, name: &dyn Fn(&str) -> String) -> Value {
    match value {
        Value::Object(members) => {
            members.into_iter().map(|(member, value)| (name(&member), renamed(value, name))).collect()
        }
        Value::Array(values) => values.into_iter().map(|value| renamed(value, name)).collect(),
        value => value,
    }
}

/// `tool_call_id` as `ToolCallId`.
fn pascal(name: &str) -> String {
    let mut up = true;
    let mut letters = String::with_capacity(name.len());
    for letter in name.chars() {
        if letter == '_' {
            up = true;
        } else {
            letters.push(if std::mem::take(&mut up) { letter.to_ascii_uppercase() } else { letter });
        }
    }
    letters
}

/// `ToolCallId` as `tool_call_id`.
fn snake(name: &str) -> String {
    let mut letters = String::with_capacity(name.len() + 4);
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !letters.is_empty() {
            letters.push('_');
        }
        letters.push(letter.to_ascii_lowercase());
    }
    letters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_classes_by_what_they_begin_with() {
        let cases = [
            ("AuthFailure.SignatureFailure", FaultClass::Authentication),
            ("AuthFailure.UnauthorizedOperation", FaultClass::Permission),
            ("LimitExceeded", FaultClass::RateLimit),
            ("ResourceUnavailable.InArrears", FaultClass::Billing),
            ("InvalidParameterValue.Model", FaultClass::ModelNotFound),
            ("InvalidParameterValue", FaultClass::InvalidRequest),
            ("FailedOperation.EngineServerError", FaultClass::Overloaded),
            ("OperationDenied.TextIllegalDetected", FaultClass::ContentFilter),
            ("Unheard.Of", FaultClass::Overloaded),
        ];
        for (code, expected) in cases {
            assert_eq!(fault(&Value::from(code), "m").class, expected, "{code}");
        }
        assert_eq!(fault(&json!("InvalidParameter"), "it is too long").class, FaultClass::ContextTooLong);
        assert_eq!(fault(&json!(2003), "m").code, Some("2003".to_owned()));
    }

    #[test]
    fn names_go_there_and_back() {
        for name in ["role", "tool_call_id", "image_url", "reasoning_content"] {
            assert_eq!(snake(&pascal(name)), name);
        }
    }
}
