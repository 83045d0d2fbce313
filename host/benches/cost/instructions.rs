// SPDX-License-Identifier: Apache-2.0
//! Instructions for a request, counted by valgrind: the difference between many requests and few, so that what a start costs falls out. Only
//! what runs in user space is counted. It does not depend on what else the machine does.

use anyhow::{Context, bail};

use crate::load::Callers;
use crate::measure::Effort;
use crate::process::Role;
use crate::scenarios::Scenario;

/// Requests of the two runs.
const REQUESTS: (usize, usize) = (100, 400);
/// cachegrind without its caches counts instructions and nothing else.
const COUNTER: &[&str] = &["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null", "--"];

/// A scenario's instructions for each request: of the gateway and of the baseline.
pub struct Counted {
    /// Name of the scenario.
    pub name: &'static str,
    /// The gateway's, or why there are none.
    pub gateway: anyhow::Result<u64>,
    /// The baseline's, or why there are none.
    pub baseline: anyhow::Result<u64>,
}

/// Counts in every scenario with whole answers.
pub fn all(scenarios: &[&Scenario]) -> Vec<Counted> {
    let whole = scenarios.iter().filter(|scenario| !scenario.streamed && !scenario.redis);
    whole
        .map(|scenario| Counted {
            name: scenario.name,
            gateway: each("gateway", scenario),
            baseline: each("baseline", scenario),
        })
        .collect()
}

fn each(role: &str, scenario: &Scenario) -> anyhow::Result<u64> {
    let few = run(role, scenario, REQUESTS.0)?;
    let many = run(role, scenario, REQUESTS.1)?;
    Ok(many.saturating_sub(few) / (REQUESTS.1 - REQUESTS.0) as u64)
}

fn run(role: &str, scenario: &Scenario, requests: usize) -> anyhow::Result<u64> {
    let upstream = Role::start("upstream", None, None, &[])?;
    let proxy = Role::start(role, Some(upstream.address), None, COUNTER)?;
    let ask = if role == "gateway" { (scenario.gateway)(0) } else { (scenario.baseline)(0) };
    let ask = ask.showing(proxy.credential(scenario.name));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut callers = Callers::connect(proxy.address, 1).await?;
        callers.ask(&ask, Effort::QUICK.latency_requests).await?;
        callers.ask(&ask, requests).await
    })?;
    let said = proxy.end()?;
    let line = said.lines().find(|line| line.contains("I refs:") || line.contains("I   refs:"));
    let Some(line) = line else { bail!("valgrind counted nothing: {}", said.trim()) };
    let digits: String = line.rsplit(':').next().unwrap_or_default().chars().filter(char::is_ascii_digit).collect();
    digits.parse().context("valgrind's count is no number")
}
