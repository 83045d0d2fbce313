// SPDX-License-Identifier: Apache-2.0
//! Checks a plugin's configuration against the JSON schema that its manifest carries.
//!
//! The vocabulary is that of draft 2020-12 without what refers to other documents, conditions, and patterned or
//! unevaluated properties. A keyword that is not known here refuses the schema: a rule that an author has written is
//! never skipped in silence. Patterns are matched in linear time.

use regex_lite::Regex;
use serde_json::{Map, Number, Value};

use super::gate::Issue;

/// Depth of a schema, references included.
const DEPTH_MAX: usize = 64;
/// Issues reported at once.
const ISSUES_MAX: usize = 20;

/// Keywords that say something to people and nothing to a check.
const ANNOTATIONS: &[&str] = &[
    "$comment",
    "$defs",
    "$id",
    "$schema",
    "default",
    "definitions",
    "deprecated",
    "description",
    "examples",
    "format",
    "readOnly",
    "title",
    "writeOnly",
];

/// What is wrong with the configuration, each with its path (`keys[2].sha256: …`); empty if nothing is.
///
/// # Errors
/// What is wrong with the schema.
pub(super) fn check(schema: &Value, config: &Value) -> Result<Vec<Issue>, String> {
    if schema.is_null() {
        return Ok(Vec::new());
    }
    let checker = Checker { root: schema };
    let mut issues = Vec::new();
    checker.check(schema, config, "", &mut issues, 0)?;
    issues.truncate(ISSUES_MAX);
    Ok(issues)
}

struct Checker<'a> {
    root: &'a Value,
}

type Issues = Vec<Issue>;

impl Checker<'_> {
    fn check(
        &self,
        schema: &Value,
        value: &Value,
        path: &str,
        issues: &mut Issues,
        depth: usize,
    ) -> Result<(), String> {
        if depth > DEPTH_MAX {
            return Err(format!("it is deeper than {DEPTH_MAX}, or refers to itself"));
        }
        let schema = match schema {
            Value::Bool(true) => return Ok(()),
            Value::Bool(false) => {
                issues.push(at(path, "is not allowed"));
                return Ok(());
            }
            Value::Object(schema) => schema,
            _ => return Err("a schema is an object, true or false".to_owned()),
        };
        for (keyword, rule) in schema {
            match keyword.as_str() {
                "$ref" => self.check(self.resolve(rule)?, value, path, issues, depth + 1)?,
                "allOf" | "anyOf" | "oneOf" | "not" => self.combined(keyword, rule, value, path, issues, depth)?,
                "type" => check_type(rule, value, path, issues)?,
                "enum" => {
                    let Value::Array(values) = rule else { return Err("`enum` is a list".to_owned()) };
                    if !values.contains(value) {
                        let list = values.iter().map(Value::to_string).collect::<Vec<_>>().join(", ");
                        issues.push(at(path, &format!("is none of {list}")));
                    }
                }
                "const" if rule != value => issues.push(at(path, &format!("is not {rule}"))),
                "const" => {}
                known if ANNOTATIONS.contains(&known) || known.starts_with("x-") => {}
                _ => match value {
                    Value::Object(members) => self.object(schema, keyword, rule, members, path, issues, depth)?,
                    Value::Array(items) => self.array(keyword, rule, items, path, issues, depth)?,
                    Value::String(text) => check_text(keyword, rule, text, path, issues)?,
                    Value::Number(number) => check_number(keyword, rule, number, path, issues)?,
                    Value::Null | Value::Bool(_) => known_keyword(keyword)?,
                },
            }
        }
        Ok(())
    }

    fn resolve(&self, reference: &Value) -> Result<&Value, String> {
        let pointer = reference.as_str().and_then(|reference| reference.strip_prefix('#'));
        let found = pointer.and_then(|pointer| self.root.pointer(pointer));
        found.ok_or_else(|| format!("the reference {reference} leads nowhere in this schema"))
    }

    fn combined(
        &self,
        keyword: &str,
        rule: &Value,
        value: &Value,
        path: &str,
        issues: &mut Issues,
        depth: usize,
    ) -> Result<(), String> {
        let of = |schema: &Value| {
            let mut found = Vec::new();
            self.check(schema, value, path, &mut found, depth + 1).map(|()| found)
        };
        if keyword == "not" {
            if of(rule)?.is_empty() {
                issues.push(at(path, "is what it must not be"));
            }
            return Ok(());
        }
        let Value::Array(schemas) = rule else { return Err(format!("`{keyword}` is a list")) };
        let found = schemas.iter().map(of).collect::<Result<Vec<_>, _>>()?;
        let fitting = found.iter().filter(|issues| issues.is_empty()).count();
        match keyword {
            "allOf" => issues.extend(found.into_iter().flatten()),
            "oneOf" if fitting > 1 => issues.push(at(path, "fits several of the forms that exclude each other")),
            _ if fitting == 0 => {
                let nearest = found.into_iter().min_by_key(Vec::len).unwrap_or_default();
                issues.push(at(
                    path,
                    &format!(
                        "has none of the forms it may have ({})",
                        nearest.iter().map(Issue::to_string).collect::<Vec<_>>().join("; ")
                    ),
                ));
            }
            _ => {}
        }
        Ok(())
    }

    #[allow(clippy::too_many_arguments, reason = "one arm of `check`, taken out for its length")]
    fn object(
        &self,
        schema: &Map<String, Value>,
        keyword: &str,
        rule: &Value,
        members: &Map<String, Value>,
        path: &str,
        issues: &mut Issues,
        depth: usize,
    ) -> Result<(), String> {
        match keyword {
            "properties" => {
                let Value::Object(properties) = rule else { return Err("`properties` is an object".to_owned()) };
                for (name, schema) in properties {
                    if let Some(member) = members.get(name) {
                        self.check(schema, member, &member_path(path, name), issues, depth + 1)?;
                    }
                }
            }
            "required" => {
                let Value::Array(names) = rule else { return Err("`required` is a list".to_owned()) };
                for name in names.iter().filter_map(Value::as_str).filter(|name| !members.contains_key(*name)) {
                    issues.push(at(&member_path(path, name), "is missing"));
                }
            }
            "additionalProperties" => {
                let known = schema.get("properties").and_then(Value::as_object);
                let is_known = |name: &str| known.is_some_and(|known| known.contains_key(name));
                for (name, member) in members.iter().filter(|(name, _)| !is_known(name)) {
                    let path = member_path(path, name);
                    if *rule == Value::Bool(false) {
                        let names = known.map(|known| known.keys().cloned().collect::<Vec<_>>().join(", "));
                        issues.push(at(&path, &format!("is not known; there is {}", names.unwrap_or_default())));
                    } else {
                        self.check(rule, member, &path, issues, depth + 1)?;
                    }
                }
            }
            "propertyNames" => {
                for name in members.keys() {
                    self.check(rule, &Value::String(name.clone()), &member_path(path, name), issues, depth + 1)?;
                }
            }
            "minProperties" if (members.len() as u64) < count(keyword, rule)? => {
                issues.push(at(path, &format!("has fewer than {rule} members")));
            }
            "maxProperties" if members.len() as u64 > count(keyword, rule)? => {
                issues.push(at(path, &format!("has more than {rule} members")));
            }
            _ => known_keyword(keyword)?,
        }
        Ok(())
    }

    fn array(
        &self,
        keyword: &str,
        rule: &Value,
        items: &[Value],
        path: &str,
        issues: &mut Issues,
        depth: usize,
    ) -> Result<(), String> {
        match keyword {
            "items" => {
                for (index, item) in items.iter().enumerate() {
                    self.check(rule, item, &format!("{path}[{index}]"), issues, depth + 1)?;
                }
            }
            "minItems" if (items.len() as u64) < count(keyword, rule)? => {
                issues.push(at(path, &format!("has fewer than {rule} items")));
            }
            "maxItems" if items.len() as u64 > count(keyword, rule)? => {
                issues.push(at(path, &format!("has more than {rule} items")));
            }
            "uniqueItems" if *rule == Value::Bool(true) => {
                let repeated = items.iter().enumerate().find(|(index, item)| items[..*index].contains(item));
                if let Some((index, _)) = repeated {
                    issues.push(at(&format!("{path}[{index}]"), "is there already"));
                }
            }
            _ => known_keyword(keyword)?,
        }
        Ok(())
    }
}

fn check_type(rule: &Value, value: &Value, path: &str, issues: &mut Issues) -> Result<(), String> {
    let names: Vec<&str> = match rule {
        Value::String(name) => vec![name],
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        _ => return Err("`type` is a name or a list of names".to_owned()),
    };
    let fits = |name: &&str| match *name {
        "null" => Ok(value.is_null()),
        "boolean" => Ok(value.is_boolean()),
        "string" => Ok(value.is_string()),
        "array" => Ok(value.is_array()),
        "object" => Ok(value.is_object()),
        "number" => Ok(value.is_number()),
        "integer" => Ok(value.as_f64().is_some_and(|number| number.fract() == 0.0)),
        other => Err(format!("there is no type {other:?}")),
    };
    let fitting = names.iter().map(fits).collect::<Result<Vec<_>, _>>()?;
    if !fitting.contains(&true) {
        issues.push(at(path, &format!("must be of type {}", names.join(" or "))));
    }
    Ok(())
}

fn check_text(keyword: &str, rule: &Value, text: &str, path: &str, issues: &mut Issues) -> Result<(), String> {
    match keyword {
        "minLength" if (text.chars().count() as u64) < count(keyword, rule)? => {
            issues.push(at(path, &format!("is shorter than {rule} characters")));
        }
        "maxLength" if text.chars().count() as u64 > count(keyword, rule)? => {
            issues.push(at(path, &format!("is longer than {rule} characters")));
        }
        "pattern" => {
            let pattern = rule.as_str().ok_or("`pattern` is a text")?;
            let regex = Regex::new(pattern).map_err(|error| format!("the pattern {pattern:?}: {error}"))?;
            if !regex.is_match(text) {
                issues.push(at(path, &format!("does not match {pattern}")));
            }
        }
        _ => known_keyword(keyword)?,
    }
    Ok(())
}

fn check_number(keyword: &str, rule: &Value, number: &Number, path: &str, issues: &mut Issues) -> Result<(), String> {
    let bound = || rule.as_f64().ok_or_else(|| format!("`{keyword}` is a number"));
    let number = number.as_f64().unwrap_or(f64::NAN);
    match keyword {
        "minimum" if number < bound()? => issues.push(at(path, &format!("is less than {rule}"))),
        "maximum" if number > bound()? => issues.push(at(path, &format!("is more than {rule}"))),
        "exclusiveMinimum" if number <= bound()? => issues.push(at(path, &format!("is not more than {rule}"))),
        "exclusiveMaximum" if number >= bound()? => issues.push(at(path, &format!("is not less than {rule}"))),
        "multipleOf" if (number / bound()?).fract() != 0.0 => {
            issues.push(at(path, &format!("is not a multiple of {rule}")));
        }
        _ => known_keyword(keyword)?,
    }
    Ok(())
}

/// A keyword that does not apply to the value at hand must at least be one.
fn known_keyword(keyword: &str) -> Result<(), String> {
    const KNOWN: &[&str] = &[
        "additionalProperties",
        "exclusiveMaximum",
        "exclusiveMinimum",
        "items",
        "maxItems",
        "maxLength",
        "maxProperties",
        "maximum",
        "minItems",
        "minLength",
        "minProperties",
        "minimum",
        "multipleOf",
        "pattern",
        "properties",
        "propertyNames",
        "required",
        "uniqueItems",
    ];
    if KNOWN.contains(&keyword) { Ok(()) } else { Err(format!("the keyword {keyword:?} is not known here")) }
}

fn count(keyword: &str, rule: &Value) -> Result<u64, String> {
    rule.as_u64().ok_or_else(|| format!("`{keyword}` is a count"))
}

fn member_path(path: &str, name: &str) -> String {
    let name = name.escape_debug();
    if path.is_empty() { name.to_string() } else { format!("{path}.{name}") }
}

fn at(path: &str, what: &str) -> Issue {
    let message = if path.is_empty() { format!("the configuration {what}") } else { what.to_owned() };
    Issue { path: path.to_owned(), message }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(schema: &Value, config: &Value) -> Vec<String> {
        check(schema, config).expect("a good schema").iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_issue_names_its_path() {
        let schema = json!({
            "type": "object",
            "properties": {
                "keys": {"type": "array", "minItems": 1, "uniqueItems": true, "items": {"$ref": "#/$defs/key"}},
                "mode": {"enum": ["fast", "exact"]},
                "ratio": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
                "count": {"type": "integer"},
            },
            "required": ["keys"],
            "additionalProperties": false,
            "$defs": {"key": {
                "type": "object",
                "properties": {"sha256": {"type": "string", "pattern": "^[0-9a-f]{4}$"}, "tags": {"additionalProperties": {"type": "string"}}},
                "required": ["sha256"],
            }},
        });
        let cases = [
            (
                json!({"keys": [{"sha256": "00ff", "tags": {"a": "b"}}], "mode": "fast", "ratio": 1, "count": 2.0}),
                vec![],
            ),
            (json!({}), vec!["keys: is missing"]),
            (json!({"keys": []}), vec!["keys: has fewer than 1 items"]),
            (
                json!({"keys": [{"sha256": "00ff"}, {"sha256": "xyz"}]}),
                vec!["keys[1].sha256: does not match ^[0-9a-f]{4}$"],
            ),
            (json!({"keys": [{"sha256": "00ff", "tags": {"a": 1}}]}), vec!["keys[0].tags.a: must be of type string"]),
            (json!({"keys": [{"sha256": "00ff"}, {"sha256": "00ff"}]}), vec!["keys[1]: is there already"]),
            (json!({"keys": [{}]}), vec!["keys[0].sha256: is missing"]),
            (json!({"keys": [{"sha256": "00ff"}], "mode": "slow"}), vec!["mode: is none of \"fast\", \"exact\""]),
            (json!({"keys": [{"sha256": "00ff"}], "ratio": 0}), vec!["ratio: is not more than 0"]),
            (json!({"keys": [{"sha256": "00ff"}], "count": 1.5}), vec!["count: must be of type integer"]),
            (
                json!({"keys": [{"sha256": "00ff"}], "kyes": 1}),
                vec!["kyes: is not known; there is keys, mode, ratio, count"],
            ),
            (json!([]), vec!["the configuration must be of type object"]),
        ];
        for (config, issues) in cases {
            assert_eq!(found(&schema, &config), issues, "{config}");
        }
    }

    #[test]
    fn forms_combine() {
        let schema =
            json!({"oneOf": [{"type": "string"}, {"type": "object", "required": ["a"]}], "not": {"const": "no"}});
        assert_eq!(check(&schema, &json!("yes")), Ok(vec![]));
        assert_eq!(found(&schema, &json!("no")).len(), 1);
        assert_eq!(check(&schema, &json!(1)).map(|issues| issues.len()), Ok(1));
        let any = json!({"anyOf": [{"minimum": 5}, {"type": "null"}]});
        assert_eq!(check(&any, &json!(7)), Ok(vec![]));
        assert_eq!(check(&any, &json!(3)).map(|issues| issues.len()), Ok(1));
    }

    #[test]
    fn a_rule_that_is_not_known_refuses_the_schema() {
        for schema in [
            json!({"if": {}}),
            json!({"patternProperties": {}}),
            json!({"type": "text"}),
            json!({"$ref": "#/$defs/none"}),
            json!({"$ref": "https://example.com"}),
            json!({"$ref": "#"}),
            json!({"pattern": "("}),
            json!([]),
        ] {
            assert!(check(&schema, &json!("x")).is_err(), "{schema}");
        }
        assert_eq!(check(&Value::Null, &json!({"anything": 1})), Ok(vec![]));
    }
}
