// SPDX-License-Identifier: Apache-2.0
//! Tokens, both ways. `input_tokens` excludes what was read from or written to a cache, so the buckets map one to one;
//! `output_tokens` includes thinking. The split of cache writes into 5 minutes and 1 hour stays in `stated`.

use serde_json::{Map, Value, json};

use crate::ir::Usage;

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
    Usage {
        input: tokens(stated.get("input_tokens")),
        cache_read: tokens(stated.get("cache_read_input_tokens")),
        cache_write: tokens(stated.get("cache_creation_input_tokens")),
        output: output - reasoning,
        reasoning,
        more: Vec::new(),
        stated: Value::Object(stated.clone()).to_string(),
    }
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
