// SPDX-License-Identifier: Apache-2.0
//! Finds and replaces the fields of a multipart form (RFC 7578) and leaves every other byte as it came: what
//! [`crate::splice`] is for a JSON body, for requests that carry files.

use std::borrow::Cow;
use std::ops::Range;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use memchr::memmem;
use serde_json::{Map, Value, json};

use crate::ir::{Fault, FaultClass};

/// Fields of a form; more are refused.
const FIELDS_MAX: usize = 256;

/// The fields of a form, in order, and where their contents lie.
#[derive(Debug, Clone)]
pub struct Form<'b> {
    body: &'b [u8],
    boundary: String,
    fields: Vec<Field<'b>>,
}

/// One field.
#[derive(Debug, Clone)]
pub struct Field<'b> {
    /// Name.
    pub name: Cow<'b, str>,
    /// File name, if the field is a file.
    pub filename: Option<Cow<'b, str>>,
    /// Media type; empty if none is stated.
    pub media_type: &'b str,
    /// The whole part, with the line end before its closing delimiter.
    part: Range<usize>,
    content: Range<usize>,
}

impl<'b> Form<'b> {
    /// Reads a body whose `content-type` is this.
    ///
    /// # Errors
    /// A fault of class invalid-request if it is no form, or has a field without a name or a plain field twice.
    pub fn index(content_type: &str, body: &'b [u8]) -> Result<Self, Fault> {
        let boundary = boundary(content_type).ok_or_else(|| refused("the content-type names no boundary"))?;
        let delimiter = format!("--{boundary}");
        let mut fields: Vec<Field<'b>> = Vec::new();
        let next = memmem::Finder::new(delimiter.as_bytes());
        let is_first =
            |at: &usize| (*at == 0 || body[..*at].ends_with(b"\r\n")) && closes(&body[at + delimiter.len()..]);
        let first = next.find_iter(body).find(is_first).ok_or_else(|| refused("the body has no delimiter"))?;
        // What stands before belongs to nobody, and would become a part of a field that is added.
        let body = &body[first..];
        let mut at = delimiter.len();
        loop {
            if body[at..].starts_with(b"--") {
                return Ok(Self { body, boundary, fields });
            }
            let line = memmem::find(&body[at..], b"\r\n").ok_or_else(|| refused("a delimiter without a line end"))?;
            let start = at + line + 2;
            let end = next
                .find_iter(&body[start..])
                .map(|found| start + found)
                .find(|end| {
                    *end >= start + 2 && body[..*end].ends_with(b"\r\n") && closes(&body[end + delimiter.len()..])
                })
                .ok_or_else(|| refused("the last field is not closed"))?;
            let field = field(body, start..end)?;
            if field.filename.is_none() && fields.iter().any(|other| other.name == field.name && !is_list(&field.name))
            {
                return Err(refused(format!("{}: the form has this field twice", field.name)));
            }
            fields.push(field);
            if fields.len() > FIELDS_MAX {
                return Err(refused(format!("the form has more than {FIELDS_MAX} fields")));
            }
            at = end + delimiter.len();
        }
    }

    /// The text of a field that is no file.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&'b str> {
        let field = self.fields.iter().find(|field| field.name == name && field.filename.is_none())?;
        std::str::from_utf8(&self.body[field.content.clone()]).ok()
    }

    /// Every field with its content, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Field<'b>, &'b [u8])> {
        self.fields.iter().map(|field| (field, &self.body[field.content.clone()]))
    }

    /// The body with these fields set to the text of this JSON, or removed where the JSON is empty; a field that the form
    /// lacks is added at the front. Every other byte from the first delimiter on stays.
    #[must_use]
    pub fn splice(&self, edits: &[(&str, &str)]) -> Vec<u8> {
        let edit = |name: &str| edits.iter().rev().find(|(edited, _)| *edited == name).map(|(_, json)| *json);
        let mut out = Vec::with_capacity(self.body.len() + 256);
        for (name, json) in edits {
            if !json.is_empty() && !self.fields.iter().any(|field| field.name == *name) {
                let head = format!("--{}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n", self.boundary);
                out.extend_from_slice(head.as_bytes());
                out.extend_from_slice(text_of(json).as_bytes());
                out.extend_from_slice(b"\r\n");
            }
        }
        let mut at = 0;
        for field in &self.fields {
            match edit(&field.name) {
                None => continue,
                Some("") => {
                    // The delimiter before the field goes with it.
                    let delimiter =
                        memmem::rfind(&self.body[..field.part.start], format!("--{}", self.boundary).as_bytes())
                            .unwrap_or(field.part.start);
                    out.extend_from_slice(&self.body[at..delimiter]);
                    at = field.part.end;
                }
                Some(json) => {
                    out.extend_from_slice(&self.body[at..field.content.start]);
                    out.extend_from_slice(text_of(json).as_bytes());
                    at = field.content.end;
                }
            }
        }
        out.extend_from_slice(&self.body[at..]);
        out
    }

    /// The form as a JSON object: texts as strings, files as lists of `{"filename", "media_type", "base64"}`, and names that
    /// end in `[]` without that, as lists.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut object = Map::new();
        for (field, content) in self.iter() {
            let name = field.name.trim_end_matches("[]");
            let value = match &field.filename {
                Some(filename) => json!({
                    "filename": filename,
                    "media_type": field.media_type,
                    "base64": BASE64_STANDARD.encode(content),
                }),
                None => Value::from(String::from_utf8_lossy(content)),
            };
            if field.filename.is_some() || is_list(&field.name) {
                match object.entry(name).or_insert_with(|| json!([])) {
                    Value::Array(list) => list.push(value),
                    other => *other = value,
                }
            } else {
                object.insert(name.to_owned(), value);
            }
        }
        Value::Object(object)
    }
}

/// Whether what follows the text of a delimiter makes it one.
fn closes(rest: &[u8]) -> bool {
    rest.starts_with(b"--") || rest.trim_ascii_start().len() < rest.len()
}

fn is_list(name: &str) -> bool {
    name.ends_with("[]")
}

/// A JSON string's text, or other JSON as it is.
fn text_of(json: &str) -> Cow<'_, str> {
    match serde_json::from_str::<String>(json) {
        Ok(text) => Cow::Owned(text),
        Err(_) => Cow::Borrowed(json),
    }
}

fn boundary(content_type: &str) -> Option<String> {
    let (kind, parameters) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let boundary = parameter(parameters, "boundary")?;
    (!boundary.is_empty() && boundary.len() <= 70).then(|| boundary.into_owned())
}

/// A parameter of a header's value: `; name=value` or `; name="value"`.
fn parameter<'t>(text: &'t str, wanted: &str) -> Option<Cow<'t, str>> {
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ';']);
        let (name, after) = rest.split_once('=')?;
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => {
                let end = closing_quote(quoted)?;
                (Cow::Owned(quoted[..end].replace("\\\"", "\"")), &quoted[end + 1..])
            }
            None => {
                let end = after.find(';').unwrap_or(after.len());
                (Cow::Borrowed(after[..end].trim()), &after[end..])
            }
        };
        if name.trim().eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
        rest = after;
    }
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    })
}

/// Reads the part that lies between two delimiters.
fn field(body: &[u8], part: Range<usize>) -> Result<Field<'_>, Fault> {
    let bytes = &body[part.clone()];
    let head_end = if bytes.starts_with(b"\r\n") { Some(0) } else { memmem::find(bytes, b"\r\n\r\n").map(|at| at + 2) };
    let head_end = head_end.ok_or_else(|| refused("a field without a head"))?;
    let head = std::str::from_utf8(&bytes[..head_end]).map_err(|_| refused("the head of a field is not UTF-8"))?;
    let header = |wanted: &str| {
        let lines = head.split("\r\n").filter_map(|line| line.split_once(':'));
        lines.filter(|(name, _)| name.trim().eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim()).next()
    };
    let disposition = header("content-disposition").unwrap_or_default();
    let name = parameter(disposition.strip_prefix("form-data").unwrap_or_default(), "name");
    let name = name.ok_or_else(|| refused("a field without a name"))?;
    let filename = parameter(disposition.strip_prefix("form-data").unwrap_or_default(), "filename");
    let content = part.start + head_end + 2..part.end - 2;
    if content.start > content.end {
        return Err(refused(format!("{name}: the field is not closed")));
    }
    Ok(Field { name, filename, media_type: header("content-type").unwrap_or_default(), part, content })
}

fn refused(message: impl Into<String>) -> Fault {
    Fault::new(FaultClass::InvalidRequest, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: &str = "multipart/form-data; boundary=\"X-1\"";
    const BODY: &[u8] = b"--X-1\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n--X-1\r\n\
        content-disposition: form-data; name=\"file\"; filename=\"a;b.mp3\"\r\nContent-Type: audio/mpeg\r\n\r\n\
        \x00\xff--X-1 not yet\r\n\r\n--X-1\r\nContent-Disposition: form-data; name=\"include[]\"\r\n\r\na\r\n--X-1\r\n\
        Content-Disposition: form-data; name=\"include[]\"\r\n\r\nb\r\n--X-1--\r\n";

    #[test]
    fn a_form_is_read_and_only_the_edited_field_changes() {
        let form = Form::index(KIND, BODY).unwrap();
        assert_eq!(form.text("model"), Some("whisper-1"));
        assert_eq!(form.text("file"), None);
        let names: Vec<_> = form.iter().map(|(field, content)| (field.name.to_string(), content.len())).collect();
        assert_eq!(names.len(), 4);
        assert_eq!(names[1], ("file".to_owned(), 17));
        let spliced = form.splice(&[("model", "\"gpt\"")]);
        assert_eq!(spliced, replaced());
        let again = Form::index(KIND, &spliced).unwrap();
        assert_eq!(again.text("model"), Some("gpt"));
        assert_eq!(form.splice(&[]), BODY);
    }

    fn replaced() -> Vec<u8> {
        let at = memmem::find(BODY, b"whisper-1").unwrap();
        [&BODY[..at], b"gpt", &BODY[at + 9..]].concat()
    }

    #[test]
    fn what_stands_before_the_form_is_no_part_of_a_field() {
        let body = [b"before\r\n--X-1x\r\n", BODY].concat();
        let form = Form::index(KIND, &body).unwrap();
        let added = form.splice(&[("language", "\"de\"")]);
        assert_eq!(Form::index(KIND, &added).unwrap().text("language"), Some("de"));
        assert_eq!(form.splice(&[]), BODY);
    }

    #[test]
    fn fields_are_added_and_removed() {
        let form = Form::index(KIND, BODY).unwrap();
        let added = form.splice(&[("language", "\"de\""), ("temperature", "0.5")]);
        let added = Form::index(KIND, &added).unwrap();
        assert_eq!((added.text("language"), added.text("temperature")), (Some("de"), Some("0.5")));
        let removed = form.splice(&[("model", "")]);
        let removed = Form::index(KIND, &removed).unwrap();
        assert_eq!((removed.text("model"), removed.iter().count()), (None, 3));
    }

    #[test]
    fn a_form_becomes_json() {
        let json = Form::index(KIND, BODY).unwrap().to_json();
        assert_eq!(json["model"], "whisper-1");
        assert_eq!(json["include"], json!(["a", "b"]));
        assert_eq!(json["file"][0]["filename"], "a;b.mp3");
        assert_eq!(json["file"][0]["media_type"], "audio/mpeg");
    }

    #[test]
    fn what_is_no_form_is_refused() {
        let twice = b"--X-1\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--X-1\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n2\r\n--X-1--";
        let nameless = b"--X-1\r\nContent-Disposition: form-data\r\n\r\n1\r\n--X-1--";
        for (kind, body) in [
            ("application/json", BODY),
            ("multipart/form-data", BODY),
            (KIND, b"".as_slice()),
            (KIND, &BODY[..60]),
            (KIND, b"--X-1\r\n\r\n--X-1--"),
            (KIND, twice),
            (KIND, nameless),
        ] {
            assert!(Form::index(kind, body).is_err(), "{}", String::from_utf8_lossy(body));
        }
    }
}
