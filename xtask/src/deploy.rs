// SPDX-License-Identifier: Apache-2.0
//! Holds the dashboards and alerts of `deploy/` to a real Prometheus that scrapes a real gateway.

use std::process::{Command, Stdio};

use crate::up;
use crate::workspace::{Workspace, run as command};

/// Programs that it needs; Debian has both in the package `prometheus`.
const NEEDED: [&str; 2] = ["prometheus", "promtool"];

/// What is missing here.
pub(crate) fn missing() -> Option<&'static str> {
    let is_there = |name: &str| {
        let mut version = Command::new(name);
        version.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
    };
    NEEDED.into_iter().find(|name| !is_there(name))
}

/// Runs `tests/deploy/check.py`.
///
/// # Errors
/// When something does not build, an alert does not fire in its test, or a panel shows nothing.
pub(crate) fn run(workspace: &Workspace) -> anyhow::Result<()> {
    let gateway = up::gateway(workspace)?;
    let mut check = Command::new("python3");
    check
        .arg(workspace.root.join("tests/deploy/check.py"))
        .env("PENSTOCK_BIN", gateway)
        .env("PENSTOCK_PLUGINS", workspace.plugins_dir())
        .env("PYTHONDONTWRITEBYTECODE", "1");
    command(&mut check)
}
