// SPDX-License-Identifier: Apache-2.0
//! JSON schemas for vendors that know only a part of JSON Schema: keywords are taken out, wherever a schema stands in a
//! schema, and never a property that happens to have such a name.

use serde_json::Value;

/// Keywords whose value is a map of names to schemas.
const NAMED: [&str; 5] = ["properties", "patternProperties", "$defs", "definitions", "dependentSchemas"];
/// Keywords whose value is data, not a schema.
const DATA: [&str; 5] = ["const", "enum", "default", "example", "examples"];

/// Takes keywords out of a schema; whether there were any.
pub(super) fn strip(schema: &mut Value, keywords: &[String]) -> bool {
    match schema {
        Value::Object(members) => {
            let before = members.len();
            members.retain(|name, _| !keywords.contains(name));
            let mut stripped = members.len() != before;
            for (name, value) in members.iter_mut().filter(|(name, _)| !DATA.contains(&name.as_str())) {
                stripped |= match value {
                    Value::Object(named) if NAMED.contains(&name.as_str()) => {
                        named.values_mut().fold(false, |found, schema| strip(schema, keywords) | found)
                    }
                    value => strip(value, keywords),
                };
            }
            stripped
        }
        Value::Array(schemas) => schemas.iter_mut().fold(false, |found, schema| strip(schema, keywords) | found),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keywords_go_and_names_stay() {
        let keywords = ["title".to_owned(), "pattern".to_owned(), "$schema".to_owned()];
        let mut schema = json!({
            "$schema": "x", "title": "T", "type": "object",
            "properties": {"title": {"type": "string", "pattern": "a"}, "list": {"items": {"title": "I"}}},
            "anyOf": [{"title": "A", "enum": [{"title": "data"}]}],
            "$defs": {"pattern": {"title": "D", "type": "null"}},
            "default": {"title": "data"},
        });
        assert!(strip(&mut schema, &keywords));
        let expected = json!({
            "type": "object",
            "properties": {"title": {"type": "string"}, "list": {"items": {}}},
            "anyOf": [{"enum": [{"title": "data"}]}],
            "$defs": {"pattern": {"type": "null"}},
            "default": {"title": "data"},
        });
        assert_eq!(schema, expected);
        assert!(!strip(&mut schema, &keywords));
    }
}
