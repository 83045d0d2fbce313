// SPDX-License-Identifier: Apache-2.0
//! Tokens, both ways. `input_tokens` excludes what was read from or written to a cache, so the buckets map one to one;
//! `output_tokens` includes thinking. What is written to a cache for an hour and the vendor's own tools have buckets of their
//! own, since they have prices of their own.

use serde_json::{Map, Value, json};

use crate::ir::Usage;

/// Bucket of the tokens that are written to a cache that lasts an hour.
const HOUR: &str = "cache-write-1h";

/// Adds what a later part of the answer states: the last value that is not null wins.
pub(super) fn merge(stated: &mut Map<String, Value>, more: &Map<String, Value>) {
    for (name, value) in more {
        if !value.is_null() || !stated.contains_key(name) {
            stated.insert(name.clone(), value.clone());
        }
    }
}

/// The buckets of a usage object.
pub(super) fn from_wire(stated: &Map<String, Value>) -> Usage {
    let output = tokens(stated.get("output_tokens"));
    // Never more thinking than output: the buckets must add up to what the vendor bills.
    let thinking = stated.get("output_tokens_details").and_then(|details| details.get("thinking_tokens"));
    let reasoning = tokens(thinking).min(output);
    let written = tokens(stated.get("cache_creation_input_tokens"));
    let hour = stated.get("cache_creation").and_then(|cache| cache.get("ephemeral_1h_input_tokens"));
    let hour = tokens(hour).min(written);
    let mut usage = Usage {
        input: tokens(stated.get("input_tokens")),
        cache_read: tokens(stated.get("cache_read_input_tokens")),
        cache_write: written - hour,
        output: output - reasoning,
        reasoning,
        more: Vec::new(),
        stated: Value::Object(stated.clone()).to_string(),
    };
    usage.count(HOUR, hour);
    for (name, count) in stated.get("server_tool_use").and_then(Value::as_object).into_iter().flatten() {
        let name = name.strip_suffix("_requests").unwrap_or(name);
        usage.count(format!("tool-{name}"), tokens(Some(count)));
    }
    usage.served_as(stated.get("service_tier").and_then(Value::as_str).unwrap_or_default());
    usage
}

/// The usage object of an answer; what a vendor of this dialect stated beyond the buckets is kept.
pub(super) fn to_wire(usage: &Usage) -> Map<String, Value> {
    let mut wire = own_statement(usage).unwrap_or_default();
    let written = usage.cache_write.saturating_add(usage.more_of("cache-write-"));
    // Sound and pictures are input like any other here.
    wire.insert("input_tokens".into(), json!(usage.input.saturating_add(usage.more_of("input-"))));
    wire.insert("cache_creation_input_tokens".into(), json!(written));
    wire.insert("cache_read_input_tokens".into(), json!(usage.cache_read));
    wire.insert("output_tokens".into(), json!(usage.output_total()));
    let hour = usage.more_of(HOUR);
    if hour > 0 {
        let split = json!({"ephemeral_5m_input_tokens": usage.cache_write, "ephemeral_1h_input_tokens": hour});
        wire.insert("cache_creation".into(), split);
    }
    if usage.reasoning > 0 {
        wire.insert("output_tokens_details".into(), json!({"thinking_tokens": usage.reasoning}));
    }
    wire
}

/// The vendor's own usage object, if it is one of this dialect and says what the buckets say.
fn own_statement(usage: &Usage) -> Option<Map<String, Value>> {
    let Ok(Value::Object(stated)) = serde_json::from_str(&usage.stated) else { return None };
    let foreign =
        ["total_tokens", "prompt_tokens", "input_tokens_details"].iter().any(|name| stated.contains_key(*name));
    let same = !foreign && stated.contains_key("input_tokens") && from_wire(&stated).total() == usage.total();
    same.then_some(stated)
}

fn tokens(value: Option<&Value>) -> u64 {
    value.and_then(Value::as_u64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_a_price_of_its_own_is_a_bucket_of_its_own() {
        let stated = json!({
            "input_tokens": 10, "cache_read_input_tokens": 20, "cache_creation_input_tokens": 100, "output_tokens": 7,
            "cache_creation": {"ephemeral_5m_input_tokens": 30, "ephemeral_1h_input_tokens": 70},
            "server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 0}, "service_tier": "batch",
        });
        let usage = from_wire(stated.as_object().unwrap());
        assert_eq!((usage.input, usage.cache_read, usage.cache_write, usage.output), (10, 20, 30, 7));
        let more = [("cache-write-1h", 70), ("tool-web_search", 2), ("tier-batch", 1)];
        assert_eq!(usage.more, more.map(|(name, count)| (name.to_owned(), count)));
        assert_eq!(Value::Object(to_wire(&usage)), stated);
        let foreign = to_wire(&Usage { stated: String::new(), ..usage });
        assert_eq!(foreign["cache_creation_input_tokens"], 100);
        assert_eq!(
            foreign["cache_creation"],
            json!({"ephemeral_5m_input_tokens": 30, "ephemeral_1h_input_tokens": 70})
        );
    }

    #[test]
    fn more_than_all_is_all() {
        let stated = json!({"cache_creation_input_tokens": 5, "cache_creation": {"ephemeral_1h_input_tokens": 9}});
        let usage = from_wire(stated.as_object().unwrap());
        assert_eq!((usage.cache_write, usage.more), (0, vec![(HOUR.to_owned(), 5)]));
    }
}
