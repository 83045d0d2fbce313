// SPDX-License-Identifier: Apache-2.0
//! Runs the official SDKs against the gateway (tests/sdk): those for Python in a virtual environment of their own, those for
//! Node in a folder of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::up;
use crate::workspace::{Workspace, run as command};

/// Oldest version of Node that the SDKs run on.
const NODE_MIN: u32 = 20;

/// Runs the tests in `tests/sdk`; with names only those.
///
/// # Errors
/// When something does not build, the environment cannot be made, or a test fails.
pub(crate) fn run(workspace: &Workspace, tests: &[String]) -> anyhow::Result<()> {
    let folder = workspace.root.join("tests/sdk");
    let python = environment(workspace, "sdk-venv", &folder.join("requirements.txt"))?;
    let node_modules = node_modules(workspace, &folder.join("node"))?;
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
    if let Some(node_modules) = node_modules {
        unittest.env("PENSTOCK_NODE_MODULES", node_modules);
    }
    command(&mut unittest)
}

/// Makes an environment of this name, or finds it as it was made for the same list of packages.
///
/// # Errors
/// When it cannot be made.
pub(crate) fn environment(workspace: &Workspace, name: &str, requirements: &Path) -> anyhow::Result<PathBuf> {
    let folder = workspace.target.join(name);
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

/// Installs the SDKs for Node, or finds them as they were installed for the same list of packages. None without a Node that
/// they run on: the tests that need it say that they are left out.
fn node_modules(workspace: &Workspace, lists: &Path) -> anyhow::Result<Option<PathBuf>> {
    if version("node").is_none_or(|node| node < NODE_MIN) || version("npm").is_none() {
        return Ok(None);
    }
    let folder = workspace.target.join("sdk-node");
    let stamp = folder.join("installed.json");
    let lock = lists.join("package-lock.json");
    let wanted = fs::read_to_string(&lock).with_context(|| format!("cannot read {}", lock.display()))?;
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(Some(folder));
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for list in ["package.json", "package-lock.json"] {
        fs::copy(lists.join(list), folder.join(list)).with_context(|| format!("cannot copy {list}"))?;
    }
    let mut npm = Command::new("npm");
    // No package needs its scripts here, and what does not run does no harm.
    npm.args(["ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]).current_dir(&folder);
    command(&mut npm)?;
    fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))?;
    Ok(Some(folder))
}

/// The first number of a tool's version (`v20.1.0`); none if it is not there.
fn version(tool: &str) -> Option<u32> {
    let output = Command::new(tool).arg("--version").output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.trim().trim_start_matches('v').split('.').next()?.parse().ok()
}
