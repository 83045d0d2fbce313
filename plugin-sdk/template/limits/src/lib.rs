// SPDX-License-Identifier: Apache-2.0
//! Allows each caller so many calls at a time.

use penstock_sdk::prelude::{Algorithm, Call, Check, Config, Counted, Fault, Issue, Limits};

/// What operators configure; these comments are what they read.
#[derive(Debug, Config)]
pub struct Options {
    /// Calls at a time.
    #[config(default = 4, min = 1)]
    calls: u64,
}

/// The plugin. It says what to count; the host counts.
#[derive(Debug)]
pub struct MyPlugin(Options);

impl Limits for MyPlugin {
    type Config = Options;

    fn new(options: Options) -> Result<Self, Vec<Issue>> {
        Ok(Self(options))
    }

    fn plan(&self, call: &Call) -> Result<Vec<Check>, Fault> {
        let subject = call.subject.as_deref().unwrap_or("anonymous");
        Ok(vec![Check {
            key: format!("subject={subject}"),
            algorithm: Algorithm::Concurrency,
            counted: Counted::Requests,
            limit: self.0.calls,
            window_ms: 0,
            burst: 0,
            label: format!("{} calls at a time for this key", self.0.calls),
        }])
    }
}

penstock_sdk::limits!(MyPlugin);

#[cfg(test)]
mod tests {
    use super::MyPlugin;

    #[test]
    fn golden_cases_pass() {
        penstock_sdk::testkit::run_cases::<MyPlugin>(concat!(env!("CARGO_MANIFEST_DIR"), "/cases"));
    }
}
