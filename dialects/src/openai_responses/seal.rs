// SPDX-License-Identifier: Apache-2.0
//! Reasoning items, between their wire form and the canonical one, and the ids that we make up.
//!
//! What a vendor of this dialect wants back is the whole item (`id`, `encrypted_content` and what else it holds). Its text
//! is the canonical text: all parts of `summary`, then all of `content`. The rest is packed into the seal, as JSON, with
//! the lengths of the parts (in bytes) in their place, so that the item can be cut together again.
//!
//! The seal of another dialect travels to a caller in `encrypted_content`, behind a mark by which we know it when it comes
//! back: nothing else would tell it from what a vendor of this dialect has sealed, since clients leave out what they do
//! not know (ids among it).

use serde_json::{Map, Value, json};

/// What stands before the seal of another dialect.
const FOREIGN: &str = "penstock.seal:";
/// What stands before a thought of another dialect that only its vendor can read.
const FOREIGN_REDACTED: &str = "penstock.redacted:";
/// What stands in every id that we make up, behind its prefix.
const MADE_UP: &str = "_penstock_";

/// An id for an item to which the vendor has given none: "msg", "fc", "rs", "ig" with the host's id of the request.
pub(super) fn made_up(prefix: &str, request_id: &str, place: usize) -> String {
    format!("{prefix}{MADE_UP}{request_id}_{place}")
}

/// Whether an id is one that we have made up.
pub(super) fn is_made_up(id: Option<&Value>) -> bool {
    id.and_then(Value::as_str).is_some_and(|id| id.contains(MADE_UP))
}

/// The seal of another dialect within `encrypted_content`, and whether it is a redacted thought; none if it is our own.
pub(super) fn foreign(encrypted: &str) -> Option<(&str, bool)> {
    let seal = encrypted.strip_prefix(FOREIGN).map(|seal| (seal, false));
    seal.or_else(|| encrypted.strip_prefix(FOREIGN_REDACTED).map(|data| (data, true)))
}

/// `encrypted_content` for a redacted thought of another dialect.
pub(super) fn redacted(data: &str) -> String {
    format!("{FOREIGN_REDACTED}{data}")
}

/// `encrypted_content` for the seal of another dialect.
pub(super) fn sealed(seal: &str) -> String {
    format!("{FOREIGN}{seal}")
}

/// Text of a reasoning item.
pub(super) fn text(item: &Map<String, Value>) -> String {
    texts(item, "summary").chain(texts(item, "content")).collect()
}

/// Seal of a reasoning item.
pub(super) fn pack(item: &Map<String, Value>) -> String {
    let mut kept: Map<String, Value> = Map::new();
    for (name, value) in item.iter().filter(|(_, value)| !value.is_null()) {
        let value = match name.as_str() {
            "summary" | "content" => texts(item, name).map(str::len).collect(),
            _ => value.clone(),
        };
        kept.insert(name.clone(), value);
    }
    Value::Object(kept).to_string()
}

/// The reasoning item of a text and its seal; none if the seal is not of this dialect.
pub(super) fn unpack(text: &str, seal: &str) -> Option<Map<String, Value>> {
    let mut item: Map<String, Value> =
        if seal.starts_with('{') { serde_json::from_str(seal).ok()? } else { return None };
    if item.get("type").and_then(Value::as_str) != Some("reasoning") {
        return None;
    }
    let (summary, content) = (lengths(&item, "summary"), lengths(&item, "content"));
    let mut parts = cut(text, summary.iter().chain(&content)).unwrap_or_else(|| {
        // Who sent it back has changed the text: it is one part.
        Some(text).filter(|text| !text.is_empty()).into_iter().collect()
    });
    let is_content = summary.is_empty() && !content.is_empty();
    let of_content = parts.split_off(if is_content { 0 } else { parts.len().min(summary.len().max(1)) });
    if !of_content.is_empty() || item.contains_key("content") {
        let part = |text: &&str| json!({ "type": "reasoning_text", "text": text });
        item.insert("content".to_owned(), of_content.iter().map(part).collect());
    }
    let part = |text: &&str| json!({ "type": "summary_text", "text": text });
    item.insert("summary".to_owned(), parts.iter().map(part).collect());
    Some(item)
}

fn texts<'i>(item: &'i Map<String, Value>, member: &str) -> impl Iterator<Item = &'i str> {
    item.get(member).and_then(Value::as_array).into_iter().flatten().filter_map(|part| part["text"].as_str())
}

fn lengths(item: &Map<String, Value>, member: &str) -> Vec<u64> {
    let list = item.get(member).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_u64).collect()
}

/// The pieces of a text that have these lengths; none if they are not those of this text.
fn cut<'t, 'l>(text: &'t str, lengths: impl Iterator<Item = &'l u64>) -> Option<Vec<&'t str>> {
    let (mut rest, mut pieces) = (text, Vec::new());
    for length in lengths {
        let (piece, behind) = rest.split_at_checked(usize::try_from(*length).ok()?)?;
        pieces.push(piece);
        rest = behind;
    }
    rest.is_empty().then_some(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(item: &Value) -> Map<String, Value> {
        item.as_object().cloned().unwrap_or_default()
    }

    #[test]
    fn an_item_that_is_packed_is_unpacked_unchanged() {
        let summary = |text: &str| json!({ "type": "summary_text", "text": text });
        let cases = [
            json!({"id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": "gAAA"}),
            json!({"type": "reasoning", "summary": [summary("é"), summary(""), summary("two")], "encrypted_content": "x"}),
            json!({"type": "reasoning", "id": "u", "status": "completed",
                "content": [{"type": "reasoning_text", "text": "open"}], "summary": []}),
            json!({"type": "reasoning", "content": [], "summary": [summary("s")], "format": "f"}),
            json!({"type": "reasoning", "content": [{"type": "reasoning_text", "text": "c"}], "summary": [summary("s")]}),
        ];
        for item in cases {
            let item = object(&item);
            assert_eq!(unpack(&text(&item), &pack(&item)), Some(item));
        }
    }

    #[test]
    fn a_text_that_was_changed_keeps_its_seal() {
        let item = object(
            &json!({"type": "reasoning", "summary": [{"type": "summary_text", "text": "é"}], "encrypted_content": "x"}),
        );
        for changed in ["", "e", "longer than it was", "ü"] {
            let again = unpack(changed, &pack(&item)).unwrap();
            assert_eq!((text(&again).as_str(), &again["encrypted_content"]), (changed, &json!("x")));
        }
    }

    #[test]
    fn seals_of_other_dialects_are_not_ours() {
        for seal in ["EqoB", "", "{", "{\"type\":\"reasoning.text\"}", "[]", "{\"extra_content\":{}}"] {
            assert_eq!(unpack("t", seal), None);
            assert_eq!(foreign(&sealed(seal)), Some((seal, false)));
            assert_eq!(foreign(&redacted(seal)), Some((seal, true)));
            assert_eq!(foreign(seal), None);
        }
    }
}
