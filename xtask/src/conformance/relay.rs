// SPDX-License-Identifier: Apache-2.0
//! Sends each recorded request through a real gateway to a vendor that answers what was recorded: in the same dialect the
//! caller must get the recorded bytes, and the vendor every member of the request as it was, but for the model.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::case::{Case, Transcript};
use super::gateway::Gateway;
use super::upstream::{self, Upstream};
use super::{Failure, reading, sockets, wire};
use crate::workspace::Workspace;

/// What came of each exchange, by its name.
pub(super) type Relayed = BTreeMap<String, Result<(), Failure>>;

/// How an exchange is sent through the gateway.
enum Way {
    /// In a dialect that names the model in the body, at this path.
    Body(&'static str, &'static str),
    /// In a dialect that names the model in the path: vendor, what stands before the model, what stands behind it.
    Path(&'static str, &'static str, String),
    /// As a request of the vendor's own API, which the gateway does not know.
    Own,
}

/// Relays every exchange that ended well, and every conversation over a WebSocket.
///
/// # Errors
/// When the gateway or the upstream cannot be started.
pub(super) fn run(workspace: &Workspace, cases: &[Case], transcripts: &[Transcript]) -> anyhow::Result<Relayed> {
    // Errors are not relayed but understood: see `faults`. A stream without its end is relayed with an error in place of it.
    let ended_well = |case: &&Case| (200..300).contains(&case.status) && !reading::is_unterminated(case);
    let chosen: Vec<&Case> = cases.iter().filter(ended_well).collect();
    let upstream = Upstream::start(&chosen, transcripts)?;
    let gateway = Gateway::start(workspace, upstream.address)?;
    let exchanges = chosen.iter().enumerate();
    let mut results: Relayed =
        exchanges.map(|(number, case)| (case.name.clone(), relay(&gateway, &upstream, case, number))).collect();
    for (number, transcript) in transcripts.iter().enumerate() {
        results.insert(transcript.name.clone(), converse(&gateway, &upstream, transcript, number));
    }
    Ok(results)
}

/// The way of an exchange.
fn way(case: &Case) -> Way {
    let path = case.place.split('?').next().unwrap_or_default();
    let verb = path.rsplit_once(':').map_or("", |(_, verb)| verb);
    let last = path.rsplit('/').next().unwrap_or_default();
    let queried = case.place.split_once('?').map_or("", |(_, query)| query);
    let query: Vec<_> = queried.split('&').filter(|pair| pair.starts_with("alt=")).collect();
    let google = || Way::Path("gemini", "/v1beta/models/", format!(":{verb}?{}", query.join("&")));
    match (case.protocol.as_deref(), case.operation.as_str()) {
        (Some("openai-chat"), _) => Way::Body("openai", "/v1/chat/completions"),
        (Some("openai-responses"), _) => Way::Body("openai", "/v1/responses"),
        (Some("anthropic-messages"), _) => Way::Body("anthropic", "/v1/messages"),
        (Some("cohere-v2"), _) => Way::Body("cohere", "/v2/chat"),
        (Some("gemini"), _) if !verb.is_empty() => google(),
        (Some("bedrock-converse"), _) if last.starts_with("converse") => {
            Way::Path("bedrock", "/model/", format!("/{last}"))
        }
        (None, "embeddings") if case.vendor == "cohere" => Way::Body("cohere", "/v2/embed"),
        (None, "rerank") if case.vendor == "cohere" => Way::Body("cohere", "/v2/rerank"),
        (None, "embeddings" | "count-tokens") if case.vendor == "gemini" && !verb.is_empty() => google(),
        (None, "embeddings") if has_input(case) => Way::Body("openai", "/v1/embeddings"),
        (None, "count-tokens") if case.vendor == "anthropic" => Way::Body("anthropic", "/v1/messages/count_tokens"),
        _ => Way::Own,
    }
}

/// Vendors have embeddings of their own shape, too; those are of another dialect.
fn has_input(case: &Case) -> bool {
    case.request.as_ref().is_some_and(|body| body["input"].is_string() || body["input"].is_array())
}

fn relay(gateway: &Gateway, upstream: &Upstream, case: &Case, number: usize) -> Result<(), Failure> {
    let fail = |reason: String| Failure::new("relay", reason);
    let model = upstream::model(number);
    let ask = |method: &str, path: &str, media_type: &str, body: &[u8]| {
        gateway.ask(method, path, media_type, body).map_err(|error| fail(error.to_string()))
    };
    let asked = || upstream.asked(&model).ok_or_else(|| fail("the vendor was not asked".into()));
    match way(case) {
        Way::Body(vendor, path) => {
            let request = request(case, Some(&format!("{vendor}/{model}")));
            let answer = ask("POST", path, "application/json", request.to_string().as_bytes())?;
            compare_answer(&answer, case).map_err(fail)?;
            compare_request(&asked()?.body, &request, &model).map_err(fail)
        }
        Way::Path(vendor, before, behind) => {
            let request = request(case, None);
            let sent = with_model_in_parts(&request, &format!("{vendor}/{model}"));
            let path = format!("{before}{vendor}%2F{model}{behind}");
            let answer = ask("POST", &path, "application/json", &sent)?;
            compare_answer(&answer, case).map_err(fail)?;
            same_bytes("the vendor got", &with_model_in_parts(&request, &model), &asked()?.body).map_err(fail)
        }
        Way::Own => {
            let (sent, media_type) = case.sent.clone().unwrap_or_default();
            let path = format!("/v1/vendors/openai/{model}{}", case.place);
            let answer = ask(&case.method, &path, &media_type, &sent)?;
            compare_answer(&answer, case).map_err(fail)?;
            let asked = asked()?;
            if asked.request().0 != case.method {
                return Err(fail(format!("the vendor was asked {}", asked.start)));
            }
            same_bytes("the vendor got", &sent, &asked.body).map_err(fail)
        }
    }
}

fn converse(gateway: &Gateway, upstream: &Upstream, spoken: &Transcript, number: usize) -> Result<(), Failure> {
    let fail = |reason: String| Failure::new("relay", reason);
    let session = upstream::session(number);
    let path = match spoken.vendor.as_str() {
        "gemini" => format!("/v1/vendors/openai/{session}/ws/live"),
        _ => format!("/v1/realtime?model=openai/{session}"),
    };
    let ours = sockets::connect(gateway.address(), &path, &spoken.messages);
    if let Some(broken) = upstream.broken(&session) {
        return Err(fail(format!("at the vendor: {broken}")));
    }
    ours.map_err(|error| fail(format!("at the caller: {error}")))
}

/// The recorded request, under another model if the dialect names it in the body; where only the answer was recorded, a
/// small one.
fn request(case: &Case, model: Option<&str>) -> Value {
    let small =
        || json!({"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 100, "stream": case.streamed});
    let mut body = case.request.clone().filter(Value::is_object).unwrap_or_else(small);
    if let Some(model) = model {
        body["model"] = json!(model);
        if case.streamed {
            // Some vendors name the stream in the path.
            body["stream"] = json!(true);
        }
    }
    body
}

/// The bytes of a request whose path names the model. A batch of Gemini's names it again in each of its parts, and is
/// refused if the two are not the same.
fn with_model_in_parts(request: &Value, model: &str) -> Vec<u8> {
    let mut request = request.clone();
    for part in request["requests"].as_array_mut().into_iter().flatten().filter(|part| part["model"].is_string()) {
        part["model"] = json!(format!("models/{model}"));
    }
    request.to_string().into_bytes()
}

fn compare_answer(answer: &wire::Message, case: &Case) -> Result<(), String> {
    if answer.status() != 200 && answer.status() != case.status {
        return Err(format!("status {}: {}", answer.status(), String::from_utf8_lossy(&answer.body)));
    }
    if let Some(came) = answer.header("content-type").filter(|came| *came != case.media_type) {
        return Err(format!("recorded as {}, relayed as {came}", case.media_type));
    }
    same_bytes("relayed", &case.body, &answer.body)
}

fn same_bytes(what: &str, wanted: &[u8], came: &[u8]) -> Result<(), String> {
    let (wanted_sum, came_sum) = (sha256(wanted), sha256(came));
    if wanted_sum == came_sum {
        return Ok(());
    }
    let same = wanted.iter().zip(came).take_while(|(a, b)| a == b).count();
    let rest = String::from_utf8_lossy(&came[same..]).chars().take(120).collect::<String>();
    Err(format!(
        "recorded {} bytes (sha256 {wanted_sum}), {what} {} (sha256 {came_sum}); from byte {same} on: {rest:?}",
        wanted.len(),
        came.len()
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
