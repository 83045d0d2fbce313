// SPDX-License-Identifier: Apache-2.0
//! Lets in whoever sends the granted token in a header.

use penstock_sdk::prelude::{Auth, Call, Config, Fault, FaultClass, Grant, Issue, Pairs, Secret, Wants};

/// What operators configure; these comments are what they read.
#[derive(Debug, Config)]
pub struct Options {
    /// Name of the header, in lower case.
    #[config(default = "x-token", min = 1)]
    header: String,
    /// Who the caller is then.
    #[config(min = 1)]
    subject: String,
}

/// The plugin.
#[derive(Debug)]
pub struct MyPlugin {
    options: Options,
    token: Secret,
}

impl Auth for MyPlugin {
    type Config = Options;

    const SECRETS: &'static [&'static str] = &["token"];

    fn new(options: Options) -> Result<Self, Vec<Issue>> {
        let token = Secret::open("token")
            .ok_or_else(|| vec![Issue::new("", "grant the secret `token` to this plugin, in its `secrets`")])?;
        Ok(Self { options, token })
    }

    fn wants(&self) -> Wants {
        Wants::nothing().headers([&self.options.header])
    }

    fn authenticate(&self, _: &Call, headers: &Pairs) -> Result<Grant, Fault> {
        let sent = headers.get(&self.options.header).unwrap_or_default();
        if self.token.equals(sent.as_bytes()) {
            return Ok(Grant { subject: self.options.subject.clone(), ..Grant::default() });
        }
        // Never repeat what was sent: it may be a key with a slip of the pen.
        Err(Fault::new(FaultClass::Authentication, format!("send the token in `{}`", self.options.header)))
    }
}

penstock_sdk::auth!(MyPlugin);

#[cfg(test)]
mod tests {
    use super::MyPlugin;

    #[test]
    fn golden_cases_pass() {
        penstock_sdk::testkit::run_cases::<MyPlugin>(concat!(env!("CARGO_MANIFEST_DIR"), "/cases"));
    }
}
