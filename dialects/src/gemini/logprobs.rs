// SPDX-License-Identifier: Apache-2.0
//! Likelihoods of tokens, between `logprobsResult` and the form of openai-chat, which is the canonical one.

use serde_json::{Value, json};

/// The canonical form; none if there are no tokens.
pub(super) fn from_wire(result: &Value) -> Option<Value> {
    let chosen = result["chosenCandidates"].as_array().filter(|chosen| !chosen.is_empty())?;
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let top = list(&result["topCandidates"]);
    let content: Vec<Value> = chosen
        .iter()
        .enumerate()
        .map(|(index, token)| {
            let alternatives = top.get(index).map(|top| list(&top["candidates"])).unwrap_or_default();
            let mut written = likelihood(token);
            written["top_logprobs"] = alternatives.iter().map(likelihood).collect();
            written
        })
        .collect();
    Some(json!({"content": content, "refusal": null}))
}

/// `logprobsResult`; none if there are no tokens.
pub(super) fn to_wire(logprobs: &Value) -> Option<Value> {
    let tokens = logprobs["content"].as_array().filter(|tokens| !tokens.is_empty())?;
    let candidate = |token: &Value| json!({"token": token["token"], "logProbability": token["logprob"]});
    let top = |token: &Value| {
        let alternatives = token["top_logprobs"].as_array().into_iter().flatten();
        json!({"candidates": alternatives.map(candidate).collect::<Vec<_>>()})
    };
    Some(json!({
        "topCandidates": tokens.iter().map(top).collect::<Vec<_>>(),
        "chosenCandidates": tokens.iter().map(candidate).collect::<Vec<_>>(),
    }))
}

fn likelihood(token: &Value) -> Value {
    let text = token["token"].as_str().unwrap_or_default();
    json!({"token": text, "logprob": token["logProbability"], "bytes": text.as_bytes()})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn likelihoods_map_both_ways() {
        let wire = json!({
            "topCandidates": [{"candidates": [{"token": "a", "logProbability": -0.1}, {"token": "b", "logProbability": -2.5}]}],
            "chosenCandidates": [{"token": "a", "logProbability": -0.1}],
        });
        let canonical = from_wire(&wire).expect("tokens");
        assert_eq!(canonical["content"][0]["top_logprobs"][1], json!({"token": "b", "logprob": -2.5, "bytes": [98]}));
        assert_eq!(to_wire(&canonical), Some(wire));
        assert_eq!((from_wire(&json!({})), to_wire(&json!({"content": null}))), (None, None));
    }
}
