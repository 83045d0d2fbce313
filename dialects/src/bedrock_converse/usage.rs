// SPDX-License-Identifier: Apache-2.0
//! Tokens, both ways. `inputTokens` excludes what was read from or written to a cache, and `totalTokens` is the sum of all
//! four; thinking is part of `outputTokens` and is not told apart. `cacheDetails` splits the writes by how long they last.

use serde_json::{Map, Value, json};

use crate::ir::Usage;

const HOUR: &str = "cache-write-1h";

/// The buckets of a usage object.
pub(super) fn from_wire(stated: &Map<String, Value>) -> Usage {
    let tokens = |name: &str| stated.get(name).and_then(Value::as_u64).unwrap_or_default();
    let written = tokens("cacheWriteInputTokens");
    let details = stated.get("cacheDetails").and_then(Value::as_array).into_iter().flatten();
    let hours = details.filter(|detail| detail["ttl"] == "1h").filter_map(|detail| detail["inputTokens"].as_u64());
    let hours = hours.fold(0, u64::saturating_add).min(written);
    let mut more = Vec::new();
    if hours > 0 {
        more.push((HOUR.to_owned(), hours));
    }
    let tools = stated.get("serverToolUsage").and_then(Value::as_object).into_iter().flatten();
    more.extend(
        tools.filter_map(|(name, count)| Some((format!("tool-{name}"), count.as_u64().filter(|count| *count > 0)?))),
    );
    Usage {
        input: tokens("inputTokens"),
        cache_read: tokens("cacheReadInputTokens"),
        cache_write: written - hours,
        output: tokens("outputTokens"),
        reasoning: 0,
        more,
        stated: Value::Object(stated.clone()).to_string(),
    }
}

/// The usage object of an answer: the vendor's own where it is one of this dialect.
pub(super) fn to_wire(usage: &Usage) -> Map<String, Value> {
    if let Some(stated) = own_statement(usage) {
        return stated;
    }
    let more = |begin: &str| -> u64 {
        let of = usage.more.iter().filter(|(name, _)| name.starts_with(begin));
        of.fold(0, |sum, (_, count)| sum.saturating_add(*count))
    };
    let hours = more(HOUR);
    let input = usage.input.saturating_add(more("input-"));
    let output = usage.output_total();
    let written = usage.cache_write.saturating_add(hours);
    let total = input.saturating_add(output).saturating_add(usage.cache_read).saturating_add(written);
    let mut wire = Map::new();
    let mut set = |name: &str, value: Value| wire.insert(name.to_owned(), value);
    set("inputTokens", json!(input));
    set("outputTokens", json!(output));
    set("totalTokens", json!(total));
    set("cacheReadInputTokens", json!(usage.cache_read));
    set("cacheWriteInputTokens", json!(written));
    if hours > 0 {
        let mut details = vec![json!({"ttl": "1h", "inputTokens": hours})];
        if usage.cache_write > 0 {
            details.push(json!({"ttl": "5m", "inputTokens": usage.cache_write}));
        }
        set("cacheDetails", Value::Array(details));
    }
    wire
}

/// The vendor's own usage object, if it is one of this dialect and says what the buckets say.
fn own_statement(usage: &Usage) -> Option<Map<String, Value>> {
    let Ok(Value::Object(stated)) = serde_json::from_str(&usage.stated) else { return None };
    let own = ["inputTokens", "outputTokens", "totalTokens"].iter().all(|name| stated.contains_key(*name));
    (own && from_wire(&stated) == *usage).then_some(stated)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_that_last_an_hour_are_counted_apart_and_come_back() {
        let stated = json!({
            "inputTokens": 3, "outputTokens": 5, "totalTokens": 118, "cacheReadInputTokens": 10,
            "cacheWriteInputTokens": 100, "cacheDetails": [{"ttl": "1h", "inputTokens": 70}, {"ttl": "5m", "inputTokens": 30}],
            "serverToolUsage": {"webSearchRequests": 2, "none": 0},
        });
        let usage = from_wire(stated.as_object().unwrap());
        assert_eq!((usage.input, usage.cache_read, usage.cache_write, usage.output), (3, 10, 30, 5));
        assert_eq!(usage.more, [(HOUR.to_owned(), 70), ("tool-webSearchRequests".to_owned(), 2)]);
        assert_eq!(Value::Object(to_wire(&usage)), stated);
        let foreign = Usage { stated: String::new(), ..usage };
        let written = to_wire(&foreign);
        assert_eq!(written["totalTokens"], 118);
        assert_eq!(written["cacheDetails"], stated["cacheDetails"]);
    }

    #[test]
    fn numbers_that_contradict_each_other_do_not_underflow() {
        let stated = json!({"cacheWriteInputTokens": 1, "cacheDetails": [{"ttl": "1h", "inputTokens": u64::MAX}]});
        let usage = from_wire(stated.as_object().unwrap());
        assert_eq!((usage.cache_write, usage.more), (0, vec![(HOUR.to_owned(), 1)]));
        let full = Usage { input: u64::MAX, output: u64::MAX, ..Usage::default() };
        assert_eq!(to_wire(&full)["totalTokens"], u64::MAX);
    }
}
