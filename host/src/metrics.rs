// SPDX-License-Identifier: Apache-2.0
//! Every metric of the gateway, in one table: name, help, labels. Plugins register theirs in the same [`Registry`].
//!
//! A label's values are bounded: routes, vendors and plugins by the policy, models, keys and teams by [`MODELS_MAX`],
//! [`KEYS_MAX`] and [`TEAMS_MAX`], since callers and operators can name any number of them. Looking a series up takes no lock;
//! only the first use of one copies the table.

mod ended;
pub mod plugins;
pub mod reading;
mod series;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus::local::LocalHistogram;
use prometheus::{
    CounterVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

pub use ended::{Ended, Pieces};

use ended::{KEY_LINE, KeyLine, LINE, Line, TRY_LINE, TryLine};
use series::{Ceilings, Known, Names, Series};

/// Names of models that are told apart; further ones are `other`.
pub const MODELS_MAX: usize = 500;
/// Virtual keys that are told apart; further ones are `other`.
pub const KEYS_MAX: usize = 2_000;
/// Teams that are told apart; further ones are `other`.
pub const TEAMS_MAX: usize = 1_000;
/// Series of one metric; further ones are counted under `other`.
pub const SERIES_MAX: usize = 10_000;

/// Upper bounds of the buckets of a time within a request, in seconds: LLM calls last from milliseconds to many minutes.
const REQUEST_SECONDS: &[f64] =
    &[0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0];
/// Upper bounds of the buckets of the time between two tokens, in seconds.
const TOKEN_SECONDS: &[f64] = &[0.001, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 5.0];

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Family {
    /// Name.
    pub name: &'static str,
    /// What it counts, and in which unit.
    pub help: &'static str,
    /// Names of the labels.
    pub labels: &'static [&'static str],
}

/// One struct field, one row of [`ALL`], for each metric.
macro_rules! metrics {
    ($($field:ident: $vec:ty = $make:ident $name:literal, [$($label:literal),*], $help:literal;)*) => {
        /// All metrics of one process.
        pub struct Metrics {
            registry: Registry,
            lines: Known<Line>,
            key_lines: Known<KeyLine>,
            tries: Known<TryLine>,
            begun: AtomicU64,
            ended: AtomicU64,
            took_us: AtomicU64,
            $($field: $vec,)*
        }

        /// The table.
        pub const ALL: &[Family] = &[$(Family { name: $name, help: $help, labels: &[$($label),*] },)*];

        impl Metrics {
            /// All metrics at zero, in a registry of their own; an error only if the table were wrong.
            pub fn new() -> Result<Self, prometheus::Error> {
                let registry = Registry::new();
                let ceilings = ceilings();
                $(
                    let family = Family { name: $name, help: $help, labels: &[$($label),*] };
                    let $field = Series::new($make(family)?, family, &registry, &ceilings)?;
                )*
                let (lines, key_lines) = (Known::new(LINE, &ceilings), Known::new(KEY_LINE, &ceilings));
                let tries = Known::new(TRY_LINE, &ceilings);
                Ok(Self { registry, lines, key_lines, tries, begun: AtomicU64::new(0), ended: AtomicU64::new(0), took_us: AtomicU64::new(0), $($field,)* })
            }
        }
    };
}

type Counters = Series<IntCounterVec>;
type Sums = Series<CounterVec>;
type Gauges = Series<IntGaugeVec>;
type Times = Series<HistogramVec>;

metrics! {
    requests: Counters = counter "penstock_requests_total", ["route", "vendor", "operation", "status"],
        "Requests that have ended, by the status that the caller read; a plain HTTP route has no operation.";
    duration: Times = request_time "penstock_request_duration_seconds", ["route", "vendor", "operation"],
        "Seconds from the head of a request to the last byte of its answer.";
    first_byte: Times = request_time "penstock_first_byte_seconds", ["route", "vendor", "operation"],
        "Seconds from the head of a request to the first byte of the answer's body.";
    first_token: Times = request_time "penstock_first_token_seconds", ["vendor", "model"],
        "Seconds from the head of a request to the first piece of a streamed answer.";
    inter_token: Times = token_time "penstock_inter_token_seconds", ["vendor", "model"],
        "Seconds between two pieces of a streamed answer; most vendors send a token or a few in each.";
    output_token: Times = token_time "penstock_output_token_seconds", ["vendor", "model"],
        "Seconds for each token of a streamed answer after the first: from its first piece to its last, by the vendor's count.";
    upstream: Times = request_time "penstock_upstream_seconds", ["vendor", "outcome"],
        "Seconds that a try at a target took: to the first piece of a stream, to the end of a whole answer, or to the failure whose code is the outcome.";
    inflight: Gauges = gauge "penstock_requests_inflight", ["route"],
        "Requests under way.";
    tokens: Counters = counter "penstock_tokens_total", ["route", "vendor", "model", "kind"],
        "Tokens by the vendor's account; the kinds do not overlap, and are named as the rates of a price: input, cache_read, output_audio.";
    cost: Sums = sum "penstock_cost_usd_total", ["route", "vendor", "model"],
        "US dollars that calls have cost: what the vendor states, else what the prices say.";
    unpriced: Counters = counter "penstock_unpriced_total", ["vendor", "model"],
        "Calls whose usage is known and whose cost is not, since no table has a price of the model.";
    key_requests: Counters = counter "penstock_key_requests_total", ["key", "team", "result"],
        "Requests by the id of the virtual key and its team, `ok` or `failed`.";
    key_tokens: Counters = counter "penstock_key_tokens_total", ["key", "team", "kind"],
        "Tokens by the id of the virtual key and its team: all of `input`, all of `output`.";
    key_cost: Sums = sum "penstock_key_cost_usd_total", ["key", "team"],
        "US dollars by the id of the virtual key and its team.";
    attempts: Counters = counter "penstock_attempts_total", ["vendor", "outcome"],
        "Targets tried, by `ok`, the code of the failure, or `outrun` where another one was asked beside it and spoke first.";
    hedges: Counters = counter "penstock_hedges_total", ["route", "outcome"],
        "Requests for which a second target was asked beside a slow one: it has `won`, has `lost`, or has `failed`, or was not waited for (`abandoned`: the caller has gone, or time was over); or none was asked, since none was well and free (`nobody`), or as many are sent as may be (`unaffordable`).";
    failures: Counters = counter "penstock_failures_total", ["route", "code"],
        "Requests that failed, by the stable code of the failure.";
    auth_questions: Counters = counter "penstock_auth_questions_total", ["plugin", "outcome"],
        "What auth plugins had to ask others: `ok`, `refused` with a status that is not 2xx, or `failed` without an answer.";
    discoveries: Counters = counter "penstock_discoveries_total", ["service", "outcome"],
        "What sources have said of the endpoints of a service: `ok`, `empty` or `failed`; after these the last endpoints stay.";
    jobs: Gauges = gauge "penstock_jobs", ["status"],
        "Jobs that are kept, by status: `queued` is the queue, `running` is what is worked on.";
    jobs_ended: Counters = counter "penstock_jobs_ended_total", ["operation", "status"],
        "Jobs that are over, by how they ended.";
    job_bytes: Gauges = gauge "penstock_job_bytes", [],
        "Bytes of the bodies and answers of jobs that are kept.";
    reports: Counters = counter "penstock_job_reports_total", ["outcome"],
        "Tries to report the end of a job to a webhook: `ok`, `failed`, or `given_up` after the last one.";
    spans: Counters = counter "penstock_spans_total", ["outcome"],
        "Spans of traces: `exported`, `dropped-queue` when the queue was full, `dropped-export` when the collector did not take them.";
    connections: Gauges = gauge "penstock_connections", [],
        "Open connections of callers.";
    generation: Gauges = gauge "penstock_generation", [],
        "Number of the generation that is in force.";
    changes: Counters = counter "penstock_changes_total", ["cause", "result"],
        "Changes of policies and plugins, by what asked for them, and whether they were `installed`, `refused` or `unchanged`.";
    plugins: Gauges = gauge "penstock_plugins", ["state"],
        "Plugins in the library that are `active`, and files and uploads that were last `refused`.";
    cluster_change: Gauges = gauge "penstock_cluster_change", [],
        "Number of the cluster's last change that this node has followed.";
    cluster_leader: Gauges = gauge "penstock_cluster_leader", [],
        "1 on the node that leads the cluster.";
    cluster_away: Gauges = gauge "penstock_cluster_away", [],
        "1 while the cluster's Redis does not answer.";
    cluster_refused: Gauges = gauge "penstock_cluster_refused", [],
        "Things of the cluster that this node cannot take, or could not give.";
    cluster_fenced: Counters = counter "penstock_cluster_fenced_total", [],
        "Writes of this node that were refused since another one has come to lead.";
}

/// How a change ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is in force.
    Installed,
    /// What was in force stays.
    Refused,
    /// There was nothing to do.
    Unchanged,
}

impl Metrics {
    /// Where plugins register metrics of their own.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Counts a request that begins, of any route.
    pub fn begins(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request that has ended.
    pub fn ends(&self, took: Duration) {
        self.took_us.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    /// Requests that have ended since the start, and what they took together, in microseconds.
    #[must_use]
    pub fn ended_so_far(&self) -> (u64, u64) {
        (self.ended.load(Ordering::Relaxed), self.took_us.load(Ordering::Relaxed))
    }

    /// Requests under way, of all routes.
    #[must_use]
    pub fn under_way(&self) -> usize {
        // What has ended is read first: it cannot be more than what has begun by then.
        let ended = self.ended.load(Ordering::Relaxed);
        usize::try_from(self.begun.load(Ordering::Relaxed).saturating_sub(ended)).unwrap_or(usize::MAX)
    }

    /// Gauge of the requests under way on a route: whoever takes it counts itself in, and out.
    pub fn inflight(&self, route: &str) -> Option<IntGauge> {
        self.inflight.of(&[route])
    }

    /// Where the time between the pieces of one answer is gathered; flushed in its end.
    pub fn inter_token(&self, vendor: &str, model: &str) -> Option<LocalHistogram> {
        self.inter_token.of(&[vendor, model]).map(|time| time.local())
    }

    /// Spans that were exported or not.
    pub fn spans(&self, outcome: &'static str, count: u64) {
        self.spans.with(&[outcome], |spans| spans.inc_by(count));
    }

    /// A target was tried; the outcome is `ok` or the code of a failure.
    pub fn attempted(&self, vendor: &str, outcome: &'static str, took: Duration) {
        let make =
            |values: &[&str]| Some(TryLine { count: self.attempts.of(values)?, time: self.upstream.of(values)? });
        self.tries.with(&[vendor, outcome], make, |line| {
            line.count.inc();
            line.time.observe(took.as_secs_f64());
        });
    }

    /// Somebody was asked for an auth plugin, or could not be.
    pub fn asked_for_auth(&self, plugin: &str, outcome: &'static str) {
        self.auth_questions.with(&[plugin, outcome], IntCounter::inc);
    }

    /// It was asked which endpoints a service has.
    pub fn discovered(&self, service: &str, outcome: &'static str) {
        self.discoveries.with(&[service, outcome], IntCounter::inc);
    }

    /// A second target was asked beside a slow one, or could not be.
    pub fn hedged(&self, route: &str, outcome: &'static str) {
        self.hedges.with(&[route, outcome], IntCounter::inc);
    }

    /// A request failed; the code is that of the failure.
    pub fn failed(&self, route: &str, code: &'static str) {
        self.failures.with(&[route, code], IntCounter::inc);
    }

    /// So many jobs have this status.
    pub fn jobs(&self, status: &'static str, count: usize) {
        self.jobs.with(&[status], |gauge| gauge.set(i64::try_from(count).unwrap_or(i64::MAX)));
    }

    /// So many bytes are kept with jobs.
    pub fn job_bytes(&self, bytes: u64) {
        self.job_bytes.with(&[], |gauge| gauge.set(i64::try_from(bytes).unwrap_or(i64::MAX)));
    }

    /// A job is over.
    pub fn job_ended(&self, operation: &str, status: &'static str) {
        self.jobs_ended.with(&[operation, status], IntCounter::inc);
    }

    /// The report of a job's end was tried.
    pub fn reported(&self, outcome: &'static str) {
        self.reports.with(&[outcome], IntCounter::inc);
    }

    /// Gauge of the open connections of callers.
    pub fn connections(&self) -> IntGauge {
        self.connections.all().with_label_values::<&str>(&[]) // panics on a wrong number of labels; the table has none
    }

    /// A change of policies or plugins has ended.
    pub fn changed(&self, cause: &'static str, result: Change) {
        let result = match result {
            Change::Installed => "installed",
            Change::Refused => "refused",
            Change::Unchanged => "unchanged",
        };
        self.changes.with(&[cause, result], IntCounter::inc);
    }

    /// What is in force since now.
    pub fn in_force(&self, generation: u64, active: usize, refused: usize) {
        let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.generation.with(&[], |gauge| gauge.set(i64::try_from(generation).unwrap_or(i64::MAX)));
        self.plugins.with(&["active"], |gauge| gauge.set(number(active)));
        self.plugins.with(&["refused"], |gauge| gauge.set(number(refused)));
    }

    /// How this node stands in its cluster: the last change that it has followed, and how many things it cannot take.
    pub fn in_cluster(&self, change: u64, refused: usize) {
        self.cluster_change.with(&[], |gauge| gauge.set(i64::try_from(change).unwrap_or(i64::MAX)));
        self.cluster_refused.with(&[], |gauge| gauge.set(i64::try_from(refused).unwrap_or(i64::MAX)));
    }

    /// Whether this node leads its cluster.
    pub fn leads(&self, leads: bool) {
        self.cluster_leader.with(&[], |gauge| gauge.set(leads.into()));
    }

    /// Whether the cluster's Redis is away.
    pub fn cluster_away(&self, away: bool) {
        self.cluster_away.with(&[], |gauge| gauge.set(away.into()));
    }

    /// A write of a leader was refused, since it leads no more.
    pub fn fenced(&self) {
        self.cluster_fenced.with(&[], IntCounter::inc);
    }

    /// The text exposition format of Prometheus, version 0.0.4.
    pub fn exposition(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

fn counter(family: Family) -> Result<IntCounterVec, prometheus::Error> {
    IntCounterVec::new(Opts::new(family.name, family.help), family.labels)
}

fn sum(family: Family) -> Result<CounterVec, prometheus::Error> {
    CounterVec::new(Opts::new(family.name, family.help), family.labels)
}

fn gauge(family: Family) -> Result<IntGaugeVec, prometheus::Error> {
    IntGaugeVec::new(Opts::new(family.name, family.help), family.labels)
}

fn ceilings() -> Ceilings {
    Arc::new([("model", Names::new(MODELS_MAX)), ("key", Names::new(KEYS_MAX)), ("team", Names::new(TEAMS_MAX))])
}

fn token_time(family: Family) -> Result<HistogramVec, prometheus::Error> {
    let opts = HistogramOpts::new(family.name, family.help).buckets(TOKEN_SECONDS.to_vec());
    HistogramVec::new(opts, family.labels)
}

fn request_time(family: Family) -> Result<HistogramVec, prometheus::Error> {
    let opts = HistogramOpts::new(family.name, family.help).buckets(REQUEST_SECONDS.to_vec());
    HistogramVec::new(opts, family.labels)
}

#[cfg(test)]
mod tests {
    use penstock_dialects::ir::Usage;
    use penstock_prices::money::Usd;

    use super::*;

    fn ended<'e>(route: &'e str, model: &'e str, usage: Option<&'e Usage>) -> Ended<'e> {
        let took = Duration::from_millis(20);
        Ended {
            route,
            vendor: "v",
            model,
            operation: "chat",
            status: 200,
            failed: false,
            took,
            first_byte: Some(took),
            pieces: None,
            key: "",
            team: "",
            usage,
            cost: None,
        }
    }

    #[test]
    fn a_request_is_seen_in_every_metric_that_concerns_it() {
        let metrics = Metrics::new().unwrap();
        let usage = Usage { input: 7, output: 3, ..Usage::default() };
        metrics.inflight("ai").unwrap().inc();
        let pieces = Pieces { first: Duration::from_millis(30), spread: Duration::from_millis(80) };
        metrics.ended(&Ended { pieces: Some(pieces), key: "k", team: "t", ..ended("ai", "m", Some(&usage)) });
        metrics.ended(&Ended { status: 502, failed: true, key: "k", team: "t", ..ended("ai", "m", None) });
        metrics.attempted("v", "ok", Duration::from_millis(20));
        let gaps = metrics.inter_token("v", "m").unwrap();
        gaps.observe(0.04);
        gaps.flush();
        let text = metrics.exposition().unwrap();
        for line in [
            "penstock_requests_inflight{route=\"ai\"} 1",
            "penstock_requests_total{operation=\"chat\",route=\"ai\",status=\"200\",vendor=\"v\"} 1",
            "penstock_requests_total{operation=\"chat\",route=\"ai\",status=\"502\",vendor=\"v\"} 1",
            "penstock_tokens_total{kind=\"input\",model=\"m\",route=\"ai\",vendor=\"v\"} 7",
            "penstock_tokens_total{kind=\"output\",model=\"m\",route=\"ai\",vendor=\"v\"} 3",
            "penstock_attempts_total{outcome=\"ok\",vendor=\"v\"} 1",
            "penstock_upstream_seconds_count{outcome=\"ok\",vendor=\"v\"} 1",
            "penstock_first_byte_seconds_count{operation=\"chat\",route=\"ai\",vendor=\"v\"} 2",
            "penstock_first_token_seconds_sum{model=\"m\",vendor=\"v\"} 0.03",
            "penstock_output_token_seconds_sum{model=\"m\",vendor=\"v\"} 0.04",
            "penstock_inter_token_seconds_count{model=\"m\",vendor=\"v\"} 1",
            "penstock_key_requests_total{key=\"k\",result=\"ok\",team=\"t\"} 1",
            "penstock_key_requests_total{key=\"k\",result=\"failed\",team=\"t\"} 1",
            "penstock_key_tokens_total{key=\"k\",kind=\"input\",team=\"t\"} 7",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        assert!(!text.contains("reasoning\""), "{text}");
    }

    #[test]
    fn a_cost_is_summed_and_a_usage_without_one_is_counted() {
        let metrics = Metrics::new().unwrap();
        let more = vec![("input-audio".to_owned(), 5), ("tool-web_search".to_owned(), 1), ("made-up".to_owned(), 9)];
        let usage = Usage { input: 7, more, ..Usage::default() };
        for cost in [Usd::parse("0.1").ok(), Usd::parse("0.25").ok(), None] {
            metrics.ended(&Ended { cost, ..ended("ai", "m", Some(&usage)) });
        }
        metrics.ended(&ended("ai", "m", None));
        let text = metrics.exposition().unwrap();
        for line in [
            "penstock_cost_usd_total{model=\"m\",route=\"ai\",vendor=\"v\"} 0.35",
            "penstock_unpriced_total{model=\"m\",vendor=\"v\"} 1",
            "penstock_tokens_total{kind=\"input_audio\",model=\"m\",route=\"ai\",vendor=\"v\"} 15",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        assert!(!text.contains("made-up") && !text.contains("web_search"), "{text}");
    }

    #[test]
    fn names_that_callers_invent_make_no_series_without_end() {
        let metrics = Metrics::new().unwrap();
        let usage = Usage { input: 1, ..Usage::default() };
        for number in 0..10_000 {
            metrics.ended(&ended("ai", &format!("invented-{number}"), None));
        }
        assert!(!metrics.exposition().unwrap().contains("invented"), "a model without usage makes no series");
        for number in 0..10_000 {
            let (model, key) = (format!("m{number}"), format!("vk_{number}"));
            metrics.ended(&Ended { key: &key, team: &key, ..ended("ai", &model, Some(&usage)) });
        }
        let text = metrics.exposition().unwrap();
        assert_eq!(text.matches("penstock_tokens_total{").count(), MODELS_MAX + 1);
        let others = "penstock_tokens_total{kind=\"input\",model=\"other\",route=\"ai\",vendor=\"v\"} 9500";
        assert!(text.contains(others), "{}", text.len());
        assert_eq!(text.matches("penstock_key_cost_usd_total{").count(), KEYS_MAX + 1);
        assert!(text.lines().count() < 20_000, "{}", text.lines().count());
    }

    #[test]
    fn a_metric_without_labels_and_a_value_with_quotes_are_well_formed() {
        let metrics = Metrics::new().unwrap();
        metrics.in_force(7, 3, 1);
        metrics.failed("a\"b\n", "limited");
        let text = metrics.exposition().unwrap();
        assert!(text.contains("\npenstock_generation 7\n"), "{text}");
        assert!(text.contains(r#"route="a\"b\n""#), "{text}");
    }

    #[test]
    fn a_name_says_its_unit_and_a_help_is_a_sentence() {
        for family in ALL.iter().chain(plugins::ALL) {
            assert!(family.name.starts_with("penstock_") && family.help.ends_with('.'), "{family:?}");
            assert!(!family.name.ends_with("_ms") && !family.name.contains("milli"), "{family:?}");
        }
    }
}
