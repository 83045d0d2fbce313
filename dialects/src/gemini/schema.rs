// SPDX-License-Identifier: Apache-2.0
//! The subset of `OpenAPI` 3.0 in which `parameters` and `responseSchema` are written, into JSON schema, which every other
//! dialect uses. Nothing goes the other way: the API also takes JSON schema as it is (`parametersJsonSchema`,
//! `responseJsonSchema`), so a caller's schema reaches the vendor whole instead of stripped of what the subset lacks
//! (`$schema`, `const`, `exclusiveMinimum`, `propertyNames` …, each of which is refused there).
//! Source: <https://ai.google.dev/api/caching#Schema>.

use serde_json::{Map, Value, json};

use super::read::camel;

/// JSON schema of a schema in the subset; what is JSON schema already stays.
pub(super) fn to_json_schema(schema: &Value) -> Value {
    let Value::Object(members) = schema else { return schema.clone() };
    let mut written = Map::with_capacity(members.len());
    for (name, value) in members.iter().filter(|(_, value)| !value.is_null()) {
        member(&camel(name), value, &mut written);
    }
    if members.get("nullable") == Some(&Value::Bool(true)) {
        admit_null(&mut written);
    }
    Value::Object(written)
}

fn member(name: &str, value: &Value, written: &mut Map<String, Value>) {
    let (name, value) = match (name, value) {
        ("type", Value::String(kind)) if kind == "TYPE_UNSPECIFIED" => return,
        ("type", Value::String(kind)) => ("type", json!(kind.to_ascii_lowercase())),
        ("type", Value::Array(kinds)) => {
            let lower =
                |kind: &Value| kind.as_str().map_or_else(|| kind.clone(), |kind| json!(kind.to_ascii_lowercase()));
            ("type", kinds.iter().map(lower).collect())
        }
        ("properties" | "defs" | "$defs", Value::Object(parts)) => {
            let parts: Map<String, Value> =
                parts.iter().map(|(name, part)| (name.clone(), to_json_schema(part))).collect();
            (if name == "properties" { name } else { "$defs" }, Value::Object(parts))
        }
        ("items" | "additionalProperties" | "not", part) => (name, to_json_schema(part)),
        ("anyOf" | "oneOf" | "allOf" | "prefixItems", Value::Array(parts)) => {
            (name, parts.iter().map(to_json_schema).collect())
        }
        ("ref", value) => ("$ref", value.clone()),
        ("example", value) => ("examples", json!([value])),
        // 64-bit numbers are strings in the JSON form of protocol buffers.
        (
            "minItems" | "maxItems" | "minLength" | "maxLength" | "minProperties" | "maxProperties",
            Value::String(text),
        ) => (name, text.parse::<u64>().map_or_else(|_| value.clone(), Value::from)),
        // These say nothing that JSON schema has a word for.
        ("nullable" | "propertyOrdering", _) => return,
        ("format", Value::String(format)) if format == "enum" => return,
        (name, value) => (name, value.clone()),
    };
    written.insert(name.to_owned(), value);
}

fn admit_null(schema: &mut Map<String, Value>) {
    if let Some(kind) = schema.get_mut("type") {
        if kind.is_string() {
            *kind = json!([kind.take(), "null"]);
        }
    } else if let Some(Value::Array(parts)) = schema.get_mut("anyOf") {
        parts.push(json!({"type": "null"}));
    }
    if let Some(Value::Array(values)) = schema.get_mut("enum")
        && !values.contains(&Value::Null)
    {
        values.push(Value::Null);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_subset_reads_as_json_schema() {
        let cases = [
            (
                json!({"type": "OBJECT", "properties": {"type": {"type": "STRING"}}, "required": ["type"]}),
                json!({"type": "object", "properties": {"type": {"type": "string"}}, "required": ["type"]}),
            ),
            (
                json!({"type": "ARRAY", "items": {"type": "INTEGER", "nullable": true}, "minItems": "1", "propertyOrdering": ["a"]}),
                json!({"type": "array", "items": {"type": ["integer", "null"]}, "minItems": 1}),
            ),
            (
                json!({"any_of": [{"type": "STRING", "format": "enum", "enum": ["a"]}], "nullable": true}),
                json!({"anyOf": [{"type": "string", "enum": ["a"]}, {"type": "null"}]}),
            ),
            (
                json!({"ref": "#/defs/A", "defs": {"A": {"type": "NUMBER", "example": 1}}}),
                json!({"$ref": "#/defs/A", "$defs": {"A": {"type": "number", "examples": [1]}}}),
            ),
            (
                json!({"type": "object", "additionalProperties": false}),
                json!({"type": "object", "additionalProperties": false}),
            ),
        ];
        for (schema, expected) in cases {
            assert_eq!(to_json_schema(&schema), expected);
        }
    }
}
