// SPDX-License-Identifier: Apache-2.0
//! From a fresh clone to a running gateway.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, bail};

use crate::plugins;
use crate::workspace::{self, Workspace};

/// Builds what is missing and becomes the gateway: signals reach it as if it had been started by hand.
///
/// # Errors
/// When a tool is missing or something does not build.
pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> anyhow::Result<()> {
    ensure_c_compiler()?;
    let binary = gateway(workspace)?;
    let drop_in = workspace.root.join("var/drop-in");
    std::fs::create_dir_all(&drop_in).with_context(|| format!("cannot make {}", drop_in.display()))?;
    let mut gateway = Command::new(binary);
    gateway.arg("run");
    for folder in [workspace.shipped_dir(), drop_in] {
        gateway.arg("--plugins").arg(folder);
    }
    gateway.args(arguments).current_dir(&workspace.root);
    replace_with(gateway)
}

/// The gateway's binary, and its plugins in the folder that ships: built now, unless `PENSTOCK_BIN` names one.
///
/// # Errors
/// When something does not build.
pub(crate) fn gateway(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    plugins::build(workspace)?;
    if let Some(named) = std::env::var_os("PENSTOCK_BIN") {
        return Ok(PathBuf::from(named));
    }
    workspace::run(&mut build_host(workspace))?;
    Ok(workspace.binary())
}

/// The cargo command that builds the gateway.
#[must_use]
pub(crate) fn build_host(workspace: &Workspace) -> Command {
    // Of the whole workspace, so that features are what they are for lints and tests, and the engine is compiled once.
    workspace.cargo(&["build", "--release", "--workspace", "--bin", "penstock"])
}

/// The TLS library has parts in C and assembler.
fn ensure_c_compiler() -> anyhow::Result<()> {
    let named = std::env::var("CC").ok();
    let candidates = named.as_deref().into_iter().chain(["cc", "gcc", "clang"]);
    for candidate in candidates {
        if Command::new(candidate).arg("--version").output().is_ok_and(|output| output.status.success()) {
            return Ok(());
        }
    }
    bail!(
        "no C compiler found (tried $CC, cc, gcc, clang); install one: `apt install gcc` on Debian and Ubuntu, \
         `dnf install gcc` on Fedora, `xcode-select --install` on macOS"
    )
}

#[cfg(unix)]
fn replace_with(mut command: Command) -> anyhow::Result<()> {
    use std::os::unix::process::CommandExt;
    let error = command.exec(); // comes back only when it failed
    bail!("cannot start {}: {error}", command.get_program().to_string_lossy())
}

#[cfg(not(unix))]
fn replace_with(mut command: Command) -> anyhow::Result<()> {
    workspace::run(&mut command)
}
