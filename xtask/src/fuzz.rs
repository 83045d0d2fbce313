// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask fuzz`: every reader of foreign bytes under libFuzzer, with the address sanitizer, for some time each. It needs
//! the nightly toolchain, and leaves what it has learnt in `fuzz/corpus`, what breaks a reader in `fuzz/artifacts`.

use std::fs;
use std::process::Command;

use anyhow::{Context, bail};
use penstock_fuzz::{TARGETS, Target};

use crate::workspace::{Workspace, run as command};

/// What libFuzzer asks of the compiler: coverage of edges and of what is compared.
const RUSTFLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                         -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
                         -Cllvm-args=-sanitizer-coverage-trace-compares -Zsanitizer=address -Cforce-frame-pointers=yes";
/// Largest input, in bytes: bugs of readers are small.
const INPUT_BYTES_MAX: u32 = 4096;
/// An input that takes longer is a finding.
const SECONDS_MAX: u32 = 5;
/// Memory of one fuzzer, in MiB.
const MEMORY_MAX: u32 = 2048;
/// Sanitized code is native code of this machine.
const HOST: &str = "x86_64-unknown-linux-gnu";

/// What to fuzz, and for how long.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Names of targets; none for all.
    targets: Vec<String>,
    /// Seconds for each target.
    #[arg(long, default_value_t = 600)]
    seconds: u32,
    /// Fuzzers at a time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// The readers of the host itself, too: the plugin engine is built for that, which takes long.
    #[arg(long)]
    host: bool,
}

/// Fuzzes the targets, one after another or a few at a time, and prints what came of each.
///
/// # Errors
/// A target was broken, is not known, or cannot be built.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<()> {
    const OF_THE_HOST: [&str; 2] = ["head", "policy"];
    let is_wanted = |target: &&Target| {
        let built = arguments.host || !OF_THE_HOST.contains(&target.name);
        built && (arguments.targets.is_empty() || arguments.targets.iter().any(|name| name == target.name))
    };
    if let Some(unknown) = arguments.targets.iter().find(|name| TARGETS.iter().all(|target| target.name != **name)) {
        let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
        bail!("no target is named {unknown}; there are {}", names.join(", "));
    }
    let targets: Vec<&Target> = TARGETS.iter().filter(is_wanted).collect();
    let program = build(workspace, arguments.host)?;
    let mut broken = Vec::new();
    for group in targets.chunks(arguments.jobs.max(1)) {
        let begun = group.iter().map(|target| begin(workspace, &program, target, arguments.seconds));
        let begun = begun.collect::<anyhow::Result<Vec<_>>>()?;
        for (target, mut fuzzer) in group.iter().zip(begun) {
            let status = fuzzer.wait().with_context(|| target.name)?;
            println!("{}: {}", target.name, if status.success() { "nothing found" } else { "BROKEN" });
            if !status.success() {
                broken.push(target.name);
            }
        }
    }
    if broken.is_empty() {
        println!("{} targets, {} s each: nothing found", targets.len(), arguments.seconds);
        return Ok(());
    }
    bail!(
        "broken: {}; the inputs are in fuzz/artifacts, and what was said of them in fuzz/artifacts/NAME.log",
        broken.join(", ")
    )
}

/// Builds the program that runs them, and answers with its path.
fn build(workspace: &Workspace, host: bool) -> anyhow::Result<std::path::PathBuf> {
    let folder = workspace.root.join("fuzz/libfuzzer");
    let target = workspace.target.join("fuzz");
    let mut cargo = Command::new("cargo");
    cargo.args(["+nightly", "build", "--release", "--target", HOST]).current_dir(&folder);
    cargo.args(host.then_some(["--features", "host"]).into_iter().flatten());
    cargo.env("RUSTFLAGS", RUSTFLAGS).env("CARGO_TARGET_DIR", &target).env_remove("RUSTUP_TOOLCHAIN");
    command(&mut cargo).context("the nightly toolchain is needed: rustup toolchain install nightly")?;
    Ok(target.join(HOST).join("release/penstock-libfuzzer"))
}

fn begin(
    workspace: &Workspace,
    program: &std::path::Path,
    target: &Target,
    seconds: u32,
) -> anyhow::Result<std::process::Child> {
    let folder = workspace.root.join("fuzz");
    let (corpus, artifacts) = (folder.join("corpus").join(target.name), folder.join("artifacts"));
    fs::create_dir_all(&corpus)?;
    fs::create_dir_all(&artifacts)?;
    for (index, seed) in target.seeds.iter().enumerate() {
        fs::write(corpus.join(format!("seed-{index}")), seed)?;
    }
    let said = fs::File::create(artifacts.join(format!("{}.log", target.name)))?;
    let mut fuzzer = Command::new(program);
    fuzzer.arg(&corpus).arg(format!("-max_total_time={seconds}")).arg(format!("-max_len={INPUT_BYTES_MAX}"));
    fuzzer.arg(format!("-timeout={SECONDS_MAX}")).arg(format!("-rss_limit_mb={MEMORY_MAX}"));
    fuzzer.arg(format!("-artifact_prefix={}/{}-", artifacts.display(), target.name));
    fuzzer.env("PENSTOCK_FUZZ_TARGET", target.name).stdout(said.try_clone()?).stderr(said);
    fuzzer.spawn().with_context(|| program.display().to_string())
}
