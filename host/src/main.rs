// SPDX-License-Identifier: Apache-2.0
//! The `penstock` command.

use std::process::ExitCode;

use clap::Parser;
use penstock::cli::health::health;
use penstock::cli::start::{Started, check};
use penstock::cli::{Cli, Command, Flags, logs};
use penstock::plugin::compile::compile_component_child;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let (flags, command): (Flags, fn(&Flags) -> anyhow::Result<ExitCode>) = match cli.command {
        Some(Command::CompileComponent) => return compile_component_child(),
        Some(Command::Plugin(command)) => return penstock::cli::plugin::run(command),
        Some(Command::Check(flags)) => (flags, check),
        Some(Command::Health(flags)) => (flags, health),
        Some(Command::Run(flags)) => (flags, run),
        None => (cli.flags, run),
    };
    logs::start(flags.log);
    command(&flags).unwrap_or_else(|error| {
        tracing::error!("{error:#}");
        ExitCode::FAILURE
    })
}

fn run(flags: &Flags) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let started = Started::new(flags).await?;
        started.announce();
        let drained = started.serve().await?;
        tracing::info!(cut = drained.cut, "stopped");
        Ok(ExitCode::SUCCESS)
    })
}
