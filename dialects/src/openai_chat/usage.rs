// SPDX-License-Identifier: Apache-2.0
//! The usage object of OpenAI-shaped vendors, read into disjoint buckets and written from them.
//!
//! The vendors share the names and not the arithmetic (measured on recorded traffic): the cache is inside
//! `prompt_tokens` except at Azure-hosted Grok; reasoning is inside `completion_tokens` except at xAI; audio is outside
//! at Mistral; Gemini counts hidden thoughts only in the total.

use serde_json::{Value, json};

use crate::ir::Usage;

/// Name of the bucket for tokens that a vendor counts in its total only.
const HIDDEN: &str = "hidden";
/// Name of the bucket for audio tokens that are not part of the prompt's.
const INPUT_AUDIO: &str = "input-audio";

/// Name of the bucket for image tokens that go in.
pub(super) const INPUT_IMAGE: &str = "input-image";
/// Name of the bucket for image tokens that come out.
const OUTPUT_IMAGE: &str = "output-image";

/// Reads a usage object; none if it counts nothing.
pub(crate) fn read(stated: &Value) -> Option<Usage> {
    let prompt = first(stated, &["/prompt_tokens", "/input_tokens"]);
    let completion = first(stated, &["/completion_tokens", "/output_tokens"]);
    let total = count(stated, "/total_tokens");
    if prompt.is_none() && completion.is_none() {
        // Voyage counts the input of embeddings and rankings in the total only.
        return total.map(|input| Usage { input, stated: stated.to_string(), ..Usage::default() });
    }
    if let Some(usage) = pictures(stated) {
        return Some(usage);
    }
    let (prompt, completion) = (prompt.unwrap_or_default(), completion.unwrap_or_default());
    let (input, cache_read, cache_write) = input_buckets(stated, prompt);
    const REASONING: &[&str] = &[
        "/completion_tokens_details/reasoning_tokens",
        "/output_tokens_details/reasoning_tokens",
        "/reasoning_tokens",
    ];
    let stated_reasoning = first(stated, REASONING).unwrap_or_default();
    let both = prompt.saturating_add(completion);
    let outside = stated_reasoning > 0 && total == Some(both.saturating_add(stated_reasoning));
    let (output, reasoning) = if outside {
        (completion, stated_reasoning)
    } else {
        let inside = stated_reasoning.min(completion);
        (completion - inside, inside)
    };
    let excess = total.unwrap_or_default().saturating_sub(both);
    let cache_outside = cache_read.saturating_add(cache_write) > prompt;
    let audio = count(stated, "/prompt_tokens_details/audio_tokens").unwrap_or_default();
    let more = match excess {
        0 => Vec::new(),
        _ if outside || cache_outside => Vec::new(),
        _ if excess == audio => vec![(INPUT_AUDIO.to_owned(), audio)],
        _ => vec![(HIDDEN.to_owned(), excess)],
    };
    Some(Usage { input, cache_read, cache_write, output, reasoning, more, stated: stated.to_string() })
}

/// The image API tells the tokens of pictures apart, and nothing of what a chat tells.
fn pictures(stated: &Value) -> Option<Usage> {
    let shown = count(stated, "/input_tokens_details/image_tokens")?;
    const OF_TEXT: &[&str] = &["/input_tokens_details/cached_tokens", "/output_tokens_details/reasoning_tokens"];
    if first(stated, OF_TEXT).is_some() {
        return None;
    }
    let (input, output) = (count(stated, "/input_tokens")?, count(stated, "/output_tokens").unwrap_or_default());
    // Where it does not say what came out, that is pictures.
    let drawn = count(stated, "/output_tokens_details/image_tokens").unwrap_or(output).min(output);
    let shown = shown.min(input);
    let more = [(INPUT_IMAGE, shown), (OUTPUT_IMAGE, drawn)].into_iter().filter(|(_, count)| *count > 0);
    Some(Usage {
        input: input - shown,
        output: output - drawn,
        more: more.map(|(name, count)| (name.to_owned(), count)).collect(),
        stated: stated.to_string(),
        ..Usage::default()
    })
}

/// Writes a usage object.
pub(crate) fn write(usage: &Usage) -> Value {
    json!({
        "prompt_tokens": usage.input_total(),
        "completion_tokens": usage.output_total(),
        "total_tokens": usage.total(),
        "prompt_tokens_details": { "cached_tokens": usage.cache_read, "cache_write_tokens": usage.cache_write },
        "completion_tokens_details": { "reasoning_tokens": usage.reasoning },
    })
}

/// Input outside the cache, read from it, written to it.
fn input_buckets(stated: &Value, prompt: u64) -> (u64, u64, u64) {
    const READ: &[&str] = &[
        "/prompt_tokens_details/cached_tokens",
        "/cached_tokens",
        "/prompt_cache_hit_tokens",
        "/input_tokens_details/cached_tokens",
    ];
    const WRITTEN: &[&str] = &[
        "/prompt_tokens_details/cache_write_tokens",
        "/cache_creation_input_tokens",
        "/input_tokens_details/cache_write_tokens",
    ];
    let read = first(stated, READ).unwrap_or_default();
    let written = first(stated, WRITTEN).unwrap_or_default();
    // A cache larger than the prompt is not part of it.
    let after_read = prompt.checked_sub(read).unwrap_or(prompt);
    let input = after_read.checked_sub(written).unwrap_or(after_read);
    (input, read, written)
}

fn first(stated: &Value, pointers: &[&str]) -> Option<u64> {
    pointers.iter().find_map(|pointer| count(stated, pointer))
}

/// A count at a JSON pointer.
pub(super) fn count(stated: &Value, pointer: &str) -> Option<u64> {
    let number = stated.pointer(pointer)?;
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a count that a vendor writes as 12.0; the cast saturates"
    )]
    number.as_u64().or_else(|| number.as_f64().map(|float| float as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_disjoint_whatever_the_vendor_counts_where() {
        // stated; input, cache_read, cache_write, output, reasoning; further bucket
        let cases = [
            (json!({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}), [10, 0, 0, 5, 0], None),
            (
                json!({"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150,
                    "prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 10},
                    "completion_tokens_details": {"reasoning_tokens": 20}}),
                [30, 60, 10, 30, 20],
                None,
            ),
            (
                json!({"prompt_tokens": 7, "completion_tokens": 8, "total_tokens": 15,
                    "prompt_tokens_details": {"cached_tokens": 161}}),
                [7, 161, 0, 8, 0],
                None,
            ),
            (
                json!({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 35,
                    "completion_tokens_details": {"reasoning_tokens": 20}}),
                [10, 0, 0, 5, 20],
                None,
            ),
            (
                json!({"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11, "reasoning_tokens": 25}),
                [9, 0, 0, 0, 2],
                None,
            ),
            (
                json!({"prompt_tokens": 35, "completion_tokens": 12, "total_tokens": 109}),
                [35, 0, 0, 12, 0],
                Some((HIDDEN, 62)),
            ),
            (
                json!({"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 105,
                    "prompt_tokens_details": {"audio_tokens": 100}}),
                [3, 0, 0, 2, 0],
                Some((INPUT_AUDIO, 100)),
            ),
            (json!({"prompt_tokens": 8, "completion_tokens": 1, "cached_tokens": 3}), [5, 3, 0, 1, 0], None),
            (
                json!({"prompt_tokens": 8, "completion_tokens": 1.0, "prompt_cache_hit_tokens": 8}),
                [0, 8, 0, 1, 0],
                None,
            ),
        ];
        for (stated, [input, cache_read, cache_write, output, reasoning], more) in cases {
            let more = more.map(|(name, count): (&str, u64)| (name.to_owned(), count)).into_iter().collect();
            let text = stated.to_string();
            let expected = Usage { input, cache_read, cache_write, output, reasoning, more, stated: text };
            assert_eq!(read(&stated), Some(expected));
        }
        assert_eq!(read(&json!({})), None);
        assert_eq!(read(&json!({ "total_tokens": 57 })).map(|usage| usage.input), Some(57));
    }

    #[test]
    fn tokens_of_pictures_are_told_apart() {
        let mut stated = json!({"total_tokens": 1150, "input_tokens": 150, "output_tokens": 1000,
            "input_tokens_details": {"text_tokens": 50, "image_tokens": 100}});
        let pictures =
            |input: u64, output: u64| vec![(INPUT_IMAGE.to_owned(), input), (OUTPUT_IMAGE.to_owned(), output)];
        let usage = read(&stated).unwrap();
        assert_eq!((usage.input, usage.output, usage.more), (50, 0, pictures(100, 1000)));
        stated["output_tokens_details"] = json!({"text_tokens": 200, "image_tokens": 800});
        let usage = read(&stated).unwrap();
        assert_eq!((usage.input, usage.output, usage.more), (50, 200, pictures(100, 800)));
    }

    #[test]
    fn what_is_written_reads_the_same() {
        let usage = Usage { input: 1, cache_read: 2, cache_write: 3, output: 4, reasoning: 5, ..Usage::default() };
        let again = read(&write(&usage)).unwrap();
        assert_eq!(Usage { stated: String::new(), ..again }, usage);
    }
}
