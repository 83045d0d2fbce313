// SPDX-License-Identifier: Apache-2.0
//! The command line: what there is to write, and where things are if nothing is written.

mod cluster;
pub mod dumps;
pub mod govern;
pub mod health;
pub mod logs;
mod orders;
pub mod plugin;
mod readings;
pub mod remote;
mod signals;
pub mod start;
mod state;
pub mod supervise;
pub mod table;
mod traces;
mod worker;

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::builder::FalseyValueParser;
use clap::{Args, Parser, Subcommand};

use crate::control::Places;
use govern::Govern;
use logs::Format;

/// Plugins of an installation that is not in one directory.
const SHARED_PLUGINS: &str = "/usr/share/penstock/plugins";

/// An AI gateway whose vendor adapters and policies are hot-loaded WebAssembly components.
#[derive(Debug, Parser)]
#[command(name = "penstock", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do; without it, `run`.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Flags of `run`.
    #[command(flatten)]
    pub flags: Flags,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve until told to stop.
    Run(Flags),
    /// Serve in a worker that is replaced when it fails, and by a new version of the program on SIGUSR2.
    Supervise(Flags),
    /// Serve as the worker of a supervisor; `supervise` runs this for itself.
    #[command(hide = true)]
    Work(Flags),
    /// Check policies and plugins as `run` would, and tell everything that is wrong.
    Check(Flags),
    /// Ask the gateway that runs with these policies on this machine whether it is ready; for health checks.
    Health(Flags),
    /// Virtual keys of a running gateway: list, create, rotate, disable, delete.
    Keys(Govern<govern::Keys>),
    /// Budgets of a running gateway.
    Budgets(Govern<govern::Budgets>),
    /// What was used at a running gateway.
    Usage(govern::Usage),
    /// Plugins of a running gateway: list, upload, activate, roll back.
    Plugins(Govern<govern::Plugins>),
    /// Policies of a running gateway: list, validate, reload.
    Policies(Govern<govern::Policies>),
    /// The nodes that share keys, policies and plugins with a running gateway.
    Cluster(remote::Remote),
    /// Make a plugin project, check a component, run its cases.
    #[command(subcommand)]
    Plugin(plugin::PluginCommand),
    /// Compile the component on standard input; the gateway runs this for itself.
    #[command(hide = true)]
    CompileComponent,
}

/// Where things are.
#[derive(Debug, Clone, Default, Args)]
pub struct Flags {
    /// Directory with policy files (*.toml, also in directories below), or one file. Without it: the built-in policies.
    #[arg(long, value_name = "DIR", env = "PENSTOCK_POLICIES")]
    pub policies: Option<PathBuf>,
    /// Directory with plugin files (*.wasm). Can be given several times; the last one wins. Without it: `../plugins` from
    /// the program, or /usr/share/penstock/plugins, and then `drop-in` in the state directory.
    #[arg(long, value_name = "DIR", env = "PENSTOCK_PLUGINS", value_delimiter = ':')]
    pub plugins: Vec<PathBuf>,
    /// Directory for what must survive a restart. Without it: `$XDG_STATE_HOME/penstock`, or `./var`.
    #[arg(long, value_name = "DIR", env = "PENSTOCK_STATE")]
    pub state: Option<PathBuf>,
    /// How the log is written: to a terminal as text, elsewhere as JSON. `RUST_LOG` says what is in it.
    #[arg(long, value_name = "FORMAT", env = "PENSTOCK_LOG", default_value = "auto")]
    pub log: Format,
    /// Let the kernel write an image of the process when it crashes. It has the keys in it.
    #[arg(long, env = "PENSTOCK_CORE_DUMPS", value_parser = FalseyValueParser::new())]
    pub core_dumps: bool,
}

impl Flags {
    /// The state directory.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        let of_user = || std::env::var_os("XDG_STATE_HOME").filter(|home| !home.is_empty());
        let default = || of_user().map_or_else(|| PathBuf::from("var"), |home| Path::new(&home).join("penstock"));
        self.state.clone().unwrap_or_else(default)
    }

    /// Where everything is.
    #[must_use]
    pub fn places(&self) -> Places {
        let state = self.state_dir();
        let (built_in, plugins) = if self.plugins.is_empty() {
            (built_in_plugins(), vec![state.join("drop-in")])
        } else {
            (None, self.plugins.clone())
        };
        Places { policies: self.policies.clone(), shared: None, built_in, plugins, state: Some(state) }
    }
}

/// The program that runs, by a name that leads to it even when another one has taken its place on the disk.
///
/// # Errors
/// It cannot be found.
pub(crate) fn program() -> anyhow::Result<PathBuf> {
    let linked = Path::new("/proc/self/exe");
    if linked.exists() {
        return Ok(linked.to_owned());
    }
    std::env::current_exe().context("cannot find the program itself")
}

fn built_in_plugins() -> Option<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|program| Some(program.parent()?.parent()?.join("plugins")));
    [beside, Some(PathBuf::from(SHARED_PLUGINS))].into_iter().flatten().find(|directory| directory.is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_are_understood_with_and_without_a_command() {
        for line in [
            "penstock --policies p --plugins a --plugins b --state s",
            "penstock run --policies p --plugins a:b --state s",
        ] {
            let cli = Cli::parse_from(line.split(' '));
            let flags = match cli.command {
                Some(Command::Run(flags)) => flags,
                _ => cli.flags,
            };
            let places = flags.places();
            assert_eq!(places.plugins, [Path::new("a"), Path::new("b")], "{line}");
            assert_eq!(
                (places.built_in, places.policies, places.state),
                (None, Some("p".into()), Some("s".into())),
                "{line}"
            );
        }
    }
}
