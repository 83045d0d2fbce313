// SPDX-License-Identifier: Apache-2.0
//! What an issuer says of a caller, and what of it becomes a grant. The same words in every auth plugin that reads claims.
//!
//! Claims are read strictly: a member that stands twice, at any depth, is an error, since two readers could take it for two
//! things. A claim is named by its name, or by a JSON pointer (RFC 6901) if that begins with a slash.

use std::collections::BTreeMap;
use std::fmt;

use penstock_dialects::ir::{Fault, FaultClass};
use penstock_sdk_macros::Config;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::policy::Grant;
use crate::virtual_keys;

/// Longest name of a caller, group or attribute, in bytes: what the host takes.
const TEXT_BYTES_MAX: usize = 512;
/// Latest time that is taken for one, in seconds since 1970: the year 9999.
const TIME_MAX: f64 = 253_402_300_800.0;

/// What becomes of the claims.
#[derive(Debug, Clone, Config)]
pub struct Mapping {
    /// Claim that names the caller.
    #[config(default = "sub", min = 1)]
    subject: String,
    /// Stands before that name. Give each issuer one of its own if there are several: their callers may have the same names.
    #[config(default = "")]
    subject_prefix: String,
    /// Claim that names the group of the caller.
    tenant: Option<String>,
    /// Claim that holds the id of a virtual key: its models, operations, limits and budgets hold for the caller then.
    virtual_key: Option<String>,
    /// Further attributes for limits and routing, each by the claim that holds it; one that is not there is left out.
    #[config(default)]
    attributes: BTreeMap<String, String>,
    /// What must be there, or the caller is refused (403).
    #[config(default)]
    required: Vec<Required>,
}

/// The caller is the `sub` of the claims.
impl Default for Mapping {
    fn default() -> Self {
        Self {
            subject: "sub".to_owned(),
            subject_prefix: String::new(),
            tenant: None,
            virtual_key: None,
            attributes: BTreeMap::new(),
            required: Vec::new(),
        }
    }
}

/// A claim that must be there.
#[derive(Debug, Clone, Config)]
pub struct Required {
    /// The claim.
    #[config(min = 1)]
    claim: String,
    /// It must be one of these texts, or a list or a text of words (as `scope` is) that has one of them; any value if empty.
    #[config(default)]
    any_of: Vec<String>,
}

/// The claims of a caller.
#[derive(Debug, Clone, PartialEq)]
pub struct Claims(Map<String, Value>);

impl Claims {
    /// Reads claims.
    ///
    /// # Errors
    /// What is wrong with them, without a byte of them.
    pub fn parse(json: &[u8]) -> Result<Self, &'static str> {
        object(json).map(Self)
    }

    /// A claim.
    #[must_use]
    pub fn find(&self, claim: &str) -> Option<&Value> {
        match claim.strip_prefix('/') {
            None => self.0.get(claim),
            Some(path) => {
                let mut tokens = path.split('/').map(|token| token.replace("~1", "/").replace("~0", "~"));
                let first = self.0.get(&tokens.next()?)?;
                tokens.try_fold(first, |value, token| match value {
                    Value::Object(members) => members.get(&token),
                    Value::Array(items) => items.get(token.parse::<usize>().ok()?),
                    _ => None,
                })
            }
        }
    }

    /// A claim that is a text.
    #[must_use]
    pub fn text(&self, claim: &str) -> Option<&str> {
        self.find(claim)?.as_str()
    }

    /// A time (RFC 7519, `NumericDate`) in milliseconds since 1970; none if there is none.
    ///
    /// # Errors
    /// If it is no number, or none of this millennium or before it.
    pub fn time_ms(&self, claim: &str) -> Result<Option<u64>, &'static str> {
        let Some(value) = self.0.get(claim) else { return Ok(None) };
        let seconds = value.as_f64().filter(|_| value.is_number()).ok_or("a time in it is no number")?;
        if !(0.0..TIME_MAX).contains(&seconds) {
            return Err("a time in it is out of all bounds");
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within bounds")]
        Ok(Some((seconds * 1000.0) as u64))
    }

    /// Whether a claim is this text, or a list that has it.
    #[must_use]
    pub fn names(&self, claim: &str, text: &str) -> bool {
        match self.find(claim) {
            Some(Value::String(one)) => one == text,
            Some(Value::Array(all)) => all.iter().any(|item| item.as_str() == Some(text)),
            _ => false,
        }
    }
}

impl Mapping {
    /// What stands before the names of callers.
    #[must_use]
    pub fn subject_prefix(&self) -> &str {
        &self.subject_prefix
    }

    /// What the claims grant.
    ///
    /// # Errors
    /// `authentication` if they name nobody, `permission` if something is not there that must be.
    pub fn grant(&self, claims: &Claims, cache_ms: u32) -> Result<Grant, Fault> {
        let nobody = |what: &str| Fault::new(FaultClass::Authentication, format!("the token names nobody: {what}"));
        let subject = claims.find(&self.subject).and_then(name_of);
        let subject = subject
            .filter(|subject| !subject.trim().is_empty())
            .ok_or_else(|| nobody(&format!("it has no claim {:?} that is a text", self.subject)))?;
        let subject = format!("{}{subject}", self.subject_prefix);
        for Required { claim, any_of } in &self.required {
            let found = claims.find(claim).filter(|value| !value.is_null());
            if !found.is_some_and(|value| any_of.is_empty() || any_of.iter().any(|wanted| has(value, wanted))) {
                let what = if any_of.is_empty() { String::new() } else { format!(" with {}", any_of.join(" or ")) };
                let message = format!("the token has no claim {claim:?}{what}: ask for one that has it");
                return Err(Fault::new(FaultClass::Permission, message));
            }
        }
        let tenant = self.tenant.as_ref().and_then(|claim| claims.find(claim)).and_then(name_of);
        let named =
            self.attributes.iter().filter_map(|(name, claim)| Some((name.clone(), text_of(claims.find(claim)?)?)));
        let mut attributes: Vec<_> = named.collect();
        // The name that binds to a virtual key is never free: a claim could name another one's.
        attributes.retain(|(name, _)| name != virtual_keys::ATTRIBUTE);
        if let Some(claim) = &self.virtual_key {
            let id = claims.text(claim).filter(|id| !id.is_empty());
            let id = id.ok_or_else(|| nobody(&format!("it has no claim {claim:?} with a virtual key")))?;
            attributes.push((virtual_keys::ATTRIBUTE.to_owned(), id.to_owned()));
        }
        let fits = |text: &String| text.len() <= TEXT_BYTES_MAX && !text.chars().any(char::is_control);
        if !attributes.iter().map(|(_, value)| value).chain([&subject]).chain(&tenant).all(fits) {
            return Err(nobody("a claim that matters is longer than 512 bytes, or has control characters"));
        }
        Ok(Grant { subject, tenant, attributes, cache_ms })
    }
}

/// A JSON object, read strictly: no member twice, nothing after it.
///
/// # Errors
/// What is wrong, without a byte of it.
pub fn object(json: &[u8]) -> Result<Map<String, Value>, &'static str> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let value = Strict.deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    match value {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) => Err("it is no JSON object"),
        Err(error) if error.is_data() => Err("a member of it stands twice"),
        Err(_) => Err("it is no JSON"),
    }
}

/// A value that names one thing.
fn name_of(value: &Value) -> Option<String> {
    if value.is_array() { None } else { text_of(value).filter(|_| !value.is_boolean()) }
}

/// A value as the text of an attribute: a list as its words.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Array(items) => {
            let words: Option<Vec<_>> = items.iter().map(|item| item.as_str()).collect();
            words.map(|words| words.join(" "))
        }
        _ => None,
    }
}

fn has(value: &Value, wanted: &str) -> bool {
    match value {
        Value::String(text) => text == wanted || text.split(' ').any(|word| word == wanted),
        Value::Array(items) => items.iter().any(|item| item.as_str() == Some(wanted)),
        Value::Null | Value::Object(_) => false,
        other => text_of(other).as_deref() == Some(wanted),
    }
}

/// Reads a value in which no member stands twice.
struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("JSON")
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Value, E> {
        Ok(Value::Bool(truth))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Number::from_f64(number).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut read = Vec::new();
        while let Some(item) = items.next_element_seed(Strict)? {
            read.push(item);
        }
        Ok(Value::Array(read))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut read = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            if read.contains_key(&name) {
                return Err(A::Error::custom("twice"));
            }
            let value = members.next_value_seed(Strict)?;
            read.insert(name, value);
        }
        Ok(Value::Object(read))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::Reader;

    fn claims(json: &Value) -> Claims {
        Claims::parse(json.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn what_two_readers_could_take_for_two_things_is_refused() {
        for bad in [
            "",
            "1",
            "[]",
            "{",
            "{}x",
            "{} {}",
            "\u{feff}{}",
            r#"{"a":1,"a":1}"#,
            r#"{"a":{"b":1,"b":2}}"#,
            r#"{"a":[{"b":1,"\u0062":2}]}"#,
            "{\"a\":\"\n\"}",
            r#"{"a":1,}"#,
            r#"{'a':1}"#,
            r#"{"a":NaN}"#,
            r#"{"a":1e999}"#,
        ] {
            assert!(Claims::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(5000), "]".repeat(5000));
        assert!(Claims::parse(deep.as_bytes()).is_err());
        assert!(Claims::parse(b"{\"a\":\"\xff\"}").is_err());
        assert!(Claims::parse(br#" {"a":{"b":1},"b":[1,-2,1.5,true,null,"x"]} "#).is_ok());
    }

    #[test]
    fn a_claim_is_found_by_name_or_by_pointer() {
        let claims = claims(&json!({"a.b": 1, "https://x/y": 2, "a": {"b": ["c", {"d/e": 3}]}}));
        let cases =
            [("a.b", Some(1)), ("https://x/y", Some(2)), ("/a/b/1/d~1e", Some(3)), ("/a/c", None), ("a/b", None)];
        for (claim, found) in cases {
            assert_eq!(claims.find(claim).and_then(Value::as_u64), found, "{claim}");
        }
        assert!(claims.names("/a/b", "c") && !claims.names("/a/b", "d"));
    }

    #[test]
    fn a_time_is_a_number_of_seconds() {
        let claims = claims(&json!({"a": 1_700_000_000, "b": 1.5, "c": "1700000000", "d": -1, "e": 1e18, "f": true}));
        assert_eq!((claims.time_ms("a"), claims.time_ms("b")), (Ok(Some(1_700_000_000_000)), Ok(Some(1500))));
        assert_eq!(claims.time_ms("none"), Ok(None));
        for bad in ["c", "d", "e", "f"] {
            assert!(claims.time_ms(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn claims_become_a_grant_or_a_refusal() {
        let config = json!({
            "subject": "email", "subject_prefix": "corp:", "tenant": "/org/team", "virtual_key": "vk",
            "attributes": {"roles": "roles", "none": "none", "virtual-key": "email"},
            "required": [{"claim": "scope", "any_of": ["chat", "admin"]}, {"claim": "org"}],
        });
        let mapping: Mapping = Reader::read(&config).unwrap();
        let good =
            json!({"email": "a@b", "org": {"team": "red"}, "vk": "vk_1", "roles": ["x", "y"], "scope": "openid chat"});
        let grant = mapping.grant(&claims(&good), 7).unwrap();
        assert_eq!((&*grant.subject, grant.tenant.as_deref(), grant.cache_ms), ("corp:a@b", Some("red"), 7));
        let attributes = [("roles", "x y"), ("virtual-key", "vk_1")];
        assert_eq!(grant.attributes, attributes.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let cases = [
            ("email", json!(null), FaultClass::Authentication),
            ("email", json!("  "), FaultClass::Authentication),
            ("email", json!({"a": 1}), FaultClass::Authentication),
            ("email", json!("a\nb"), FaultClass::Authentication),
            ("email", json!("a".repeat(600)), FaultClass::Authentication),
            ("vk", json!(7), FaultClass::Authentication),
            ("scope", json!("openid chats"), FaultClass::Permission),
            ("scope", json!(["openid"]), FaultClass::Permission),
            ("org", json!(null), FaultClass::Permission),
        ];
        for (claim, value, class) in cases {
            let mut bad = good.clone();
            bad[claim] = value;
            assert_eq!(mapping.grant(&claims(&bad), 7).unwrap_err().class, class, "{claim} {}", bad[claim]);
        }
    }
}
