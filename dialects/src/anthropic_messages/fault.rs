// SPDX-License-Identifier: Apache-2.0
//! Errors, both ways. Source: <https://docs.anthropic.com/en/api/errors>, and recorded answers.

use serde_json::{Value, json};

use crate::ir::{Fault, FaultClass};

/// Longest message that is passed on, in bytes.
const MESSAGE_BYTES_MAX: usize = 2048;

/// What an answer that is not 2xx means.
pub(super) fn decode<'h>(status: u16, header: &dyn Fn(&str) -> Option<&'h str>, body: &[u8]) -> Fault {
    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    let mut fault = stated(&json, Some(status)).unwrap_or_else(|| {
        let message = format!("the vendor answered with status {status} and no readable error");
        Fault::new(of_status(status).unwrap_or(FaultClass::VendorBug), message)
    });
    fault.retry_after_ms = retry_after_ms(header);
    fault
}

/// The error that a JSON body states, if it states one. `status` is none inside a 2xx answer.
///
/// Reads `{"type":"error","error":{"type","message"}}`, the same without the outer type, Google's `{"error":{"code",
/// "status","message"}}` (Vertex) with or without an array around it, AWS's `{"message"}` (Bedrock) and `MiniMax`'s
/// `{"base_resp":{"status_code","status_msg"}}`.
pub(super) fn stated(body: &Value, status: Option<u16>) -> Option<Fault> {
    let body = body.get(0).unwrap_or(body);
    if let Some(fault) = base_resp(body) {
        return Some(fault);
    }
    let error = match &body["error"] {
        Value::Null if status.is_some() && (body["message"].is_string() || body["detail"].is_string()) => body,
        Value::Null if body["type"] == "error" => body,
        Value::Null => return None,
        error => error,
    };
    let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let message = text(error).or_else(|| text(&error["message"])).or_else(|| text(&error["detail"]));
    let message = message.unwrap_or_else(|| "the vendor reports an error without a message".to_owned());
    let kind = text(&error["type"]).filter(|kind| kind != "error").or_else(|| text(&error["status"]));
    let code = kind.or_else(|| text(&error["code"])).or_else(|| error["code"].as_i64().map(|code| code.to_string()));
    let class = class(code.as_deref().unwrap_or_default(), &message, status);
    Some(Fault { code, ..Fault::new(class, cut(message)) })
}

/// Writes an error answer.
pub(super) fn encode(fault: &Fault, request_id: &str) -> Vec<u8> {
    let mut body = body(fault);
    if let Value::Object(members) = &mut body {
        members.insert("request_id".to_owned(), json!(request_id));
    }
    body.to_string().into_bytes()
}

/// Writes an error as an event of a stream. The SDKs raise `event: error` and nothing else.
pub(super) fn encode_event(fault: &Fault) -> Vec<u8> {
    format!("event: error\ndata: {}\n\n", body(fault)).into_bytes()
}

fn body(fault: &Fault) -> Value {
    // Callers of this dialect know that a conversation must be shortened by these words alone.
    let message = match fault.class {
        FaultClass::ContextTooLong if !is_too_long(&fault.message.to_ascii_lowercase()) => {
            format!("prompt is too long: {}", fault.message)
        }
        _ => fault.message.clone(),
    };
    json!({"type": "error", "error": {"type": kind(fault.class), "message": message}})
}

/// The error type that the SDKs know for a class.
fn kind(class: FaultClass) -> &'static str {
    match class {
        FaultClass::Authentication => "authentication_error",
        FaultClass::Permission => "permission_error",
        FaultClass::Billing => "billing_error",
        FaultClass::RateLimit | FaultClass::Quota => "rate_limit_error",
        FaultClass::ModelNotFound => "not_found_error",
        FaultClass::Overloaded => "overloaded_error",
        FaultClass::Timeout => "timeout_error",
        FaultClass::VendorBug => "api_error",
        FaultClass::ContextTooLong
        | FaultClass::ContentFilter
        | FaultClass::InvalidRequest
        | FaultClass::Unsupported => "invalid_request_error",
    }
}

/// The class of an error: by what the message says where several causes share a type, else by type, else by status.
fn class(kind: &str, message: &str, status: Option<u16>) -> FaultClass {
    let lower = message.to_ascii_lowercase();
    if let Some(class) = of_message(kind, &lower) {
        return class;
    }
    match kind {
        "invalid_request_error" | "request_too_large" | "INVALID_ARGUMENT" | "FAILED_PRECONDITION" => {
            FaultClass::InvalidRequest
        }
        "authentication_error" | "UNAUTHENTICATED" => FaultClass::Authentication,
        "permission_error" | "PERMISSION_DENIED" => FaultClass::Permission,
        "billing_error" => FaultClass::Billing,
        "not_found_error" | "NOT_FOUND" if is_other_resource(&lower) => FaultClass::InvalidRequest,
        "not_found_error" | "NOT_FOUND" => FaultClass::ModelNotFound,
        "rate_limit_error" | "RESOURCE_EXHAUSTED" => FaultClass::RateLimit,
        "overloaded_error" | "UNAVAILABLE" => FaultClass::Overloaded,
        "timeout_error" | "DEADLINE_EXCEEDED" => FaultClass::Timeout,
        "api_error" | "INTERNAL" => match status.and_then(of_status) {
            // "api_error" is also what compatible vendors say for want of a better word.
            Some(class) => class,
            None => FaultClass::VendorBug,
        },
        _ => status.and_then(of_status).unwrap_or(FaultClass::VendorBug),
    }
}

/// What a model says that cannot go on where the last turn of the assistant stops; another one may.
const PREFILL: &[&str] = &["assistant message prefill", "conversation must end with a user message"];

/// Causes that only the message tells.
fn of_message(kind: &str, lower: &str) -> Option<FaultClass> {
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    if has(&["credit balance is too low", "insufficient balance", "insufficient credit", "insufficient_balance"]) {
        return Some(FaultClass::Billing);
    }
    if is_too_long(lower) {
        return Some(FaultClass::ContextTooLong);
    }
    if kind != "invalid_request_error" {
        return None;
    }
    if has(&["content filtering policy", "content policy", "safety policy"]) {
        return Some(FaultClass::ContentFilter);
    }
    if has(PREFILL) {
        return Some(FaultClass::Unsupported);
    }
    has(&["specified api usage limits", "usage limit has been reached"]).then_some(FaultClass::Quota)
}

/// "prompt is too long: 3333404 tokens > 200000 maximum", "input length and `max_tokens` exceed context limit: …", and
/// what compatible vendors say; compared in lower case.
fn is_too_long(lower: &str) -> bool {
    let phrases = [
        "prompt is too long",
        "exceed context limit",
        "context window exceeds limit",
        "exceeds the context window",
        "maximum context length",
        "input is too long",
    ];
    phrases.iter().any(|phrase| lower.contains(phrase))
}

/// A 404 for something else than the model.
fn is_other_resource(lower: &str) -> bool {
    !lower.contains("model") && ["file", "container", "skill", "batch"].iter().any(|word| lower.contains(word))
}

/// The class of a status, where the body does not tell; none for one that says nothing by itself.
fn of_status(status: u16) -> Option<FaultClass> {
    Some(match status {
        400 | 405 | 409 | 413 | 415 | 422 => FaultClass::InvalidRequest,
        401 => FaultClass::Authentication,
        402 => FaultClass::Billing,
        403 => FaultClass::Permission,
        404 => FaultClass::ModelNotFound,
        408 | 504 | 524 => FaultClass::Timeout,
        429 => FaultClass::RateLimit,
        500 | 502 | 503 | 520..=523 | 529 => FaultClass::Overloaded,
        _ => return None,
    })
}

/// `MiniMax` states its errors here under 200, also beside an empty answer. Source: its table of error codes.
fn base_resp(body: &Value) -> Option<Fault> {
    let code = body["base_resp"]["status_code"].as_i64().filter(|code| *code != 0)?;
    let message = body["base_resp"]["status_msg"].as_str().unwrap_or("the vendor reports an error").to_owned();
    let class = match code {
        1001 => FaultClass::Timeout,
        1002 | 1039 => FaultClass::RateLimit,
        1004 | 2049 => FaultClass::Authentication,
        1008 => FaultClass::Billing,
        1026 | 1027 => FaultClass::ContentFilter,
        1013 | 1042 | 2013 => FaultClass::InvalidRequest,
        2056 => FaultClass::Quota,
        _ => class("", &message, None),
    };
    Some(Fault { code: Some(code.to_string()), ..Fault::new(class, cut(message)) })
}

/// `retry-after-ms`, or `retry-after` in seconds. A date is not read: there is no clock here.
fn retry_after_ms<'h>(header: &dyn Fn(&str) -> Option<&'h str>) -> Option<u64> {
    let number =
        |name: &str| header(name)?.trim().parse::<f64>().ok().filter(|value| (0.0..=86_400_000.0).contains(value));
    let ms = number("retry-after-ms").or_else(|| number("retry-after").map(|seconds| seconds * 1000.0))?;
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "bounded and not negative, checked above"
    )]
    Some(ms as u64)
}

fn cut(mut message: String) -> String {
    if message.len() > MESSAGE_BYTES_MAX {
        let end = (0..=MESSAGE_BYTES_MAX).rev().find(|at| message.is_char_boundary(*at)).unwrap_or_default();
        message.truncate(end);
    }
    message
}
