// SPDX-License-Identifier: Apache-2.0
//! The log: one line for each event on standard error, whatever callers and vendors put into it. A line that cannot be written (the disk
//! is full) is lost and counted; whoever logs never hears of it.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// How a line is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Text to a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Starts the log, and puts panics into it.
pub fn start(format: Format) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    // What the library says of its own errors, it says on standard error, too, and panics if that fails.
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).log_internal_errors(false);
    let lines = lines.with_writer(Lines);
    let is_json = format == Format::Json || (format == Format::Auto && !io::stderr().is_terminal());
    let started =
        if is_json { lines.json().flatten_event(true).try_init() } else { lines.with_target(false).try_init() };
    if started.is_ok() {
        std::panic::set_hook(Box::new(|panic| tracing::error!(panic = %panic, "a thread panicked")));
    }
}

/// Lines that could not be written since the start.
#[must_use]
pub fn lost() -> u64 {
    STANDARD_ERROR.lost.load(Ordering::Relaxed)
}

/// How standard error does.
static STANDARD_ERROR: Output = Output::new();

/// How a place does that lines are written to.
#[derive(Debug)]
struct Output {
    lost: AtomicU64,
    /// Its last line has no end.
    torn: AtomicBool,
}

impl Output {
    const fn new() -> Self {
        Self { lost: AtomicU64::new(0), torn: AtomicBool::new(false) }
    }

    /// Writes a line, on a line of its own whatever became of those before.
    fn write(&self, to: &mut impl Write, line: &[u8]) {
        if self.torn.load(Ordering::Relaxed) {
            if to.write_all(b"\n").is_err() {
                self.lost.fetch_add(1, Ordering::Relaxed);
                return;
            }
            self.torn.store(false, Ordering::Relaxed);
        }
        let mut rest = line;
        while !rest.is_empty() {
            match to.write(rest) {
                Ok(written @ 1..) => rest = rest.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => {
                    self.torn.fetch_or(rest.len() < line.len(), Ordering::Relaxed);
                    self.lost.fetch_add(1, Ordering::Relaxed);
                    return;
                }
            }
        }
    }
}

/// Makes a line of each event.
#[derive(Debug, Clone, Copy)]
struct Lines;

impl<'w> MakeWriter<'w> for Lines {
    type Writer = Line<io::Stderr>;

    fn make_writer(&'w self) -> Self::Writer {
        Line(io::stderr(), &STANDARD_ERROR)
    }
}

/// Is given an event whole, with a newline at its end, and escapes every other control character in it.
struct Line<W>(W, &'static Output);

impl<W: Write> Write for Line<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.1.write(&mut self.0, &one_line(event));
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn one_line(event: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(event.strip_suffix(b"\n").unwrap_or(event));
    let mut line = String::with_capacity(text.len() + 1);
    for c in text.chars() {
        if is_forging(c) {
            let _ = write!(line, "\\u{:04x}", u32::from(c)); // valid in JSON, too; writing to a String cannot fail
        } else {
            line.push(c);
        }
    }
    line.push('\n');
    line.into_bytes()
}

/// Control characters, and those that end a line or turn the direction of the text for some readers.
fn is_forging(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_whatever_is_in_it() {
        for (event, line) in [
            ("plain\n", "plain\n"),
            ("no newline", "no newline\n"),
            ("a\nb\r\n", "a\\u000ab\\u000d\n"),
            ("\u{1b}[31mred\u{0}\n", "\\u001b[31mred\\u0000\n"),
            ("é\u{85}\u{2028}\u{202e}\n", "é\\u0085\\u2028\\u202e\n"),
        ] {
            let mut written = Vec::new();
            assert_eq!(Line(&mut written, &STANDARD_ERROR).write(event.as_bytes()).unwrap(), event.len());
            assert_eq!(String::from_utf8(written).unwrap(), line);
        }
        assert_eq!(one_line(b"\xff\xfe\n").last(), Some(&b'\n'));
    }

    /// A disk with room for so many bytes.
    struct Disk(Vec<u8>, usize);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let room = bytes.len().min(self.1 - self.0.len());
            self.0.extend_from_slice(&bytes[..room]);
            if room == 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(room) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_loses_lines_and_tears_none_of_those_after_it() {
        let (output, mut disk) = (Output::new(), Disk(Vec::new(), 9));
        for line in ["one\n", "two\n", "three\n", "four\n"] {
            output.write(&mut disk, line.as_bytes());
        }
        assert_eq!((output.lost.load(Ordering::Relaxed), &*disk.0), (2, &b"one\ntwo\nt"[..]));
        disk.1 = 100;
        output.write(&mut disk, b"five\n");
        assert_eq!(disk.0, b"one\ntwo\nt\nfive\n");
    }
}
