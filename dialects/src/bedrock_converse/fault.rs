// SPDX-License-Identifier: Apache-2.0
//! Errors, both ways: `{"message"}` with the kind in a header, and exceptions inside a stream.
//! Sources: <https://docs.aws.amazon.com/bedrock/latest/userguide/troubleshooting-api-error-codes.html>, the service model
//! of the SDKs, and recorded answers.

use serde_json::{Map, Value, json};

use crate::framing::event_stream;
use crate::ir::{Fault, FaultClass};

/// The header that names the kind of an error.
pub(super) const TYPE_HEADER: &str = "x-amzn-errortype";

/// Longest message that is passed on, in bytes.
const MESSAGE_BYTES_MAX: usize = 2048;

/// What an answer that is not 2xx means.
pub(super) fn decode<'h>(status: u16, header: &dyn Fn(&str) -> Option<&'h str>, body: &[u8]) -> Fault {
    let json: Map<String, Value> = serde_json::from_slice(body).unwrap_or_default();
    let kind = header(TYPE_HEADER).map(plain_kind).filter(|kind| !kind.is_empty()).or_else(|| kind_of(&json));
    let message =
        message_of(&json).unwrap_or_else(|| format!("the vendor answered with status {status} and no readable error"));
    let class = class(kind.unwrap_or_default(), &message, Some(status));
    let mut fault = Fault { code: kind.map(str::to_owned), ..Fault::new(class, cut(message)) };
    fault.retry_after_ms = header("retry-after").and_then(milliseconds);
    fault
}

/// The error that a body states under 2xx; none if it states none.
pub(super) fn stated(body: &Map<String, Value>) -> Option<Fault> {
    let (kind, message) = (kind_of(body), message_of(body)?);
    let class = class(kind.unwrap_or_default(), &message, None);
    Some(Fault { code: kind.map(str::to_owned), ..Fault::new(class, cut(message)) })
}

/// The error that a frame of a stream is; none for an event.
pub(super) fn of_frame(name: &str, data: &[u8]) -> Option<Fault> {
    let kind = name.strip_prefix("exception:").or_else(|| name.strip_prefix("error:"))?;
    let json: Map<String, Value> = serde_json::from_slice(data).unwrap_or_default();
    let said = match json.is_empty() && data != b"{}" {
        true => Some(String::from_utf8_lossy(data).into_owned()).filter(|text| !text.is_empty()),
        false => message_of(&json),
    };
    let message = said.unwrap_or_else(|| format!("the vendor has broken its answer off: {kind}"));
    let status = json.get("originalStatusCode").and_then(Value::as_u64).and_then(|status| u16::try_from(status).ok());
    let class = class(kind, &message, status);
    Some(Fault { code: Some(kind.to_owned()).filter(|kind| !kind.is_empty()), ..Fault::new(class, cut(message)) })
}

/// Writes an error answer.
pub(super) fn encode(fault: &Fault) -> Vec<u8> {
    json!({"message": message(fault)}).to_string().into_bytes()
}

/// Appends an error to a stream. SDKs raise every frame of type exception; these are those that the API names.
pub(super) fn encode_frame(fault: &Fault, out: &mut Vec<u8>) {
    let exception = match fault.class {
        FaultClass::RateLimit | FaultClass::Quota => "throttlingException",
        FaultClass::Overloaded | FaultClass::Timeout => "serviceUnavailableException",
        FaultClass::VendorBug => "modelStreamErrorException",
        FaultClass::Authentication | FaultClass::Permission | FaultClass::Billing => "internalServerException",
        FaultClass::ContextTooLong
        | FaultClass::ContentFilter
        | FaultClass::InvalidRequest
        | FaultClass::ModelNotFound
        | FaultClass::Unsupported => "validationException",
    };
    let headers =
        [(":exception-type", exception), (":content-type", "application/json"), (":message-type", "exception")];
    event_stream::write(out, &headers, &encode(fault));
}

/// The kind of error that the SDKs know for a class.
pub(super) fn kind(class: FaultClass) -> &'static str {
    match class {
        FaultClass::Authentication => "UnrecognizedClientException",
        FaultClass::Permission | FaultClass::Billing => "AccessDeniedException",
        FaultClass::RateLimit => "ThrottlingException",
        FaultClass::Quota => "ServiceQuotaExceededException",
        FaultClass::ModelNotFound => "ResourceNotFoundException",
        FaultClass::Overloaded => "ServiceUnavailableException",
        FaultClass::Timeout => "ModelTimeoutException",
        FaultClass::VendorBug => "ModelErrorException",
        FaultClass::ContextTooLong
        | FaultClass::ContentFilter
        | FaultClass::InvalidRequest
        | FaultClass::Unsupported => "ValidationException",
    }
}

/// Callers of this dialect know that a conversation must be shortened by these words alone.
fn message(fault: &Fault) -> String {
    if fault.class == FaultClass::ContextTooLong && !is_too_long(&fault.message.to_ascii_lowercase()) {
        return format!("Input is too long for requested model: {}", fault.message);
    }
    fault.message.clone()
}

/// `ValidationException` of `ValidationException:http://internal.amazon.com/coral/com.amazon.bedrock/` and of
/// `com.amazon.coral.service#ValidationException`.
fn plain_kind(stated: &str) -> &str {
    let kind = stated.split([':', ',']).next().unwrap_or_default().trim();
    kind.rsplit('#').next().unwrap_or_default()
}

fn kind_of(body: &Map<String, Value>) -> Option<&str> {
    body.get("__type").or_else(|| body.get("code")).and_then(Value::as_str).map(plain_kind)
}

/// Services before the API spell it with a capital.
fn message_of(body: &Map<String, Value>) -> Option<String> {
    let message = body.get("message").or_else(|| body.get("Message")).and_then(Value::as_str);
    message.map(str::trim).filter(|message| !message.is_empty()).map(str::to_owned)
}

/// The class of an error: by what the message says where several causes share a kind, else by kind, else by status.
/// Exceptions in a stream are named as the others, but begin with a small letter.
fn class(kind: &str, message: &str, status: Option<u16>) -> FaultClass {
    let lower = message.to_ascii_lowercase();
    let kind = kind.to_ascii_lowercase();
    if let Some(class) = of_message(&kind, &lower, status) {
        return class;
    }
    match kind.strip_suffix("exception").unwrap_or(&kind) {
        "validation" => FaultClass::InvalidRequest,
        "accessdenied" => FaultClass::Permission,
        "unrecognizedclient"
        | "invalidsignature"
        | "expiredtoken"
        | "missingauthenticationtoken"
        | "incompletesignature"
        | "invalidclienttokenid"
        | "unauthorized" => FaultClass::Authentication,
        "throttling" | "toomanyrequests" => FaultClass::RateLimit,
        "servicequotaexceeded" => FaultClass::Quota,
        "resourcenotfound" => FaultClass::ModelNotFound,
        "modeltimeout" => FaultClass::Timeout,
        "serviceunavailable" | "internalserver" | "internalfailure" | "modelnotready" | "modelerror"
        | "modelstreamerror" => FaultClass::Overloaded,
        _ => status.and_then(of_status).unwrap_or(FaultClass::VendorBug),
    }
}

/// Causes that only the message tells.
fn of_message(kind: &str, lower: &str, status: Option<u16>) -> Option<FaultClass> {
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    let denied = kind.starts_with("accessdenied") || status == Some(403);
    if denied
        && has(&[
            "api key is valid",
            "security token",
            "authentication failed",
            "signature we calculated",
            "signature expired",
        ])
    {
        return Some(FaultClass::Authentication);
    }
    if denied && has(&["payment_instrument", "payment instrument"]) {
        return Some(FaultClass::Billing);
    }
    if kind.starts_with("throttling") && has(&["per day", "daily"]) {
        return Some(FaultClass::Quota);
    }
    let refused = kind.starts_with("validation") || (kind.is_empty() && status.is_none_or(|status| status == 400));
    if !refused && status != Some(413) {
        return None;
    }
    if is_too_long(lower) {
        return Some(FaultClass::ContextTooLong);
    }
    if has(&["model identifier is invalid", "on-demand throughput isn", "model id doesn't exist", "invalid model id"]) {
        return Some(FaultClass::ModelNotFound);
    }
    if has(&["assistant message prefill", "conversation must end with a user message"]) {
        return Some(FaultClass::Unsupported);
    }
    has(&["content filtering policy", "blocked by our content filters", "content policy"])
        .then_some(FaultClass::ContentFilter)
}

/// What the models behind the API say, compared in lower case.
fn is_too_long(lower: &str) -> bool {
    let phrases = [
        "input is too long",
        "prompt is too long",
        "input tokens exceeded",
        "exceed context limit",
        "exceeds maximum length",
        "maximum context length",
        "too many input tokens",
        "too many tokens: ",
        "exceeds the maximum number of tokens",
        "maximum number of input tokens",
        "context window",
    ];
    phrases.iter().any(|phrase| lower.contains(phrase))
}

/// The class of a status, where nothing else tells; none for one that says nothing by itself.
fn of_status(status: u16) -> Option<FaultClass> {
    Some(match status {
        400 | 405 | 409 | 413 | 415 | 422 => FaultClass::InvalidRequest,
        401 => FaultClass::Authentication,
        402 => FaultClass::Billing,
        403 => FaultClass::Permission,
        404 => FaultClass::ModelNotFound,
        408 | 504 => FaultClass::Timeout,
        429 => FaultClass::RateLimit,
        424 | 500 | 502 | 503 | 529 => FaultClass::Overloaded,
        _ => return None,
    })
}

/// A header in seconds. A date is not read: there is no clock here.
fn milliseconds(seconds: &str) -> Option<u64> {
    let seconds: f64 = seconds.trim().parse().ok().filter(|value| (0.0..=86_400.0).contains(value))?;
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "bounded and not negative, checked above"
    )]
    Some((seconds * 1000.0) as u64)
}

fn cut(mut message: String) -> String {
    if message.len() > MESSAGE_BYTES_MAX {
        let end = (0..=MESSAGE_BYTES_MAX).rev().find(|at| message.is_char_boundary(*at)).unwrap_or_default();
        message.truncate(end);
    }
    message
}
