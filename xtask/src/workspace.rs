// SPDX-License-Identifier: Apache-2.0
//! Where things are in this repository, and how to start a command in it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use serde_json::Value;

/// The repository as cargo sees it.
pub(crate) struct Workspace {
    /// Folder of the repository.
    pub root: PathBuf,
    /// Folder of build products, wherever the caller has put it.
    pub target: PathBuf,
    /// The crates under `plugins/`.
    pub plugins: Vec<PluginCrate>,
}

/// A crate that becomes a component.
pub(crate) struct PluginCrate {
    /// Name of the crate, and of the component's file: `openai-compatible`.
    pub name: String,
    /// Name of what cargo builds, without suffix: `openai_compatible`.
    pub library: String,
    /// Whether it is part of what a gateway is given; those under `plugins/testing` are for the host's tests alone.
    pub(crate) ships: bool,
}

impl Workspace {
    /// Asks cargo.
    ///
    /// # Errors
    /// When cargo cannot read the workspace.
    pub(crate) fn open() -> anyhow::Result<Self> {
        // cargo sets the variable when it runs this binary; a copy that is started by hand uses the folder it was built in.
        let manifest = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").to_owned());
        let root = Path::new(&manifest).parent().context("xtask lies in a folder of the repository")?.to_path_buf();
        let output = Command::new(cargo())
            .args(["metadata", "--format-version=1", "--no-deps"])
            .current_dir(&root)
            .output()
            .context("cannot start cargo")?;
        if !output.status.success() {
            bail!("cargo metadata failed:\n{}", String::from_utf8_lossy(&output.stderr));
        }
        let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata is not JSON")?;
        let target = metadata["target_directory"].as_str().context("cargo metadata names no target directory")?;
        Ok(Self { target: PathBuf::from(target), plugins: plugin_crates(&metadata, &root), root })
    }

    /// The folder where the components are collected that ship with the gateway.
    #[must_use]
    pub(crate) fn shipped_dir(&self) -> PathBuf {
        self.target.join("plugins")
    }

    /// The folder where all components are collected, those for tests included.
    #[must_use]
    pub(crate) fn plugins_dir(&self) -> PathBuf {
        self.target.join("test-plugins")
    }

    /// The gateway's release build.
    #[must_use]
    pub(crate) fn binary(&self) -> PathBuf {
        self.target.join("release").join(format!("penstock{}", std::env::consts::EXE_SUFFIX))
    }

    /// cargo with these arguments, in the repository.
    #[must_use]
    pub(crate) fn cargo(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(cargo());
        command.args(arguments).current_dir(&self.root).env("CARGO_TARGET_DIR", &self.target);
        // `cargo run` tells this task about its own package. Build scripts that look at such a variable (that of `ring` does)
        // would run again, and all that depends on them, each time that cargo is called with and without it.
        let ours = |name: &&str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
        for (name, _) in std::env::vars_os() {
            if name.to_str().as_ref().is_some_and(ours) {
                command.env_remove(name);
            }
        }
        command
    }
}

/// Runs a command to its end.
///
/// # Errors
/// When it cannot be started or fails.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let shown = shown(command);
    let status = command.status().with_context(|| format!("cannot start `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` failed ({status})");
    }
    Ok(())
}

/// The command as a person would type it.
fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_stem().unwrap_or(command.get_program());
    std::iter::once(program).chain(command.get_args()).map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// The cargo that runs this task, so that the toolchain is the same.
fn cargo() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned())
}

fn plugin_crates(metadata: &Value, root: &Path) -> Vec<PluginCrate> {
    let folder = root.join("plugins");
    let packages = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut crates: Vec<_> = packages
        .iter()
        .filter(|package| package["manifest_path"].as_str().is_some_and(|path| Path::new(path).starts_with(&folder)))
        .filter_map(|package| {
            let targets = package["targets"].as_array()?;
            let library = targets.iter().find(|target| has_kind(target, "cdylib"))?;
            Some(PluginCrate {
                name: package["name"].as_str()?.to_owned(),
                library: library["name"].as_str()?.to_owned(),
                ships: !Path::new(package["manifest_path"].as_str()?).starts_with(folder.join("testing")),
            })
        })
        .collect();
    crates.sort_by(|a, b| a.name.cmp(&b.name));
    crates
}

fn has_kind(target: &Value, kind: &str) -> bool {
    target["kind"].as_array().is_some_and(|kinds| kinds.iter().any(|it| it == kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_components_below_plugins_count() {
        let cdylib = json!([{"name": "a_b", "kind": ["cdylib", "lib"]}]);
        let metadata = json!({"packages": [
            {"name": "a-b", "manifest_path": "/r/plugins/adapters/a-b/Cargo.toml", "targets": cdylib},
            {"name": "bad", "manifest_path": "/r/plugins/testing/bad/Cargo.toml", "targets": cdylib},
            {"name": "shared", "manifest_path": "/r/plugins/shared/Cargo.toml", "targets": [{"name": "shared", "kind": ["lib"]}]},
            {"name": "host", "manifest_path": "/r/host/Cargo.toml", "targets": cdylib},
        ]});
        let crates = plugin_crates(&metadata, Path::new("/r"));
        let found: Vec<_> = crates.iter().map(|it| (it.name.as_str(), it.library.as_str(), it.ships)).collect();
        assert_eq!(found, [("a-b", "a_b", true), ("bad", "a_b", false)]);
    }
}
