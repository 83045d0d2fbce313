// SPDX-License-Identifier: Apache-2.0
//! The usage object of OpenAI-shaped vendors, read into disjoint buckets and written from them.
//!
//! The vendors share the names and not the arithmetic (measured on recorded traffic): the cache is inside
//! `prompt_tokens` except at Azure-hosted Grok; reasoning is inside `completion_tokens` except at xAI; sound is inside
//! `prompt_tokens` except at Mistral; Gemini counts hidden thoughts only in the total. Vercel's gateway counts reasoning
//! nowhere that could be relied on, and states what it charges.

use serde_json::{Value, json};

use super::stated::Stated;
use crate::ir::Usage;
use crate::scan;

/// Name of the bucket for tokens that a vendor counts in its total only.
const HIDDEN: &str = "hidden";
/// Name of the bucket for sound that goes in.
const INPUT_AUDIO: &str = "input-audio";
/// Name of the bucket for image tokens that go in.
pub(super) const INPUT_IMAGE: &str = "input-image";
/// Name of the bucket for sound that comes out.
const OUTPUT_AUDIO: &str = "output-audio";
/// Name of the bucket for image tokens that come out.
const OUTPUT_IMAGE: &str = "output-image";
/// Name of the bucket for sound that is counted by its length.
const AUDIO_SECONDS: &str = "audio-seconds";

/// Media that are a part of the input, and where they are counted.
const INPUT_MEDIA: &[(&str, &[&str])] = &[
    (
        INPUT_AUDIO,
        &[
            "/prompt_tokens_details/audio_tokens",
            "/input_tokens_details/audio_tokens",
            "/input_token_details/audio_tokens",
        ],
    ),
    (INPUT_IMAGE, &["/prompt_tokens_details/image_tokens", "/input_tokens_details/image_tokens"]),
    ("input-video", &["/prompt_tokens_details/video_tokens"]),
];
/// Media that are a part of the output.
const OUTPUT_MEDIA: &[(&str, &[&str])] = &[
    (OUTPUT_AUDIO, &["/completion_tokens_details/audio_tokens", "/output_tokens_details/audio_tokens"]),
    (OUTPUT_IMAGE, &["/completion_tokens_details/image_tokens", "/output_tokens_details/image_tokens"]),
];
const REASONING: &[&str] =
    &["/completion_tokens_details/reasoning_tokens", "/output_tokens_details/reasoning_tokens", "/reasoning_tokens"];

/// Reads a usage object; none if it counts nothing.
pub(crate) fn read(stated: &Value) -> Option<Usage> {
    let mut usage = buckets(&stated.into())?;
    usage.stated = stated.to_string();
    Some(usage)
}

/// The same of JSON text.
pub(super) fn read_text(text: &[u8]) -> Option<Usage> {
    let mut usage = buckets(&serde_json::from_slice(text).ok()?)?;
    usage.stated = scan::compact(text)?;
    Some(usage)
}

fn buckets(stated: &Stated<'_>) -> Option<Usage> {
    let prompt = stated.first(&["/prompt_tokens", "/input_tokens"]);
    let completion = stated.first(&["/completion_tokens", "/output_tokens"]);
    let total = stated.count("/total_tokens");
    if prompt.is_none() && completion.is_none() {
        return other_buckets(stated, total);
    }
    let (prompt, completion) = (prompt.unwrap_or_default(), completion.unwrap_or_default());
    let (input, cache_read, cache_write) = input_buckets(stated, prompt);
    let stated_reasoning = stated.first(REASONING).unwrap_or_default();
    let both = prompt.saturating_add(completion);
    let outside = stated_reasoning > 0 && total == Some(both.saturating_add(stated_reasoning));
    let (output, reasoning) = if outside {
        (completion, stated_reasoning)
    } else {
        let inside = stated_reasoning.min(completion);
        (completion - inside, inside)
    };
    let mut usage = Usage { input, cache_read, cache_write, output, reasoning, ..Usage::default() };
    let excess = total.unwrap_or_default().saturating_sub(both);
    let cache_outside = cache_read.saturating_add(cache_write) > prompt;
    let hidden = if outside || cache_outside { 0 } else { excess };
    media(stated, hidden, &mut usage);
    requests(stated, &mut usage);
    Some(usage)
}

/// What counts no tokens, or nothing but a total.
fn other_buckets(stated: &Stated<'_>, total: Option<u64>) -> Option<Usage> {
    let mut usage = Usage::default();
    // Transcriptions are counted by their length; a second that has begun is one.
    if let Some(seconds) = stated.number("seconds").filter(|seconds| *seconds > 0.0) {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "above zero, and the cast saturates"
        )]
        usage.count(AUDIO_SECONDS, seconds.ceil() as u64);
        return Some(usage);
    }
    // Voyage counts the input of embeddings and rankings in the total only.
    usage.input = total?;
    Some(usage)
}

/// Sets sound, pictures and films apart. What a vendor counts beside prompt and completion is sound that goes in (Mistral), or
/// is not told (`hidden`).
fn media(stated: &Stated<'_>, hidden: u64, usage: &mut Usage) {
    let audio_outside = hidden > 0 && stated.first(INPUT_MEDIA[0].1) == Some(hidden);
    for (bucket, pointers) in INPUT_MEDIA {
        let tokens = stated.first(pointers).unwrap_or_default();
        if *bucket == INPUT_AUDIO && audio_outside {
            usage.count(*bucket, tokens);
        } else {
            let tokens = tokens.min(usage.input);
            usage.input -= tokens;
            usage.count(*bucket, tokens);
        }
    }
    // The image API says of its answers only that they are that; a chat always tells its reasoning or its cache.
    let is_picture = stated.first(&["/input_tokens_details/image_tokens"]).is_some()
        && stated.first(REASONING).is_none()
        && stated.first(&["/input_tokens_details/cached_tokens"]).is_none();
    for (bucket, pointers) in OUTPUT_MEDIA {
        let all = Some(usage.output).filter(|_| is_picture && *bucket == OUTPUT_IMAGE);
        let tokens = stated.first(pointers).or(all).unwrap_or_default().min(usage.output);
        usage.output -= tokens;
        usage.count(*bucket, tokens);
    }
    usage.count(HIDDEN, if audio_outside { 0 } else { hidden });
}

/// What the vendor has done besides, and which of its service tiers has.
fn requests(stated: &Stated<'_>, usage: &mut Usage) {
    for member in ["server_tool_use_details", "server_tool_use"] {
        for (name, count) in stated.members(member) {
            let (name, Stated::Whole(count)) = (name.strip_suffix("_requests").unwrap_or(name), count) else {
                continue;
            };
            let bucket = format!("tool-{name}");
            if usage.more_of(&bucket) == 0 {
                usage.count(bucket, *count);
            }
        }
    }
    usage.count("tool-web_search", stated.count("/num_search_queries").unwrap_or_default());
    // Perplexity searches for each request, and charges by how much of what it finds the model reads.
    if let size @ ("low" | "medium" | "high") = stated.text("search_context_size") {
        usage.count(format!("tool-search_{size}"), 1);
    }
    usage.served_as(stated.text("service_tier"));
}

/// Writes a usage object.
pub(crate) fn write(usage: &Usage) -> Value {
    let written = usage.cache_write.saturating_add(usage.more_of("cache-write-"));
    let mut wire = json!({
        "prompt_tokens": usage.input_total(),
        "completion_tokens": usage.output_total(),
        "total_tokens": usage.total(),
        "prompt_tokens_details": { "cached_tokens": usage.cache_read, "cache_write_tokens": written },
        "completion_tokens_details": { "reasoning_tokens": usage.reasoning },
    });
    let parts = [("prompt_tokens_details", INPUT_MEDIA), ("completion_tokens_details", OUTPUT_MEDIA)];
    for (details, (bucket, pointers)) in parts.iter().flat_map(|(at, media)| media.iter().map(move |it| (*at, it))) {
        let (tokens, name) = (usage.more_of(bucket), pointers[0].rsplit('/').next().unwrap_or_default());
        if tokens > 0 {
            wire[details][name] = json!(tokens);
        }
    }
    wire
}

/// Input outside the cache, read from it, written to it.
fn input_buckets(stated: &Stated<'_>, prompt: u64) -> (u64, u64, u64) {
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
    let read = stated.first(READ).unwrap_or_default();
    let written = stated.first(WRITTEN).unwrap_or_default();
    // A cache larger than the prompt is not part of it.
    let after_read = prompt.checked_sub(read).unwrap_or(prompt);
    let input = after_read.checked_sub(written).unwrap_or(after_read);
    (input, read, written)
}

/// A count at a JSON pointer.
pub(super) fn count(stated: &Value, pointer: &str) -> Option<u64> {
    Stated::from(stated).count(pointer)
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
    fn media_and_requests_are_buckets_of_their_own() {
        let cases = [
            (
                json!({"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150,
                    "prompt_tokens_details": {"audio_tokens": 60, "cached_tokens": 10, "image_tokens": 5},
                    "completion_tokens_details": {"audio_tokens": 40, "reasoning_tokens": 3}}),
                [25, 10, 0, 7, 3],
                vec![(INPUT_AUDIO, 60), (INPUT_IMAGE, 5), (OUTPUT_AUDIO, 40)],
            ),
            (
                json!({"prompt_tokens": 10, "completion_tokens": 1, "prompt_tokens_details": {"audio_tokens": 99}}),
                [0, 0, 0, 1, 0],
                vec![(INPUT_AUDIO, 10)],
            ),
            (
                json!({"type": "tokens", "input_tokens": 14, "output_tokens": 4, "total_tokens": 18,
                    "input_token_details": {"text_tokens": 0, "audio_tokens": 14}}),
                [0, 0, 0, 4, 0],
                vec![(INPUT_AUDIO, 14)],
            ),
            (json!({"type": "duration", "seconds": 5.2}), [0, 0, 0, 0, 0], vec![(AUDIO_SECONDS, 6)]),
            (
                json!({"input_tokens": 9, "output_tokens": 5, "total_tokens": 14,
                    "input_tokens_details": {"image_tokens": 4, "cached_tokens": 0},
                    "output_tokens_details": {"reasoning_tokens": 2}}),
                [5, 0, 0, 3, 2],
                vec![(INPUT_IMAGE, 4)],
            ),
            (
                json!({"prompt_tokens": 7, "completion_tokens": 1, "search_context_size": "low", "num_search_queries": 3}),
                [7, 0, 0, 1, 0],
                vec![("tool-web_search", 3), ("tool-search_low", 1)],
            ),
            (
                json!({"prompt_tokens": 7, "completion_tokens": 1, "service_tier": "priority",
                    "server_tool_use_details": {"web_search_requests": 1}, "server_tool_use": {"web_search_requests": 1}}),
                [7, 0, 0, 1, 0],
                vec![("tool-web_search", 1), ("tier-priority", 1)],
            ),
        ];
        for (stated, [input, cache_read, cache_write, output, reasoning], more) in cases {
            let more = more.into_iter().map(|(name, count)| (name.to_owned(), count)).collect();
            let text = stated.to_string();
            let expected = Usage { input, cache_read, cache_write, output, reasoning, more, stated: text };
            assert_eq!(read(&stated), Some(expected));
        }
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
        let more = [(INPUT_AUDIO, 6), (INPUT_IMAGE, 7), (OUTPUT_AUDIO, 8), (OUTPUT_IMAGE, 9)];
        let more = more.into_iter().map(|(name, count)| (name.to_owned(), count)).collect();
        let usage =
            Usage { input: 1, cache_read: 2, cache_write: 3, output: 4, reasoning: 5, more, stated: String::new() };
        let again = read(&write(&usage)).unwrap();
        assert_eq!(Usage { stated: String::new(), ..again }, usage);
    }
}
