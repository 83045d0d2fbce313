// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask fuzz`: every reader of foreign bytes under libFuzzer, with the address sanitizer, for some time each. It needs
//! the nightly toolchain, and leaves what it has learnt in `fuzz/corpus`, what breaks a reader in `fuzz/artifacts`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, bail};

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

/// Fuzzes the targets, a few at a time, and prints what came of each.
///
/// # Errors
/// A target was broken, is not known, or cannot be built.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<()> {
    let all = seeded(workspace, arguments.host)?;
    if let Some(unknown) = arguments.targets.iter().find(|name| !all.contains(name)) {
        bail!("no target is named {unknown}; there are {}", all.join(", "));
    }
    let targets = if arguments.targets.is_empty() { &all } else { &arguments.targets };
    let program = build(workspace, arguments.host)?;
    let mut broken = Vec::new();
    for group in targets.chunks(arguments.jobs.max(1)) {
        let begun = group.iter().map(|target| begin(workspace, &program, target, arguments.seconds));
        let begun = begun.collect::<anyhow::Result<Vec<_>>>()?;
        for (target, mut fuzzer) in group.iter().zip(begun) {
            let status = fuzzer.wait().with_context(|| target.clone())?;
            println!("{target}: {}", if status.success() { "nothing found" } else { "BROKEN" });
            if !status.success() {
                broken.push(target.as_str());
            }
        }
    }
    if broken.is_empty() {
        println!("{} targets, {} s each: nothing found", targets.len(), arguments.seconds);
        return Ok(());
    }
    bail!("broken: {}; see fuzz/artifacts for the inputs, and NAME.log there for what was said", broken.join(", "))
}

/// Writes the seeds of all targets into their corpora, and answers with the names.
fn seeded(workspace: &Workspace, host: bool) -> anyhow::Result<Vec<String>> {
    let mut seeds =
        workspace.cargo(&["run", "--quiet", "--release", "--package", "penstock-fuzz", "--bin", "fuzz-seeds"]);
    seeds.args((!host).then_some("--no-default-features")).arg("--").arg(workspace.root.join("fuzz/corpus"));
    let said = seeds.stderr(Stdio::inherit()).output().context("cargo")?;
    if !said.status.success() {
        bail!("the seeds cannot be written: {}", said.status);
    }
    Ok(String::from_utf8(said.stdout)?.lines().map(str::to_owned).collect())
}

/// Builds the program that runs them, and answers with its path.
fn build(workspace: &Workspace, host: bool) -> anyhow::Result<PathBuf> {
    let folder = workspace.root.join("fuzz/libfuzzer");
    let target = workspace.target.join("fuzz");
    let mut cargo = Command::new("cargo");
    cargo.args(["+nightly", "build", "--release", "--target", HOST]).current_dir(&folder);
    cargo.args(host.then_some(["--features", "host"]).into_iter().flatten());
    cargo.env("RUSTFLAGS", RUSTFLAGS).env("CARGO_TARGET_DIR", &target).env_remove("RUSTUP_TOOLCHAIN");
    command(&mut cargo).context("the nightly toolchain is needed: rustup toolchain install nightly")?;
    Ok(target.join(HOST).join("release/penstock-libfuzzer"))
}

fn begin(workspace: &Workspace, program: &Path, target: &str, seconds: u32) -> anyhow::Result<Child> {
    let folder = workspace.root.join("fuzz");
    let (corpus, artifacts) = (folder.join("corpus").join(target), folder.join("artifacts"));
    fs::create_dir_all(&artifacts)?;
    let said = fs::File::create(artifacts.join(format!("{target}.log")))?;
    let mut fuzzer = Command::new(program);
    fuzzer.arg(&corpus).arg(format!("-max_total_time={seconds}")).arg(format!("-max_len={INPUT_BYTES_MAX}"));
    fuzzer.arg(format!("-timeout={SECONDS_MAX}")).arg(format!("-rss_limit_mb={MEMORY_MAX}"));
    fuzzer.arg(format!("-artifact_prefix={}/{target}-", artifacts.display()));
    fuzzer.env("PENSTOCK_FUZZ_TARGET", target).stdout(said.try_clone()?).stderr(said);
    fuzzer.spawn().with_context(|| program.display().to_string())
}
