// SPDX-License-Identifier: Apache-2.0
//! Takes the members of a caller's JSON object one by one, and names the path of whatever is wrong. `null` is absent.

use serde_json::{Map, Value};

use crate::ir::{Fault, FaultClass, Members};

/// The members of one object that have not been taken yet.
#[derive(Debug)]
pub(crate) struct Fields {
    members: Map<String, Value>,
    /// Where the object stands: "" for the body, else `messages[2]`.
    path: String,
}

/// A refusal that names the path of what is wrong.
pub(crate) fn wrong(path: &str, what: &str) -> Fault {
    Fault::new(FaultClass::InvalidRequest, format!("{path}: {what}"))
}

impl Fields {
    /// The members of a whole body.
    pub(crate) fn of_body(body: &[u8]) -> Result<Self, Fault> {
        let refuse = |what: String| Fault::new(FaultClass::InvalidRequest, what);
        match serde_json::from_slice(body) {
            Ok(Value::Object(members)) => Ok(Self::of_members(members, "")),
            Ok(_) => Err(refuse("the body must be a JSON object".to_owned())),
            Err(error) => Err(refuse(format!("the body is not JSON: {error}"))),
        }
    }

    /// The members of an object that stands at `path`.
    pub(crate) fn of(value: Value, path: impl Into<String>) -> Result<Self, Fault> {
        let path = path.into();
        match value {
            Value::Object(members) => Ok(Self::of_members(members, path)),
            _ => Err(wrong(&path, "must be an object")),
        }
    }

    fn of_members(mut members: Map<String, Value>, path: impl Into<String>) -> Self {
        members.retain(|_, value| !value.is_null());
        Self { members, path: path.into() }
    }

    /// Path of a member.
    pub(crate) fn at(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// A refusal of a member.
    pub(crate) fn wrong(&self, name: &str, what: &str) -> Fault {
        wrong(&self.at(name), what)
    }

    /// Looks at a member without taking it.
    pub(crate) fn peek(&self, name: &str) -> Option<&Value> {
        self.members.get(name)
    }

    pub(crate) fn take(&mut self, name: &str) -> Option<Value> {
        self.members.shift_remove(name)
    }

    pub(crate) fn text(&mut self, name: &str) -> Result<Option<String>, Fault> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(name, "must be a string")),
        }
    }

    pub(crate) fn required_text(&mut self, name: &str) -> Result<String, Fault> {
        self.text(name)?.ok_or_else(|| self.wrong(name, "is required"))
    }

    pub(crate) fn flag(&mut self, name: &str) -> Result<Option<bool>, Fault> {
        let value = self.take(name);
        value.map(|value| value.as_bool().ok_or_else(|| self.wrong(name, "must be true or false"))).transpose()
    }

    pub(crate) fn number(&mut self, name: &str) -> Result<Option<f64>, Fault> {
        let value = self.take(name);
        value.map(|value| value.as_f64().ok_or_else(|| self.wrong(name, "must be a number"))).transpose()
    }

    /// A whole number that is not negative.
    pub(crate) fn count(&mut self, name: &str) -> Result<Option<u64>, Fault> {
        let value = self.take(name);
        let must = || self.wrong(name, "must be a whole number, not negative");
        value.map(|value| value.as_u64().ok_or_else(must)).transpose()
    }

    /// As [`Self::count`], also where it stands as text, as the fields of forms do.
    pub(crate) fn count_or_text(&mut self, name: &str) -> Result<Option<u64>, Fault> {
        match self.peek(name).and_then(Value::as_str).map(|text| text.trim().parse::<u64>()) {
            None => self.count(name),
            Some(Ok(count)) => {
                self.take(name);
                Ok(Some(count))
            }
            Some(Err(_)) => Err(self.wrong(name, "must be a whole number, not negative")),
        }
    }

    pub(crate) fn integer(&mut self, name: &str) -> Result<Option<i64>, Fault> {
        let value = self.take(name);
        value.map(|value| value.as_i64().ok_or_else(|| self.wrong(name, "must be a whole number"))).transpose()
    }

    pub(crate) fn list(&mut self, name: &str) -> Result<Option<Vec<Value>>, Fault> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Array(list)) => Ok(Some(list)),
            Some(_) => Err(self.wrong(name, "must be a list")),
        }
    }

    pub(crate) fn texts(&mut self, name: &str) -> Result<Option<Vec<String>>, Fault> {
        let Some(list) = self.list(name)? else { return Ok(None) };
        let text = |value: Value| match value {
            Value::String(text) => Ok(text),
            _ => Err(self.wrong(name, "must be a list of strings")),
        };
        list.into_iter().map(text).collect::<Result<Vec<_>, _>>().map(Some)
    }

    /// An object within this one.
    pub(crate) fn object(&mut self, name: &str) -> Result<Option<Self>, Fault> {
        let path = self.at(name);
        self.take(name).map(|value| Self::of(value, path)).transpose()
    }

    /// Puts a member back.
    pub(crate) fn put(&mut self, name: &str, value: impl Into<Value>) {
        self.members.insert(name.to_owned(), value.into());
    }

    /// Puts what is left of an object back.
    pub(crate) fn put_rest(&mut self, name: &str, left: Self) {
        if !left.members.is_empty() {
            self.put(name, left.members);
        }
    }

    /// What has not been taken, in order.
    pub(crate) fn into_map(self) -> Map<String, Value> {
        self.members
    }

    /// What has not been taken.
    pub(crate) fn rest(self) -> Members {
        self.members.into_iter().collect()
    }
}

/// A number as callers write it: 1.0 as 1.
pub(crate) fn plain_number(value: f64) -> Value {
    #[allow(clippy::cast_possible_truncation, reason = "only whole numbers below 1e15 are cast")]
    let whole = (value.fract() == 0.0 && value.abs() < 1e15).then_some(value as i64);
    whole.map_or(Value::from(value), Value::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    use serde_json::json;

    #[test]
    fn what_is_wrong_is_named_with_its_path() {
        let mut fields = Fields::of(json!({ "n": -1, "m": null, "t": 1, "l": ["a", 1] }), "images[2]").unwrap();
        assert_eq!(fields.text("m").unwrap(), None);
        assert_eq!(fields.count("n").unwrap_err().message, "images[2].n: must be a whole number, not negative");
        assert_eq!(fields.text("t").unwrap_err().message, "images[2].t: must be a string");
        assert_eq!(fields.texts("l").unwrap_err().message, "images[2].l: must be a list of strings");
        assert_eq!(fields.required_text("x").unwrap_err().message, "images[2].x: is required");
        assert_eq!(Fields::of_body(b"[]").unwrap_err().message, "the body must be a JSON object");
    }

    #[test]
    fn a_form_states_numbers_as_text() {
        let mut fields = Fields::of_body(br#"{"n":"3","size":"x","left":[1]}"#).unwrap();
        assert_eq!(fields.count_or_text("n").unwrap(), Some(3));
        assert!(fields.count_or_text("size").is_err());
        assert_eq!(fields.rest().len(), 2);
    }
}
