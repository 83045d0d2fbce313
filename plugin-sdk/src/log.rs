// SPDX-License-Identifier: Apache-2.0
//! Lines in the host's log. They carry the plugin's name already; the host cuts floods.

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Every step.
    Trace,
    /// What helps to find an error.
    Debug,
    /// What an operator wants to know.
    Info,
    /// What an operator should look at.
    Warn,
    /// What an operator must look at.
    Error,
}

/// Whether a line of this level goes anywhere. Asked of the host once for each instance.
#[must_use]
pub fn enabled(level: Level) -> bool {
    level >= imp::threshold()
}

/// Writes a line with named fields. Never put a credential or a prompt into one.
pub fn write(level: Level, message: &str, fields: &[(&str, &str)]) {
    if enabled(level) {
        imp::write(level, message, fields);
    }
}

/// Writes a line that helps to find an error.
pub fn debug(message: &str, fields: &[(&str, &str)]) {
    write(Level::Debug, message, fields);
}

/// Writes a line that an operator wants to know.
pub fn info(message: &str, fields: &[(&str, &str)]) {
    write(Level::Info, message, fields);
}

/// Writes a line that an operator should look at.
pub fn warn(message: &str, fields: &[(&str, &str)]) {
    write(Level::Warn, message, fields);
}

/// Writes a line that an operator must look at.
pub fn error(message: &str, fields: &[(&str, &str)]) {
    write(Level::Error, message, fields);
}

#[cfg(target_arch = "wasm32")]
mod imp {
    use std::cell::Cell;

    use super::Level;
    use crate::guest::bindings::log;

    thread_local! {
        static THRESHOLD: Cell<Option<Level>> = const { Cell::new(None) };
    }

    pub(super) fn threshold() -> Level {
        THRESHOLD.get().unwrap_or_else(|| {
            let level = match log::threshold() {
                log::Level::Trace => Level::Trace,
                log::Level::Debug => Level::Debug,
                log::Level::Info => Level::Info,
                log::Level::Warn => Level::Warn,
                log::Level::Error => Level::Error,
            };
            THRESHOLD.set(Some(level));
            level
        })
    }

    pub(super) fn write(level: Level, message: &str, fields: &[(&str, &str)]) {
        let level = match level {
            Level::Trace => log::Level::Trace,
            Level::Debug => log::Level::Debug,
            Level::Info => log::Level::Info,
            Level::Warn => log::Level::Warn,
            Level::Error => log::Level::Error,
        };
        let fields: Vec<_> = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        log::write(level, message, &fields);
    }
}

/// In a native test a line goes to the test's output.
#[cfg(not(target_arch = "wasm32"))]
mod imp {
    use super::Level;

    pub(super) fn threshold() -> Level {
        Level::Trace
    }

    #[allow(clippy::print_stderr, reason = "a test's output is shown when it fails")]
    pub(super) fn write(level: Level, message: &str, fields: &[(&str, &str)]) {
        eprintln!("{level:?}: {message} {fields:?}");
    }
}
