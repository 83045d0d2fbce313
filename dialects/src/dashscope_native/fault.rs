// SPDX-License-Identifier: Apache-2.0
//! Errors: `{code, message, request_id}`, under a status, inside a stream, or of a job that failed. The class follows from
//! the code (<https://help.aliyun.com/zh/model-studio/error-code>); where the code says no more than that something is
//! wrong, from the words, which are those of the vendor's OpenAI-compatible API.

use serde_json::Value;

use crate::codec::Codec;
use crate::ir::{Fault, FaultClass};
use crate::openai_chat::OpenAiChat;

/// Beginnings of codes and what they mean; the first that fits decides.
const CODES: &[(&str, FaultClass)] = &[
    ("InvalidApiKey", FaultClass::Authentication),
    ("Arrearage", FaultClass::Billing),
    ("PrepaidBillOverdue", FaultClass::Billing),
    ("PostpaidBillOverdue", FaultClass::Billing),
    ("CommodityNotPurchased", FaultClass::Billing),
    ("AllocationQuota", FaultClass::Quota),
    ("Throttling", FaultClass::RateLimit),
    ("DataInspectionFailed", FaultClass::ContentFilter),
    ("InternalError.Algo.DataInspectionFailed", FaultClass::ContentFilter),
    ("IPInfringementSuspect", FaultClass::ContentFilter),
    ("FaqRuleBlocked", FaultClass::ContentFilter),
    ("CustomRoleBlocked", FaultClass::ContentFilter),
    ("ModelNotFound", FaultClass::ModelNotFound),
    ("Model.AccessDenied", FaultClass::Permission),
    ("Workspace.AccessDenied", FaultClass::Permission),
    ("App.AccessDenied", FaultClass::Permission),
    ("AccessDenied", FaultClass::Permission),
    ("UnsupportedModel", FaultClass::Unsupported),
    ("UnsupportedOperation", FaultClass::Unsupported),
    ("RequestTimeOut", FaultClass::Timeout),
    ("ResponseTimeout", FaultClass::Timeout),
    ("InternalError.Timeout", FaultClass::Timeout),
    ("ModelServingError", FaultClass::Overloaded),
    ("ModelServiceFailed", FaultClass::Overloaded),
    ("ModelUnavailable", FaultClass::Overloaded),
    ("ServiceUnavailable", FaultClass::Overloaded),
    ("SystemError", FaultClass::Overloaded),
];

/// Reads an answer that is not 2xx: JSON, or the one event of a stream that did not come to be. `header` looks a response
/// header up by its lower-case name.
#[must_use]
pub fn decode_fault<'h>(status: u16, header: &dyn Fn(&str) -> Option<&'h str>, body: &[u8]) -> Fault {
    let data = body.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"data:"));
    let mut fault = OpenAiChat.decode_fault(status, header, data.unwrap_or(body).trim_ascii());
    if let Some(class) = fault.code.as_deref().and_then(class_of) {
        fault.class = class;
    }
    fault
}

/// The error that a 2xx answer or one event of it states, if any. `named` if the event says that it is an error.
pub(super) fn in_band(object: &Value, named: bool) -> Option<Fault> {
    let code = object["code"].as_str().unwrap_or_default();
    if code.is_empty() && !named && object["error"].is_null() {
        return None;
    }
    // There is no status: the one that the vendor gives such a code elsewhere.
    let vendors = ["InternalError", "SystemError", "ServiceUnavailable"].iter().any(|known| code.starts_with(known));
    let callers = code.starts_with("InternalError.Algo.InvalidParameter");
    let status = if (vendors && !callers) || code.is_empty() { 500 } else { 400 };
    Some(decode_fault(status, &|_| None, object.to_string().as_bytes()))
}

fn class_of(code: &str) -> Option<FaultClass> {
    CODES.iter().find(|(beginning, _)| code.starts_with(beginning)).map(|(_, class)| *class)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_class_follows_from_the_code_and_the_words() {
        use FaultClass as C;
        let too_long = "Range of input length should be [1, 30720]";
        let cases = [
            (401, "InvalidApiKey", "Invalid API-key provided.", C::Authentication),
            (400, "Arrearage", "Access denied, please make sure your account is in good standing.", C::Billing),
            (429, "Throttling.RateQuota", "Requests rate limit exceeded, please try again later.", C::RateLimit),
            (
                429,
                "Throttling.AllocationQuota",
                "Allocated quota exceeded, please increase your quota limit.",
                C::RateLimit,
            ),
            (403, "AllocationQuota.FreeTierOnly", "The free tier of the model has been exhausted.", C::Quota),
            (400, "DataInspectionFailed", "Input data may contain inappropriate content.", C::ContentFilter),
            (400, "InvalidParameter", too_long, C::ContextTooLong),
            (500, "InternalError.Algo.InvalidParameter", too_long, C::ContextTooLong),
            (400, "InvalidParameter", "Model not exist.", C::ModelNotFound),
            (400, "InvalidParameter", "Required parameter(s) missing or invalid", C::InvalidRequest),
            (403, "AccessDenied", "Access denied.", C::Permission),
            (403, "Model.AccessDenied", "Model access denied.", C::Permission),
            (500, "InternalError", "An internal error has occured, please try again later.", C::Overloaded),
            (500, "InternalError.Timeout", "An internal timeout error has occured.", C::Timeout),
            (503, "ModelServingError", "Too many requests. Your requests are being throttled.", C::Overloaded),
        ];
        for (status, code, message, expected) in cases {
            let body = json!({ "code": code, "message": message, "request_id": "r" });
            let fault = decode_fault(status, &|_| None, body.to_string().as_bytes());
            assert_eq!((fault.class, fault.code.as_deref()), (expected, Some(code)), "{message}");
            assert_eq!(fault.message, message);
            assert_eq!(in_band(&body, false).map(|fault| fault.class), Some(expected), "in band: {code} {message}");
        }
    }

    #[test]
    fn an_error_that_is_written_as_an_event_is_read() {
        let body =
            b"id:1\nevent:error\n:HTTP_STATUS/429\ndata:{\"code\":\"Throttling\",\"message\":\"Slow down.\"}\n\n";
        let fault = decode_fault(429, &|_| None, body);
        assert_eq!((fault.class, fault.message.as_str()), (FaultClass::RateLimit, "Slow down."));
    }

    #[test]
    fn an_answer_without_a_code_is_no_error() {
        assert_eq!(in_band(&json!({ "output": {}, "code": "", "message": "" }), false), None);
        assert_eq!(in_band(&json!({ "output": {} }), false), None);
        assert!(in_band(&json!({ "message": "boom" }), true).is_some());
        assert!(in_band(&json!({ "error": { "code": "x", "message": "y" } }), false).is_some());
    }
}
