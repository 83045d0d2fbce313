// SPDX-License-Identifier: Apache-2.0
//! How an answer ends, both ways.

use crate::ir::{Content, Finish, Response};

/// The canonical finish; none for the words that say that the answer failed. What is not known stays as it is.
pub(super) fn from_wire(reason: &str) -> Option<Finish> {
    let word = match reason {
        "ERROR" | "TIMEOUT" => return None,
        "COMPLETE" => "stop",
        "STOP_SEQUENCE" => "stop_sequence",
        "MAX_TOKENS" | "ERROR_LIMIT" => "length",
        "TOOL_CALL" => "tool_calls",
        "ERROR_TOXIC" => "content_filter",
        other => other,
    };
    Some(Finish { reason: word.to_owned(), sequence: None })
}

/// The word for a finish. Version 2 has none for a filter; `ERROR_TOXIC` is what version 1 said, and no SDK minds it.
pub(super) fn to_wire(finish: Option<&Finish>, called: bool) -> &'static str {
    match finish.map_or("stop", |finish| finish.reason.as_str()) {
        "length" => "MAX_TOKENS",
        "tool_calls" => "TOOL_CALL",
        "content_filter" | "refusal" => "ERROR_TOXIC",
        "error" => "ERROR",
        // Some vendors say of calls, too, that they stopped.
        _ if called => "TOOL_CALL",
        "stop_sequence" => "STOP_SEQUENCE",
        _ => "COMPLETE",
    }
}

/// Whether an answer calls a tool.
pub(super) fn calls(response: &Response) -> bool {
    response.blocks.iter().any(|block| matches!(block.content, Content::ToolUse { .. }))
}
