// SPDX-License-Identifier: Apache-2.0
//! What the host counts of plugins. Handles are found once for each configured plugin; a call costs two looks at the clock.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

use super::Family;

/// Upper bounds of the buckets of a call into a plugin, in seconds: most last microseconds, and the longest may take
/// `sandbox.configure_ms`.
const CALL_SECONDS: &[f64] =
    &[0.000_005, 0.000_02, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.025, 0.1];
/// Functions of one plugin that are called by the host.
const CALLS_MAX: usize = 8;

/// The table.
pub const ALL: &[Family] = &[CALL_TIME, BREAKS, WAITS, REFUSALS];

const CALL_TIME: Family = Family {
    name: "penstock_plugin_call_seconds",
    help: "Seconds in one call into a plugin, by the function of the contract.",
    labels: &["plugin", "call"],
};
const BREAKS: Family = Family {
    name: "penstock_plugin_breaks_total",
    help: "Instances that broke: by a `trap`, the `deadline` of a call, the ceiling of `memory` or of `output`; or `exhausted`, when there was none to call.",
    labels: &["plugin", "how"],
};
const WAITS: Family = Family {
    name: "penstock_plugin_waits_total",
    help: "Calls that had to wait for an instance, since all were busy.",
    labels: &["plugin"],
};
const REFUSALS: Family = Family {
    name: "penstock_limit_refusals_total",
    help: "Calls that a limit did not admit, by the configured limit, what it counts, and whose it is: a `key`, a `team`, the `callers` of a route, the `vendors`.",
    labels: &["limit", "counted", "scope"],
};

/// What the host counts of all plugins.
#[derive(Clone)]
pub struct PluginMetrics {
    call_time: HistogramVec,
    breaks: IntCounterVec,
    waits: IntCounterVec,
    refusals: IntCounterVec,
}

/// What the host counts of one plugin; by default nobody reads it, and nothing is counted.
#[derive(Default)]
pub struct PluginMeter {
    name: String,
    all: Option<PluginMetrics>,
    calls: [OnceLock<(&'static str, Option<Histogram>)>; CALLS_MAX],
}

impl PluginMetrics {
    /// In this registry.
    ///
    /// # Errors
    /// It has them already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counters = |family: Family| IntCounterVec::new(Opts::new(family.name, family.help), family.labels);
        let opts = HistogramOpts::new(CALL_TIME.name, CALL_TIME.help).buckets(CALL_SECONDS.to_vec());
        let all = Self {
            call_time: HistogramVec::new(opts, CALL_TIME.labels)?,
            breaks: counters(BREAKS)?,
            waits: counters(WAITS)?,
            refusals: counters(REFUSALS)?,
        };
        registry.register(Box::new(all.call_time.clone()))?;
        for counters in [&all.breaks, &all.waits, &all.refusals] {
            registry.register(Box::new(counters.clone()))?;
        }
        Ok(all)
    }

    /// Of the plugin of this name.
    #[must_use]
    pub fn of(&self, name: &str) -> Arc<PluginMeter> {
        Arc::new(PluginMeter { name: name.to_owned(), all: Some(self.clone()), ..PluginMeter::default() })
    }
}

impl PluginMeter {
    /// A call took so long.
    pub fn called(&self, call: &'static str, took: Duration) {
        for place in &self.calls {
            let (known, time) = place.get_or_init(|| (call, self.call_time(call)));
            if *known == call {
                return time.iter().for_each(|time| time.observe(took.as_secs_f64()));
            }
        }
    }

    /// An instance broke, or there was none.
    pub fn broke(&self, how: &'static str) {
        self.count(|all| &all.breaks, &[&self.name, how]);
    }

    /// A call has to wait.
    pub fn waited(&self) {
        self.count(|all| &all.waits, &[&self.name]);
    }

    /// A limit did not admit a call.
    pub fn refused(&self, counted: &'static str, scope: &'static str) {
        self.count(|all| &all.refusals, &[&self.name, counted, scope]);
    }

    fn call_time(&self, call: &str) -> Option<Histogram> {
        let all = self.all.as_ref()?;
        all.call_time.get_metric_with_label_values(&[self.name.as_str(), call]).ok()
    }

    /// For what is rare: it takes the lock of the metric.
    fn count(&self, of: fn(&PluginMetrics) -> &IntCounterVec, labels: &[&str]) {
        if let Some(counter) = self.all.as_ref().and_then(|all| of(all).get_metric_with_label_values(labels).ok()) {
            counter.inc();
        }
    }
}
