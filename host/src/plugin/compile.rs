// SPDX-License-Identifier: Apache-2.0
//! Compilation, away from the request path and bounded.
//!
//! The engine promises nothing about hostile input while it compiles: a file of some hundred kilobytes can cost 20
//! seconds or a gigabyte. So a child process compiles, with ceilings on CPU time and address space that it sets on
//! itself before it reads a byte of the component, and with an empty environment.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit};
use wasmtime::Engine;

use super::engine::compiling_engine;
use super::gate::Refusal;
use crate::config::Sandbox;

/// How the child is told its ceilings: CPU seconds and bytes, with a space between.
const CEILINGS: &str = "PENSTOCK_COMPILE_CEILINGS";
/// Bytes of the child's complaint that are read.
const COMPLAINT_BYTES_MAX: u64 = 16 << 10;

/// Who compiles.
#[derive(Debug, Clone)]
pub enum Compiler {
    /// This process: for tests and tools that read trusted files.
    InProcess,
    /// A child process: this executable, run as `<path> compile-component`.
    Child(PathBuf),
}

impl Compiler {
    /// Compiles a component for this engine.
    pub(super) fn compile(&self, engine: &Engine, sandbox: &Sandbox, bytes: &[u8]) -> Result<Vec<u8>, Refusal> {
        match self {
            Self::InProcess => engine.precompile_component(bytes).map_err(|error| invalid(&format!("{error:#}"))),
            Self::Child(executable) => in_child(executable, sandbox, bytes),
        }
    }
}

/// The child: compiles what comes on standard input and writes the result to standard output.
#[must_use]
pub fn compile_component_child() -> ExitCode {
    match child() {
        Ok(()) => ExitCode::SUCCESS,
        Err(complaint) => {
            let _ = write!(std::io::stderr(), "{complaint}");
            ExitCode::FAILURE
        }
    }
}

fn child() -> Result<(), String> {
    let ceilings = std::env::var(CEILINGS).map_err(|_| format!("{CEILINGS} is not set: this is not run by hand"))?;
    let (cpu_s, bytes) = ceilings
        .split_once(' ')
        .and_then(|(cpu_s, bytes)| Some((cpu_s.parse().ok()?, bytes.parse().ok()?)))
        .ok_or_else(|| format!("{CEILINGS} is not two numbers"))?;
    for (resource, ceiling) in [(Resource::Cpu, cpu_s), (Resource::As, bytes), (Resource::Core, 0)] {
        let limit = Rlimit { current: Some(ceiling), maximum: Some(ceiling) };
        rustix::process::setrlimit(resource, limit).map_err(|error| format!("cannot set a ceiling: {error}"))?;
    }
    // Requests first. Not being allowed to step back does no harm.
    let _ = rustix::process::nice(5);
    let mut component = Vec::new();
    std::io::stdin().lock().read_to_end(&mut component).map_err(|error| format!("cannot read: {error}"))?;
    let engine = compiling_engine().map_err(|error| format!("{error:#}"))?;
    let compiled = engine.precompile_component(&component).map_err(|error| format!("{error:#}"))?;
    std::io::stdout().lock().write_all(&compiled).map_err(|error| format!("cannot write: {error}"))
}

fn in_child(executable: &Path, sandbox: &Sandbox, bytes: &[u8]) -> Result<Vec<u8>, Refusal> {
    let mut child = Command::new(executable)
        .arg("compile-component")
        .env_clear()
        .env(CEILINGS, format!("{} {}", sandbox.compile_s, sandbox.compile_bytes_max))
        // Each thread and each arena reserves address space, whether it needs it or not (the second in KiB).
        .env("RAYON_NUM_THREADS", "2")
        .env("MIMALLOC_ARENA_RESERVE", "65536")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| cannot_compile(&format!("cannot run {}: {error}", executable.display())))?;
    let talked = talk(&mut child, sandbox, bytes);
    if talked.is_none() {
        let _ = child.kill();
    }
    let status = child.wait().map_err(|error| cannot_compile(&error.to_string()))?;
    match talked {
        None => Err(over(sandbox, "it took too long")),
        Some(talk) if status.success() => Ok(talk.compiled),
        Some(talk) => Err(failure(status, &talk.complaint, sandbox)),
    }
}

struct Talk {
    compiled: Vec<u8>,
    complaint: String,
}

/// Writes the component and reads the answer; none if that takes too long. A child that waits for a processor uses no
/// CPU time, so its time by the clock is bounded apart.
fn talk(child: &mut Child, sandbox: &Sandbox, bytes: &[u8]) -> Option<Talk> {
    let (mut stdin, stdout, stderr) = (child.stdin.take()?, child.stdout.take()?, child.stderr.take()?);
    let patience = Duration::from_secs(sandbox.compile_s.saturating_mul(2).saturating_add(10));
    let bytes_max = sandbox.compile_bytes_max;
    std::thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        scope.spawn(move || {
            // A child that dies early closes the pipe; its status says why.
            let _ = stdin.write_all(bytes);
        });
        let complaint = scope.spawn(move || {
            let mut complaint = Vec::new();
            let _ = stderr.take(COMPLAINT_BYTES_MAX).read_to_end(&mut complaint);
            String::from_utf8_lossy(&complaint).into_owned()
        });
        scope.spawn(move || {
            let mut compiled = Vec::new();
            let _ = stdout.take(bytes_max).read_to_end(&mut compiled);
            let _ = sender.send(compiled);
        });
        let Ok(compiled) = receiver.recv_timeout(patience) else {
            // The threads end when the pipes close.
            let _ = child.kill();
            return None;
        };
        Some(Talk { compiled, complaint: complaint.join().unwrap_or_default() })
    })
}

fn failure(status: ExitStatus, complaint: &str, sandbox: &Sandbox) -> Refusal {
    use std::os::unix::process::ExitStatusExt;
    match status.signal() {
        // A thread that finds no room for its stack ends it by a panic.
        None if complaint.contains("Resource temporarily unavailable") => over(sandbox, "it needs too much memory"),
        None => invalid(complaint),
        Some(_) if complaint.contains("memory allocation") => over(sandbox, "it needs too much memory"),
        Some(signal) => over(sandbox, &format!("the compiler was stopped by signal {signal}")),
    }
}

fn invalid(complaint: &str) -> Refusal {
    Refusal::new(
        "not-a-component",
        format!("it is not a valid component: {}", complaint.trim()),
        "build it with `cargo build --target wasm32-wasip2`, and copy the file as it is",
    )
}

fn over(sandbox: &Sandbox, what: &str) -> Refusal {
    let Sandbox { compile_s, compile_bytes_max, .. } = sandbox;
    Refusal::new(
        "compile-limit",
        format!("{what} to compile: at most {compile_s} s of CPU time and {compile_bytes_max} bytes are given"),
        "make it smaller, or raise sandbox.compile_s or sandbox.compile_bytes_max if it is trusted",
    )
}

/// The compiler itself is at fault.
pub(super) fn cannot_compile(why: &str) -> Refusal {
    Refusal::new("compile-failed", format!("the compiler cannot be used: {why}"), "see the gateway's own installation")
}
