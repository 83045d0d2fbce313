// SPDX-License-Identifier: Apache-2.0
//! Attacks the gateway from without (tests/torture): smuggling, floods, slow clients, hostile bodies, and other people's suites.

use std::path::PathBuf;
use std::process::Command;

use crate::workspace::{Workspace, run as command};
use crate::{sdk, up};

/// Where attacks of others are looked for beside the repository; the variable names another folder.
const ATTACKS: (&str, &str) = ("PENSTOCK_ATTACKS", "../shared/attacks");

/// How much of it is run.
#[derive(Clone, Copy)]
pub(crate) enum Extent {
    /// What fits into two minutes, and needs nothing that must be installed.
    Fast,
    /// Everything for which there are tools.
    All,
}

/// Runs the set, prints a table of what was measured, and says what was left out and why.
///
/// # Errors
/// When something does not build, or a goal is missed.
pub(crate) fn run(workspace: &Workspace, extent: Extent) -> anyhow::Result<()> {
    let folder = workspace.root.join("tests/torture");
    let (python, extent) = match extent {
        Extent::Fast => (PathBuf::from("python3"), "fast"),
        Extent::All => (sdk::environment(workspace, "torture-venv", &folder.join("requirements.txt"))?, "all"),
    };
    let gateway = up::gateway(workspace)?;
    let (variable, beside) = ATTACKS;
    let attacks = std::env::var_os(variable).map_or_else(|| workspace.root.join(beside), PathBuf::from);
    let tools = "PENSTOCK_TORTURE_TOOLS";
    let tools_dir = std::env::var_os(tools).map_or_else(|| workspace.target.join("torture"), PathBuf::from);
    let mut torture = Command::new(python);
    torture
        .args(["run.py", extent])
        .current_dir(&folder)
        .env("PENSTOCK_BIN", gateway)
        .env("PENSTOCK_PLUGINS", workspace.shipped_dir())
        .env("PENSTOCK_TEST_PLUGINS", workspace.plugins_dir())
        .env(variable, attacks)
        .env(tools, tools_dir)
        .env("PYTHONDONTWRITEBYTECODE", "1");
    command(&mut torture)
}
