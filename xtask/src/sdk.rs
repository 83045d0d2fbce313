// SPDX-License-Identifier: Apache-2.0
//! Runs the official Python SDKs against the gateway (tests/sdk), in a virtual environment of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::up;
use crate::workspace::{Workspace, run as command};

/// Runs the tests in `tests/sdk`; with names only those.
///
/// # Errors
/// When something does not build, the environment cannot be made, or a test fails.
pub(crate) fn run(workspace: &Workspace, tests: &[String]) -> anyhow::Result<()> {
    let folder = workspace.root.join("tests/sdk");
    let python = environment(workspace, &folder.join("requirements.txt"))?;
    let gateway = up::gateway(workspace)?;
    let mut unittest = Command::new(python);
    unittest.args(["-W", "error::ResourceWarning", "-m", "unittest"]);
    if tests.is_empty() {
        unittest.args(["discover", "--start-directory", ".", "--pattern", "test_*.py"]);
    }
    unittest
        .args(tests)
        .current_dir(&folder)
        .env("PENSTOCK_BIN", gateway)
        .env("PENSTOCK_PLUGINS", workspace.shipped_dir())
        .env("PYTHONDONTWRITEBYTECODE", "1");
    command(&mut unittest)
}

/// Makes the environment, or finds it as it was made for the same list of packages.
fn environment(workspace: &Workspace, requirements: &Path) -> anyhow::Result<PathBuf> {
    let folder = workspace.target.join("sdk-venv");
    let python = folder.join("bin/python");
    let wanted = fs::read_to_string(requirements).with_context(|| format!("cannot read {}", requirements.display()))?;
    let stamp = folder.join("requirements.installed");
    if python.exists() && fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    let made = command(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder));
    made.context("python3 cannot make a virtual environment (on Debian and Ubuntu: `apt install python3-venv`)")?;
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"]).arg(requirements);
    command(&mut pip)?;
    fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))?;
    Ok(python)
}
