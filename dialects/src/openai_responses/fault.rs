// SPDX-License-Identifier: Apache-2.0
//! Errors inside answers, read and written. What stands outside (a status that is not 2xx) has the form of Chat
//! Completions.

use serde_json::{Value, json};

use crate::ir::{Fault, FaultClass};
use crate::openai_chat;

/// The error that an answer states of itself, if any.
pub(super) fn in_answer(answer: &Value) -> Option<Fault> {
    let stated = openai_chat::fault::in_band(answer, false).map(classed);
    stated.or_else(|| {
        let message = "the vendor broke its answer off and did not say why";
        (answer["status"] == "failed").then(|| Fault::new(FaultClass::VendorBug, message))
    })
}

/// The error that an event of a stream is, if any: `error`, flat or with a member `error`, or a vendor's own.
pub(super) fn in_event(kind: &str, event: &Value) -> Option<Fault> {
    openai_chat::fault::in_band(event, kind == "error").map(classed)
}

/// Writes the member `error` of a failed answer. Codex tells by its code what to do next.
pub(super) fn answer_error(fault: &Fault) -> Value {
    let code = match fault.class {
        FaultClass::RateLimit => "rate_limit_exceeded",
        FaultClass::Quota | FaultClass::Billing => "insufficient_quota",
        FaultClass::ContextTooLong => "context_length_exceeded",
        FaultClass::InvalidRequest => "invalid_prompt",
        FaultClass::Overloaded => "server_is_overloaded",
        _ => "server_error",
    };
    json!({ "code": code, "message": fault.message })
}

/// Writes the members of the event `error`: flat, as the API documents them, and once more in `error`, by which OpenAI's
/// SDKs know that they have to raise it.
pub(super) fn event_members(fault: &Fault) -> Value {
    let mut event = openai_chat::fault::encode(fault);
    for member in ["code", "message", "param"] {
        event[member] = event["error"][member].clone();
    }
    event
}

/// OpenAI's codes of failed answers that say more than the tables of Chat Completions know.
fn classed(fault: Fault) -> Fault {
    if fault.class != FaultClass::VendorBug {
        return fault;
    }
    let class = match fault.code.as_deref().unwrap_or_default() {
        "server_error" | "internal_error" | "slow_down" => FaultClass::Overloaded,
        "invalid_prompt" if fault.message.contains("flagged") => FaultClass::ContentFilter,
        "invalid_prompt" => FaultClass::InvalidRequest,
        code if code.ends_with("_policy") => FaultClass::ContentFilter,
        code if code.contains("image") => FaultClass::InvalidRequest,
        _ => FaultClass::VendorBug,
    };
    Fault { class, ..fault }
}
