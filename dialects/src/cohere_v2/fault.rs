// SPDX-License-Identifier: Apache-2.0
//! Errors, both ways: `{"id", "message", "error_type"?}`. Source: <https://docs.cohere.com/reference/errors>, and recorded
//! answers. The class follows from what the message says, since one status has several causes, and else from the status.

use serde_json::{Value, json};

use super::text;
use crate::ir::{Fault, FaultClass};
use crate::openai_chat::without_keys;

/// Longest excerpt of an answer that is no JSON, in characters.
const EXCERPT_CHARS_MAX: usize = 300;

/// The `error_type` of a request that is too long.
const TOO_MANY_TOKENS: &str = "TOO_MANY_TOKENS";

/// What messages and types say, in lower case, and the class that it means. The first that fits decides.
const RULES: &[(FaultClass, &[&str])] = &[
    (
        FaultClass::ContextTooLong,
        &["too_many_tokens", "too many tokens", "size limit exceeded", "context length", "maximum context"],
    ),
    (FaultClass::Billing, &["payment method", "payment required", "billing", "insufficient balance"]),
    (FaultClass::Quota, &["/ month", "per month", "monthly", "calls / day", "production key"]),
    (FaultClass::RateLimit, &["rate limit", "/ minute", "per minute", "too many requests"]),
    (
        FaultClass::Authentication,
        &["invalid api token", "incorrect api key", "no api key", "invalid api key", "unauthorized"],
    ),
    (
        FaultClass::ContentFilter,
        &["deny-listed", "denylist", "blocked by", "content filter", "safety", "toxic", "error_toxic"],
    ),
    (FaultClass::Timeout, &["timed out", "deadline exceeded", "error_timeout"]),
    (FaultClass::Overloaded, &["overloaded", "temporarily unavailable", "at capacity"]),
];

/// Reads an answer that is not 2xx.
pub(super) fn decode<'h>(status: u16, header: &dyn Fn(&str) -> Option<&'h str>, body: &[u8]) -> Fault {
    let object: Value = serde_json::from_slice(body).unwrap_or_default();
    let message = match stated_message(&object) {
        Some(message) => message.to_owned(),
        None => excerpt(status, body),
    };
    let kind = text(&object, "error_type");
    let class = class(kind, &message, Some(status));
    let message = if class == FaultClass::Authentication { without_keys(&message) } else { message };
    let waits =
        matches!(class, FaultClass::RateLimit | FaultClass::Quota | FaultClass::Overloaded | FaultClass::Timeout);
    Fault { class, message, code: code(kind), retry_after_ms: wait_ms(header).filter(|_| waits) }
}

/// The error of an answer under 200: `{"message": "…"}` without anything that makes it an answer.
pub(super) fn in_band(object: &Value) -> Option<Fault> {
    let message = stated_message(object)?;
    let kind = text(object, "error_type");
    Some(Fault { code: code(kind), ..Fault::new(class(kind, message, None), message) })
}

/// The error that ends an answer: a finish of `ERROR` or `TIMEOUT`.
pub(super) fn of_finish(reason: &str, error: &Value, kind: &str) -> Fault {
    let message = match error {
        Value::String(message) if !message.is_empty() => message.clone(),
        Value::Object(_) => stated_message(error).unwrap_or_default().to_owned(),
        _ => format!("the vendor broke its answer off: {reason}"),
    };
    let class = if reason == "TIMEOUT" { FaultClass::Timeout } else { class(kind, &message, None) };
    let kind = if kind.is_empty() { reason } else { kind };
    Fault { code: code(kind), ..Fault::new(class, message) }
}

/// Writes an error.
pub(super) fn encode(fault: &Fault, request_id: &str) -> Value {
    let mut body = json!({ "id": request_id, "message": fault.message });
    if let Some(kind) = error_type(fault) {
        body["error_type"] = Value::from(kind);
    }
    body
}

/// The `error_type` of a fault, as far as this dialect has one.
pub(super) fn error_type(fault: &Fault) -> Option<&str> {
    let is_own = |code: &&str| !code.is_empty() && code.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    match fault.class {
        FaultClass::ContextTooLong => Some(TOO_MANY_TOKENS),
        _ => fault.code.as_deref().filter(is_own),
    }
}

fn stated_message(object: &Value) -> Option<&str> {
    let stated = [&object["message"], &object["error"]["message"], &object["error"], &object["detail"]];
    stated.into_iter().filter_map(Value::as_str).find(|message| !message.is_empty())
}

fn excerpt(status: u16, body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    match text.trim() {
        "" => format!("the vendor answered with status {status} and no explanation"),
        page if page.starts_with('<') => format!("the vendor answered with status {status} and a web page"),
        text => text.chars().take(EXCERPT_CHARS_MAX).collect(),
    }
}

fn code(kind: &str) -> Option<String> {
    Some(kind.to_owned()).filter(|kind| !kind.is_empty())
}

fn class(kind: &str, message: &str, status: Option<u16>) -> FaultClass {
    match status {
        Some(401) => return FaultClass::Authentication,
        Some(402) => return FaultClass::Billing,
        _ => {}
    }
    let said = format!("{kind} {message}").to_ascii_lowercase();
    let says = |words: &&[&str]| words.iter().any(|word| said.contains(word));
    let of_words = RULES.iter().find(|(_, words)| says(words)).map(|(class, _)| *class);
    // Of a 5xx the words decide nothing but that the request was too long.
    let of_words = of_words.filter(|class| status.is_none_or(|s| s < 500) || *class == FaultClass::ContextTooLong);
    of_words.unwrap_or_else(|| of_status(status, &said))
}

fn of_status(status: Option<u16>, said: &str) -> FaultClass {
    let Some(status) = status else { return FaultClass::VendorBug };
    match status {
        403 => FaultClass::Permission,
        404 if said.contains("model") => FaultClass::ModelNotFound,
        408 | 499 | 504 | 524 => FaultClass::Timeout,
        429 => FaultClass::RateLimit,
        // "A request or response contains a deny-listed token."
        498 => FaultClass::ContentFilter,
        501 => FaultClass::Unsupported,
        400..=497 => FaultClass::InvalidRequest,
        500..=599 => FaultClass::Overloaded,
        _ => FaultClass::VendorBug,
    }
}

/// `retry-after` in seconds. A date is not read: there is no clock here.
fn wait_ms<'h>(header: &dyn Fn(&str) -> Option<&'h str>) -> Option<u64> {
    let seconds: f64 = header("retry-after")?.trim().parse().ok()?;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates")]
    (0.0..=86_400.0).contains(&seconds).then(|| (seconds * 1000.0).ceil() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    use FaultClass as C;

    #[test]
    fn a_class_follows_from_words_and_status() {
        let cases: &[(u16, &str, FaultClass)] = &[
            (400, r#"{"message":"too many tokens: size limit exceeded by 2 tokens."}"#, C::ContextTooLong),
            (400, r#"{"error_type":"TOO_MANY_TOKENS","id":"x","message":"m"}"#, C::ContextTooLong),
            (400, r#"{"message":"invalid request: message must be at least 1 token long"}"#, C::InvalidRequest),
            (401, r#"{"message":"invalid api token"}"#, C::Authentication),
            (402, r#"{"message":"Please add or update your payment method"}"#, C::Billing),
            (403, r#"{"message":"Please upgrade your API key"}"#, C::Permission),
            (404, r#"{"id":"x","message":"model 'nonexistent' not found, make sure"}"#, C::ModelNotFound),
            (404, r#"{"message":"page not found"}"#, C::InvalidRequest),
            (422, r#"{"message":"unprocessable"}"#, C::InvalidRequest),
            (429, r#"{"message":"You are using a Trial key, which is limited to 1000 API calls / month."}"#, C::Quota),
            (
                429,
                r#"{"message":"You are using a Trial key, which is limited to 20 API calls / minute."}"#,
                C::RateLimit,
            ),
            (429, "", C::RateLimit),
            (498, r#"{"message":"blocked output"}"#, C::ContentFilter),
            (500, r#"{"message":"internal server error"}"#, C::Overloaded),
            (501, r#"{"message":"not implemented"}"#, C::Unsupported),
            (503, "<html>", C::Overloaded),
            (504, "", C::Timeout),
            (302, "", C::VendorBug),
        ];
        for (status, body, expected) in cases {
            assert_eq!(decode(*status, &|_| None, body.as_bytes()).class, *expected, "{status} {body}");
        }
    }

    #[test]
    fn every_class_is_written_with_a_message_and_kept_where_the_dialect_has_a_word() {
        for class in FaultClass::ALL {
            let fault = Fault::new(*class, "it failed");
            let body = encode(&fault, "r-1");
            assert_eq!((text(&body, "id"), text(&body, "message")), ("r-1", "it failed"));
            let again = decode(class.status(), &|_| None, body.to_string().as_bytes());
            let expected = match class {
                C::Quota => C::RateLimit,
                C::ContentFilter | C::Unsupported => C::InvalidRequest,
                C::ModelNotFound => C::InvalidRequest,
                C::VendorBug => C::Overloaded,
                class => *class,
            };
            assert_eq!(again.class, expected, "{class:?}");
        }
    }

    #[test]
    fn a_wait_is_read_and_a_key_is_cut_out() {
        let fault = decode(429, &|name| (name == "retry-after").then_some("1.5"), b"{}");
        assert_eq!(fault.retry_after_ms, Some(1500));
        let fault = decode(401, &|_| None, br#"{"message":"Incorrect API key provided: ****abc. Look"}"#);
        assert_eq!(fault.message, "Incorrect API key provided: [key] Look");
    }
}
