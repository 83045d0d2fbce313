// SPDX-License-Identifier: Apache-2.0
//! Rounds, in turns, and their medians.

use std::time::Duration;

use anyhow::Context;

use crate::load::{Ask, Callers, Outcome};
use crate::process::Role;
use crate::redis::Redis;
use crate::scenarios::Scenario;

/// How long to measure.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Rounds for each proxy.
    pub rounds: usize,
    /// Requests of a round with many connections.
    pub requests: usize,
    /// Requests of a round with one connection.
    pub latency_requests: usize,
}

impl Effort {
    /// A smoke test.
    pub const QUICK: Self = Self { rounds: 3, requests: 1_500, latency_requests: 150 };
    /// What is published.
    pub const FULL: Self = Self { rounds: 15, requests: 6_000, latency_requests: 600 };
}

impl Effort {
    /// Requests that one proxy gets in a scenario with whole answers.
    fn requests_in_all(self) -> usize {
        self.requests / 3 + self.rounds * (self.requests + self.latency_requests)
    }
}

/// Connections of a round with many, and streams at a time.
const CONNECTIONS: usize = 64;
/// Events of the two kinds of streams, whose difference in CPU time is that of the further events.
const EVENTS: (u32, u32) = (10, 110);
/// For the kernel to put the threads of a process to sleep, whose CPU time is exact then.
const SETTLE: Duration = Duration::from_millis(5);

/// What one proxy did in one scenario; medians over the rounds.
#[derive(Debug, Default, Clone)]
pub struct Figures {
    /// CPU time for a request, or for an event of a stream, in microseconds.
    pub cpu_us: f64,
    /// Median and 99th percentile of the latency with one connection, in microseconds.
    pub one: (f64, f64),
    /// The same with many connections.
    pub many: (f64, f64),
    /// Requests in a second with many connections.
    pub rate: f64,
    /// Pieces of the body that the caller read, for each event that the upstream wrote; one if none were put together.
    pub pieces: f64,
    /// Memory after the rounds, in MiB.
    pub resident_mib: f64,
}

/// A row of the report.
pub struct Row<'s> {
    /// The scenario.
    pub scenario: &'s Scenario,
    /// The gateway.
    pub gateway: Figures,
    /// The baseline in the same rounds.
    pub baseline: Figures,
    /// Median of the rounds' ratios of CPU time, with the first and third quartile.
    pub ratio: (f64, f64, f64),
    /// Median latency of a caller that asks the upstream directly over one connection, in microseconds.
    pub direct_p50_us: f64,
}

/// All rows, and what the processes use when nobody asks.
pub struct Measured<'s> {
    /// A row for each scenario.
    pub rows: Vec<Row<'s>>,
    /// CPU time of the gateway and the baseline in an idle second, in milliseconds.
    pub idle_ms: (f64, f64),
    /// Scripts that the Redis has run for each request with it; none if nothing was measured with it.
    pub scripts: Option<f64>,
}

/// One side of a comparison.
struct Side<'r> {
    role: &'r Role,
    many: Callers,
    one: Callers,
    cpu_us: Vec<f64>,
    rates: Vec<f64>,
    pieces: Vec<f64>,
    many_latencies: Vec<Duration>,
    one_latencies: Vec<Duration>,
}

/// Measures every scenario.
pub fn all<'s>(scenarios: &[&'s Scenario], effort: Effort) -> anyhow::Result<Measured<'s>> {
    let upstream = Role::start("upstream", None, None, &[])?;
    let baseline = Role::start("baseline", Some(upstream.address), None, &[])?;
    let gateway = Role::start("gateway", Some(upstream.address), None, &[])?;
    let redis = if scenarios.iter().any(|scenario| scenario.redis) { Redis::start()? } else { None };
    let start_sharing = |redis: &Redis| Role::start("gateway", Some(upstream.address), Some(&redis.url()), &[]);
    let sharing = redis.as_ref().map(start_sharing).transpose()?;
    let mut scripts = None;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut rows = Vec::new();
    for scenario in scenarios {
        let measured = if scenario.redis { sharing.as_ref() } else { Some(&gateway) };
        let Some(measured) = measured else {
            eprintln!("{}: left out, there is no redis-server", scenario.name);
            continue;
        };
        let before = redis.as_ref().map(Redis::scripts).transpose()?;
        let roles = (measured, &baseline, &upstream);
        let row = runtime.block_on(row(scenario, effort, roles)).with_context(|| scenario.name)?;
        if let (true, Some(redis), Some(before)) = (scenario.redis, &redis, before) {
            scripts = Some((redis.scripts()? - before) as f64 / effort.requests_in_all() as f64);
        }
        eprintln!(
            "{}: {:.1} us beside {:.1} us, {:.2}x ({:.2} to {:.2})",
            scenario.name, row.gateway.cpu_us, row.baseline.cpu_us, row.ratio.1, row.ratio.0, row.ratio.2
        );
        rows.push(row);
    }
    let before = (gateway.cpu_ns()?, baseline.cpu_ns()?);
    std::thread::sleep(Duration::from_secs(1));
    let millis = |now: u64, before: u64| now.saturating_sub(before) as f64 / 1e6;
    let idle_ms = (millis(gateway.cpu_ns()?, before.0), millis(baseline.cpu_ns()?, before.1));
    Ok(Measured { rows, idle_ms, scripts })
}

async fn row<'s>(
    scenario: &'s Scenario,
    effort: Effort,
    (gateway, baseline, upstream): (&Role, &Role, &Role),
) -> anyhow::Result<Row<'s>> {
    let mut gateway = Side::new(gateway).await?;
    let mut baseline = Side::new(baseline).await?;
    let mut direct = Callers::connect(upstream.address, 1).await?;
    let mut direct_latencies = Vec::new();
    let mut ratios = Vec::new();
    let events = if scenario.streamed { EVENTS } else { (0, 0) };
    let credential = gateway.role.credential(scenario.name);
    let asks = |ask: fn(u32) -> Ask| (ask(events.0).showing(credential), ask(events.1).showing(credential));
    let (ask_gateway, ask_baseline) = (asks(scenario.gateway), asks(scenario.baseline));
    // Connections, instances and caches are made before anything counts.
    gateway.many.ask(&ask_gateway.0, effort.requests / 3).await?;
    baseline.many.ask(&ask_baseline.0, effort.requests / 3).await?;
    for _ in 0..effort.rounds {
        let measured = if scenario.streamed {
            (gateway.streams(&ask_gateway).await?, baseline.streams(&ask_baseline).await?)
        } else {
            direct_latencies.extend(direct.ask(&ask_baseline.0, effort.latency_requests).await?.latencies);
            let gateway = gateway.requests(&ask_gateway.0, effort).await?;
            (gateway, baseline.requests(&ask_baseline.0, effort).await?)
        };
        ratios.push(measured.0 / measured.1);
    }
    ratios.sort_by(f64::total_cmp);
    let ratio = (quantile(&ratios, 0.25), quantile(&ratios, 0.5), quantile(&ratios, 0.75));
    let direct_p50_us = percentiles(direct_latencies).0;
    Ok(Row { scenario, gateway: gateway.figures()?, baseline: baseline.figures()?, ratio, direct_p50_us })
}

impl<'r> Side<'r> {
    async fn new(role: &'r Role) -> anyhow::Result<Self> {
        Ok(Self {
            role,
            many: Callers::connect(role.address, CONNECTIONS).await?,
            one: Callers::connect(role.address, 1).await?,
            cpu_us: Vec::new(),
            rates: Vec::new(),
            pieces: Vec::new(),
            many_latencies: Vec::new(),
            one_latencies: Vec::new(),
        })
    }

    /// One round of requests with whole answers; answers the CPU time of one.
    async fn requests(&mut self, ask: &Ask, effort: Effort) -> anyhow::Result<f64> {
        self.one_latencies.extend(self.one.ask(ask, effort.latency_requests).await?.latencies);
        let (cpu_us, outcome) = self.cpu_us(ask, effort.requests).await?;
        let each = cpu_us / effort.requests as f64;
        self.cpu_us.push(each);
        self.rates.push(effort.requests as f64 / outcome.took.as_secs_f64());
        self.many_latencies.extend(outcome.latencies);
        Ok(each)
    }

    /// One round of streams; answers the CPU time of one event.
    async fn streams(&mut self, asks: &(Ask, Ask)) -> anyhow::Result<f64> {
        let (few_us, _) = self.cpu_us(&asks.0, CONNECTIONS).await?;
        let (more_us, outcome) = self.cpu_us(&asks.1, CONNECTIONS).await?;
        let each = (more_us - few_us) / (CONNECTIONS as f64 * f64::from(EVENTS.1 - EVENTS.0));
        self.cpu_us.push(each);
        self.pieces.push(outcome.frames as f64 / (CONNECTIONS as f64 * f64::from(EVENTS.1)));
        Ok(each)
    }

    async fn cpu_us(&mut self, ask: &Ask, requests: usize) -> anyhow::Result<(f64, Outcome)> {
        tokio::time::sleep(SETTLE).await;
        let before = self.role.cpu_ns()?;
        let outcome = self.many.ask(ask, requests).await?;
        tokio::time::sleep(SETTLE).await;
        Ok((self.role.cpu_ns()?.saturating_sub(before) as f64 / 1e3, outcome))
    }

    fn figures(self) -> anyhow::Result<Figures> {
        Ok(Figures {
            cpu_us: median(self.cpu_us),
            one: percentiles(self.one_latencies),
            many: percentiles(self.many_latencies),
            rate: median(self.rates),
            pieces: median(self.pieces),
            resident_mib: self.role.resident_kib()? as f64 / 1024.0,
        })
    }
}

/// Median and 99th percentile in microseconds.
fn percentiles(latencies: Vec<Duration>) -> (f64, f64) {
    let mut all: Vec<f64> = latencies.into_iter().map(|latency| latency.as_secs_f64() * 1e6).collect();
    all.sort_by(f64::total_cmp);
    (quantile(&all, 0.5), quantile(&all, 0.99))
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    quantile(&all, 0.5)
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a place in a list, which is short and not negative"
)]
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1) as f64;
    sorted.get((last * share).round() as usize).copied().unwrap_or(f64::NAN)
}
