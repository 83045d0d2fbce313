// SPDX-License-Identifier: Apache-2.0
//! What the gateway costs, beside a bare hyper proxy of the same build in the same run: `cargo xtask bench`.
//!
//! Every role (upstream, baseline, gateway) is a process of its own, so that CPU time is told apart; this process makes the load. The two
//! proxies take turns, round by round, and what is compared are medians: the machine's moods hit both.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark talks to the person who started it")]
#![allow(unreachable_pub, reason = "a benchmark is no library")]

mod baseline;
mod gateway;
mod instructions;
mod load;
mod measure;
mod process;
mod redis;
mod report;
mod scenarios;
mod upstream;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};

use measure::Effort;

/// As in `penstock` itself; the baseline has it, too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What a person can ask for.
#[derive(Debug, Default)]
struct Options {
    /// cargo says so in `cargo bench`; without it this is a test run of all targets, where nothing is measured.
    bench: bool,
    quick: bool,
    instructions: bool,
    only: Option<String>,
    write: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut options = Options::default();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--bench" => options.bench = true,
            "--quick" => options.quick = true,
            "--instructions" => options.instructions = true,
            "--only" => options.only = Some(arguments.next().context("--only wants a part of a scenario's name")?),
            "--write" => options.write = Some(arguments.next().context("--write wants a file")?.into()),
            "role" => {
                return role(&arguments.next().unwrap_or_default(), arguments.next(), arguments.next());
            }
            other => bail!("unknown argument {other:?}; known: --quick, --instructions, --only NAME, --write FILE"),
        }
    }
    if options.bench { bench(&options) } else { Ok(()) }
}

/// Becomes one of the processes that are measured, until standard input ends.
fn role(name: &str, upstream: Option<String>, redis: Option<String>) -> anyhow::Result<()> {
    let address = || -> anyhow::Result<SocketAddr> { Ok(upstream.context("this role wants an upstream")?.parse()?) };
    match name {
        "upstream" => process::serve(1, upstream::serve),
        "baseline" => {
            let address = address()?;
            process::serve(process::WORKERS, move |listening| baseline::serve(address, listening))
        }
        "gateway" => {
            let address = address()?;
            process::serve(process::WORKERS, move |listening| gateway::serve(address, redis, listening))
        }
        other => bail!("no role {other:?}"),
    }
}

fn bench(options: &Options) -> anyhow::Result<()> {
    let effort = if options.quick { Effort::QUICK } else { Effort::FULL };
    let scenarios = scenarios::all();
    let chosen: Vec<_> = scenarios
        .iter()
        .filter(|scenario| options.only.as_deref().is_none_or(|part| scenario.name.contains(part)))
        .collect();
    let measured = measure::all(&chosen, effort)?;
    let instructions = if options.instructions { instructions::all(&chosen) } else { Vec::new() };
    let report = report::Report { effort, measured, instructions };
    print!("{}", report.text());
    if let Some(file) = &options.write {
        report.write(file).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}
