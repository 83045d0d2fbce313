// SPDX-License-Identifier: Apache-2.0
//! Probabilities of tokens, both ways. Between dialects they have OpenAI's form, `{"content": [{"token", "logprob"}]}`;
//! Cohere's item, which may be several tokens long, travels in an extra member.

use serde_json::{Value, json};

/// The extra member that holds Cohere's item.
const ITEM: &str = "cohere-v2";

/// The canonical form of Cohere's items; none if there are none.
pub(super) fn from_wire(items: &[Value]) -> Option<Value> {
    let content: Vec<Value> = items.iter().filter(|item| item.is_object()).map(token).collect();
    (!content.is_empty()).then(|| json!({ "content": content, "refusal": null }))
}

fn token(item: &Value) -> Value {
    let parts = item["logprobs"].as_array().map(Vec::as_slice).unwrap_or_default();
    let token = item["text"].as_str().unwrap_or_default();
    // The probability of a chunk is the product of those of its tokens.
    let logprob = match parts {
        [only] => only.clone(),
        parts => json!(parts.iter().filter_map(Value::as_f64).sum::<f64>()),
    };
    json!({ "token": token, "logprob": logprob, "bytes": token.as_bytes(), "top_logprobs": [], ITEM: item })
}

/// Cohere's items of the canonical form.
pub(super) fn to_wire(canonical: &Value) -> Vec<Value> {
    let content = canonical["content"].as_array().map(Vec::as_slice).unwrap_or_default();
    let item = |token: &Value| match &token[ITEM] {
        item @ Value::Object(_) => item.clone(),
        _ => json!({ "text": token["token"], "token_ids": [], "logprobs": [token["logprob"]] }),
    };
    content.iter().map(item).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_come_back_and_have_a_form_that_others_read() {
        let items = [
            json!({"text": "Hi", "token_ids": [7], "logprobs": [-0.5]}),
            json!({"text": "é!", "token_ids": [1, 2], "logprobs": [-0.25, -0.5]}),
        ];
        let canonical = from_wire(&items).unwrap();
        assert_eq!(canonical["content"][0]["logprob"], json!(-0.5));
        assert_eq!(canonical["content"][1]["logprob"], json!(-0.75));
        assert_eq!(canonical["content"][1]["bytes"], json!([195, 169, 33]));
        assert_eq!(to_wire(&canonical), items);
        let foreign = json!({"content": [{"token": "a", "logprob": -1.0}]});
        assert_eq!(to_wire(&foreign), [json!({"text": "a", "token_ids": [], "logprobs": [-1.0]})]);
        assert_eq!(from_wire(&[]), None);
    }
}
