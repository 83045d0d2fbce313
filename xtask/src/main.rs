// SPDX-License-Identifier: Apache-2.0
//! The tasks of this repository, as `cargo xtask TASK`. Each task is a module; what two of them share is in `workspace`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a task talks to the person who started it")]

mod admin;
mod advisories;
mod bench;
mod capabilities;
mod conformance;
mod deploy;
mod docs;
mod fuzz;
mod plugins;
mod prices;
mod sdk;
mod suite;
mod tidy;
mod torture;
mod up;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use workspace::Workspace;

/// The tasks of this repository.
#[derive(Parser)]
#[command(name = "cargo xtask", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build plugins and host, then start the gateway.
    Up {
        /// What `penstock run` is given besides the plugin directory.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Everything that continuous integration checks.
    Test,
    /// Build every plugin; collect the components that ship in `target/plugins`, and all of them in `target/test-plugins`.
    Plugins,
    /// Check the rules of the house: headers, ceilings, layers, names.
    Tidy,
    /// Write docs/configuration.md from the doc comments of host/src/config.rs, and docs/capabilities.md.
    Docs,
    /// What a request costs, beside a bare hyper proxy of the same build.
    Bench(bench::Arguments),
    /// Decode recorded exchanges of real vendors, whole and cut at every byte, and compare with what is expected.
    Conformance(conformance::Arguments),
    /// Make policies/prices from LiteLLM's table of prices.
    Prices(prices::Arguments),
    /// Run the readers of foreign bytes under libFuzzer.
    Fuzz(fuzz::Arguments),
    /// Hold Cargo.lock to a copy of the `RustSec` advisory database.
    Advisories(advisories::Arguments),
    /// Hold the admin API to the OpenAPI document that it serves.
    Admin {
        /// Requests that are made up for each call.
        #[arg(long, default_value_t = 10)]
        examples: u32,
    },
    /// Hold the dashboards and alerts of deploy/ to a real Prometheus.
    Deploy,
    /// Attack the release build from without, as far as the tools can be had: smuggling, floods, slow clients, suites.
    Torture {
        /// Only what fits into two minutes, as `cargo xtask test` does.
        #[arg(long)]
        fast: bool,
    },
    /// Run the official Python and Node SDKs against the release build.
    Sdk {
        /// Names of test files or `file.Class.test`; none for all.
        tests: Vec<String>,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments.task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> anyhow::Result<()> {
    let workspace = Workspace::open()?;
    match task {
        Task::Up { arguments } => up::run(&workspace, &arguments),
        Task::Test => suite::run(&workspace),
        Task::Plugins => plugins::build(&workspace).map(|plugins| {
            for plugin in plugins {
                println!("{}", plugin.display());
            }
        }),
        Task::Tidy => tidy::run(&workspace.root),
        Task::Docs => {
            docs::write(&workspace.root)?;
            capabilities::write(&workspace.root, &capabilities::Shown::new())
        }
        Task::Bench(arguments) => bench::run(&workspace, &arguments),
        Task::Conformance(arguments) => conformance::run(&workspace, &arguments),
        Task::Prices(arguments) => prices::run(&workspace.root, &arguments),
        Task::Fuzz(arguments) => fuzz::run(&workspace, &arguments),
        Task::Advisories(arguments) => advisories::run(&workspace.root, &arguments),
        Task::Admin { examples } => admin::run(&workspace, examples),
        Task::Deploy => deploy::run(&workspace),
        Task::Torture { fast } => {
            torture::run(&workspace, if fast { torture::Extent::Fast } else { torture::Extent::All })
        }
        Task::Sdk { tests } => sdk::run(&workspace, &tests),
    }
}
