// SPDX-License-Identifier: Apache-2.0
//! A usage object as a vendor has stated it, for what is read of an answer as it passes: names are borrowed and compared, where
//! a [`Value`] copies and hashes each.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// A JSON value, as far as a usage looks at it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Stated<'s> {
    /// Members in their order; of two with one name the last one counts.
    Object(Vec<(Cow<'s, str>, Self)>),
    Whole(u64),
    Fraction(f64),
    Text(Cow<'s, str>),
    /// Null, a boolean, a list.
    Other,
}

impl<'s> Stated<'s> {
    /// A member of an object.
    pub(super) fn member(&self, name: &str) -> Option<&Self> {
        let Self::Object(members) = self else { return None };
        members.iter().rev().find(|(member, _)| *member == name).map(|(_, value)| value)
    }

    /// Members of the object that is the member of this name; none if there is no such object.
    pub(super) fn members(&self, name: &str) -> &[(Cow<'s, str>, Self)] {
        match self.member(name) {
            Some(Self::Object(members)) => members,
            _ => &[],
        }
    }

    /// What stands at a JSON pointer of plain names.
    fn at(&self, pointer: &str) -> Option<&Self> {
        let names = pointer.strip_prefix('/')?;
        match names.bytes().position(|byte| byte == b'/') {
            Some(end) => self.member(&names[..end])?.at(&names[end..]),
            None => self.member(names),
        }
    }

    /// A count at a JSON pointer; a vendor may write it as 12.0.
    pub(super) fn count(&self, pointer: &str) -> Option<u64> {
        match self.at(pointer)? {
            Self::Whole(count) => Some(*count),
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates")]
            Self::Fraction(count) => Some(*count as u64),
            _ => None,
        }
    }

    /// The count at the first of these JSON pointers that has one.
    pub(super) fn first(&self, pointers: &[&str]) -> Option<u64> {
        pointers.iter().find_map(|pointer| self.count(pointer))
    }

    /// The number of a member.
    pub(super) fn number(&self, name: &str) -> Option<f64> {
        match self.member(name)? {
            #[allow(clippy::cast_precision_loss, reason = "nothing is counted in 2^53")]
            Self::Whole(count) => Some(*count as f64),
            Self::Fraction(number) => Some(*number),
            _ => None,
        }
    }

    /// The text of a member, empty if it is none.
    pub(super) fn text(&self, name: &str) -> &str {
        match self.member(name) {
            Some(Self::Text(text)) => text,
            _ => "",
        }
    }
}

impl<'s> From<&'s Value> for Stated<'s> {
    fn from(value: &'s Value) -> Self {
        match value {
            Value::Object(members) => {
                Self::Object(members.iter().map(|(name, value)| (Cow::Borrowed(&**name), value.into())).collect())
            }
            Value::Number(number) => match (number.as_u64(), number.as_f64()) {
                (Some(count), _) => Self::Whole(count),
                (None, Some(number)) => Self::Fraction(number),
                (None, None) => Self::Other,
            },
            Value::String(text) => Self::Text(Cow::Borrowed(text)),
            _ => Self::Other,
        }
    }
}

impl<'s, 'd: 's> Deserialize<'d> for Stated<'s> {
    fn deserialize<D: Deserializer<'d>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

/// A name, borrowed where it is written without escapes.
#[derive(serde::Deserialize)]
struct Name<'s>(#[serde(borrow)] Cow<'s, str>);

struct Reader;

impl<'d> Visitor<'d> for Reader {
    type Value = Stated<'d>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'d>>(self, mut map: A) -> Result<Stated<'d>, A::Error> {
        let mut members = Vec::with_capacity(8);
        while let Some((Name(name), value)) = map.next_entry()? {
            members.push((name, value));
        }
        Ok(Stated::Object(members))
    }

    fn visit_seq<A: SeqAccess<'d>>(self, mut list: A) -> Result<Stated<'d>, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Stated::Other)
    }

    fn visit_u64<E>(self, count: u64) -> Result<Stated<'d>, E> {
        Ok(Stated::Whole(count))
    }

    #[allow(clippy::cast_precision_loss, reason = "a negative number counts nothing")]
    fn visit_i64<E>(self, count: i64) -> Result<Stated<'d>, E> {
        Ok(Stated::Fraction(count as f64))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Stated<'d>, E> {
        Ok(Stated::Fraction(number))
    }

    fn visit_borrowed_str<E>(self, text: &'d str) -> Result<Stated<'d>, E> {
        Ok(Stated::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Stated<'d>, E> {
        Ok(Stated::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Stated<'d>, E> {
        Ok(Stated::Other)
    }

    fn visit_unit<E>(self) -> Result<Stated<'d>, E> {
        Ok(Stated::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_parsed_is_what_a_value_says() {
        let text = r#"{ "a": 1, "b\u0021": {"c": 2.5, "d": -3, "e": 1e300}, "f": null, "g": [1, {"a": 2}], "h": "x\n", "i": true, "a": 7 }"#;
        let stated: Stated<'_> = serde_json::from_str(text).unwrap();
        let value: Value = serde_json::from_str(text).unwrap();
        let other = Stated::from(&value);
        for stated in [&stated, &other] {
            assert_eq!(stated.count("/a"), Some(7), "of two the last one counts");
            assert_eq!(stated.count("/b!/c"), Some(2));
            assert_eq!((stated.count("/b!/d"), stated.count("/b!/e")), (Some(0), Some(u64::MAX)));
            for nothing in ["/f", "/g", "/g/0", "/h", "/i", "/b!", "/b!/x", "/a/b", "a", ""] {
                assert_eq!(stated.count(nothing), None, "{nothing}");
            }
            assert_eq!((stated.text("h"), stated.text("a")), ("x\n", ""));
            assert_eq!(stated.members("b!").len(), 3);
            assert_eq!(stated.number("a"), Some(7.0));
        }
        assert!(serde_json::from_str::<Stated<'_>>("{\"a\":").is_err());
    }
}
