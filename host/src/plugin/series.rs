// SPDX-License-Identifier: Apache-2.0
//! Metrics that plugins make: counters and histograms by name, with a bounded number of series each.
//!
//! They outlive instances and generations: a plugin that is replaced counts on where it was. A metric that cannot be
//! had (a bad name, other labels than before, too many) is a handle that counts nothing, and a line in the log.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use prometheus::core::Collector;
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry};

use super::breaks::Breaks;
use crate::metrics::plugins::{PluginMeter, PluginMetrics};

/// Metrics of one plugin.
const METRICS_MAX: usize = 64;
/// Series of one metric; those past it are counted as one, with this as the value of every label.
const SERIES_MAX: usize = 500;
const OVERFLOW: &str = "(more)";
/// Labels of one metric.
const LABELS_MAX: usize = 8;
/// Longest value of a label, in bytes; the rest is cut.
const VALUE_BYTES_MAX: usize = 128;

/// The metrics of all plugins.
#[derive(Default)]
pub(super) struct SeriesTable {
    plugins: Mutex<HashMap<String, Arc<PluginSeries>>>,
    /// What the host counts of plugins; empty while nobody reads it.
    pub(super) host: OnceLock<Arc<PluginMetrics>>,
}

impl SeriesTable {
    /// The metrics of a plugin. They stay in the registry that was given first. The host counts its calls unless it is only
    /// tried out.
    pub(super) fn of(&self, plugin: &str, registry: &Registry, tried_out: bool) -> Arc<PluginSeries> {
        let mut plugins = self.plugins.lock().unwrap_or_else(PoisonError::into_inner);
        let host = self.host.get().filter(|_| !tried_out);
        let meter = || host.map(|host| host.of(plugin)).unwrap_or_default();
        let make = || Arc::new(PluginSeries::new(plugin, registry.clone(), meter()));
        Arc::clone(plugins.entry(plugin.to_owned()).or_insert_with(make))
    }
}

/// The metrics of one plugin.
pub(super) struct PluginSeries {
    /// What the host counts of it.
    pub(super) host: Arc<PluginMeter>,
    /// How its instances have broken.
    pub(super) breaks: Breaks,
    prefix: String,
    registry: Registry,
    metrics: Mutex<BTreeMap<String, Metric>>,
}

#[derive(Clone)]
enum Metric {
    Counter(Arc<Bounded<IntCounterVec, IntCounter>>),
    Histogram(Arc<Bounded<HistogramVec, Histogram>>),
}

/// A guest's counter.
#[allow(unreachable_pub, reason = "the generated bindings export it again")]
pub struct CounterHandle(Option<Arc<Bounded<IntCounterVec, IntCounter>>>);

/// A guest's histogram.
#[allow(unreachable_pub, reason = "the generated bindings export it again")]
pub struct HistogramHandle(Option<Arc<Bounded<HistogramVec, Histogram>>>);

impl CounterHandle {
    pub(super) fn add(&self, delta: u64, values: &[String]) {
        if let Some(bounded) = &self.0 {
            bounded.with(
                values,
                |counter| counter.inc_by(delta),
                |vec, values| vec.get_metric_with_label_values(values),
            );
        }
    }
}

impl HistogramHandle {
    pub(super) fn observe(&self, value: f64, values: &[String]) {
        if let (Some(bounded), true) = (&self.0, value.is_finite()) {
            bounded.with(values, |it| it.observe(value), |vec, values| vec.get_metric_with_label_values(values));
        }
    }
}

impl PluginSeries {
    fn new(plugin: &str, registry: Registry, host: Arc<PluginMeter>) -> Self {
        let prefix = format!("penstock_plugin_{}_", plugin.replace('-', "_"));
        Self { host, breaks: Breaks::new(), prefix, registry, metrics: Mutex::default() }
    }

    /// Those of a plugin that is only looked at: nobody will read them.
    pub(super) fn unread(plugin: &str) -> Self {
        Self::new(plugin, Registry::new(), Arc::default())
    }

    pub(super) fn counter(&self, name: &str, help: &str, labels: &[String]) -> CounterHandle {
        let metric = self.metric(name, labels, |full| {
            let vec = IntCounterVec::new(Opts::new(full, help_text(help)), &strs(labels))?;
            self.registry.register(Box::new(vec.clone()))?;
            Ok(Metric::Counter(Arc::new(Bounded::new(vec))))
        });
        match metric {
            Some(Metric::Counter(counter)) if counter.has_labels(labels) => CounterHandle(Some(counter)),
            _ => CounterHandle(None),
        }
    }

    pub(super) fn histogram(&self, name: &str, help: &str, labels: &[String]) -> HistogramHandle {
        let metric = self.metric(name, labels, |full| {
            let vec = HistogramVec::new(HistogramOpts::new(full, help_text(help)), &strs(labels))?;
            self.registry.register(Box::new(vec.clone()))?;
            Ok(Metric::Histogram(Arc::new(Bounded::new(vec))))
        });
        match metric {
            Some(Metric::Histogram(histogram)) if histogram.has_labels(labels) => HistogramHandle(Some(histogram)),
            _ => HistogramHandle(None),
        }
    }

    fn metric(
        &self,
        name: &str,
        labels: &[String],
        make: impl FnOnce(String) -> prometheus::Result<Metric>,
    ) -> Option<Metric> {
        let mut metrics = self.metrics.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(metric) = metrics.get(name) {
            return Some(metric.clone());
        }
        if metrics.len() >= METRICS_MAX || labels.len() > LABELS_MAX || name.len() > VALUE_BYTES_MAX {
            tracing::warn!(prefix = self.prefix, "a plugin asks for too many metrics or labels");
            return None;
        }
        match make(format!("{}{name}", self.prefix)) {
            Ok(metric) => {
                metrics.insert(name.to_owned(), metric.clone());
                Some(metric)
            }
            Err(error) => {
                tracing::warn!(prefix = self.prefix, %error, "a plugin asks for a metric that cannot be made");
                None
            }
        }
    }
}

/// A metric whose number of series is bounded.
struct Bounded<V, M> {
    vec: V,
    known: papaya::HashMap<Vec<String>, M>,
}

impl<V: Collector, M: Clone + Send + Sync> Bounded<V, M> {
    fn new(vec: V) -> Self {
        Self { vec, known: papaya::HashMap::new() }
    }

    fn has_labels(&self, labels: &[String]) -> bool {
        self.vec.desc().first().is_some_and(|desc| desc.variable_labels == labels)
    }

    /// Applies `use_it` to the series of these values. A wrong number of values counts nothing.
    fn with(&self, values: &[String], use_it: impl Fn(&M), make: impl Fn(&V, &[&str]) -> prometheus::Result<M>) {
        let known = self.known.pin();
        if let Some(series) = known.get(values) {
            return use_it(series);
        }
        let full = known.len() >= SERIES_MAX;
        let kept: Vec<&str> = values.iter().map(|value| if full { OVERFLOW } else { cut(value) }).collect();
        let Ok(series) = make(&self.vec, &kept) else { return };
        use_it(&series);
        if !full {
            known.insert(values.to_vec(), series);
        }
    }
}

fn strs(values: &[String]) -> Vec<&str> {
    values.iter().map(String::as_str).collect()
}

fn help_text(help: &str) -> &str {
    if help.is_empty() { "A plugin's own metric" } else { cut(help) }
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(VALUE_BYTES_MAX)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(values: &[&str]) -> Vec<String> {
        values.iter().map(|value| (*value).to_owned()).collect()
    }

    fn series(registry: &Registry) -> usize {
        registry.gather().iter().map(|family| family.get_metric().len()).sum()
    }

    #[test]
    fn the_number_of_series_is_bounded_and_nothing_goes_uncounted() {
        let (table, registry) = (SeriesTable::default(), Registry::new());
        let counter = table.of("a-b", &registry, false).counter("hits_total", "Hits", &strings(&["who"]));
        for number in 0..2000 {
            counter.add(1, &strings(&[&format!("caller-{number}")]));
        }
        assert_eq!(series(&registry), SERIES_MAX + 1);
        let family = &registry.gather()[0];
        assert_eq!(family.name(), "penstock_plugin_a_b_hits_total");
        let sum: f64 = family.get_metric().iter().map(|metric| metric.get_counter().get_value()).sum();
        assert!((sum - 2000.0).abs() < 0.5);
    }

    #[test]
    fn the_same_name_is_the_same_metric_and_another_shape_counts_nothing() {
        let (table, registry) = (SeriesTable::default(), Registry::new());
        for _generation in 0..2 {
            table.of("p", &registry, false).counter("n", "", &[]).add(1, &[]);
        }
        table.of("p", &registry, false).counter("n", "", &strings(&["label"])).add(1, &strings(&["x"]));
        table.of("p", &registry, false).histogram("n", "", &[]).observe(1.0, &[]);
        table.of("p", &registry, false).counter("not a name", "", &[]).add(1, &[]);
        table.of("p", &registry, false).counter("n", "", &[]).add(1, &strings(&["too", "many"]));
        assert_eq!(series(&registry), 1);
        let metric = &registry.gather()[0].get_metric()[0].clone();
        assert!((metric.get_counter().get_value() - 2.0).abs() < 0.5);
    }
}
