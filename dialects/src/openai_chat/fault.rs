// SPDX-License-Identifier: Apache-2.0
//! Errors of OpenAI-shaped vendors, read into classes and written for callers.
//!
//! Vendors share neither shapes nor codes nor statuses, so the class is decided by tables that are asked in order: what
//! the status says beyond doubt, then what codes and words say, then what the status suggests.

use serde_json::{Value, json};

use super::rules::{CALLER_AT_FAULT, RULES, minimax_class, zhipu_class};
use crate::ir::{Fault, FaultClass};

/// What a vendor said of an error, wherever it said it.
#[derive(Debug, Default)]
struct Said {
    status: u16,
    /// Code, type and status words in lower case, each between spaces.
    tags: String,
    /// Messages in lower case.
    text: String,
    message: String,
    code: Option<String>,
    /// Class of a vendor's numeric code.
    numbered: Option<FaultClass>,
}

/// Reads an answer that is not 2xx.
pub(crate) fn decode<'h>(status: u16, header: &dyn Fn(&str) -> Option<&'h str>, body: &[u8]) -> Fault {
    let object: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let mut said = Said { status, ..Said::default() };
    said.read(&object);
    if said.message.is_empty() {
        let text = String::from_utf8_lossy(body);
        let text = text.trim();
        let excerpt: String = text.chars().take(300).collect();
        said.text.push_str(&excerpt.to_lowercase());
        said.message = match excerpt.as_str() {
            "" => format!("the vendor answered with status {status} and no explanation"),
            _ if text.starts_with('<') => format!("the vendor answered with status {status} and a web page"),
            _ => excerpt,
        };
    }
    said.fault(wait_of_headers(header).or_else(|| wait_of_body(&object)))
}

/// The error that a 2xx answer or one frame of it states, if any. `named` if the frame says that it is an error.
pub(crate) fn in_band(object: &Value, named: bool) -> Option<Fault> {
    let error = &object["error"];
    let stated = match error {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Object(members) => !members.is_empty(),
        _ => true,
    };
    let base_code = object["base_resp"]["status_code"].as_i64().unwrap_or_default();
    let choices = object["choices"].is_array();
    let flat = !choices && (object["detail"].is_string() || object["message"].is_string() && !object["code"].is_null());
    if !(stated || named || flat || base_code != 0 || object["object"] == "error") {
        return None;
    }
    let mut said = Said::default();
    said.read(object);
    if said.message.is_empty() {
        said.message = "the vendor reported an error in its answer".to_owned();
    }
    Some(said.fault(wait_of_body(object)))
}

impl Said {
    fn read(&mut self, object: &Value) {
        self.read_error(object);
        if let Value::Object(_) = object["error"] {
            self.read_error(&object["error"]);
            self.numbered = code_text(&object["error"]["code"]).and_then(|code| zhipu_class(&code));
        } else if let Some(text) = object["error"].as_str() {
            self.say(text);
        }
        let base = &object["base_resp"];
        if let Some(code) = base["status_code"].as_i64().filter(|code| *code != 0) {
            self.say(base["status_msg"].as_str().unwrap_or_default());
            self.code = Some(code.to_string());
            self.numbered = Some(minimax_class(code));
        }
    }

    /// One error object: the vendor's own, the whole body, or one that it wraps.
    fn read_error(&mut self, error: &Value) {
        if let Some(text) = error.as_str() {
            return self.say(text);
        }
        for member in ["type", "code", "status", "error_type"] {
            if let Some(tag) = code_text(&error[member]) {
                self.tags.push(' ');
                self.tags.push_str(&tag.to_lowercase());
                self.tags.push(' ');
            }
        }
        for member in ["code", "status_code", "raw_status_code", "http_status"] {
            let status = error[member].as_u64().and_then(|code| u16::try_from(code).ok());
            if self.status == 0 {
                self.status = status.filter(|status| (400..600).contains(status)).unwrap_or_default();
            }
        }
        self.code = code_text(&error["code"]).or_else(|| self.code.take());
        match &error["message"] {
            Value::String(text) => self.say(text),
            Value::Object(_) => self.say(error["message"]["detail"].as_str().unwrap_or_default()),
            _ => {}
        }
        match &error["detail"] {
            Value::String(text) => self.say(text),
            Value::Null => {}
            detail => self.say(&detail.to_string()),
        }
        let metadata = &error["metadata"];
        if let Some(raw) = metadata["raw"].as_str() {
            self.text.push(' ');
            self.text.push_str(&raw.to_lowercase());
        }
        for wrapped in [&error["innererror"], &error["inner_error"]] {
            if let Some(tag) = wrapped["code"].as_str() {
                self.tags.push_str(&format!(" {} ", tag.to_lowercase()));
            }
        }
    }

    fn say(&mut self, text: &str) {
        self.text.push(' ');
        self.text.push_str(&text.to_lowercase());
        if self.message.is_empty() {
            self.message = text.trim().to_owned();
        }
    }

    fn fault(self, wait_ms: Option<u64>) -> Fault {
        let class = self.class(wait_ms);
        let waits =
            [FaultClass::RateLimit, FaultClass::Quota, FaultClass::Overloaded, FaultClass::Timeout].contains(&class);
        let wait_ms = wait_ms.or_else(|| wait_of_text(&self.text));
        let message = if class == FaultClass::Authentication { without_keys(&self.message) } else { self.message };
        Fault { class, message, code: self.code, retry_after_ms: wait_ms.filter(|_| waits) }
    }

    fn class(&self, wait_ms: Option<u64>) -> FaultClass {
        // "Wrong request" is what numbers say of everything that has no number of its own.
        if let Some(class) = self.numbered.filter(|class| *class != FaultClass::InvalidRequest) {
            return class;
        }
        match self.status {
            401 => return FaultClass::Authentication,
            402 => return FaultClass::Billing,
            _ => {}
        }
        let limited = self.status == 429 || self.tags.contains("rate_limit") || self.tags.contains("ratelimit");
        for (class, tags, words) in RULES {
            let said = tags.iter().any(|tag| self.tags.contains(tag)) || words.iter().any(|w| self.text.contains(w));
            // "Too many tokens" is a rate where the status or the code says so.
            let misread = limited && *class == FaultClass::ContextTooLong && !self.tags.contains("context_length");
            // Google words every rate limit as a quota, but tells when to come again; Groq limits the rate of a day.
            let soon = wait_ms.is_some() || self.tags.contains("rate_limit");
            let renewed = *class == FaultClass::Quota && soon && !self.tags.contains("insufficient_quota");
            if said && !misread && !(renewed && limited) {
                return *class;
            }
        }
        self.class_of_status()
    }

    fn class_of_status(&self) -> FaultClass {
        match self.status {
            403 => FaultClass::Permission,
            404 if self.text.contains("model") || self.text.contains("deployment") => FaultClass::ModelNotFound,
            408 | 504 | 524 => FaultClass::Timeout,
            429 => FaultClass::RateLimit,
            501 => FaultClass::Unsupported,
            500 if CALLER_AT_FAULT.iter().any(|words| self.text.contains(words)) => FaultClass::InvalidRequest,
            400..=499 => FaultClass::InvalidRequest,
            500..=599 => FaultClass::Overloaded,
            _ if self.numbered.is_some() || self.tags.contains("invalid_request") => FaultClass::InvalidRequest,
            _ => FaultClass::VendorBug,
        }
    }
}

fn code_text(code: &Value) -> Option<String> {
    match code {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// How long the headers ask to wait, in milliseconds. Dates are left out: this crate has no clock.
fn wait_of_headers<'h>(header: &dyn Fn(&str) -> Option<&'h str>) -> Option<u64> {
    let milliseconds = header("retry-after-ms").and_then(|text| text.trim().parse::<f64>().ok());
    let seconds = header("retry-after").and_then(|text| text.trim().parse::<f64>().ok());
    let asked = milliseconds.filter(|ms| *ms > 0.0).or(seconds.map(|seconds| seconds * 1000.0));
    if let Some(asked) = asked.filter(|ms| *ms >= 0.0) {
        return Some(whole_ms(asked));
    }
    let reset = |what: &str| {
        let empty = header(&format!("x-ratelimit-remaining-{what}")).is_some_and(|left| left.trim() == "0");
        header(&format!("x-ratelimit-reset-{what}")).filter(|_| empty).and_then(duration_ms)
    };
    reset("requests").max(reset("tokens"))
}

/// Google's `RetryInfo`, also where a gateway wraps it.
fn wait_of_body(object: &Value) -> Option<u64> {
    let details = object["error"]["details"].as_array()?;
    details.iter().find_map(|detail| duration_ms(detail["retryDelay"].as_str()?))
}

/// "Please try again in 1m2.5s."
fn wait_of_text(text: &str) -> Option<u64> {
    let rest = text.split_once("try again in ")?.1;
    duration_ms(rest.split_whitespace().next()?.trim_end_matches(['.', ',']))
}

/// A duration as Go writes it: "120ms", "6s", "1m0.5s", "1h"; a bare number is seconds.
fn duration_ms(text: &str) -> Option<u64> {
    let (mut rest, mut total) = (text.trim(), 0.0);
    if let Ok(seconds) = rest.parse::<f64>() {
        return Some(whole_ms(seconds * 1000.0)).filter(|_| (0.0..1e6).contains(&seconds));
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let after = &rest[digits..];
        let unit = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        total += number
            * match &after[..unit] {
                "ms" => 1.0,
                "s" => 1000.0,
                "m" => 60_000.0,
                "h" => 3_600_000.0,
                _ => return None,
            };
        rest = &after[unit..];
    }
    Some(whole_ms(total))
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates; waits are not negative"
)]
fn whole_ms(milliseconds: f64) -> u64 {
    milliseconds.ceil() as u64
}

/// A vendor that refuses a key likes to quote it. What looks like one is cut out.
pub(crate) fn without_keys(message: &str) -> String {
    let looks_like_key = |word: &&str| {
        let word = word.trim_matches(|c: char| !c.is_ascii_alphanumeric() && c != '*');
        word.contains("**") || word.starts_with("sk-") || (word.len() >= 20 && word.bytes().any(|b| b.is_ascii_digit()))
    };
    let words = message.split(' ').map(|word| if looks_like_key(&word) { "[key]" } else { word });
    words.collect::<Vec<_>>().join(" ")
}

/// Writes an error as OpenAI's SDKs read it.
pub(crate) fn encode(fault: &Fault) -> Value {
    let (kind, code) = match fault.class {
        FaultClass::Authentication => ("invalid_request_error", Some("invalid_api_key")),
        FaultClass::Permission => ("permission_error", Some("permission_denied")),
        FaultClass::Billing => ("insufficient_quota", Some("billing_not_active")),
        FaultClass::RateLimit => ("rate_limit_error", Some("rate_limit_exceeded")),
        FaultClass::Quota => ("insufficient_quota", Some("insufficient_quota")),
        FaultClass::ContextTooLong => ("invalid_request_error", Some("context_length_exceeded")),
        FaultClass::ContentFilter => ("invalid_request_error", Some("content_filter")),
        FaultClass::ModelNotFound => ("invalid_request_error", Some("model_not_found")),
        FaultClass::InvalidRequest => ("invalid_request_error", None),
        FaultClass::Unsupported => ("invalid_request_error", Some("unsupported_operation")),
        FaultClass::Overloaded => ("server_error", Some("overloaded")),
        FaultClass::Timeout => ("server_error", Some("timeout")),
        FaultClass::VendorBug => ("server_error", Some("upstream_error")),
    };
    let code = code.or(fault.code.as_deref());
    json!({ "error": { "message": fault.message, "type": kind, "param": parameter(fault), "code": code } })
}

/// The path that the message of an invalid request begins with.
fn parameter(fault: &Fault) -> Option<&str> {
    let (path, _) = fault.message.split_once(": ").filter(|_| fault.class == FaultClass::InvalidRequest)?;
    let is_path = |c: char| c.is_ascii_alphanumeric() || "_.[]-".contains(c);
    Some(path).filter(|path| !path.is_empty() && path.chars().all(is_path))
}

#[cfg(test)]
mod tests {
    use super::*;

    use FaultClass as C;

    const ERRORS: &[(u16, &str, FaultClass)] = &[
        (400, r#"{"error":{"message":"x","code":"context_length_exceeded"}}"#, C::ContextTooLong),
        (
            400,
            r#"{"error":{"message":"the request exceeds the available context size","code":400,"type":"exceed_context_size_error"}}"#,
            C::ContextTooLong,
        ),
        (
            400,
            r#"{"object":"error","message":"Prompt contains 65673 tokens, too large for model with 32768 maximum context length","type":"invalid_request_prompt_too_large","code":"3051"}"#,
            C::ContextTooLong,
        ),
        (
            429,
            r#"{"error":{"message":"Request too large on tokens per min (TPM): too many tokens","type":"tokens","code":"rate_limit_exceeded"}}"#,
            C::RateLimit,
        ),
        (
            429,
            r#"{"error":{"message":"You exceeded your current quota, please check your plan and billing details.","type":"insufficient_quota","code":"insufficient_quota"}}"#,
            C::Quota,
        ),
        (402, r#"{"error":{"message":"Insufficient Balance","type":"unknown_error"}}"#, C::Billing),
        (429, r#"{"error":{"code":"1113","message":"x"}}"#, C::Billing),
        (429, r#"{"error":{"code":"1302","message":"x"}}"#, C::RateLimit),
        (
            429,
            r#"{"object":"error","message":"Rate limit exceeded","type":"rate_limited","param":null,"code":"1300"}"#,
            C::RateLimit,
        ),
        (
            400,
            r#"{"error":{"code":"data_inspection_failed","message":"Input data may contain inappropriate content."}}"#,
            C::ContentFilter,
        ),
        (
            400,
            r#"{"error":{"message":"The response was filtered","code":"content_filter","innererror":{"code":"ResponsibleAIPolicyViolation"}}}"#,
            C::ContentFilter,
        ),
        (
            400,
            r#"{"code":"Client specified an invalid argument","error":"Incorrect API key provided: xa***yz"}"#,
            C::Authentication,
        ),
        (401, r#"{"detail":"Unauthorized"}"#, C::Authentication),
        (403, r#"{"error":{"code":"Model.AccessDenied","message":"Model access denied."}}"#, C::Permission),
        (
            403,
            r#"{"error":{"code":"AllocationQuota.FreeTierOnly","message":"The free tier of the model has been exhausted."}}"#,
            C::Quota,
        ),
        (404, r#"{"error":{"message":"No endpoints found for foo/bar.","code":404}}"#, C::ModelNotFound),
        (404, "", C::InvalidRequest),
        (422, r#"{"detail":[{"loc":["body"],"msg":"field required"}]}"#, C::InvalidRequest),
        (
            500,
            r#"{"error":{"code":500,"message":"tools param requires --jinja flag","type":"server_error"}}"#,
            C::InvalidRequest,
        ),
        (
            500,
            r#"{"error":{"message":"The server had an error while processing your request","type":"server_error"}}"#,
            C::Overloaded,
        ),
        (501, r#"{"error":{"code":501,"message":"x","type":"not_supported_error"}}"#, C::Unsupported),
        (503, "upstream connect error", C::Overloaded),
        (529, r#"{"error":{"type":"overloaded_error","message":"Overloaded"}}"#, C::Overloaded),
        (504, "<html>", C::Timeout),
        (302, "", C::VendorBug),
        (500, r#"{"error":{"message":"An unexpected error occurred","type":"server_error"}}"#, C::Overloaded),
        (
            422,
            r#"{"error":"`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000","error_type":"validation"}"#,
            C::ContextTooLong,
        ),
        (
            429,
            r#"{"error":{"message":"Rate limit reached on tokens per day (TPD)","type":"tokens","code":"rate_limit_exceeded"}}"#,
            C::RateLimit,
        ),
        (429, r#"{"error":{"message":"Rate limit exceeded: free-models-per-day","code":429}}"#, C::Quota),
    ];

    fn class(status: u16, body: &str) -> FaultClass {
        decode(status, &|_| None, body.as_bytes()).class
    }

    #[test]
    fn a_class_follows_from_status_and_words() {
        for (status, body, expected) in ERRORS {
            assert_eq!(class(*status, body), *expected, "{status} {body}");
        }
    }

    #[test]
    fn errors_under_200_are_found_and_classified() {
        let cases = [
            (
                json!({"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}),
                Some(FaultClass::Billing),
            ),
            (json!({"base_resp": {"status_code": 0}, "choices": []}), None),
            (
                json!({"error": {"code": 400, "message": "Token limit reached"}, "choices": [{}]}),
                Some(FaultClass::InvalidRequest),
            ),
            (
                json!({"error": {"message": "boom", "type": "BadRequestError", "code": 429}}),
                Some(FaultClass::RateLimit),
            ),
            (json!({"error": "slow down", "code": 503}), Some(FaultClass::Overloaded)),
            (json!({"error": null, "choices": []}), None),
            (
                json!({"base_resp": {"status_code": 2013, "status_msg": "context window exceeds limit"}}),
                Some(FaultClass::ContextTooLong),
            ),
            (
                json!({"base_resp": {"status_code": 2013, "status_msg": "invalid params"}}),
                Some(FaultClass::InvalidRequest),
            ),
            (json!({"code": "InvalidParameter", "message": "no", "request_id": "r"}), Some(FaultClass::VendorBug)),
            (json!({"detail": "Not Found"}), Some(FaultClass::VendorBug)),
        ];
        for (object, expected) in cases {
            assert_eq!(in_band(&object, false).map(|fault| fault.class), expected, "{object}");
        }
    }

    #[test]
    fn waits_are_read_from_headers_body_and_text() {
        let wait = |headers: &'static [(&'static str, &'static str)], message: &str| {
            let header = |name: &str| headers.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
            let body = json!({"error": {"message": message}}).to_string();
            decode(429, &header, body.as_bytes()).retry_after_ms
        };
        assert_eq!(wait(&[("retry-after", "2"), ("retry-after-ms", "0")], ""), Some(2000));
        assert_eq!(wait(&[("retry-after", "2"), ("retry-after-ms", "150")], ""), Some(150));
        assert_eq!(
            wait(&[("x-ratelimit-remaining-tokens", "0"), ("x-ratelimit-reset-tokens", "1m0.5s")], ""),
            Some(60_500)
        );
        assert_eq!(wait(&[("x-ratelimit-remaining-tokens", "9"), ("x-ratelimit-reset-tokens", "1m")], ""), None);
        assert_eq!(wait(&[], "Please try again in 20ms. Visit"), Some(20));
        assert_eq!(wait(&[("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT")], ""), None);
    }

    #[test]
    fn a_quoted_key_does_not_travel_on() {
        let body = br#"{"error":{"message":"Incorrect API key provided: sk-abc123. Your key: ****-key is bad"}}"#;
        let fault = decode(401, &|_| None, body);
        assert_eq!(fault.message, "Incorrect API key provided: [key] Your key: [key] is bad");
    }

    #[test]
    fn an_invalid_request_names_its_parameter() {
        let fault = Fault::new(FaultClass::InvalidRequest, "messages[2].content: must be a string");
        assert_eq!(encode(&fault)["error"]["param"], "messages[2].content");
        let fault = Fault::new(FaultClass::InvalidRequest, "no path here: really");
        assert_eq!(encode(&fault)["error"]["param"], Value::Null);
    }
}
