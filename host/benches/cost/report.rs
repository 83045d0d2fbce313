// SPDX-License-Identifier: Apache-2.0
//! The table, for the terminal and for docs/benchmarks.md.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use penstock::calendar::Date;

use crate::instructions::Counted;
use crate::measure::{Effort, Measured, Row};
use crate::scenarios::ADDED_P50_US_MAX;

/// What stands above the tables.
const INTRODUCTION: &str = "\
# Benchmarks

What the gateway costs, beside a bare hyper proxy of the same build in the same run. This page is written by
`cargo xtask bench --write`; a run on another machine gives other microseconds, so read the ratios.

Upstream, both proxies and the callers are processes of their own on one machine, HTTP/1.1 over loopback, with about 1 KB in and
1.5 KB out. CPU time is user and kernel time of the proxy's process, from the scheduler's account. The proxies take turns, round by round; the
ratio is the median of the rounds' ratios (with the quartiles). The gateway is wired as `penstock run` does it, without
access log and admin API, since the baseline has neither, and with long deadlines for plugins, so that a busy machine makes no failures. In a stream the upstream writes each event by itself, and the cost of an event is
the difference between long and short streams. \"Added\" is the median latency over one connection less that of a caller that asks the
upstream directly.
";

/// Everything that a run found out.
pub struct Report<'s> {
    /// How long was measured.
    pub effort: Effort,
    /// The rows.
    pub measured: Measured<'s>,
    /// Instructions, if they were asked for.
    pub instructions: Vec<Counted>,
}

impl Report<'_> {
    /// The tables.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = self.cost(&mut text);
        let _ = self.latency(&mut text);
        let _ = self.counted(&mut text);
        text
    }

    /// Writes the page.
    pub fn write(&self, file: &Path) -> std::io::Result<()> {
        let Effort { rounds, requests, latency_requests } = self.effort;
        let run = format!(
            "Run of {} on {}; {rounds} rounds of {requests} requests over 64 connections and {latency_requests} over one, for each \
             proxy and scenario.\n",
            today(),
            machine(),
        );
        std::fs::write(file, format!("{INTRODUCTION}\n{run}{}", self.text()))
    }

    fn cost(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "\n## CPU time\n")?;
        writeln!(out, "| scenario | gateway | baseline | ratio (quartiles) | target | met |")?;
        writeln!(out, "|---|---|---|---|---|---|")?;
        for row in &self.measured.rows {
            let unit = if row.scenario.streamed { "µs/event" } else { "µs/request" };
            let (low, ratio, high) = row.ratio;
            let (target, met) = match row.scenario.ratio_max {
                Some(max) => (format!("≤ {max:.1}x"), yes(ratio <= max)),
                None => ("none".into(), "-"),
            };
            writeln!(
                out,
                "| {} | {:.1} {unit} | {:.1} {unit} | **{ratio:.2}x** ({low:.2} to {high:.2}) | {target} | {met} |",
                row.scenario.name, row.gateway.cpu_us, row.baseline.cpu_us
            )?;
        }
        let (gateway, baseline) = self.measured.idle_ms;
        writeln!(
            out,
            "\nWithout requests the gateway uses {gateway:.1} ms of CPU time in a second, the baseline {baseline:.1} ms."
        )?;
        if let Some(scripts) = self.measured.scripts {
            writeln!(
                out,
                "With Redis a request made it run {scripts:.2} scripts: one decides and is waited for; many are settled by one, which \
                 nobody waits for."
            )?;
        }
        let pieces = self.measured.rows.iter().filter(|row| row.scenario.streamed);
        for Row { scenario, gateway, baseline, .. } in pieces {
            writeln!(
                out,
                "In \"{}\" callers read {:.2} pieces for each event through the gateway, {:.2} through the baseline.",
                scenario.name, gateway.pieces, baseline.pieces
            )?;
        }
        writeln!(out, "\nWhat the scenarios are:\n")?;
        for row in &self.measured.rows {
            writeln!(out, "- {}: {}", row.scenario.name, row.scenario.what)?;
        }
        Ok(())
    }

    fn latency(&self, out: &mut String) -> std::fmt::Result {
        let rows: Vec<_> = self.measured.rows.iter().filter(|row| !row.scenario.streamed).collect();
        if rows.is_empty() {
            return Ok(());
        }
        writeln!(out, "\n## Latency, rate and memory\n")?;
        writeln!(out, "In microseconds; gateway / baseline.\n")?;
        writeln!(
            out,
            "| scenario | direct p50 | p50, 1 connection | p99, 1 connection | added p50 | ≤ {ADDED_P50_US_MAX:.0} µs met | p50, 64 | p99, 64 | requests/s | memory |"
        )?;
        writeln!(out, "|---|---|---|---|---|---|---|---|---|---|")?;
        for Row { scenario, gateway, baseline, direct_p50_us, .. } in rows {
            let added = (gateway.one.0 - direct_p50_us, baseline.one.0 - direct_p50_us);
            writeln!(
                out,
                "| {} | {direct_p50_us:.0} | {:.0} / {:.0} | {:.0} / {:.0} | **{:.0}** / {:.0} | {} | {:.0} / {:.0} | {:.0} / {:.0} | {:.0} / {:.0} | {:.0} / {:.0} MiB |",
                scenario.name,
                gateway.one.0,
                baseline.one.0,
                gateway.one.1,
                baseline.one.1,
                added.0,
                added.1,
                yes(added.0 <= ADDED_P50_US_MAX),
                gateway.many.0,
                baseline.many.0,
                gateway.many.1,
                baseline.many.1,
                gateway.rate,
                baseline.rate,
                gateway.resident_mib,
                baseline.resident_mib,
            )?;
        }
        Ok(())
    }

    fn counted(&self, out: &mut String) -> std::fmt::Result {
        if self.instructions.is_empty() {
            return Ok(());
        }
        writeln!(out, "\n## Instructions\n")?;
        writeln!(
            out,
            "In user space, for each request on one connection, counted by valgrind: this machine gives no hardware counters.\n"
        )?;
        writeln!(out, "| scenario | gateway | baseline | ratio |\n|---|---|---|---|")?;
        for Counted { name, gateway, baseline } in &self.instructions {
            let shown = |count: &anyhow::Result<u64>| match count {
                Ok(count) => format!("{:.1} k", *count as f64 / 1e3),
                Err(error) => format!("none: {error:#}").replace('\n', " "),
            };
            let ratio = match (gateway, baseline) {
                (Ok(gateway), Ok(baseline)) => format!("{:.2}x", *gateway as f64 / *baseline as f64),
                _ => "-".into(),
            };
            writeln!(out, "| {name} | {} | {} | {ratio} |", shown(gateway), shown(baseline))?;
        }
        Ok(())
    }
}

fn yes(met: bool) -> &'static str {
    if met { "yes" } else { "no" }
}

/// Processor, its number, and the kernel.
fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
    let count = std::thread::available_parallelism().map_or(0, std::num::NonZeroUsize::get);
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or_default().to_owned();
    format!("{count} x {}, Linux {}, load {load}", model.trim_start_matches([' ', '\t', ':']), kernel.trim())
}

/// The date in UTC.
fn today() -> Date {
    Date::of(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs() / 86_400)
}
