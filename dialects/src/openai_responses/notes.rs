// SPDX-License-Identifier: Apache-2.0
//! What stands beside a text: citations and log probabilities, in the words of this dialect and of others.

use serde_json::{Value, json};

/// Whether a citation is an annotation of this dialect.
pub(super) fn is_own(citation: &Value) -> bool {
    match citation["type"].as_str().unwrap_or_default() {
        "url_citation" => citation["url"].is_string(),
        "file_citation" | "container_file_citation" | "file_path" => true,
        _ => false,
    }
}

/// A citation as an annotation of a text of so many characters; none if this dialect cannot say it.
pub(super) fn annotation(citation: &Value, characters: usize) -> Option<Value> {
    if is_own(citation) {
        return Some(citation.clone());
    }
    match citation["type"].as_str().unwrap_or_default() {
        // Chat Completions has the members one level deeper.
        "url_citation" if citation["url_citation"]["url"].is_string() => {
            let mut flat = citation["url_citation"].clone();
            flat["type"] = json!("url_citation");
            Some(flat)
        }
        // Anthropic cites for the whole block.
        "web_search_result_location" => Some(json!({
            "type": "url_citation",
            "url": citation["url"].as_str()?,
            "title": citation["title"].as_str().unwrap_or_default(),
            "start_index": 0,
            "end_index": characters,
        })),
        _ => None,
    }
}

/// The event of log probabilities, which Chat Completions has named, from the list of a part.
pub(super) fn logprobs_json(list: &[Value]) -> String {
    json!({ "content": list }).to_string()
}

/// The list of log probabilities of such an event.
pub(super) fn logprobs_list(json: &str) -> Vec<Value> {
    let mut event: Value = serde_json::from_str(json).unwrap_or_default();
    match event["content"].take() {
        Value::Array(list) => list,
        _ => Vec::new(),
    }
}
