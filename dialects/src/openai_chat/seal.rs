// SPDX-License-Identifier: Apache-2.0
//! Reasoning that a vendor wants back unchanged, between its wire form and the canonical one.
//!
//! On the wire it is the member `reasoning_details` (as `OpenRouter` defines it), a list of
//! `{"type":"reasoning.text","text","signature"}` and `{"type":"reasoning.encrypted","data"}`. An item that holds more
//! than that (`id`, `format`) travels whole inside the seal, which nobody but its vendor reads; so does
//! `extra_content`, in which Gemini's OpenAI form hides its thought signatures.

use serde_json::{Map, Value, json};

/// Seal of a reasoning item: its signature, or the whole item where that says more. None if there is nothing to keep.
/// `always` keeps what has no signature, too.
pub(super) fn signature(item: &Map<String, Value>, always: bool) -> Option<String> {
    let plain = item.get("signature").and_then(Value::as_str).filter(|text| !text.is_empty());
    if is_plain(item, &["type", "text", "signature", "index"]) && kind(item) == "reasoning.text" {
        return plain.map(str::to_owned);
    }
    if plain.is_none() && !always {
        return None;
    }
    let mut kept = item.clone();
    kept.shift_remove(text_member(item));
    Some(Value::Object(kept).to_string())
}

/// Bytes of an encrypted reasoning item: its data, or the whole item where that says more.
pub(super) fn redacted(item: &Map<String, Value>) -> String {
    match item.get("data") {
        Some(Value::String(data)) if is_plain(item, &["type", "data", "index"]) => data.clone(),
        _ => Value::Object(item.clone()).to_string(),
    }
}

/// Text of a reasoning item.
pub(super) fn text(item: &Map<String, Value>) -> &str {
    item.get(text_member(item)).and_then(Value::as_str).unwrap_or_default()
}

/// What kind of reasoning item this is.
pub(super) fn kind(item: &Map<String, Value>) -> &str {
    item.get("type").and_then(Value::as_str).unwrap_or_default()
}

/// The wire item of a sealed or open reasoning block; none for a seal that is no reasoning item.
pub(super) fn text_item(text: &str, seal: Option<&str>, index: usize) -> Option<Value> {
    let Some(seal) = seal else {
        return Some(json!({ "type": "reasoning.text", "text": text, "index": index }));
    };
    match whole_item(seal) {
        Some(mut item) if kind(&item).starts_with("reasoning.") => {
            let member = text_member(&item).to_owned();
            item.insert(member, Value::from(text));
            Some(Value::Object(item))
        }
        Some(item) if item.contains_key("extra_content") => None,
        _ => Some(json!({ "type": "reasoning.text", "text": text, "signature": seal, "index": index })),
    }
}

/// The wire item of a redacted reasoning block.
pub(super) fn redacted_item(data: &str, index: usize) -> Value {
    match whole_item(data) {
        Some(item) if kind(&item).starts_with("reasoning.") => Value::Object(item),
        _ => json!({ "type": "reasoning.encrypted", "data": data, "index": index }),
    }
}

/// Seal that carries an `extra_content` member, of the message or of the tool call with this id.
pub(super) fn extra_content(content: &Value, tool: Option<&str>) -> String {
    match tool {
        Some(tool) => json!({ "extra_content": content, "tool": tool }).to_string(),
        None => json!({ "extra_content": content }).to_string(),
    }
}

/// The `extra_content` of a seal, and the id of the tool call that it belongs to.
pub(super) fn as_extra_content(seal: &str) -> Option<(Value, Option<String>)> {
    let mut item = whole_item(seal)?;
    let tool = item.get("tool").and_then(Value::as_str).map(str::to_owned);
    item.shift_remove("extra_content").map(|content| (content, tool))
}

fn whole_item(seal: &str) -> Option<Map<String, Value>> {
    if seal.starts_with('{') { serde_json::from_str(seal).ok() } else { None }
}

fn text_member(item: &Map<String, Value>) -> &'static str {
    if kind(item) == "reasoning.summary" { "summary" } else { "text" }
}

/// Whether an item holds nothing but these members (and nulls).
fn is_plain(item: &Map<String, Value>, members: &[&str]) -> bool {
    item.iter().all(|(name, value)| value.is_null() || members.contains(&name.as_str()))
}
