// SPDX-License-Identifier: Apache-2.0
//! The `penstock` command.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use penstock::cli::health::health;
use penstock::cli::start::{Started, check};
use penstock::cli::supervise::supervise;
use penstock::cli::{Cli, Command, Flags, dumps, govern, logs};
use penstock::listener::Inherited;
use penstock::plugin::compile::compile_component_child;

/// A request allocates some two hundred times, in one thread and freed in another as often as not.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let (flags, command): (Flags, fn(&Flags) -> anyhow::Result<ExitCode>) = match cli.command {
        Some(Command::CompileComponent) => return compile_component_child(),
        Some(Command::Plugin(command)) => return penstock::cli::plugin::run(command),
        Some(Command::Keys(command)) => return told(govern::keys(&command)),
        Some(Command::Budgets(command)) => return told(govern::budgets(&command)),
        Some(Command::Usage(command)) => return told(govern::usage(&command)),
        Some(Command::Plugins(command)) => return told(govern::plugins(&command)),
        Some(Command::Policies(command)) => return told(govern::policies(&command)),
        Some(Command::Cluster(remote)) => return told(govern::cluster(&remote)),
        Some(Command::Check(flags)) => (flags, check),
        Some(Command::Health(flags)) => (flags, health),
        Some(Command::Run(flags)) => (flags, |flags| run(flags, false)),
        Some(Command::Work(flags)) => (flags, |flags| run(flags, true)),
        Some(Command::Supervise(flags)) => (flags, supervise),
        None => (cli.flags, |flags| run(flags, false)),
    };
    logs::start(flags.log);
    if !flags.core_dumps
        && let Err(error) = dumps::forbid()
    {
        tracing::warn!("images of the memory cannot be forbidden: {error}");
    }
    command(&flags).unwrap_or_else(|error| {
        tracing::error!("{error:#}");
        ExitCode::FAILURE
    })
}

/// What came of a command about a running gateway; an error is for people.
fn told(outcome: anyhow::Result<ExitCode>) -> ExitCode {
    outcome.unwrap_or_else(|error| {
        let _ = writeln!(std::io::stderr(), "error: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(flags: &Flags, is_worker: bool) -> anyhow::Result<ExitCode> {
    // Before there are threads: it reads the environment and changes it.
    let inherited = Inherited::from_env().context("the sockets that were handed over")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let started = Started::new(flags, inherited, is_worker).await?;
        started.announce();
        let drained = started.serve().await?;
        tracing::info!(cut = drained.cut, "stopped");
        Ok(ExitCode::SUCCESS)
    })
}
