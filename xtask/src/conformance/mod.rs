// SPDX-License-Identifier: Apache-2.0
//! Decodes recorded exchanges of real vendors and compares them with what an independent decoder has read (expected.json):
//! whole, and cut at every byte. With `--relay` they go through the gateway, too, and must come out byte for byte.
//!
//! Nothing is hidden: what fails is listed with its reason, so is what differs on purpose, and what no independent decoder has
//! read is counted.

mod abilities;
mod case;
mod faults;
mod gateway;
mod prices;
mod reader;
mod reading;
mod relay;
mod requests;
mod sockets;
mod splits;
mod upstream;
mod wire;

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::bail;
use case::Case;
use reader::Reader;

use crate::workspace::Workspace;

/// What to check.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Folder of recorded exchanges: `VENDOR/CASE/` folders, or a folder that has them in `open/`.
    pub(crate) folder: PathBuf,
    /// Send each exchange through the gateway, too, and compare the bytes; builds plugins and host.
    #[arg(long)]
    pub(crate) relay: bool,
    /// Note in docs/capabilities.md what the recordings show.
    #[arg(long)]
    pub(crate) write: bool,
    /// Print at most so many failures.
    #[arg(long, default_value_t = 500)]
    pub(crate) failures: usize,
}

/// One thing that is not as expected.
#[derive(Debug, PartialEq, Eq)]
struct Failure {
    /// Which check found it.
    check: &'static str,
    /// Expected and found.
    reason: String,
    /// The difference is meant, and the reason says why. It is printed and does not fail the exchange.
    meant: bool,
}

impl Failure {
    fn new(check: &'static str, reason: impl Into<String>) -> Self {
        Self { check, reason: reason.into(), meant: false }
    }

    fn meant(check: &'static str, reason: impl Into<String>) -> Self {
        Self { check, reason: reason.into(), meant: true }
    }
}

/// How many exchanges of a vendor passed, and what failed.
#[derive(Default)]
struct Tally {
    passed: usize,
    failed: usize,
    noted: usize,
    cuts: usize,
    relayed: usize,
}

/// Checks every exchange in a folder and prints a table.
///
/// # Errors
/// When an exchange fails or the folder has none.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<()> {
    let open = arguments.folder.join("open");
    let folder = if open.is_dir() { open } else { arguments.folder.clone() };
    let cases = case::read(&folder)?;
    if cases.is_empty() {
        bail!("{} has no recorded exchanges", folder.display());
    }
    let mut uncovered = BTreeMap::<String, usize>::new();
    let mut tallies = BTreeMap::<&str, Tally>::new();
    let mut relayed =
        if arguments.relay { relay::run(workspace, &cases, &case::transcripts(&folder)?)? } else { BTreeMap::new() };
    let mut shown = 0;
    for case in &cases {
        let Some(reader) = Reader::of(case) else {
            *uncovered.entry(case.kind()).or_default() += 1;
            continue;
        };
        let tally = tallies.entry(&case.vendor).or_default();
        let mut failures = check(case, reader, tally);
        if let Some(result) = relayed.remove(&case.name) {
            tally.relayed += 1;
            failures.extend(result.err());
        }
        count(tally, case, &failures, &mut shown, arguments.failures);
    }
    // What has no codec may be relayed all the same (embeddings, token counts).
    let broken: Vec<_> =
        relayed.iter().filter_map(|(name, result)| result.as_ref().err().map(|it| (name, it))).collect();
    for (name, failure) in &broken {
        println!("FAILED {name}: {}: {}", failure.check, failure.reason);
    }
    print(&tallies, &uncovered, relayed.len() - broken.len());
    let unlike = prices::print(&prices::check(&cases, &prices::table(&workspace.root)?));
    let denied = abilities::check(workspace, &cases, arguments.write)?;
    let failed = tallies.values().map(|tally| tally.failed).sum::<usize>() + broken.len() + unlike + denied;
    if failed > 0 {
        bail!("{failed} exchanges failed");
    }
    Ok(())
}

fn check(case: &Case, reader: Reader, tally: &mut Tally) -> Vec<Failure> {
    let mut failures = reader.codec().map_or_else(Vec::new, |codec| requests::check(case, codec));
    if case.status >= 400 {
        failures.extend(faults::check(case, reader));
        return failures;
    }
    failures.extend(reading::check(case, reader));
    if case.streamed {
        tally.cuts += case.body.len().saturating_sub(1);
        failures.extend(splits::check(&case.body, reader));
    }
    failures
}

fn count(tally: &mut Tally, case: &Case, failures: &[Failure], shown: &mut usize, failures_max: usize) {
    match failures.iter().all(|failure| failure.meant) {
        true => tally.passed += 1,
        false => tally.failed += 1,
    }
    tally.noted += usize::from(failures.iter().any(|failure| failure.meant));
    for failure in failures {
        *shown += 1;
        if *shown <= failures_max {
            let word = if failure.meant { "noted" } else { "FAILED" };
            println!("{word} {}: {}: {}", case.name, failure.check, failure.reason);
        }
    }
}

fn print(tallies: &BTreeMap<&str, Tally>, uncovered: &BTreeMap<String, usize>, others: usize) {
    println!("{:16} {:>7} {:>7} {:>7} {:>10} {:>8}", "vendor", "passed", "failed", "noted", "cuts", "relayed");
    let mut all = Tally::default();
    for (vendor, tally) in tallies {
        row(vendor, tally);
        all.passed += tally.passed;
        all.failed += tally.failed;
        all.noted += tally.noted;
        all.cuts += tally.cuts;
        all.relayed += tally.relayed;
    }
    row("all", &all);
    if others > 0 {
        println!("\nrelayed without a codec: {others}");
    }
    if !uncovered.is_empty() {
        println!(
            "\nwithout an independent decoding to compare with (expected.json); their codecs have tests of their own:"
        );
        for (kind, count) in uncovered {
            println!("{count:7}  {kind}");
        }
    }
}

fn row(name: &str, tally: &Tally) {
    println!("{name:16} {:7} {:7} {:7} {:10} {:8}", tally.passed, tally.failed, tally.noted, tally.cuts, tally.relayed);
}
