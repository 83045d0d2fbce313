// SPDX-License-Identifier: Apache-2.0
//! Refuses paths below a prefix, and marks every other answer with a header.

use penstock_sdk::prelude::{Call, Config, Edit, Fault, Filter, Head, Issue, Reply, Verdict, Wants};

/// What operators configure; these comments are what they read.
#[derive(Debug, Config)]
pub struct Options {
    /// Paths that nobody may ask for, by what they begin with.
    #[config(default)]
    closed: Vec<String>,
    /// Value of the header `x-served-by`.
    #[config(default = "penstock")]
    served_by: String,
}

/// The plugin.
#[derive(Debug)]
pub struct MyPlugin(Options);

impl Filter for MyPlugin {
    type Config = Options;

    fn new(options: Options) -> Result<Self, Vec<Issue>> {
        Ok(Self(options))
    }

    fn wants(&self) -> Wants {
        Wants::nothing()
    }

    fn request_head(&self, _: &Call, head: &Head<'_>) -> Result<Verdict, Fault> {
        if self.0.closed.iter().any(|prefix| head.path.starts_with(prefix.as_str())) {
            let reply = Reply { status: 404, headers: Vec::new(), body: b"not here\n".to_vec() };
            return Ok(Verdict { answer: Some(reply), ..Verdict::default() });
        }
        let mark = Edit::Set("x-served-by".to_owned(), self.0.served_by.clone());
        Ok(Verdict { response: vec![mark], ..Verdict::default() })
    }
}

penstock_sdk::filter!(MyPlugin);

#[cfg(test)]
mod tests {
    use super::MyPlugin;

    #[test]
    fn golden_cases_pass() {
        penstock_sdk::testkit::run_cases::<MyPlugin>(concat!(env!("CARGO_MANIFEST_DIR"), "/cases"));
    }
}
