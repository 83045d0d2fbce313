// SPDX-License-Identifier: Apache-2.0
//! Builds every plugin as a component and collects the files in one folder, from which the gateway can load them.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::workspace::{PluginCrate, Workspace, run};

/// What plugins are built for.
pub(crate) const TARGET: &str = "wasm32-wasip2";

/// Builds every crate under `plugins/` in one cargo call and answers with the files in `target/test-plugins`. Those that
/// ship are in `target/plugins`, too.
///
/// # Errors
/// When the target cannot be had, a plugin does not build, or a file cannot be written.
pub(crate) fn build(workspace: &Workspace) -> anyhow::Result<Vec<PathBuf>> {
    ensure_target()?;
    if !workspace.plugins.is_empty() {
        run(&mut command(workspace, &["build", "--quiet"]))?;
    }
    collect(workspace, &workspace.shipped_dir(), |plugin| plugin.ships)?;
    collect(workspace, &workspace.plugins_dir(), |_| true)
}

/// Puts the components that are wanted into a folder, and takes out those that are not.
fn collect(workspace: &Workspace, folder: &Path, wanted: fn(&PluginCrate) -> bool) -> anyhow::Result<Vec<PathBuf>> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let built = workspace.target.join(TARGET).join("plugin");
    let mut files = Vec::new();
    for plugin in workspace.plugins.iter().filter(|plugin| wanted(plugin)) {
        let to = folder.join(format!("{}.wasm", plugin.name));
        place(&built.join(format!("{}.wasm", plugin.library)), &to)?;
        files.push(to);
    }
    remove_leftovers(folder, &files)?;
    Ok(files)
}

/// A cargo command over all plugin crates, for their own target and profile.
#[must_use]
pub(crate) fn command(workspace: &Workspace, verb: &[&str]) -> Command {
    let mut command = workspace.cargo(verb);
    command.args(["--profile", "plugin", "--target", TARGET]);
    for plugin in &workspace.plugins {
        command.args(["--package", &plugin.name]);
    }
    command
}

/// Makes sure that rustc can build for [`TARGET`].
///
/// # Errors
/// When the target is missing and rustup is not there to add it.
pub(crate) fn ensure_target() -> anyhow::Result<()> {
    let output = Command::new("rustc").args(["--print", "target-libdir", "--target", TARGET]).output();
    let output = output.context("cannot start rustc: install Rust from https://rustup.rs")?;
    if output.status.success() && Path::new(String::from_utf8_lossy(&output.stdout).trim()).exists() {
        return Ok(());
    }
    let rustup = Command::new("rustup").args(["target", "add", TARGET]).status();
    match rustup {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => bail!("`rustup target add {TARGET}` failed ({status})"),
        Err(_) => bail!(
            "this Rust cannot build for {TARGET}, and rustup is not there to add it: install Rust from https://rustup.rs, \
             or your distribution's package of the standard library for {TARGET}"
        ),
    }
}

/// Puts a copy at `to` in one step, so that a gateway which watches the folder never reads half a file. A file that is
/// the same already stays untouched: no reload for nothing.
fn place(from: &Path, to: &Path) -> anyhow::Result<()> {
    let bytes = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    if fs::read(to).is_ok_and(|present| present == bytes) {
        return Ok(());
    }
    let aside = to.with_extension("wasm.tmp");
    fs::write(&aside, bytes).with_context(|| format!("cannot write {}", aside.display()))?;
    fs::rename(&aside, to).with_context(|| format!("cannot write {}", to.display()))
}

/// Removes components of crates that are gone: a gateway would load them still.
fn remove_leftovers(folder: &Path, files: &[PathBuf]) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension() == Some(OsStr::new("wasm")) && !files.contains(&path) {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_is_placed_whole_and_only_when_it_changed() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("a_b.wasm"), folder.path().join("a-b.wasm"));
        fs::write(&from, b"one").unwrap();
        place(&from, &to).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"one");
        let before = fs::metadata(&to).unwrap().modified().unwrap();
        place(&from, &to).unwrap();
        assert_eq!(fs::metadata(&to).unwrap().modified().unwrap(), before);
        fs::write(&from, b"two").unwrap();
        place(&from, &to).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"two");
        assert!(!folder.path().join("a-b.wasm.tmp").exists());
    }

    #[test]
    fn a_component_without_a_crate_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let kept = folder.path().join("kept.wasm");
        fs::write(&kept, b"x").unwrap();
        fs::write(folder.path().join("gone.wasm"), b"x").unwrap();
        fs::write(folder.path().join("note.txt"), b"x").unwrap();
        remove_leftovers(folder.path(), &[kept]).unwrap();
        let mut left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["kept.wasm", "note.txt"]);
    }
}
