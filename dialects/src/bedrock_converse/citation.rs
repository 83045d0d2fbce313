// SPDX-License-Identifier: Apache-2.0
//! Citations. Those of anthropic-messages say the same in other words and are translated; others have no place here.

use serde_json::{Map, Value, json};

/// A citation as this dialect has it; none if it cannot be said here.
pub(super) fn to_wire(citation: &Value) -> Option<Value> {
    let kind = match citation.get("type") {
        // Its own citations have no type.
        None => return is_own(citation).then(|| citation.clone()),
        Some(kind) => kind.as_str()?,
    };
    let number = |name: &str| citation[name].as_u64().unwrap_or_default();
    let span = |index: &str, start: &str, end: &str| json!({(index_name(kind)): number(index), "start": number(start), "end": number(end)});
    let location = match kind {
        "char_location" => json!({"documentChar": span("document_index", "start_char_index", "end_char_index")}),
        "page_location" => json!({"documentPage": span("document_index", "start_page_number", "end_page_number")}),
        "content_block_location" => {
            json!({"documentChunk": span("document_index", "start_block_index", "end_block_index")})
        }
        "search_result_location" => {
            json!({"searchResultLocation": span("search_result_index", "start_block_index", "end_block_index")})
        }
        "web_search_result_location" => json!({"web": {"url": citation["url"]}}),
        _ => return None,
    };
    let mut wire = Map::from_iter([("location".to_owned(), location)]);
    let title = citation["document_title"].as_str().or_else(|| citation["title"].as_str());
    wire.extend(title.map(|title| ("title".to_owned(), json!(title))));
    wire.extend(citation["source"].as_str().map(|source| ("source".to_owned(), json!(source))));
    let cited = citation["cited_text"].as_str();
    wire.extend(cited.map(|text| ("sourceContent".to_owned(), json!([{"text": text}]))));
    Some(Value::Object(wire))
}

fn is_own(citation: &Value) -> bool {
    ["location", "sourceContent", "title", "source"].iter().any(|name| citation.get(name).is_some())
}

fn index_name(kind: &str) -> &'static str {
    if kind == "search_result_location" { "searchResultIndex" } else { "documentIndex" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_citation_of_the_neighbour_says_the_same_here() {
        let theirs = json!({"type": "char_location", "cited_text": "Ruby", "document_index": 1, "document_title": "facts",
            "start_char_index": 3, "end_char_index": 7});
        let ours = json!({"location": {"documentChar": {"documentIndex": 1, "start": 3, "end": 7}}, "title": "facts",
            "sourceContent": [{"text": "Ruby"}]});
        assert_eq!(to_wire(&theirs), Some(ours.clone()));
        assert_eq!(to_wire(&ours), Some(ours));
        assert_eq!(to_wire(&json!({"type": "url_citation", "url": "x"})), None);
        assert_eq!(to_wire(&json!("text")), None);
    }
}
