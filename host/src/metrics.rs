// SPDX-License-Identifier: Apache-2.0
//! Every metric of the gateway, in one table: name, help, labels. Plugins register theirs in the same [`Registry`].
//!
//! A label's values are bounded: routes, vendors and plugins by the policy, models by [`SERIES_MAX`], since a caller can
//! name any. Looking a series up takes no lock; only the first use of one copies the table.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::time::Duration;

use arc_swap::ArcSwap;
use penstock_dialects::ir::Usage;
use penstock_prices::money::Usd;
use penstock_prices::price::{Rate, Unit};
use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::{
    Counter, CounterVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

/// Series of one metric; further ones are counted under `other`.
pub const SERIES_MAX: usize = 2_000;
/// Value of every label in the series that takes what is over the limit.
const OTHER: &str = "other";

/// Upper bounds of the buckets of a time within a request, in seconds: LLM calls last from milliseconds to many minutes.
const REQUEST_SECONDS: &[f64] =
    &[0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0];

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
            $($field: $vec,)*
        }

        /// The table.
        pub const ALL: &[Family] = &[$(Family { name: $name, help: $help, labels: &[$($label),*] },)*];

        impl Metrics {
            /// All metrics at zero, in a registry of their own; an error only if the table were wrong.
            pub fn new() -> Result<Self, prometheus::Error> {
                let registry = Registry::new();
                $(
                    let family = Family { name: $name, help: $help, labels: &[$($label),*] };
                    let $field = Series::new($make(family)?, family, &registry)?;
                )*
                Ok(Self { registry, $($field,)* })
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
    inflight: Gauges = gauge "penstock_requests_inflight", ["route"],
        "Requests under way.";
    tokens: Counters = counter "penstock_tokens_total", ["vendor", "model", "kind"],
        "Tokens by the vendor's account; the kinds do not overlap, and are named as the rates of a price: input, cache_read, output_audio.";
    cost: Sums = sum "penstock_cost_usd_total", ["vendor", "model"],
        "US dollars that calls have cost: what the vendor states, else what the prices say.";
    unpriced: Counters = counter "penstock_unpriced_total", ["vendor", "model"],
        "Calls whose usage is known and whose cost is not, since no table has a price of the model.";
    attempts: Counters = counter "penstock_attempts_total", ["vendor", "outcome"],
        "Targets tried, by `ok` or the code of the failure.";
    failures: Counters = counter "penstock_failures_total", ["route", "code"],
        "Requests that failed, by the stable code of the failure.";
    jobs: Gauges = gauge "penstock_jobs", ["status"],
        "Jobs that are kept, by status: `queued` is the queue, `running` is what is worked on.";
    jobs_ended: Counters = counter "penstock_jobs_ended_total", ["operation", "status"],
        "Jobs that are over, by how they ended.";
    job_bytes: Gauges = gauge "penstock_job_bytes", [],
        "Bytes of the bodies and answers of jobs that are kept.";
    reports: Counters = counter "penstock_job_reports_total", ["outcome"],
        "Tries to report the end of a job to a webhook: `ok`, `failed`, or `given_up` after the last one.";
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

/// What the ledger knows of a request in its end.
#[derive(Debug)]
pub struct Ended<'e> {
    /// Route.
    pub route: &'e str,
    /// Vendor or service that answered; empty for none.
    pub vendor: &'e str,
    /// The vendor's name of the model.
    pub model: &'e str,
    /// Operation; empty on a plain HTTP route.
    pub operation: &'e str,
    /// Status that the caller read.
    pub status: u16,
    /// Time from head to end.
    pub took: Duration,
    /// Time to the first byte of the answer's body.
    pub first_byte: Option<Duration>,
    /// What the vendor counted.
    pub usage: Option<&'e Usage>,
    /// What it cost, where that is known.
    pub cost: Option<Usd>,
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

    /// A request has begun; [`Metrics::ended`] must follow with the same route.
    pub fn begun(&self, route: &str) {
        self.inflight.with(&[route], IntGauge::inc);
    }

    /// A request has ended.
    pub fn ended(&self, ended: &Ended<'_>) {
        let Ended { route, vendor, operation, .. } = *ended;
        self.inflight.with(&[route], IntGauge::dec);
        let status = http::StatusCode::from_u16(ended.status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
        self.requests.with(&[route, vendor, operation, status.as_str()], IntCounter::inc);
        self.duration.with(&[route, vendor, operation], |time| time.observe(ended.took.as_secs_f64()));
        if let Some(first_byte) = ended.first_byte {
            self.first_byte.with(&[route, vendor, operation], |time| time.observe(first_byte.as_secs_f64()));
        }
        if let Some(usage) = ended.usage {
            self.used(vendor, ended.model, usage);
        }
        match ended.cost {
            Some(cost) => self.cost.with(&[vendor, ended.model], |sum: &Counter| sum.inc_by(cost.to_f64())),
            None if ended.usage.is_some() => self.unpriced.with(&[vendor, ended.model], IntCounter::inc),
            None => {}
        }
    }

    /// Only a vendor that knows a model counts tokens for it, so that no caller can invent series. The kinds are those of
    /// rates, so that no adapter can, either.
    fn used(&self, vendor: &str, model: &str, usage: &Usage) {
        let core = [
            (Rate::Input, usage.input),
            (Rate::CacheRead, usage.cache_read),
            (Rate::CacheWrite, usage.cache_write),
            (Rate::Output, usage.output),
            (Rate::Reasoning, usage.reasoning),
        ];
        let more = usage.more.iter().filter_map(|(name, count)| Some((Rate::of_bucket(name)?, *count)));
        for (rate, count) in core.into_iter().chain(more) {
            if count > 0 && rate.unit() == Unit::MillionTokens {
                self.tokens.with(&[vendor, model, rate.key()], |tokens| tokens.inc_by(count));
            }
        }
    }

    /// A target was tried; the outcome is `ok` or the code of a failure.
    pub fn attempted(&self, vendor: &str, outcome: &'static str) {
        self.attempts.with(&[vendor, outcome], IntCounter::inc);
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
        self.connections.all.with_label_values::<&str>(&[]) // panics on a wrong number of labels; the table has none
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

/// The crate's metrics with labels, whose builders have no public names.
trait Labelled: Collector + Clone + 'static {
    type Metric: Clone;

    fn metric(&self, values: &[&str]) -> Option<Self::Metric>;
}

impl<B: MetricVecBuilder + 'static> Labelled for MetricVec<B> {
    type Metric = B::M;

    fn metric(&self, values: &[&str]) -> Option<B::M> {
        self.get_metric_with_label_values(values).ok()
    }
}

/// Values by a hash that is one already, and need not be hashed again.
type ByHash<T> = HashMap<u64, T, BuildHasherDefault<Hashed>>;

/// Takes a hash as it is.
#[derive(Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Only for completeness: a u64 comes by `write_u64`.
        self.0 = bytes.iter().fold(self.0, |hash, byte| hash.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// One metric: its series by the values of its labels.
struct Series<V: Labelled> {
    all: V,
    labels: usize,
    /// Those used so far, by the hash of their labels; replaced whole, so that looking one up takes no lock.
    used: ArcSwap<ByHash<Vec<Used<V::Metric>>>>,
    hash: RandomState,
}

#[derive(Clone)]
struct Used<M> {
    values: Vec<Box<str>>,
    metric: M,
}

impl<V: Labelled> Series<V> {
    fn new(all: V, family: Family, registry: &Registry) -> Result<Self, prometheus::Error> {
        registry.register(Box::new(all.clone()))?;
        Ok(Self { all, labels: family.labels.len(), used: ArcSwap::default(), hash: RandomState::new() })
    }

    /// Does something with the series that has these values; nothing when their number is wrong.
    fn with(&self, values: &[&str], act: impl FnOnce(&V::Metric)) {
        let key = self.hash.hash_one(values);
        if let Some(used) = find(&self.used.load(), key, values) {
            act(&used.metric);
        } else if let Some(metric) = self.add(key, values) {
            act(&metric);
        }
    }

    #[cold]
    fn add(&self, key: u64, values: &[&str]) -> Option<V::Metric> {
        let others = [OTHER; 8];
        let full = self.used.load().values().map(Vec::len).sum::<usize>() >= SERIES_MAX;
        if full {
            return self.all.metric(others.get(..self.labels)?);
        }
        let metric = self.all.metric(values)?;
        let values: Vec<Box<str>> = values.iter().map(|value| Box::from(*value)).collect();
        self.used.rcu(|used| {
            let mut used = ByHash::clone(used);
            used.entry(key).or_default().push(Used { values: values.clone(), metric: metric.clone() });
            used
        });
        Some(metric)
    }
}

fn find<'u, M>(used: &'u ByHash<Vec<Used<M>>>, key: u64, values: &[&str]) -> Option<&'u Used<M>> {
    let same = |used: &&Used<M>| used.values.iter().map(|value| &**value).eq(values.iter().copied());
    used.get(&key)?.iter().find(same)
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

fn request_time(family: Family) -> Result<HistogramVec, prometheus::Error> {
    let opts = HistogramOpts::new(family.name, family.help).buckets(REQUEST_SECONDS.to_vec());
    HistogramVec::new(opts, family.labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended<'e>(route: &'e str, model: &'e str, usage: Option<&'e Usage>) -> Ended<'e> {
        let took = Duration::from_millis(20);
        Ended {
            route,
            vendor: "v",
            model,
            operation: "chat",
            status: 200,
            took,
            first_byte: Some(took),
            usage,
            cost: None,
        }
    }

    #[test]
    fn a_request_is_seen_in_every_metric_that_concerns_it() {
        let metrics = Metrics::new().unwrap();
        let usage = Usage { input: 7, output: 3, ..Usage::default() };
        metrics.begun("ai");
        metrics.begun("ai");
        metrics.ended(&ended("ai", "m", Some(&usage)));
        metrics.attempted("v", "ok");
        let text = metrics.exposition().unwrap();
        for line in [
            "penstock_requests_inflight{route=\"ai\"} 1",
            "penstock_requests_total{operation=\"chat\",route=\"ai\",status=\"200\",vendor=\"v\"} 1",
            "penstock_tokens_total{kind=\"input\",model=\"m\",vendor=\"v\"} 7",
            "penstock_tokens_total{kind=\"output\",model=\"m\",vendor=\"v\"} 3",
            "penstock_attempts_total{outcome=\"ok\",vendor=\"v\"} 1",
            "penstock_first_byte_seconds_count{operation=\"chat\",route=\"ai\",vendor=\"v\"} 1",
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
            "penstock_cost_usd_total{model=\"m\",vendor=\"v\"} 0.35",
            "penstock_unpriced_total{model=\"m\",vendor=\"v\"} 1",
            "penstock_tokens_total{kind=\"input_audio\",model=\"m\",vendor=\"v\"} 15",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        assert!(!text.contains("made-up") && !text.contains("web_search"), "{text}");
    }

    #[test]
    fn names_that_callers_invent_make_no_series_without_end() {
        let metrics = Metrics::new().unwrap();
        let usage = Usage { input: 1, ..Usage::default() };
        for number in 0..SERIES_MAX + 500 {
            metrics.ended(&ended("ai", &format!("invented-{number}"), None));
        }
        assert!(!metrics.exposition().unwrap().contains("invented"), "a model without usage makes no series");
        for number in 0..SERIES_MAX + 500 {
            metrics.ended(&ended("ai", &format!("m{number}"), Some(&usage)));
        }
        let text = metrics.exposition().unwrap();
        assert_eq!(text.matches("penstock_tokens_total{").count(), SERIES_MAX + 1);
        assert!(text.contains("penstock_tokens_total{kind=\"other\",model=\"other\",vendor=\"other\"} 500"));
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
    fn the_table_is_documented_and_its_names_end_in_their_unit() {
        for family in ALL {
            assert!(family.name.starts_with("penstock_") && family.help.ends_with('.'), "{family:?}");
        }
    }
}
