// SPDX-License-Identifier: Apache-2.0
//! The processes that are measured: starting one, and what the kernel knows of its CPU time and memory.

use std::future::Future;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, bail};
use tokio::sync::oneshot;

/// Threads of a proxy's runtime; the same for both.
pub const WORKERS: usize = 2;

/// The key that the gateway's vendors are given; it is worth nothing.
const KEY: (&str, &str) = ("PENSTOCK_BENCH_KEY", "sk-bench-0123456789");

/// What a server says once it is ready.
pub struct Ready {
    /// Where it listens.
    pub address: SocketAddr,
    /// What its callers have to show, by names of scenarios; worth nothing outside of this benchmark.
    pub credentials: Vec<(&'static str, String)>,
}

/// Serves until standard input ends. What the server says once it is ready goes to standard output.
pub fn serve<S, F>(workers: usize, server: S) -> anyhow::Result<()>
where
    S: FnOnce(oneshot::Sender<Ready>) -> F,
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()?;
    let (listening, listens) = oneshot::channel();
    let serving = runtime.spawn(server(listening));
    let Ok(Ready { address, credentials }) = listens.blocking_recv() else {
        return runtime.block_on(serving)?;
    };
    let credentials: String = credentials.iter().map(|(name, secret)| format!("\t{name}={secret}")).collect();
    println!("{address}{credentials}");
    std::io::stdout().flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    runtime.shutdown_background();
    Ok(())
}

/// A running role. Dropping it ends the process.
pub struct Role {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    credentials: Vec<(String, String)>,
}

impl Role {
    /// Starts this program again as a role, `under` another program if that is not empty.
    pub fn start(
        name: &str,
        upstream: Option<SocketAddr>,
        redis: Option<&str>,
        under: &[&str],
    ) -> anyhow::Result<Self> {
        let program = std::env::current_exe()?;
        let mut command = match under {
            [] => Command::new(program),
            [outer, rest @ ..] => {
                let mut command = Command::new(outer);
                command.args(rest).arg(program).stderr(Stdio::piped());
                command
            }
        };
        command.args(["role", name]).args(upstream.map(|address| address.to_string())).args(redis);
        command.env(KEY.0, KEY.1).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot start the {name}"))?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no standard output")?).read_line(&mut line)?;
        let mut said = line.trim().split('\t');
        match said.next().unwrap_or_default().parse() {
            Ok(address) => {
                let pairs = said.filter_map(|pair| pair.split_once('='));
                let credentials = pairs.map(|(name, secret)| (name.to_owned(), secret.to_owned())).collect();
                Ok(Self { child, address, credentials })
            }
            Err(_) => {
                let said = finish(&mut child)?;
                bail!("the {name} did not start: {}", said.trim())
            }
        }
    }

    /// What a caller of a scenario has to show, if that is not the same for all.
    pub fn credential(&self, scenario: &str) -> Option<&str> {
        self.credentials.iter().find(|(name, _)| name == scenario).map(|(_, secret)| secret.as_str())
    }

    /// CPU time of all its threads so far, in nanoseconds, user and kernel together. Exact while it sleeps.
    pub fn cpu_ns(&self) -> anyhow::Result<u64> {
        let tasks = format!("/proc/{}/task", self.child.id());
        let mut sum = 0;
        for task in std::fs::read_dir(&tasks).context("CPU time is read from /proc, which only Linux has")? {
            let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
            sum += text.split(' ').next().unwrap_or_default().parse::<u64>()?;
        }
        Ok(sum)
    }

    /// Memory that it holds, in KiB.
    pub fn resident_kib(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    /// Lets it end in good order, and answers what it said to standard error.
    pub fn end(mut self) -> anyhow::Result<String> {
        finish(&mut self.child)
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn finish(child: &mut Child) -> anyhow::Result<String> {
    drop(child.stdin.take());
    let mut said = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut said)?;
    }
    child.wait()?;
    Ok(said)
}
