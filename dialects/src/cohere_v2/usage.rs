// SPDX-License-Identifier: Apache-2.0
//! Tokens, both ways. `tokens` is what the model saw, and what counts; `billed_units`, which leaves Cohere's own preamble
//! out, is kept beside it. `cached_tokens` is inside `tokens.input_tokens`, `image_tokens` is outside, reasoning is inside
//! `tokens.output_tokens` (measured on recorded traffic, but for the last). Vectors and rankings state `billed_units` alone,
//! in `meta`.

use serde_json::{Map, Value, json};

use crate::ir::Usage;

const INPUT_IMAGE: &str = "input-image";
const SEARCH_UNITS: &str = "search-units";
const IMAGE_COUNT: &str = "image-count";

/// Reads `usage` of an answer or `meta` of vectors and rankings; none if nothing is counted.
pub(super) fn read(stated: &Value) -> Option<Usage> {
    let (tokens, billed) = (&stated["tokens"], &stated["billed_units"]);
    let seen = tokens.is_object();
    let counts = if seen { tokens } else { billed };
    let find = |name: &str| count(&counts[name]);
    let input = find("text_tokens").filter(|_| !seen).or_else(|| find("input_tokens"));
    let output = find("output_tokens");
    let images = find("image_tokens").filter(|count| *count > 0);
    let mut more: Vec<(String, u64)> = images.map(|images| (INPUT_IMAGE.to_owned(), images)).into_iter().collect();
    for (name, bucket) in [("search_units", SEARCH_UNITS), ("images", IMAGE_COUNT)] {
        more.extend(count(&billed[name]).filter(|count| *count > 0).map(|count| (bucket.to_owned(), count)));
    }
    if input.or(output).is_none() && more.is_empty() {
        return None;
    }
    if seen {
        for (name, bucket) in [("input_tokens", "billed-input"), ("output_tokens", "billed-output")] {
            more.extend(count(&billed[name]).map(|count| (bucket.to_owned(), count)));
        }
    }
    let (input, output) = (input.unwrap_or_default(), output.unwrap_or_default());
    let cache_read = count(&stated["cached_tokens"]).unwrap_or_default();
    let reasoning = find("reasoning_tokens").unwrap_or_default().min(output);
    Some(Usage {
        // A cache larger than the input is no part of it.
        input: input.checked_sub(cache_read).unwrap_or(input),
        cache_read,
        output: output - reasoning,
        reasoning,
        more,
        stated: stated.to_string(),
        ..Usage::default()
    })
}

/// Writes `usage` of an answer: the vendor's own, if it is Cohere's.
pub(super) fn write(usage: &Usage) -> Value {
    if let Some(own) = own_statement(usage) {
        return own;
    }
    let images = bucket(usage, INPUT_IMAGE);
    let mut tokens = counted(usage.input_total().saturating_sub(images), usage.output_total());
    for (name, count) in [("reasoning_tokens", usage.reasoning), ("image_tokens", images)] {
        if count > 0 {
            tokens.insert(name.to_owned(), json!(count));
        }
    }
    let billed = counted(usage.input_total(), usage.output_total());
    json!({ "billed_units": billed, "tokens": tokens, "cached_tokens": usage.cache_read })
}

/// Writes `meta` of vectors and rankings: the vendor's own, if it is Cohere's.
pub(super) fn write_meta(usage: Option<&Usage>) -> Value {
    let version = json!({ "version": "2" });
    let Some(usage) = usage else { return json!({ "api_version": version }) };
    if let Some(own) = own_statement(usage) {
        return own;
    }
    let mut billed = Map::new();
    let images = bucket(usage, INPUT_IMAGE);
    let units = [
        ("input_tokens", usage.input_total().saturating_sub(images)),
        ("image_tokens", images),
        ("output_tokens", usage.output_total()),
        ("search_units", bucket(usage, SEARCH_UNITS)),
        ("images", bucket(usage, IMAGE_COUNT)),
    ];
    billed
        .extend(units.into_iter().filter(|(_, count)| *count > 0).map(|(name, count)| (name.to_owned(), json!(count))));
    json!({ "api_version": version, "billed_units": billed })
}

fn counted(input: u64, output: u64) -> Map<String, Value> {
    let counts = [("input_tokens", input), ("output_tokens", output)];
    counts.into_iter().map(|(name, count)| (name.to_owned(), json!(count))).collect()
}

/// The vendor's own object, if it is of this dialect and says what the buckets say.
fn own_statement(usage: &Usage) -> Option<Value> {
    let stated: Value = serde_json::from_str(&usage.stated).ok()?;
    let is_own = stated["tokens"].is_object() || stated["billed_units"].is_object();
    (is_own && read(&stated).as_ref() == Some(usage)).then_some(stated)
}

fn bucket(usage: &Usage, wanted: &str) -> u64 {
    usage.more.iter().find(|(name, _)| name == wanted).map_or(0, |(_, count)| *count)
}

fn count(value: &Value) -> Option<u64> {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the API declares counts as floats; the cast saturates"
    )]
    value.as_u64().or_else(|| value.as_f64().map(|float| float as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_disjoint() {
        // input, cache read, output, reasoning, others
        type Case = (Value, [u64; 4], &'static [(&'static str, u64)]);
        let cases: [Case; 5] = [
            (
                json!({"billed_units": {"input_tokens": 8, "output_tokens": 8},
                    "tokens": {"input_tokens": 503, "output_tokens": 11}, "cached_tokens": 448}),
                [55, 448, 11, 0],
                &[("billed-input", 8), ("billed-output", 8)],
            ),
            (
                json!({"tokens": {"input_tokens": 34.0, "output_tokens": 56, "reasoning_tokens": 6, "image_tokens": 259},
                    "cached_tokens": 0}),
                [34, 0, 50, 6],
                &[("input-image", 259)],
            ),
            (json!({"tokens": {"input_tokens": 7, "output_tokens": 1}, "cached_tokens": 16}), [7, 16, 1, 0], &[]),
            (json!({"billed_units": {"search_units": 1}}), [0, 0, 0, 0], &[("search-units", 1)]),
            (json!({"billed_units": {"input_tokens": 7, "image_tokens": 0}}), [7, 0, 0, 0], &[]),
        ];
        for (stated, [input, cache_read, output, reasoning], more) in cases {
            let more = more.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
            let expected =
                Usage { input, cache_read, output, reasoning, more, stated: stated.to_string(), ..Usage::default() };
            assert_eq!(read(&stated), Some(expected.clone()), "{stated}");
            assert_eq!(own_statement(&expected), Some(stated));
        }
        assert_eq!(read(&json!({})), None);
    }

    #[test]
    fn what_is_written_reads_the_same() {
        let more = vec![(INPUT_IMAGE.to_owned(), 9)];
        let usage = Usage { input: 5, cache_read: 2, output: 4, reasoning: 3, more, ..Usage::default() };
        let again = read(&write(&usage)).unwrap();
        assert_eq!((again.input, again.cache_read, again.output, again.reasoning), (5, 2, 4, 3));
        assert_eq!(again.more[0], usage.more[0]);
        assert_eq!(again.total(), usage.total());
        let again = read(&write_meta(Some(&usage))).unwrap();
        assert_eq!((again.input, again.more), (7, usage.more));
    }
}
