// SPDX-License-Identifier: Apache-2.0
//! Metrics of the plugin's own, exposed as `penstock_plugin_<plugin>_<name>`. Make them in `new`, not for each call.

/// A number that only grows.
#[derive(Debug)]
pub struct Counter(imp::Counter);

impl Counter {
    /// The counter of this name; the same name twice is the same counter.
    #[must_use]
    pub fn new(name: &str, help: &str, labels: &[&str]) -> Self {
        Self(imp::Counter::new(name, help, &owned(labels)))
    }

    /// Adds to the series of these label values. The host bounds the number of series.
    pub fn add(&self, delta: u64, values: &[&str]) {
        self.0.add(delta, &owned(values));
    }
}

/// A distribution.
#[derive(Debug)]
pub struct Histogram(imp::Histogram);

impl Histogram {
    /// The histogram of this name; the same name twice is the same histogram.
    #[must_use]
    pub fn new(name: &str, help: &str, labels: &[&str]) -> Self {
        Self(imp::Histogram::new(name, help, &owned(labels)))
    }

    /// Records a value in the series of these label values.
    pub fn observe(&self, value: f64, values: &[&str]) {
        self.0.observe(value, &owned(values));
    }
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[cfg(target_arch = "wasm32")]
mod imp {
    pub(super) use crate::guest::bindings::metrics::{Counter, Histogram};
}

/// A native test keeps no metrics.
#[cfg(not(target_arch = "wasm32"))]
mod imp {
    #[derive(Debug)]
    pub(super) struct Counter;

    impl Counter {
        pub(super) fn new(_name: &str, _help: &str, _labels: &[String]) -> Self {
            Self
        }

        #[allow(clippy::unused_self, reason = "the shape of the guest's binding")]
        pub(super) fn add(&self, _delta: u64, _values: &[String]) {}
    }

    #[derive(Debug)]
    pub(super) struct Histogram;

    impl Histogram {
        pub(super) fn new(_name: &str, _help: &str, _labels: &[String]) -> Self {
            Self
        }

        #[allow(clippy::unused_self, reason = "the shape of the guest's binding")]
        pub(super) fn observe(&self, _value: f64, _values: &[String]) {}
    }
}
