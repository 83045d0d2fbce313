// SPDX-License-Identifier: Apache-2.0
//! Stop reasons, both ways.

use crate::ir::Finish;

/// The canonical reason for a `stop_reason`; what is not known passes through.
pub(super) fn from_wire(reason: &str, sequence: Option<String>) -> Finish {
    let canonical = match reason {
        "end_turn" => "stop",
        // The answer met the end of the context window: for the caller the same as meeting its own ceiling.
        "max_tokens" | "model_context_window_exceeded" => "length",
        "tool_use" => "tool_calls",
        "pause_turn" => "pause",
        other => other, // "stop_sequence" and "refusal" have the same name on both sides
    };
    Finish { reason: canonical.to_owned(), sequence }
}

/// The `stop_reason` for a canonical finish; `tools`: tools were called, `refused`: the model refused.
///
/// Some vendors finish with a plain "stop" after tool calls or a refusal. Callers of this dialect run tools only on
/// `tool_use`, so that is what they are told.
pub(super) fn to_wire(finish: Option<&Finish>, tools: bool, refused: bool) -> &str {
    match finish.map_or("stop", |finish| finish.reason.as_str()) {
        "stop" | "tool_calls" if refused && !tools => "refusal",
        "stop" if tools => "tool_use",
        "stop" | "error" | "" => "end_turn",
        "length" => "max_tokens",
        "tool_calls" => "tool_use",
        "content_filter" => "refusal",
        "pause" => "pause_turn",
        other => other,
    }
}
