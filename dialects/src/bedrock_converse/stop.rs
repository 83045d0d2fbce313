// SPDX-License-Identifier: Apache-2.0
//! Stop reasons, both ways.

use crate::ir::Finish;

/// The canonical reason for a `stopReason`; what is not known passes through.
pub(super) fn from_wire(reason: &str, sequence: Option<String>) -> Finish {
    let canonical = match reason {
        "end_turn" => "stop",
        "max_tokens" | "model_context_window_exceeded" => "length",
        "tool_use" => "tool_calls",
        "guardrail_intervened" | "content_filtered" => "content_filter",
        other => other, // "stop_sequence" has the same name on both sides
    };
    Finish { reason: canonical.to_owned(), sequence }
}

/// The `stopReason` for a canonical finish; `tools`: the caller's tools were called, `refused`: the model refused. Callers
/// run tools only on `tool_use`, and SDKs in typed languages know only the words of the API.
pub(super) fn to_wire(finish: Option<&Finish>, tools: bool, refused: bool) -> &'static str {
    match finish.map_or("stop", |finish| finish.reason.as_str()) {
        "stop" | "tool_calls" if refused && !tools => "content_filtered",
        "stop" if tools => "tool_use",
        "length" => "max_tokens",
        "tool_calls" => "tool_use",
        "content_filter" | "refusal" => "content_filtered",
        "stop_sequence" => "stop_sequence",
        "malformed_tool_use" => "malformed_tool_use",
        "malformed_model_output" => "malformed_model_output",
        _ => "end_turn",
    }
}
