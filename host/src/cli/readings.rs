// SPDX-License-Identifier: Apache-2.0
//! Metrics of what something else keeps anyway: how upstreams, keys of vendors, plugins, the state and the directory are
//! doing. They are read when somebody asks for the metrics.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;

use super::logs;
use crate::directory::Directory;
use crate::metrics::reading::{Goes, Reading};
use crate::metrics::{Family, Metrics};
use crate::routes::Service;
use crate::shed::Shed;
use crate::snapshot::Snapshot;
use crate::state::State;
use crate::upstream::Endpoint;

const fn family(name: &'static str, labels: &'static [&'static str], help: &'static str) -> (Family, Goes) {
    (Family { name, help, labels }, Goes::Both)
}

/// The table.
pub(super) const ALL: &[(Family, Goes)] = &[
    family(UP, &["vendor", "upstream"], "1 if requests are sent there, 0 while its breaker is open."),
    family(INFLIGHT, &["vendor", "upstream"], "Requests under way at an upstream."),
    family(ENDPOINTS, &["service", "state"], "Endpoints of a plain HTTP service that are `well` or `ill`."),
    family(
        VENDOR_KEYS,
        &["vendor", "state"],
        "Keys of a vendor that are `ready`, or `cooling` down since it refused them.",
    ),
    family(INSTANCES, &["plugin"], "Instances in memory."),
    family(DORMANT, &[], "Optional vendors that are left out."),
    family(AWAY, &[], "1 while the shared state is away, 0 while it is there; always 0 without one."),
    family(UNSENT, &[], "Settled calls that the shared state has not been told, or has not acknowledged."),
    family(REVISION, &[], "Number of the last change of the directory."),
    family(
        CEILING,
        &[],
        "Requests that may be under way: `limits.requests_max`, and less while there are more than the gateway can do.",
    ),
    family(LOST, &[], "Lines of the log that could not be written since the start."),
];

const UP: &str = "penstock_upstream_up";
const ENDPOINTS: &str = "penstock_service_endpoints";
const INFLIGHT: &str = "penstock_upstream_inflight";
const VENDOR_KEYS: &str = "penstock_vendor_keys";
const INSTANCES: &str = "penstock_plugin_instances";
const DORMANT: &str = "penstock_vendors_dormant";
const AWAY: &str = "penstock_state_away";
const UNSENT: &str = "penstock_state_unsent";
const REVISION: &str = "penstock_directory_revision";
const CEILING: &str = "penstock_requests_ceiling";
const LOST: &str = "penstock_log_lines_lost";

/// Shows them from now on.
///
/// # Errors
/// The table is wrong.
pub(super) fn show(
    metrics: &Metrics,
    snapshot: Arc<ArcSwap<Snapshot>>,
    state: Arc<State>,
    directory: Directory,
    shed: Arc<Shed>,
) -> Result<(), prometheus::Error> {
    if let Some(round_trips) = state.round_trips() {
        metrics.registry().register(Box::new(round_trips.clone()))?;
    }
    metrics.read_when_asked(ALL, move |reading| {
        of_snapshot(&snapshot.load(), reading);
        reading.set(AWAY, &[], if state.is_away() { 1.0 } else { 0.0 });
        reading.set(UNSENT, &[], number(state.unsettled().unwrap_or_default()));
        reading.set(REVISION, &[], number(directory.view().revision));
        reading.set(CEILING, &[], number(shed.ceiling() as u64));
        reading.set(LOST, &[], number(logs::lost()));
    })
}

fn of_snapshot(snapshot: &Snapshot, reading: &mut Reading) {
    let now = Instant::now();
    // The same upstream may serve a vendor at several places, and be in several routes.
    let mut upstreams: BTreeMap<(&str, &str), &Endpoint> = BTreeMap::new();
    for vendor in snapshot.models.vendors.values() {
        for endpoint in vendor.endpoint.iter().chain(vendor.endpoints.values()) {
            upstreams.insert((&vendor.name, endpoint.place()), endpoint);
        }
        if let Some(pool) = &vendor.pool {
            let (ready, cooling) = pool.count(now);
            reading.set(VENDOR_KEYS, &[&vendor.name, "ready"], number(ready as u64));
            reading.set(VENDOR_KEYS, &[&vendor.name, "cooling"], number(cooling as u64));
        }
    }
    for ((vendor, upstream), endpoint) in upstreams {
        reading.set(UP, &[vendor, upstream], if endpoint.health.healthy(now) { 1.0 } else { 0.0 });
        reading.set(INFLIGHT, &[vendor, upstream], f64::from(endpoint.health.in_flight()));
    }
    for service in snapshot.services.values() {
        of_service(service, reading, now);
    }
    for (name, plugin) in snapshot.plugins() {
        // "plugins.fair", "vendors.echo": elsewhere the label is the name alone.
        let name = name.split_once('.').map_or(name, |(_, name)| name);
        reading.set(INSTANCES, &[name], f64::from(plugin.instances()));
    }
    reading.set(DORMANT, &[], number(snapshot.dormant.len() as u64));
}

fn of_service(service: &Service, reading: &mut Reading, now: Instant) {
    let members = service.fleet.now();
    // Several endpoints may be at one place, by different paths.
    let mut places: BTreeMap<&str, (bool, u32)> = BTreeMap::new();
    let mut well = 0_u64;
    for member in members.iter() {
        let is_well = member.is_well(&service.breaker, now);
        let place = places.entry(member.endpoint.place()).or_default();
        *place = (place.0 || is_well, place.1 + member.endpoint.health.in_flight());
        well += u64::from(is_well);
    }
    for (place, (is_well, in_flight)) in places {
        reading.set(UP, &[&service.name, place], if is_well { 1.0 } else { 0.0 });
        reading.set(INFLIGHT, &[&service.name, place], f64::from(in_flight));
    }
    reading.set(ENDPOINTS, &[&service.name, "well"], number(well));
    reading.set(ENDPOINTS, &[&service.name, "ill"], number(members.len() as u64 - well));
}

#[allow(clippy::cast_precision_loss, reason = "a metric is a float")]
fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{self, KEYS_MAX, MODELS_MAX, TEAMS_MAX, plugins};
    use crate::state::ROUND_TRIP;

    const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/observability.md");
    const MARKS: [&str; 2] = ["<!-- metrics: made by the test of host/src/cli/readings.rs -->", "<!-- /metrics -->"];

    fn table() -> String {
        let (name, help) = ROUND_TRIP;
        let round_trip = Family { name, help, labels: &[] };
        let families = metrics::ALL.iter().chain(plugins::ALL).chain(ALL.iter().map(|(family, _)| family));
        let rows = families.chain([&round_trip]).map(|family| {
            let labels: Vec<_> = family.labels.iter().map(|label| format!("`{label}`")).collect();
            format!("| `{}` | {} | {} |\n", family.name, labels.join(", "), family.help)
        });
        let mut rows: Vec<_> = rows.collect();
        rows.sort();
        format!("\n| metric | labels | what it is |\n|---|---|---|\n{}", rows.concat())
    }

    #[test]
    fn the_documentation_has_every_metric_as_the_code_has_it() {
        let page = std::fs::read_to_string(PAGE).unwrap();
        let (before, rest) = page.split_once(MARKS[0]).expect("the first mark");
        let (found, after) = rest.split_once(MARKS[1]).expect("the second mark");
        if std::env::var_os("PENSTOCK_BLESS").is_some() {
            let page = format!("{before}{}{}{}{after}", MARKS[0], table(), MARKS[1]);
            return std::fs::write(PAGE, page).unwrap();
        }
        assert_eq!(found, table(), "run this test with PENSTOCK_BLESS=1");
    }

    #[test]
    fn the_documentation_has_the_ceilings_of_labels() {
        let page = std::fs::read_to_string(PAGE).unwrap();
        for (label, max) in [("model", MODELS_MAX), ("key", KEYS_MAX), ("team", TEAMS_MAX)] {
            let row = format!("| `{label}` | {max} |");
            assert!(page.contains(&row), "{row}");
        }
    }
}
