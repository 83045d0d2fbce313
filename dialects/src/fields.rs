// SPDX-License-Identifier: Apache-2.0
//! Takes the members of a JSON object one by one, so that what is left over at the end is known. Wrong types are refused
//! with the path of what is wrong; `null` is read as absent everywhere.

use serde_json::{Map, Value};

use crate::ir::{Fault, FaultClass, Members};

/// An object's members, and where in the request it stands.
#[derive(Debug)]
pub(crate) struct Fields {
    path: String,
    members: Map<String, Value>,
}

impl Fields {
    /// The members of a body.
    pub(crate) fn of_body(body: &[u8]) -> Result<Self, Fault> {
        let value: Value = serde_json::from_slice(body)
            .map_err(|error| Fault::new(FaultClass::InvalidRequest, format!("the body is not JSON: {error}")))?;
        match value {
            Value::Object(members) => Ok(Self { path: String::new(), members }),
            _ => Err(Fault::new(FaultClass::InvalidRequest, "the body must be a JSON object")),
        }
    }

    /// The members of the object at a path.
    pub(crate) fn of(value: Value, path: impl Into<String>) -> Result<Self, Fault> {
        let path = path.into();
        match value {
            Value::Object(members) => Ok(Self { path, members }),
            _ => Err(wrong(&path, "must be an object")),
        }
    }

    /// The path of a member.
    pub(crate) fn at(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// The fault that a member is wrong.
    pub(crate) fn wrong(&self, name: &str, what: &str) -> Fault {
        wrong(&self.at(name), what)
    }

    /// Whether the object has a member.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.members.get(name).is_some_and(|value| !value.is_null())
    }

    /// A member that stays, if it is a string.
    pub(crate) fn peek(&self, name: &str) -> Option<&str> {
        self.members.get(name).and_then(Value::as_str)
    }

    /// A member, whatever it is.
    pub(crate) fn take(&mut self, name: &str) -> Option<Value> {
        self.members.shift_remove(name).filter(|value| !value.is_null())
    }

    /// Puts back what is left of a member.
    pub(crate) fn put(&mut self, name: &str, value: impl Into<Value>) {
        self.members.insert(name.to_owned(), value.into());
    }

    /// A string.
    pub(crate) fn text(&mut self, name: &str) -> Result<Option<String>, Fault> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(name, "must be a string")),
        }
    }

    /// A string that must be there.
    pub(crate) fn required_text(&mut self, name: &str) -> Result<String, Fault> {
        self.text(name)?.ok_or_else(|| self.wrong(name, "is required"))
    }

    /// True or false.
    pub(crate) fn flag(&mut self, name: &str) -> Result<Option<bool>, Fault> {
        self.typed(name, Value::as_bool, "must be true or false")
    }

    /// A number.
    pub(crate) fn number(&mut self, name: &str) -> Result<Option<f64>, Fault> {
        self.typed(name, Value::as_f64, "must be a number")
    }

    /// A whole number that is not negative.
    pub(crate) fn count(&mut self, name: &str) -> Result<Option<u64>, Fault> {
        self.typed(name, Value::as_u64, "must be a whole number, not negative")
    }

    /// A list; absent is empty.
    pub(crate) fn list(&mut self, name: &str) -> Result<Vec<Value>, Fault> {
        match self.take(name) {
            None => Ok(Vec::new()),
            Some(Value::Array(list)) => Ok(list),
            Some(_) => Err(self.wrong(name, "must be a list")),
        }
    }

    /// An object within this one.
    pub(crate) fn object(&mut self, name: &str) -> Result<Option<Self>, Fault> {
        let path = self.at(name);
        self.take(name).map(|value| Self::of(value, path)).transpose()
    }

    /// What has not been taken.
    pub(crate) fn rest(self) -> Members {
        self.members.into_iter().filter(|(_, value)| !value.is_null()).collect()
    }

    /// The object without what has been taken, nulls included.
    pub(crate) fn into_members(self) -> Map<String, Value> {
        self.members
    }

    fn typed<T>(&mut self, name: &str, read: impl Fn(&Value) -> Option<T>, what: &str) -> Result<Option<T>, Fault> {
        let Some(value) = self.take(name) else { return Ok(None) };
        read(&value).map(Some).ok_or_else(|| self.wrong(name, what))
    }
}

/// A refusal that names the path of what is wrong.
pub(crate) fn wrong(path: &str, what: &str) -> Fault {
    Fault::new(FaultClass::InvalidRequest, format!("{path}: {what}"))
}

/// A number as callers write it: 1.0 as 1.
pub(crate) fn number(value: f64) -> Value {
    #[allow(clippy::cast_possible_truncation, reason = "only whole numbers below 1e15 are cast")]
    let whole = (value.fract() == 0.0 && value.abs() < 1e15).then_some(value as i64);
    whole.map_or(Value::from(value), Value::from)
}
