// SPDX-License-Identifier: Apache-2.0
//! Where something stands in the policy files, and what is wrong there.
//!
//! All files share one space of byte offsets: a file begins where the one before it ended. So a `Spanned` value of the
//! merged configuration says by its span alone which file it came from.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One thing that is wrong: where, what, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// `file:line:column`, the path of a file, or the name of the thing.
    pub place: String,
    /// What is wrong.
    pub message: String,
    /// What to write or do instead; may be empty.
    pub help: String,
}

impl Problem {
    /// A problem at a place.
    pub fn new(place: impl Into<String>, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { place: place.into(), message: message.into(), help: help.into() }
    }
}

impl fmt::Display for Problem {
    /// One line, whatever the operator's text holds: `place: message: help`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [&self.place, &self.message, &self.help];
        let mut written = false;
        for part in parts.into_iter().filter(|part| !part.is_empty()) {
            if written {
                f.write_str(": ")?;
            }
            written = true;
            for c in part.chars() {
                if c.is_control() { write!(f, "{}", c.escape_default())? } else { write!(f, "{c}")? }
            }
        }
        Ok(())
    }
}

/// The text of the policy files, in the order in which they were merged.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    files: Vec<File>,
}

/// One policy file.
#[derive(Debug, Clone)]
struct File {
    /// As the operator knows it: path below the policy directory, with the directory.
    name: String,
    text: Arc<str>,
    /// Offset of its first byte in the common space.
    base: usize,
}

impl Sources {
    /// These files, as name and text.
    pub fn new(files: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut base = 0;
        let file = |(name, text): (String, String)| {
            let file = File { name, base, text: text.into() };
            base += file.text.len() + 1; // a span may be empty at the end of a file
            file
        };
        Self { files: files.into_iter().map(file).collect() }
    }

    /// Names and texts.
    pub fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().map(|file| (file.name.as_str(), &*file.text))
    }

    /// Names, texts and the offset of the first byte of each file.
    pub(super) fn based(&self) -> impl Iterator<Item = (&str, &str, usize)> {
        self.files.iter().map(|file| (file.name.as_str(), &*file.text, file.base))
    }

    /// SHA-256 over names and texts, in hex: two sources with the same digest say the same.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for file in &self.files {
            for part in [&*file.name, &*file.text] {
                hash.update((part.len() as u64).to_be_bytes());
                hash.update(part.as_bytes());
            }
        }
        hex(&hash.finalize())
    }

    /// `file:line:column` of the first byte of a span; lines and columns (in characters) count from 1.
    pub fn place(&self, span: Range<usize>) -> String {
        let Some(file) = self.file(span.start) else { return "policies".to_owned() };
        let (line, column) = line_and_column(&file.text, span.start - file.base);
        format!("{}:{line}:{column}", file.name)
    }

    /// [`Sources::place`] of a value.
    pub fn place_of<T>(&self, value: &Spanned<T>) -> String {
        self.place(value.span())
    }

    /// Place of what a path like `keys[2].sha256` names within the table or array at `span`; of the innermost part that
    /// is there when not all of it is.
    pub fn place_within(&self, span: Range<usize>, path: &str) -> String {
        self.place(self.span_within(span.clone(), path).unwrap_or(span))
    }

    fn span_within(&self, span: Range<usize>, path: &str) -> Option<Range<usize>> {
        let file = self.file(span.start)?;
        let local = span.start - file.base..span.end.saturating_sub(file.base);
        let (root, _) = DeTable::parse_recoverable(&file.text);
        let mut found = table_values(root.get_ref()).find_map(|value| value_at(value, &local))?;
        for step in path.split(['.', '[', ']']).filter(|step| !step.is_empty()) {
            let next = match (found.get_ref(), step.parse::<usize>()) {
                (DeValue::Array(items), Ok(index)) => items.get(index),
                (DeValue::Table(table), _) => table.get(step),
                _ => None,
            };
            let Some(next) = next else { break };
            found = next;
        }
        let inner = found.span();
        Some(inner.start + file.base..inner.end + file.base)
    }

    fn file(&self, offset: usize) -> Option<&File> {
        let after = self.files.partition_point(|file| file.base <= offset);
        self.files.get(after.checked_sub(1)?)
    }
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    push_hex(&mut text, bytes);
    text
}

/// Appends bytes as hexadecimal digits. Without the formatter, which takes many times as long: each request has an id.
pub(crate) fn push_hex(text: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        text.push(DIGITS[usize::from(byte >> 4)].into());
        text.push(DIGITS[usize::from(byte & 15)].into());
    }
}

fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

fn table_values<'t, 'i>(table: &'t DeTable<'i>) -> impl Iterator<Item = &'t Spanned<DeValue<'i>>> {
    table.iter().map(|(_, value)| value)
}

/// The value with exactly this span, at any depth.
fn value_at<'t, 'i>(value: &'t Spanned<DeValue<'i>>, span: &Range<usize>) -> Option<&'t Spanned<DeValue<'i>>> {
    if value.span() == *span {
        return Some(value);
    }
    match value.get_ref() {
        DeValue::Table(table) => table_values(table).find_map(|inner| value_at(inner, span)),
        DeValue::Array(items) => items.iter().find_map(|inner| value_at(inner, span)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_files() -> Sources {
        Sources::new([("a.toml".to_owned(), "x = 1\n".to_owned()), ("b.toml".to_owned(), "# é\né = [1, 2]".to_owned())])
    }

    #[test]
    fn a_span_finds_its_file_line_and_column() {
        let sources = two_files();
        let b = "x = 1\n".len() + 1;
        for (offset, place) in [(0, "a.toml:1:1"), (4, "a.toml:1:5"), (6, "a.toml:2:1"), (b, "b.toml:1:1")] {
            assert_eq!(sources.place(offset..offset), place, "{offset}");
        }
        assert_eq!(sources.place(b + "# é\né".len()..b + 8), "b.toml:2:2", "columns count characters");
    }

    #[test]
    fn a_span_outside_of_all_files_or_inside_a_character_is_no_panic() {
        for offset in 0..100 {
            assert!(!two_files().place(offset..offset + 1).is_empty());
            assert!(!Sources::default().place(offset..offset).is_empty());
        }
    }

    #[test]
    fn a_path_into_a_plugins_configuration_finds_its_place() {
        let text = "[plugins.k]\nplugin = \"api-key\"\n[plugins.k.config]\nkeys = [\n  { subject = \"a\" },\n  { subject = 7 },\n]\n";
        let sources = Sources::new([("z".to_owned(), "\n\n".to_owned()), ("p.toml".to_owned(), text.to_owned())]);
        #[derive(serde::Deserialize)]
        struct File {
            plugins: std::collections::BTreeMap<String, crate::config::Plugin>,
        }
        let file: File = toml::from_str(text).unwrap();
        let span = file.plugins["k"].config.as_ref().unwrap().span();
        let span = span.start + 3..span.end + 3;
        assert_eq!(sources.place_within(span.clone(), "keys[1].subject"), "p.toml:6:15");
        assert_eq!(sources.place_within(span.clone(), "keys[9].subject"), "p.toml:4:8");
        assert_eq!(sources.place_within(span.clone(), ""), sources.place(span));
    }

    #[test]
    fn a_problem_is_one_line_without_control_characters() {
        let problem = Problem::new("a\nb", "c\u{1b}[31m", "");
        assert_eq!(problem.to_string(), "a\\nb: c\\u{1b}[31m");
    }
}
