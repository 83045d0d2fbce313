// SPDX-License-Identifier: Apache-2.0
//! The usage of an answer, read into disjoint buckets and written from them. The arithmetic is that of Chat Completions
//! under other names: the cache is inside the input, reasoning inside the output (measured on recorded traffic, also at
//! xAI, whose Chat Completions count otherwise).

use serde_json::{Value, json};

use crate::ir::Usage;
use crate::openai_chat;

/// Reads the usage of an answer; none if it counts nothing.
pub(super) fn read(answer: &Value) -> Option<Usage> {
    let stated = &answer["usage"];
    let mut usage = openai_chat::usage::read(stated)?;
    for (name, count) in stated["server_side_tool_usage_details"].as_object().into_iter().flatten() {
        let name = name.strip_suffix("_calls").unwrap_or(name);
        tool(&mut usage, name, count);
    }
    for (name, counts) in answer["tool_usage"].as_object().into_iter().flatten() {
        tool(&mut usage, name, &counts["num_requests"]);
    }
    usage.served_as(answer["service_tier"].as_str().unwrap_or_default());
    Some(usage)
}

/// Writes a usage object.
pub(super) fn write(usage: &Usage) -> Value {
    let written = usage.cache_write.saturating_add(usage.more_of("cache-write-"));
    json!({
        "input_tokens": usage.input_total(),
        "input_tokens_details": { "cached_tokens": usage.cache_read, "cache_write_tokens": written },
        "output_tokens": usage.output_total(),
        "output_tokens_details": { "reasoning_tokens": usage.reasoning },
        "total_tokens": usage.total(),
    })
}

/// Requests that the vendor made to a tool of its own.
fn tool(usage: &mut Usage, name: &str, count: &Value) {
    if let Some(count) = count.as_u64().filter(|count| *count > 0) {
        usage.more.push((format!("tool-{name}"), count));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_disjoint_and_tools_are_counted() {
        let stated = json!({
            "input_tokens": 100, "input_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 30, "image_tokens": 5},
            "output_tokens": 50, "output_tokens_details": {"reasoning_tokens": 20}, "total_tokens": 150,
            "cost_in_usd_ticks": 7, "server_side_tool_usage_details": {"x_search_calls": 2, "mcp_calls": 0},
        });
        let answer = json!({"usage": stated, "tool_usage": {"web_search": {"num_requests": 3}, "image_gen": {}}});
        let usage = read(&answer).unwrap();
        let buckets = (usage.input, usage.cache_read, usage.cache_write, usage.output, usage.reasoning);
        assert_eq!(buckets, (5, 60, 30, 30, 20));
        let more = [("input-image", 5), ("tool-x_search", 2), ("tool-web_search", 3)];
        assert_eq!(usage.more, more.map(|(name, count)| (name.to_owned(), count)));
        assert_eq!(usage.stated, stated.to_string());
        assert_eq!(read(&json!({"usage": null})), None);
    }

    #[test]
    fn what_is_written_reads_the_same() {
        let usage = Usage { input: 1, cache_read: 2, cache_write: 3, output: 4, reasoning: 5, ..Usage::default() };
        let again = read(&json!({ "usage": write(&usage) })).unwrap();
        assert_eq!(Usage { stated: String::new(), ..again }, usage);
    }
}
