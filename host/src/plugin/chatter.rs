// SPDX-License-Identifier: Apache-2.0
//! What plugins say: lines of the log interface and of their standard streams, under the plugin's name, bounded in
//! length and number, with control characters escaped. The last lines of an instance are kept for the report of a trap.

use std::collections::VecDeque;
use std::fmt::Write;

use tracing::level_filters::LevelFilter;

use super::bindings::penstock::plugin::log::Level;
use crate::flood::Flood;

/// Longest line, in bytes; the rest is cut.
const LINE_BYTES_MAX: usize = 4096;
/// Lines of an instance that are kept.
const KEPT_LINES: usize = 8;

/// What one instance has said.
#[derive(Default)]
pub(super) struct Chatter {
    kept: VecDeque<String>,
    streams: [Vec<u8>; 2],
}

/// A standard stream.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stream {
    Out,
    Err,
}

impl Chatter {
    /// Writes one line.
    pub(super) fn line(
        &mut self,
        plugin: &str,
        flood: &Flood,
        level: Level,
        message: &str,
        fields: &[(String, String)],
    ) {
        let message = printable(message);
        if self.kept.len() == KEPT_LINES {
            self.kept.pop_front();
        }
        self.kept.push_back(message.clone());
        if level_filter(level) > LevelFilter::current() {
            return;
        }
        let Some(cut) = flood.admit() else { return };
        if cut > 0 {
            tracing::warn!(target: "penstock::plugin", plugin, lines = cut, "log lines of a plugin were cut: too many");
        }
        let mut text = String::new();
        for (name, value) in fields.iter().take(32) {
            let _ = write!(text, "{}{}={}", if text.is_empty() { "" } else { " " }, printable(name), printable(value));
        }
        let fields = (!text.is_empty()).then_some(text);
        let fields = fields.as_deref();
        match level {
            Level::Trace => tracing::trace!(target: "penstock::plugin", plugin, fields, "{message}"),
            Level::Debug => tracing::debug!(target: "penstock::plugin", plugin, fields, "{message}"),
            Level::Info => tracing::info!(target: "penstock::plugin", plugin, fields, "{message}"),
            Level::Warn => tracing::warn!(target: "penstock::plugin", plugin, fields, "{message}"),
            Level::Error => tracing::error!(target: "penstock::plugin", plugin, fields, "{message}"),
        }
    }

    /// Takes bytes of a standard stream, and writes those lines that are complete.
    pub(super) fn stream(&mut self, plugin: &str, flood: &Flood, stream: Stream, bytes: &[u8]) {
        let level = match stream {
            Stream::Out => Level::Info,
            Stream::Err => Level::Warn,
        };
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let pending = &mut self.streams[stream as usize];
            let room = LINE_BYTES_MAX.saturating_sub(pending.len());
            pending.extend_from_slice(&piece[..piece.len().min(room)]);
            if piece.ends_with(b"\n") {
                let line = std::mem::take(pending);
                self.line(plugin, flood, level, String::from_utf8_lossy(&line).trim_end(), &[]);
            }
        }
    }

    /// The last lines, oldest first, and what stands in the streams without a line end.
    pub(super) fn last_lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.kept.iter().cloned().collect();
        lines.extend(self.streams.iter().filter(|s| !s.is_empty()).map(|s| printable(&String::from_utf8_lossy(s))));
        lines
    }
}

/// The level below which lines go nowhere.
pub(super) fn threshold() -> Level {
    match LevelFilter::current() {
        LevelFilter::TRACE => Level::Trace,
        LevelFilter::DEBUG => Level::Debug,
        LevelFilter::INFO => Level::Info,
        LevelFilter::WARN => Level::Warn,
        _ => Level::Error,
    }
}

fn level_filter(level: Level) -> LevelFilter {
    match level {
        Level::Trace => LevelFilter::TRACE,
        Level::Debug => LevelFilter::DEBUG,
        Level::Info => LevelFilter::INFO,
        Level::Warn => LevelFilter::WARN,
        Level::Error => LevelFilter::ERROR,
    }
}

/// The text, cut to a line's length, with control characters escaped: a plugin cannot write a line of anybody else's.
pub(super) fn printable(text: &str) -> String {
    let mut line = String::with_capacity(text.len().min(LINE_BYTES_MAX));
    for character in text.chars() {
        if line.len() >= LINE_BYTES_MAX {
            line.push('…');
            break;
        }
        // Not only C0 and C1: line separators and the marks that turn the direction of writing forge lines, too.
        let forges = matches!(character, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if character.is_control() || forges {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_cannot_forge_another_one() {
        assert_eq!(printable("a\r\nb\u{1b}[31m\u{202e}"), "a\\r\\nb\\u{1b}[31m\\u{202e}");
        assert!(printable(&"x".repeat(10_000)).len() < LINE_BYTES_MAX + 8);
    }

    #[test]
    fn the_last_lines_are_kept_whole_or_not() {
        let (mut chatter, flood) = (Chatter::default(), Flood::new());
        chatter.stream("p", &flood, Stream::Err, b"one\ntw");
        chatter.stream("p", &flood, Stream::Err, b"o\nthree");
        assert_eq!(chatter.last_lines(), ["one", "two", "three"]);
        for number in 0..100 {
            chatter.stream("p", &flood, Stream::Out, format!("{number}\n").as_bytes());
        }
        assert!(chatter.last_lines().starts_with(&["92".to_owned(), "93".to_owned()]));
        chatter.stream("p", &flood, Stream::Out, &vec![b'x'; 1 << 20]);
        assert!(chatter.last_lines().concat().len() < 2 * LINE_BYTES_MAX);
    }
}
