// SPDX-License-Identifier: Apache-2.0
//! Errors, both ways: `{"error": {"code", "message", "status", "details": […]}}`, also in a list of one, as endpoints that
//! stream arrays write it. Source: <https://google.aip.dev/193>, <https://ai.google.dev/gemini-api/docs/troubleshooting>, and
//! recorded answers.

use serde_json::{Value, json};

use crate::ir::{Fault, FaultClass};

/// Longest message that is passed on, in bytes.
const MESSAGE_BYTES_MAX: usize = 2048;

/// Longest wait that is believed, in seconds: a day.
const WAIT_SECONDS_MAX: f64 = 86_400.0;

/// What an answer that is not 2xx means.
pub(super) fn decode<'h>(status: u16, header: &dyn Fn(&str) -> Option<&'h str>, body: &[u8]) -> Fault {
    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    let mut fault = stated(&json, Some(status));
    let stated_wait = fault.retry_after_ms;
    let wait = header("retry-after").and_then(|seconds| wait_ms(seconds.trim()));
    fault.retry_after_ms = wait.or(stated_wait);
    fault
}

/// The error that a JSON body states. `status` is none inside a 2xx answer.
pub(super) fn stated(body: &Value, status: Option<u16>) -> Fault {
    let body = body.get(0).unwrap_or(body);
    let error = &body["error"];
    let said = ["message", "error_description"].iter().find_map(|name| error[*name].as_str());
    // What the token endpoint says: {"error": "invalid_grant", "error_description": "…"}
    let said = said.or_else(|| body["error_description"].as_str()).or_else(|| error.as_str());
    let message = match (said.map(str::trim).filter(|said| !said.is_empty()), status) {
        (Some(said), _) => said.to_owned(),
        (None, Some(status)) => format!("the vendor answered with status {status} and no readable error"),
        (None, None) => "the vendor reports an error without a message".to_owned(),
    };
    let code = error["status"].as_str().or_else(|| error.as_str()).map(str::to_owned);
    let number = error["code"].as_u64().and_then(|code| u16::try_from(code).ok());
    let said = Said {
        lower: message.to_ascii_lowercase(),
        reasons: reasons(error),
        kind: code.as_deref().unwrap_or_default(),
        status: status.or(number.filter(|code| *code >= 400)),
    };
    let class = said.class();
    let waits =
        matches!(class, FaultClass::RateLimit | FaultClass::Quota | FaultClass::Overloaded | FaultClass::Timeout);
    let retry_after_ms = retry_delay(error).or_else(|| wait_of_text(&message)).filter(|_| waits);
    let code = code.or_else(|| error["code"].as_i64().map(|code| code.to_string()));
    Fault { code, retry_after_ms, ..Fault::new(class, cut(without_keys(&message))) }
}

/// Writes an error answer.
pub(super) fn encode(fault: &Fault, request_id: &str) -> Value {
    let (code, status) = code_and_status(fault.class);
    let reason = fault.class.name().to_ascii_uppercase().replace('-', "_");
    let mut info = json!({
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": reason,
        "domain": "penstock",
    });
    if !request_id.is_empty() {
        info["metadata"] = json!({"request_id": request_id});
    }
    let mut details = vec![info];
    if let Some(wait_ms) = fault.retry_after_ms {
        let delay = format!("{}.{:03}s", wait_ms / 1000, wait_ms % 1000);
        details.push(json!({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}));
    }
    // SDKs know an error inside a stream by its being the first member.
    json!({"error": {"code": code, "message": fault.message, "status": status, "details": details}})
}

fn code_and_status(class: FaultClass) -> (u16, &'static str) {
    let status = match class {
        FaultClass::Authentication => "UNAUTHENTICATED",
        FaultClass::Permission => "PERMISSION_DENIED",
        FaultClass::Billing => "FAILED_PRECONDITION",
        FaultClass::RateLimit | FaultClass::Quota => "RESOURCE_EXHAUSTED",
        FaultClass::ContextTooLong | FaultClass::ContentFilter | FaultClass::InvalidRequest => "INVALID_ARGUMENT",
        FaultClass::Unsupported => "UNIMPLEMENTED",
        FaultClass::ModelNotFound => "NOT_FOUND",
        FaultClass::Overloaded => "UNAVAILABLE",
        FaultClass::Timeout => "DEADLINE_EXCEEDED",
        FaultClass::VendorBug => "INTERNAL",
    };
    (class.status(), status)
}

/// What an error says, by which it is classed.
struct Said<'e> {
    /// The message in lower case.
    lower: String,
    /// Reasons and quotas of the details.
    reasons: String,
    /// `error.status`
    kind: &'e str,
    status: Option<u16>,
}

impl Said<'_> {
    fn has(&self, words: &[&str]) -> bool {
        words.iter().any(|word| self.lower.contains(word))
    }

    fn gives(&self, reasons: &[&str]) -> bool {
        reasons.iter().any(|reason| self.reasons.contains(reason))
    }

    fn class(&self) -> FaultClass {
        // A wrong key is an invalid argument to this API.
        if self.gives(&["API_KEY_INVALID", "API_KEY_EXPIRED", "ACCESS_TOKEN_", "CREDENTIALS_MISSING"])
            || self.has(&["api key not valid", "api key expired", "api key was reported as leaked", "api_key_invalid"])
        {
            return FaultClass::Authentication;
        }
        let has_no_money = self.gives(&["BILLING_DISABLED", "BILLING_NOT_ACTIVE"])
            || self.has(&["enable billing", "billing account", "credits are depleted", "billing is disabled"]);
        if has_no_money && self.status != Some(429) {
            return FaultClass::Billing;
        }
        if self.is_too_long() {
            return FaultClass::ContextTooLong;
        }
        let of_kind = match self.kind {
            "UNAUTHENTICATED" | "invalid_grant" | "invalid_client" | "unauthorized_client" => {
                FaultClass::Authentication
            }
            "PERMISSION_DENIED" => FaultClass::Permission,
            "INVALID_ARGUMENT" | "OUT_OF_RANGE" | "ALREADY_EXISTS" | "CANCELLED" | "ABORTED" => self.invalid(),
            "FAILED_PRECONDITION" if self.has(&["location is not supported", "not available in your country"]) => {
                FaultClass::Permission
            }
            "FAILED_PRECONDITION" => self.invalid(),
            "NOT_FOUND" => self.not_found(),
            "RESOURCE_EXHAUSTED" => self.exhausted(),
            "UNIMPLEMENTED" => FaultClass::Unsupported,
            "UNAVAILABLE" | "INTERNAL" | "UNKNOWN" | "DATA_LOSS" => FaultClass::Overloaded,
            "DEADLINE_EXCEEDED" => FaultClass::Timeout,
            _ => return self.of_status(),
        };
        // Proxies in front of the API keep its words and change the status.
        if of_kind == FaultClass::InvalidRequest && self.status.is_some_and(|status| status >= 500) {
            return self.of_status();
        }
        of_kind
    }

    fn of_status(&self) -> FaultClass {
        match self.status {
            Some(401) => FaultClass::Authentication,
            Some(402) => FaultClass::Billing,
            Some(403) => FaultClass::Permission,
            Some(404) => self.not_found(),
            Some(408 | 504 | 524) => FaultClass::Timeout,
            Some(429) => self.exhausted(),
            Some(501) => FaultClass::Unsupported,
            Some(400..=499) => self.invalid(),
            Some(500..=599) => FaultClass::Overloaded,
            _ => FaultClass::VendorBug,
        }
    }

    fn invalid(&self) -> FaultClass {
        let refused = [
            "violates our",
            "violate google",
            "responsible ai",
            "prohibited content",
            "blocked by safety",
            "safety filter",
        ];
        if self.has(&refused) { FaultClass::ContentFilter } else { FaultClass::InvalidRequest }
    }

    /// A 404 is for the model unless it names something else.
    fn not_found(&self) -> FaultClass {
        let other = !self.has(&["model"])
            && self.has(&["file", "cachedcontent", "cached content", "batch", "operation", "corpus"]);
        if other { FaultClass::InvalidRequest } else { FaultClass::ModelNotFound }
    }

    /// Every limit is worded as a quota; those of a day do not come back soon.
    fn exhausted(&self) -> FaultClass {
        if self.has(&["credits are depleted", "spend cap", "spending cap"]) {
            return FaultClass::Billing;
        }
        let daily = self.reasons.contains("PerDay") || self.has(&["per day", "per_day", "daily limit"]);
        if daily { FaultClass::Quota } else { FaultClass::RateLimit }
    }

    /// "The input token count (1250074) exceeds the maximum number of tokens allowed (1048576)."
    fn is_too_long(&self) -> bool {
        let counts = self.lower.contains("token count") && self.has(&["exceed", "maximum"]);
        counts && !self.gives(&["QuotaFailure"])
            || self.has(&["exceeds the maximum number of tokens", "maximum context length", "prompt is too long"])
    }
}

/// Reasons and quota ids of `details`.
fn reasons(error: &Value) -> String {
    let mut reasons = String::new();
    let mut add = |text: &Value| {
        reasons.push_str(text.as_str().unwrap_or_default());
        reasons.push(' ');
    };
    for detail in error["details"].as_array().into_iter().flatten() {
        add(&detail["@type"]);
        add(&detail["reason"]);
        for violation in detail["violations"].as_array().into_iter().flatten() {
            add(&violation["quotaId"]);
        }
    }
    reasons
}

/// `RetryInfo`
fn retry_delay(error: &Value) -> Option<u64> {
    error["details"].as_array()?.iter().find_map(|detail| wait_ms(detail["retryDelay"].as_str()?.trim_end_matches('s')))
}

/// "Please retry in 48.939935699s."
fn wait_of_text(text: &str) -> Option<u64> {
    let (_, rest) = text.split_once("retry in ")?;
    let word = rest.split_whitespace().next()?.trim_end_matches(['.', ',']);
    match word.strip_suffix("ms") {
        Some(milliseconds) => wait_ms(milliseconds).map(|wait| wait / 1000),
        None => wait_ms(word.strip_suffix('s')?),
    }
}

/// Milliseconds of a number of seconds.
fn wait_ms(seconds: &str) -> Option<u64> {
    let seconds = seconds.parse::<f64>().ok().filter(|seconds| (0.0..=WAIT_SECONDS_MAX).contains(seconds))?;
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "bounded and not negative, checked above"
    )]
    Some((seconds * 1000.0).ceil() as u64)
}

/// The vendor names the key that it suspends: `Consumer 'api_key:AIza…'`. What looks like one is cut out.
fn without_keys(message: &str) -> String {
    let mut clean = String::with_capacity(message.len());
    let mut rest = message;
    while let Some((at, mark)) =
        ["AIza", "api_key:", "ya29."].iter().filter_map(|mark| Some((rest.find(mark)?, *mark))).min()
    {
        let secret = &rest[at + mark.len()..];
        let is_key = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
        let end = secret.find(|letter| !is_key(letter)).unwrap_or(secret.len());
        clean.push_str(&rest[..at]);
        clean.push_str("[key]");
        rest = &secret[end..];
    }
    clean.push_str(rest);
    clean
}

fn cut(mut message: String) -> String {
    if message.len() > MESSAGE_BYTES_MAX {
        let end = (0..=MESSAGE_BYTES_MAX).rev().find(|at| message.is_char_boundary(*at)).unwrap_or_default();
        message.truncate(end);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    use FaultClass as C;

    fn error(code: u16, status: &str, message: &str, details: &Value) -> Value {
        json!({"error": {"code": code, "message": message, "status": status, "details": details}})
    }

    /// Code, status, message, a reason or `quota:` and a quota's id; the class.
    const ERRORS: &[(u16, &str, &str, &str, FaultClass)] = &[
        (
            400,
            "INVALID_ARGUMENT",
            "API key not valid. Please pass a valid API key.",
            "API_KEY_INVALID",
            C::Authentication,
        ),
        (400, "INVALID_ARGUMENT", "Please use a valid role: user, model.", "", C::InvalidRequest),
        (
            400,
            "INVALID_ARGUMENT",
            "The input token count (1250074) exceeds the maximum number of tokens allowed (1048576).",
            "",
            C::ContextTooLong,
        ),
        (400, "FAILED_PRECONDITION", "User location is not supported for the API use.", "", C::Permission),
        (
            400,
            "FAILED_PRECONDITION",
            "Gemini API free tier is not available in your country. Please enable billing on your project",
            "",
            C::Billing,
        ),
        (403, "PERMISSION_DENIED", "This API method requires billing to be enabled.", "BILLING_DISABLED", C::Billing),
        (403, "PERMISSION_DENIED", "Permission denied on resource project x.", "CONSUMER_INVALID", C::Permission),
        (
            401,
            "UNAUTHENTICATED",
            "Request had invalid authentication credentials.",
            "ACCESS_TOKEN_EXPIRED",
            C::Authentication,
        ),
        (
            404,
            "NOT_FOUND",
            "models/x is not found for API version v1beta, or is not supported for generateContent.",
            "",
            C::ModelNotFound,
        ),
        (404, "NOT_FOUND", "Publisher Model `projects/p/x` was not found", "", C::ModelNotFound),
        (404, "NOT_FOUND", "CachedContent not found (or permission denied)", "", C::InvalidRequest),
        (
            429,
            "RESOURCE_EXHAUSTED",
            "You exceeded your current quota.",
            "quota:GenerateRequestsPerMinutePerProject",
            C::RateLimit,
        ),
        (
            429,
            "RESOURCE_EXHAUSTED",
            "You exceeded your current quota.",
            "quota:GenerateRequestsPerDayPerProject-FreeTier",
            C::Quota,
        ),
        (429, "RESOURCE_EXHAUSTED", "Your prepayment credits are depleted.", "", C::Billing),
        (429, "RESOURCE_EXHAUSTED", "Resource exhausted. Please try again later.", "", C::RateLimit),
        (500, "INTERNAL", "An internal error has occurred.", "", C::Overloaded),
        (503, "UNAVAILABLE", "The model is overloaded. Please try again later.", "", C::Overloaded),
        (504, "DEADLINE_EXCEEDED", "Deadline expired before operation could complete.", "", C::Timeout),
        (501, "UNIMPLEMENTED", "Operation is not implemented.", "", C::Unsupported),
    ];

    fn details(of: &str) -> Value {
        match of.strip_prefix("quota:") {
            Some(id) => {
                json!([{"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": id}]},
                {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "48s"}])
            }
            None if of.is_empty() => json!([]),
            None => json!([{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": of}]),
        }
    }

    #[test]
    fn errors_have_the_class_that_they_state() {
        for (code, status, message, why, class) in ERRORS.iter().copied() {
            let body = error(code, status, message, &details(why));
            for body in [body.clone(), json!([body])] {
                let fault = decode(code, &|_| None, body.to_string().as_bytes());
                assert_eq!((fault.class, fault.message.as_str()), (class, message));
                assert_eq!(fault.code.as_deref(), Some(status));
                let inside = stated(&body, None);
                assert_eq!(inside.class, class, "inside a stream the code is the status");
            }
        }
        for (status, class) in
            [(401, C::Authentication), (404, C::ModelNotFound), (502, C::Overloaded), (418, C::InvalidRequest)]
        {
            assert_eq!(decode(status, &|_| None, b"<html>").class, class);
        }
        let refused =
            decode(400, &|_| None, br#"{"error":"invalid_grant","error_description":"Invalid JWT Signature."}"#);
        assert_eq!((refused.class, refused.message.as_str()), (C::Authentication, "Invalid JWT Signature."));
    }

    #[test]
    fn waits_are_read_from_details_words_and_headers() {
        let stated = error(429, "RESOURCE_EXHAUSTED", "x", &json!([{"retryDelay": "34.4s"}])).to_string();
        let worded = error(429, "RESOURCE_EXHAUSTED", "Please retry in 1.5s.", &json!([])).to_string();
        let short = error(503, "UNAVAILABLE", "Please retry in 250.7ms.", &json!([])).to_string();
        let wait = |status: u16, body: &str, header: Option<&'static str>| {
            decode(status, &|name| header.filter(|_| name == "retry-after"), body.as_bytes()).retry_after_ms
        };
        assert_eq!(wait(429, &stated, None), Some(34_400));
        assert_eq!(wait(429, &worded, None), Some(1500));
        assert_eq!(wait(503, &short, None), Some(250));
        assert_eq!(wait(429, &stated, Some("7")), Some(7000));
        assert_eq!(wait(400, &error(400, "INVALID_ARGUMENT", "x", &json!([])).to_string(), None), None);
    }

    #[test]
    fn a_message_never_quotes_a_key() {
        let body =
            error(403, "PERMISSION_DENIED", "Consumer 'api_key:AIzaSyA-b_c' has been suspended; AIzaXY.", &json!([]));
        assert_eq!(stated(&body, Some(403)).message, "Consumer '[key]' has been suspended; [key]");
    }

    #[test]
    fn what_is_written_has_the_same_class() {
        for class in FaultClass::ALL.iter().copied() {
            let fault = Fault { retry_after_ms: Some(1500), ..Fault::new(class, "why") };
            let body = encode(&fault, "req_1");
            assert!(body.to_string().starts_with("{\"error\":"));
            assert_eq!(body["error"]["details"][1]["retryDelay"], "1.500s");
            let again = decode(class.status(), &|_| None, body.to_string().as_bytes());
            let expected = match class {
                C::Quota => C::RateLimit,
                C::ContextTooLong | C::ContentFilter | C::Billing => again.class,
                C::VendorBug => C::Overloaded,
                class => class,
            };
            assert_eq!(again.class, expected);
        }
    }
}
