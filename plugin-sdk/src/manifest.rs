// SPDX-License-Identifier: Apache-2.0
//! What a component says of itself in its custom section `penstock:plugin`, as JSON. It is made while the plugin is
//! compiled, so that the host can read it without running anything.

use crate::config::{Field, Schema};

/// The version of the contract (`wit/`) that this SDK speaks.
pub const API: &str = "0.1.0";

/// What a component says of itself.
#[derive(Debug, Clone, Copy)]
pub struct Manifest {
    /// "adapter", "auth", "limits", "routing", "filter".
    pub kind: &'static str,
    /// Name of the plugin.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// What it is, in a sentence.
    pub description: &'static str,
    /// SPDX expression.
    pub licence: &'static str,
    /// Wire languages for which an adapter can relay the caller's bytes.
    pub dialects: &'static [&'static str],
    /// What an adapter can be asked for.
    pub operations: &'static [&'static str],
    /// What of a conversation an adapter can carry.
    pub features: &'static [&'static str],
    /// Secrets that the plugin names by itself; operators grant them.
    pub secrets: &'static [&'static str],
    /// What operators may configure.
    pub schema: &'static Schema,
}

impl Manifest {
    /// The JSON text. With `N` = 0 only its length is found.
    #[must_use]
    pub const fn render<const N: usize>(&self) -> Text<N> {
        let mut text = Text::<N> { bytes: [0; N], length: 0 };
        text.raw("{\"api\":");
        text.string(API);
        text.raw(",\"kind\":");
        text.string(self.kind);
        text.raw(",\"name\":");
        text.string(self.name);
        text.raw(",\"version\":");
        text.string(self.version);
        text.raw(",\"description\":");
        text.string(self.description);
        text.raw(",\"licence\":");
        text.string(self.licence);
        text.raw(",\"dialects\":");
        text.strings(self.dialects);
        text.raw(",\"operations\":");
        text.strings(self.operations);
        text.raw(",\"features\":");
        text.strings(self.features);
        text.raw(",\"secrets\":");
        text.strings(self.secrets);
        text.raw(",\"schema\":{\"$schema\":\"https://json-schema.org/draft/2020-12/schema\",");
        text.schema(self.schema);
        text.raw("}}");
        text
    }
}

/// Text under construction in a constant.
#[derive(Debug, Clone, Copy)]
pub struct Text<const N: usize> {
    /// The text.
    pub bytes: [u8; N],
    /// Its length, even where `N` is too small for it.
    pub length: usize,
}

impl<const N: usize> Text<N> {
    const fn raw(&mut self, text: &str) {
        let mut index = 0;
        while index < text.len() {
            self.byte(text.as_bytes()[index]);
            index += 1;
        }
    }

    const fn byte(&mut self, byte: u8) {
        if self.length < N {
            self.bytes[self.length] = byte;
        }
        self.length += 1;
    }

    const fn string(&mut self, text: &str) {
        self.byte(b'"');
        let mut index = 0;
        while index < text.len() {
            match text.as_bytes()[index] {
                byte @ (b'"' | b'\\') => {
                    self.byte(b'\\');
                    self.byte(byte);
                }
                0..0x20 => self.byte(b' '),
                byte => self.byte(byte),
            }
            index += 1;
        }
        self.byte(b'"');
    }

    const fn strings(&mut self, texts: &[&str]) {
        self.byte(b'[');
        let mut index = 0;
        while index < texts.len() {
            if index > 0 {
                self.byte(b',');
            }
            self.string(texts[index]);
            index += 1;
        }
        self.byte(b']');
    }

    /// The members of a schema, without the braces.
    const fn schema(&mut self, schema: &Schema) {
        match schema {
            Schema::Any => self.raw("\"title\":\"anything\""),
            Schema::Boolean => self.raw("\"type\":\"boolean\""),
            Schema::Integer { .. } => self.raw("\"type\":\"integer\""),
            Schema::Number => self.raw("\"type\":\"number\""),
            Schema::Text => self.raw("\"type\":\"string\""),
            Schema::Choice(names) => {
                self.raw("\"type\":\"string\",\"enum\":");
                self.strings(names);
            }
            Schema::List { of, length } => {
                self.raw("\"type\":\"array\",\"items\":{");
                self.schema(of);
                self.byte(b'}');
                self.number("minItems", length);
                self.number("maxItems", length);
            }
            Schema::Map(of) => {
                self.raw("\"type\":\"object\",\"additionalProperties\":{");
                self.schema(of);
                self.byte(b'}');
            }
            Schema::Object(fields) => self.object(fields),
        }
    }

    const fn object(&mut self, fields: &[Field]) {
        self.raw("\"type\":\"object\",\"additionalProperties\":false,\"properties\":{");
        let mut index = 0;
        while index < fields.len() {
            if index > 0 {
                self.byte(b',');
            }
            self.field(&fields[index]);
            index += 1;
        }
        self.raw("},\"required\":[");
        let mut first = true;
        index = 0;
        while index < fields.len() {
            if fields[index].required {
                if !first {
                    self.byte(b',');
                }
                first = false;
                self.string(fields[index].name);
            }
            index += 1;
        }
        self.byte(b']');
    }

    const fn field(&mut self, field: &Field) {
        self.string(field.name);
        self.raw(":{");
        self.schema(field.schema);
        if !field.about.is_empty() {
            self.raw(",\"description\":");
            self.string(field.about);
        }
        self.number("default", field.default);
        let (least, greatest, type_least) = match field.schema {
            Schema::Text => ("minLength", "maxLength", ""),
            Schema::List { .. } => ("minItems", "maxItems", ""),
            Schema::Map(_) => ("minProperties", "maxProperties", ""),
            Schema::Integer { min } => ("minimum", "maximum", *min),
            _ => ("minimum", "maximum", ""),
        };
        self.number(least, if field.min.is_empty() { type_least } else { field.min });
        self.number(greatest, field.max);
        self.byte(b'}');
    }

    /// A member whose value is JSON already; nothing if that is "".
    const fn number(&mut self, name: &str, json: &str) {
        if !json.is_empty() {
            self.byte(b',');
            self.string(name);
            self.byte(b':');
            self.raw(json);
        }
    }
}
