// SPDX-License-Identifier: Apache-2.0
//! `penstock plugin`: what authors of plugins need from the host. `new` writes a project, `check` passes a file through the
//! load gate, `test` runs golden cases with it; all three say how long each step took and exit with 1 if something fails.

mod check;
mod new;
mod sign;
mod test;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Subcommand, ValueEnum};

use crate::config::Sandbox;
use crate::plugin::{Compiler, Runtime, RuntimeOptions, self_test};

/// What authors of plugins can do.
#[derive(Debug, Subcommand)]
pub enum PluginCommand {
    /// Write a plugin project that builds and passes its tests.
    New {
        /// Name of the plugin: lower-case letters, digits and hyphens.
        name: String,
        /// What it is for.
        #[arg(long, value_enum)]
        kind: ProjectKind,
        /// Where to write it; a folder of its name in here by default.
        #[arg(long)]
        dir: Option<PathBuf>,
        /// The folder of penstock-sdk; found beside this program or above this folder by default, else taken from the
        /// package registry.
        #[arg(long)]
        sdk: Option<PathBuf>,
    },
    /// Pass a component through the load gate, and print each step with its time.
    Check {
        /// The component.
        file: PathBuf,
        /// Configuration to try, as a TOML file.
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Sign a component, for gateways whose policy lists the key.
    Sign {
        /// The component; a signature that it has is replaced.
        file: PathBuf,
        /// The private key, Ed25519 in PEM: `openssl genpkey -algorithm ed25519 -out plugins.pem`.
        #[arg(long)]
        key: PathBuf,
        /// Where to write it; in its own place by default.
        #[arg(long)]
        to: Option<PathBuf>,
    },
    /// Run golden cases with a component: those that it carries, and those of a folder.
    Test {
        /// The component.
        file: PathBuf,
        /// Folder with further cases.
        #[arg(long)]
        cases: Option<PathBuf>,
    },
}

/// Kinds of plugins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProjectKind {
    /// Speaks a vendor's API.
    Adapter,
    /// Decides who asks.
    Auth,
    /// Limits.
    Limits,
    /// Orders targets.
    Routing,
    /// Edits the heads of requests.
    Filter,
}

/// Runs a command. Blocks.
#[must_use]
pub fn run(command: PluginCommand) -> ExitCode {
    let mut out = std::io::stdout().lock();
    let done = match command {
        PluginCommand::New { name, kind, dir, sdk } => new::write(&name, kind, dir, sdk, &mut out),
        PluginCommand::Check { file, config } => {
            runtime(false).and_then(|runtime| check::run(&runtime, &file, config.as_deref(), &mut out))
        }
        PluginCommand::Sign { file, key, to } => sign::run(&file, &key, to.as_deref(), &mut out),
        PluginCommand::Test { file, cases } => {
            runtime(false).and_then(|runtime| test::run(&runtime, &file, cases.as_deref(), &mut out))
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            let _ = writeln!(std::io::stderr(), "{why}");
            ExitCode::FAILURE
        }
    }
}

/// A runtime as the gateway has it, without a cache; `check` wants to see how long compilation takes.
fn runtime(in_process: bool) -> Result<Arc<Runtime>, String> {
    let compiler = match std::env::current_exe() {
        Ok(executable) if !in_process => Compiler::Child(executable),
        _ => Compiler::InProcess,
    };
    let options = RuntimeOptions {
        sandbox: Sandbox::default(),
        cache_dir: None,
        compiler,
        self_test: Some(self_test::run_embedded),
    };
    Runtime::new(options).map_err(|error| format!("{error:#}"))
}

fn read(file: &std::path::Path) -> Result<Vec<u8>, String> {
    std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))
}

/// For `map_err` of a failed write to the standard output.
#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn unwritable(error: std::io::Error) -> String {
    format!("cannot write: {error}")
}

#[cfg(test)]
mod tests {
    use super::{ProjectKind, check, new, runtime};

    #[test]
    fn every_kind_has_a_project() {
        let folder = tempfile::tempdir().unwrap();
        for (index, kind) in
            [ProjectKind::Adapter, ProjectKind::Auth, ProjectKind::Limits, ProjectKind::Routing, ProjectKind::Filter]
                .into_iter()
                .enumerate()
        {
            let project = folder.path().join(format!("p{index}"));
            let mut out = Vec::new();
            new::write("rain-gauge", kind, Some(project.clone()), None, &mut out).unwrap();
            let manifest = std::fs::read_to_string(project.join("Cargo.toml")).unwrap();
            assert!(manifest.contains("name = \"rain-gauge\"") && manifest.contains("plugin-sdk\" }"), "{manifest}");
            let source = std::fs::read_to_string(project.join("src/lib.rs")).unwrap();
            assert!(source.contains("!(RainGauge);") && !source.contains("MyPlugin"), "{source}");
            assert!(std::fs::read_dir(project.join("cases")).unwrap().count() > 0);
            let text = String::from_utf8(out).unwrap();
            assert!(text.contains("cargo test"), "{text}");
            let again = new::write("rain-gauge", kind, Some(project), None, &mut Vec::new());
            assert!(again.unwrap_err().contains("exists"));
        }
    }

    #[test]
    fn a_name_that_cargo_or_the_gate_would_refuse_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["", "Rain", "rain gauge", "9rain", "rain_gauge", "-rain", "../rain"] {
            let dir = Some(folder.path().join("never"));
            assert!(new::write(name, ProjectKind::Auth, dir, None, &mut Vec::new()).is_err(), "{name}");
        }
    }

    #[test]
    fn a_file_that_is_no_component_fails_the_check_with_its_code() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("module.wasm");
        std::fs::write(&file, wat::parse_str("(module)").unwrap()).unwrap();
        let runtime = runtime(true).unwrap();
        let why = check::run(&runtime, &file, None, &mut Vec::new()).unwrap_err();
        assert!(why.contains("[core-module]"), "{why}");
    }
}
