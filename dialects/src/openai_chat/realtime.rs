// SPDX-License-Identifier: Apache-2.0
//! What OpenAI's Realtime API (and xAI's and Azure's, which have the same events) tells of usage: each `response.done` has
//! that of one response. <https://platform.openai.com/docs/api-reference/realtime-server-events/response/done>

use std::sync::LazyLock;

use memchr::memmem::Finder;
use serde_json::Value;

use crate::ir::Usage;

static DONE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"response.done"));
static TRANSCRIBED: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"input_audio_transcription.completed"));

/// The usage that a server event tells.
pub(super) fn usage(message: &[u8]) -> Option<Usage> {
    if DONE.find(message).is_none() && TRANSCRIBED.find(message).is_none() {
        return None;
    }
    let event: Value = serde_json::from_slice(message).ok()?;
    match event["type"].as_str()? {
        "response.done" => read(&event["response"]["usage"]),
        "conversation.item.input_audio_transcription.completed" => read(&event["usage"]),
        _ => None,
    }
}

/// Totals hold everything; the details say how many of them are audio or were cached, and what was cached is told apart by
/// kind once more.
fn read(stated: &Value) -> Option<Usage> {
    let count = |value: &Value| value.as_u64().unwrap_or_default();
    let (input, output) = (count(&stated["input_tokens"]), count(&stated["output_tokens"]));
    if !stated.is_object() || input + output == 0 {
        return None;
    }
    let (inputs, outputs) = (&stated["input_token_details"], &stated["output_token_details"]);
    let cached = count(&inputs["cached_tokens"]).min(input);
    let cached_audio = count(&inputs["cached_tokens_details"]["audio_tokens"]);
    let fresh = input - cached;
    let audio = count(&inputs["audio_tokens"]).saturating_sub(cached_audio).min(fresh);
    let spoken = count(&outputs["audio_tokens"]).min(output);
    let more = [("input-audio", audio), ("output-audio", spoken)].into_iter().filter(|(_, tokens)| *tokens > 0);
    Some(Usage {
        input: fresh - audio,
        cache_read: cached,
        output: output - spoken,
        more: more.map(|(name, tokens)| (name.to_owned(), tokens)).collect(),
        stated: stated.to_string(),
        ..Usage::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usage_of_a_response_is_read_into_disjoint_buckets() {
        let done =
            br#"{"type":"response.done","response":{"usage":{"total_tokens":253,"input_tokens":132,"output_tokens":121,
            "input_token_details":{"text_tokens":119,"audio_tokens":13,"image_tokens":0,"cached_tokens":64,
            "cached_tokens_details":{"text_tokens":60,"audio_tokens":4}},
            "output_token_details":{"text_tokens":30,"audio_tokens":91}}}}"#;
        let usage = usage(done).unwrap();
        assert_eq!((usage.input, usage.cache_read, usage.output), (59, 64, 30));
        assert_eq!(usage.more, [("input-audio".to_owned(), 9), ("output-audio".to_owned(), 91)]);
        assert_eq!(super::usage(br#"{"type":"response.created","response":{"usage":null}}"#), None);
        assert_eq!(super::usage(br#"{"type":"response.text.delta","delta":"response.done"}"#), None);
    }
}
