// SPDX-License-Identifier: Apache-2.0
//! Sends each recorded request through a real gateway to a vendor that answers what was recorded: in the same dialect the
//! caller must get the recorded bytes, and the vendor every member of the request as it was, but for the model.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::case::Case;
use super::gateway::Gateway;
use super::upstream::{self, Upstream};
use super::{Failure, wire};
use crate::workspace::Workspace;

/// What came of each exchange, by its name.
pub(super) type Relayed = BTreeMap<String, Result<(), Failure>>;

/// Relays every exchange that ended well and whose dialect the gateway's callers speak.
///
/// # Errors
/// When the gateway or the upstream cannot be started.
pub(super) fn run(workspace: &Workspace, cases: &[Case]) -> anyhow::Result<Relayed> {
    let chosen: Vec<&Case> = cases.iter().filter(|case| place(case).is_some()).collect();
    let upstream = Upstream::start(&chosen)?;
    let gateway = Gateway::start(workspace, upstream.address)?;
    let results = chosen.iter().enumerate().filter_map(|(number, case)| {
        let (vendor, path) = place(case)?;
        Some((case.name.clone(), relay(&gateway, &upstream, case, number, vendor, path)))
    });
    Ok(results.collect())
}

/// The vendor of the policy that an exchange is for, and the path at which its callers ask.
fn place(case: &Case) -> Option<(&'static str, &'static str)> {
    if !(200..300).contains(&case.status) {
        return None; // errors are not relayed but understood: see `faults`
    }
    match (case.protocol.as_deref(), case.operation.as_str()) {
        (Some("openai-chat"), _) => Some(("openai", "/v1/chat/completions")),
        (Some("anthropic-messages"), _) => Some(("anthropic", "/v1/messages")),
        (None, "embeddings") if has_input(case) => Some(("openai", "/v1/embeddings")),
        (None, "count-tokens") if case.vendor == "anthropic" => Some(("anthropic", "/v1/messages/count_tokens")),
        _ => None,
    }
}

/// Vendors have embeddings of their own shape, too; those are of another dialect.
fn has_input(case: &Case) -> bool {
    case.request.as_ref().is_some_and(|body| body["input"].is_string() || body["input"].is_array())
}

fn relay(
    gateway: &Gateway,
    upstream: &Upstream,
    case: &Case,
    number: usize,
    vendor: &str,
    path: &str,
) -> Result<(), Failure> {
    let fail = |reason: String| Failure::new("relay", reason);
    let model = upstream::model(number);
    let request = request(case, &format!("{vendor}/{model}"));
    let answer = gateway.ask(path, request.to_string().as_bytes()).map_err(|error| fail(error.to_string()))?;
    compare_answer(&answer, case).map_err(fail)?;
    let asked = upstream.asked(&model).ok_or_else(|| fail("the vendor was not asked".into()))?;
    compare_request(&asked, &request, &model).map_err(fail)
}

/// The recorded request under another model; where only the answer was recorded, a small one.
fn request(case: &Case, model: &str) -> Value {
    let small =
        || json!({"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 100, "stream": case.streamed});
    let mut body = case.request.clone().filter(Value::is_object).unwrap_or_else(small);
    body["model"] = json!(model);
    if case.streamed {
        // Some vendors name the stream in the path.
        body["stream"] = json!(true);
    }
    body
}

fn compare_answer(answer: &wire::Message, case: &Case) -> Result<(), String> {
    if answer.status() != 200 {
        return Err(format!("status {}: {}", answer.status(), String::from_utf8_lossy(&answer.body)));
    }
    let (sent, came) = (sha256(&case.body), sha256(&answer.body));
    if sent == came {
        return Ok(());
    }
    let same = case.body.iter().zip(&answer.body).take_while(|(a, b)| a == b).count();
    let rest = String::from_utf8_lossy(&answer.body[same..]).chars().take(120).collect::<String>();
    Err(format!(
        "recorded {} bytes (sha256 {sent}), relayed {} (sha256 {came}); from byte {same} on: {rest:?}",
        case.body.len(),
        answer.body.len()
    ))
}

fn compare_request(asked: &[u8], request: &Value, model: &str) -> Result<(), String> {
    let asked: Value = serde_json::from_slice(asked).map_err(|error| format!("the vendor got no JSON: {error}"))?;
    let mut wanted = request.clone();
    wanted["model"] = json!(model);
    let changed = wanted.as_object().into_iter().flatten().find(|(name, value)| asked[name.as_str()] != **value);
    match changed {
        Some((name, value)) => {
            Err(format!("the vendor got `{name}`: {}, the caller sent {value}", asked[name.as_str()]))
        }
        None => Ok(()),
    }
}

fn sha256(bytes: &[u8]) -> String {
    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_was_changed_on_the_way_is_found() {
        let request = json!({"model": "openai/case-1", "messages": [], "temperature": 1.0});
        let good = json!({"model": "case-1", "messages": [], "temperature": 1.0, "stream_options": {}});
        assert_eq!(compare_request(good.to_string().as_bytes(), &request, "case-1"), Ok(()));
        for (name, value) in [("model", json!("openai/case-1")), ("messages", Value::Null), ("temperature", json!(0.5))]
        {
            let mut bad = good.clone();
            bad[name] = value;
            assert!(compare_request(bad.to_string().as_bytes(), &request, "case-1").is_err(), "{name}");
        }
    }
}
