// SPDX-License-Identifier: Apache-2.0
//! Errors: under a status, and inside a stream.

use serde_json::{Value, json};

use penstock_dialects::codec::{Codec, Envelope};
use penstock_dialects::framing::event_stream;
use penstock_dialects::ir::{Event, Fault, FaultClass};

use super::{CODEC, frames, streamed};
use crate::recordings::exchanges;

#[test]
fn recorded_refusals_have_the_right_class_and_come_through() {
    let mut seen = Vec::new();
    for recorded in exchanges("bedrock-converse").into_iter().filter(|recorded| !recorded.ok()) {
        let header = |name: &str| recorded.meta["response_headers"][name].as_str();
        let status = recorded.meta["status"].as_u64().and_then(|status| u16::try_from(status).ok()).expect("a status");
        let fault = CODEC.decode_fault(status, &header, &recorded.answer);
        let class = match fault.message.as_str() {
            message if message.contains("Input Tokens Exceeded") => FaultClass::ContextTooLong,
            message if message.contains("model identifier is invalid") => FaultClass::ModelNotFound,
            _ if status == 404 => FaultClass::ModelNotFound,
            _ => FaultClass::InvalidRequest,
        };
        assert_eq!(fault.class, class, "{}", recorded.name);
        assert_eq!(json!(fault.message), recorded.expected["error"]["message"], "{}", recorded.name);
        let kind = CODEC.fault_headers(&fault);
        let header = |name: &str| kind.iter().find(|(it, _)| *it == name).map(|(_, value)| value.as_str());
        let again = CODEC.decode_fault(fault.class.status(), &header, &CODEC.encode_fault(&fault, "r-1"));
        assert_eq!((again.class, again.message), (fault.class, fault.message), "{}", recorded.name);
        seen.push(class);
    }
    assert!(seen.is_empty() || seen.contains(&FaultClass::ContextTooLong));
}

#[test]
fn errors_are_classed_by_kind_and_by_what_they_say() {
    use FaultClass::{
        Authentication, Billing, ContentFilter, ContextTooLong, InvalidRequest, ModelNotFound, Overloaded, Permission,
        Quota, RateLimit, Timeout, VendorBug,
    };
    let cases = [
        (429, "ThrottlingException", "Too many requests, please wait before trying again.", RateLimit),
        (429, "ThrottlingException", "Too many tokens per day, please wait before trying again.", Quota),
        (400, "ServiceQuotaExceededException", "Your request exceeds the service quota.", Quota),
        (429, "ModelNotReadyException", "Model is not ready for inference.", Overloaded),
        (403, "AccessDeniedException", "You don't have access to the model with the specified model ID.", Permission),
        (
            403,
            "AccessDeniedException",
            "Authentication failed: Please make sure your API Key is valid.",
            Authentication,
        ),
        (403, "AccessDeniedException", "Model access is denied due to INVALID_PAYMENT_INSTRUMENT", Billing),
        (403, "UnrecognizedClientException", "The security token included in the request is invalid.", Authentication),
        (403, "InvalidSignatureException", "The request signature we calculated does not match.", Authentication),
        (403, "ExpiredTokenException", "The security token included in the request is expired", Authentication),
        (403, "", "The security token included in the request is invalid.", Authentication),
        (404, "ResourceNotFoundException", "Could not resolve the foundation model", ModelNotFound),
        (400, "ValidationException", "The provided model identifier is invalid.", ModelNotFound),
        (
            400,
            "ValidationException",
            "Invocation of model ID anthropic.claude-x with on-demand throughput isn\u{2019}t supported.",
            ModelNotFound,
        ),
        (400, "ValidationException", "Input is too long for requested model.", ContextTooLong),
        (400, "ValidationException", "prompt is too long: 205000 tokens > 200000 maximum", ContextTooLong),
        (400, "ValidationException", "input length and `max_tokens` exceed context limit: 1 + 2 > 2", ContextTooLong),
        (400, "ValidationException", "Output blocked by content filtering policy", ContentFilter),
        (400, "ValidationException", "The text field in the ContentBlock object is blank.", InvalidRequest),
        (408, "ModelTimeoutException", "Model has timed out in processing the request.", Timeout),
        (424, "ModelErrorException", "The system encountered an unexpected error during processing.", Overloaded),
        (500, "InternalServerException", "An internal server error occurred.", Overloaded),
        (503, "ServiceUnavailableException", "Bedrock is unable to process your request.", Overloaded),
        (418, "", "", VendorBug),
    ];
    for (status, kind, message, class) in cases {
        let stated = format!("{kind}:http://internal.amazon.com/coral/com.amazon.bedrock/");
        let header = |name: &str| (name == "x-amzn-errortype" && !kind.is_empty()).then_some(stated.as_str());
        for body in [json!({"message": message}), json!({"Message": message})] {
            let fault = CODEC.decode_fault(status, &header, body.to_string().as_bytes());
            assert_eq!(fault.class, class, "{status} {kind} {message}");
            assert_eq!(fault.code.as_deref().unwrap_or_default(), kind);
        }
        let body = json!({"__type": format!("com.amazon.coral.service#{kind}"), "message": message}).to_string();
        assert_eq!(CODEC.decode_fault(status, &|_| None, body.as_bytes()).class, class, "{kind} in the body");
    }
    let header = |name: &str| (name == "retry-after").then_some("2");
    let throttled = CODEC.decode_fault(429, &header, b"<html>");
    assert_eq!((throttled.class, throttled.retry_after_ms), (RateLimit, Some(2000)));
}

#[test]
fn an_exception_ends_a_stream_with_its_class() {
    use FaultClass::{ContextTooLong, InvalidRequest, Overloaded, RateLimit, VendorBug};
    let cases = [
        ("exception", "throttlingException", json!({"message": "slow"}), RateLimit, "slow"),
        ("exception", "validationException", json!({"message": "no"}), InvalidRequest, "no"),
        (
            "exception",
            "validationException",
            json!({"message": "Input is too long"}),
            ContextTooLong,
            "Input is too long",
        ),
        ("exception", "internalServerException", json!({"message": "oh"}), Overloaded, "oh"),
        ("exception", "serviceUnavailableException", json!({"message": "down"}), Overloaded, "down"),
        ("exception", "modelStreamErrorException", json!({"message": "m", "originalStatusCode": 500}), Overloaded, "m"),
        ("exception", "fromTheFuture", json!({}), VendorBug, "the vendor has broken its answer off: fromTheFuture"),
    ];
    for (sort, kind, body, class, message) in cases {
        let mut stream = Vec::new();
        event_stream::write(&mut stream, &[(":event-type", "messageStart"), (":message-type", "event")], b"{}");
        let headers = [(":message-type", sort), (":exception-type", kind)];
        event_stream::write(&mut stream, &headers, body.to_string().as_bytes());
        let events = streamed(&CODEC, &stream);
        let [Event::Start { .. }, Event::Fault(fault)] = events.as_slice() else { panic!("{kind}: {events:?}") };
        assert_eq!((fault.class, fault.message.as_str()), (class, message), "{kind}");
        assert_eq!(fault.code.as_deref(), Some(kind));
    }
    let mut stream = Vec::new();
    let error = [(":message-type", "error"), (":error-code", "InternalFailure"), (":error-message", "lost")];
    event_stream::write(&mut stream, &error, b"");
    let events = streamed(&CODEC, &stream);
    let [Event::Fault(fault)] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!((fault.class, fault.message.as_str()), (Overloaded, "lost"));
}

#[test]
fn every_class_of_failure_is_one_that_callers_know() {
    for class in FaultClass::ALL {
        let fault = Fault::new(*class, "it failed");
        let kind = CODEC.fault_headers(&fault);
        let header = |name: &str| kind.iter().find(|(it, _)| *it == name).map(|(_, value)| value.as_str());
        let again = CODEC.decode_fault(class.status(), &header, &CODEC.encode_fault(&fault, "r-1"));
        let expected = match class {
            FaultClass::Billing => FaultClass::Permission,
            FaultClass::ContentFilter | FaultClass::Unsupported => FaultClass::InvalidRequest,
            FaultClass::VendorBug => FaultClass::Overloaded,
            class => *class,
        };
        assert_eq!(again.class, expected);
        let mut stream = Vec::new();
        CODEC.stream_encoder(&Envelope::default()).fault(&fault, &mut stream);
        let frames: Vec<(String, Value)> = frames(&stream);
        let [(name, body)] = frames.as_slice() else { panic!("{frames:?}") };
        assert!(name.starts_with("exception:"), "{name}");
        assert!(body["message"].as_str().is_some_and(|message| message.ends_with("it failed")), "{body}");
        assert!(matches!(streamed(&CODEC, &stream).as_slice(), [Event::Fault(_)]));
    }
}
