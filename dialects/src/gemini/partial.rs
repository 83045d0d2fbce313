// SPDX-License-Identifier: Apache-2.0
//! Arguments of a function call that come in pieces (`streamFunctionCallArguments` on Vertex AI): values by JSON path, and
//! strings in several. They are put together, since canonical pieces are JSON text in the order in which it is written.
//! Source: <https://cloud.google.com/vertex-ai/generative-ai/docs/multimodal/function-calling>, and recorded streams.

use serde_json::{Map, Value};

/// A list grows by one element at a time; a vendor that leaves out more than this many is not believed.
const GAP_MAX: usize = 64;

/// The arguments of one call.
#[derive(Debug, Default)]
pub(super) struct Arguments {
    value: Map<String, Value>,
    /// Path of the string that goes on.
    open: Option<String>,
}

/// One step of a path.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Member(String),
    Element(usize),
}

impl Arguments {
    /// Takes arguments that came whole.
    pub(super) fn whole(&mut self, args: &Map<String, Value>) {
        self.value.extend(args.clone());
    }

    /// Takes one of `partialArgs`.
    pub(super) fn piece(&mut self, piece: &Value) {
        let path = piece["jsonPath"].as_str().unwrap_or_default();
        let goes_on = self.open.take().is_some_and(|open| open == path);
        if piece["willContinue"] == true {
            self.open = Some(path.to_owned());
        }
        let value = ["stringValue", "numberValue", "boolValue", "nullValue"].iter().find_map(|name| {
            let value = piece.get(*name)?;
            Some(if *name == "nullValue" { Value::Null } else { value.clone() })
        });
        let (Some(value), Some(steps)) = (value, steps(path)) else { return };
        let Some(place) = place(&mut self.value, &steps) else { return };
        match (place, value) {
            (Value::String(text), Value::String(more)) if goes_on => text.push_str(&more),
            (place, value) => *place = value,
        }
    }

    /// The JSON text.
    pub(super) fn into_json(self) -> String {
        Value::Object(self.value).to_string()
    }
}

/// The place that a path leads to; made if it is not there.
fn place<'v>(arguments: &'v mut Map<String, Value>, steps: &[Step]) -> Option<&'v mut Value> {
    let (Step::Member(first), rest) = steps.split_first()? else { return None };
    let mut place = arguments.entry(first.clone()).or_insert(Value::Null);
    for step in rest {
        match step {
            Step::Member(name) => {
                if !place.is_object() {
                    *place = Value::Object(Map::new());
                }
                place = place.as_object_mut()?.entry(name.clone()).or_insert(Value::Null);
            }
            Step::Element(index) => {
                if !place.is_array() {
                    *place = Value::Array(Vec::new());
                }
                let list = place.as_array_mut()?;
                if *index >= list.len() + GAP_MAX {
                    return None;
                }
                if *index >= list.len() {
                    list.resize(*index + 1, Value::Null);
                }
                place = list.get_mut(*index)?;
            }
        }
    }
    Some(place)
}

/// The steps of `$.a.b[0]['c d']`; none if it is no such path.
fn steps(path: &str) -> Option<Vec<Step>> {
    let mut rest = path.strip_prefix('$')?;
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[']).unwrap_or(after.len());
            steps.push(Step::Member(after[..end].to_owned()));
            rest = &after[end..];
        } else if let Some(quote) = ["['", "[\""].iter().find(|quote| rest.starts_with(**quote)) {
            let end = format!("{}]", &quote[1..]);
            let (name, after) = rest[2..].split_once(end.as_str())?;
            steps.push(Step::Member(name.to_owned()));
            rest = after;
        } else {
            let (index, after) = rest.strip_prefix('[')?.split_once(']')?;
            steps.push(Step::Element(index.parse().ok()?));
            rest = after;
        }
    }
    Some(steps)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pieces_become_the_arguments() {
        let pieces = [
            json!({"jsonPath": "$.a[0].name", "stringValue": "x", "willContinue": true}),
            json!({"jsonPath": "$.a[0].name", "stringValue": "y", "willContinue": true}),
            json!({"jsonPath": "$.a[0].name", "stringValue": ""}),
            json!({"jsonPath": "$.a[0].price", "numberValue": 0.5}),
            json!({"jsonPath": "$.a[1].name", "stringValue": "z"}),
            json!({"jsonPath": "$['b c'][\"d.e\"]", "boolValue": true}),
            json!({"jsonPath": "$.n", "nullValue": "NULL_VALUE"}),
            json!({"jsonPath": "$.again", "stringValue": "one"}),
            json!({"jsonPath": "$.again", "stringValue": "two"}),
            json!({"jsonPath": "$.far[99999999999]", "stringValue": "not believed"}),
            json!({"jsonPath": "nonsense", "stringValue": "passed over"}),
        ];
        let mut arguments = Arguments::default();
        pieces.iter().for_each(|piece| arguments.piece(piece));
        let expected = json!({"a": [{"name": "xy", "price": 0.5}, {"name": "z"}], "b c": {"d.e": true}, "n": null,
            "again": "two", "far": []});
        assert_eq!(serde_json::from_str::<Value>(&arguments.into_json()).expect("JSON"), expected);
    }
}
