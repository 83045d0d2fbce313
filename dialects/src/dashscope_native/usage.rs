// SPDX-License-Identifier: Apache-2.0
//! The usage object, read into disjoint buckets. Cached tokens are inside `input_tokens`, reasoning tokens inside
//! `output_tokens` (72 recorded answers); pictures, films and sound are inside `input_tokens` in conversations and beside
//! it where vectors are made of them.

use serde_json::Value;

use crate::ir::Usage;

/// Reads a usage object; none if it counts nothing.
pub(super) fn read(stated: &Value) -> Option<Usage> {
    if stated.as_object().is_none_or(serde_json::Map::is_empty) {
        return None;
    }
    let count = |pointer: &str| stated.pointer(pointer).and_then(Value::as_u64);
    let first = |pointers: &[&str]| pointers.iter().find_map(|pointer| count(pointer)).unwrap_or_default();
    // Rankings and vectors of texts are counted in a total only.
    let output_total = count("/output_tokens").unwrap_or_default();
    let input_total = count("/input_tokens").unwrap_or_else(|| first(&["/total_tokens"]).saturating_sub(output_total));
    let cached = first(&["/prompt_tokens_details/cached_tokens", "/input_tokens_details/cached_tokens"]);
    let written = first(&["/prompt_tokens_details/cache_creation_input_tokens"]);
    let shown = ["image", "video", "audio"].map(|kind| {
        let tokens = first(&[&format!("/input_tokens_details/{kind}_tokens"), &format!("/{kind}_tokens")]);
        (format!("input-{kind}"), tokens)
    });
    let (input, mut more) = input_buckets(input_total, cached.saturating_add(written), shown);
    let reasoning = first(&["/output_tokens_details/reasoning_tokens"]).min(output_total);
    let sound = first(&["/output_tokens_details/audio_tokens"]).min(output_total - reasoning);
    let seconds = first(&["/video_duration", "/output_video_duration", "/duration"]);
    let further = [
        ("output-audio", sound),
        ("image-count", first(&["/image_count"])),
        ("video-seconds", seconds.saturating_mul(count("/video_count").unwrap_or(1))),
    ];
    more.extend(further.into_iter().filter(|(_, count)| *count > 0).map(|(name, count)| (name.to_owned(), count)));
    Some(Usage {
        input,
        cache_read: cached,
        cache_write: written,
        output: output_total - reasoning - sound,
        reasoning,
        more,
        stated: stated.to_string(),
    })
}

/// What is left of the input for text, and the buckets of what was shown. The cache may cover what was shown: then the
/// cache keeps its count.
fn input_buckets(total: u64, cached: u64, shown: [(String, u64); 3]) -> (u64, Vec<(String, u64)>) {
    let mut left = total.saturating_sub(cached);
    let all_shown = shown.iter().fold(0, |sum: u64, (_, tokens)| sum.saturating_add(*tokens));
    let beside = all_shown > total;
    let mut buckets = Vec::new();
    for (name, tokens) in shown {
        let tokens = if beside { tokens } else { tokens.min(left) };
        if !beside {
            left -= tokens;
        }
        if tokens > 0 {
            buckets.push((name, tokens));
        }
    }
    (left, buckets)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::read;

    #[test]
    fn buckets_are_disjoint() {
        // stated; input, cache_read, cache_write, output, reasoning; further buckets
        let cases = [
            (json!({"input_tokens": 14, "output_tokens": 39, "total_tokens": 53}), [14, 0, 0, 39, 0], vec![]),
            (
                json!({"input_tokens": 319, "output_tokens": 18, "prompt_tokens_details": {"cached_tokens": 256},
                    "output_tokens_details": {"reasoning_tokens": 8}}),
                [63, 256, 0, 10, 8],
                vec![],
            ),
            (
                json!({"input_tokens": 1271, "output_tokens": 55, "image_tokens": 1247,
                    "input_tokens_details": {"image_tokens": 1247, "text_tokens": 24}}),
                [24, 0, 0, 55, 0],
                vec![("input-image", 1247)],
            ),
            (
                json!({"input_tokens": 100, "output_tokens": 1, "prompt_tokens_details": {"cached_tokens": 90},
                    "input_tokens_details": {"image_tokens": 80, "audio_tokens": 5}}),
                [0, 90, 0, 1, 0],
                vec![("input-image", 10)],
            ),
            (json!({"input_tokens": 16, "image_tokens": 896}), [16, 0, 0, 0, 0], vec![("input-image", 896)]),
            (json!({"total_tokens": 68}), [68, 0, 0, 0, 0], vec![]),
            (json!({"image_count": 4}), [0, 0, 0, 0, 0], vec![("image-count", 4)]),
            (
                json!({"video_duration": 5, "video_ratio": "1280*720", "video_count": 2}),
                [0, 0, 0, 0, 0],
                vec![("video-seconds", 10)],
            ),
            (
                json!({"input_tokens": 20, "output_tokens": 4, "prompt_tokens_details": {"cached_tokens": 5,
                    "cache_creation_input_tokens": 10}, "output_tokens_details": {"reasoning_tokens": 9, "audio_tokens": 9}}),
                [5, 5, 10, 0, 4],
                vec![],
            ),
        ];
        for (stated, [input, cache_read, cache_write, output, reasoning], more) in cases {
            let usage = read(&stated).unwrap();
            let found = [usage.input, usage.cache_read, usage.cache_write, usage.output, usage.reasoning];
            assert_eq!(found, [input, cache_read, cache_write, output, reasoning], "{stated}");
            let more: Vec<_> = more.into_iter().map(|(name, count)| (name.to_owned(), count)).collect();
            assert_eq!(usage.more, more, "{stated}");
            assert_eq!(usage.stated, stated.to_string());
        }
        assert_eq!(read(&json!({})), None);
        assert_eq!(read(&json!(null)), None);
    }
}
