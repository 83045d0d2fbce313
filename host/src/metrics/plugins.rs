// SPDX-License-Identifier: Apache-2.0
//! What the host counts of plugins. Handles are found once for each configured plugin; a call costs two looks at the clock.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry};

use super::Family;
use super::series::{Ceilings, Series};

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
pub struct PluginMetrics {
    call_time: Series<HistogramVec>,
    breaks: Series<IntCounterVec>,
    waits: Series<IntCounterVec>,
    refusals: Series<IntCounterVec>,
}

/// What the host counts of one plugin; by default nobody reads it, and nothing is counted.
#[derive(Default)]
pub struct PluginMeter {
    name: String,
    all: Option<Arc<PluginMetrics>>,
    calls: [OnceLock<(&'static str, Option<Histogram>)>; CALLS_MAX],
}

impl PluginMetrics {
    /// In this registry.
    ///
    /// # Errors
    /// It has them already.
    pub fn new(registry: &Registry) -> Result<Arc<Self>, prometheus::Error> {
        let ceilings: Ceilings = Arc::new([]); // all names are the policy's, and those of the contract
        let counters = |family: Family| {
            let vec = IntCounterVec::new(Opts::new(family.name, family.help), family.labels)?;
            Series::new(vec, family, registry, &ceilings)
        };
        let opts = HistogramOpts::new(CALL_TIME.name, CALL_TIME.help).buckets(CALL_SECONDS.to_vec());
        let call_time = HistogramVec::new(opts, CALL_TIME.labels)?;
        Ok(Arc::new(Self {
            call_time: Series::new(call_time, CALL_TIME, registry, &ceilings)?,
            breaks: counters(BREAKS)?,
            waits: counters(WAITS)?,
            refusals: counters(REFUSALS)?,
        }))
    }

    /// Of the plugin of this name.
    #[must_use]
    pub fn of(self: &Arc<Self>, name: &str) -> Arc<PluginMeter> {
        Arc::new(PluginMeter { name: name.to_owned(), all: Some(Arc::clone(self)), ..PluginMeter::default() })
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
        self.all.as_ref()?.call_time.of(&[&self.name, call])
    }

    fn count(&self, of: fn(&PluginMetrics) -> &Series<IntCounterVec>, labels: &[&str]) {
        if let Some(all) = &self.all {
            of(all).with(labels, IntCounter::inc);
        }
    }
}
