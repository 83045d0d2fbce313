// SPDX-License-Identifier: Apache-2.0
//! Why an answer ended, both ways. Source: <https://ai.google.dev/api/generate-content#FinishReason>.

use crate::ir::Finish;

/// The canonical reason for a `finishReason`; `called`: functions were called, which this API ends with a plain `STOP`.
/// What is not known passes through.
pub(super) fn from_wire(reason: &str, called: bool) -> Finish {
    let canonical = match reason {
        "STOP" if called => "tool_calls",
        "STOP" => "stop",
        "MAX_TOKENS" => "length",
        "SAFETY"
        | "RECITATION"
        | "BLOCKLIST"
        | "PROHIBITED_CONTENT"
        | "SPII"
        | "MODEL_ARMOR"
        | "IMAGE_SAFETY"
        | "IMAGE_PROHIBITED_CONTENT"
        | "IMAGE_RECITATION" => "content_filter",
        other => other,
    };
    Finish { reason: canonical.to_owned(), sequence: None }
}

/// The reason for a prompt that was refused (`promptFeedback.blockReason`).
pub(super) fn of_blocked_prompt() -> Finish {
    Finish { reason: "content_filter".to_owned(), sequence: None }
}

/// The `finishReason` for a canonical finish.
pub(super) fn to_wire(finish: Option<&Finish>, refused: bool) -> &str {
    match finish.map_or("stop", |finish| finish.reason.as_str()) {
        "stop" if refused => "SAFETY",
        "stop" | "tool_calls" | "stop_sequence" => "STOP",
        "length" => "MAX_TOKENS",
        "content_filter" | "refusal" => "SAFETY",
        // SDKs read the words of this API and no others.
        other if !other.is_empty() && other.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_') => other,
        _ => "OTHER",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_map_both_ways() {
        let cases = [
            ("STOP", false, "stop", "STOP"),
            ("STOP", true, "tool_calls", "STOP"),
            ("MAX_TOKENS", true, "length", "MAX_TOKENS"),
            ("PROHIBITED_CONTENT", false, "content_filter", "SAFETY"),
            ("BLOCKLIST", false, "content_filter", "SAFETY"),
            ("MALFORMED_FUNCTION_CALL", false, "MALFORMED_FUNCTION_CALL", "MALFORMED_FUNCTION_CALL"),
            ("A_NEW_ONE", false, "A_NEW_ONE", "A_NEW_ONE"),
        ];
        for (wire, called, canonical, again) in cases {
            let finish = from_wire(wire, called);
            assert_eq!(finish.reason, canonical);
            assert_eq!(to_wire(Some(&finish), false), again);
        }
        for (canonical, wire) in
            [("pause", "OTHER"), ("error", "OTHER"), ("refusal", "SAFETY"), ("stop_sequence", "STOP")]
        {
            assert_eq!(to_wire(Some(&Finish { reason: canonical.to_owned(), sequence: None }), false), wire);
        }
    }
}
