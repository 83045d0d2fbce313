// SPDX-License-Identifier: Apache-2.0
//! Metrics that are read when somebody asks for them: what something else keeps anyway costs nothing until then, and what is
//! gone leaves no series behind.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{CounterVec, GaugeVec, Opts};

use super::{Family, Metrics, SERIES_MAX};

/// How the values of a family go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goes {
    /// Up only.
    Up,
    /// Up and down.
    Both,
}

/// Families with a way to read them.
struct Read<F> {
    families: &'static [(Family, Goes)],
    descriptions: Vec<Desc>,
    read: F,
}

/// Takes what is read.
pub struct Reading {
    families: Vec<(&'static str, Values)>,
    series: usize,
}

enum Values {
    Up(CounterVec),
    Both(GaugeVec),
}

impl Metrics {
    /// From now on these families are read whenever somebody asks for the metrics. `read` must not wait.
    ///
    /// # Errors
    /// A name or label is wrong, or there already.
    pub fn read_when_asked(
        &self,
        families: &'static [(Family, Goes)],
        read: impl Fn(&mut Reading) + Send + Sync + 'static,
    ) -> Result<(), prometheus::Error> {
        let described = families.iter().map(|(family, _)| {
            let labels = family.labels.iter().map(ToString::to_string).collect();
            Desc::new(family.name.to_owned(), family.help.to_owned(), labels, std::collections::HashMap::new())
        });
        let descriptions = described.collect::<Result<_, _>>()?;
        self.registry().register(Box::new(Read { families, descriptions, read }))
    }
}

impl Reading {
    fn of(families: &[(Family, Goes)]) -> Result<Self, prometheus::Error> {
        let made = families.iter().map(|(family, goes)| {
            let opts = Opts::new(family.name, family.help);
            Ok((
                family.name,
                match goes {
                    Goes::Up => Values::Up(CounterVec::new(opts, family.labels)?),
                    Goes::Both => Values::Both(GaugeVec::new(opts, family.labels)?),
                },
            ))
        });
        Ok(Self { families: made.collect::<Result<_, prometheus::Error>>()?, series: 0 })
    }

    /// A value of a family; values of the same labels are added up. Beyond [`SERIES_MAX`] nothing more is taken.
    pub fn set(&mut self, name: &str, labels: &[&str], value: f64) {
        self.series += 1;
        if self.series > SERIES_MAX {
            return;
        }
        match self.families.iter().find(|(known, _)| *known == name) {
            Some((_, Values::Up(family))) => {
                if let Ok(counter) = family.get_metric_with_label_values(labels) {
                    counter.inc_by(value.max(0.0));
                }
            }
            Some((_, Values::Both(family))) => {
                if let Ok(gauge) = family.get_metric_with_label_values(labels) {
                    gauge.add(value);
                }
            }
            None => {}
        }
    }
}

impl<F: Fn(&mut Reading) + Send + Sync> Collector for Read<F> {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Ok(mut reading) = Reading::of(self.families) else { return Vec::new() };
        (self.read)(&mut reading);
        let collected = reading.families.iter().flat_map(|(_, family)| match family {
            Values::Up(family) => family.collect(),
            Values::Both(family) => family.collect(),
        });
        collected.filter(|family| !family.get_metric().is_empty()).collect()
    }
}
