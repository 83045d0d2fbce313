// SPDX-License-Identifier: Apache-2.0
//! Builds plugins and benchmark for release, and runs it. What is measured is in `host/benches/cost`.

use clap::Args;

use crate::plugins;
use crate::workspace::{self, Workspace};

/// What the benchmark is told.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// A smoke test of half a minute; its numbers mean little.
    #[arg(long)]
    quick: bool,
    /// Count instructions, too, with valgrind, which takes minutes.
    #[arg(long)]
    instructions: bool,
    /// Only the scenarios with this in their name.
    #[arg(long)]
    only: Option<String>,
    /// Write docs/benchmarks.md.
    #[arg(long)]
    write: bool,
}

/// Runs the benchmark.
///
/// # Errors
/// When something does not build, or a scenario fails.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<()> {
    plugins::build(workspace)?;
    let mut bench = workspace.cargo(&["bench", "--quiet", "--package", "penstock", "--bench", "cost", "--"]);
    // An incremental build is cut into more pieces, which are optimised less.
    bench.env("CARGO_INCREMENTAL", "0").env("PENSTOCK_PLUGINS", workspace.plugins_dir());
    bench.args(arguments.quick.then_some("--quick")).args(arguments.instructions.then_some("--instructions"));
    if let Some(part) = &arguments.only {
        bench.args(["--only", part]);
    }
    if arguments.write {
        bench.arg("--write").arg(workspace.root.join("docs/benchmarks.md"));
    }
    workspace::run(&mut bench)
}
