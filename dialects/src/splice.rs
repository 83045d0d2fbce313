// SPDX-License-Identifier: Apache-2.0
//! Finds and replaces top-level members of a JSON object and leaves every other byte as it came: what lets a caller's
//! body reach a vendor of the same dialect without being re-written. It does not interpret what the members mean.
//!
//! One pass validates the whole syntax, so nothing that two parsers could read differently goes through: duplicate
//! member names are refused, also where one of them is spelled with escapes, or in another case: some parsers take `Model`
//! for `model`, and the last one of two. Nesting costs no stack.

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer as _;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::ir::{Fault, FaultClass};

/// Up to so many members are compared one with one; more are sorted.
const COMPARED_MAX: usize = 32;

/// The top-level members of a JSON object, in order, and where their values lie.
#[derive(Debug, Clone)]
pub struct Members<'b> {
    body: &'b str,
    entries: Vec<Entry<'b>>,
}

#[derive(Debug, Clone)]
struct Entry<'b> {
    name: Cow<'b, str>,
    /// Raw JSON of the value: a slice of `body`.
    value: &'b str,
}

impl<'b> Members<'b> {
    /// Reads a body.
    ///
    /// # Errors
    /// A fault of class invalid-request if the body is not UTF-8, not JSON, not an object, or names a member twice, be it in
    /// another case or with other underscores.
    pub fn index(body: &'b [u8]) -> Result<Self, Fault> {
        let body = std::str::from_utf8(body)
            .map_err(|error| refused(format!("the body is not UTF-8: wrong byte at {}", error.valid_up_to())))?;
        let mut reader = serde_json::Deserializer::from_str(body);
        let entries = reader
            .deserialize_map(Entries)
            .and_then(|entries| reader.end().map(|()| entries))
            .map_err(|error| refused(format!("the body is not a JSON object: {error}")))?;
        if let Some(name) = duplicate(&entries) {
            return Err(refused(format!("{name}: the body has this member twice")));
        }
        if let Some((one, other)) = alike(&entries) {
            return Err(refused(format!("{other}: the body has {one}, too, and some parsers take one for the other")));
        }
        Ok(Self { body, entries })
    }

    /// The raw JSON of a member.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'b str> {
        self.entries.iter().find(|entry| entry.name == name).map(|entry| entry.value)
    }

    /// A member that is a string.
    #[must_use]
    pub fn string(&self, name: &str) -> Option<Cow<'b, str>> {
        let mut reader = serde_json::Deserializer::from_str(self.get(name)?);
        Text.deserialize(&mut reader).ok()
    }

    /// A member that is true or false.
    #[must_use]
    pub fn boolean(&self, name: &str) -> Option<bool> {
        match self.get(name)? {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        }
    }

    /// A member whose name is one of these in another case: whoever reads names exactly does not see it, and some parsers do.
    #[must_use]
    pub fn in_another_case(&self, names: &[&str]) -> Option<&str> {
        let mut odd = self.entries.iter().map(|entry| &*entry.name).filter(|name| !is_plain(name));
        odd.find(|odd| names.iter().any(|name| name != odd && folded(name, false).eq(folded(odd, false))))
    }

    /// Every member with its raw JSON, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &'b str)> {
        self.entries.iter().map(|entry| (entry.name.as_ref(), entry.value))
    }

    /// The body with these members set to this raw JSON, or removed where the raw JSON is empty; a member that the body
    /// lacks is added at the end. Every other byte stays. Of two edits of one member the last holds. The raw JSON must
    /// be valid (see [`is_json`]).
    #[must_use]
    pub fn splice(&self, edits: &[(&str, &str)]) -> Vec<u8> {
        let edit = |name: &str| edits.iter().rev().find(|(edited, _)| *edited == name).map(|(_, raw)| *raw);
        let added: usize = edits.iter().map(|(name, raw)| name.len() + raw.len() + 8).sum();
        let mut out = Vec::with_capacity(self.body.len() + added);
        let (mut at, mut first) = (self.body.find('{').map_or(0, |brace| brace + 1), true);
        out.extend_from_slice(&self.body.as_bytes()[..at]);
        for entry in &self.entries {
            let start = self.offset(entry.value);
            let head = &self.body[at..start];
            at = start + entry.value.len();
            let value = edit(&entry.name).unwrap_or(entry.value);
            if !value.is_empty() {
                let separated = head.trim_ascii_start().strip_prefix(',');
                out.extend_from_slice(separated.filter(|_| first).unwrap_or(head).as_bytes());
                out.extend_from_slice(value.as_bytes());
                first = false;
            }
        }
        for (index, (name, raw)) in edits.iter().enumerate() {
            let later = edits[index + 1..].iter().any(|(other, _)| other == name);
            if !later && !raw.is_empty() && self.get(name).is_none() {
                append(&mut out, name, raw, std::mem::take(&mut first));
            }
        }
        out.extend_from_slice(&self.body.as_bytes()[at..]);
        out
    }

    /// Where a slice of the body begins in it.
    fn offset(&self, part: &str) -> usize {
        part.as_ptr() as usize - self.body.as_ptr() as usize
    }
}

/// Whether a text is one JSON value.
#[must_use]
pub fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

fn append(out: &mut Vec<u8>, name: &str, raw: &str, first: bool) {
    if !first {
        out.push(b',');
    }
    out.extend_from_slice(serde_json::Value::from(name).to_string().as_bytes());
    out.push(b':');
    out.extend_from_slice(raw.as_bytes());
}

fn refused(message: String) -> Fault {
    Fault::new(FaultClass::InvalidRequest, message)
}

/// A name that occurs twice. Bodies have a dozen members; a hostile one with thousands must not cost a square of them.
fn duplicate<'e>(entries: &'e [Entry<'_>]) -> Option<&'e str> {
    let mut names: Vec<&str> = entries.iter().map(|entry| entry.name.as_ref()).collect();
    names.sort_unstable();
    names.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
}

/// Two names that are one to a parser that ignores case or underscores.
fn alike<'e>(entries: &'e [Entry<'_>]) -> Option<(&'e str, &'e str)> {
    if entries.iter().all(|entry| is_plain(&entry.name)) {
        return None;
    }
    let names = || entries.iter().map(|entry| &*entry.name);
    if entries.len() <= COMPARED_MAX {
        let mut pairs = names().enumerate().flat_map(|(at, other)| names().take(at).map(move |one| (one, other)));
        return pairs.find(|(one, other)| folded(one, true).eq(folded(other, true)));
    }
    let mut all: Vec<(String, &str)> = names().map(|name| (folded(name, true).collect(), name)).collect();
    all.sort_unstable();
    all.windows(2).find(|pair| pair[0].0 == pair[1].0).map(|pair| (pair[0].1, pair[1].1))
}

/// Whether nobody reads a name as another one of this kind: it has small letters of ASCII only.
fn is_plain(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase())
}

/// A name as a parser that ignores case reads it, and maybe underscores (`maxTokens` is `max_tokens` to protobuf).
fn folded(name: &str, underscores: bool) -> impl Iterator<Item = char> {
    let letters = name.chars().filter(move |&letter| !(underscores && letter == '_')).flat_map(char::to_lowercase);
    // The long s has no other small letter, and simple case folding takes it for an s (Unicode, CaseFolding.txt).
    letters.map(|letter| if letter == '\u{17f}' { 's' } else { letter })
}

/// Reads the members of an object; the values are skipped over, not built.
struct Entries;

impl<'b> Visitor<'b> for Entries {
    type Value = Vec<Entry<'b>>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'b>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::with_capacity(16);
        while let Some(name) = map.next_key_seed(Text)? {
            entries.push(Entry { name, value: map.next_value::<&RawValue>()?.get() });
        }
        Ok(entries)
    }
}

/// Reads a string, borrowed where it has no escapes.
struct Text;

impl<'b> DeserializeSeed<'b> for Text {
    type Value = Cow<'b, str>;

    fn deserialize<D: serde::Deserializer<'b>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_str(self)
    }
}

impl<'b> Visitor<'b> for Text {
    type Value = Cow<'b, str>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a string")
    }

    fn visit_borrowed_str<E: serde::de::Error>(self, text: &'b str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }

    fn visit_bytes<E: serde::de::Error>(self, _: &[u8]) -> Result<Self::Value, E> {
        Err(E::custom("a string that is not Unicode"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spliced(body: &str, edits: &[(&str, &str)]) -> String {
        String::from_utf8(Members::index(body.as_bytes()).unwrap().splice(edits)).unwrap()
    }

    #[test]
    fn members_are_found_however_they_are_spelled() {
        let members = Members::index(br#" { "mod\u0065l" : "a\nb" , "stream":true, "n": 1e5 } "#).unwrap();
        assert_eq!(members.get("model"), Some(r#""a\nb""#));
        assert_eq!(members.string("model").as_deref(), Some("a\nb"));
        assert_eq!(members.boolean("stream"), Some(true));
        assert_eq!(members.get("n"), Some("1e5"));
        assert_eq!((members.string("n"), members.boolean("n"), members.get("absent")), (None, None, None));
    }

    #[test]
    fn a_splice_changes_nothing_but_what_it_names() {
        type Case = (&'static str, &'static [(&'static str, &'static str)], &'static str);
        let cases: &[Case] = &[
            (r#"{"a":1,"b":2}"#, &[], r#"{"a":1,"b":2}"#),
            (r#"{ "a" : 1.0 , "b":2 }"#, &[("b", "[3]")], r#"{ "a" : 1.0 , "b":[3] }"#),
            (r#"{ "a" : 1 , "b":2 }"#, &[("a", "")], r#"{ "b":2 }"#),
            (r#"{ "a" : 1 , "b":2 , "c":3 }"#, &[("b", "")], r#"{ "a" : 1 , "c":3 }"#),
            (r#"{"a":1,"b":2,"c":3}"#, &[("a", ""), ("b", "")], r#"{"c":3}"#),
            (r#"{"a":1,"b":2}"#, &[("b", "")], r#"{"a":1}"#),
            (r#"{"a":1}"#, &[("a", ""), ("z", "0")], r#"{"z":0}"#),
            ("{}", &[("z\"", "0"), ("y", "1")], r#"{"z\"":0,"y":1}"#),
            ("\n{ }\n", &[("z", "0")], "\n{\"z\":0 }\n"),
            (r#"{"a":1}"#, &[("z", "")], r#"{"a":1}"#),
            (r#"{"a":1}"#, &[("a", "2"), ("a", "3"), ("z", "1"), ("z", "2")], r#"{"a":3,"z":2}"#),
            (r#"{"mod\u0065l":"x","é":1e999}"#, &[("model", "\"y\"")], r#"{"mod\u0065l":"y","é":1e999}"#),
            (r#"{"a":"{","b":",}"}"#, &[("a", "")], r#"{"b":",}"}"#),
        ];
        for (body, edits, expected) in cases {
            assert_eq!(spliced(body, edits), *expected, "{body} {edits:?}");
        }
    }

    #[test]
    fn what_two_parsers_could_read_differently_is_refused() {
        let cases: &[(&[u8], &str)] = &[
            (br#"{"a":1,"a":2}"#, "a: the body has this member twice"),
            (br#"{"model":1,"mod\u0065l":2}"#, "model: the body has this member twice"),
            (br#"{"model":1,"Model":2}"#, "Model: the body has model, too"),
            ("{\"stream\":1,\"\u{17f}tream\":2}".as_bytes(), "the body has stream, too"),
            ("{\"\u{212a}\":1,\"k\":2}".as_bytes(), "k: the body has"),
            (br#"{"generationConfig":1,"generation_config":2}"#, "generation_config: the body has"),
            (br#"{"a":1} {}"#, "trailing"),
            (br#"[1]"#, "expected an object"),
            (b"", "EOF"),
            (br#"{"a":1,}"#, "trailing comma"),
            (b"{\"a\":\"\xff\"}", "not UTF-8"),
            (b"\xef\xbb\xbf{}", "line 1"),
            (br#"{"a":"\x"}"#, "escape"),
            (br#"{"a":NaN}"#, "line 1"),
            (br#"{"\ud800":1}"#, "line 1"),
        ];
        for (body, expected) in cases {
            let fault = Members::index(body).unwrap_err();
            assert_eq!(fault.class, FaultClass::InvalidRequest);
            assert!(fault.message.contains(expected), "{}", fault.message);
        }
    }

    #[test]
    fn depth_costs_no_stack_and_many_members_no_square() {
        let depth = 100_000;
        let body = format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        let read = std::thread::Builder::new().stack_size(64 * 1024);
        let found = read.spawn(move || Members::index(body.as_bytes()).map(|m| m.get("a").map(str::len))).unwrap();
        assert_eq!(found.join().unwrap(), Ok(Some(2 * depth)));
        let names: Vec<String> = (0..50).map(|i| format!("\"m{i}\":0")).collect();
        let fault = Members::index(format!("{{{},\"M7\":0}}", names.join(",")).as_bytes()).unwrap_err();
        assert!(fault.message.contains("some parsers"), "{}", fault.message);
        let many: Vec<String> = (0..200_000).map(|i| format!("\"m{i}\":0")).collect();
        assert!(Members::index(format!("{{{}}}", many.join(",")).as_bytes()).is_ok());
    }

    #[test]
    fn a_member_in_another_case_is_found() {
        let members = Members::index(br#"{"Stream":true,"maxTokens":1,"model":"m"}"#).unwrap();
        assert_eq!(members.in_another_case(&["model", "stream", "max_tokens"]), Some("Stream"));
        assert_eq!(members.in_another_case(&["model", "max_tokens"]), None);
    }

    #[test]
    fn every_prefix_of_a_body_is_refused() {
        let body =
            r#"{"model":"é\u00e9","messages":[{"role":"user","content":"\ud83d\ude00 {"}],"n":-1.5e+3,"s":null}"#;
        assert!(Members::index(body.as_bytes()).is_ok());
        for length in 0..body.len() {
            assert!(Members::index(&body.as_bytes()[..length]).is_err(), "{length}");
        }
    }
}
