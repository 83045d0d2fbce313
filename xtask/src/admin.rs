// SPDX-License-Identifier: Apache-2.0
//! Holds the admin API to the OpenAPI document that it serves, with schemathesis in a virtual environment of its own.

use std::process::Command;

use crate::workspace::{Workspace, run as command};
use crate::{sdk, up};

/// Runs `tests/admin/check.py`, with so many examples for each call.
///
/// # Errors
/// When something does not build, the environment cannot be made, or an answer is not as the document says.
pub(crate) fn run(workspace: &Workspace, examples: u32) -> anyhow::Result<()> {
    let folder = workspace.root.join("tests/admin");
    let python = sdk::environment(workspace, "admin-venv", &folder.join("requirements.txt"))?;
    let gateway = up::gateway(workspace)?;
    let mut check = Command::new(python);
    check
        .arg(folder.join("check.py"))
        .arg(examples.to_string())
        .env("PENSTOCK_BIN", gateway)
        .env("PENSTOCK_PLUGINS", workspace.shipped_dir())
        .env("PYTHONDONTWRITEBYTECODE", "1");
    command(&mut check)
}
