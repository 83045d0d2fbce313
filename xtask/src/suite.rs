// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask test`: everything that continuous integration checks, in the order of what fails fastest. All native code
//! is built in one profile, so that the engine is compiled once for lints, tests and the gateway itself.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::bail;

use crate::workspace::{Workspace, run as command};
use crate::{admin, advisories, conformance, deploy, plugins, sdk, tidy, up};

/// Where recorded exchanges are looked for beside the repository; the variable names another folder.
const FIXTURES: (&str, &str) = ("PENSTOCK_FIXTURES", "../shared/fixtures");

/// Names a copy of <https://github.com/rustsec/advisory-db>.
const ADVISORIES: &str = "PENSTOCK_ADVISORY_DB";

/// How a step went.
enum Outcome {
    Passed,
    Failed(String),
    Skipped(String),
}

/// A named step of the run. Steps are independent: one that fails does not hide what the others have to say.
type Step = (&'static str, fn(&Workspace) -> anyhow::Result<Outcome>);

const STEPS: &[Step] = &[
    ("format", format),
    ("tidy", |workspace| passed(tidy::run(&workspace.root))),
    ("advisories", known_advisories),
    ("lints", lints),
    ("plugins", |workspace| passed(plugins::build(workspace).map(|_| ()))),
    ("plugin lints", plugin_lints),
    ("documentation", documentation),
    ("host", |workspace| passed(command(&mut up::build_host(workspace)))),
    ("tests", tests),
    ("tests in time", tests_in_time),
    ("conformance", recorded_exchanges),
    ("admin API", admin_api),
    ("dashboards", dashboards),
    ("SDKs", official_sdks),
];

/// Runs every step and prints how each went and how long it took.
///
/// # Errors
/// When a step has failed.
pub(crate) fn run(workspace: &Workspace) -> anyhow::Result<()> {
    let mut results = Vec::new();
    for (name, step) in STEPS {
        println!("\n=== {name}");
        let begin = Instant::now();
        let outcome = step(workspace).unwrap_or_else(|error| Outcome::Failed(format!("{error:#}")));
        if let Outcome::Failed(reason) = &outcome {
            eprintln!("{name} failed: {reason}");
        }
        results.push((*name, outcome, begin.elapsed()));
    }
    print_summary(&results);
    let failed = results.iter().filter(|(_, outcome, _)| matches!(outcome, Outcome::Failed(_))).count();
    if failed > 0 {
        bail!("{failed} of {} steps failed", results.len());
    }
    Ok(())
}

fn format(workspace: &Workspace) -> anyhow::Result<Outcome> {
    passed(command(&mut workspace.cargo(&["fmt", "--all", "--check"])))
}

/// Only where somebody has a copy of the database: it grows each day, and tests need no network.
fn known_advisories(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let Some(db) = std::env::var_os(ADVISORIES).map(PathBuf::from) else {
        return Ok(Outcome::Skipped(format!("no advisory database ({ADVISORIES}); see docs/reliability.md")));
    };
    passed(advisories::run(&workspace.root, &advisories::Arguments { db }))
}

fn lints(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let arguments = ["clippy", "--quiet", "--release", "--workspace", "--all-targets", "--", "-D", "warnings"];
    passed(command(&mut workspace.cargo(&arguments)))
}

/// What is compiled only for wasm32 is not seen by the native lints.
fn plugin_lints(workspace: &Workspace) -> anyhow::Result<Outcome> {
    plugins::ensure_target()?;
    if workspace.plugins.is_empty() {
        return Ok(Outcome::Passed);
    }
    passed(command(plugins::command(workspace, &["clippy", "--quiet"]).args(["--", "-D", "warnings"])))
}

/// The crates that people read: links must lead somewhere. Private items are shown, so links to them are fine.
fn documentation(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let mut doc = workspace.cargo(&["doc", "--quiet", "--release", "--no-deps", "--document-private-items"]);
    doc.args(["--package", "penstock", "--package", "penstock-dialects", "--package", "penstock-sdk"]);
    passed(command(doc.env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links")))
}

/// Tests of promises in seconds: they run alone, so that the machine is theirs.
const IN_TIME: &str = "command::plugins_come";

fn tests(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let mut test =
        workspace.cargo(&["test", "--quiet", "--release", "--workspace", "--no-fail-fast", "--", "--skip", IN_TIME]);
    passed(command(test.env("PENSTOCK_PLUGINS", workspace.plugins_dir())))
}

fn tests_in_time(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let mut test = workspace.cargo(&["test", "--quiet", "--release", "--workspace", "--test", "it", "--", IN_TIME]);
    passed(command(test.env("PENSTOCK_PLUGINS", workspace.plugins_dir())))
}

fn recorded_exchanges(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let (variable, beside) = FIXTURES;
    let named = std::env::var_os(variable).map(PathBuf::from);
    let folder = named.unwrap_or_else(|| workspace.root.join(beside));
    if !folder.join("open").is_dir() {
        return Ok(Outcome::Skipped(format!("no recorded exchanges in {} (set {variable})", folder.display())));
    }
    passed(conformance::run(workspace, &conformance::Arguments { folder, relay: true, write: false, failures: 20 }))
}

fn admin_api(workspace: &Workspace) -> anyhow::Result<Outcome> {
    /// Requests that are made up for each call.
    const EXAMPLES: u32 = 5;
    if !python_is_there() {
        let reason = "python3 is not installed, so the admin API was NOT held to its document".to_owned();
        return Ok(if std::env::var_os("CI").is_some() { Outcome::Failed(reason) } else { Outcome::Skipped(reason) });
    }
    passed(admin::run(workspace, EXAMPLES))
}

fn dashboards(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let missing = deploy::missing().or_else(|| (!python_is_there()).then_some("python3"));
    if let Some(missing) = missing {
        return Ok(Outcome::Skipped(format!("{missing} is not installed, so dashboards and alerts were NOT checked")));
    }
    passed(deploy::run(workspace))
}

fn official_sdks(workspace: &Workspace) -> anyhow::Result<Outcome> {
    if !python_is_there() {
        let reason = "python3 is not installed, so the official SDKs were NOT tested".to_owned();
        // Continuous integration installs python first; without it, it would pass by testing less.
        return Ok(if std::env::var_os("CI").is_some() { Outcome::Failed(reason) } else { Outcome::Skipped(reason) });
    }
    passed(sdk::run(workspace, &[]))
}

fn python_is_there() -> bool {
    Command::new("python3").arg("--version").output().is_ok_and(|output| output.status.success())
}

fn passed(result: anyhow::Result<()>) -> anyhow::Result<Outcome> {
    result.map(|()| Outcome::Passed)
}

fn print_summary(results: &[(&str, Outcome, Duration)]) {
    println!("\n=== summary");
    for (name, outcome, took) in results {
        let (word, reason) = match outcome {
            Outcome::Passed => ("passed", ""),
            Outcome::Failed(reason) => ("FAILED", reason.lines().next().unwrap_or_default()),
            Outcome::Skipped(reason) => ("SKIPPED", reason.as_str()),
        };
        println!("{name:14} {word:8} {:7.1} s  {reason}", took.as_secs_f64());
    }
}
