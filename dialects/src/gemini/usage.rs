// SPDX-License-Identifier: Apache-2.0
//! Tokens, both ways. `totalTokenCount` = prompt + tool-use prompt + candidates + thoughts; the cache is inside the prompt
//! (measured on 1,121 recorded answers). The `…TokensDetails` split these by modality: sound, images and films are buckets
//! of their own, since they have prices of their own.

use serde_json::{Map, Value, json};

use crate::ir::Usage;

/// Modalities with a bucket of their own, and what it is called behind `input-` and `output-`.
const MODALITIES: &[(&str, &str)] = &[("AUDIO", "audio"), ("IMAGE", "image"), ("VIDEO", "video")];

/// Reads `usageMetadata`; none if it counts nothing, as in the first chunks of a stream.
pub(super) fn read(stated: &Value) -> Option<Usage> {
    let counted = |name: &str| stated.get(name).and_then(Value::as_u64);
    let prompt = counted("promptTokenCount");
    // As conversations over a WebSocket call it.
    let candidates = counted("candidatesTokenCount").or_else(|| counted("responseTokenCount"));
    let total = counted("totalTokenCount");
    if prompt.is_none() && candidates.is_none() && total.is_none() {
        return None;
    }
    // Counts of a context cache state a total alone.
    let prompt = prompt.or(total.filter(|_| candidates.is_none())).unwrap_or_default();
    let prompt = prompt.saturating_add(counted("toolUsePromptTokenCount").unwrap_or_default());
    let cache_read = counted("cachedContentTokenCount").unwrap_or_default();
    let mut usage = Usage {
        // A cache larger than the prompt is no part of it.
        input: prompt.checked_sub(cache_read).unwrap_or(prompt),
        cache_read,
        output: candidates.unwrap_or_default(),
        reasoning: counted("thoughtsTokenCount").unwrap_or_default(),
        stated: stated.to_string(),
        ..Usage::default()
    };
    for (modality, name) in MODALITIES {
        let details = |member: &str| tokens_of(&stated[member], modality);
        let asked = details("promptTokensDetails").saturating_add(details("toolUsePromptTokensDetails"));
        let fresh = asked.saturating_sub(details("cacheTokensDetails"));
        set_apart(&mut usage.input, fresh, format!("input-{name}"), &mut usage.more);
        let made = details("candidatesTokensDetails").saturating_add(details("responseTokensDetails"));
        set_apart(&mut usage.output, made, format!("output-{name}"), &mut usage.more);
    }
    // The Gemini API says `serviceTier: "flex"`, Vertex AI `trafficType: "ON_DEMAND_FLEX"`.
    let tier = stated["serviceTier"].as_str().or_else(|| stated["trafficType"].as_str()?.strip_prefix("ON_DEMAND_"));
    usage.served_as(&tier.unwrap_or_default().to_ascii_lowercase());
    Some(usage)
}

/// Reads the answer to a count-tokens request.
pub(super) fn read_count(answer: &Value) -> Option<Usage> {
    let total = answer.get("totalTokens").and_then(Value::as_u64)?;
    let mut usage = Usage { input: total, stated: answer.to_string(), ..Usage::default() };
    for (modality, name) in MODALITIES {
        let count = tokens_of(&answer["promptTokensDetails"], modality);
        set_apart(&mut usage.input, count, format!("input-{name}"), &mut usage.more);
    }
    Some(usage)
}

/// Writes `usageMetadata`. What a vendor of this dialect stated goes out as it is.
pub(super) fn write(usage: &Usage) -> Value {
    if let Some(stated) = own_statement(usage) {
        return stated;
    }
    let mut wire = Map::new();
    let mut set = |name: &str, count: u64| {
        wire.insert(name.to_owned(), json!(count));
    };
    set("promptTokenCount", usage.input_total());
    set("candidatesTokenCount", usage.output_total().saturating_sub(usage.reasoning));
    set("totalTokenCount", usage.total());
    if usage.cache_read > 0 {
        set("cachedContentTokenCount", usage.cache_read);
    }
    if usage.reasoning > 0 {
        set("thoughtsTokenCount", usage.reasoning);
    }
    for (direction, member) in [("input-", "promptTokensDetails"), ("output-", "candidatesTokensDetails")] {
        let details = details(usage, direction);
        if !details.is_empty() {
            wire.insert(member.to_owned(), Value::Array(details));
        }
    }
    Value::Object(wire)
}

/// The vendor's own object, if it is one of this dialect and says what the buckets say.
fn own_statement(usage: &Usage) -> Option<Value> {
    let stated: Value = serde_json::from_str(&usage.stated).ok()?;
    let is_own = ["promptTokenCount", "totalTokenCount"].iter().any(|name| stated.get(*name).is_some());
    let again = read(&stated).filter(|_| is_own)?;
    (again.input_total() == usage.input_total() && again.output_total() == usage.output_total()).then_some(stated)
}

/// Every modality that has a bucket, and text as the rest.
fn details(usage: &Usage, direction: &str) -> Vec<Value> {
    let bucket = |name: &str| usage.more.iter().find(|(known, _)| known == name).map(|(_, count)| *count);
    let found: Vec<Value> = MODALITIES
        .iter()
        .filter_map(|(modality, name)| {
            let count = bucket(&format!("{direction}{name}"))?;
            Some(json!({"modality": modality, "tokenCount": count}))
        })
        .collect();
    if found.is_empty() {
        return found;
    }
    let text = if direction == "input-" { usage.input.saturating_add(usage.cache_read) } else { usage.output };
    [json!({"modality": "TEXT", "tokenCount": text})].into_iter().chain(found).collect()
}

fn tokens_of(details: &Value, modality: &str) -> u64 {
    let list = details.as_array().map(Vec::as_slice).unwrap_or_default();
    let of_modality = list.iter().filter(|detail| detail["modality"] == modality);
    of_modality.filter_map(|detail| detail["tokenCount"].as_u64()).fold(0, u64::saturating_add)
}

/// Moves tokens from a bucket into one of their own; never more than there are.
fn set_apart(bucket: &mut u64, count: u64, name: String, more: &mut Vec<(String, u64)>) {
    let count = count.min(*bucket);
    if count > 0 {
        *bucket -= count;
        more.push((name, count));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_disjoint_and_add_up_to_the_stated_total() {
        // stated; input, cache read, output, reasoning; further buckets
        let cases = [
            (json!({"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 15}), [10, 0, 5, 0], vec![]),
            (
                json!({"promptTokenCount": 100, "cachedContentTokenCount": 60, "candidatesTokenCount": 5,
                    "thoughtsTokenCount": 20, "toolUsePromptTokenCount": 7, "totalTokenCount": 132}),
                [47, 60, 5, 20],
                vec![],
            ),
            (
                json!({"promptTokenCount": 1000, "cachedContentTokenCount": 500, "totalTokenCount": 1300,
                    "candidatesTokenCount": 300,
                    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 100}, {"modality": "AUDIO", "tokenCount": 900}],
                    "cacheTokensDetails": [{"modality": "AUDIO", "tokenCount": 450}, {"modality": "TEXT", "tokenCount": 50}],
                    "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 290}]}),
                [50, 500, 10, 0],
                vec![("input-audio", 450), ("output-image", 290)],
            ),
            (json!({"promptTokenCount": 3, "cachedContentTokenCount": 9, "totalTokenCount": 3}), [3, 9, 0, 0], vec![]),
            (
                json!({"promptTokenCount": 3, "totalTokenCount": 3,
                    "promptTokensDetails": [{"modality": "VIDEO", "tokenCount": 30}]}),
                [0, 0, 0, 0],
                vec![("input-video", 3)],
            ),
        ];
        for (stated, [input, cache_read, output, reasoning], more) in cases {
            let usage = read(&stated).expect("counts");
            let more: Vec<(String, u64)> =
                more.into_iter().map(|(name, count): (&str, u64)| (name.to_owned(), count)).collect();
            assert_eq!(
                [usage.input, usage.cache_read, usage.output, usage.reasoning],
                [input, cache_read, output, reasoning]
            );
            assert_eq!(usage.more, more);
            assert_eq!(write(&usage), stated, "what a vendor stated goes out as it is");
            let again = read(&write(&Usage { stated: String::new(), ..usage.clone() })).expect("counts");
            assert_eq!(again.output_total(), usage.output_total());
        }
        assert_eq!(read(&json!({"trafficType": "ON_DEMAND"})), None);
    }

    #[test]
    fn what_another_vendor_counted_is_written_in_our_words() {
        let more = vec![("input-audio".to_owned(), 4), ("tool-web_search".to_owned(), 1)];
        let usage = Usage {
            input: 1,
            cache_read: 2,
            cache_write: 3,
            output: 5,
            reasoning: 6,
            more,
            stated: "{\"prompt_tokens\":9}".into(),
        };
        let expected = json!({"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 21,
            "cachedContentTokenCount": 2, "thoughtsTokenCount": 6,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 3}, {"modality": "AUDIO", "tokenCount": 4}]});
        assert_eq!(write(&usage), expected);
    }
}
