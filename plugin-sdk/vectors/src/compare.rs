// SPDX-License-Identifier: Apache-2.0
//! Says where an outcome differs from what was expected.

use serde_json::{Map, Value};

/// The differences, each with its place: "upstream.headers[1].value: expected …, got …".
#[must_use]
pub fn differences(expected: &Map<String, Value>, outcome: &Map<String, Value>) -> Vec<String> {
    let mut found = Vec::new();
    if expected.is_empty() {
        found.push(format!("the case expects nothing; the outcome is {}", Value::Object(outcome.clone())));
    }
    for (part, expected) in expected {
        match outcome.get(part) {
            Some(actual) => compare(part, expected, actual, &mut found),
            None => found.push(format!("{part}: expected {}, got none", short(expected))),
        }
    }
    for part in ["fault", "issues", "schema"] {
        if let Some(actual) = outcome.get(part).filter(|_| !expected.contains_key(part)) {
            found.push(format!("{part}: expected none, got {}", short(actual)));
        }
    }
    found
}

fn compare(path: &str, expected: &Value, actual: &Value, found: &mut Vec<String>) {
    match (expected, actual) {
        (Value::Object(expected), Value::Object(actual)) => compare_objects(path, expected, actual, found),
        (Value::Array(expected), Value::Array(actual)) => {
            for (index, expected) in expected.iter().enumerate() {
                match actual.get(index) {
                    Some(actual) => compare(&format!("{path}[{index}]"), expected, actual, found),
                    None => found.push(format!("{path}[{index}]: expected {}, got none", short(expected))),
                }
            }
            for (index, actual) in actual.iter().enumerate().skip(expected.len()) {
                found.push(format!("{path}[{index}]: expected none, got {}", short(actual)));
            }
        }
        // Numbers are compared by value: 1 and 1.0 are the same JSON number.
        (Value::Number(one), Value::Number(other)) if one.as_f64() == other.as_f64() => {}
        _ if expected == actual => {}
        _ => found.push(format!("{path}: expected {}, got {}", short(expected), short(actual))),
    }
}

fn compare_objects(path: &str, expected: &Map<String, Value>, actual: &Map<String, Value>, found: &mut Vec<String>) {
    for (name, expected) in expected {
        let path = format!("{path}.{name}");
        match (name.as_str(), expected, actual.get(name)) {
            ("message", Value::String(part), Some(Value::String(whole))) if whole.contains(part.as_str()) => {}
            (_, expected, Some(actual)) => compare(&path, expected, actual, found),
            (_, expected, None) => found.push(format!("{path}: expected {}, got none", short(expected))),
        }
    }
    for (name, actual) in actual.iter().filter(|(name, _)| !expected.contains_key(*name)) {
        found.push(format!("{path}.{name}: expected none, got {}", short(actual)));
    }
}

/// JSON that fits into a line of a report.
fn short(value: &Value) -> String {
    const CHARS_MAX: usize = 300;
    let text = value.to_string();
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{} …", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Map, Value, differences};

    fn object(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(object) => object,
            other => panic!("{other} is no object"),
        }
    }

    #[test]
    fn a_difference_is_named_with_its_place() {
        let cases = [
            (json!({"order": [0, 1]}), json!({"order": [0, 2]}), "order[1]: expected 1, got 2"),
            (json!({"order": [0, 1]}), json!({"order": [0]}), "order[1]: expected 1, got none"),
            (json!({"order": [0]}), json!({"order": [0, 1]}), "order[1]: expected none, got 1"),
            (json!({"grant": {}}), json!({"grant": {"subject": "a"}}), "grant.subject: expected none, got \"a\""),
            (json!({"grant": {}}), json!({"fault": 1}), "grant: expected {}, got none"),
        ];
        for (expected, outcome, difference) in cases {
            assert_eq!(differences(&object(expected), &object(outcome))[0], difference);
        }
    }

    #[test]
    fn an_expected_message_is_a_part_of_the_true_one() {
        let outcome = object(json!({"fault": {"class": "quota", "message": "used up until Monday"}}));
        let says = |message| object(json!({"fault": {"class": "quota", "message": message}}));
        assert!(differences(&says("until Monday"), &outcome).is_empty());
        assert_eq!(differences(&says("until Friday"), &outcome).len(), 1);
    }

    #[test]
    fn a_fault_that_nobody_expects_is_a_difference() {
        let differences = differences(&object(json!({"order": []})), &object(json!({"order": [], "fault": {}})));
        assert_eq!(differences, ["fault: expected none, got {}"]);
    }

    #[test]
    fn a_case_without_expectation_does_not_pass() {
        assert_eq!(differences(&Map::new(), &object(json!({"order": []}))).len(), 1);
    }
}
