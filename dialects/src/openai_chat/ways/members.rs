// SPDX-License-Identifier: Apache-2.0
//! Changes to the top-level members of a request, as text: what is renamed, removed, set, bounded, replaced.

use std::collections::BTreeMap;

use serde_json::Value;

/// Looks a top-level member up by name: its raw JSON.
pub(super) type Lookup<'l, 'm> = &'l dyn Fn(&str) -> Option<&'m str>;

/// Ways of a vendor that are about top-level members. Names are those of OpenAI.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MemberWays {
    /// Members that the vendor calls otherwise.
    pub rename: BTreeMap<String, String>,
    /// Members that the vendor refuses.
    pub drop: Vec<String>,
    /// Members that are set where the caller leaves them out.
    pub default: BTreeMap<String, Value>,
    /// Numbers that must lie between two bounds; the nearer bound takes the place of one that does not.
    pub clamp: BTreeMap<String, [f64; 2]>,
    /// Values that the vendor does not know, and what stands for them (`""` for nothing): by member, then by the value, for
    /// an object by its `type`.
    pub values: BTreeMap<String, BTreeMap<String, Value>>,
}

/// Changes to the top-level members of a request.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Edits {
    /// Raw JSON to set by name, "" to remove.
    pub edits: Vec<(String, String)>,
    /// Paths of what the caller loses.
    pub dropped: Vec<String>,
}

/// Changes that are being gathered.
pub(super) struct Changes<'l, 'm> {
    member: Lookup<'l, 'm>,
    changed: BTreeMap<String, String>,
    pub(super) dropped: Vec<String>,
}

impl<'l, 'm> Changes<'l, 'm> {
    pub(super) fn new(member: Lookup<'l, 'm>) -> Self {
        Self { member, changed: BTreeMap::new(), dropped: Vec::new() }
    }

    /// A member as it is now; none if there is none.
    pub(super) fn now(&self, name: &str) -> Option<&str> {
        let now = self.changed.get(name).map(String::as_str).or_else(|| (self.member)(name));
        now.filter(|json| !json.is_empty())
    }

    pub(super) fn set(&mut self, name: &str, json: impl Into<String>) {
        self.changed.insert(name.to_owned(), json.into());
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.set(name, "");
    }

    pub(super) fn finish(self) -> Edits {
        let Self { member, mut changed, dropped } = self;
        // What was set only to be renamed needs no removal.
        changed.retain(|name, json| !json.is_empty() || member(name).is_some());
        Edits { edits: changed.into_iter().collect(), dropped }
    }
}

impl MemberWays {
    /// Every member that [`Self::edits`] looks at.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let renamed = self.rename.iter().flat_map(|(from, to)| [from, to]);
        let named = renamed.chain(&self.drop).chain(self.default.keys()).chain(self.clamp.keys());
        named.chain(self.values.keys()).map(String::as_str)
    }

    /// What the vendor refuses goes first.
    pub(super) fn first(&self, changes: &mut Changes<'_, '_>) {
        for name in &self.drop {
            if changes.now(name).is_some() {
                changes.remove(name);
                changes.dropped.push(name.clone());
            }
        }
        for (name, values) in &self.values {
            let found = changes.now(name).and_then(value_name).and_then(|value| values.get(&value));
            if let Some(value) = found {
                changes.dropped.push(name.clone());
                changes.set(name, if value == "" { String::new() } else { value.to_string() });
            }
        }
    }

    /// Defaults and bounds are OpenAI's names still; the vendor's own names come last.
    pub(super) fn last(&self, changes: &mut Changes<'_, '_>) {
        for (name, value) in &self.default {
            if (changes.member)(name).is_none() && changes.now(name).is_none() {
                changes.set(name, value.to_string());
            }
        }
        for (name, [low, high]) in &self.clamp {
            let number = changes.now(name).and_then(|json| json.trim().parse::<f64>().ok());
            if let Some(number) = number.filter(|number| number < low || number > high) {
                changes.set(name, number.clamp(*low, *high).to_string());
            }
        }
        for (from, to) in &self.rename {
            let Some(now) = changes.now(from).map(str::to_owned) else { continue };
            if changes.now(to).is_none() {
                changes.set(to, now);
            } else {
                // A caller that uses the vendor's own name knows what it wants.
                changes.dropped.push(from.clone());
            }
            changes.remove(from);
        }
    }

    /// The changes to a request of which `member` gives the top-level members as raw JSON.
    #[must_use]
    pub fn edits(&self, member: Lookup<'_, '_>) -> Edits {
        let mut changes = Changes::new(member);
        self.first(&mut changes);
        self.last(&mut changes);
        changes.finish()
    }
}

/// The name of a value in a table of values.
fn value_name(json: &str) -> Option<String> {
    match serde_json::from_str(json).ok()? {
        Value::String(text) => Some(text),
        Value::Object(members) => members.get("type")?.as_str().map(str::to_owned),
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn edits(ways: &MemberWays, body: &str) -> (Value, Vec<String>) {
        let body = crate::splice::Members::index(body.as_bytes()).unwrap();
        let Edits { edits, dropped } = ways.edits(&|name| body.get(name));
        (edits.into_iter().map(|(name, json)| (name, Value::from(json))).collect(), dropped)
    }

    #[test]
    fn values_that_a_vendor_does_not_know_are_replaced_and_reported() {
        let choices = BTreeMap::from([
            ("required".to_owned(), json!("auto")),
            ("function".to_owned(), json!("auto")),
            ("none".to_owned(), json!("")),
        ]);
        let values = BTreeMap::from([("tool_choice".to_owned(), choices)]);
        let ways = MemberWays { values, ..MemberWays::default() };
        let lost = vec!["tool_choice".to_owned()];
        let cases = [
            (r#"{"tool_choice":"required"}"#, json!({"tool_choice": "\"auto\""}), lost.clone()),
            (
                r#"{"tool_choice":{"type":"function","function":{"name":"f"}}}"#,
                json!({"tool_choice": "\"auto\""}),
                lost.clone(),
            ),
            (r#"{"tool_choice":"none"}"#, json!({"tool_choice": ""}), lost),
            (r#"{"tool_choice":"auto"}"#, json!({}), vec![]),
            ("{}", json!({}), vec![]),
        ];
        for (body, expected, dropped) in cases {
            assert_eq!(edits(&ways, body), (expected, dropped), "{body}");
        }
    }

    #[test]
    fn names_change_last() {
        let ways = MemberWays {
            rename: BTreeMap::from([("max_completion_tokens".to_owned(), "max_tokens".to_owned())]),
            drop: vec!["n".to_owned()],
            default: BTreeMap::from([("max_completion_tokens".to_owned(), json!(10)), ("n".to_owned(), json!(1))]),
            clamp: BTreeMap::from([("max_completion_tokens".to_owned(), [1.0, 5.0])]),
            ..MemberWays::default()
        };
        assert_eq!(edits(&ways, r#"{"n":2}"#), (json!({"max_tokens": "5", "n": ""}), vec!["n".to_owned()]));
        let both = r#"{"max_completion_tokens":3,"max_tokens":4}"#;
        let expected = json!({"max_completion_tokens": "", "n": "1"});
        assert_eq!(edits(&ways, both), (expected, vec!["max_completion_tokens".to_owned()]));
    }
}
